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
"""

from oslo_config import sources

from nova_sg.nova import hook


class Driver(sources.ConfigurationSourceDriver):
    """Switches nova_sg on in a process that reads a nova.conf."""

    def open_source_from_opt_group(self, conf, group_name):
        hook.install()
        return _Nothing()

    def list_options_for_discovery(self):
        return []


class _Nothing(sources.ConfigurationSource):
    """A source without options."""

    def get(self, group_name, option_name, opt):
        return sources._NoValue, None
