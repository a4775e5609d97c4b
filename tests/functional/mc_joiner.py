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
"""A process that joins groups of the mc driver on command.

Usage: python -m tests.functional.mc_joiner SERVERS HOSTS GROUPS, each a list
with commas. It prints "ready", waits for a line, joins, and ends; its members
send one report each.
"""

import sys

# Before all others: it decides on the concurrency mode.
import tests  # isort: skip

from nova_sg import servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from tests.functional import mc


def main(servers, hosts, groups):
    CONF([], project="nova-sg", default_config_files=[])
    CONF.set_override("servicegroup_driver", "mc")
    CONF.set_override("memcached_servers", servers)
    api = servicegroup.API()
    print("ready", flush=True)
    sys.stdin.readline()
    members = []
    for group in groups:
        for host in hosts:
            member = mc.Ticking(host, group)
            api.join(host, group, member)
            if member.model_disconnected:
                sys.exit(f"{host} could not report, mode {tests.MODE}")
            members.append(member)
    process.reset()


if __name__ == "__main__":
    main(*(argument.split(",") for argument in sys.argv[1:]))
