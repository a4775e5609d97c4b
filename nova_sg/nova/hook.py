# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Replaces Nova's servicegroup API by nova_sg's when Nova imports it.

Nova imports its own module as usual, after it has decided between native
threads and eventlet. Right after that import, before other code can use it,
one name in the module is replaced. Three more modules get additions in the
same way: see _REPLACE.

This module is small, as a .pth file may import it in every Python process.
"""

import importlib.machinery
import sys

#: Nova's module with the API, and the package that exports the API, too.
API_MODULE = "nova.servicegroup.api"
PACKAGE = "nova.servicegroup"
#: Nova's module that asks where new work may be placed.
FILTER_MODULE = "nova.scheduler.filters.compute_filter"
#: Nova's module that evacuates and deletes instances.
COMPUTE_MODULE = "nova.compute.api"
#: Nova's module that deletes the records of services.
SERVICE_MODULE = "nova.objects.service"
#: A module that every process of Nova's imports.
CONF_MODULE = "nova.conf"


def install() -> None:
    """Make Nova use nova_sg's servicegroup API in this process.

    A second call changes nothing.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    # The first one first, as the others need it.
    for name, replace in _REPLACE.items():
        if name in sys.modules:
            replace(sys.modules[name])
    module, package = map(sys.modules.get, (API_MODULE, PACKAGE))
    if module is not None and hasattr(package, "API"):
        vars(package)["API"] = module.API


def installed() -> bool:
    """Whether Nova's API has been replaced in this process."""
    module = sys.modules.get(API_MODULE)
    return getattr(module, "_nova_sg_replaced", None) is not None


def _replace(module) -> None:
    if getattr(module, "_nova_sg_replaced", None) is not None:
        return
    from nova_sg.nova import names

    names.check(executed=API_MODULE)
    from nova_sg.nova import api

    api.prepare()
    module._nova_sg_replaced = module.API
    module.API = api.API


def _replace_in_filter(module) -> None:
    """Make the scheduler's filter ask whether a member accepts new work."""
    from nova_sg.nova import names

    names.check_imported(names.PLACING)
    # Possible now: the filter has imported nova.servicegroup.
    from nova_sg.nova import api

    module.servicegroup = api.placement


def _guard_instances(module) -> None:
    """Have Nova neither evacuate nor delete by a state that is not known."""
    if getattr(module, "_nova_sg_guards", False):
        return
    from nova_sg.nova import names

    names.check_imported(names.INSTANCES)
    from nova_sg.nova import unknown

    unknown.guard_instances(
        module, sys.modules["nova.exception"].ComputeServiceInUse
    )
    module._nova_sg_guards = True


def _follow_deletions(module) -> None:
    """Have the backends forget a service whose record Nova deletes."""
    if getattr(module, "_nova_sg_follows", False):
        return
    from nova_sg.nova import names

    names.check_imported(names.DELETION)
    from nova_sg.nova import deletion

    deletion.follow(module)
    module._nova_sg_follows = True


class _Finder:
    """Finds these modules of Nova as usual, but with a _Loader."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == CONF_MODULE:
            # Only now is it certain that this process is Nova.
            from nova_sg.nova import names

            names.check()
        replace = _REPLACE.get(name)
        if replace is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader, replace)
        return spec


#: What is done to modules of Nova's once they are imported.
_REPLACE = {
    API_MODULE: _replace,
    FILTER_MODULE: _replace_in_filter,
    COMPUTE_MODULE: _guard_instances,
    SERVICE_MODULE: _follow_deletions,
}


class _Loader:
    """Loads a module as its own loader does, and replaces names in it."""

    def __init__(self, loader, replace) -> None:
        self._loader = loader
        self._replace = replace

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        self._loader.exec_module(module)
        self._replace(module)
