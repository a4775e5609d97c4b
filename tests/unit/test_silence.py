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


"""Mass silence: most of a group falls silent at once."""

import random
import unittest

from nova_sg.servicegroup import detector, silence
from nova_sg.servicegroup.detector import Detector, Fact

D = 60.0
INTERVAL = 10.0
HOLD = 2 * D


class Group:
    """Members that report in time until they fall silent."""

    def __init__(self, members, rule=None):
        self.rng = random.Random(members)
        self.rule = rule or silence.Rule(0.55, 4, HOLD)
        self.judge = Detector(D, INTERVAL, self.rule)
        self.now = 0.0
        self.last = {}
        self.silent_from = {}
        for number in range(members):
            self.last[f"h{number}"] = -self.rng.uniform(0, INTERVAL)
        self.look()

    def silence(self, hosts, at=None):
        for host in hosts:
            self.silent_from[host] = self.now if at is None else at

    def look(self, **flags):
        facts = []
        for host, last in self.last.items():
            until = min(self.now, self.silent_from.get(host, self.now))
            while last + INTERVAL * 1.1 <= until:
                last += self.rng.uniform(0.9, 1.1) * INTERVAL
            self.last[host] = last
            facts.append(
                Fact(host, self.now, last_report=last, **flags.get(host, {}))
            )
        return self.judge.look(self.now, facts, complete=True)

    def run(self, until, step=2.0, **flags):
        """Look until a moment; return what changed, and when."""
        seen = []
        while self.now + step <= until:
            self.now += step
            seen += [(self.now, c.host, c.now) for c in self.look(**flags)]
        return seen

    def states(self):
        return {
            host: self.judge.judge(host, self.now).state for host in self.last
        }

    def hosts(self, count):
        return [f"h{number}" for number in range(count)]


