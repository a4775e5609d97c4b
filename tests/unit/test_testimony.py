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

"""What members say of the time in which they could not report."""

import itertools
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.servicegroup import silence
from nova_sg.servicegroup.detector import Detector, Fact
from nova_sg.servicegroup.testimony import Testimony

D = 60.0
INTERVAL = 10.0
NAN, INF = float("nan"), float("inf")


class WordTest(unittest.TestCase):
    """Who begins to look after an outage from second 100 to 400."""

    def setUp(self):
        super().setUp()
        self.judge = Detector(D, INTERVAL, silence.OFF)

    def look(self, at, silent=(), saying=(), others=(), away=(100.0, 395.0)):
        """Look: some are silent since second 95, the others report."""
        facts = [Fact(h, at, last_report=95.0) for h in silent]
        facts += [
            Fact(h, at, last_report=at - 1.0, away=away) for h in saying
        ]
        facts += [Fact(h, at, last_report=at - 1.0) for h in others]
        return self.judge.look(at, facts, complete=True)

    def state(self, host="x"):
        return self.judge.judge(host, self.judge.last_look).state

    def test_who_is_excused(self):
        cases = [
            # silent, saying, reporting and saying nothing; what x is
            ("xyzw", "abcd", "", "up"),
            ("xyzw", "ab", "cd", "up"),
            ("x", "ab", "", "up"),
            # Less than half of those who report say so.
            ("xyzw", "ab", "cde", "down"),
            ("xyzw", "abcd", "efghi", "down"),
            # One alone is not enough,
            ("xyzw", "a", "", "down"),
            ("xy", "a", "", "down"),
            ("x", "a", "b", "down"),
            # but where there is nobody else.
            ("x", "a", "", "up"),
            ("x", "", "a", "down"),
            ("x", "", "", "down"),
        ]
        for silent, saying, others, state in cases:
            with self.subTest(silent=silent, saying=saying, others=others):
                self.setUp()
                self.look(405.0, silent, saying, others)
                self.assertEqual(state, self.state())

    def test_for_how_long(self):
        self.look(405.0, "xyz", "ab")
        at = 405.0
        while self.state() == "up":
            at += 2.0
            # The last word may be dropped meanwhile.
            if at < 430.0:
                self.look(at, "xyz", "ab")
            else:
                self.look(at, "xyz", "", "ab")
        self.assertEqual(395.0 + D + 2.0, at)

    def test_what_most_agree_on_counts(self):
        spans = {"a": (100.0, 390.0), "b": (105.0, 395.0), "c": (110.0, 399.0)}
        facts = [
            Fact(h, 405.0, last_report=404.0, away=away)
            for h, away in spans.items()
        ]
        self.judge.look(405.0, [Fact("x", 405.0, last_report=95.0), *facts])
        (agreed,) = self.judge.testimony.agreed
        self.assertEqual((105.0, 395.0, 3, 3), agreed)
        self.assertEqual((105.0, 395.0), self.judge.testimony.of("b"))

    def test_what_cannot_be_is_not_heard(self):
        for away in (
            (NAN, NAN),
            (NAN, 395.0),
            (100.0, NAN),
            (-INF, 395.0),
            (100.0, INF),
            (395.0, 100.0),
            (100.0, 100.0),
            # After the report that says so, and in the future.
            (100.0, 407.0),
            (500.0, 600.0),
        ):
            with self.subTest(away=away):
                self.setUp()
                self.look(405.0, "xyz", "ab", away=away)
                self.assertEqual("down", self.state())
                self.assertIsNone(self.judge.testimony.of("a"))
                self.assertEqual("up", self.state("a"))

    def test_who_has_left_or_is_silent_has_no_word(self):
        facts = [
            Fact("a", 405.0, last_report=404.0, away=(100.0, 395.0)),
            Fact("b", 405.0, left=True, away=(100.0, 395.0)),
            Fact("x", 405.0, last_report=95.0),
            Fact("y", 405.0, last_report=95.0),
        ]
        self.judge.look(405.0, facts)
        self.assertEqual("down", self.state())

    def test_what_is_said_of_just_now_takes_most_of_all(self):
        # Who has no reason to report again yet is not silent.
        facts = [Fact(h, 405.0, last_report=396.0) for h in "cdef"]
        facts += [
            Fact(h, 405.0, last_report=404.0, away=(397.0, 403.0))
            for h in "ab"
        ]
        self.judge.look(405.0, facts)
        self.assertEqual([], self.judge.testimony.agreed)

    def test_nobody_rises_by_it(self):
        # The observer was well, and saw reports of nobody.
        for at in range(100, 170, 2):
            self.look(float(at), "xab")
        self.assertEqual("down", self.state())
        self.look(405.0, "x", "ab")
        self.assertEqual(["down", "up"], [self.state(), self.state("a")])
        verdict = self.judge.judge("x", 405.0)
        self.assertEqual(
            "last report 310.0 s ago, allowed are 60 s; was down before "
            "others said that they could not report",
            self.judge.explain("x", verdict, 405.0),
        )
        self.look(407.0, "", "ab", "x")
        self.assertEqual("up", self.state())
        # It is judged as everybody is from now on.
        at = 407.0
        while self.state() == "up":
            at += 2.0
            facts = [Fact("x", at, last_report=406.0)]
            self.judge.look(at, facts)
        self.assertEqual(467.0, at)

    def test_who_was_heard_meanwhile_is_not_believed(self):
        def die(say):
            self.setUp()
            at = 100.0
            while True:
                last = {h: at - at % 10 - n for n, h in enumerate("abc")}
                facts = [
                    Fact(h, at, last_report=r, away=say(at, r))
                    for h, r in last.items()
                ]
                facts.append(Fact("x", at, last_report=95.0))
                self.judge.look(at, facts)
                if self.state() == "down":
                    return at
                at += 2.0
                self.assertLess(at, 1000.0)

        for say in (
            lambda at, report: None,
            # Always, always the last interval, and what it said first.
            lambda at, report: (0.0, report),
            lambda at, report: (report - INTERVAL, report),
            lambda at, report: (report - 500.0, report - 0.1),
            lambda at, report: (50.0, 98.0),
        ):
            # x died before the observer had seen two reports of them.
            self.assertLessEqual(die(say), 100.0 + D)

    @given(
        st.lists(
            st.tuples(
                st.floats(allow_nan=True), st.floats(allow_nan=True)
            ).map(tuple)
            | st.tuples(st.floats(-100, 500), st.floats(-100, 500)),
            max_size=8,
        ),
        st.integers(0, 8),
    )
    def test_whatever_is_said_is_covered_by_half(self, spans, others):
        known = {}
        word = Testimony()
        judge = Detector(D, INTERVAL)
        facts = [
            Fact(f"s{n}", 405.0, last_report=404.0, away=away)
            for n, away in enumerate(spans)
        ]
        word.hear(facts, known, (), 15.0)
        facts += [
            Fact(f"o{n}", 405.0, last_report=404.0) for n in range(others)
        ]
        judge.look(405.0, facts)
        known = {f.host: judge.known(f.host) for f in facts}
        agreed = word.agree(known.values(), 390.0)
        for begin, end, _, _ in agreed:
            self.assertLess(begin, end)
            self.assertLessEqual(end, 406.0)
            for moment in (begin, (begin + end) / 2):
                sure = sum(b <= moment < e for b, e in spans)
                self.assertGreaterEqual(2 * sure, len(facts))
                self.assertGreaterEqual(sure, min(2, len(facts) - 1))
        for one, other in itertools.pairwise(agreed):
            self.assertLess(one.end, other.begin)

    def test_words(self):
        self.look(405.0, "xyz", "ab")
        for host, words in (
            (
                "x",
                "last report 312.0 s ago, 295.0 s of them without the "
                "backend (so say 2 of 2 members that report again); silent "
                "for 15.0 s with it, allowed are 65 s",
            ),
            (
                "a",
                "last report 3.0 s ago; could not report for 295.0 s until "
                "12.0 s ago, it says",
            ),
        ):
            verdict = self.judge.judge(host, 407.0)
            self.assertEqual(
                words, self.judge.explain(host, verdict, 407.0)
            )
