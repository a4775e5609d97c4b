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

"""How nova.conf switches nova_sg on: as a source of configuration.

::

    [DEFAULT]
    config_source = nova_sg

    [nova_sg]
    driver = nova_sg

oslo.config opens the sources that a file names each time it reads it, which
Nova does twice: once before it patches the standard library, when nothing may
be imported, and once for good. Our source has no options to give; that it is
opened is all it is for.

To open one source oslo.config loads all that are installed, and with them
what they are made of. Where the process then patches the standard library,
what must not be there before that is made to go again first; in a process of
native threads it stays.

oslo.config goes on without a source that cannot be opened. Nova must not: it
would run with its own service groups. So it is stopped.
"""

import logging
import sys

from oslo_config import sources

from nova_sg.nova import hook, names

NAME = "nova_sg"

# What other sources bring: libraries that keep what they find unpatched, and
# what refers to them.
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
    """Notices that eventlet is imported, which is about to patch.

    A finder that finds nothing.
    """

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "eventlet":
            sys.meta_path.remove(_Eventlet)
            # Later there are objects of them about.
            if "nova.conf" not in sys.modules:
                _forget()
        return None


def _forget() -> None:
    """Have what later imports one of these get it anew, patched."""
    for name in list(sys.modules):
        if any(name == one or name.startswith(f"{one}.") for one in _UNTIMELY):
            del sys.modules[name]


def _stop_if_not_opened(record: logging.LogRecord) -> bool:
    """Stop Nova where oslo.config would go on without our source.

    It logs each of its reasons, with the section and perhaps the driver;
    there is no other sign of them. A filter of its log.
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
