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

"""The checker of tests/chaos judges histories that are made up here.

Each test says what happened and what an observer answered, and which rule that
breaks. A history has one host of interest, h0, and one observer, c1.
"""

import contextlib
import io
import tempfile
import unittest

from tests.chaos import __main__, checker, history, nemesis, shrinking, truth

HOSTS = ["h0", "h1", "h2", "h3"]
SERVERS = {
    "db": ["g1", "g2", "g3", "lb1", "lb2"],
    "mc": ["m1", "m2", "m3"],
    "zk": ["z1", "z2", "z3"],
}


class Story:
    """A made-up history: all is well unless it says otherwise."""

    def __init__(self, *drivers, records=False, reports=False):
        self.entries = []
        clients = [*HOSTS, "c1", "c2"]
        self._add(
            0.0,
            "setup",
            drivers=list(drivers),
            hosts=HOSTS,
            servers={driver: SERVERS[driver] for driver in drivers},
            fronts={
                client: {
                    driver: ("lb2" if client == "c2" else "lb1")
                    if driver == "db"
                    else None
                    for driver in drivers
                }
                for client in clients
            },
            lived={"c1": True, "c2": False},
            records=["c1"] if records else [],
            reports=["c1"] if reports else [],
            service_down_time=6.0,
            report_interval=1.0,
            refresh=0.25,
            session=4.0,
        )
        for host in HOSTS:
            self.process(0.1, "started", host)
            self.process(0.2, "joined", host)
        self._cuts = 0

    def _add(self, at, event, **fields):
        entry = {"begun": at, "at": at, "event": event}
        self.entries.append(entry | fields)

    def process(self, at, state, host="h0"):
        self._add(at, "process", host=host, state=state)

    def killed(self, begin, end=None, host="h0"):
        self.process(begin, "killed", host)
        if end is not None:
            self.process(end, "started", host)
            self.process(end + 0.2, "joined", host)

    def server(self, begin, end, name, state="killed"):
        self._add(begin, "server", server=name, state=state)
        back = {"suspended": "resumed", "silent": "serving"}.get(
            state, "answering"
        )
        self._add(end, "server", server=name, state=back)

    def cut(self, begin, end, node, peers=(), direction="both", loss=1.0):
        self._cuts += 1
        self._add(
            begin,
            "cut",
            id=self._cuts,
            node=node,
            peers=list(peers),
            direction=direction,
            loss=loss,
        )
        self._add(end, "healed", id=self._cuts)

    def starved(self, begin, end, node):
        self._add(end, "starved", node=node)
        self.entries[-1]["begun"] = begin

    def answers(self, begin, end, letter, observer="c1"):
        """The observer answers about h0 every quarter of a second."""
        at = begin
        while at < end:
            self._add(at, "answers", observer=observer, letters=f"{letter}UUU")
            at += 0.25

    def check(self):
        """Return the kinds of the violations about h0."""
        entries = sorted(self.entries, key=lambda entry: entry["at"])
        found = checker.check(entries)
        assert not [v for v in found.violations if v.host != "h0"], found
        return [violation.kind for violation in found.violations]


