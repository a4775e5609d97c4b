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

"""The zk driver while members, processes, servers and networks fail."""

import os
import statistics
import time

from nova_sg import evzookeeper, exception, zookeeper
from nova_sg.backends.zookeeper import driver as zk_driver
from nova_sg.backends.zookeeper import names as znodes
from nova_sg.servicegroup.shared import Shared
from tests import LONG, base
from tests.base import wait_for
from tests.fixtures import proxy
from tests.functional import zk

# A pure-Python client whose process stands still.
_KAZOO = """
import ctypes
import sys
from kazoo.client import KazooClient

client = KazooClient(sys.argv[1], timeout=4.0)
client.start()
client.create(sys.argv[2], ephemeral=True, makepath=True)
print("joined", flush=True)
sys.stdin.readline()
ctypes.PyDLL(None).sleep(9)
print("done", flush=True)
"""


class FailureTestCase(zk.ZkTestCase):
    RECV_TIMEOUT = 4000

    def assert_only_joined(self, events):
        self.assertEqual({"joined"}, {event.type for event in events}, events)

    def wait_until_ended(self, session_id):
        """Wait until a session has ended on every server."""
        wait_for(
            lambda: not any(
                f"0x{session_id:x}" in server.four_letters("dump")
                for server in self.ensemble.servers
            ),
            message="the session has ended",
        )


