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
what they are made of. What must not be there before the patching, is made to
go again.
"""

import sys

from oslo_config import sources

from nova_sg.nova import hook

# What other sources bring: libraries that keep what they find unpatched, and
# who has a hold on them.
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

    def open_source_from_opt_group(self, conf, group_name):
        hook.install()
        if "nova.monkey_patch" in sys.modules and (
            "nova.conf" not in sys.modules
        ):
            _forget()
        return _Nothing()

    def list_options_for_discovery(self):
        return []


class _Nothing(sources.ConfigurationSource):
    """A source without options."""

    def get(self, group_name, option_name, opt):
        return sources._NoValue, None


def _forget() -> None:
    """Have who imports one of these later get it anew, patched or not."""
    for name in list(sys.modules):
        if any(name == one or name.startswith(f"{one}.") for one in _UNTIMELY):
            del sys.modules[name]
