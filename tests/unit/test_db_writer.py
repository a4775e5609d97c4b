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

"""When reports are written to the database, and which of them together."""

import unittest

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st

from nova_sg.backends.db.writer import GATHER, MOST, WRITES, Gathering, Report

PACE = 0.2
ENOUGH = 4


def add(gathering, key, now):
    report = Report(key, None, now)
    gathering.add(report)
    return report


def keys(reports):
    return [report.key for report in reports]


class _Event:
    """The event that a caller waits for, and the end of its wait."""

    def __init__(self):
        self.is_set = False
        self.until = float("inf")

    def set(self):
        self.is_set = True


class GatheringTest(unittest.TestCase):
    def test_a_single_report_does_not_wait(self):
        for pace in (0.0, PACE):
            gathering = Gathering(pace, ENOUGH)
            add(gathering, 1, 100.0)
            self.assertEqual([1], keys(gathering.take(100.0)))

    def test_reports_gather_while_others_are_written(self):
        gathering = Gathering(0.0, MOST)
        add(gathering, 1, 100.0)
        gathering.take(100.0)
        add(gathering, 2, 100.01)
        add(gathering, 3, 100.02)
        self.assertEqual([], gathering.take(100.02))
        gathering.finished()
        self.assertEqual([2, 3], keys(gathering.take(100.03)))

    def test_reports_wait_for_a_slow_write_for_gather_at_most(self):
        gathering = Gathering(0.0, MOST)
        for write in range(WRITES):
            add(gathering, write, 100.0 + write)
            self.assertEqual(
                [write], keys(gathering.take(100.0 + write + GATHER))
            )
        add(gathering, 9, 110.0)
        self.assertEqual([], gathering.take(1000.0))
        gathering.finished()
        self.assertEqual([9], keys(gathering.take(1000.0)))

    def test_with_a_pace_writes_are_that_far_apart(self):
        gathering = Gathering(PACE, ENOUGH)
        add(gathering, 1, 100.0)
        gathering.take(100.0)
        gathering.finished()
        add(gathering, 2, 100.01)
        self.assertEqual([], gathering.take(100.01))
        self.assertEqual([2], keys(gathering.take(100.0 + PACE)))

    def test_enough_reports_do_not_wait_for_the_pace(self):
        gathering = Gathering(PACE, ENOUGH)
        add(gathering, 0, 100.0)
        gathering.take(100.0)
        for key in range(1, ENOUGH + 1):
            self.assertEqual([], gathering.take(100.01))
            add(gathering, key, 100.01)
        # They wait for a write that is under way.
        self.assertEqual([], gathering.take(100.01))
        gathering.finished()
        self.assertEqual(ENOUGH, len(gathering.take(100.01)))

    def test_reports_of_one_row_are_written_one_after_the_other(self):
        gathering = Gathering(0.0, MOST)
        for key in (1, 2, 1, 1):
            add(gathering, key, 100.0)
        written = []
        while len(gathering):
            written.append(keys(gathering.take(100.0)))
            gathering.finished()
        self.assertEqual([[1, 2], [1], [1]], written)

    def test_a_caller_that_gives_up_wakes_the_next_one(self):
        gathering = Gathering(0.0, MOST)
        add(gathering, 1, 100.0)
        gathering.take(100.0)
        first, second = (add(gathering, key, 100.01) for key in (2, 3))
        second.event = _Event()
        gathering.discard(first)
        self.assertTrue(second.event.is_set)
        self.assertTrue(gathering.is_first(second))
        self.assertEqual([3], keys(gathering.take(100.01 + GATHER)))

    def test_a_write_has_a_largest_size(self):
        gathering = Gathering(0.0, MOST)
        for key in range(2 * MOST + 1):
            add(gathering, key, 100.0)
        sizes = []
        while len(gathering):
            sizes.append(len(gathering.take(100.0)))
            gathering.finished()
        self.assertEqual([MOST, MOST, 1], sizes)