class LivingTest(unittest.TestCase):
    def test_all_is_well(self):
        for driver in SERVERS:
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 60, "U")
                self.assertEqual([], story.check())

    def test_a_living_host_is_called_down_once(self):
        for driver in SERVERS:
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 40, "U")
                story.answers(40, 40.2, "D")
                story.answers(41, 60, "U")
                self.assertEqual(["wrong down"], story.check())

    def test_down_for_long_is_one_violation(self):
        story = Story("zk")
        story.answers(1, 40, "U")
        story.answers(40, 55, "D")
        self.assertEqual(["wrong down"], story.check())

    def test_the_backend_is_out_and_a_host_is_called_down(self):
        for driver, servers in (
            ("zk", ["z1", "z2"]),
            ("mc", ["m1", "m2", "m3"]),
            ("db", ["g2", "g3"]),
        ):
            for end in (46, 35):
                with self.subTest(driver, end=end):
                    story = Story(driver)
                    story.answers(1, 40, "U")
                    for server in servers:
                        story.server(30, end, server, "suspended")
                    story.answers(40, 41, "D")
                    self.assertEqual(["wrong down"], story.check())

    def test_old_records_after_an_outage(self):
        for reports, late, kind in (
            (False, 0, "records"),
            (False, 8, "wrong down"),
            (True, 0, "wrong down"),
        ):
            with self.subTest(reports=reports, late=late):
                story = Story("db", records=True, reports=reports)
                story.server(20, 45, "g2", "suspended")
                story.server(20, 45, "g3", "suspended")
                story.answers(1, 22, "U")
                story.answers(22, 46, "?")
                story.answers(46, 46 + late, "U")
                story.answers(46 + late, 46.5 + late, "D")
                self.assertEqual([kind], story.check())

    def test_a_host_that_was_cut_off_may_be_down(self):
        story = Story("db")
        story.answers(1, 40, "U")
        story.cut(32, 38, "h0", ["lb1"])
        story.answers(40, 41, "D")
        story.answers(42, 60, "U")
        self.assertEqual([], story.check())

    def test_a_host_whose_server_side_is_cut_may_be_down(self):
        story = Story("db")
        story.answers(1, 40, "U")
        story.cut(32, 38, "lb1", ["h0", "h1"], "in")
        story.answers(40, 41, "D")
        self.assertEqual([], story.check())

    def test_one_server_of_three_is_no_excuse(self):
        for driver, server in (("zk", "z1"), ("mc", "m1"), ("db", "g1")):
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 40, "U")
                story.cut(32, 38, server)
                story.answers(40, 41, "D")
                self.assertEqual(["wrong down"], story.check())

    def test_the_cut_of_another_host_is_no_excuse(self):
        story = Story("zk")
        story.answers(1, 40, "U")
        story.cut(32, 38, "h1")
        story.answers(40, 41, "D")
        self.assertEqual(["wrong down"], story.check())

    def test_host_and_observer_meet_at_no_memcached(self):
        story = Story("mc")
        story.answers(1, 40, "U")
        story.cut(30, 45, "h0", ["m1", "m2"])
        story.cut(30, 45, "c1", ["m3"])
        story.answers(40, 41, "D")
        self.assertEqual([], story.check())

    def test_host_and_observer_meet_at_one_memcached(self):
        story = Story("mc")
        story.answers(1, 40, "U")
        story.cut(30, 45, "h0", ["m1"])
        story.cut(30, 45, "c1", ["m3"])
        story.answers(40, 41, "D")
        self.assertEqual(["wrong down"], story.check())

    def test_a_host_that_did_not_get_a_core_may_be_down(self):
        story = Story("db")
        story.answers(1, 40, "U")
        story.starved(33, 39, "h0")
        story.answers(40, 41, "D")
        self.assertEqual([], story.check())

    def test_a_machine_that_stood_still(self):
        story = Story("db")
        story.answers(1, 40, "U")
        story.starved(33, 39, "*")
        story.answers(40, 41, "D")
        self.assertEqual([], story.check())

    def test_two_backends_and_one_is_whole(self):
        story = Story("zk", "db")
        story.answers(1, 40, "U")
        story.cut(20, 45, "h0", ["lb1"])
        story.answers(40, 41, "D")
        self.assertEqual(["wrong down"], story.check())

    def test_two_backends_and_host_and_observer_reach_different_ones(self):
        story = Story("zk", "db")
        story.answers(1, 40, "U")
        story.cut(20, 45, "h0", ["lb1"])
        story.cut(20, 45, "c1", SERVERS["zk"])
        story.answers(40, 41, "D")
        self.assertEqual([], story.check())


class BackTest(unittest.TestCase):
    def test_a_restarted_host_stays_down(self):
        for driver in SERVERS:
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 30, "U")
                story.killed(24, 35)
                story.answers(30, 60, "D")
                self.assertEqual(["not back"], story.check())

    def test_a_restarted_host_is_up_soon(self):
        story = Story("db")
        story.answers(1, 30, "U")
        story.killed(24, 35)
        story.answers(30, 37, "D")
        story.answers(37, 60, "U")
        self.assertEqual([], story.check())

    def test_it_cannot_come_back_while_the_backend_is_out(self):
        story = Story("zk")
        story.answers(1, 30, "U")
        story.killed(24, 35)
        story.server(34, 60, "z1")
        story.server(34, 60, "z2")
        story.answers(30, 41, "D")
        story.answers(41, 62, "?")
        story.answers(62, 64, "D")
        story.answers(64, 90, "U")
        self.assertEqual([], story.check())

    def test_a_host_dies_while_a_command_runs(self):
        story = Story("zk")
        story.killed(31)
        story.answers(30, 30.1, "D", observer="c2")
        story.entries[-1]["at"] = 37.0
        self.assertEqual([], story.check())

    def test_a_command_calls_a_living_host_down(self):
        story = Story("mc")
        story.answers(30, 30.1, "D", observer="c2")
        self.assertEqual(["not back"], story.check())


