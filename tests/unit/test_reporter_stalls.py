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


"""Reports that do not get through are told, and to whom it matters."""

import threading
import time
from unittest import mock

from nova_sg import exception
from nova_sg.servicegroup import detector, process, reporter
from nova_sg.servicegroup.drivers import base as drivers
from tests import base


class Driver:
    """A backend that does with reports what the test wants."""

    name = "fake"
    apart = False

    def __init__(self):
        self.error = None
        self.entered = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.facts = []
        # What members had to say of the time in which they could not report.
        self.said = []

    def report(self, membership):
        self.said.append(membership.away)
        self.entered.set()
        self.free.wait(60)
        if self.error is not None:
            raise self.error

    def withdraw(self, membership):
        pass

    def observe(self, group):
        if self.error is not None:
            raise self.error
        return drivers.Snapshot(0.0, self.facts, complete=True)

    def backend_of(self, group):
        return group[0]

    def close(self):
        self.free.set()


class NoTimers:
    """Timers that never come."""

    def add_timer_args(self, interval, callback, args, initial_delay=0):
        return self

    def stop(self):
        pass


class JoiningTest(base.TestCase):
    def test_closed_while_it_joins(self):
        """A reload in the middle of the start leaves no timer behind."""
        driver = Driver()
        self.addCleanup(driver.close)
        driver.free.clear()
        made = reporter.Reporter(driver)
        service = base.Member("one", interval=600)
        timers = []
        service.tg = mock.Mock()
        service.tg.add_timer_args = lambda *_, **__: timers.append(1)
        joining = threading.Thread(
            target=made.join, args=["one", "compute", service, None]
        )
        joining.start()
        self.assertTrue(driver.entered.wait(60))
        made.close()
        driver.free.set()
        joining.join(60)
        self.assertEqual([], timers)


class TellingTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.told = []
        self.driver = Driver()
        self.addCleanup(self.driver.close)
        self.reporter = reporter.Reporter(
            self.driver, lambda *stall: self.told.append(stall)
        )
        self.enterContext(mock.patch.object(reporter, "JITTER", 0.0))
        self.join(interval=600)

    def join(self, interval):
        self.service = base.Member("one", interval=interval)
        # The test is the timer.
        self.service.tg = NoTimers()
        self.reporter.join("one", "compute", self.service, None)

    def report(self):
        self.reporter.report_state(self.service)

    def ends(self):
        """Return, of each time it was told, whether it was over."""
        self.assertLessEqual(len({told[:3] for told in self.told}), 1)
        return [over for *_, over in self.told]

    def test_failures_are_one_stall(self):
        self.told.clear()
        self.driver.error = exception.BackendError("away")
        self.report()
        self.report()
        self.assertEqual([False, False], self.ends())
        failed = time.monotonic()
        self.driver.error = None
        self.report()
        self.report()
        self.assertEqual([False, False, True], self.ends())
        group, _, begin, end, _ = self.told[-1]
        self.assertEqual("compute", group)
        self.assertLess(self.told[0][3], end)
        # What was between the last failure and the next report nobody knows.
        self.assertLess(begin, end)
        self.assertLessEqual(end, failed)

    def test_others_are_told_with_the_next_reports(self):
        self.driver.said.clear()
        self.driver.error = exception.BackendError("away")
        self.report()
        self.report()
        self.driver.error = None
        self.report()
        self.report()
        _, _, begin, end, _ = self.told[-1]
        first = begin, self.told[0][3]
        self.assertEqual(
            [None, first, (begin, end), (begin, end)], self.driver.said
        )
        # Nobody needs to know for ever.
        self.flags(service_down_time=0.1)
        self.driver.error = exception.BackendError("away")
        self.report()
        self.driver.error = None
        self.report()
        self.assertNotIn(self.driver.said[-1], (None, first, (begin, end)))

        def dropped():
            self.report()
            return self.driver.said[-1] is None

        base.wait_for(dropped, base.PATIENCE, "it is no longer told")

    def test_who_joined_elsewhere_is_told_of_report_by_report(self):
        self.reporter.close()
        self.told.clear()
        self.service.service_ref = {"host": "one", "topic": "compute"}
        self.driver.error = exception.BackendError("away")
        self.report()
        self.assertEqual([False, True], self.ends())

    def test_what_is_its_own_fault_is_none(self):
        for error in exception.MemberVanished, exception.NotRegistered:
            self.told.clear()
            self.driver.error = error("no such record")
            self.report()
            self.assertEqual([], self.told)

    def test_a_report_under_way_for_too_long(self):
        self.join(interval=0.01)
        self.told.clear()
        self.driver.entered.clear()
        self.driver.free.clear()
        slow = threading.Thread(target=self.report, daemon=True)
        slow.start()
        self.assertTrue(self.driver.entered.wait(60))

        def told():
            # What the timer does while the report before hangs.
            self.report()
            return self.told

        base.wait_for(told, 60, "it is told")
        self.assertFalse(self.ends()[-1])
        freed = time.monotonic()
        self.driver.free.set()
        slow.join(60)
        self.assertTrue(self.ends()[-1])
        # It hung until it got through.
        self.assertGreaterEqual(self.told[-1][3], freed)

    def test_who_stops_reporting_knows_no_more(self):
        for stop in (
            lambda: self.reporter.leave("one", "compute"),
            self.reporter.close,
        ):
            self.told.clear()
            self.driver.error = None
            self.reporter.join("one", "compute", self.service, None)
            self.told.clear()
            self.driver.error = exception.BackendError("away")
            self.report()
            stop()
            self.assertEqual([False, True], self.ends())


class PassingOnTest(base.TestCase):
    def test_groups_of_the_same_backend_are_told(self):
        driver = Driver()
        shared = process.Shared(driver)
        self.addCleanup(shared.close)
        early = {name: shared.view(name) for name in ("a1", "b1")}
        shared._stall("a2", "me", 1.0, 1.5, False)
        shared._stall("a2", "me", 1.0, 2.0, True)
        late = {name: shared.view(name) for name in ("a3", "b3")}
        found = {
            name: list(view._stalls) for name, view in (early | late).items()
        }
        self.assertEqual(
            {
                "a1": [("me", 1.0, 1.5, False), ("me", 1.0, 2.0, True)],
                "b1": [],
                # The last word is enough.
                "a3": [("me", 1.0, 2.0, True)],
                "b3": [],
            },
            found,
        )

    def test_the_next_look_takes_it_in(self):
        self.flags(service_down_time=60.0, report_interval=10.0)
        driver = Driver()
        shared = process.Shared(driver)
        self.addCleanup(shared.close)
        view = shared.view("a")
        fact = detector.Fact("one", 0.0, last_report=-55.0)
        driver.facts = [fact]
        view.refresh()
        shared._stall("a", "me", 1.0, 100.0, True)
        driver.observe = lambda group: drivers.Snapshot(
            110.0, [fact._replace(asked=110.0)], complete=True
        )
        view.refresh()
        self.assertEqual("up", view.last_verdicts["one"].state)