class MemberFailureTest(FailureTestCase):
    KILLS = 20 if LONG else 3
    AT_ONCE = 5

    def test_a_killed_member_is_down_when_its_session_ends(self):
        removed, told = {}, {}
        # No refresh comes without a change.
        self.flags(service_down_time=40.0 * base.PATIENCE)
        self.flags("servicegroup", view_refresh_interval=10.0 * base.PATIENCE)
        self.addCleanup(
            self.api.watch(
                "compute",
                lambda event: told.setdefault(
                    (event.type, event.host), time.monotonic()
                ),
            ).cancel
        )
        lives, delays = [], []
        hosts = [f"node{number}" for number in range(self.KILLS)]
        for begin in range(0, self.KILLS, self.AT_ONCE):
            members = {
                host: self.start_member(host)
                for host in hosts[begin : begin + self.AT_ONCE]
            }
            for znode in self.znodes():
                host = znode.partition("@")[0]
                self.zk.exists(
                    f"{self.prefix}/compute/{znode}",
                    zookeeper.Immediate(
                        lambda *event, host=host: removed.setdefault(
                            host, time.monotonic()
                        )
                    ),
                )
            killed = {}
            for host, member in members.items():
                # So that the kill is at any moment between two pings.
                time.sleep(0.3)
                killed[host] = time.monotonic()
                member.kill()
            for host, moment in killed.items():
                wait_for(
                    lambda: ("down", host) in told and host in removed,  # noqa: B023
                    message=f"the event that {host} is down",
                )
                lives.append(removed[host] - moment)
                delays.append(told["down", host] - removed[host])
        zk.report_figures("from the kill to the end of the session", lives)
        zk.report_figures("from there until the observer is told", delays)
        # The session times out after the last ping. Pings come every third
        # of the timeout, and a busy machine may miss one.
        timeout = self.RECV_TIMEOUT / 1000
        self.assertGreater(min(lives), timeout / 3)
        self.assertGreater(statistics.median(lives), timeout * 2 / 3)
        # The quickest: a busy machine delays some, waiting delays all.
        self.assertLess(min(delays), 0.5)

    def test_a_rack_that_is_cut_off_is_held(self):
        """Its sessions do not end at the same moment."""
        way = self.enterContext(
            proxy.TcpProxy(self.ensemble.servers[0].port)
        )
        group = znodes.group_path("compute")
        for path in group, znodes.entries_path("compute"):
            self.zk.ensure_path(path)

        def join(session, host, domain):
            said = znodes.said(znodes.DOMAIN, domain)
            entry = znodes.entry_path("compute", host, "nova-compute")
            for path in entry, f"{entry}@{said}":
                self.zk.create(path, "")
            _, ident = session.connected_handle(base.PATIENCE)
            name = znodes.member_name(host, ident)
            session.create(f"{group}/{name}", "", flags=zookeeper.EPHEMERAL)

        for number in range(9):
            join(self.zk, f"other{number}", f"rack{number % 2}")
        rack = [f"cut{number}" for number in range(6)]
        for host in rack:
            session = evzookeeper.ZKSession(
                f"127.0.0.1:{way.port}",
                base.PATIENCE,
                recv_timeout=self.RECV_TIMEOUT,
            )
            self.addCleanup(session.close)
            join(session, host, "cut")
            # So that their pings are not sent in step.
            time.sleep(0.25)
        self.wait_until_up(rack[-1])
        events = self.collect(self.api)
        way.cut()
        wait_for(
            lambda: len([one for one in events if one.type == "held"]) == 6,
            message=lambda: events,
        )
        self.assertEqual({"held"}, {one.type for one in events}, events)
        self.assertEqual(set(rack), {one.host for one in events})
        self.assertIn("of the failure domain cut", events[-1].reason)
        # A member that dies elsewhere is not held.
        self.zk.delete(
            f"{group}/"
            + next(one for one in self.znodes() if one.startswith("other8"))
        )
        wait_for(lambda: events[-1].type == "down", message=lambda: events)
        self.assertEqual("other8", events[-1].host)

    def test_a_member_restarted_at_once_is_never_down(self):
        # Longer than the second takes to join on a busy machine.
        self.RECV_TIMEOUT = 10000
        first = self.start_member("one")
        second = self.start_member("one", wait=True)
        old = self.znodes()
        events = self.collect(self.api)
        with zk.Poller(self.api, "one") as poller:
            first.kill()
            second.tell("join")
            second.expect("joined")
            wait_for(
                lambda: not set(old) & set(self.znodes()),
                message="the first session has ended",
            )
            self.assertEqual(1, len(self.znodes()))
        self.assertEqual(["up"], poller.states)
        self.assertEqual([], events)

    def test_a_member_that_is_cut_off(self):
        """It is down for the others, and up again when the cut ends."""
        server = self.ensemble.servers[0]
        way = self.enterContext(proxy.TcpProxy(server.port))
        self.start_member("one", zookeeper={"address": way.address})
        self.start_member("two")
        events = self.collect(self.api)
        self.assertTrue(self.is_up("one"))
        way.cut()
        self.wait_until_down("one")
        self.assertTrue(self.is_up("two"))
        self.assertEqual(
            "its session with the backend ended",
            self.api.member("compute", "one").reason,
        )
        way.restore()
        self.wait_until_up("one")
        self.assert_becomes(
            [("down", "one"), ("up", "one")],
            lambda: [(event.type, event.host) for event in events],
        )

    def test_a_late_create_raises_no_member(self):
        """A znode created for a session that has ended raises no member."""
        server = self.ensemble.servers[0]
        way = self.enterContext(proxy.TcpProxy(server.port))
        member = self.start_member("one", zookeeper={"address": way.address})
        self.wait_until_up("one")
        (znode,) = self.znodes()
        session = self.zk.exists(f"{self.prefix}/compute/{znode}")[
            "ephemeralOwner"
        ]
        way.delay(1.0)
        # The member makes the znode again when it learns of this.
        self.zk.delete(f"{self.prefix}/compute/{znode}")
        wait_for(lambda: way.held() > 105, 30, "the request is under way")
        way.cut()
        member.kill()
        self.wait_until_down("one")
        self.wait_until_ended(session)
        events = self.collect(self.api)
        way.restore()
        wait_for(lambda: not way.held(), 30, "the late request arrives")
        # A request behind it in the server's queue.
        self.zk.exists(self.prefix)
        self.assertFalse(self.is_up("one"))
        self.assertEqual([], self.znodes())
        self.assertEqual([], events)

    def test_a_member_whose_python_stands_still_stays_up(self):
        """It stands still, holding Python's lock, longer than the timeout."""
        member = self.start_member("one")
        before = self.znodes()
        # kazoo's session ends meanwhile: that is why nova_sg has a client of
        # its own.
        path = f"{self.prefix}/kazoo"
        kazoo = self.start_process(
            "-c", _KAZOO, self.ensemble.address, path
        )
        kazoo.expect("joined")
        with zk.Poller(self.api, "one") as poller:
            member.tell("freeze 9")
            kazoo.tell("go")
            wait_for(
                lambda: not self.zk.get_children(self.prefix).count("kazoo"),
                message="kazoo's session ends",
            )
            self.assertNotIn("done", kazoo.output())
            self.assertNotIn("done", member.output())
            member.expect("done: freeze")
            # They are the same sessions as before.
            self.assertEqual(before, self.znodes())
            member.tell("pause 0")
            member.expect("done: pause")
        self.assertEqual(["up"], poller.states)
        self.assertEqual(before, self.znodes())