class DeadTest(unittest.TestCase):
    def test_found_in_time(self):
        for driver in SERVERS:
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 36, "U")
                story.killed(30)
                story.answers(36, 60, "D")
                self.assertEqual([], story.check())

    def test_found_late(self):
        for driver in SERVERS:
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 40, "U")
                story.killed(30)
                story.answers(40, 60, "D")
                self.assertEqual(["wrong up"], story.check())

    def test_a_suspended_host_is_gone(self):
        story = Story("db")
        story.answers(1, 50, "U")
        story.process(30, "suspended")
        story.process(50, "resumed")
        story.answers(50, 60, "U")
        self.assertEqual(["wrong up"], story.check())

    def test_a_host_that_left_is_gone(self):
        story = Story("db")
        story.answers(1, 50, "U")
        story.process(29.8, "leaving")
        story.process(30, "left")
        self.assertEqual(["wrong up"], story.check())

    def test_a_host_none_of_whose_packets_arrive_is_gone(self):
        for direction, kinds in (("out", ["wrong up"]), ("in", [])):
            with self.subTest(direction):
                story = Story("db")
                story.answers(1, 50, "U")
                story.cut(30, 50, "h0", [], direction)
                self.assertEqual(kinds, story.check())

    def test_bytes_of_a_killed_process_arrive_late(self):
        """They keep a session alive, and nothing else."""
        for driver, until, kinds in (
            ("zk", 46, []),
            ("zk", 50, ["wrong up"]),
            ("db", 46, ["wrong up"]),
        ):
            with self.subTest(driver, until=until):
                story = Story(driver)
                story.answers(1, until, "U")
                story.cut(30, 34, "h0")
                story.killed(33)
                story.answers(until, 60, "D")
                self.assertEqual(kinds, story.check())

    def test_a_lossy_host_may_be_up_or_down(self):
        story = Story("zk")
        story.answers(1, 36, "U")
        story.cut(30, 60, "h0", [], loss=0.3)
        story.answers(36, 40, "D")
        story.answers(40, 60, "U")
        self.assertEqual([], story.check())

    def test_an_outage_gives_time(self):
        story = Story("zk")
        story.answers(1, 36, "U")
        story.killed(30)
        story.server(29, 40, "z1", "suspended")
        story.server(29, 40, "z2", "suspended")
        story.answers(36, 40, "?")
        story.answers(40, 50, "U")
        story.answers(50, 60, "D")
        self.assertEqual([], story.check())

    def test_the_time_after_an_outage_has_an_end(self):
        story = Story("zk")
        story.killed(30)
        story.server(29, 40, "z1", "suspended")
        story.server(29, 40, "z2", "suspended")
        story.answers(40, 60, "U")
        self.assertEqual(["wrong up"], story.check())

    def test_most_hosts_die_and_are_held(self):
        story = Story("db")
        for host in ("h1", "h2"):
            story.killed(30, 70, host)
        story.killed(30)
        story.answers(1, 48, "U")
        story.answers(48, 60, "D")
        entries = sorted(story.entries, key=lambda entry: entry["at"])
        found = checker.check(entries).violations
        self.assertEqual([], [v for v in found if v.host == "h0"])

    def test_most_hosts_are_silent_to_one_observer_and_are_held(self):
        # They report to the memcacheds that this observer cannot reach.
        story = self.one_memcached_for_h0_and_c1()
        story.answers(1, 48, "U")
        story.answers(48, 60, "D")
        self.assertEqual([], story.check())

    def test_the_hold_of_one_observer_has_an_end(self):
        story = self.one_memcached_for_h0_and_c1()
        story.answers(1, 60, "U")
        self.assertEqual(["wrong up"], story.check())

    def one_memcached_for_h0_and_c1(self):
        """Return a story in which h0 is killed, and others cannot reach it."""
        story = Story("mc")
        for host in HOSTS[1:]:
            story.cut(29, 70, host, ["m2"])
        story.cut(29, 70, "c1", ["m1", "m3"])
        story.killed(30)
        return story

    def test_it_rises_from_the_dead(self):
        story = Story("db")
        story.answers(1, 36, "U")
        story.killed(30)
        story.answers(36, 45, "D")
        # No limit excuses it: the backend has just been out.
        story.server(42, 44, "g2", "suspended")
        story.server(42, 44, "g3", "suspended")
        story.answers(45, 45.2, "U")
        story.answers(46, 60, "D")
        self.assertEqual(["rose"], story.check())

    def test_it_is_started_again_and_dies_again(self):
        story = Story("db")
        story.answers(1, 36, "U")
        story.killed(30, 45)
        story.answers(36, 45.5, "D")
        story.killed(46)
        story.answers(45.5, 52, "U")
        story.answers(52, 60, "D")
        self.assertEqual([], story.check())

    def test_held_by_a_long_call(self):
        """Another thread keeps a session of ZooKeeper."""
        for driver, kinds in (("db", ["wrong up"]), ("zk", [])):
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 50, "U")
                story.process(30, "blocking")
                story.process(30.1, "blocked")
                story.process(50, "unblocked")
                self.assertEqual(kinds, story.check())

    def test_forced_down(self):
        for begin, end, kinds in (
            (30.3, 40.2, []),
            (45, 45, ["wrong up"]),
            (30.3, 60, ["not back"]),
        ):
            with self.subTest(begin=begin, end=end):
                story = Story("db")
                story.answers(1, begin, "U")
                story.process(30, "forcing")
                story.process(30.2, "forced")
                story.process(40, "unforcing")
                story.process(40.2, "unforced")
                story.answers(begin, end, "D")
                story.answers(end, 60, "U")
                if begin == 45:
                    story = Story("db")
                    story.answers(1, 50, "U")
                    story.process(30, "forcing")
                    story.process(30.2, "forced")
                    story.process(50, "unforcing")
                    story.process(50.2, "unforced")
                self.assertEqual(kinds, story.check())


