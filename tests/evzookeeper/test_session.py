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

"""ZKSession: calls, states, replacement after an expiry, closing."""

import os
import threading
import time
import unittest
from unittest import mock

from nova_sg import evzookeeper, zookeeper
from nova_sg.evzookeeper import membership, utils
from nova_sg.zookeeper import dispatch
from tests.evzookeeper import base
from tests.fixtures import process, proxy
from tests.fixtures import zookeeper as fixture
from tests.zookeeper import base as zk_base


class CallsTest(base.TestCase):
    def test_data(self):
        self.assertEqual(
            "/a", self.session.create(
                "/a", "x", [evzookeeper.ZOO_OPEN_ACL_UNSAFE],
                zookeeper.EPHEMERAL))
        self.assertEqual("x", self.session.get("/a")[0])
        self.assertEqual(zookeeper.OK, self.session.set("/a", "y", 0))
        self.assertEqual(2, self.session.set2("/a", "z")["version"])
        self.assertEqual(2, self.session.exists("/a")["version"])
        self.assertEqual(["a"], self.session.get_children("/"))
        self.assertEqual(zookeeper.OK, self.session.delete("/a", 2))
        self.assertEqual(zookeeper.OK, self.session.sync("/"))

    def test_exceptions(self):
        for call in (self.session.exists, self.session.get,
                     self.session.get_children, self.session.delete):
            with self.assertRaises(zookeeper.NoNodeException):
                call("/a")
        self.session.create("/a", "")
        with self.assertRaises(zookeeper.NodeExistsException):
            self.session.create("/a", "")

    def test_acl(self):
        self.session.add_auth("digest", "user:secret")
        acl = [{"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""}]
        self.session.create("/a", "", acl)
        (entry,), stat = self.session.get_acl("/a")
        self.assertEqual("digest", entry["scheme"])
        self.assertEqual(0, stat["aversion"])
        with self.assertRaises(zookeeper.NoAuthException):
            self.open().get("/a")
        self.session.set_acl("/a", -1, [evzookeeper.ZOO_OPEN_ACL_UNSAFE])
        self.open().get("/a")

    def test_watchers(self):
        fired = zk_base.Recorder()
        with self.assertRaises(zookeeper.NoNodeException):
            self.session.exists("/a", fired)
        self.session.create("/a", "")
        self.assertEqual(zookeeper.CREATED_EVENT, fired.wait()[1])
        self.session.get("/a", fired)
        self.session.get_children("/a", fired)
        self.session.delete("/a")
        fired.wait(3)

    def test_ensure_path(self):
        self.session.ensure_path("/a/b/c")
        self.session.ensure_path("/a/b/c")
        self.assertEqual(["c"], self.session.get_children("/a/b"))

    def test_ensure_path_makes_the_chroot(self):
        session = self.open(self.host + "-other")
        with self.assertRaises(zookeeper.NoNodeException):
            session.create("/a", "")
        session.ensure_path("/a/b")
        self.assertEqual(["b"], session.get_children("/a"))

    def test_ensure_path_needs_no_permission_for_existing_znodes(self):
        read = [{"perms": zookeeper.PERM_READ, "scheme": "world",
                 "id": "anyone"}]
        self.session.create("/a", "")
        self.session.create("/a/b", "")
        self.session.set_acl("/a", -1, read)
        self.session.ensure_path("/a/b")

    def test_log_stream(self):
        self.addCleanup(zookeeper.set_log_stream, None)
        with open(os.devnull, "w") as stream:
            self.open(zklog_fd=stream)


class StateTest(base.TestCase):
    # The C client makes no handle then.
    UNRESOLVED = zookeeper.OperationTimeoutException

    def test_connected(self):
        self.assertTrue(self.session.is_connected())
        self.assertEqual(zookeeper.CONNECTED_STATE, self.session.state())
        self.session.create("/a", "", flags=zookeeper.EPHEMERAL)
        self.assertEqual(
            self.session.session_id,
            self.session.exists("/a")["ephemeralOwner"])

    def test_ident(self):
        self.session.create("/a", "", flags=zookeeper.EPHEMERAL)
        other = self.open(ident=self.session.client_id())
        self.assertEqual(self.session.session_id, other.session_id)

    def test_ident_that_is_unknown(self):
        session = self.open(ident=(123456, "password"))
        self.assertNotEqual(123456, session.session_id)

    def test_no_server(self):
        dead = f"127.0.0.1:{process.free_port()}"
        before = base.threads()
        with self.assertRaises(zookeeper.OperationTimeoutException):
            self.open(dead, timeout=0.3)
        self.assertEqual(before, base.threads())

    def test_server_that_comes_later(self):
        server = fixture.ZooKeeperServer()
        self.addCleanup(server.close)
        session = self.open(server.address, timeout=None)
        self.assertFalse(session.is_connected())
        self.assertIsNone(session.session_id)
        with self.assertRaises((zookeeper.OperationTimeoutException,
                                zookeeper.ConnectionLossException)):
            session.get_children("/", timeout=0.1)
        self.assertFalse(session.wait_connected(0.1))
        server.start()
        self.assertTrue(session.wait_connected(process.PATIENCE))
        session.get_children("/")

    def test_name_that_does_not_resolve(self):
        def close():
            session = self.open("nowhere.invalid:2181", timeout=None)
            with self.assertRaises(self.UNRESOLVED):
                session.get("/", timeout=0.1)
            begin = time.monotonic()
            session.close(timeout=2)
            return time.monotonic() - begin

        self.assertLess(process.quickest(close, 4), 4)

    def test_events(self):
        events = base.Events()
        callback = utils.StatePipeCondition()
        with fixture.ZooKeeperServer() as server:
            session = self.open(
                server.address, timeout=None, recv_timeout=20000,
                init_cbs=[callback], listeners=[events])
            self.assertEqual(
                zookeeper.CONNECTED_STATE,
                callback.wait_and_get(process.PATIENCE)[2])
            process.wait_for(session.is_connected)
            server.kill()
            process.wait_for(lambda: not session.is_connected())
            self.assertEqual(
                zookeeper.CONNECTING_STATE,
                callback.wait_and_get(process.PATIENCE)[2])
            server.start()
            events.wait(evzookeeper.SUSPENDED, evzookeeper.CONNECTED)
            session.remove_connection_callback(callback)
            with self.assertRaises(KeyError):
                session.remove_connection_callback(callback)
            session.close()
            events.wait(evzookeeper.CLOSED)

    def test_a_listener_that_raises_stops_no_other(self):
        def fail(event):
            raise RuntimeError("on purpose")

        events = base.Events()
        self.session.add_listener(fail)
        self.session.add_listener(events)
        with self.assertLogs("nova_sg.evzookeeper", "ERROR"):
            self.session.close()
        events.wait(evzookeeper.CLOSED)


class ExpiryTest(base.TestCase):
    def test_replaced(self):
        events = base.Events()
        self.session.add_listener(events)
        self.session.create("/a", "", flags=zookeeper.EPHEMERAL)
        self.expire(self.session)
        events.wait(evzookeeper.EXPIRED, evzookeeper.CONNECTED)
        with self.assertRaises(zookeeper.NoNodeException):
            self.session.exists("/a")

    def test_authentication_is_kept(self):
        self.session.add_auth("digest", "user:secret")
        self.session.create("/a", "x", [
            {"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""}])
        self.expire(self.session)
        self.assertEqual("x", self.session.get("/a")[0])

    def test_calls_during_an_expiry_end(self):
        ended = []

        def call():
            while not ended:
                try:
                    self.session.get("/", timeout=10)
                except zookeeper.ZooKeeperException:
                    time.sleep(0.001)
            ended.append(None)

        callers = [threading.Thread(target=call) for _ in range(5)]
        for caller in callers:
            caller.start()
        try:
            for _ in range(3):
                self.expire(self.session)
        finally:
            ended.append(None)
            for caller in callers:
                caller.join(process.PATIENCE)
        self.assertEqual(6, len(ended))

    def test_an_outage_longer_than_the_session_replaces_it(self):
        with proxy.TcpProxy(self.server.port) as way:
            events = base.Events()
            session = self.open(way.address + self.root, recv_timeout=2000)
            session.add_listener(events)
            way.cut()
            events.wait(evzookeeper.SUSPENDED)
            first = session.session_id
            process.wait_for(
                lambda: f"0x{first:x}" not in self.server.four_letters(
                    "dump"), message="the server has expired the session")
            way.restore()
            events.wait(evzookeeper.EXPIRED, evzookeeper.CONNECTED)
            self.assertNotEqual(first, session.session_id)


class ConnectTest(base.TestCase):
    def test_a_new_session(self):
        first = self.session.session_id
        self.session.connect(timeout=process.PATIENCE)
        self.assertNotIn(self.session.session_id, (None, first))
        self.session.get("/")

    def test_after_close(self):
        self.session.close()
        self.session.connect(timeout=process.PATIENCE)
        self.session.get("/")


class CloseTest(base.TestCase):
    def test_ephemerals_are_gone_at_once(self):
        other = self.open(recv_timeout=60000)
        other.create("/a", "", flags=zookeeper.EPHEMERAL)
        other.close()
        with self.assertRaises(zookeeper.NoNodeException):
            self.session.exists("/a")

    def test_calls_afterwards(self):
        self.session.close()
        self.session.close()
        self.assertFalse(self.session.is_connected())
        self.assertIsNone(self.session.session_id)
        for call in (self.session.get, self.session.get_children,
                     self.session.sync):
            with self.assertRaises(zookeeper.ClosingException):
                call("/")

    def test_calls_under_way(self):
        failed = zk_base.Recorder()
        session = self.open(recv_timeout=60000)
        self.server.freeze()
        self.addCleanup(self.server.thaw)

        def call():
            try:
                session.get("/")
            except zookeeper.ZooKeeperException as exc:
                failed(exc)

        asked = self.enterContext(mock.patch.object(
            self.client, "get", wraps=self.client.get))
        threading.Thread(target=call).start()
        process.wait_for(lambda: asked.called, message="a call is under way")
        session.close()
        self.assertIsInstance(failed.wait()[0], zookeeper.ClosingException)

    def test_time_is_bounded(self):
        self.addCleanup(self.server.thaw)

        def close():
            self.server.thaw()
            session = self.open(recv_timeout=60000)
            self.server.freeze()
            begin = time.monotonic()
            with self.assertRaises(zookeeper.OperationTimeoutException):
                session.close(quiet=False, timeout=0.2)
            return time.monotonic() - begin

        # Closing, the C client waits up to 1.5 s for the server's answer.
        self.assertLess(process.quickest(close, 1), 1)

    def test_in_a_listener_and_in_callbacks(self):
        session = self.open()
        session.add_listener(
            lambda event: event == evzookeeper.SUSPENDED and session.close())
        self.server.restart()
        process.wait_for(lambda: session.state() ==
                         zookeeper.NOTCONNECTED_STATE)
        session = self.open()
        closed = threading.Event()

        def callback(members):
            session.close()
            closed.set()

        membership.MembershipMonitor(session, "/g", cb_func=callback)
        self.assertTrue(closed.wait(process.PATIENCE))

    def test_no_thread_or_descriptor_is_left(self):
        self.session.close()

        def cycle():
            with evzookeeper.ZKSession(
                    self.host, timeout=process.PATIENCE) as session:
                membership.MembershipMonitor(session, "/g")
                membership.Membership(session, "/g", "a")
                session.get("/", lambda *args: None)

        def left():
            return (len(base.threads()), len(os.listdir("/proc/self/task")),
                    len(os.listdir("/proc/self/fd")), len(dispatch.contexts))

        for _ in range(3):
            cycle()
        process.wait_for(lambda: not base.threads())
        before = left()
        for _ in range(20):
            cycle()
        process.wait_for(
            lambda: all(
                now <= then
                for now, then in zip(left(), before, strict=True)),
            message=lambda: f"{before} are left as before, not {left()}")

    def test_a_fork_has_no_session(self):
        status, output, _ = zk_base.run_python("""
import logging, os, sys, warnings
warnings.simplefilter("ignore")
from nova_sg import evzookeeper, zookeeper
session = evzookeeper.ZKSession(sys.argv[1], timeout=60)
session.create("/a", "", flags=zookeeper.EPHEMERAL)
pid = os.fork()
if not pid:
    if tests.MODE == "eventlet":
        from eventlet import hubs
        hubs.use_hub()
    if session.is_connected():
        os._exit(1)
    try:
        session.get("/")
    except zookeeper.ZooKeeperException:
        pass
    else:
        os._exit(2)
    session.close()
    own = evzookeeper.ZKSession(sys.argv[1], timeout=60)
    own.get("/a")
    sys.exit(0)
_, status = os.waitpid(pid, 0)
if status:
    sys.exit(f"child: {status:#x}")
session.get("/a")
session.close()
""", self.host)
        self.assertEqual(0, status, output)


class CooperationTest(base.TestCase):
    def test_no_call_blocks_other_threads(self):
        with fixture.ZooKeeperServer() as server:

            def stood_still():
                server.thaw()
                with zk_base.Ticker() as ticker:
                    self._use(server)
                return ticker.longest

            self.assertLess(process.quickest(stood_still, 0.3), 0.3)

    def _use(self, server):
        session = self.open(server.address)
        monitor = membership.MembershipMonitor(session, "/g")
        membership.Membership(session, "/g", "a")
        process.wait_for(lambda: monitor.get_all() == {"a"})
        server.freeze()
        with self.assertRaises(zookeeper.OperationTimeoutException):
            session.get("/", timeout=0.5)
        session.close()
        session = self.open(server.address, timeout=None)
        with self.assertRaises(zookeeper.OperationTimeoutException):
            session.get("/", timeout=0.5)
        session.close()


if __name__ == "__main__":
    unittest.main()
