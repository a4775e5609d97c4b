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

"""Processes that end, and processes that fork, with sessions open."""

import unittest

from nova_sg import zookeeper
from nova_sg.zookeeper import sessions
from tests import LONG
from tests.fixtures import zookeeper as fixture
from tests.zookeeper import base

# The begin of a program with a session, `handle`, to the server sys.argv[1].
_BEGIN = """
import logging, os, sys, threading, time
from nova_sg import zookeeper
from tests.zookeeper import base
logging.basicConfig(level=logging.ERROR)
handle = base.connect(sys.argv[1], 60000)
"""


class ExitTest(base.TestCase):
    """A program with open sessions ends in time and without output."""

    def _check(self, program, *args, seconds=60.0, status=0):
        result, output, took = base.run_python(program, *args)
        self.assertEqual("", output)
        self.assertEqual(status, result)
        self.assertLess(took, seconds)

    def test_the_server_is_told(self):
        self._check(_BEGIN + """
zookeeper.create(handle, "/a", "", base.OPEN, zookeeper.EPHEMERAL)
""", self.host)
        self.assertIsNone(zookeeper.exists(self.handle, "/a"))

    def test_many_sessions(self):
        self._check(_BEGIN + """
for i in range(30):
    zookeeper.init(sys.argv[1], lambda *args: time.sleep(0.1))
""", self.host)

    def test_while_requests_are_under_way(self):
        for _ in range(10 if LONG else 3):
            self._check(_BEGIN + """
def again(*args):
    try:
        zookeeper.aget(handle, "/", None, again)
    except zookeeper.ZooKeeperException:
        pass
for i in range(100):
    again()
    zookeeper.aget(handle, "/", again, again)
time.sleep(0.05)
""", self.host)

    def test_while_a_callback_waits(self):
        self._check(_BEGIN + """
started = threading.Event()
def forever(*args):
    started.set()
    time.sleep(3600)
zookeeper.aget(handle, "/", None, forever)
started.wait()
""", self.host)

    def test_status(self):
        self._check(_BEGIN + "sys.exit(3)", self.host, status=3)

    def test_closed_before(self):
        self._check(_BEGIN + "zookeeper.close(handle)", self.host)

    def test_no_server(self):
        with fixture.ZooKeeperServer() as server:
            self._check(_BEGIN + """
logging.disable()
os.kill(int(sys.argv[2]), 9)
while zookeeper.state(handle) == zookeeper.CONNECTED_STATE:
    time.sleep(0.01)
""", server.address, str(server.pid))

    def test_server_that_does_not_answer(self):
        with fixture.ZooKeeperServer() as server:
            self._check(_BEGIN + """
os.kill(int(sys.argv[2]), 19)
zookeeper.aget(handle, "/", None, None)
""", server.address, str(server.pid), seconds=60 + sessions.EXIT_TIMEOUT)


class ForkTest(base.TestCase):
    """The child of a fork has no session, and can have its own."""

    PROGRAM = _BEGIN + """
import warnings
warnings.simplefilter("ignore")
logging.disable()

def child():
    if tests.MODE == "eventlet":
        # oslo.service does so in its children: the hub is the parent's.
        from eventlet import hubs
        hubs.use_hub()
    for number in (handle, int(handle)):
        try:
            zookeeper.get(number, "/")
        except zookeeper.ZooKeeperException:
            pass
        else:
            return 1
        try:
            zookeeper.close(number)
        except zookeeper.ZooKeeperException:
            pass
        else:
            return 2
    own = base.connect(sys.argv[1])
    zookeeper.create(own, f"/{os.getpid()}", "x", base.OPEN)
    if zookeeper.get(own, f"/{os.getpid()}")[0] != "x":
        return 3
    return 0

client_id = zookeeper.client_id(handle)
for i in range(10):
    # The C client's threads are busy at the time of the fork.
    for _ in range(20):
        zookeeper.aget(handle, "/")
    pid = os.fork()
    if not pid:
        # Through atexit, like any program, with its session open.
        sys.exit(child())
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"child {i}: {status:#x}")
    zookeeper.get(handle, f"/{pid}")
if zookeeper.client_id(handle) != client_id:
    sys.exit("the parent lost its session")
zookeeper.close(handle)
"""

    def test_fork(self):
        status, output, _ = base.run_python(self.PROGRAM, self.host)
        # eventlet's warning of a fork does not count.
        output = "\n".join(
            line for line in output.splitlines() if "fork" not in line)
        self.assertEqual("", output)
        self.assertEqual(0, status)
        self.assertEqual(
            10, len(zookeeper.get_children(self.handle, "/")))


if __name__ == "__main__":
    unittest.main()