class MassSilenceTest(unittest.TestCase):
    def test_nobody_is_down_while_most_are_silent(self):
        for members, silent in ((4, 3), (9, 5), (100, 55), (100, 100)):
            with self.subTest(members=members, silent=silent):
                group = Group(members)
                group.run(100.0)
                group.silence(group.hosts(silent))
                seen = group.run(100.0 + D + HOLD - 12)
                self.assertEqual(
                    {detector.HELD}, {verdict for _, _, verdict in seen}
                )
                self.assertEqual(silent, len(seen))
                self.assertEqual({"up"}, set(group.states().values()))
                self.assertIsNotNone(group.judge.hold)

    def test_then_the_truth_is_told(self):
        group = Group(20)
        group.silence(group.hosts(15))
        group.run(D + HOLD + 12.0)
        down = {h for h, s in group.states().items() if s == "down"}
        self.assertEqual(set(group.hosts(15)), down)
        self.assertIsNone(group.judge.hold)
        # Once and for all.
        self.assertEqual([], group.run(5000.0))

    def test_a_minority_is_told_at_once(self):
        for members, silent in ((3, 3), (4, 2), (100, 54)):
            with self.subTest(members=members, silent=silent):
                group = Group(members)
                group.silence(group.hosts(silent))
                group.run(D + 6.0)
                down = {h for h, s in group.states().items() if s == "down"}
                self.assertEqual(set(group.hosts(silent)), down)

    def test_it_can_be_switched_off(self):
        group = Group(20, silence.Rule(0.0, 4, HOLD))
        group.silence(group.hosts(20))
        group.run(D + 6.0)
        self.assertEqual({"down"}, set(group.states().values()))

    def test_a_group_that_fades_away_is_no_mass(self):
        group = Group(20)
        for number in range(20):
            group.silence([f"h{number}"], at=number * D)
        seen = group.run(25 * D)
        self.assertEqual(
            {detector.SILENT}, {v for _, _, v in seen if v is not None}
        )
        self.assertEqual(20, len(seen))

    def test_those_who_were_down_before_do_not_count(self):
        group = Group(10)
        group.silence(group.hosts(5))
        group.run(500.0)
        # Three of the five that are left.
        group.silence(["h5", "h6", "h7"])
        seen = group.run(500.0 + D + 8)
        self.assertEqual({detector.HELD}, {v for _, _, v in seen})

    def test_who_left_is_down_at_once_and_does_not_count(self):
        group = Group(10)
        group.run(50.0)
        group.silence(group.hosts(10))
        left = {host: {"left": True} for host in group.hosts(7)}
        group.run(52.0, **left)
        states = group.states()
        self.assertTrue(all(states[h] == "down" for h in group.hosts(7)))
        # Three that are left are too few for a mass.
        group.run(50.0 + D + 6, **left)
        self.assertEqual({"down"}, set(group.states().values()))

    def test_forced_down_stays_down_and_does_not_count(self):
        group = Group(6)
        group.silence(group.hosts(6))
        forced = {host: {"forced_down": True} for host in group.hosts(3)}
        group.run(D + 6, **forced)
        self.assertEqual({"down"}, set(group.states().values()))

    def test_who_comes_back_was_never_down(self):
        group = Group(10)
        group.silence(group.hosts(8))
        group.run(D + 20.0)
        group.silent_from.clear()
        for host in group.hosts(8):
            group.last[host] = group.now
        seen = group.run(D + 26.0)
        self.assertEqual({detector.REPORTED}, {v for _, _, v in seen})
        self.assertEqual(8, len(seen))
        self.assertIsNone(group.judge.hold)

    def test_who_dies_meanwhile_is_found_when_it_ends(self):
        group = Group(20)
        group.silence(group.hosts(15))
        group.run(D + 30.0)
        group.silence(["h19"])
        group.run(D + HOLD + 12.0)
        self.assertEqual("down", group.states()["h19"])

    def test_a_first_look_knows_what_the_others_hold(self):
        group = Group(20)
        group.run(100.0)
        group.silence(group.hosts(15))
        group.run(100.0 + D + 60.0)
        newcomer = Detector(D, INTERVAL, group.rule)
        facts = [
            Fact(host, group.now, last_report=last)
            for host, last in group.last.items()
        ]
        newcomer.look(group.now, facts)
        self.assertIs(detector.HELD, newcomer.judge("h0", group.now))
        # Both find the same end.
        self.assertAlmostEqual(
            group.judge.hold.since, newcomer.hold.since, delta=2.0
        )
        newcomer.look(100.0 + D + HOLD + 2, [])
        self.assertIs(detector.SILENT, newcomer.judge("h0", group.now))

    def test_what_happened_long_ago_is_told_at_a_first_look(self):
        judge = Detector(D, INTERVAL, silence.Rule(0.55, 4, HOLD))
        old = 1000.0 - D - HOLD - 1
        judge.look(
            1000.0, [Fact(f"h{n}", 1000.0, last_report=old) for n in range(9)]
        )
        self.assertEqual({detector.SILENT}, set(judge.verdicts().values()))

    def test_sessions_that_end_all_at_once_are_held(self):
        judge = Detector(D, INTERVAL, silence.Rule(0.55, 4, HOLD))
        hosts = [f"h{n}" for n in range(10)]
        judge.look(100.0, [Fact(h, 100.0, last_report=100.0) for h in hosts])
        self.look_lost(judge, 110.0, hosts, 8)
        self.assertEqual(8, list(judge.verdicts().values()).count(HELD))
        self.look_lost(judge, 110.0 + HOLD, hosts, 8)
        self.assertEqual(8, list(judge.verdicts().values()).count(HELD))
        self.look_lost(judge, 110.1 + HOLD, hosts, 8)
        self.assertEqual(8, list(judge.verdicts().values()).count(LOST))

    def test_few_sessions_that_end_are_told_at_once(self):
        judge = Detector(D, INTERVAL, silence.Rule(0.55, 4, HOLD))
        hosts = [f"h{n}" for n in range(10)]
        judge.look(100.0, [Fact(h, 100.0, last_report=100.0) for h in hosts])
        self.look_lost(judge, 110.0, hosts, 5)
        self.assertEqual(5, list(judge.verdicts().values()).count(LOST))

    def look_lost(self, judge, at, hosts, lost):
        facts = [Fact(host, at, lost=True) for host in hosts[:lost]]
        facts += [Fact(host, at, last_report=at) for host in hosts[lost:]]
        judge.look(at, facts, complete=True)

    def test_who_counts_as_one_of_the_mass_is_held_with_it(self):
        # Looks are rare: one member fell a while before the others, and
        # would be no mass with those around its own moment.
        judge = Detector(D, INTERVAL, silence.Rule(0.55, 4, HOLD))
        reports = {"first": 40.0}
        reports |= {f"second{number}": 68.0 for number in range(5)}
        reports |= {f"third{number}": 80.0 for number in range(5)}
        for asked in (81.0, 141.0):
            judge.look(
                asked,
                [Fact(h, asked, last_report=r) for h, r in reports.items()],
                complete=True,
            )
        self.assertEqual(
            {"up"}, {judge.judge(host, 141.0).state for host in reports}
        )

    def test_an_outage_in_between_is_no_time_of_the_hold(self):
        group = Group(10)
        group.silence(group.hosts(10))
        group.run(D + 20.0)
        group.judge.look_failed(group.now + 1)
        group.now += 300.0
        group.look()
        self.assertEqual({"up"}, set(group.states().values()))
        group.run(group.now + HOLD)
        self.assertEqual({"down"}, set(group.states().values()))

    def test_words(self):
        group = Group(10)
        group.silence(group.hosts(6))
        group.run(D + 12)
        verdict = group.judge.judge("h0", group.now)
        self.assertRegex(
            group.judge.explain("h0", verdict, group.now),
            r"^last report \d\d\.\d s ago, allowed are 60 s; held as up for "
            r"\d+\.\d s so far, and for \d+\.\d s more at most: 6 of 10 "
            r"members fell silent within 60 s$",
        )


HELD, LOST = detector.HELD, detector.LOST
