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

"""Base class and helpers of the tests of nova_sg.zookeeper."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

from nova_sg import zookeeper
from tests.fixtures import process
from tests.fixtures import zookeeper as fixture

OPEN = [{"perms": zookeeper.PERM_ALL, "scheme": "world", "id": "anyone"}]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class TestCase(unittest.TestCase):
    """A test with a session of its own, in a chroot of its own.

    :ivar server: the server.
    :ivar host: its address, with the chroot.
    :ivar handle: a session that is connected.
    """

    def setUp(self):
        super().setUp()
        self.server = process.shared(fixture.ZooKeeperServer)
        self.root = f"/{uuid.uuid4().hex}"
        self.host = self.server.address + self.root
        handle = connect(self.server.address)
        zookeeper.create(
            handle, self.root, "", OPEN, timeout=process.PATIENCE)
        zookeeper.close(handle)
        self.handle = self.connect()

    def connect(self, *args, **kwargs):
        """Connect to self.host; the session ends with the test."""
        handle = connect(self.host, *args, **kwargs)
        self.addCleanup(close_quietly, handle)
        return handle

    def create(self, path, value="", flags=zookeeper.EPHEMERAL):
        return zookeeper.create(self.handle, path, value, OPEN, flags)


class Recorder:
    """A callback that keeps the arguments of its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, *args):
        self.calls.append(args)

    def wait(self, count=1, timeout=process.PATIENCE):
        """Wait for so many calls; return the arguments of the last one."""
        process.wait_for(
            lambda: len(self.calls) >= count, timeout,
            lambda: f"{count} calls; there were {self.calls}")
        return self.calls[count - 1]


class Ticker:
    """A thread that measures for how long it stands still.

    Under eventlet it is green, and stands still while the hub is blocked.

    :ivar longest: the longest time that it stood still, in seconds.
    """

    def __enter__(self):
        self.longest = 0
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._running = False
        self._thread.join()

    def _run(self):
        last = time.monotonic()
        while self._running:
            time.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


def connect(host, recv_timeout=10000, clientid=(-1, "")):
    """Return the handle of a session that is connected."""
    connected = threading.Event()
    handle = zookeeper.init(
        host,
        lambda handle, kind, state, path: (
            state == zookeeper.CONNECTED_STATE and connected.set()),
        recv_timeout, clientid)
    if not connected.wait(process.PATIENCE):
        zookeeper.close(handle)
        raise AssertionError(f"not connected to {host}")
    return handle


def close_quietly(handle):
    try:
        zookeeper.close(handle, timeout=10)
    except zookeeper.ZooKeeperException:
        pass  # closed by the test


def run_python(program, *args, timeout=120):
    """Run a program in a new process of the same mode.

    :returns: its exit status, its output, and the seconds it took
    """
    begin = time.monotonic()
    # Without a deadline: a forked child would wait for the deadline's thread,
    # which it does not have.
    surroundings = {
        name: value for name, value in os.environ.items()
        if name != "NOVA_SG_TEST_DEADLINE"}
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", "import tests\n" + program, *args],
            stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, cwd=ROOT, env=surroundings,
            start_new_session=True)
        try:
            process.wait_for(
                lambda: child.poll() is not None, timeout,
                lambda: "the program ends; it printed " + _content(output))
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return child.returncode, _content(output), time.monotonic() - begin


def _content(output):
    output.seek(0)
    return output.read()
