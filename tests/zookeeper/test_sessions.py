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

"""Sessions: begin, handles, and end."""

import contextlib
import ctypes
import os
import threading
import time
import unittest

from nova_sg import zookeeper
from nova_sg.zookeeper import dispatch
from tests.fixtures import process
from tests.fixtures import zookeeper as fixture
from tests.zookeeper import base


class InitTest(base.TestCase):
    def test_watcher(self):
        fired = base.Recorder()
        handle = zookeeper.init(self.host, fired)
        self.addCleanup(zookeeper.close, handle)
        self.assertEqual(
            (handle, zookeeper.SESSION_EVENT, zookeeper.CONNECTED_STATE, ""),
            fired.wait())
        self.assertEqual(zookeeper.CONNECTED_STATE, zookeeper.state(handle))
        self.assertIs(False, zookeeper.is_unrecoverable(handle))

    def test_without_watcher(self):
        handle = zookeeper.init(self.host)
        self.addCleanup(zookeeper.close, handle)
        self.assertEqual([], zookeeper.get_children(handle, "/"))

    def test_recv_timeout(self):
        handle = self.connect(4000)
        self.assertEqual(4000, zookeeper.recv_timeout(handle))
        # The server limits the timeout.
        handle = self.connect(1000000)
        self.assertEqual(60000, zookeeper.recv_timeout(handle))

    def test_client_id_continues_a_session(self):
        client_id = zookeeper.client_id(self.handle)
        # The server would refuse a session that it does not know. There are
        # no requests, because each client now takes the session from the
        # other.
        other = self.connect(10000, client_id)
        self.assertEqual(client_id, zookeeper.client_id(other))

    def test_unknown_client_id(self):
        fired = base.Recorder()
        handle = zookeeper.init(
            self.host, fired, 10000, (123456, "mypassword"))
        self.addCleanup(zookeeper.close, handle)
        self.assertEqual(zookeeper.EXPIRED_SESSION_STATE, fired.wait()[2])
        self.assertEqual(
            (123456, "mypassword"), zookeeper.client_id(handle))
        self.assertIs(True, zookeeper.is_unrecoverable(handle))
        with self.assertRaises(zookeeper.InvalidStateException):
            zookeeper.get(handle, "/")

    def test_chroot(self):
        self.create("/a", "x")
        plain = base.connect(self.server.address)
        self.addCleanup(zookeeper.close, plain)
        self.assertEqual("x", zookeeper.get(plain, self.root + "/a")[0])

    def test_bad_hosts(self):
        for host in ("", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:1/a//b",
                     "a\0b:1"):
            with (self.subTest(host),
                  self.assertRaises(zookeeper.ZooKeeperException)):
                zookeeper.close(zookeeper.init(host))

    def test_deterministic_conn_order(self):
        dead = f"127.0.0.1:{process.free_port()}"
        zookeeper.deterministic_conn_order(True)
        self.addCleanup(zookeeper.deterministic_conn_order, False)
        handle = base.connect(f"{dead},{self.host}")
        zookeeper.close(handle)

    def test_tls(self):
        if hasattr(zookeeper, "init_ssl"):
            with self.assertRaises(zookeeper.ZooKeeperException):
                zookeeper.init_ssl("", "a,b,c,d")
        else:
            with self.assertRaisesRegex(
                    zookeeper.UnimplementedException, "without TLS"):
                _ = zookeeper.init_ssl


class HandleTest(base.TestCase):
    def test_lowest_free_number(self):
        handles = [zookeeper.init(self.host) for _ in range(5)]
        for handle in handles:
            self.addCleanup(base.close_quietly, handle)
        zookeeper.close(handles[3])
        again = zookeeper.init(self.host)
        self.addCleanup(zookeeper.close, again)
        self.assertEqual(handles[3], again)

    def test_closed(self):
        handle = self.connect()
        self.assertEqual(zookeeper.OK, zookeeper.close(handle))
        for number in (handle, int(handle)):
            self._check_refused(number)

    def test_closed_and_its_number_in_use_again(self):
        handle = self.connect()
        zookeeper.close(handle)
        again = self.connect()
        self.assertEqual(handle, again)
        self._check_refused(handle)
        self.assertEqual([], zookeeper.get_children(int(again), "/"))

    def test_forged(self):
        for number in (-1, 12345, 1 << 80):
            self._check_refused(number)
        for number in (None, "0", 0.0):
            with self.subTest(number), self.assertRaises(TypeError):
                zookeeper.get(number, "/")

    def _check_refused(self, handle):
        for call in (
                lambda: zookeeper.get(handle, "/"),
                lambda: zookeeper.aget(handle, "/"),
                lambda: zookeeper.create(handle, "/a", "", base.OPEN),
                lambda: zookeeper.state(handle),
                lambda: zookeeper.client_id(handle),
                lambda: zookeeper.recv_timeout(handle),
                lambda: zookeeper.is_unrecoverable(handle),
                lambda: zookeeper.set_watcher(handle, print),
                lambda: zookeeper.add_auth(handle, "digest", "a:b", None),
                lambda: zookeeper.close(handle)):
            with (self.subTest(handle),
                  self.assertRaisesRegex(
                      zookeeper.ZooKeeperException, "zhandle")):
                call()