class WritesTest(unittest.TestCase):
    """Servers that serve, and do not write."""

    def test_one_node_is_locked(self):
        """A proxy leads to it still; nothing is expected."""
        story = Story("db")
        story.answers(1, 40, "U")
        story._add(30, "server", server="g1", state="locked")
        story.answers(40, 45, "D")
        story.answers(45, 49, "?")
        story._add(50, "server", server="g1", state="unlocked")
        story.answers(55, 70, "U")
        self.assertEqual([], story.check())

    def test_all_nodes_are_locked(self):
        """That is an outage for all."""
        story = Story("db")
        story.answers(1, 45, "U")
        for name in SERVERS["db"][:3]:
            story._add(30, "server", server=name, state="locked")
            story._add(50, "server", server=name, state="unlocked")
        story.answers(45, 46, "D")
        self.assertEqual(["wrong down"], story.check())

    def test_one_node_is_read_only(self):
        """The proxies lead to the others."""
        story = Story("db")
        story.answers(1, 45, "U")
        story._add(30, "server", server="g1", state="read-only")
        story._add(50, "server", server="g1", state="writable")
        story.answers(45, 46, "D")
        self.assertEqual(["wrong down"], story.check())

    def test_the_step_of_a_clock(self):
        """A command has only stamps; others are judged as ever."""
        for observer, kinds in (("c1", ["unknown"]), ("c2", [])):
            with self.subTest(observer):
                story = Story("db")
                for at, step in ((30, 20.0), (40, 0.0)):
                    story._add(at, "clock", server="g1", step=step)
                story.answers(55, 55.1, "?", observer=observer)
                self.assertEqual(kinds, story.check())


