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


"""Stalls of the backend: whom they excuse, and for how long."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.servicegroup import silence
from nova_sg.servicegroup.detector import Detector, Fact
from nova_sg.servicegroup.stalls import Stalls

D = 60.0
INTERVAL = 10.0


class RuleTest(unittest.TestCase):
    """Stalls alone: (begin, end), what is allowed of the silence since 0."""

    def test_what_is_excused_and_allowed(self):
        cases = [
            # stalls, now, seconds that count, seconds that are allowed
            ([], 50, 50, D),
            # Short ones excuse themselves.
            ([(10, 19)], 50, 41, D),
            ([(10, 19), (30, 39)], 50, 32, D),
            # A long one gives the whole time from its end.
            ([(10, 130)], 140, 20, 10 + D),
            ([(10, 130), (150, 270)], 280, 40, 30 + D),
            # Not to whoever was down when it began.
            ([(61, 181)], 190, 70, D),
            # The second comes when the grace of the first is over.
            ([(10, 130), (191, 300)], 310, 81, 10 + D),
            # And twice the time is the end of it, whatever comes.
            ([(50, 70), (120, 140), (190, 210)], 260, 200, 2 * D),
            # What was before the report does not matter.
            ([(-200, -100)], 50, 50, D),
            ([(-200, 5)], 50, 45, D),
            ([(-200, 15)], 50, 35, D),
        ]
        for spans, now, healthy, allowed in cases:
            with self.subTest(spans=spans, now=now):
                stalls = Stalls()
                for span in spans:
                    stalls.add(*span)
                how = stalls.silence(0, now, D, INTERVAL)
                self.assertEqual((healthy, allowed), how[:2])
                self.assertEqual(now - healthy, how.excused)

    @given(
        st.lists(
            st.tuples(st.integers(0, 1000), st.integers(1, 300)), max_size=10
        ),
        st.integers(0, 2000),
    )
    def test_what_counts_is_what_is_no_stall(self, spans, now):
        stalls = Stalls()
        seconds = set(range(now))
        for begin, length in spans:
            stalls.add(begin, begin + length)
            seconds -= set(range(begin, begin + length))
        how = stalls.silence(0, now, D, INTERVAL)
        self.assertEqual(len(seconds), how.healthy)
        self.assertEqual(len(seconds), stalls.healthy(0, now))
        self.assertLessEqual(D, how.allowed)
        self.assertLessEqual(how.allowed, 2 * D)

    @given(
        st.lists(
            st.tuples(st.integers(0, 3000), st.integers(1, 300)), max_size=20
        ),
        st.integers(-100, 3000),
    )
    def test_what_is_forgotten_makes_no_difference(self, spans, since):
        stalls = Stalls()
        for begin, length in spans:
            stalls.add(begin, begin + length)
        now = max([since, *(b + n for b, n in spans)]) + 1
        before = stalls.silence(since, now, D, INTERVAL)
        stalls.forget(now, D)
        after = stalls.silence(since, now, D, INTERVAL)
        self.assertEqual(
            before.healthy > before.allowed, after.healthy > after.allowed
        )


class LooksTest(unittest.TestCase):
    """An observer that looks; members report, or do not."""

    def setUp(self):
        super().setUp()
        self.judge = Detector(D, INTERVAL)
        self.look(100.0, a=95.0, b=99.0)

    def look(self, at, answered=None, **reports):
        facts = [Fact(h, at, last_report=r) for h, r in reports.items()]
        self.judge.look(at, facts, answered=answered)

    def state(self, host="a"):
        return self.judge.judge(host, self.judge.last_look).state

    def fails(self, begin, certain=None):
        """Have our own reports fail, since begin."""
        self.judge.reports_fail(
            "me", begin, begin if certain is None else certain
        )

    def first_down(self, begin, step=2.0, **reports):
        """Look until a is down; return the first such moment."""
        at = begin
        while self.state() == "up":
            at += step
            self.assertLess(at, begin + 20 * D)
            # None: whoever goes on reporting.
            now = {h: at - 1.0 if r is None else r for h, r in reports.items()}
            self.look(at, **now)
        return at

    def test_a_look_that_took_longer_than_the_interval_is_a_stall(self):
        self.look(102.0, answered=102.0 + INTERVAL - 1)
        self.assertEqual(95.0 + D + 1, self.first_down(102.0))
        self.setUp()
        self.look(102.0, answered=202.0)
        self.assertEqual(202.0 + D + 2, self.first_down(202.0))

    def test_who_looks_rarely_hears_from_others_that_all_was_well(self):
        self.judge.look_failed(700.0)
        self.judge.look_failed(703.0)
        # b has reported just before the backend went away.
        self.look(705.0, b=699.0)
        self.assertEqual("down", self.state())
        self.assertEqual("up", self.state("b"))

    def test_who_looks_rarely_and_hears_of_nobody_excuses_all(self):
        self.judge.look_failed(700.0)
        self.look(705.0)
        self.assertEqual(["up", "up"], [self.state(), self.state("b")])
        self.assertEqual(705.0 + D + 1, self.first_down(705.0, step=1.0))

    def test_reports_of_ours_that_fail_are_a_stall(self):
        self.fails(101.0)
        for at in range(102, 400, 2):
            self.look(float(at))
            self.assertEqual("up", self.state())
        self.judge.reports_work("me", 400.0)
        self.assertEqual(400.0 + D + 2, self.first_down(400.0))

    def test_reports_of_ours_alone_that_fail_are_ours(self):
        self.fails(101.0)
        self.fails(101.0, 106.0)
        self.look(108.0, b=107.0)
        self.fails(101.0, 108.0)
        # Five seconds it was, as far as we knew then.
        self.assertEqual(95.0 + D + 5 + 1, self.first_down(109.0, b=None))

    def test_a_few_reports_that_got_through_refute_nothing(self):
        others = {f"c{n}": 99.0 for n in range(4)}
        self.look(100.0, **others)
        self.fails(101.0)
        for at in range(110, 400, 2):
            self.fails(101.0, at - 1.0)
            self.look(float(at), b=107.0, c0=107.0)
            self.assertEqual("up", self.state())
        # Half of them do.
        self.fails(101.0, 400.0)
        self.look(402.0, c1=401.0)
        self.fails(101.0, 402.0)
        down = self.first_down(402.0, b=None, c0=None, c1=None)
        self.assertEqual(400.0 + D + 2, down)

    def test_a_report_that_was_under_way_says_nothing(self):
        self.fails(101.0)
        self.look(108.0, b=102.0)
        for at in range(110, 400, 2):
            self.look(float(at))
        self.assertEqual("up", self.state())

    def test_ours_count_again_when_nobody_reports(self):
        self.fails(101.0)
        self.look(108.0, b=107.0)
        # Its own trouble becomes everybody's.
        for at in range(110, 400, 2):
            self.look(float(at))
        self.assertEqual(["up", "up"], [self.state(), self.state("b")])
        self.judge.reports_work("me", 400.0)
        self.look(401.0, b=400.5)
        self.assertEqual(400.0 + D + 1, self.first_down(401.0, b=None))

    def test_a_minority_that_goes_on_reporting_refutes_in_the_end(self):
        others = {f"c{n}": 99.0 for n in range(4)}
        self.look(100.0, **others)
        self.fails(101.0)
        at = 102.0
        while self.state() == "up":
            self.fails(101.0, at - 1.0)
            self.look(at, b=at - 1.0, c0=at - 1.0)
            at += 2.0
            self.assertLess(at, 1000.0)
        # Two limits of patience, and one that the stall is worth.
        self.assertAlmostEqual(101.0 + 3 * D, at, delta=6.0)

    def test_two_alone_find_the_death_of_one(self):
        """Reports of ours fail for ever, and looks are answered."""
        self.judge.mass = silence.Rule(0.55, 4, 2 * D)
        died, at = 139.0, 102.0
        while self.state() == "up":
            at += 2.0
            self.fails(101.0, at - 1.0)
            self.look(at, a=min(died, at - 1.0))
            self.assertLess(at, died + 10 * D)
        # Twice the limit for as long as it may be more than ours, and a limit
        # for what that is worth.
        heard = died + 1.5 * INTERVAL
        self.assertAlmostEqual(heard + 3 * D, at, delta=6)
        # It stays down, and is up when it comes back.
        for _ in range(500):
            at += 2.0
            self.fails(101.0, at - 1.0)
            self.look(at)
            self.assertEqual("down", self.state())
        self.look(at + 2.0, a=at + 1.0)
        self.assertEqual("up", self.state())
        # That shows once more whose trouble it is.
        self.fails(101.0, at + 3.0)
        down = self.first_down(at + 4.0)
        self.assertAlmostEqual(at + 1.5 * INTERVAL + 2 * D, down, delta=6)

    def test_many_who_fall_silent_bear_us_out(self):
        self.judge.mass = silence.Rule(0.55, 4, 2 * D)
        self.fails(101.0, 102.0)
        # Ours alone, and then everybody's.
        self.look(112.0, b=110.0, c=111.0, d=112.0)
        for at in range(114, 2000, 2):
            self.fails(101.0, at - 1.0)
            self.look(float(at))
        self.assertEqual("up", self.state())
        self.assertEqual("reported", self.judge.judge("a", at).cause)

    def test_a_single_report_of_ours_that_fails_excuses_a_missed_one(self):
        self.fails(150.0, 150.1)
        self.judge.reports_work("me", 150.1)
        self.assertEqual(212.0, self.first_down(152.0))

    def test_the_end_of_ours_comes_after_the_beginning_was_put_off(self):
        self.fails(101.0, 106.0)
        self.look(108.0, b=107.0)
        # It counts again from the last moment at which b was heard.
        self.look(124.0)
        self.judge.reports_work("me", 106.0)
        self.assertEqual(95.0 + D + 5 + 2, self.first_down(124.0, b=None))

    def test_ours_count_again_once_they_have_worked(self):
        self.fails(101.0)
        self.look(108.0, b=107.0)
        self.judge.reports_work("me", 120.0)
        self.fails(130.0)
        self.look(300.0)
        self.assertEqual("up", self.state())

    def test_a_backend_that_flaps_does_not_keep_the_dead(self):
        at = 100.0
        healthy = 5.0
        while self.state() == "up":
            # Ten seconds of work, then an outage that everybody notices.
            at += 10.0
            healthy += 10.0
            self.look(at)
            if self.state() == "up":
                self.judge.look_failed(at + 1)
                at += 2 * INTERVAL
                self.look(at)
            self.assertLess(at, 5000.0)
        self.assertGreater(healthy, D)
        self.assertLessEqual(healthy, 2 * D + 10)

    def test_short_failures_excuse_only_themselves(self):
        at = 100.0
        healthy = 5.0
        while self.state() == "up":
            at += 10.0
            healthy += 10.0
            self.look(at)
            if self.state() == "up":
                self.judge.look_failed(at + 1)
                at += 4.0
                self.look(at)
            self.assertLess(at, 5000.0)
        self.assertLessEqual(healthy, D + 10)

    def test_a_value_that_the_backend_lost_says_nothing(self):
        # It looks rarely, and finds that all was forgotten.
        self.judge.look(1000.0, [Fact("a", 1000.0, vanished=True)])
        self.assertEqual("vanished", self.judge.judge("a", 1000.0).cause)
        due = 1000.0 + 1.5 * INTERVAL
        self.judge.look(due, [Fact("a", due, vanished=True)])
        self.assertEqual("up", self.state())
        due += 0.1
        self.judge.look(due, [Fact("a", due, vanished=True)])
        self.assertEqual("down", self.state())
        # It does not rise when the backend forgets once more.
        self.judge.look(1100.0, [Fact("a", 1100.0, last_report=95.0)])
        self.judge.look(1102.0, [Fact("a", 1102.0, vanished=True)])
        self.assertEqual("down", self.state())

    def test_words(self):
        self.judge.look_failed(102.0)
        self.look(190.0)
        verdict = self.judge.judge("a", 192.0)
        self.assertEqual(
            "last report 97.0 s ago, 90.0 s of them without the backend; "
            "silent for 5.0 s with it, allowed are 65 s",
            self.judge.explain("a", verdict, 192.0),
        )