class CloseTest(base.TestCase):
    def test_ephemerals_are_gone_at_once(self):
        other = self.connect(60000)
        zookeeper.create(other, "/a", "", base.OPEN, zookeeper.EPHEMERAL)
        zookeeper.close(other)
        self.assertIsNone(zookeeper.exists(self.handle, "/a"))

    def test_in_a_completion(self):
        handle = self.connect()
        closed = base.Recorder()
        zookeeper.aget(
            handle, "/", None,
            lambda handle, *args: closed(zookeeper.close(handle)))
        self.assertEqual((zookeeper.OK,), closed.wait())

    def test_in_the_session_watcher(self):
        closed = base.Recorder()
        zookeeper.init(
            self.host,
            lambda handle, *args: closed(zookeeper.close(handle)))
        self.assertEqual((zookeeper.OK,), closed.wait())

    def test_while_a_callback_runs(self):
        running = threading.Event()
        release = threading.Event()
        self.addCleanup(release.set)

        def callback(*args):
            running.set()
            release.wait()

        handle = self.connect()
        zookeeper.aget(handle, "/", None, callback)
        self.assertTrue(running.wait(process.PATIENCE))
        self.assertEqual(
            zookeeper.OK, zookeeper.close(handle, timeout=process.PATIENCE))

    def test_with_requests_under_way(self):
        handle = self.connect()
        done = base.Recorder()
        for _ in range(1000):
            zookeeper.aget(handle, "/", base.Recorder(), done)
        zookeeper.close(handle)
        done.wait(1000)
        self.assertLessEqual(
            {rc for _, rc, *_ in done.calls},
            {zookeeper.OK, zookeeper.CLOSING})

    def test_with_requests_that_are_never_answered(self):
        handle = self.connect(60000)
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        done = base.Recorder()
        failed = base.Recorder()

        def wait():
            try:
                zookeeper.get(handle, "/")
            except zookeeper.ZooKeeperException as exc:
                failed(exc)

        waiting = threading.Thread(target=wait)
        waiting.start()
        for _ in range(100):
            zookeeper.aget(handle, "/", None, done)
        zookeeper.close(handle, timeout=process.PATIENCE)
        waiting.join(process.PATIENCE)
        self.assertIsInstance(
            failed.wait()[0], zookeeper.ClosingException)
        done.wait(100)
        self.assertEqual(
            {(handle, zookeeper.CLOSING, None, None)}, set(done.calls))

    def test_no_event_afterwards(self):
        handle = self.connect()
        fired = base.Recorder()
        zookeeper.exists(handle, "/a", fired)
        zookeeper.set_watcher(handle, fired)
        zookeeper.close(handle)
        self.create("/a")
        zookeeper.get(self.handle, "/a")
        self.assertEqual([], fired.calls)

    def test_takes_too_long(self):
        handle = self.connect(60000)
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        with self.assertRaises(zookeeper.OperationTimeoutException):
            zookeeper.close(handle, timeout=0.05)
        with self.assertRaisesRegex(zookeeper.ZooKeeperException, "freed"):
            zookeeper.state(handle)


class TimeoutTest(base.TestCase):
    def test_no_answer(self):
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        begin = time.monotonic()
        with self.assertRaises(zookeeper.OperationTimeoutException):
            zookeeper.get(self.handle, "/", timeout=0.2)
        self.assertGreater(time.monotonic() - begin, 0.19)
        self.server.thaw()
        self.assertEqual([], zookeeper.get_children(self.handle, "/"))

    def test_a_late_answer_harms_no_other_call(self):
        self.create("/a", "x")
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        for _ in range(10):
            with self.assertRaises(zookeeper.OperationTimeoutException):
                zookeeper.get(self.handle, "/a", timeout=0.01)
        self.server.thaw()
        self.assertEqual("x", zookeeper.get(self.handle, "/a")[0])


