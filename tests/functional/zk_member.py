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

"""A process with members, run as a module by the tests of the zk driver.

Its argument is JSON: hosts, options by section, and wait: whether to print
"ready" and join only after a line on its input. It prints "joined" when all
members are up. Each further line on its input is an order, after which it
prints "done: ORDER":

pause SECONDS   the hub stands still; on native threads every timer does
pause FILE      the same, until the file exists
spin SECONDS    like pause, while Python computes without a break
spin FILE       the same, until the file exists
freeze SECONDS  all of Python stands still
leave           all members leave
end             the process ends, without leaving
"""

import ctypes
import json
import os
import select
import sys
import time

import tests  # noqa: F401
from nova_sg import exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from tests import base


def main(settings):
    CONF([], project="nova-sg", default_config_files=[])
    CONF.set_override("servicegroup_driver", "zk")
    CONF.set_override("report_interval", 0.1)
    for section in ("DEFAULT", "zookeeper"):
        for name, value in settings[section].items():
            group = None if section == "DEFAULT" else section
            CONF.set_override(name, value, group)
    if settings.get("wait"):
        print("ready", flush=True)
        sys.stdin.readline()
    api = servicegroup.API()
    members = [base.Member(host) for host in settings["hosts"]]
    for member in members:
        api.join(member.host, "compute", member)
    while not set(settings["hosts"]) <= set(_all(api)):
        time.sleep(0.01)
    print("joined", flush=True)
    while True:
        select.select([sys.stdin], [], [])
        order, *how_long = os.read(0, 1000).decode().split()
        if order in ("pause", "spin"):
            _stand_still(members, order, how_long[0])
        elif order == "freeze":
            # PyDLL keeps the interpreter lock.
            ctypes.PyDLL(None).sleep(int(how_long[0]))
        elif order == "leave":
            for member in members:
                api.leave(member.host, "compute")
        elif order == "end":
            process.reset()
            return
        print(f"done: {order}", flush=True)


def _all(api):
    try:
        return api.get_all("compute")
    except exception.ServiceGroupUnavailable:
        return []


def _stand_still(members, how, how_long):
    begun = time.monotonic()

    def over():
        if os.path.isabs(how_long):
            return os.path.exists(how_long)
        return time.monotonic() - begun > float(how_long)

    for member in members:
        member.tg.moving.clear()
    while not over():
        if how == "pause":
            # CDLL releases the interpreter lock.
            ctypes.CDLL(None).usleep(10_000)
    for member in members:
        member.tg.moving.set()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
