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


"""The rules' promises hold in simulated worlds of one backend."""

import unittest
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from nova_sg.liveness import model
from tests import LONG
from tests.unit.simulation import days, oracle
from tests.unit.simulation.world import (
    HOLD,
    INTERVAL,
    LIMIT,
    LONGEST,
    ME,
    RULE,
    Cut,
    Outage,
    Script,
    Span,
    World,
)

UNTIL = 1200.0
# With NOVA_SG_LONG there are more examples.
TIMES = 20 if LONG else 1
steps = st.sampled_from([2.0, 5.0, 15.0])
# Outages that a broken node reports, by the moment and its last report.
FALSE_OUTAGES = (
    lambda now, last: (0.0, last),
    lambda now, last: (last - 1.5 * INTERVAL, last - 1.0),
    lambda now, last: (last - 500.0, last - 100.0),
    lambda now, last: (300.0, 600.0),
    lambda now, last: (now, now + 500.0),
    lambda now, last: (last, last - 500.0),
    lambda now, last: (float("nan"), last),
)


@st.composite
def spans(draw, longest, begin=100.0):
    at = draw(st.integers(int(begin), int(UNTIL * 0.8)))
    return Span(at, at + draw(st.integers(1, longest)))


@st.composite
def outages(draw, pause):
    """Make outages with at least so many seconds between them."""
    found, at = [], 50
    for _ in range(draw(st.integers(0, 5))):
        at += draw(st.integers(pause, 500))
        end = at + draw(st.integers(1, 300))
        found.append(Outage(Span(at, end), draw(st.booleans())))
        at = end
    return tuple(found)


@st.composite
def scripts(draw, members, pause=60, own=True):
    """Make scripts of outages, cuts and deaths.

    :param pause: the least seconds between two outages
    :param own: whether the observer may be cut off, too
    """
    numbers = st.integers(0 if own else 1, members - 1)
    cuts = [
        Cut(draw(spans(300)), draw(st.frozensets(numbers, min_size=1)))
        for _ in range(draw(st.integers(0, 3)))
    ]
    dead = {
        number: draw(spans(1000))
        for number in draw(st.frozensets(numbers, max_size=4))
        if number != ME
    }
    marked = st.dictionaries(numbers, spans(300), max_size=2)
    return Script(
        draw(outages(pause)),
        tuple(cuts),
        dead,
        draw(domains(members)),
        draw(marked),
        draw(marked),
    )


@st.composite
def domains(draw, members):
    """Make failure domains of some of the members, or of none."""
    racks = draw(st.integers(0, 4))
    if not racks:
        return {}
    return {
        number: f"rack{number % racks}"
        for number in range(draw(st.integers(0, members)))
    }


class Racks(NamedTuple):
    """A group of racks, one of which is cut off."""

    script: Script
    members: int
    cut: Cut
    #: When some members of other racks die.
    dead: dict[int, Span]