class CooperationTest(base.TestCase):
    """No call stops other threads, green ones included."""

    def _check(self, calls):
        def stood_still():
            with base.Ticker() as ticker:
                calls()
            return ticker.longest

        self.assertLess(process.quickest(stood_still, 0.3), 0.3)

    def _call(self, function, *args, **kwargs):
        with contextlib.suppress(zookeeper.ZooKeeperException):
            return function(*args, **kwargs)

    def test_server_that_does_not_answer(self):
        with fixture.ZooKeeperServer() as server:

            def calls():
                server.thaw()
                handle = base.connect(server.address)
                server.freeze()
                self._call(zookeeper.get, handle, "/", timeout=1)
                self._call(zookeeper.exists, handle, "/", timeout=0.5)
                # Closing, the C client waits up to 1.5 s for an answer.
                self._call(zookeeper.close, handle)
                handle = zookeeper.init(server.address)
                self._call(zookeeper.get, handle, "/", timeout=1)
                self._call(zookeeper.close, handle)

            self._check(calls)

    def test_no_server(self):
        dead = f"127.0.0.1:{process.free_port()}"

        def calls():
            handle = zookeeper.init(dead)
            self._call(zookeeper.get, handle, "/", timeout=1)
            self._call(zookeeper.close, handle)

        self._check(calls)

    def test_name_that_does_not_resolve(self):
        def calls():
            handle = self._call(
                zookeeper.init, "nowhere.invalid:2181", timeout=3)
            if handle is not None:
                self._call(zookeeper.close, handle)

        self._check(calls)


class StandstillTest(base.TestCase):
    def test_a_session_outlives_a_standstill_longer_than_its_timeout(self):
        """The C client pings without the GIL."""
        seconds = 9
        # It logs as much as it can, while no thread reads the log.
        zookeeper.set_debug_level(zookeeper.LOG_LEVEL_DEBUG)
        self.addCleanup(
            zookeeper.set_debug_level, zookeeper.LOG_LEVEL_WARN)
        fired = base.Recorder()
        handle = zookeeper.init(self.host, fired, 6000)
        self.addCleanup(zookeeper.close, handle)
        fired.wait()
        self.assertEqual(6000, zookeeper.recv_timeout(handle))
        zookeeper.create(handle, "/a", "", base.OPEN, zookeeper.EPHEMERAL)
        client_id = zookeeper.client_id(handle)

        with base.Ticker() as ticker:
            # PyDLL keeps the GIL during the call.
            self.assertEqual(0, ctypes.PyDLL(None).sleep(seconds))
        self.assertGreater(ticker.longest, seconds - 0.1)

        self.assertEqual(
            zookeeper.CONNECTED_STATE, zookeeper.state(handle))
        self.assertEqual(client_id, zookeeper.client_id(handle))
        self.assertIsNotNone(zookeeper.exists(self.handle, "/a"))
        zookeeper.set(handle, "/a", "x")
        self.assertEqual(1, len(fired.calls))


class CyclesTest(base.TestCase):
    """Open and close, NOVA_SG_TEST_CYCLES times."""

    def test_no_resource_is_left(self):
        cycles = int(os.environ.get("NOVA_SG_TEST_CYCLES", "500"))
        for _ in range(100):
            self._cycle()
        before = self._resources()
        begin = time.monotonic()
        for _ in range(cycles):
            self._cycle()
        seconds = time.monotonic() - begin
        # The thread of the last callback may not have ended yet.
        process.wait_for(
            lambda: all(
                now <= then for now, then in zip(
                    self._resources()[:3], before[:3], strict=True)),
            message=lambda: (
                f"{before} are left as before, not {self._resources()}"))
        grown = self._resources()[3] - before[3]
        if "NOVA_SG_TEST_CYCLES" in os.environ:
            print(f"{cycles} cycles in {seconds:.1f} s: "
                  f"{grown / 1024:.0f} KiB more")
        self.assertLess(grown, 3 * 1024 * 1024)

    def _cycle(self):
        connected = threading.Event()
        handle = zookeeper.init(
            self.host, lambda *args: connected.set(), 10000)
        self.assertTrue(connected.wait(process.PATIENCE))
        zookeeper.get(handle, "/", lambda *args: None)
        zookeeper.aget(handle, "/", None, lambda *args: None)
        zookeeper.close(handle)

    @staticmethod
    def _resources():
        """Return descriptors, threads, C's contexts and resident bytes."""
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * os.sysconf(
                "SC_PAGE_SIZE")
        return (len(os.listdir("/proc/self/fd")),
                len(os.listdir("/proc/self/task")),
                len(dispatch.contexts), resident)


if __name__ == "__main__":
    unittest.main()
