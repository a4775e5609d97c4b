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

"""Every option, one module a section; CONF is the one ConfigOpts.

CONF is oslo.config's global instance, as Nova's is: inside a Nova process
both read the same files. An option that Nova has registered already keeps
Nova's definition.
"""

from oslo_config import cfg

from nova_sg.conf import (
    base,
    cache,
    database,
    events,
    masakari,
    memcache,
    monitor,
    service,
    servicegroup,
    zookeeper,
)

CONF = cfg.CONF

SECTIONS = (
    base,
    cache,
    database,
    events,
    masakari,
    memcache,
    monitor,
    service,
    servicegroup,
    zookeeper,
)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option of nova_sg on conf.

    An option that is registered already stays as it is: inside Nova it is
    Nova's own.
    """
    for section in SECTIONS:
        for group, opts in section.list_opts().items():
            section_name = None if group == "DEFAULT" else group
            for opt in opts:
                try:
                    conf.register_opt(opt, group=section_name)
                except cfg.DuplicateOptError:
                    pass


register_opts(CONF)
