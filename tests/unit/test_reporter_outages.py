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


"""The reporter tells observers and other members of reports that fail."""

import threading
import time
from unittest import mock

from nova_sg import exception
from nova_sg.liveness.model import Observation, Outage, Refresh
from nova_sg.servicegroup import reporter
from nova_sg.servicegroup.shared import Shared
from tests import base


class Driver:
    """A driver whose reports fail or hang as the test wants."""

    name = "fake"
    apart = False
    observes = True

    def __init__(self):
        self.error = None
        self.entered = threading.Event()
        self.free = threading.Event()
        self.free.set()
        #: The answer of observe().
        self.refresh = Refresh(self.name, 0.0, [])
        # The outages that came with the reports; None: a report had none.
        self.outages = []

    def report(self, membership):
        self.outages.append(membership.reported_outage)
        self.entered.set()
        self.free.wait(60)
        if self.error is not None:
            raise self.error

    def withdraw(self, membership):
        pass

    def observe(self, group):
        if self.error is not None:
            raise self.error
        return self.refresh

    def follow(self, group, wake):
        pass

    def unfollow(self, group, wake):
        pass

    def backend_of(self, group):
        return group[0]

    def close(self):
        self.free.set()


class NoTimers:
    """Timers that never fire."""

    def add_timer_args(self, interval, callback, args, initial_delay=0):
        return self

    def stop(self):
        pass


class JoiningTest(base.TestCase):
    def test_a_reporter_closed_during_a_join_leaves_no_timer(self):
        """That happens if a service reloads while it starts."""
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
            self.driver, lambda *outage: self.told.append(outage)
        )
        self.enterContext(mock.patch.object(reporter, "JITTER", 0.0))
        self.join(interval=600)

    def join(self, interval):
        self.service = base.Member("one", interval=interval)
        # The test calls report_state() instead of a timer.
        self.service.tg = NoTimers()
        self.reporter.join("one", "compute", self.service, None)

    def report(self):
        self.reporter.report_state(self.service)

    def ends(self):
        """Return whether the outage was over, for each time it was told."""
        self.assertLessEqual(len({told[:3] for told in self.told}), 1)
        return [over for *_, over in self.told]

    def test_reports_that_fail_in_a_row_are_one_outage(self):
        self.told.clear()
        self.driver.error = exception.BackendError("unreachable")
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
        # The time between the last failure and the next report is unknown.
        self.assertLess(begin, end)
        self.assertLessEqual(end, failed)

    def test_the_next_reports_tell_other_observers_of_the_outage(self):
        self.driver.outages.clear()
        self.driver.error = exception.BackendError("unreachable")
        self.report()
        self.report()
        self.driver.error = None
        self.report()
        self.report()
        _, _, begin, end, _ = self.told[-1]
        first = begin, self.told[0][3]
        self.assertEqual(
            [None, first, (begin, end), (begin, end)], self.driver.outages
        )
        # Reports do not tell of it for ever.
        self.flags(service_down_time=0.1)
        self.driver.error = exception.BackendError("unreachable")
        self.report()
        self.driver.error = None
        self.report()
        self.assertNotIn(self.driver.outages[-1], (None, first, (begin, end)))

        def dropped():
            self.report()
            return self.driver.outages[-1] is None

        base.wait_for(dropped, base.PATIENCE, "reports no longer tell of it")

    def test_each_report_of_a_service_that_did_not_join_is_an_outage(self):
        self.reporter.close()
        self.told.clear()
        self.service.service_ref = {"host": "one", "topic": "compute"}
        self.driver.error = exception.BackendError("unreachable")
        self.report()
        self.assertEqual([False, True], self.ends())

    def test_a_missing_record_is_no_outage(self):
        for error in exception.MemberVanished, exception.NotRegistered:
            self.told.clear()
            self.driver.error = error("no such record")
            self.report()
            self.assertEqual([], self.told)

    def test_a_report_that_hangs_is_an_outage(self):
        self.join(interval=0.01)
        self.told.clear()
        self.driver.entered.clear()
        self.driver.free.clear()
        slow = threading.Thread(target=self.report, daemon=True)
        slow.start()
        self.assertTrue(self.driver.entered.wait(60))

        def told():
            # A timer calls this while the report before hangs.
            self.report()
            return self.told

        base.wait_for(told, 60, "it is told")
        self.assertFalse(self.ends()[-1])
        freed = time.monotonic()
        self.driver.free.set()
        slow.join(60)
        self.assertTrue(self.ends()[-1])
        # It hung until it succeeded.
        self.assertGreaterEqual(self.told[-1][3], freed)

    def test_an_outage_is_over_when_the_member_stops_reporting(self):
        for stop in (
            lambda: self.reporter.leave("one", "compute"),
            self.reporter.close,
        ):
            self.told.clear()
            self.driver.error = None
            self.reporter.join("one", "compute", self.service, None)
            self.told.clear()
            self.driver.error = exception.BackendError("unreachable")
            self.report()
            stop()
            self.assertEqual([False, True], self.ends())


class PassingOnTest(base.TestCase):
    def share(self):
        self.driver = Driver()
        shared = Shared(self.driver)
        self.addCleanup(shared.close)
        return shared

    def outages(self, view):
        """Return the outages that a view knows of, up to second 3."""
        (backend,) = view.observer.group.backends
        return backend.outages_until(3.0)

    def test_every_view_of_the_same_backend_is_told(self):
        shared = self.share()
        early = {name: shared.view(name) for name in ("a1", "b1")}
        told = self.driver, "a2", "me", 1.0
        shared._reports_fail(*told, 1.5, False)
        going_on = {name: shared.view(name) for name in ("a2", "b2")}
        for name, view in (early | going_on).items():
            expected = (Outage(1.0, 3.0, True),) if "a" in name else ()
            self.assertEqual(expected, self.outages(view), name)
        shared._reports_fail(*told, 2.0, True)
        late = {name: shared.view(name) for name in ("a3", "b3")}
        for name, view in (early | going_on | late).items():
            expected = (Outage(1.0, 2.0, True),) if "a" in name else ()
            self.assertEqual(expected, self.outages(view), name)

    def test_the_next_refresh_excuses_members_by_it(self):
        # So long an interval that no refresh counts as slow.
        self.flags(service_down_time=60, report_interval=1000)
        for told, state in ((True, "up"), (False, "down")):
            with self.subTest(told=told):
                shared = self.share()
                observer = shared.view("a").observer
                now = time.monotonic()
                last = [Observation("one", 1, now - 175)]
                self.driver.refresh = Refresh("fake", now - 120, last)
                shared.view("a").refresh()
                self.assertEqual(
                    "up", observer.group.members["one"].unforced[0]
                )
                if told:
                    span = now - 119, now - 20
                    shared._reports_fail(self.driver, "a", "me", *span, True)
                self.driver.refresh = Refresh("fake", now - 10, last)
                shared.view("a").refresh()
                self.assertEqual(
                    state, observer.group.members["one"].unforced[0]
                )