class ManyTest(unittest.TestCase):
    """Members of one process, a watcher, and stock Nova."""

    def test_members_of_one_machine(self):
        story = Story("db")
        setup = story.entries[0]
        setup["hosts"] = [*HOSTS, "b0", "b1"]
        setup["machines"] = {"b0": "hb", "b1": "hb"}
        setup["fronts"]["hb"] = {"db": "lb1"}
        setup["asks"] = {"c2": 4}
        story.process(0.1, "started", "hb")
        story.process(0.2, "joined", "hb")
        story.killed(60, host="hb")
        for at in range(10, 120):
            down = "DD" if at == 50 or at > 80 else "UU"
            story._add(at, "answers", observer="c1", letters=f"UUUU{down}")
        story._add(110, "answers", observer="c2", letters="UUUU")
        entries = sorted(story.entries, key=lambda entry: entry["at"])
        found = checker.check(entries).violations
        self.assertEqual(
            [("wrong down", "b0", 50), ("wrong down", "b1", 50)],
            [(one.kind, one.host, one.begin) for one in found],
        )

    def test_a_command_of_a_watcher_comes_later(self):
        for acts, kinds in ((4.0, []), (0.0, ["wrong down", "wrong up"])):
            with self.subTest(acts=acts):
                story = Story("db")
                setup = story.entries[0]
                setup["acts"] = {"c1": acts}
                story.answers(1, 36, "U")
                story.cut(20, 25, "h0")
                story.answers(38, 38.1, "D")
                story.answers(39, 60, "U")
                story.killed(60, 100)
                story.answers(60, 69, "U")
                story.answers(69, 80, "D")
                self.assertEqual(kinds, story.check())

    def test_stock_nova_is_judged_by_itself(self):
        story = Story("zk", "db")
        setup = story.entries[0]
        setup["lived"]["n1"] = True
        setup["fronts"]["n1"] = {"zk": None, "db": "lb1"}
        setup["stock"] = {"db": "n1"}
        setup |= {"seed": 7, "mode": "threads"}
        story.answers(1, 40, "U")
        story.answers(1, 40, "U", observer="n1")
        story.answers(40, 41, "D", observer="n1")
        self.assertEqual([], story.check())
        entries = sorted(story.entries, key=lambda entry: entry["at"])
        *_, ours, stock, _ = __main__.rows([entries])
        self.assertEqual(["0", "0", "0"], ours.split()[-3:])
        self.assertEqual(["Nova", "db"], stock.split()[2:4])
        self.assertEqual(["4", "0", "0"], stock.split()[-3:])
        [found] = checker.check(entries, "db").violations
        self.assertEqual(("wrong down", "n1"), (found.kind, found.observer))


class UnknownTest(unittest.TestCase):
    def test_the_backend_is_out(self):
        story = Story("zk")
        story.answers(1, 46, "U")
        story.server(40, 60, "z1")
        story.server(40, 60, "z2")
        story.answers(46, 62, "?")
        story.answers(62, 80, "U")
        self.assertEqual([], story.check())

    def test_a_majority_could_be_reached(self):
        for driver in SERVERS:
            with self.subTest(driver):
                story = Story(driver)
                story.answers(1, 46, "U")
                story.answers(46, 46.2, "?")
                self.assertEqual(["unknown"], story.check())

    def test_a_command_does_not_know_a_host_that_died_before_a_restart(self):
        for driver, kinds in (("mc", []), ("db", ["unknown"])):
            with self.subTest(driver):
                story = Story(driver)
                story.killed(20)
                for server in SERVERS[driver][:3]:
                    story.server(22, 23, server)
                story.answers(50, 50.1, "?", observer="c2")
                self.assertEqual(kinds, story.check())

    def test_the_servers_say_that_they_do_not_serve(self):
        story = Story("db")
        story.server(40, 60, "g1", "silent")
        story.server(41, 60, "g2", "silent")
        story.answers(47, 62, "?")
        self.assertEqual([], story.check())

    def test_only_the_observer_is_cut_off(self):
        story = Story("db")
        story.cut(40, 60, "c1")
        story.answers(46, 62, "?")
        self.assertEqual([], story.check())

    def test_an_observer_without_a_record_to_ask_by(self):
        for records, kinds in ((True, []), (False, ["unknown"])):
            with self.subTest(records=records):
                story = Story("zk", "db", records=records)
                story.cut(40, 60, "c1", ["lb1"])
                story.answers(50, 60, "?")
                self.assertEqual(kinds, story.check())

    def test_a_host_that_left_one_backend_may_report_to_the_other(self):
        """Only while the observer cannot reach that one."""
        for lost, leaves, kinds in (
            ([], True, ["unknown"]),
            (["z1"], True, ["unknown"]),
            (SERVERS["zk"], True, []),
            (["lb1"], True, []),
            (SERVERS["zk"], False, ["unknown"]),
            (["lb1"], False, ["unknown"]),
        ):
            with self.subTest(lost=lost, leaves=leaves):
                story = Story("zk", "db")
                story.answers(1, 36, "U")
                if leaves:
                    story.process(30, "leaving")
                    story.process(32, "left")
                    story.process(50, "started")
                    story.process(50.2, "joined")
                if lost:
                    story.cut(31.9, 60, "c1", lost)
                story.answers(43, 49, "?")
                self.assertEqual(kinds, story.check())

    def test_it_is_known_again_after_it_joins(self):
        story = Story("zk", "db")
        story.process(30, "leaving")
        story.process(32, "left")
        story.process(40, "started")
        story.process(40.2, "joined")
        story.cut(31.9, 60, "c1", SERVERS["zk"])
        story.answers(52, 53, "?")
        self.assertEqual(["unknown"], story.check())

    def test_a_host_that_was_cut_off_from_one_backend(self):
        """Unless its last reports to both are of the same time."""
        for begin, lost, kinds in (
            (20, SERVERS["zk"], []),
            (38, SERVERS["zk"], ["unknown"]),
            (20, ["z1"], ["unknown"]),
        ):
            with self.subTest(begin=begin, lost=lost):
                story = Story("zk", "db")
                story.answers(1, 40, "U")
                story.cut(begin, 60, "h0", ["lb1"])
                story.cut(40, 60, "c1", lost)
                story.answers(50, 60, "?")
                self.assertEqual(kinds, story.check())

    def test_an_observer_that_did_not_get_a_core_is_not_judged(self):
        story = Story("db")
        story.starved(44, 46, "c1")
        story.answers(46, 46.2, "?")
        self.assertEqual([], story.check())


