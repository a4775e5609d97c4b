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

"""The judgement: tables of cases, and properties that always hold."""

import datetime
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.servicegroup import detector
from nova_sg.servicegroup.detector import Detector, Fact

D = 60.0


def judged(fact, now=None, limit=D):
    """Judge one fact at the moment it was asked for."""
    judge = Detector(limit)
    judge.look(fact.asked, [fact])
    return judge.judge(fact.host, fact.asked if now is None else now)


class TableTest(unittest.TestCase):
    def test_one_look(self):
        asked = 1000.0
        cases = [
            # what stands there, the verdict
            ({"last_report": asked}, detector.REPORTED),
            ({"last_report": asked - D}, detector.REPORTED),
            ({"last_report": asked - D - 0.001}, detector.SILENT),
            # Taken between the question and the answer.
            ({"last_report": asked + 0.2}, detector.REPORTED),
            ({"last_report": asked + D}, detector.REPORTED),
            # From the future: not believed.
            ({"last_report": asked + D + 1}, detector.NEVER_REPORTED),
            (
                {"last_report": asked + D + 1, "registered": asked - 1},
                detector.REGISTERED,
            ),
            ({"registered": asked - D}, detector.REGISTERED),
            ({"registered": asked - D - 1}, detector.NEVER_REPORTED),
            # The registration does not help whoever has reported.
            (
                {"registered": asked, "last_report": asked - D - 1},
                detector.SILENT,
            ),
            ({}, detector.NEVER_REPORTED),
            ({"last_report": asked, "left": True}, detector.LEFT),
            ({"last_report": asked, "crashed": True}, detector.CRASHED),
            ({"left": True, "crashed": True}, detector.LEFT),
            ({"crashed": True, "lost": True}, detector.CRASHED),
            ({"crashed": True, "forced_down": True}, detector.FORCED_DOWN),
            (
                {"last_report": asked, "forced_down": True},
                detector.FORCED_DOWN,
            ),
            ({"left": True, "forced_down": True}, detector.FORCED_DOWN),
            ({"last_report": asked, "disabled": True}, detector.REPORTED),
        ]
        for fields, verdict in cases:
            with self.subTest(**fields):
                fact = Fact(host="h", asked=asked, **fields)
                self.assertIs(verdict, judged(fact))

    def test_an_unknown_member_is_not_judged(self):
        judge = Detector(D)
        judge.look(1.0, [])
        self.assertIs(detector.NOT_A_MEMBER, judge.judge("h", 1.0))

    def test_nothing_is_known_before_the_first_look(self):
        judge = Detector(D)
        self.assertIs(detector.UNAVAILABLE, judge.judge("h", 1.0))
        judge.look_failed(0.0)
        self.assertIs(detector.UNAVAILABLE, judge.judge("h", 1.0))

    def test_leaving_ends_with_the_next_report(self):
        judge = Detector(D)
        judge.look(100.0, [Fact("h", 100.0, last_report=99.0, left=True)])
        self.assertIs(detector.LEFT, judge.judge("h", 100.0))
        judge.look(102.0, [Fact("h", 102.0, last_report=101.0)])
        self.assertIs(detector.REPORTED, judge.judge("h", 102.0))

    def test_who_is_not_in_a_complete_answer_is_gone(self):
        judge = Detector(D)
        judge.look(1.0, [Fact("a", 1.0), Fact("b", 1.0)], complete=True)
        gone = judge.look(2.0, [Fact("b", 2.0)], complete=True)
        self.assertEqual([("a", None)], [(c.host, c.now) for c in gone])
        self.assertEqual(["b"], judge.hosts())

    def test_who_is_not_in_an_incomplete_answer_stays(self):
        judge = Detector(D)
        judge.look(1.0, [Fact("a", 1.0, last_report=1.0)])
        self.assertEqual([], judge.look(2.0, []))
        self.assertIs(detector.REPORTED, judge.judge("a", 2.0))
        judge.look(1.0 + D + 0.1, [])
        self.assertIs(detector.SILENT, judge.judge("a", 1.1 + D))


class BackendAwayTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.judge = Detector(D)
        self.judge.look(
            100.0,
            [
                Fact("alive", 100.0, last_report=95.0),
                Fact("dead", 100.0, last_report=100.0 - D - 1),
            ],
        )

    def states(self, now):
        return [self.judge.judge(h, now).state for h in ("alive", "dead")]

    def test_the_last_verdict_stands_for_service_down_time(self):
        self.judge.look_failed(0.0)
        self.assertEqual(["up", "down"], self.states(100.0 + D))
        self.assertEqual(["unknown", "unknown"], self.states(100.1 + D))

    def test_forced_down_is_known_without_the_backend(self):
        self.judge.look(101.0, [Fact("alive", 101.0, forced_down=True)])
        self.judge.look_failed(0.0)
        self.assertEqual("down", self.judge.judge("alive", 1e6).state)

    def test_time_without_the_backend_counts_against_nobody(self):
        self.judge.look_failed(0.0)
        back = 100.0 + 10 * D
        self.judge.look(back, [Fact("alive", back, last_report=95.0)])
        self.assertEqual(["up", "down"], self.states(back))
        # From now on it has the whole time once more.
        self.judge.look(back + D, [])
        self.assertEqual("up", self.judge.judge("alive", back).state)
        self.judge.look(back + D + 0.1, [])
        self.assertEqual("down", self.judge.judge("alive", back).state)

    def test_a_report_after_the_backend_is_back_counts_as_usual(self):
        self.judge.look_failed(0.0)
        self.judge.look(500.0, [])
        self.judge.look(503.0, [Fact("alive", 503.0, last_report=502.0)])
        self.judge.look(502.0 + D, [])
        self.assertEqual("up", self.judge.judge("alive", 502.0 + D).state)
        self.judge.look(502.1 + D, [])
        self.assertEqual("down", self.judge.judge("alive", 502.1 + D).state)

    def test_stalls_that_overlap_count_once(self):
        for begin, end in ((110, 114), (112, 117), (130, 134), (109, 116)):
            self.judge.stalled(begin, end)
        # 95 to 167: 72 s, 12 of them excused.
        self.judge.look(167.0, [])
        self.assertEqual("up", self.judge.judge("alive", 200.0).state)
        self.judge.look(167.1, [])
        self.assertEqual("down", self.judge.judge("alive", 206.0).state)


class LostTest(unittest.TestCase):
    """Backends that say themselves who is dead."""

    REJOIN = 8.0

    def look(self, judge, at, here=(), lost=(), interrupted=False):
        facts = [Fact(host, at, last_report=at) for host in here]
        facts += [Fact(host, at, lost=True) for host in lost]
        judge.look(
            at,
            facts,
            complete=True,
            interrupted=interrupted,
            rejoin=self.REJOIN,
        )

    def test_who_is_lost_is_down_at_once(self):
        judge = Detector(D)
        self.look(judge, 100.0, here=["h"])
        self.assertIs(detector.REPORTED, judge.judge("h", 100.0))
        self.look(judge, 100.1, lost=["h"])
        self.assertIs(detector.LOST, judge.judge("h", 100.1))

    def test_who_was_never_seen_alive_is_lost(self):
        for interrupted in (False, True):
            judge = Detector(D)
            self.look(judge, 100.0, lost=["h"], interrupted=interrupted)
            self.assertIs(detector.LOST, judge.judge("h", 100.0))

    def test_other_words_come_first(self):
        judge = Detector(D)
        judge.look(1.0, [Fact("h", 1.0, lost=True, left=True)])
        self.assertIs(detector.LEFT, judge.judge("h", 1.0))
        judge.look(2.0, [Fact("h", 2.0, lost=True, forced_down=True)])
        self.assertIs(detector.FORCED_DOWN, judge.judge("h", 2.0))

    def test_after_an_outage_members_have_time_to_come_back(self):
        for noticed in (True, False):
            with self.subTest(by_a_failed_look=noticed):
                judge = Detector(D)
                self.look(judge, 100.0, here=["h"])
                if noticed:
                    judge.look_failed(0.0)
                back = 300.0
                self.look(judge, back, lost=["h"], interrupted=not noticed)
                self.assertIs(detector.REPORTED, judge.judge("h", back))
                last = back + self.REJOIN
                self.look(judge, last, lost=["h"])
                self.assertIs(detector.REPORTED, judge.judge("h", last))
                self.look(judge, last + 0.1, lost=["h"])
                self.assertIs(detector.LOST, judge.judge("h", last + 0.1))

    def test_who_was_lost_before_an_outage_stays_so(self):
        judge = Detector(D)
        self.look(judge, 100.0, here=["h"])
        self.look(judge, 101.0, lost=["h"])
        judge.look_failed(0.0)
        self.look(judge, 102.0, lost=["h"])
        self.assertIs(detector.LOST, judge.judge("h", 102.0))

    def test_outages_in_a_row_do_not_end_the_time_to_come_back(self):
        judge = Detector(D)
        self.look(judge, 100.0, here=["h"])
        for at in (105.0, 110.0, 115.0):
            self.look(judge, at, lost=["h"], interrupted=True)
            self.assertIs(detector.REPORTED, judge.judge("h", at))
        self.look(judge, 115.0 + self.REJOIN + 0.1, lost=["h"])
        self.assertIs(detector.LOST, judge.judge("h", 124.0))
        # And nobody rises by the next one.
        self.look(judge, 130.0, lost=["h"], interrupted=True)
        self.assertIs(detector.LOST, judge.judge("h", 130.0))

    def test_who_comes_back_is_up(self):
        judge = Detector(D)
        self.look(judge, 100.0, here=["h"])
        self.look(judge, 101.0, lost=["h"])
        self.look(judge, 102.0, here=["h"])
        self.assertIs(detector.REPORTED, judge.judge("h", 102.0))


