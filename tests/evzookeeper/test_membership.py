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

"""Membership and MembershipMonitor.

The tests cover what evzookeeper's own tests expect, and new behaviour.
"""

import contextlib
import statistics
import threading
import time
import unittest

from nova_sg import evzookeeper, zookeeper
from nova_sg.evzookeeper import membership
from tests.evzookeeper import base
from tests.fixtures import process, proxy
from tests.fixtures import zookeeper as fixture
from tests.zookeeper import base as zk_base


class TestCase(base.TestCase):
    def monitor(self, session=None, path="/group", **kwargs):
        """Return a monitor, and a list of its callback's arguments."""
        events = base.Events()
        monitor = membership.MembershipMonitor(
            session or self.session, path, cb_func=events, **kwargs)
        self.addCleanup(monitor.close)
        return monitor, events

    def join(self, name, session=None, path="/group", **kwargs):
        return membership.Membership(
            session or self.session, path, name, **kwargs)

    def members(self, path="/group"):
        return set(self.session.get_children(path))


class MembershipTest(TestCase):
    def test_join(self):
        member = self.join("node1")
        self.assertTrue(member.joined)
        self.assertEqual({"node1"}, self.members())
        self.assertEqual(
            self.session.session_id,
            self.session.exists("/group/node1")["ephemeralOwner"])

    def test_leave(self):
        member = self.join("node1")
        self.assertIs(True, member.leave())
        self.assertEqual(set(), self.members())
        self.assertFalse(member.joined)
        self.assertIs(False, member.leave())
        self.assertIs(False, member.refresh())
        self.assertEqual(set(), self.members())

    def test_many(self):
        for i in range(100):
            self.join(f"node{i}").leave()
        self.assertEqual(set(), self.members())

    def test_deep_path(self):
        self.join("node1", path="/a/b/c")
        self.assertEqual({"node1"}, self.members("/a/b/c"))

    def test_acl(self):
        acl = [{"perms": zookeeper.PERM_READ, "scheme": "world",
                "id": "anyone"}]
        self.session.ensure_path("/group")
        self.join("node1", acl=acl)
        self.assertEqual(acl, self.session.get_acl("/group/node1")[0])

    def test_async_mode(self):
        member = self.join("node1", async_mode=True)
        process.wait_for(lambda: member.joined)
        self.assertEqual({"node1"}, self.members())

    def test_join_before_a_server_runs(self):
        server = fixture.ZooKeeperServer()
        self.addCleanup(server.close)
        session = self.open(server.address, timeout=None)
        with self.assertRaises(zookeeper.OperationTimeoutException):
            self.join("node1", session, timeout=0.1)
        member = self.join("node2", session, async_mode=True)
        self.assertFalse(member.joined)
        server.start()
        process.wait_for(lambda: member.joined)
        # A join that failed is not done later.
        self.assertEqual(["node2"], session.get_children("/group"))

    def test_refresh_is_idempotent(self):
        member = self.join("node1")
        stat = self.session.exists("/group/node1")
        self.assertIs(True, member.refresh())
        self.assertEqual(stat, self.session.exists("/group/node1"))

    def test_refresh_creates_a_deleted_znode_again(self):
        member = self.join("node1")
        self.session.delete("/group/node1")
        self.assertIs(True, member.refresh())
        self.assertEqual({"node1"}, self.members())

    def test_duplicate(self):
        self.join("node1", self.open())
        with self.assertRaisesRegex(RuntimeError, "/group/node1"):
            self.join("node1")

    def test_a_name_is_free_once_its_member_has_left(self):
        other = self.open()
        self.join("node1", other)
        with self.assertLogs("nova_sg.evzookeeper", "ERROR") as logs:
            member = self.join("node1", async_mode=True)
            process.wait_for(lambda: logs.output)
        self.assertFalse(member.joined)
        other.close()
        process.wait_for(lambda: member.joined)

    def test_name_made_of_the_session(self):
        member = self.join(lambda session_id: f"host@{session_id:x}")
        first = f"host@{self.session.session_id:x}"
        self.assertEqual({first}, self.members())
        self.expire(self.session)
        process.wait_for(lambda: member.joined)
        second = f"host@{self.session.session_id:x}"
        self.assertNotEqual(first, second)
        self.assertEqual({second}, self.members())
        member.leave()
        self.assertEqual(set(), self.members())

    def test_expiry(self):
        members = [self.join(f"node{i}") for i in range(20)]
        left = self.join("left")
        left.leave()
        self.expire(self.session)
        process.wait_for(lambda: all(member.joined for member in members))
        self.assertEqual(
            {f"node{i}" for i in range(20)}, self.members())
        # They join again in the same order as before.
        created = [
            self.session.exists(f"/group/node{i}")["czxid"]
            for i in range(20)]
        self.assertEqual(sorted(created), created)

    def test_expiry_again_and_again(self):
        member = self.join("node1")
        for _ in range(5):
            self.expire(self.session)
        process.wait_for(lambda: member.joined)
        self.assertEqual(
            self.session.session_id,
            self.session.exists("/group/node1")["ephemeralOwner"])

    def test_reconnection_changes_nothing(self):
        member = self.join("node1")
        stat = self.session.exists("/group/node1")
        self.server.restart()

        def is_there():
            # A call may be the first to notice that the server went.
            with contextlib.suppress(zookeeper.ConnectionLossException):
                return self.session.exists("/group/node1") == stat

        process.wait_for(is_there)
        self.assertTrue(member.joined)

    def test_leave_while_cut_off(self):
        with proxy.TcpProxy(self.server.port) as way:
            session = self.open(way.address + self.root, recv_timeout=20000)
            member = self.join("node1", session)
            way.cut()
            begin = time.monotonic()
            self.assertIs(True, member.leave(timeout=0.3))
            # Without a timeout it lasts until the client gives up.
            self.assertLess(time.monotonic() - begin, 10)
            self.assertEqual({"node1"}, self.members())
            way.restore()
            process.wait_for(lambda: not self.members())

    def test_leave_after_the_session(self):
        member = self.join("node1")
        self.session.close()
        self.assertIs(True, member.leave())