class PathTest(unittest.TestCase):
    """Which paths are whole, at one moment."""

    def path(self, driver, client, *cuts, down=()):
        story = Story(driver)
        for cut in cuts:
            story.cut(10, 20, *cut)
        for server in down:
            story.server(10, 20, server)
        story.answers(30, 31, "U")
        entries = sorted(story.entries, key=lambda entry: entry["at"])
        found = truth.Truth(entries)
        [segment] = found._between(15.0, 15.0)
        return found.path(segment, client, driver)

    def test_zk(self):
        for expected, cuts, down in (
            ("whole", [], []),
            ("whole", [], ["z1"]),
            ("out", [], ["z1", "z2"]),
            ("out", [("z1", ["z2", "z3"]), ("z2", ["z3"])], []),
            ("whole", [("z1", [], "in")], []),
            ("out", [("z1", [], "in")], ["z2"]),
            ("broken", [("z1", [], "in", 0.3)], ["z2"]),
            ("whole", [("z1", ["z2", "z3"])], []),
            ("whole", [("h0", ["z1"])], []),
            ("broken", [("h0", ["z1"])], ["z2"]),
            ("broken", [("h0",)], []),
            ("broken", [("h0", ["z1", "z2"])], []),
            ("broken", [("z1", ["z2", "z3"]), ("h0", ["z2"])], []),
        ):
            with self.subTest(cuts=cuts, down=down):
                found = self.path("zk", "h0", *cuts, down=down)
                self.assertEqual(expected, found)

    def test_db(self):
        for expected, cuts, down in (
            ("whole", [], []),
            ("whole", [], ["g1"]),
            ("whole", [], ["lb2"]),
            ("whole", [("lb1", ["g1"])], []),
            ("out", [], ["g1", "g2"]),
            ("broken", [], ["lb1"]),
            ("broken", [("lb1", [], "out")], []),
            ("out", [("g1",), ("g2", [], "out")], []),
            ("broken", [("h0", ["lb1"])], []),
            ("broken", [("lb1", ["g1", "g2", "g3"])], []),
            ("broken", [("lb1", ["g2"])], ["g1", "g3"]),
            ("broken", [("g1", ["g2", "g3"]), ("lb1", ["g2", "g3"])], []),
        ):
            with self.subTest(cuts=cuts, down=down):
                found = self.path("db", "h0", *cuts, down=down)
                self.assertEqual(expected, found)


class StretchTest(unittest.TestCase):
    def test_only_what_matters_is_shown(self):
        story = Story("zk")
        story.answers(1, 40, "U")
        story.killed(20, 25, host="h1")
        story.cut(5, 8, "h0")
        story.cut(20, 30, "h2")
        story.cut(30, 35, "z1")
        story.answers(40, 40.2, "D")
        entries = sorted(story.entries, key=lambda entry: entry["at"])
        [violation] = checker.check(entries).violations
        shown = checker.stretch(entries, violation)
        self.assertEqual(
            ["answers", "cut", "healed", "answers"],
            [entry["event"] for entry in shown],
        )
        self.assertEqual(["U", "D"], [e["letters"] for e in shown[::3]])


