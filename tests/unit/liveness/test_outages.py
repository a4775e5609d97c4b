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


"""Outages of a backend: which members they excuse, and for how long."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import model, outages
from nova_sg.liveness.model import Outage
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer

MASS = model.MassRule(0.55, 4, 2 * LIMIT)


class ListTest(unittest.TestCase):
    @given(
        st.lists(
            st.tuples(st.integers(0, 1000), st.integers(0, 300)), max_size=10
        ),
        st.integers(0, 2000),
    )
    def test_they_are_disjoint_and_cover_the_same_time(self, spans, now):
        known, seconds = (), set(range(now))
        for begin, length in spans:
            known = outages.add(known, Outage(begin, begin + length))
            seconds -= set(range(begin, begin + length))
        self.assertEqual(len(seconds), outages.without(known, 0, now))
        for one, other in zip(known, known[1:], strict=False):
            self.assertLess(one.end, other.begin)

    def test_a_missed_report_makes_all_of_it_a_missed_one(self):
        known = outages.add((), Outage(10.0, 20.0))
        known = outages.add(known, Outage(15.0, 16.0, missed=True))
        self.assertEqual((Outage(10.0, 20.0, missed=True),), known)

    @given(
        st.lists(
            st.lists(
                st.tuples(st.integers(0, 100), st.integers(1, 30)),
                max_size=4,
            ),
            min_size=1,
            max_size=3,
        )
    )
    def test_what_several_have_in_common(self, of_each):
        known, seconds = [], set(range(200))
        for spans in of_each:
            one, out = (), set()
            for begin, length in spans:
                one = outages.add(one, Outage(begin, begin + length))
                out |= set(range(begin, begin + length))
            known.append(one)
            seconds &= out
        found = outages.common(known)
        self.assertEqual(200 - len(seconds), outages.without(found, 0, 200))


class OutagesTestCase(unittest.TestCase):
    """An observer that refreshes; members report, or do not."""

    def setUp(self):
        super().setUp()
        self.observer = Observer()
        self.refresh(100.0, a=95.0, b=99.0)

    def refresh(self, at, answered=None, **reports):
        self.observer.refresh(at, reports, complete=False, answered=answered)

    def state(self, host="a"):
        return self.observer.group.members[host].verdict.state

    def fails(self, begin, certain=None):
        """Have reports of this process fail, since begin."""
        self.observer.reports_fail(begin, certain or begin)

    def first_down(self, begin, step=2.0, **reports):
        """Refresh until a is down; return the first such moment.

        :param reports: of other members; None: it goes on reporting
        """
        at = begin
        while self.state() == "up":
            at += step
            self.assertLess(at, begin + 20 * LIMIT)
            now = {h: at - 1.0 if r is None else r for h, r in reports.items()}
            self.refresh(at, **now)
        return at


class RefreshesTest(OutagesTestCase):
    """Refreshes that fail, or take long."""

    def test_one_that_took_longer_than_the_interval_is_an_outage(self):
        self.refresh(102.0, answered=102.0 + INTERVAL - 1)
        self.assertEqual(95.0 + LIMIT + 1, self.first_down(102.0))
        self.setUp()
        self.refresh(102.0, answered=202.0)
        self.assertEqual(202.0 + LIMIT + 2, self.first_down(202.0))

    def test_an_observer_that_rarely_asks_sees_by_others_that_all_was_well(
        self,
    ):
        self.observer.fails(700.0)
        self.observer.fails(703.0)
        # b has reported just before the backend was unreachable.
        self.refresh(705.0, b=699.0)
        self.assertEqual("down", self.state())
        self.assertEqual("up", self.state("b"))

    def test_an_observer_that_rarely_asks_and_sees_no_report_excuses_all(
        self,
    ):
        self.observer.fails(700.0)
        self.refresh(705.0)
        self.assertEqual(["up", "up"], [self.state(), self.state("b")])
        self.assertEqual(705.0 + LIMIT + 1, self.first_down(705.0, step=1.0))

    def test_a_backend_that_flaps_does_not_keep_the_dead(self):
        at = 100.0
        healthy = 5.0
        while self.state() == "up":
            # Ten seconds of work, then an outage in which all miss a report.
            at += 10.0
            healthy += 10.0
            self.refresh(at)
            if self.state() == "up":
                self.observer.fails(at + 1)
                at += 2 * INTERVAL
                self.refresh(at)
            self.assertLess(at, 5000.0)
        self.assertGreater(healthy, LIMIT)
        self.assertLessEqual(healthy, 2 * LIMIT + 10)

    def test_short_failures_excuse_only_themselves(self):
        at = 100.0
        healthy = 5.0
        while self.state() == "up":
            at += 10.0
            healthy += 10.0
            self.refresh(at)
            if self.state() == "up":
                self.observer.fails(at + 1)
                at += 4.0
                self.refresh(at)
            self.assertLess(at, 5000.0)
        self.assertLessEqual(healthy, LIMIT + 10)


class OwnReportsTest(OutagesTestCase):
    """Reports of this process that do not get through."""

    def test_they_are_an_outage(self):
        self.fails(101.0)
        for at in range(102, 400, 2):
            self.refresh(float(at))
            self.assertEqual("up", self.state())
        self.observer.reports_work(400.0)
        self.assertEqual(400.0 + LIMIT + 2, self.first_down(400.0))

    def test_where_others_get_through_the_trouble_is_its_own(self):
        self.fails(101.0)
        self.fails(101.0, 106.0)
        self.refresh(108.0, b=107.0)
        self.fails(101.0, 108.0)
        # Five seconds it was, as far as was known then.
        self.assertEqual(95.0 + LIMIT + 5 + 1, self.first_down(109.0, b=None))

    def test_a_few_reports_that_got_through_refute_nothing(self):
        others = {f"c{n}": 99.0 for n in range(4)}
        self.refresh(100.0, **others)
        self.fails(101.0)
        for at in range(110, 400, 2):
            self.fails(101.0, at - 1.0)
            self.refresh(float(at), b=107.0, c0=107.0)
            self.assertEqual("up", self.state())
        # Half of them do.
        self.fails(101.0, 400.0)
        self.refresh(402.0, c1=401.0)
        self.fails(101.0, 402.0)
        down = self.first_down(402.0, b=None, c0=None, c1=None)
        self.assertEqual(400.0 + LIMIT + 2, down)

    def test_a_report_that_was_under_way_says_nothing(self):
        self.fails(101.0)
        self.refresh(108.0, b=102.0)
        for at in range(110, 400, 2):
            self.refresh(float(at))
        self.assertEqual("up", self.state())

    def test_it_counts_again_when_no_member_reports(self):
        self.fails(101.0)
        self.refresh(108.0, b=107.0)
        # Its own trouble becomes that of all.
        for at in range(110, 400, 2):
            self.refresh(float(at))
        self.assertEqual(["up", "up"], [self.state(), self.state("b")])
        self.observer.reports_work(400.0)
        self.refresh(401.0, b=400.5)
        self.assertEqual(400.0 + LIMIT + 1, self.first_down(401.0, b=None))

    def test_a_minority_that_goes_on_reporting_refutes_in_the_end(self):
        others = {f"c{n}": 99.0 for n in range(4)}
        self.refresh(100.0, **others)
        self.fails(101.0)
        at = 102.0
        while self.state() == "up":
            self.fails(101.0, at - 1.0)
            self.refresh(at, b=at - 1.0, c0=at - 1.0)
            at += 2.0
            self.assertLess(at, 1000.0)
        # Two limits of patience, and one that the outage is worth.
        self.assertAlmostEqual(101.0 + 3 * LIMIT, at, delta=6.0)

    def test_two_alone_find_the_death_of_one(self):
        """Own reports fail for ever, and refreshes are answered."""
        self.observer.limits = self.observer.limits._replace(mass=MASS)
        died, at = 139.0, 102.0
        while self.state() == "up":
            at += 2.0
            self.fails(101.0, at - 1.0)
            self.refresh(at, a=min(died, at - 1.0))
            self.assertLess(at, died + 10 * LIMIT)
        # Twice the limit for as long as it may be more than its own trouble,
        # and a limit for what that is worth.
        heard = died + 1.5 * INTERVAL
        self.assertAlmostEqual(heard + 3 * LIMIT, at, delta=6)
        # It stays down, and is up when it comes back.
        for _ in range(500):
            at += 2.0
            self.fails(101.0, at - 1.0)
            self.refresh(at)
            self.assertEqual("down", self.state())
        self.refresh(at + 2.0, a=at + 1.0)
        self.assertEqual("up", self.state())
        # That shows once more that the trouble is its own.
        self.fails(101.0, at + 3.0)
        down = self.first_down(at + 4.0)
        self.assertAlmostEqual(at + 1.5 * INTERVAL + 2 * LIMIT, down, delta=6)

    def test_many_that_fall_silent_bear_it_out(self):
        self.observer.limits = self.observer.limits._replace(mass=MASS)
        self.fails(101.0, 102.0)
        # Its own alone, and then that of all.
        self.refresh(112.0, b=110.0, c=111.0, d=112.0)
        for at in range(114, 2000, 2):
            self.fails(101.0, at - 1.0)
            self.refresh(float(at))
        self.assertEqual("reported", self.observer.cause("a"))

    def test_a_single_one_that_fails_excuses_a_missed_report(self):
        self.fails(150.0, 150.1)
        self.observer.reports_work(150.1)
        self.assertEqual(212.0, self.first_down(152.0))

    def test_the_end_comes_after_the_beginning_was_put_off(self):
        self.fails(101.0, 106.0)
        self.refresh(108.0, b=107.0)
        # It counts again from the last moment at which b was heard.
        self.refresh(124.0)
        self.observer.reports_work(106.0)
        self.assertEqual(95.0 + LIMIT + 5 + 2, self.first_down(124.0, b=None))

    def test_they_count_again_once_they_have_worked(self):
        self.fails(101.0)
        self.refresh(108.0, b=107.0)
        self.observer.reports_work(120.0)
        self.fails(130.0)
        self.refresh(300.0)
        self.assertEqual("up", self.state())
