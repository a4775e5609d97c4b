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

"""Switching nova_sg on in nova.conf, as a source of configuration.

::

    [DEFAULT]
    config_source = nova_sg

    [nova_sg]
    driver = nova_sg

oslo.config opens the sources that a file names each time it reads the file.
Nova reads it twice: before it patches the standard library, when nothing may
be imported, and again afterwards. This source has no options; opening it
installs the hook.

To open one source, oslo.config imports all installed sources and the
libraries that they use. Some of these must not be imported before eventlet
patches the standard library. So they are removed from sys.modules first, if
the process is about to import eventlet.

If a source cannot be opened, oslo.config continues without it. Nova would
then run with its own service groups. So Nova is stopped.
"""

import logging
import sys

from oslo_config import sources

from nova_sg.nova import hook, names

NAME = "nova_sg"

# Modules that other sources import: libraries that would keep references to
# unpatched functions, and modules that use these libraries.
_UNTIMELY = (
    "castellan",
    "oslo_config.sources._uri",
    "oslo_context",
    "oslo_log",
    "oslo_serialization",
    "oslo_utils",
    "requests",
    "urllib3",
)


class Driver(sources.ConfigurationSourceDriver):
    """Switches nova_sg on in a process that reads a nova.conf."""

    def __init__(self):
        super().__init__()
        logging.getLogger("oslo_config.cfg").addFilter(_stop_if_not_opened)

    def open_source_from_opt_group(self, conf, group_name):
        if "nova" in sys.modules:
            names.check()
        hook.install()
        if "nova.monkey_patch" in sys.modules and (
            "nova.conf" not in sys.modules
            and not any(finder is _Eventlet for finder in sys.meta_path)
        ):
            sys.meta_path.insert(0, _Eventlet)
        return _Nothing()

    def list_options_for_discovery(self):
        return []


class _Nothing(sources.ConfigurationSource):
    """A source without options."""

    def get(self, group_name, option_name, opt):
        return sources._NoValue, None


class _Eventlet:
    """Notices that eventlet is being imported: patching will follow.

    A finder that finds nothing.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "eventlet":
            sys.meta_path.remove(_Eventlet)
            # Not later, when objects of these modules are in use.
            if "nova.conf" not in sys.modules:
                _forget()
        return None


def _forget() -> None:
    """Remove these modules, so that they are imported again when patched."""
    for name in list(sys.modules):
        if any(name == one or name.startswith(f"{one}.") for one in _UNTIMELY):
            del sys.modules[name]


def _stop_if_not_opened(record: logging.LogRecord) -> bool:
    """Stop Nova if oslo.config cannot open this source.

    A filter of oslo.config's log. It logs each reason, with the section and
    perhaps the driver, and shows it in no other way.
    """
    if (
        record.levelno >= logging.ERROR
        and isinstance(record.args, tuple)
        and NAME in record.args[:2]
        and "nova" in sys.modules
    ):
        names.stop(
            f"{record.getMessage().rstrip('.')}. nova.conf needs the line "
            "driver = nova_sg in the section [nova_sg]"
        )
    return True
