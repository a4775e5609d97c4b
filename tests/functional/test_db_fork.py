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

Workers of Nova's API and of oslo.service are such children. The programs here
are processes of their own, because test processes have too many threads to
fork.
"""

import os
import subprocess
import sys
import threading
import time

import tests
from nova_sg.backends.db import forking
from nova_sg.conf import CONF
from tests import base
from tests.base import PATIENCE, wait_for
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
# Otherwise the second report comes five seconds after the first.
reporter.INITIAL_REPORTING_DELAY = 0.1
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


# A file that has the children leave, once all of them have been seen.
go = os.path.join(folder, "go")
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
            # oslo.service does so in its workers.
            import eventlet.hubs
            eventlet.hubs.use_hub()
        host = f"child{number}"
        assert api.service_is_up({"host": "parent", "topic": "compute"})
        api.join(host, "compute")
        seen = last_seen(host)
        wait_for(lambda: last_seen(host) > seen)
        wait_for(lambda: os.path.exists(go))
        api.leave(host, "compute")
        assert not api.service_is_up({"host": host, "topic": "compute"})
        process.reset()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)

try:
    wait_for(lambda: len(events) >= 3)
finally:
    open(go, "w").close()
for pid in children:
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
# The parent still has its connections.
seen = last_seen("parent")
wait_for(lambda: last_seen("parent") > seen)
wait_for(lambda: len(events) >= 6)
print(*sorted(f"{event.type}-{event.host}" for event in events))
process.reset()
"""


# Forks while threads open and close databases all the time.
BUSY = """
import os
import signal
import sys
import threading

import sqlalchemy as sa

import tests
from nova_sg.conf import CONF
from nova_sg.backends.db import engine

folder, patience = sys.argv[1:]
CONF([], project="nova-sg", default_config_files=[])


def use(name):
    database = engine.Database(sa.make_url(f"sqlite:///{folder}/{name}"))
    try:
        database.run(lambda connection: connection.execute(sa.select(1)))
    finally:
        database.close()


def keep_busy(name):
    while not ended.wait(0.001):
        use(name)


ended = threading.Event()
threads = [threading.Thread(target=keep_busy, args=[n]) for n in range(2)]
for thread in threads:
    thread.start()
for number in range(15):
    pid = os.fork()
    if not pid:
        # Not by faulthandler: the child does not have its thread.
        signal.alarm(int(patience))
        use(f"child{number}")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.stderr.write(f"child {number} hung\\n")
        break
ended.set()
for thread in threads:
    thread.join()
"""


def run(program, *arguments):
    """Run a program; return what it printed."""
    done = subprocess.run(
        # Python 3.12 warns of a fork in a process with threads.
        [sys.executable, "-W", "ignore::DeprecationWarning"]
        + ["-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
    )
    if done.stderr or done.returncode:
        raise AssertionError(f"status {done.returncode}: {done.stderr}")
    return done.stdout


class ForkTest(db.TestCase):
    def test_parent_and_children_report_and_observe(self):
        printed = run(
            PROGRAM, self.folder, CONF.database.connection or ""
        )
        *statuses, events = printed.splitlines()
        self.assertEqual(["0", "0", "0"], statuses)
        hosts = ("child0", "child1", "child2")
        self.assertEqual(
            [f"{kind}-{h}" for kind in ("joined", "left") for h in hosts],
            events.split(),
        )


class MariaDBForkTest(ForkTest, db.MariaDBTestCase):
    """The same with connections that are sockets."""


class SQLiteTest(base.TestCase):
    """A child can open databases, whatever threads did during the fork."""

    @tests.single_mode
    def test_a_fork_while_threads_are_inside_the_library(self):
        # Native threads only: no green thread runs while another is in C.
        run(BUSY, self.folder, str(PATIENCE))

    def test_a_fork_waits_until_no_thread_is_inside(self):
        leave, inside, left = (threading.Event() for _ in range(3))

        def stay():
            with forking.inside(), forking.inside():
                inside.set()
                leave.wait()
                left.set()

        def come_out():
            # A fork that did not wait would be over by then.
            time.sleep(0.2)
            leave.set()

        staying = threading.Thread(target=stay)
        staying.start()
        wait_for(inside.is_set)
        threading.Thread(target=come_out).start()
        # A thread does not wait for itself.
        with forking.inside():
            child = os.fork()
            if not child:
                os._exit(0 if left.is_set() else 1)
        self.addCleanup(staying.join)
        self.addCleanup(leave.set)
        _, status = os.waitpid(child, 0)
        self.assertEqual(0, status)
        # After the fork, threads may enter again.
        again = threading.Thread(target=stay)
        again.start()
        again.join()

    def test_a_fork_does_not_starve_while_threads_go_in_and_out(self):
        ended, entries = threading.Event(), []

        def go_in_and_out():
            while not ended.is_set():
                with forking.inside():
                    entries.append(None)
                    # So that one of the threads is always inside.
                    time.sleep(0.01)

        threads = [threading.Thread(target=go_in_and_out) for _ in range(4)]
        self.addCleanup(lambda: [thread.join() for thread in threads])
        self.addCleanup(ended.set)
        for thread in threads:
            thread.start()
        wait_for(lambda: len(entries) > 10)
        begun = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        self.assertLess(time.monotonic() - begun, forking.PATIENCE / 2)
        # After the fork they go on.
        entered = len(entries)
        wait_for(lambda: len(entries) > entered + 10)
