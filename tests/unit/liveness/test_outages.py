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
    def test_added_outages_are_disjoint_and_cover_the_same_time(
        self, spans, now
    ):
        known, seconds = (), set(range(now))
        for begin, length in spans:
            known = outages.add(known, Outage(begin, begin + length))
            seconds -= set(range(begin, begin + length))
        self.assertEqual(len(seconds), outages.without(known, 0, now))
        for one, other in zip(known, known[1:], strict=False):
            self.assertLess(one.end, other.begin)

    def test_a_merged_outage_is_missed_if_any_part_is(self):
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
    def test_the_common_outages_cover_the_time_in_which_all_are_out(
        self, of_each
    ):
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
    """An observer of the members a and b; a reported at second 95."""

    def setUp(self):
        super().setUp()
        self.observer = Observer()
        self.refresh(100.0, a=95.0, b=99.0)

    def refresh(self, at, answered=None, **reports):
        self.observer.refresh(at, reports, complete=False, answered=answered)

    def state(self, host="a"):
        return self.observer.group.members[host].verdict.state

    def fails(self, begin, certain=None):
        """Have this process's own reports fail, since begin."""
        self.observer.reports_fail(begin, certain or begin)

    def first_down(self, begin, step=2.0, **reports):
        """Refresh until a is down; return the first such moment.

        :param reports: the last reports of other members; None: the member
            goes on reporting
        """
        at = begin
        while self.state() == "up":
            at += step
            self.assertLess(at, begin + 20 * LIMIT)
            now = {h: at - 1.0 if r is None else r for h, r in reports.items()}
            self.refresh(at, **now)
        return at


