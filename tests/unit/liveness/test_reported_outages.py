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


"""Reported outages: since and until when members could not report."""

import itertools
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import explain, reported_outages
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen

NAN, INF = float("nan"), float("inf")


class AgreementTest(unittest.TestCase):
    """An observer that begins after an outage from second 100 to 400."""

    def setUp(self):
        super().setUp()
        self.observer = Observer()

    def refresh(
        self, at, silent="", affected="", others="", outage=(100.0, 395.0)
    ):
        """Refresh.

        :param silent: members that are silent since second 95
        :param affected: members that report, and report the outage
        :param others: members that report without an outage
        """
        observations = [seen(host, 95.0, 95.0) for host in silent]
        observations += [
            seen(host, at - 1.0, at - 1.0, outage=outage) for host in affected
        ]
        observations += [seen(host, at - 1.0, at - 1.0) for host in others]
        return self.observer.refresh(at, observations)

    def state(self, host="x"):
        return self.observer.group.members[host].verdict.state

    def claim(self, host):
        return self.observer.group.backends[0].reported_outages.get(host)

    def agreed(self):
        return self.observer.group.backends[0].agreed

    def test_an_outage_counts_if_half_of_the_members_report_it(self):
        cases = [
            # silent, affected, others, the state of x
            ("xyzw", "abcd", "", "up"),
            ("xyzw", "ab", "cd", "up"),
            ("x", "ab", "", "up"),
            # Less than half report it.
            ("xyzw", "ab", "cde", "down"),
            ("xyzw", "abcd", "efghi", "down"),
            # One member alone is not enough,
            ("xyzw", "a", "", "down"),
            ("xy", "a", "", "down"),
            ("x", "a", "b", "down"),
            # unless no other member reports.
            ("x", "a", "", "up"),
            ("x", "", "a", "down"),
            ("x", "", "", "down"),
        ]
        for silent, affected, others, state in cases:
            with self.subTest(
                silent=silent, affected=affected, others=others
            ):
                self.setUp()
                self.refresh(405.0, silent, affected, others)
                self.assertEqual(state, self.state())

    def test_silent_members_have_their_whole_time_after_the_outage(self):
        self.refresh(405.0, "xyz", "ab")
        at = 405.0
        while self.state() == "up":
            at += 2.0
            # Members stop reporting the outage meanwhile.
            if at < 430.0:
                self.refresh(at, "xyz", "ab")
            else:
                self.refresh(at, "xyz", "", "ab")
        self.assertEqual(395.0 + LIMIT + 2.0, at)

    def test_the_time_that_most_members_agree_on_counts(self):
        spans = {"a": (100.0, 390.0), "b": (105.0, 395.0), "c": (110.0, 399.0)}
        self.observer.refresh(
            405.0,
            [
                seen("x", 95.0, 95.0),
                *[
                    seen(host, 404.0, 404.0, outage=outage)
                    for host, outage in spans.items()
                ],
            ],
        )
        (agreed,) = self.agreed()
        self.assertEqual((105.0, 395.0, 3, 3), agreed)
        self.assertEqual((105.0, 395.0), self.claim("b")[1:])

    def test_an_impossible_outage_is_not_used(self):
        for outage in (
            (NAN, NAN),
            (NAN, 395.0),
            (100.0, NAN),
            (-INF, 395.0),
            (100.0, INF),
            (395.0, 100.0),
            (100.0, 100.0),
            # Later than the report itself, and in the future.
            (100.0, 407.0),
            (500.0, 600.0),
        ):
            with self.subTest(outage=outage):
                self.setUp()
                self.refresh(405.0, "xyz", "ab", outage=outage)
                self.assertEqual("down", self.state())
                self.assertIsNone(self.claim("a"))
                self.assertEqual("up", self.state("a"))

    def test_the_outage_of_a_member_that_left_does_not_count(self):
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

    def test_an_outage_of_just_now_needs_half_of_all_members(self):
        # The reports of c to f are not due again yet. These are not silent.
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

    def test_a_reported_outage_raises_no_member(self):
        # The observer's refreshes were answered, and no member reported.
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
        # From now on it is judged as any member.
        at = 407.0
        while self.state() == "up":
            at += 2.0
            self.observer.refresh(
                at, [seen("x", 406.0, 406.0)], complete=False
            )
        self.assertEqual(467.0, at)

    def test_an_outage_from_a_member_that_reported_meanwhile_is_not_used(self):
        def down_at(reported_outage):
            """Return when x is down; the others report this outage."""
            self.setUp()
            at = 100.0
            while True:
                last = {h: at - at % 10 - n for n, h in enumerate("abc")}
                observations = [
                    seen(
                        host,
                        report,
                        report,
                        outage=reported_outage(at, report),
                    )
                    for host, report in last.items()
                ]
                observations.append(seen("x", 95.0, 95.0))
                self.observer.refresh(at, observations)
                if self.state() == "down":
                    return at
                at += 2.0
                self.assertLess(at, 1000.0)

        for reported_outage in (
            lambda at, report: None,
            # All the time; the last interval; the last 500 seconds; the same
            # time again and again.
            lambda at, report: (0.0, report),
            lambda at, report: (report - INTERVAL, report),
            lambda at, report: (report - 500.0, report - 0.1),
            lambda at, report: (50.0, 98.0),
        ):
            # x died before the observer had seen two reports of the others.
            self.assertLessEqual(down_at(reported_outage), 100.0 + LIMIT)

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
    def test_half_of_the_members_report_each_agreed_moment(
        self, spans, others
    ):
        self.setUp()
        members = len(spans) + others
        self.observer.refresh(
            405.0,
            [
                *[
                    seen(f"s{n}", 404.0, 404.0, outage=outage)
                    for n, outage in enumerate(spans)
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
    """The part of an outage reported by one member that can be true."""

    def test_the_part_that_can_be_true(self):
        never = float("-inf")
        for name, expected, outage, report, before in (
            ("all of it", (100.0, 395.0), (100.0, 395.0), 400.0, never),
            ("since its last report", (150, 395), (100, 395), 400, 150),
            ("its report was not late", (395, 395), (100, 395), 400, 386),
            ("its clock is off a little", (100, 401), (100, 401), 400, never),
            ("after its report", None, (100, 403), 400, never),
            ("it has not reported", None, (100, 395), never, never),
        ):
            with self.subTest(name):
                claim = reported_outages.believable(
                    outage, 405.0, report, before, 15.0
                )
                self.assertEqual(expected, claim and claim[1:])
