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

from nova_sg.liveness import model
from nova_sg.liveness.model import HELD, LOST, REPORTED, SILENT
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen

HOLD = 2 * LIMIT
RULE = model.MassRule(0.55, 4, HOLD)


class Group:
    """Members that report in time until they fall silent."""

    def __init__(self, members, rule=RULE):
        self.rng = random.Random(members)
        self.observer = Observer(mass=rule)
        self.now = 0.0
        self.last = {}
        self.silent_from = {}
        for number in range(members):
            self.last[f"h{number}"] = -self.rng.uniform(0, INTERVAL)
        self.refresh()

    def silence(self, hosts, at=None):
        for host in hosts:
            self.silent_from[host] = self.now if at is None else at

    def refresh(self, **attributes):
        observations = []
        for host, last in self.last.items():
            until = min(self.now, self.silent_from.get(host, self.now))
            while last + INTERVAL * 1.1 <= until:
                last += self.rng.uniform(0.9, 1.1) * INTERVAL
            self.last[host] = last
            observations.append(
                seen(host, last, last, **attributes.get(host, {}))
            )
        self.observer.refresh(self.now, observations)
        return self.observer.changes

    def run(self, until, step=2.0, **attributes):
        """Refresh until a moment; return (moment, host, verdict) of changes.

        :param attributes: by host: fields of Attributes
        """
        changed = []
        while self.now + step <= until:
            self.now += step
            changed += [
                (self.now, one.host, one.now)
                for one in self.refresh(**attributes)
            ]
        return changed

    @property
    def hold(self):
        return self.observer.group.mass.hold

    def states(self):
        return {
            host: member.verdict.state
            for host, member in self.observer.group.members.items()
        }

    def down(self):
        return {host for host, state in self.states().items() if state != "up"}

    def hosts(self, count):
        return [f"h{number}" for number in range(count)]