moments = st.floats(0, 10_000, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def facts(draw, hosts=("a", "b")):
    """Whatever a backend may say."""
    asked = draw(moments)
    return Fact(
        host=draw(st.sampled_from(hosts)),
        asked=asked,
        last_report=draw(st.none() | moments),
        registered=draw(st.none() | moments),
        left=draw(st.booleans()),
        lost=draw(st.booleans()),
        crashed=draw(st.booleans()),
        forced_down=draw(st.booleans()),
        disabled=draw(st.booleans()),
        disabled_reason=draw(st.none() | st.sampled_from(["", "x", "y"])),
        last_seen=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    )


class PropertyTest(unittest.TestCase):
    @given(st.lists(facts(), max_size=8), st.randoms(), moments)
    def test_the_order_of_observations_does_not_matter(self, seen, rng, now):
        one, other = Detector(D), Detector(D)
        shuffled = list(seen)
        rng.shuffle(shuffled)
        for judge, order in ((one, seen), (other, shuffled)):
            for fact in order:
                judge.look(fact.asked, [fact])
        for host in ("a", "b"):
            verdict = one.judge(host, now)
            self.assertEqual(verdict, other.judge(host, now))
            self.assertEqual(
                one.explain(host, verdict, now),
                other.explain(host, verdict, now),
            )

    @given(st.lists(facts(), min_size=1, max_size=8), moments, moments)
    def test_time_alone_never_turns_down_into_up(self, seen, one, other):
        judge = Detector(D)
        for fact in seen:
            judge.look(fact.asked, [fact])
        earlier = judge.last_look + one
        later = earlier + other
        judge.look(earlier, [])
        before = [judge.judge(h, earlier).state for h in ("a", "b")]
        judge.look(later, [])
        after = [judge.judge(h, later).state for h in ("a", "b")]
        for was, now in zip(before, after, strict=True):
            if was != "up":
                self.assertNotEqual("up", now)

    @given(st.lists(facts(("a",)), min_size=1, max_size=8), facts(("a",)))
    def test_a_later_report_never_makes_a_member_older(self, seen, fact):
        judge = Detector(D)
        for one in seen:
            judge.look(one.asked, [one])
        before = judge.known("a").last_report
        judge.look(fact.asked, [fact])
        after = judge.known("a").last_report
        if before is not None:
            self.assertGreaterEqual(after, before)

    @given(st.lists(facts(), max_size=6), moments, st.floats(0, 500))
    def test_a_stall_never_turns_up_into_down(self, seen, begin, length):
        plain, stalled = Detector(D), Detector(D)
        for judge in (plain, stalled):
            for fact in seen:
                judge.look(fact.asked, [fact])
        stalled.stalled(begin, begin + length)
        for host in ("a", "b"):
            if plain.judge(host, 0.0).state == "up":
                self.assertEqual("up", stalled.judge(host, 0.0).state)

    @given(
        st.lists(st.tuples(moments, moments), max_size=6),
        st.floats(0, D, exclude_max=True),
    )
    def test_a_death_is_found_after_healthy_service_down_time(
        self, stalls, silence
    ):
        """However many stalls there were: 2 D seconds with the backend."""
        judge = Detector(D)
        judge.look(0.0, [Fact("a", 0.0, last_report=-silence)])
        end = 0.0
        for one, other in stalls:
            judge.stalled(min(one, other), max(one, other))
            end = max(end, one, other)
        # And D seconds after the last of them.
        judge.look(end + D + 0.001, [])
        self.assertEqual("down", judge.judge("a", end + D + 1).state)

    @given(
        st.lists(
            st.tuples(
                st.floats(0.1, D),
                # What happened since the last look.
                st.sampled_from(["nothing", "interrupted", "failed"]),
                st.booleans(),
            ),
            min_size=1,
            max_size=30,
        ),
        st.floats(0, 20),
    )
    def test_only_being_there_brings_back_who_was_lost(self, looks, rejoin):
        judge = Detector(D)
        at, was_down = 0.0, False
        for pause, happened, here in looks:
            at += pause
            if happened == "failed":
                judge.look_failed(0.0)
            fact = Fact(
                "a", at, last_report=at if here else None, lost=not here
            )
            judge.look(
                at,
                [fact],
                interrupted=happened == "interrupted",
                rejoin=rejoin,
            )
            down = judge.judge("a", at).state == "down"
            if here:
                self.assertFalse(down)
            elif was_down:
                self.assertTrue(down)
            was_down = down

    @given(st.floats(0.1, 20), st.lists(st.floats(0.1, D), max_size=5))
    def test_who_does_not_come_back_is_lost(self, rejoin, outages):
        """After the last outage and the time to come back."""
        judge = Detector(D)
        at = 100.0
        judge.look(at, [Fact("a", at, last_report=at)], rejoin=rejoin)
        for pause in outages:
            at += pause
            judge.look(
                at, [Fact("a", at, lost=True)], interrupted=True, rejoin=rejoin
            )
        at += rejoin + 0.1
        judge.look(at, [Fact("a", at, lost=True)], rejoin=rejoin)
        self.assertIs(detector.LOST, judge.judge("a", at))