class RefreshesTest(OutagesTestCase):
    """Refreshes that fail or take long."""

    def test_a_refresh_that_takes_longer_than_the_interval_is_an_outage(self):
        self.refresh(102.0, answered=102.0 + INTERVAL - 1)
        self.assertEqual(95.0 + LIMIT + 1, self.first_down(102.0))
        self.setUp()
        self.refresh(102.0, answered=202.0)
        self.assertEqual(202.0 + LIMIT + 2, self.first_down(202.0))

    def test_a_report_of_another_member_shows_when_an_outage_began(self):
        # The observer refreshes rarely.
        self.observer.fails(700.0)
        self.observer.fails(703.0)
        # b reported just before the backend became unreachable.
        self.refresh(705.0, b=699.0)
        self.assertEqual("down", self.state())
        self.assertEqual("up", self.state("b"))

    def test_without_a_report_an_outage_begins_at_the_last_refresh(self):
        self.observer.fails(700.0)
        self.refresh(705.0)
        self.assertEqual(["up", "up"], [self.state(), self.state("b")])
        self.assertEqual(705.0 + LIMIT + 1, self.first_down(705.0, step=1.0))

    def test_a_death_is_found_although_the_backend_flaps(self):
        at = 100.0
        healthy = 5.0
        while self.state() == "up":
            # The backend works for ten seconds. Then it is out for so long
            # that every member misses a report.
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

    def test_short_outages_excuse_only_their_own_time(self):
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
    """Own reports, those of this process, that fail."""

    def test_own_reports_that_fail_are_an_outage(self):
        self.fails(101.0)
        for at in range(102, 400, 2):
            self.refresh(float(at))
            self.assertEqual("up", self.state())
        self.observer.reports_work(400.0)
        self.assertEqual(400.0 + LIMIT + 2, self.first_down(400.0))

    def test_they_are_no_outage_while_other_members_report(self):
        self.fails(101.0)
        self.fails(101.0, 106.0)
        self.refresh(108.0, b=107.0)
        self.fails(101.0, 108.0)
        # Up to b's report it was known to have lasted five seconds.
        self.assertEqual(95.0 + LIMIT + 5 + 1, self.first_down(109.0, b=None))

    def test_reports_of_a_few_members_do_not_refute_an_outage(self):
        others = {f"c{n}": 99.0 for n in range(4)}
        self.refresh(100.0, **others)
        self.fails(101.0)
        for at in range(110, 400, 2):
            self.fails(101.0, at - 1.0)
            self.refresh(float(at), b=107.0, c0=107.0)
            self.assertEqual("up", self.state())
        # Reports of half of the members do.
        self.fails(101.0, 400.0)
        self.refresh(402.0, c1=401.0)
        self.fails(101.0, 402.0)
        down = self.first_down(402.0, b=None, c0=None, c1=None)
        self.assertEqual(400.0 + LIMIT + 2, down)

    def test_a_report_from_the_begin_of_an_outage_does_not_refute_it(self):
        self.fails(101.0)
        self.refresh(108.0, b=102.0)
        for at in range(110, 400, 2):
            self.refresh(float(at))
        self.assertEqual("up", self.state())

    def test_they_are_an_outage_again_when_no_member_reports(self):
        self.fails(101.0)
        self.refresh(108.0, b=107.0)
        # Then no member can report.
        for at in range(110, 400, 2):
            self.refresh(float(at))
        self.assertEqual(["up", "up"], [self.state(), self.state("b")])
        self.observer.reports_work(400.0)
        self.refresh(401.0, b=400.5)
        self.assertEqual(400.0 + LIMIT + 1, self.first_down(401.0, b=None))

    def test_a_minority_that_goes_on_reporting_refutes_it_in_the_end(self):
        others = {f"c{n}": 99.0 for n in range(4)}
        self.refresh(100.0, **others)
        self.fails(101.0)
        at = 102.0
        while self.state() == "up":
            self.fails(101.0, at - 1.0)
            self.refresh(at, b=at - 1.0, c0=at - 1.0)
            at += 2.0
            self.assertLess(at, 1000.0)
        # After two limits it is refuted, and it excuses one limit.
        self.assertAlmostEqual(101.0 + 3 * LIMIT, at, delta=6.0)

    def test_an_observer_whose_reports_fail_finds_the_only_others_death(self):
        """Its own reports fail for ever, and its refreshes are answered."""
        self.observer.limits = self.observer.limits._replace(mass=MASS)
        died, at = 139.0, 102.0
        while self.state() == "up":
            at += 2.0
            self.fails(101.0, at - 1.0)
            self.refresh(at, a=min(died, at - 1.0))
            self.assertLess(at, died + 10 * LIMIT)
        # For two limits after a's last report it may be an outage, which then
        # excuses one limit.
        heard = died + 1.5 * INTERVAL
        self.assertAlmostEqual(heard + 3 * LIMIT, at, delta=6)
        # It stays down until it reports again.
        for _ in range(500):
            at += 2.0
            self.fails(101.0, at - 1.0)
            self.refresh(at)
            self.assertEqual("down", self.state())
        self.refresh(at + 2.0, a=at + 1.0)
        self.assertEqual("up", self.state())
        # Its report shows once more that there is no outage.
        self.fails(101.0, at + 3.0)
        down = self.first_down(at + 4.0)
        self.assertAlmostEqual(at + 1.5 * INTERVAL + 2 * LIMIT, down, delta=6)

    def test_many_members_that_fall_silent_confirm_an_outage(self):
        self.observer.limits = self.observer.limits._replace(mass=MASS)
        self.fails(101.0, 102.0)
        # At first the others report. Then all fall silent.
        self.refresh(112.0, b=110.0, c=111.0, d=112.0)
        for at in range(114, 2000, 2):
            self.fails(101.0, at - 1.0)
            self.refresh(float(at))
        self.assertEqual("reported", self.observer.cause("a"))

    def test_a_single_own_report_that_fails_excuses_a_missed_report(self):
        self.fails(150.0, 150.1)
        self.observer.reports_work(150.1)
        self.assertEqual(212.0, self.first_down(152.0))

    def test_an_outage_whose_begin_moved_past_its_end_excuses_nothing_more(
        self,
    ):
        self.fails(101.0, 106.0)
        self.refresh(108.0, b=107.0)
        # It counts again, but only from b's last report on.
        self.refresh(124.0)
        self.observer.reports_work(106.0)
        self.assertEqual(95.0 + LIMIT + 5 + 2, self.first_down(124.0, b=None))

    def test_they_are_an_outage_again_after_they_have_worked(self):
        self.fails(101.0)
        self.refresh(108.0, b=107.0)
        self.observer.reports_work(120.0)
        self.fails(130.0)
        self.refresh(300.0)
        self.assertEqual("up", self.state())