class MassSilenceTest(unittest.TestCase):
    def test_members_are_held_while_most_are_silent(self):
        for members, silent in ((4, 3), (9, 5), (100, 55), (100, 100)):
            with self.subTest(members=members, silent=silent):
                group = Group(members)
                group.run(100.0)
                group.silence(group.hosts(silent))
                changed = group.run(100.0 + LIMIT + HOLD - 12)
                self.assertEqual(
                    {HELD}, {verdict for _, _, verdict in changed}
                )
                self.assertEqual(silent, len(changed))
                self.assertEqual(set(), group.down())
                self.assertIsNotNone(group.hold)

    def test_the_silent_members_are_down_after_the_hold(self):
        group = Group(20)
        group.silence(group.hosts(15))
        group.run(LIMIT + HOLD + 12.0)
        self.assertEqual(set(group.hosts(15)), group.down())
        self.assertIsNone(group.hold)
        # That does not change any more.
        self.assertEqual([], group.run(5000.0))

    def test_the_silence_of_a_minority_is_not_held(self):
        for members, silent in ((3, 3), (4, 2), (100, 54)):
            with self.subTest(members=members, silent=silent):
                group = Group(members)
                group.silence(group.hosts(silent))
                group.run(LIMIT + 6.0)
                self.assertEqual(set(group.hosts(silent)), group.down())

    def test_the_hold_can_be_switched_off(self):
        group = Group(20, RULE._replace(fraction=0.0))
        group.silence(group.hosts(20))
        group.run(LIMIT + 6.0)
        self.assertEqual(set(group.hosts(20)), group.down())

    def test_members_that_fall_silent_one_by_one_are_not_held(self):
        group = Group(20)
        for number in range(20):
            group.silence([f"h{number}"], at=number * LIMIT)
        changed = group.run(25 * LIMIT)
        self.assertEqual([SILENT] * 20, [verdict for _, _, verdict in changed])

    def test_members_that_were_down_before_do_not_count(self):
        group = Group(10)
        group.silence(group.hosts(5))
        group.run(500.0)
        # Three of the five that are up.
        group.silence(["h5", "h6", "h7"])
        changed = group.run(500.0 + LIMIT + 8)
        self.assertEqual([HELD] * 3, [verdict for _, _, verdict in changed])

    def test_a_member_that_left_is_down_at_once_and_does_not_count(self):
        group = Group(10)
        group.run(50.0)
        group.silence(group.hosts(10))
        left = {host: {"left": True} for host in group.hosts(7)}
        group.run(52.0, **left)
        self.assertEqual(set(group.hosts(7)), group.down())
        # The three others are too few for a mass silence.
        group.run(50.0 + LIMIT + 6, **left)
        self.assertEqual(set(group.hosts(10)), group.down())

    def test_a_member_forced_down_is_not_held_and_does_not_count(self):
        group = Group(6)
        group.silence(group.hosts(6))
        forced = {host: {"forced_down": True} for host in group.hosts(3)}
        group.run(LIMIT + 6, **forced)
        self.assertEqual(set(group.hosts(6)), group.down())

    def test_a_held_member_that_reports_again_was_never_down(self):
        group = Group(10)
        group.silence(group.hosts(8))
        group.run(LIMIT + 20.0)
        group.silent_from.clear()
        for host in group.hosts(8):
            group.last[host] = group.now
        changed = group.run(LIMIT + 26.0)
        self.assertEqual(
            [REPORTED] * 8, [verdict for _, _, verdict in changed]
        )
        self.assertIsNone(group.hold)

    def test_a_member_that_dies_during_the_hold_is_found_when_it_ends(self):
        group = Group(20)
        group.silence(group.hosts(15))
        group.run(LIMIT + 30.0)
        group.silence(["h19"])
        group.run(LIMIT + HOLD + 12.0)
        self.assertIn("h19", group.down())

    def test_a_new_observer_holds_until_the_same_moment(self):
        group = Group(20)
        group.run(100.0)
        group.silence(group.hosts(15))
        group.run(100.0 + LIMIT + 60.0)
        newcomer = Observer(mass=RULE)
        newcomer.refresh(group.now, group.last)
        self.assertEqual("held", newcomer.cause("h0"))
        # Both observers find the same begin, and so the same end.
        self.assertAlmostEqual(
            group.hold.since, newcomer.group.mass.hold.since, delta=2.0
        )
        newcomer.refresh(100.0 + LIMIT + HOLD + 2, [], complete=False)
        self.assertEqual("silent", newcomer.cause("h0"))

    def test_a_mass_silence_of_long_ago_is_not_held(self):
        observer = Observer(mass=RULE)
        old = 1000.0 - LIMIT - HOLD - 1
        stale = {f"h{number}": old for number in range(9)}
        # The member that reports shows that the backend is not frozen.
        verdicts = observer.refresh(1000.0, {**stale, "alive": 995.0})
        self.assertEqual("reported", verdicts.pop("alive"))
        self.assertEqual({"silent"}, set(verdicts.values()))

    def test_members_whose_sessions_end_at_once_are_held(self):
        for lost, verdicts in (
            (8, (HELD, HELD, LOST)),
            # Half of the members are too few.
            (5, (LOST, LOST, LOST)),
        ):
            observer = Observer("zk", mass=RULE)
            there = [
                seen(f"h{number}", None, present=True) for number in range(10)
            ]
            ended = [
                seen(f"h{number}", None, lost=True) for number in range(lost)
            ]
            # The sessions end at some moment between two refreshes.
            observer.refresh(109.0, there)
            for at, verdict in zip(
                (110.0, 109.0 + HOLD, 110.1 + HOLD), verdicts, strict=True
            ):
                causes = observer.refresh(at, [*ended, *there[lost:]])
                self.assertEqual(
                    lost, list(causes.values()).count(verdict.cause)
                )

    def test_every_member_that_counts_for_a_mass_silence_is_held(self):
        # Refreshes are rare. The first member fell silent before the others,
        # and too few fell silent around its own moment.
        observer = Observer(mass=RULE)
        reports = {"first": 40.0}
        reports |= {f"second{number}": 68.0 for number in range(5)}
        reports |= {f"third{number}": 80.0 for number in range(5)}
        observer.refresh(81.0, reports)
        verdicts = observer.refresh(141.0, reports)
        self.assertLessEqual(set(verdicts.values()), {"held", "reported"})
        self.assertEqual("held", verdicts["first"])

    def test_an_outage_during_the_hold_prolongs_it(self):
        group = Group(10)
        group.silence(group.hosts(10))
        group.run(LIMIT + 20.0)
        group.observer.fails(group.now + 1)
        group.now += 300.0
        group.refresh()
        self.assertEqual(set(), group.down())
        group.run(group.now + HOLD)
        self.assertEqual(set(group.hosts(10)), group.down())
