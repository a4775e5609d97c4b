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

"""An API object that was made, and used, before a fork works in the child.

As in Nova's API and oslo.service's workers. The programs are processes of
their own: a test process does not fork well.
"""

import subprocess
import sys

from nova_sg.conf import CONF
from tests.functional import db

PROGRAM = """
import os
import sys
import time

import tests
from nova_sg import servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process, reporter

folder, connection = sys.argv[1:]
CONF([], project="nova-sg", default_config_files=[])
CONF.set_override("state_path", folder)
if connection:
    CONF.set_override("connection", connection, "database")
CONF.set_override("report_interval", 0.1)
# A child stays until its second report: long enough to be seen.
reporter.INITIAL_REPORTING_DELAY = 2
reporter.JOIN_WAIT = 60
CONF.set_override("service_down_time", 20)
CONF.set_override("view_refresh_interval", 0.05, "servicegroup")


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("too late")
        time.sleep(0.01)


def last_seen(host):
    api.refresh("compute")
    return api.member("compute", host).last_seen


api = servicegroup.API()
api.join("parent", "compute")
events = []
api.watch("compute", events.append)
assert api.service_is_up({"host": "parent", "topic": "compute"})

children = []
for number in range(3):
    pid = os.fork()
    if pid:
        children.append(pid)
        continue
    status = 1
    try:
        if tests.MODE == "eventlet":
            # As oslo.service does it in its workers.
            import eventlet.hubs
            eventlet.hubs.use_hub()
        host = f"child{number}"
        assert api.service_is_up({"host": "parent", "topic": "compute"})
        api.join(host, "compute")
        seen = last_seen(host)
        wait_for(lambda: last_seen(host) > seen)
        api.leave(host, "compute")
        assert not api.service_is_up({"host": host, "topic": "compute"})
        process.reset()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)

for pid in children:
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
# Nobody has taken the parent's connections from it.
seen = last_seen("parent")
wait_for(lambda: last_seen("parent") > seen)
wait_for(lambda: len(events) >= 6)
print(*sorted(f"{event.type}-{event.host}" for event in events))
process.reset()
"""


class ForkTest(db.TestCase):
    def test_fork(self):
        done = subprocess.run(
            [
                # Python 3.12 warns of forks of processes with threads.
                *(sys.executable, "-W", "ignore::DeprecationWarning"),
                *("-c", PROGRAM),
                *(self.folder, CONF.database.connection or ""),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual("", done.stderr)
        self.assertEqual(0, done.returncode)
        *statuses, events = done.stdout.splitlines()
        self.assertEqual(["0", "0", "0"], statuses)
        hosts = ("child0", "child1", "child2")
        self.assertEqual(
            [f"{kind}-{h}" for kind in ("joined", "left") for h in hosts],
            events.split(),
        )


class MariaDBForkTest(ForkTest, db.MariaDBTestCase):
    """The same with connections that are sockets."""