class WatchdogTest(FailureTestCase):
    DOWN_TIME = 4.0
    # Whether a session outlives timers, or a hub, that stand still.
    KEEPS_SESSION = True

    def test_members_whose_timers_stand_still_are_withdrawn(self):
        pauses = self.start_member("pauses")
        spins = self.start_member("spins")
        events = self.collect(self.api)
        with zk.Poller(self.api, "pauses", "spins") as poller:
            pauses.tell("pause 1.5")
            spins.tell("spin 1.5")
            pauses.expect("done: pause")
            spins.expect("done: spin")
            # By now a watchdog that was too quick would have withdrawn them.
            time.sleep(0.5)
        self.assertEqual(["up"], poller.states)
        self.assertEqual([], events)

        before = self.znodes()
        go_on = os.path.join(self.folder, "go-on")
        pauses.tell(f"pause {go_on}")
        spins.tell(f"spin {go_on}")
        for host in ("pauses", "spins"):
            self.wait_until_down(host)
        for member in (pauses, spins):
            # They are down although they still stand still: not by
            # themselves.
            self.assertEqual(1, member.output().count("done"))
        with open(go_on, "w"):
            pass
        for host in ("pauses", "spins"):
            self.wait_until_up(host)
        if self.KEEPS_SESSION:
            self.assertEqual(before, self.znodes())
        self.assert_becomes(
            [("down", "up")] * 2,
            lambda: [
                tuple(e.type for e in events if e.host == host)
                for host in ("pauses", "spins")
            ],
        )

    def test_an_error_does_not_end_the_watchdog(self):
        service = self.join("one")
        self.znode("one")
        self.assertEqual(1, len(self.znodes()))
        watchdog = self.api._driver.shared().driver._own_members._watchdog
        failures = []

        def fail(late):
            failures.append(late)
            raise RuntimeError("an error of the test")

        # Any error, as of a library without memory.
        real = watchdog._withdraw
        watchdog._withdraw = fail
        service.tg.moving.clear()
        self.addCleanup(service.tg.moving.set)
        wait_for(lambda: len(failures) >= 2, message="it tries again")
        self.assertEqual(1, len(self.znodes()))
        watchdog._withdraw = real
        wait_for(lambda: not self.znodes(), message="it is withdrawn")
        service.tg.moving.set()
        wait_for(lambda: self.znodes(), message="it has joined again")

        # If the thread ends nevertheless, the next report starts another.
        service.tg.moving.clear()
        watchdog._stopping = True
        wait_for(watchdog._has_ended, message="the thread has ended")
        watchdog._stopping = False
        service.tg.moving.set()
        wait_for(
            lambda: not watchdog._has_ended(), message="there is another"
        )
        service.tg.moving.clear()
        wait_for(lambda: not self.znodes(), message="it is withdrawn")

    def test_an_error_on_the_watchdogs_thread_is_logged(self):
        self.join("one")
        watchdog = self.api._driver.shared().driver._own_members._watchdog
        check = watchdog._check

        def fail():
            raise RuntimeError("an error of the test")

        watchdog._check = fail
        words = "The ZooKeeper watchdog has failed: "
        wait_for(lambda: self.logs.matching(words))
        self.assertIn(
            "RuntimeError: an error of the test",
            self.logs.matching(words)[0],
        )
        watchdog._check = check
        wait_for(
            lambda: self.logs.matching("The ZooKeeper watchdog works again")
        )
        self.assertEqual(1, len(self.logs.matching(words)))

    def test_a_new_session_restores_no_member_that_stands_still(self):
        server = self.ensemble.servers[0]
        way = self.enterContext(proxy.TcpProxy(server.port))
        self.flags("zookeeper", address=way.address)
        service = self.join("one")
        self.znode("one")
        self.assertEqual(1, len(self.znodes()))
        service.tg.moving.clear()
        self.addCleanup(service.tg.moving.set)
        wait_for(lambda: not self.znodes(), message="it is withdrawn")
        session = self.api._driver.shared().driver._link.session
        session_id = session.session_id
        way.cut()
        wait_for(
            lambda: self.logs.matching("has expired. Making a new one")
            or not session.is_connected(),
            message="the client notices the cut",
        )
        # The server has to notice it, too.
        self.wait_until_ended(session_id)
        way.restore()
        wait_for(session.is_connected, message="there is a new session")
        wait_for(
            lambda: self.logs.matching("not restored: it does not report"),
            message="the member is not restored",
        )
        self.assertEqual([], self.znodes())
        service.tg.moving.set()
        wait_for(self.znodes, message="it is back")