class PlanTest(unittest.TestCase):
    def plan(self, seed, drivers=("db", "mc", "zk"), kinds=None):
        return nemesis.plan(
            *(seed, 300.0, [f"h{number}" for number in range(30)]),
            *(["c1", "c2", "c3"], {d: SERVERS[d] for d in drivers}),
            ["lb1", "lb2"],
            kinds,
        )

    def test_a_seed_is_a_plan(self):
        self.assertEqual(self.plan(1), self.plan(1))
        self.assertNotEqual(self.plan(1), self.plan(2))

    def test_a_plan_of_one_fault_alone(self):
        """It comes, from the seed, and ends before the calm."""
        names = {"one_way", "loss", "cut_hosts", "halves", "rack"}
        names |= {"cut_controller", "controllers"}
        for kind in nemesis.KINDS:
            drivers = nemesis._ONLY.get(kind, ("db", "mc", "zk"))
            for driver in drivers:
                with self.subTest(kind, driver=driver):
                    plan = self.plan(5, [driver], [kind])
                    self.assertEqual(plan, self.plan(5, [driver], [kind]))
                    self.assertNotEqual(plan, self.plan(6, [driver], [kind]))
                    played = "cut" if kind in names else kind
                    self.assertEqual({played}, {one.kind for one in plan})
                    for one in plan:
                        if kind in nemesis._OF_HOSTS:
                            self.assertLessEqual(one.at + one.lasts, 300.0)
                            continue
                        begin = (one.at - 4.0) % nemesis.ROUND
                        self.assertLess(begin + one.lasts, nemesis.STORM + 0.1)

    def test_a_fault_of_another_backend_is_not_planned(self):
        self.assertEqual([], self.plan(5, ["zk"], ["flush"]))

    def test_a_rack_is_cut_from_all_others(self):
        for seed in range(5):
            for fault in self.plan(seed, ["zk"], ["rack"]):
                nodes = {*fault.targets, *fault.peers}
                self.assertEqual(len(fault.targets) + len(fault.peers), 36)
                self.assertEqual(36, len(nodes))
                # A server, ten hosts and a controller.
                self.assertEqual(12, len(fault.targets))

    def test_a_host_with_many_members_is_not_forced_down(self):
        for seed in range(20):
            plan = nemesis.plan(
                *(seed, 300.0, ["h0", nemesis.BULK], ["c1"]),
                *({"zk": SERVERS["zk"]}, [], ["force_down"]),
            )
            self.assertEqual({("h0",)}, {fault.targets for fault in plan})

    def test_controllers_are_cut_from_hosts_alone(self):
        for fault in self.plan(1, ["zk"], ["controllers"]):
            self.assertEqual(("c1", "c2", "c3"), fault.targets)
            self.assertEqual({"h"}, {name[0] for name in fault.peers})

    def test_one_backend_has_one_fault_of_its_writes_at_a_time(self):
        kinds = ["read_only", "lock_tables", "fill_disk"]
        for seed in range(20):
            end = 0.0
            for fault in self.plan(seed, ["db"], kinds):
                self.assertLess(end, fault.at)
                end = fault.at + fault.lasts

    def test_every_kind_can_be_played(self):
        kinds = {fault.kind for seed in range(20) for fault in self.plan(seed)}
        for kind in kinds:
            self.assertTrue(hasattr(nemesis.Nemesis, f"_{kind}"), kind)
        self.assertLess(9, len(kinds))

    def test_one_process_has_one_fault_at_a_time(self):
        for seed in range(20):
            ends = {}
            for fault in self.plan(seed):
                if fault.kind in (
                    *("cut", "unplug", "flush", "reload_proxy"),
                    *("read_only", "lock_tables", "step_clock"),
                ):
                    continue
                for name in fault.targets:
                    self.assertLess(ends.get(name, 0.0), fault.at, fault)
                    ends[name] = fault.at + fault.lasts

    def test_a_galera_cluster_loses_one_node_at_a_time(self):
        for seed in range(20):
            end = 0.0
            for fault in self.plan(seed, ["db"]):
                if fault.kind in ("kill_server", "restart_server"):
                    if fault.targets[0].startswith("g"):
                        self.assertLess(end, fault.at)
                        end = fault.at + fault.lasts


class _Part:
    """A part of a cloud that writes down what is done to it."""

    def __init__(self, told, name=""):
        self._told = told
        self._name = name
        self.is_running = True
        self.fronts = ()

    def __getattr__(self, method):
        def note(*arguments, **fields):
            self._told.append((self._name, method, *arguments))
            return True

        return note

    @contextlib.contextmanager
    def locked(self, name):
        self._told.append((name, "lock"))
        yield
        self._told.append((name, "unlock"))


