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

"""A process with guarded members, run as a module by the tests of the guard.

Its argument is JSON: options by section. It prints "ready" and reads orders,
one a line. After each it prints "done: ORDER":

join HOST...   members join
leave HOST...  members leave
fork           forks a child that does nothing, and prints its process id
"""

import json
import os
import select
import signal
import sys

import tests  # noqa: F401
from nova_sg import servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import reporter
from tests import base


def main(settings):
    CONF([], project="nova-sg", default_config_files=[])
    CONF.set_override("report_interval", 0.1)
    # Otherwise the second report comes five seconds after the first.
    reporter.INITIAL_REPORTING_DELAY = 0.1
    CONF.set_override("crash_guard", True, "servicegroup")
    for section, options in settings.items():
        for name, value in options.items():
            group = None if section == "DEFAULT" else section
            CONF.set_override(name, value, group)
    api = servicegroup.API()
    print("ready", flush=True)
    while True:
        select.select([sys.stdin], [], [])
        order, *hosts = os.read(0, 1 << 16).decode().split()
        for host in hosts:
            if order == "join":
                api.join(host, "compute", base.Member(host))
            elif order == "leave":
                api.leave(host, "compute")
        if order == "fork":
            child = os.fork()
            if not child:
                signal.pause()
            print(f"child {child}.", flush=True)
        print(f"done: {order}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