class EnsembleFailureTest(FailureTestCase):
    SERVERS = 3
    # Longer than a session lasts without a ping.
    OUTAGE = 60 if LONG else 6
    # So long that no member falls by silence.
    DOWN_TIME = 120.0

    def setUp(self):
        super().setUp()
        # The next test needs all servers.
        self.addCleanup(zk.ensemble, self.SERVERS)

    def observer(self):
        """Return the view of another observer, with its own session."""
        shared = Shared(zk_driver.ZkDriver())
        self.addCleanup(shared.close)
        return shared.view("compute")

    def test_members_stay_up_while_servers_come_and_go(self):
        servers = self.ensemble.servers
        members = [self.start_member(f"node{n}") for n in range(3)]
        service = self.join("here")
        hosts = ["here", "node0", "node1", "node2"]
        events = self.collect(self.api)
        other = self.observer()
        other_events = []
        other.watch(other_events.append)
        with zk.Poller(self.api, *hosts) as poller:
            self.assertEqual(hosts, other.hosts_up())

            with self.subTest("the leader is killed"):
                leader = self.ensemble.leader()
                leader.kill()
                self.ensemble.leader()
                self.converge(other, "after-leader")
                leader.start()

            with self.subTest("each server is restarted"):
                for server in servers:
                    server.restart()
                    self.ensemble.leader()
                self.converge(other, "after-restarts")

            with self.subTest("all servers are down"):
                for server in servers:
                    server.stop()
                time.sleep(self.OUTAGE)
                self.ensemble.start()
                self.converge(other, "after-outage")
                # The members that lost their sessions would be down by now.
                time.sleep(2.5 * self.RECV_TIMEOUT / 1000)
        self.assertEqual(["up"], poller.states)
        self.assert_only_joined(events)
        self.assert_only_joined(other_events)
        self.assertEqual([], service.tg.raised)
        # From now on a change is known as quickly as before.
        members[0].kill()
        self.wait_until_down("node0")
        wait_for(lambda: not other.is_up("node0"), message="the other knows")

    def converge(self, other, host):
        """Wait until both observers know a member that joined."""
        self.join(host)
        self.wait_until_up(host)
        wait_for(lambda: other.is_up(host), message="the other knows it")

    def test_an_observer_is_cut_off(self):
        """Its own session ends; afterwards it learns what it missed."""
        server = self.ensemble.servers[0]
        way = self.enterContext(proxy.TcpProxy(server.port))
        self.flags("zookeeper", address=way.address)
        cut_off = self.observer()
        self.flags("zookeeper", address=self.ensemble.address)
        for host in ("stays", "leaves"):
            self.join(host)
        wait_for(lambda: cut_off.is_up("leaves"), message="it sees them")
        events = []
        cut_off.watch(events.append)
        [poller] = cut_off.observer._pollers
        session_id = poller.source._link.session.session_id
        way.cut()
        self.api.leave("leaves", "compute")
        self.join("comes")
        self.wait_until_ended(session_id)
        self.assertTrue(cut_off.is_up("stays"))
        self.assertTrue(cut_off.is_up("leaves"))
        way.restore()
        wait_for(lambda: cut_off.is_up("comes"), message="it sees the join")
        wait_for(
            lambda: not cut_off.is_up("leaves"), message="it sees the leave"
        )
        self.assertTrue(cut_off.is_up("stays"))
        self.assert_becomes(
            [("comes", "joined"), ("leaves", "left")],
            lambda: sorted((event.host, event.type) for event in events),
        )


class OutageTest(FailureTestCase):
    DOWN_TIME = 6.0

    def test_verdicts_while_all_servers_are_unreachable(self):
        service = self.join("one")
        self.wait_until_up("one")
        late = self.start_member("late", wait=True)
        self.addCleanup(zk.ensemble, self.SERVERS)
        with zk.Poller(self.api, "one") as poller:
            for server in self.ensemble.servers:
                server.freeze()
            frozen = time.monotonic()
            wait_for(
                lambda: len(poller.states) > 1, message="there is no answer"
            )
            lasted = time.monotonic() - frozen
            zk.print_figure(f"the last verdict stood for {lasted:.1f} s")
            # It counts from the last answer. Refreshes come every 0.05 s.
            self.assertGreater(lasted, self.DOWN_TIME - 1)
            with self.assertRaisesRegex(
                exception.ServiceGroupUnavailable, "no server is connected"
            ):
                self.api.get_all("compute")
            # A member that joins now is up when the servers are back.
            late.tell("join")
            joined_late = self.join("late-here")
            wait_for(
                lambda: joined_late.model_disconnected,
                message="the service learns of it",
            )
            for server in self.ensemble.servers:
                server.kill()
            self.ensemble.start()
            late.expect("joined")
            self.wait_until_known(["late", "late-here", "one"])
            wait_for(
                lambda: not joined_late.model_disconnected,
                message="reports succeed again",
            )
            wait_for(lambda: len(poller.states) > 2, message="it is known")
        self.assertEqual(
            ["up", "ServiceGroupUnavailable", "up"], poller.states
        )
        self.assertEqual([], service.tg.raised + joined_late.tg.raised)

    def wait_until_known(self, hosts):
        def known():
            try:
                return self.api.get_all("compute") == hosts
            except exception.ServiceGroupUnavailable:
                return False

        wait_for(known, message=f"the group is {hosts}")