class MonitorTest(TestCase):
    def test_join(self):
        _, events = self.monitor()
        events.wait(set())
        self.join("node1")
        events.wait({"node1"})
        self.join("node2")
        events.wait({"node1", "node2"})

    def test_join_and_leave(self):
        monitor, events = self.monitor()
        self.join("node1")
        self.join("node2").leave()
        events.wait({"node1"})
        self.assertEqual({"node1"}, monitor.get_all())

    def test_details(self):
        monitor, _ = self.monitor()
        self.join("node1")
        value, stat = monitor.get_member_details("node1")
        self.assertEqual(
            self.session.session_id, stat["ephemeralOwner"])
        self.assertRegex(value, r"^0\.\d+")
        with self.assertRaises(zookeeper.NoNodeException):
            monitor.get_member_details("node2")

    def test_group_that_comes_and_goes(self):
        _, events = self.monitor()
        for _ in range(3):
            events.wait(set())
            self.join("node1")
            events.wait({"node1"})
            self.session.delete("/group/node1")
            events.wait(set())
            self.session.delete("/group")

    def test_a_change_is_told_at_once(self):
        """A change is told at once, by one listing and without polling."""
        interval = 0.3
        told = []
        other = self.open()
        other.ensure_path("/group")
        monitor = membership.MembershipMonitor(
            self.session, "/group", min_interval=interval,
            cb_func=lambda members: told.append(time.monotonic()))
        self.addCleanup(monitor.close)
        process.wait_for(lambda: told)
        listings = self._count(self.session)

        def usual_delay():
            delays = []
            for _ in range(5):
                # So that the monitor may list again at once.
                time.sleep(interval + 0.05)
                changes = len(told)
                other.create(f"/group/node{changes}", "")
                begin = time.monotonic()
                process.wait_for(lambda: len(told) > changes)  # noqa: B023
                delays.append(told[-1] - begin)
            return statistics.median(delays)

        self.assertLess(
            process.quickest(usual_delay, interval / 2), interval / 2)
        self.assertEqual(len(told) - 1, listings())

    def test_the_end_of_a_burst_is_told_early(self):
        """But the group is not listed more often for that."""
        interval = 0.5
        told = []
        other = self.open()
        other.ensure_path("/group")
        monitor = membership.MembershipMonitor(
            self.session, "/group", min_interval=interval,
            cb_func=lambda members: told.append(time.monotonic()))
        self.addCleanup(monitor.close)
        process.wait_for(lambda: told)

        def follow():
            changes = len(told)
            other.create(f"/group/node{changes}", "")
            process.wait_for(lambda: len(told) > changes)
            return told[-1]

        def early():
            # So that the monitor may list again at once, and early once more.
            time.sleep(2 * interval + 0.05)
            first = follow()
            second = follow()
            third = follow()
            self.assertGreater(third - first, 1.5 * interval)
            return second - first

        self.assertLess(process.quickest(early, interval / 2), interval / 2)

    def test_expiry(self):
        _, events = self.monitor()
        self.join("node1")
        self.join("node2", self.open())
        events.wait({"node1", "node2"})
        self.expire(self.session)
        events.wait({"node1", "node2"})
        self.assertIn(None, events.seen)
        # The monitor still follows the group.
        self.join("node3", self.open())
        events.wait({"node1", "node2", "node3"})

    def test_no_server(self):
        with fixture.ZooKeeperServer() as server:
            session = self.open(server.address, recv_timeout=20000)
            monitor, events = self.monitor(session)
            self.join("node1", session)
            events.wait({"node1"})
            server.kill()
            events.wait(None)
            self.assertIsNone(monitor.get_all())
            server.start()
            events.wait({"node1"})

    def test_changes_while_it_is_cut_off_are_told(self):
        with proxy.TcpProxy(self.server.port) as way:
            session = self.open(way.address + self.root, recv_timeout=4000)
            _, events = self.monitor(session)
            self.join("node1")
            events.wait({"node1"})
            way.cut()
            self.join("node2")
            events.wait(None)
            way.restore()
            events.wait({"node1", "node2"})

    def test_reconnections_add_no_watches(self):
        with fixture.ZooKeeperServer() as server:
            session = self.open(server.address, recv_timeout=20000)
            _, events = self.monitor(session)
            self.join("node1", session)
            events.wait({"node1"})
            for _ in range(3):
                server.kill()
                events.wait(None)
                server.start()
                events.wait({"node1"})
            listings = self._count(session)
            self.join("node2", session)
            events.wait({"node1", "node2"})
            self.assertEqual(1, listings())

    def test_a_burst_is_coalesced(self):
        _, events = self.monitor()
        events.wait(set())
        listings = self._count(self.session)
        # Only the C client's module has asynchronous requests.
        other = self.open(client=zookeeper)
        other.ensure_path("/group")
        handle, _ = other.connected_handle()
        count = 2000
        begin = time.monotonic()
        for i in range(count):
            zookeeper.acreate(
                handle, f"/group/node{i}", "", zk_base.OPEN,
                zookeeper.EPHEMERAL)
        events.wait({f"node{i}" for i in range(count)})
        seconds = time.monotonic() - begin
        self.assertLessEqual(listings(), seconds / 0.05 + 3)

    @staticmethod
    def _count(session):
        """Count a session's requests for children from now on."""
        original = session.client.get_children
        counted = []

        def count(*args, **kwargs):
            counted.append(args)
            return original(*args, **kwargs)

        session.client.get_children = count

        def result():
            session.client.get_children = original
            return len(counted)

        return result

    def test_callback_that_raises(self):
        failed = threading.Event()

        def callback(members):
            if members == {"node1"}:
                failed.set()
                raise RuntimeError("on purpose")

        monitor = membership.MembershipMonitor(
            self.session, "/group", cb_func=callback)
        with self.assertLogs("nova_sg.evzookeeper", "ERROR"):
            self.join("node1")
            self.assertTrue(failed.wait(process.PATIENCE))
            self.join("node2")
            process.wait_for(
                lambda: monitor.get_all() == {"node1", "node2"})

    def test_close(self):
        before = base.threads()
        monitor, events = self.monitor()
        events.wait(set())
        monitor.close()
        monitor.close()
        process.wait_for(
            lambda: [name for name in base.threads()
                     if "Monitor" in name] ==
            [name for name in before if "Monitor" in name])
        self.join("node1")
        self.session.get_children("/group")
        self.assertEqual([set()], events.seen)

    def test_no_permission(self):
        self.session.ensure_path("/group")
        self.session.set_acl("/group", -1, [
            {"perms": zookeeper.PERM_ADMIN, "scheme": "world",
             "id": "anyone"}])
        with self.assertLogs("nova_sg.evzookeeper", "WARNING"):
            _, events = self.monitor()
            events.wait(None)
        # It goes on trying.
        self.session.set_acl(
            "/group", -1, [evzookeeper.ZOO_OPEN_ACL_UNSAFE])
        events.wait(set())


class ServiceTest(TestCase):
    def test_a_service_written_for_evzookeeper(self):
        """A subclass that was written for evzookeeper works."""
        seen = []

        class Service(evzookeeper.ZKServiceBase):
            def _session_callback(self):
                while True:
                    seen.append(self._session_spc.wait_and_get()[2])

        service = Service(self.session, "/a")
        self.assertEqual([evzookeeper.ZOO_OPEN_ACL_UNSAFE], service.acl)
        self.expire(self.session)
        process.wait_for(
            lambda: seen[-1:] == [zookeeper.CONNECTED_STATE])
        service.close()
        service.thread.join(process.PATIENCE)
        self.assertFalse(service.thread.is_alive())

    def test_restore_is_called_again_when_it_fails(self):
        calls = []

        class Service(evzookeeper.ZKServiceBase):
            def restore(self):
                calls.append(None)
                if len(calls) < 3:
                    raise zookeeper.NoAuthException()

        service = Service(self.session, "/a")
        self.session.restore_soon(service)
        process.wait_for(lambda: len(calls) == 3)
        service.close()
        self.expire(self.session)
        self.assertEqual(3, len(calls))


if __name__ == "__main__":
    unittest.main()
