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

"""The names in Nova and in libraries on which nova_sg inside Nova relies.

Another release may not have them. Then Nova must not run with its own service
groups instead of nova_sg's: a part of the cloud would use another backend. So
each name is checked when Nova starts, and Nova is stopped if one is missing.

Importing this module imports nothing of Nova, and no library.
"""

import importlib.machinery
import sys
from typing import NamedTuple, NoReturn


class Name(NamedTuple):
    """A module or an attribute that has to exist."""

    module: str
    #: The attribute, with dots; empty: only the module has to exist.
    attribute: str
    #: The module of nova_sg that uses it.
    place: str

    def __str__(self) -> str:
        return ".".join(filter(None, (self.module, self.attribute)))


#: Needed in every process of Nova's.
ALWAYS = (
    Name("oslo_config.sources", "_NoValue", "nova.config_source"),
    Name("nova.monkey_patch", "", "nova.config_source"),
    Name("nova.conf", "CONF", "nova.config_source"),
    Name("nova.conf.servicegroup", "SERVICEGROUP_OPTS", "nova.api"),
    Name("nova.servicegroup", "API", "nova.hook"),
    Name("nova.servicegroup.api", "API", "nova.hook"),
    Name("nova.servicegroup.api", "API.join", "nova.api"),
    Name("nova.servicegroup.api", "API.service_is_up", "nova.api"),
    Name("nova.servicegroup.api", "API.get_updated_time", "nova.api"),
)
#: Needed in the scheduler.
PLACING = (
    Name("nova.scheduler.filters.compute_filter", "servicegroup", "nova.hook"),
)
#: Needed where instances are evacuated and deleted.
INSTANCES = (
    Name("nova.compute.api", "API.evacuate", "nova.unknown"),
    Name("nova.compute.api", "API._delete", "nova.unknown"),
    Name("nova.exception", "ComputeServiceInUse", "nova.unknown"),
)
#: Needed where services are deleted.
DELETION = (Name("nova.objects.service", "Service.destroy", "nova.deletion"),)
#: Needed with [servicegroup] coalesce_reports.
COALESCING = (
    Name("nova.db.main.api", "service_update", "nova.coalesce"),
    Name("nova.db.main.api", "get_context_manager", "nova.coalesce"),
    Name("nova.db.main.api", "DISABLE_DB_ACCESS", "nova.coalesce"),
    Name("nova.db.main.models", "Service.__table__", "nova.coalesce"),
)
#: Needed if eventlet is used.
GREEN = (Name("eventlet.hubs", "use_hub", "nova.api"),)


def check(executed: str = "") -> None:
    """Check the names that are always needed, without importing anything.

    The attributes of modules that are imported already are checked; of other
    modules only whether they exist. A module whose import is under way may
    get its attributes later, so they are not checked.

    :param executed: a module that has all its attributes though its import
        is still under way
    :raises SystemExit: a name is missing; the text names it
    """
    for name in ALWAYS:
        if name.module in sys.modules:
            if name.module == executed or not _is_underway(name.module):
                _check_attribute(name)
        elif name.module.startswith("nova.") and not _can_be_found(
            name.module
        ):
            stop(f"{name.module} is missing")
    if "eventlet.hubs" in sys.modules:
        check_imported(GREEN)


def check_imported(names: tuple[Name, ...]) -> None:
    """Check names in modules that have to be imported by now.

    :raises SystemExit: as check()
    """
    for name in names:
        if name.module not in sys.modules:
            stop(f"{name.module} is not imported")
        _check_attribute(name)


def stop(trouble: str) -> NoReturn:
    """End Nova before it runs without nova_sg.

    :param trouble: what is wrong
    :raises SystemExit: always, and not an Exception, which oslo.config would
        catch. Its text goes to stderr, and the exit status is 1
    """
    from nova_sg import version

    raise SystemExit(
        f"nova_sg {version.version_string()} cannot work with this Nova: "
        f"{trouble}. Nova is stopped, as with its own service groups it "
        "would use another backend than the rest of the cloud. Install a "
        "release of nova_sg for this release of Nova. Or go back to Nova's "
        "own service groups on every node: take nova_sg out of [DEFAULT] "
        "config_source, or call nova-sg nova disable"
    )


def _check_attribute(name: Name) -> None:
    found = sys.modules[name.module]
    for part in filter(None, name.attribute.split(".")):
        if not hasattr(found, part):
            stop(f"{name} is missing (nova_sg.{name.place} needs it)")
        found = getattr(found, part)


def _is_underway(module: str) -> bool:
    spec = getattr(sys.modules[module], "__spec__", None)
    return getattr(spec, "_initializing", False)


def _can_be_found(module: str) -> bool:
    """Whether a module could be imported; it is not imported."""
    path, name = None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
        if path is None:
            return name == module
    return True