class HealedTest(unittest.TestCase):
    """A fault has ended when play() returns."""

    def play(self, kind, target, clock_needs_start=False, **more):
        told = []
        backend = _Part(told)
        backend.clock_needs_start = clock_needs_start
        backend.names = SERVERS["db"]
        backend.servers = {name: _Part(told, name) for name in backend.names}
        played = nemesis.Nemesis(
            _Part(told, "cloud"),
            {"h0": _Part(told, "h0")},
            [backend],
            _Part([]),
            lambda *words: told.append(("operator", *words)) or 0,
        )
        played.play([nemesis.Fault(1, 0.0, 0.05, kind, target, **more)])
        self.assertEqual([], played.errors)
        return told

    def test_read_only(self):
        self.assertEqual(
            [
                ("", "set_read_only", "g1", True),
                ("", "set_read_only", "g1", False),
            ],
            self.play("read_only", ("g1",)),
        )

    def test_lock_tables(self):
        self.assertEqual(
            [("g1", "lock"), ("g2", "lock"), ("g2", "unlock")]
            + [("g1", "unlock")],
            self.play("lock_tables", ("g1", "g2")),
        )

    def test_fill_disk(self):
        self.assertEqual(
            [("g1", "fill_disk"), ("g1", "free_disk"), ("", "answers", "g1")],
            self.play("fill_disk", ("g1",)),
        )

    def test_step_clock(self):
        self.assertEqual(
            [("g1", "step_clock", 9.5), ("g1", "step_clock", 0.0)],
            self.play("step_clock", ("g1",), step=9.5),
        )

    def test_step_clock_of_a_server_that_reads_it_at_its_start(self):
        told = self.play(
            "step_clock", ("g1",), clock_needs_start=True, step=9.5
        )
        started = ("", "start_server", "g1")
        answers = ("", "answers", "g1")
        self.assertEqual(
            [("g1", "kill"), ("g1", "step_clock", 9.5), started, answers]
            + [("g1", "kill"), ("g1", "step_clock", 0.0), started, answers],
            told,
        )

    def test_reload_proxy(self):
        self.assertEqual(
            [("lb1", "reload")], self.play("reload_proxy", ("lb1",))
        )

    def test_hold_gil(self):
        self.assertEqual(
            [("h0", "block", 0.05)], self.play("hold_gil", ("h0",))
        )

    def test_force_down(self):
        self.assertEqual(
            [
                ("operator", "force-down", "h0"),
                ("operator", "force-down", "h0", "--unset"),
            ],
            [
                one
                for one in self.play("force_down", ("h0",))
                if "tell" not in one
            ],
        )

    def test_cuts(self):
        told = self.play("cut", ("h0", "h1"), peers=("g1",))
        self.assertEqual(
            ["cut", "cut", "heal", "heal"], [one[1] for one in told]
        )


class ShrinkingTest(unittest.TestCase):
    def story(self, numbers):
        """Fault 3 alone makes a host that is gone stay up."""
        story = Story("db")
        for number in sorted(numbers):
            story._add(
                *(float(number), "fault"),
                state="begins",
                number=number,
                planned=float(number),
            )
        story.answers(1, 30, "U")
        if 3 in numbers:
            story.killed(3)
        return sorted(story.entries, key=lambda entry: entry["at"])

    def test_faults_that_do_not_matter_are_dropped(self):
        played = []

        def play(numbers, seconds):
            played.append(numbers)
            return self.story(numbers)

        with contextlib.redirect_stdout(io.StringIO()) as output:
            kept = shrinking.shrink(self.story(range(1, 9)), play, 20, 60.0)
        self.assertEqual([3], kept)
        self.assertIn("--only 3", output.getvalue())
        self.assertLess(len(played), 12)

    def test_it_ends_after_so_many_runs(self):
        played = []

        def play(numbers, seconds):
            played.append(numbers)
            return self.story(set())

        with contextlib.redirect_stdout(io.StringIO()):
            kept = shrinking.shrink(self.story(range(1, 9)), play, 5, 60.0)
        self.assertEqual(list(range(1, 9)), kept)
        self.assertEqual(5, len(played))


class HistoryTest(unittest.TestCase):
    def test_it_is_read_as_it_was_written(self):
        with tempfile.NamedTemporaryFile() as file:
            written = history.History(file.name)
            begun = written.begun
            written.write("end", begun + 5, begun + 6, errors=[])
            written.write("setup", begun + 1, begun + 2, seed=1)
            written.close()
            self.assertEqual(
                [
                    {"begun": 1.0, "at": 2.0, "event": "setup", "seed": 1},
                    {"begun": 5.0, "at": 6.0, "event": "end", "errors": []},
                ],
                history.read(file.name),
            )