class Callers(stateful.RuleBasedStateMachine):
    """Callers in simulated time that sleep and wake as Writer's callers do.

    Each of them may be slow, give up or be woken without a reason, in any
    order.
    """

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.asleep = []
        self.writes = []
        self.written = []

    @stateful.initialize(
        pace=st.sampled_from([0.0, PACE]), enough=st.integers(1, 6)
    )
    def begin(self, pace, enough):
        self.pace = pace
        self.gathering = Gathering(pace, enough)

    def _take(self):
        batch = self.gathering.take(self.now)
        if batch:
            self.writes.append(batch)
            for report in batch:
                if report in self.asleep:
                    self.asleep.remove(report)

    def _sleep(self, report):
        report.event = _Event()
        if self.gathering.is_first(report):
            report.event.until = self.gathering.due()
        self.asleep.append(report)

    @stateful.rule(key=st.integers(1, 5))
    def come(self, key):
        report = add(self.gathering, key, self.now)
        self._take()
        if not any(report in batch for batch in self.writes):
            self._sleep(report)

    @stateful.precondition(lambda self: self.writes)
    @stateful.rule(data=st.data())
    def finish(self, data):
        batch = data.draw(st.sampled_from(self.writes))
        self.writes.remove(batch)
        self.written += batch
        self.gathering.finished()

    @stateful.precondition(lambda self: self.asleep)
    @stateful.rule(data=st.data())
    def give_up(self, data):
        report = data.draw(st.sampled_from(self.asleep))
        self.asleep.remove(report)
        self.gathering.discard(report)

    @stateful.precondition(lambda self: self.asleep)
    @stateful.rule(data=st.data())
    def wake_without_a_reason(self, data):
        self._wake(data.draw(st.sampled_from(self.asleep)))

    @stateful.rule(seconds=st.floats(0.001, 0.3))
    def pass_time(self, seconds):
        end = self.now + seconds
        while True:
            self.settle()
            until = min((r.event.until for r in self.asleep), default=end)
            if until >= end:
                break
            self.now = max(self.now, until)
        self.now = end

    def _wake(self, report):
        self._take()
        if report in self.asleep:
            self.asleep.remove(report)
            self._sleep(report)

    def settle(self):
        """Let callers go on that were woken, or whose time is up."""
        while True:
            ready = [
                report
                for report in self.asleep
                if report.event.is_set or report.event.until <= self.now
            ]
            if not ready:
                return
            self._wake(ready[0])

    @stateful.invariant()
    def check(self):
        if not hasattr(self, "gathering"):
            return
        self.settle()
        self.check_that(len(self.writes) <= WRITES, "few writes at a time")
        self.check_that(
            len(self.gathering) == len(self.asleep),
            "every caller that waits sleeps",
        )
        under_way = [r for batch in self.writes for r in batch]
        everything = under_way + self.written
        self.check_that(
            len(everything) == len(set(map(id, everything))),
            "nothing is written twice",
        )
        for batch in self.writes:
            self.check_that(
                len(set(keys(batch))) == len(batch), "one report a row"
            )
        if len(self.writes) < WRITES:
            for report in self.asleep:
                self.check_that(
                    self.now - report.since <= GATHER + 1e-6,
                    "no caller waits longer than GATHER",
                )
        if self.asleep and not self.writes and not self.pace:
            self.check_that(False, "no caller waits without a reason")

    @staticmethod
    def check_that(condition, words):
        assert condition, words

    def teardown(self):
        # In the end no caller sleeps.
        for _ in range(1000):
            if not self.asleep and not self.writes:
                return
            for batch in list(self.writes):
                self.writes.remove(batch)
                self.written += batch
                self.gathering.finished()
            self.pass_time(0.3)
        raise AssertionError(f"asleep for ever: {keys(self.asleep)}")


class CallersTest(Callers.TestCase):
    settings = hypothesis.settings(
        max_examples=100, stateful_step_count=25, deadline=None
    )

