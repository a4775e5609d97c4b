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

"""Puts nova_sg's API in the place of Nova's, as soon as Nova has one.

Nova's own module is imported as it is, by Nova and when Nova wants it: after
it has decided between native threads and eventlet. Then one name in it is
given another meaning, before anybody can have seen the first.

Kept small: a .pth file may have this imported at the start of every process.
"""

import importlib.machinery
import sys

#: Nova's module, and where it makes its API known a second time.
API_MODULE = "nova.servicegroup.api"
PACKAGE = "nova.servicegroup"
#: Nova's module that asks where new work may be placed.
FILTER_MODULE = "nova.scheduler.filters.compute_filter"
#: What every process of Nova's imports.
CONF_MODULE = "nova.conf"


def install() -> None:
    """Have Nova use nova_sg's servicegroup API in this process.

    Calling it again does nothing more.
    """
    module = sys.modules.get(API_MODULE)
    if module is None:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        return
    _replace(module)
    package = sys.modules.get(PACKAGE)
    if hasattr(package, "API"):
        vars(package)["API"] = module.API
    if FILTER_MODULE in sys.modules:
        _replace_in_filter(sys.modules[FILTER_MODULE])


def installed() -> bool:
    """Whether Nova, in this process, has got our API."""
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
    """Have the scheduler's filter ask whether a member accepts new work."""
    from nova_sg.nova import names

    names.check_imported(names.PLACING)
    # It is of the package, so it is there.
    from nova_sg.nova import api

    module.servicegroup = api.placement


class _Finder:
    """Finds our modules, the way they would be found without us."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == CONF_MODULE:
            # Now it is certain that this is Nova.
            from nova_sg.nova import names

            names.check()
        replace = _REPLACE.get(name)
        if replace is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader, replace)
        return spec


_REPLACE = {API_MODULE: _replace, FILTER_MODULE: _replace_in_filter}


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
