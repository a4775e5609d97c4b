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

from nova_sg.liveness import explain, reported_outages
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen

NAN, INF = float("nan"), float("inf")


class WordTest(unittest.TestCase):
    """An observer that begins after an outage from second 100 to 400."""

    def setUp(self):
        super().setUp()
        self.observer = Observer()

    def refresh(
        self, at, silent="", saying="", others="", said=(100.0, 395.0)
    ):
        """Refresh: some are silent since second 95, the others report."""
        observations = [seen(host, 95.0, 95.0) for host in silent]
        observations += [
            seen(host, at - 1.0, at - 1.0, outage=said) for host in saying
        ]
        observations += [seen(host, at - 1.0, at - 1.0) for host in others]
        return self.observer.refresh(at, observations)

    def state(self, host="x"):
        return self.observer.group.members[host].verdict.state

    def claim(self, host):
        return self.observer.group.backends[0].reported_outages.get(host)

    def agreed(self):
        return self.observer.group.backends[0].agreed

    def test_which_members_are_excused(self):
        cases = [
            # silent, saying, reporting and saying nothing; what x is
            ("xyzw", "abcd", "", "up"),
            ("xyzw", "ab", "cd", "up"),
            ("x", "ab", "", "up"),
            # Less than half of those that report say so.
            ("xyzw", "ab", "cde", "down"),
            ("xyzw", "abcd", "efghi", "down"),
            # One alone is not enough,
            ("xyzw", "a", "", "down"),
            ("xy", "a", "", "down"),
            ("x", "a", "b", "down"),
            # but where there is no other.
            ("x", "a", "", "up"),
            ("x", "", "a", "down"),
            ("x", "", "", "down"),
        ]
        for silent, saying, others, state in cases:
            with self.subTest(silent=silent, saying=saying, others=others):
                self.setUp()
                self.refresh(405.0, silent, saying, others)
                self.assertEqual(state, self.state())

    def test_for_how_long(self):
        self.refresh(405.0, "xyz", "ab")
        at = 405.0
        while self.state() == "up":
            at += 2.0
            # The last statement may be dropped meanwhile.
            if at < 430.0:
                self.refresh(at, "xyz", "ab")
            else:
                self.refresh(at, "xyz", "", "ab")
        self.assertEqual(395.0 + LIMIT + 2.0, at)

    def test_what_most_agree_on_counts(self):
        spans = {"a": (100.0, 390.0), "b": (105.0, 395.0), "c": (110.0, 399.0)}
        self.observer.refresh(
            405.0,
            [
                seen("x", 95.0, 95.0),
                *[
                    seen(host, 404.0, 404.0, outage=said)
                    for host, said in spans.items()
                ],
            ],
        )
        (agreed,) = self.agreed()
        self.assertEqual((105.0, 395.0, 3, 3), agreed)
        self.assertEqual((105.0, 395.0), self.claim("b")[1:])

    def test_what_cannot_be_is_not_believed(self):
        for said in (
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
            with self.subTest(said=said):
                self.setUp()
                self.refresh(405.0, "xyz", "ab", said=said)
                self.assertEqual("down", self.state())
                self.assertIsNone(self.claim("a"))
                self.assertEqual("up", self.state("a"))

    def test_a_member_that_has_left_or_is_silent_says_nothing(self):
        self.observer.refresh(
            405.0,
            [
                seen("a", 404.0, 404.0, outage=(100.0, 395.0)),
                seen("b", None, left=True, outage=(100.0, 395.0)),
                seen("x", 95.0, 95.0),
                seen("y", 95.0, 95.0),
            ],
        )
        self.assertEqual("down", self.state())

    def test_what_is_said_of_just_now_takes_most_of_all(self):
        # A member that has no reason to report again yet is not silent.
        self.observer.refresh(
            405.0,
            [
                *[seen(host, 396.0, 396.0) for host in "cdef"],
                *[
                    seen(host, 404.0, 404.0, outage=(397.0, 403.0))
                    for host in "ab"
                ],
            ],
        )
        self.assertEqual((), self.agreed())

    def test_no_member_rises_by_it(self):
        # The observer was well, and saw reports of none.
        for at in range(100, 170, 2):
            self.refresh(float(at), "xab")
        self.assertEqual("down", self.state())
        self.refresh(405.0, "x", "ab")
        self.assertEqual(["down", "up"], [self.state(), self.state("a")])
        group, limits = self.observer.group, self.observer.limits
        self.assertEqual(
            "last report 310.0 s ago, allowed are 60 s; it was down before "
            "the outage of the backend was known (2 of 2 members that report "
            "again say so)",
            explain.explain(
                group, "x", group.verdict("x", 405.0, LIMIT), 405.0, limits
            ),
        )
        self.refresh(407.0, "", "ab", "x")
        self.assertEqual("up", self.state())
        # It is judged as all are from now on.
        at = 407.0
        while self.state() == "up":
            at += 2.0
            self.observer.refresh(
                at, [seen("x", 406.0, 406.0)], complete=False
            )
        self.assertEqual(467.0, at)

    def test_a_member_that_was_seen_to_report_meanwhile_is_not_believed(self):
        def die(say):
            self.setUp()
            at = 100.0
            while True:
                last = {h: at - at % 10 - n for n, h in enumerate("abc")}
                observations = [
                    seen(host, report, report, outage=say(at, report))
                    for host, report in last.items()
                ]
                observations.append(seen("x", 95.0, 95.0))
                self.observer.refresh(at, observations)
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
            self.assertLessEqual(die(say), 100.0 + LIMIT)

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
        self.setUp()
        members = len(spans) + others
        self.observer.refresh(
            405.0,
            [
                *[
                    seen(f"s{n}", 404.0, 404.0, outage=said)
                    for n, said in enumerate(spans)
                ],
                *[seen(f"o{n}", 404.0, 404.0) for n in range(others)],
            ],
        )
        agreed = self.agreed()
        for begin, end, _, _ in agreed:
            self.assertLess(begin, end)
            self.assertLessEqual(end, 406.0)
            for moment in (begin, (begin + end) / 2):
                sure = sum(b <= moment < e for b, e in spans)
                self.assertGreaterEqual(2 * sure, members)
                self.assertGreaterEqual(sure, min(2, members - 1))
        for one, other in itertools.pairwise(agreed):
            self.assertLess(one.end, other.begin)


class BelievableTest(unittest.TestCase):
    """What one member says, and the part of it that can be true."""

    def test_table(self):
        never = float("-inf")
        for name, expected, said, report, before in (
            ("all of it", (100.0, 395.0), (100.0, 395.0), 400.0, never),
            ("since its last report", (150, 395), (100, 395), 400, 150),
            ("it was not late", (395, 395), (100, 395), 400, 386),
            ("its clock is off a little", (100, 401), (100, 401), 400, never),
            ("after its report", None, (100, 403), 400, never),
            ("it has not reported", None, (100, 395), never, never),
        ):
            with self.subTest(name):
                claim = reported_outages.believable(
                    said, 405.0, report, before, 15.0
                )
                self.assertEqual(expected, claim and claim[1:])
