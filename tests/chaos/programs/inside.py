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

"""Nova with nova_sg inside, as nova-api has it.

It is imported before any module of Nova is.
"""

import os

from nova_sg.nova import hook

hook.install()

# After the hook, which replaces a name in it.
import nova.conf  # noqa: E402
from nova import config, servicegroup  # noqa: E402
from oslo_log import log  # noqa: E402

CONF = nova.conf.CONF


class Stack:
    """How a process asks."""

    def __init__(self, folder, group, hosts):
        config.set_lib_defaults()
        log.register_options(CONF)
        path = os.path.join(folder, "service.conf")
        CONF(["--config-file", path], project="nova")
        log.setup(CONF, "nova")
        #: Nova's API, which is nova_sg's.
        self.api = servicegroup.API()