@st.composite
def racks(draw):
    """Make a group of racks. Each has at most one member that dies."""
    size, count = draw(st.integers(4, 12)), draw(st.integers(5, 8))
    members = size * count
    silent = draw(st.integers(-int(-RULE.fraction * size // 1), size))
    begin = draw(st.integers(100, 400))
    cut = Cut(
        Span(begin, begin + draw(st.integers(1, 400))),
        frozenset(range(members - silent, members)),
    )
    dead = {
        rack * size + draw(st.integers(1 - min(rack, 1), size - 1)): Span(
            draw(st.integers(100, 500)), 10_000.0
        )
        for rack in draw(st.frozensets(st.integers(0, count - 2), max_size=2))
    }
    others = st.integers(1, members - 1)
    marked = st.dictionaries(others, spans(300), max_size=3)
    script = Script(
        cuts=(cut,),
        dead=dead,
        domains={n: f"rack{n // size}" for n in range(members)},
        draining=draw(marked),
        unwell=draw(marked),
    )
    return Racks(script, members, cut, dead)


class PromisesTest(unittest.TestCase):
    def test_two_members_whose_observer_was_cut_off_before_an_outage(self):
        # Found by test_no_living_member_is_down_and_the_dead_are_found.
        outages = (Outage(Span(110, 111)), Outage(Span(171, 227), True))
        cut = Cut(Span(100, 166), frozenset({ME}))
        oracle.run(Script(outages, (cut,)), 2, UNTIL, 2.0)

    def test_two_members_excuse_no_long_outage_after_the_observers_cut(self):
        # Found by the test below. An outage of three minutes is too long to
        # be excused, and one of two and a half is not.
        cut = Cut(Span(100, 166), frozenset({ME}))
        for length in (150, 189):
            outage = Outage(Span(171, 171 + length), True)
            script = Script((outage,), (cut,))
            world, _ = oracle.run(script, 2, 365, 2.0)
            self.assertEqual(
                {1} if length > 180 else set(), world.called_down
            )

    @settings(deadline=None, max_examples=50 * TIMES)
    @given(
        st.data(),
        st.integers(2, 20),
        steps,
        st.integers(0, 10**6),
        st.booleans(),
    )
    def test_no_living_member_is_down_and_the_dead_are_found(
        self, data, members, step, seed, report_outages
    ):
        script = data.draw(scripts(members))
        oracle.run(
            script,
            members,
            UNTIL,
            step,
            seed,
            report_outages=report_outages,
        )

    @settings(deadline=None, max_examples=40 * TIMES)
    @given(st.data(), st.integers(5, 20), steps, st.integers(0, 10**6))
    def test_false_outages_of_less_than_half_change_no_verdict(
        self, data, members, step, seed
    ):
        """All members report outages. Some report false ones."""
        script = data.draw(scripts(members))._replace(cuts=())
        dead = len(script.dead)
        # Fewer than half of the members that can report anything.
        few = max(0, (members - dead - 1) // 2)
        false_outages = data.draw(
            st.dictionaries(
                st.integers(1, members - 1),
                st.sampled_from(FALSE_OUTAGES),
                max_size=few,
            )
        )
        oracle.run(
            script,
            members,
            UNTIL,
            step,
            seed,
            report_outages=True,
            false_outages=false_outages,
        )

    @settings(deadline=None, max_examples=30 * TIMES)
    @given(
        st.integers(6, 30),
        st.integers(int(3 * LONGEST), 600),
        st.integers(0, 4),
        st.floats(0.0, 10.0),
        steps,
        st.integers(0, 10**6),
    )
    def test_an_observer_that_begins_after_an_outage_is_told_of_it(
        self, members, length, dying, late, step, seed
    ):
        end = 300.0 + length
        dying = min(dying, members // 3)
        dead = {n: Span(305.0 + n, 10_000.0) for n in range(1, dying + 1)}
        script = Script((Outage(Span(300.0, end)),), (), dead)
        world = World(
            members,
            script,
            step,
            seed,
            model.NO_MASS_RULE,
            begin=end + late,
            report_outages=True,
        )
        downs = []

        def check(world, changes):
            downs.extend(
                (world.number[change.host], world.now)
                for change in changes
                if change.now.state == "down"
            )

        world.run(world.now + step, check)
        back = sum(last >= end for last in world.last_report)
        if back < 2:
            # One member alone does not confirm an outage.
            return
        world.run(end + LIMIT + 2 * step + late, check)
        self.assertEqual(set(dead), {number for number, _ in downs})

    @settings(deadline=None, max_examples=40 * TIMES)
    @given(st.data(), st.integers(2, 20), steps, st.integers(0, 10**6))
    def test_the_dead_are_found_however_the_backend_flaps(
        self, data, members, step, seed
    ):
        script = data.draw(scripts(members, pause=1))
        oracle.run(script, members, UNTIL, step, seed, all_can_report=False)

    @settings(deadline=None, max_examples=40 * TIMES)
    @given(
        st.integers(4, 40),
        st.floats(0.55, 1.0),
        st.integers(1, 400),
        steps,
        st.integers(0, 10**6),
    )
    def test_a_mass_silence_is_held_and_then_told(
        self, members, part, length, step, seed
    ):
        """Most or all of the group is cut off, and nothing else happens."""
        number = min(members - 1, -int(-members * (part + 1e-9) // 1))
        if number < 0.55 * members:
            return
        gone = frozenset(range(1, number + 1))
        cut = Cut(Span(200.0, 200.0 + length), gone)
        script = Script(cuts=(cut,))
        held = LIMIT + HOLD - LONGEST - step
        seen = []

        def check(world, changes):
            judged.check(world, changes)
            seen.extend(
                (world.now, world.number[change.host])
                for change in changes
                if change.now.state == "down"
            )

        world = World(members, script, step, seed)
        judged = oracle.Oracle(script, members, step)
        world.run(800.0, check)
        early = 200.0 + min(length, held)
        self.assertEqual([], [one for one in seen if one[0] < early])
        if length > LIMIT + HOLD + LONGEST + step:
            self.assertEqual(gone, {number for _, number in seen})
            self.assertLessEqual(
                max(at for at, _ in seen), 200 + LIMIT + HOLD + LONGEST + step
            )

    @settings(deadline=None, max_examples=40 * TIMES)
    @given(racks(), steps, st.integers(0, 10**6))
    def test_a_rack_that_is_cut_off_is_held_and_the_dead_elsewhere_are_down(
        self, group, step, seed
    ):
        """One switch fails, single members die elsewhere, some drain."""
        span, cut = group.cut
        fell = {}

        def check(world, changes):
            judged.check(world, changes)
            for change in changes:
                if change.now.state == "down":
                    fell[world.number[change.host]] = world.now

        world = World(group.members, group.script, step, seed)
        judged = oracle.Oracle(group.script, group.members, step)
        world.run(1000.0, check)
        held = span.begin + LIMIT + HOLD - LONGEST - step
        for number, at in fell.items():
            if number in cut:
                # After the cut it is by itself: it may need an interval to
                # report again, which may be too late.
                self.assertGreaterEqual(at, min(span.end, held))
                self.assertLessEqual(
                    at, span.begin + LIMIT + HOLD + LONGEST + step
                )
        if span.end > span.begin + LIMIT + HOLD + LONGEST + step:
            self.assertLessEqual(cut, fell.keys())
        for number, dead in group.dead.items():
            self.assertLessEqual(fell[number], dead.begin + LIMIT + step)
        self.assertEqual(set(fell) - cut, set(group.dead))

    @settings(deadline=None, max_examples=15 * TIMES)
    @given(
        st.integers(4, 40),
        st.floats(0.01, 0.5),
        steps,
        st.integers(0, 99),
    )
    def test_the_silence_of_a_minority_is_not_held(
        self, members, part, step, seed
    ):
        gone = frozenset(range(1, 1 + max(1, int(members * part))))
        script = Script(cuts=(Cut(Span(200.0, 900.0), gone),))
        world, judged = oracle.run(
            script, members, 200 + LIMIT + step, step, seed
        )
        self.assertEqual(gone, frozenset(world.called_down))

    @settings(deadline=None, max_examples=15 * TIMES)
    @given(
        st.integers(1, 10),
        st.integers(int(INTERVAL), 600),
        steps,
        st.booleans(),
        st.integers(0, 99),
    )
    def test_a_member_that_dies_in_an_outage_is_found_soon_after_it(
        self, dying, length, step, readable, seed
    ):
        end = 300.0 + length
        dead = {n: Span(300.0 + n, 10_000.0) for n in range(1, dying + 1)}
        script = Script((Outage(Span(300.0, end), readable),), (), dead)
        # If refreshes fail, the observer learns of the end by the first one
        # that is answered. Own reports that fail excuse no time after the
        # last of them.
        lag = 0.0 if readable else step
        world, _ = oracle.run(script, 30, end + lag + LIMIT + step, step, seed)
        self.assertEqual(set(dead), world.called_down)


class DayTest(unittest.TestCase):
    def test_two_hours_of_a_thousand_members_bring_no_wrong_verdict(self):
        took, _, judged = days.run(1000, 2, seed=1)
        self.assertGreater(judged.found, 5)

    def test_the_dead_are_found_among_very_many_members(self):
        members = 100_000 if LONG else 20_000
        dead = {n: Span(100.0, 1000.0) for n in range(1, members // 100 + 1)}
        world, judged = oracle.run(Script(dead=dead), members, 180.0, 15.0)
        self.assertEqual(set(dead), world.called_down)


class OracleTest(unittest.TestCase):
    """The oracle finds wrong verdicts, or its silence would prove nothing."""

    def test_it_finds_a_living_member_that_is_called_down(self):
        script = Script((Outage(Span(300.0, 400.0)),))
        world = World(10, script, 2.0)
        judged = oracle.Oracle(script, 10, 2.0)
        world.run(290.0, judged.check)
        # The detector gets no evidence of an outage.
        world.judge.refresh_failed = lambda asked: None
        world.judge.reports_fail = lambda *outage: None
        with self.assertRaisesRegex(oracle.Wrong, "by its own fault for 0"):
            world.judge.mass = model.NO_MASS_RULE
            world.run(500.0, judged.check)

    def test_it_finds_a_dead_member_that_stays_up(self):
        script = Script(dead={3: Span(300.0, 9000.0)})
        world = World(10, script, 2.0)
        judged = oracle.Oracle(script, 10, 2.0)
        world.run(200.0, judged.check)
        world.judge.service_down_time = 1000.0
        with self.assertRaisesRegex(oracle.Wrong, "3, dead since .* is up"):
            world.run(1000.0, judged.check)

    def test_it_finds_a_mass_silence_that_was_not_held(self):
        cut = Cut(Span(300.0, 9000.0), frozenset(range(1, 9)))
        script = Script(cuts=(cut,))
        with self.assertRaisesRegex(oracle.Wrong, "not held"):
            oracle.run(script, 10, 600.0, 2.0, rule=model.NO_MASS_RULE)

    def test_it_finds_a_rack_that_was_not_held(self):
        cut = Cut(Span(300.0, 9000.0), frozenset(range(1, 5)))
        script = Script(
            cuts=(cut,),
            dead={30: Span(310.0, 9000.0)},
            domains={number: f"rack{number // 5}" for number in range(40)},
        )
        oracle.run(script, 40, 600.0, 2.0)
        with self.assertRaisesRegex(oracle.Wrong, "not held"):
            oracle.run(script, 40, 600.0, 2.0, rule=model.NO_MASS_RULE)

    def test_it_finds_a_dead_member_that_is_held_by_another_domain(self):
        cut = Cut(Span(300.0, 9000.0), frozenset(range(1, 10)))
        script = Script(
            cuts=(cut,),
            dead={30: Span(310.0, 9000.0)},
            domains={number: f"rack{number // 10}" for number in range(40)},
        )
        oracle.run(script, 40, 600.0, 2.0)
        world = World(40, script, 2.0)
        judged = oracle.Oracle(script, 40, 2.0)
        # The observer takes the dead member to be of the rack.
        world.script = script._replace(
            domains={**script.domains, 30: "rack0"}
        )
        with self.assertRaisesRegex(oracle.Wrong, "30, dead since .* is up"):
            world.run(600.0, judged.check)

    def test_it_finds_a_draining_member_that_simply_reports(self):
        for name in ("draining", "unwell"):
            script = Script(**{name: {3: Span(200.0, 400.0)}})
            oracle.run(script, 10, 600.0, 2.0)
            world = World(10, script, 2.0)
            judged = oracle.Oracle(script, 10, 2.0)
            world._attributes = lambda number: model.Attributes()
            with self.assertRaisesRegex(oracle.Wrong, f"3 is .*: {name}"):
                world.run(600.0, judged.check)
