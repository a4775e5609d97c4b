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

"""The API, independently of the driver, on the embedded database."""

import datetime
import os
import threading
import time
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from tests.base import PATIENCE, quickest, wait_for
from tests.functional import db


class MakingTest(db.TestCase):
    def test_making_an_api_takes_less_than_a_millisecond(self):
        # Nova makes so many in its tests of one API version.
        number = 486
        process.reset()
        threads = threading.active_count()
        descriptors = len(os.listdir("/proc/self/fd"))

        def make():
            begun = time.perf_counter()
            made.extend(servicegroup.API() for _ in range(number))
            return time.perf_counter() - begun

        made = []
        with (
            mock.patch("sqlalchemy.create_engine") as create_engine,
            mock.patch.object(process, "load") as load,
        ):
            took = quickest(make, 0.001 * number)
        create_engine.assert_not_called()
        load.assert_not_called()
        # About 10 µs each is usual.
        self.assertLess(took / number, 0.001)
        self.assertEqual(threads, threading.active_count())
        self.assertEqual(descriptors, len(os.listdir("/proc/self/fd")))
        self.assertEqual([], os.listdir(self.folder))

    def test_all_api_objects_share_one_driver(self):
        # What one has refreshed the others know.
        self.flags("servicegroup", view_refresh_interval=60)
        first, second = servicegroup.API(), servicegroup.API("x", y="z")
        self.join("one")
        member = {"host": "one", "topic": "compute"}
        self.assertTrue(first.service_is_up(member))
        self.stop_reports()
        counted = self.count_statements()
        self.assertTrue(second.service_is_up(member))
        self.assertEqual(["one"], second.get_all("compute"))
        self.assertEqual([], counted)

    def test_a_method_replaced_on_one_api_is_not_replaced_on_others(self):
        first, second = servicegroup.API(), servicegroup.API()
        member = {"host": "no-such-host", "topic": "compute"}
        with mock.patch.object(first._driver, "is_up", return_value=True):
            self.assertTrue(first.service_is_up(member))
            self.assertFalse(second.service_is_up(member))

    def test_an_unknown_driver_is_refused(self):
        with self.assertRaisesRegex(
            exception.ConfigError, r"servicegroup_driver.*'none'"
        ):
            process.load("none")

    def test_contradicting_times_are_corrected_and_warned_of(self):
        cases = [
            # report_interval, service_down_time, the value that is used
            (10, 60, 60),
            (10, 10.1, 10.1),
            (10, 10, 25),
            (10, 5, 25),
            (0.2, 0.1, 0.5),
            # Without reports there is no contradiction.
            (0, 0.1, 0.1),
        ]
        for interval, down, used in cases:
            with self.subTest(interval=interval, down=down):
                self.logs.records.clear()
                self.flags(report_interval=interval, service_down_time=down)
                api = servicegroup.API()
                # Once it is corrected there is no further warning.
                servicegroup.API()
                warnings = self.logs.matching("Report interval must be", 30)
                self.assertEqual(used != down, bool(warnings))
                self.assertLessEqual(len(warnings), 1)
                for text in warnings:
                    self.assertIn(f"service_down_time = {down:g}", text)
                    self.assertIn(f"report_interval = {interval:g}", text)
                    self.assertIn(f"{used:g}", text)
                self.assertEqual(used, CONF.service_down_time)
                now = datetime.datetime.now(datetime.UTC)
                for factor, up in ((0.5, True), (2, False)):
                    age = datetime.timedelta(seconds=used * factor)
                    record = {"host": "h", "topic": "t"}
                    record |= {"last_seen_up": now - age}
                    if used >= 10:
                        self.assertIs(up, api.service_is_up(record))


class QuestionsTest(db.TestCase):
    def test_an_unknown_member_is_not_up(self):
        self.join("one")
        self.assertFalse(self.is_up("two"))
        self.assertFalse(self.is_up("one", group="network"))
        self.assertEqual([], self.api.members("network"))
        with self.assertRaisesRegex(exception.MemberNotFound, "two"):
            self.api.member("compute", "two")

    def test_a_record_that_is_forced_down_needs_no_query(self):
        with mock.patch.object(process, "shared", side_effect=AssertionError):
            self.assertFalse(
                self.api.service_is_up(
                    {"host": "one", "topic": "compute", "forced_down": True}
                )
            )

    def test_members(self):
        self.join("two")
        self.join("one", binary="nova-other")
        self.api.leave("two", "compute")
        before = datetime.datetime.now(datetime.UTC)
        one, two = self.api.members("compute")
        self.assertEqual(("one", "two"), (one.host, two.host))
        self.assertEqual(("up", "down"), (one.state, two.state))
        self.assertEqual(
            ("compute", "compute", "nova-other", "db"),
            (one.group, one.topic, one.binary, one.driver),
        )
        self.assertEqual("nova-compute", two.binary)
        self.assertFalse(one.forced_down or one.disabled)
        self.assertIsNone(one.disabled_reason)
        self.assertIn("last report", one.reason)
        age = (before - one.last_seen).total_seconds()
        self.assertLess(abs(age), self.DOWN_TIME)
        self.assertEqual(2, self.api.size("compute"))

    def test_updated_time(self):
        self.join("one")
        member = {"host": "one", "topic": "compute"}
        seen = self.api.member("compute", "one").last_seen
        # The asker's record is old. The view knows of newer reports.
        old = datetime.datetime(2020, 1, 1)
        updated = self.api.get_updated_time(member | {"updated_at": old})
        self.assertGreaterEqual(updated, seen)
        self.assertGreaterEqual(
            self.api.get_updated_time(member | {"updated_at": None}), seen
        )
        new = datetime.datetime(2120, 1, 1)
        for moment in (new, new.replace(tzinfo=datetime.UTC)):
            self.assertEqual(
                moment,
                self.api.get_updated_time(member | {"updated_at": moment}),
            )


class JoiningTest(db.TestCase):
    def test_without_a_service(self):
        self.api.join("one", "compute")
        # Nova's conductor and others pass a member so.
        self.api.join({"host": "two", "topic": "compute"}, "compute")
        self.assertEqual(["one", "two"], self.api.get_all("compute"))
        for host in ("one", "two"):
            seen = self.api.member("compute", host).last_seen
            wait_for(
                lambda host=host, seen=seen: (
                    self.api.member("compute", host).last_seen > seen
                ),
                message=f"{host} goes on reporting",
            )
        self.api.leave("one", "compute")
        self.api.leave({"host": "two", "topic": "compute"}, "compute")
        self.assertEqual([], self.api.get_all("compute"))
        self.assert_no_thread_named("nova-sg-report")

    def test_names_that_cannot_be_printed_are_refused(self):
        for name in (
            *("", "two\r\nlines", "\0\x01\x7f", "not-utf-8-\udce9"),
            *("half-\ud83d", "\u202eturned"),
        ):
            for option, names in (
                ("host", (name, "compute")),
                ("topic", ("one", name)),
            ):
                with (
                    self.subTest(names),
                    self.assertRaisesRegex(
                        exception.ConfigError, f"^.DEFAULT. {option}: "
                    ),
                ):
                    self.api.join(*names)
        self.assertEqual([], self.api.groups())

    def test_reporting_switched_off(self):
        self.join("one", interval=0)
        self.assertEqual([], self.api.members("compute"))

    def test_the_timer(self):
        service = mock.MagicMock(report_interval=7, service_ref=None)
        service.binary = "nova-compute"
        self.api.join("one", "compute", service)
        (call,) = service.tg.add_timer_args.call_args_list
        interval, callback = call.args
        self.assertEqual(7, interval)
        self.assertEqual([service], call.kwargs["args"])
        # The first report did not wait for it.
        self.assertTrue(self.is_up("one"))
        seen = self.api.member("compute", "one").last_seen
        callback(service)
        self.api.refresh("compute")
        self.assertGreater(self.api.member("compute", "one").last_seen, seen)

        self.api.leave("one", "compute")
        timer = service.tg.add_timer_args.return_value
        timer.stop.assert_called_once_with()
        # A late call of the timer does not bring the member back.
        callback(service)
        self.api.refresh("compute")
        self.assertFalse(self.is_up("one"))

    def test_leaving_after_the_timers_have_been_stopped(self):
        """oslo.service before 4.5 does not know the timer then."""
        service = mock.MagicMock(report_interval=7, service_ref=None)
        service.binary = "nova-compute"
        service.tg.timer_done.side_effect = ValueError("x not in list")
        self.api.join("one", "compute", service)
        self.assertTrue(self.is_up("one"))
        self.api.leave("one", "compute")
        service.tg.timer_done.assert_called_once()
        self.assertFalse(self.is_up("one"))

    def test_a_report_waits_for_a_random_part_of_the_interval(self):
        # The pause is random, up to a tenth of the interval.
        service = mock.MagicMock(report_interval=10, service_ref=None)
        service.binary = "nova-compute"
        self.api.join("one", "compute", service)
        pauses = []
        with mock.patch.object(time, "sleep", pauses.append):
            for _ in range(50):
                self.api._driver._report_state(service)
        self.assertGreater(len(set(pauses)), 40)
        self.assertGreaterEqual(min(pauses), 0)
        self.assertLessEqual(max(pauses), 1.0)

    def test_no_thread_is_left_behind(self):
        self.join("one")
        self.collect(self.api)
        self.is_up("one")
        process.reset()
        self.assert_no_thread_named("nova-sg")


class WatchingTest(db.TestCase):
    def hosts(self, events):
        return [(event.type, event.host) for event in events]

    def test_events(self):
        self.join("one")
        events = self.collect(self.api)
        before = datetime.datetime.now(datetime.UTC)
        self.join("two")
        wait_for(events.__len__)
        # A member that was there when the watch began brings no event.
        self.assertEqual([("joined", "two")], self.hosts(events))
        (event,) = events
        self.assertEqual(
            ("compute", "compute", "nova-compute"),
            (event.group, event.topic, event.binary),
        )
        self.assertGreaterEqual(event.at, before)
        self.assertTrue(event.reason)
        # The refresh may have come before its first report, which it has
        # sent by now.
        self.api.leave("two", "compute")
        wait_for(lambda: len(events) == 2)
        self.assertEqual(("left", "two"), self.hosts(events)[1])
        self.assertEqual(datetime.UTC, events[1].last_seen.tzinfo)

    def test_refresh_returns_them(self):
        # So far apart that none of the view's own refreshes takes them.
        self.flags("servicegroup", view_refresh_interval=60)
        self.assertEqual([], self.api.refresh("compute"))
        self.join("one")
        self.assertEqual(
            [("joined", "one")], self.hosts(self.api.refresh("compute"))
        )
        self.assertEqual([], self.api.refresh("compute"))

    def test_a_callback_that_raises_stays(self):
        events = []

        def fail(event):
            events.append(event)
            raise ValueError("an error of the test")

        self.addCleanup(self.api.watch("compute", fail).cancel)
        others = self.collect(self.api)
        for host in ("one", "two"):
            self.join(host)
            wait_for(
                lambda host=host: ("joined", host) in self.hosts(events)
            )
        wait_for(lambda: len(others) == 2)
        wait_for(
            lambda: len(self.logs.matching("stays subscribed", 40)) == 2
        )

    def test_a_callback_that_blocks_delays_no_other(self):
        inside, leave = threading.Event(), threading.Event()
        self.addCleanup(leave.set)
        slow = []

        def block(event):
            slow.append(event)
            inside.set()
            leave.wait(2 * PATIENCE)

        watch = self.api.watch("compute", block)
        self.addCleanup(watch.cancel)
        others = self.collect(self.api)
        self.join("one")
        wait_for(inside.is_set)
        self.join("two")
        self.api.leave("one", "compute")
        expected = [("joined", "one"), ("joined", "two"), ("left", "one")]
        wait_for(lambda: len(others) == 3)
        self.assertCountEqual(expected, self.hosts(others))
        begun = time.monotonic()
        self.assertTrue(self.is_up("two"))
        self.assertFalse(self.is_up("one"))
        self.assertLess(time.monotonic() - begun, PATIENCE / 2)
        self.assertEqual([("joined", "one")], self.hosts(slow))
        # The events that it missed come in order, once it has time.
        leave.set()
        wait_for(lambda: len(slow) == 3)
        self.assertEqual(self.hosts(others), self.hosts(slow))

    def test_cancel(self):
        events = []
        watch = self.api.watch("compute", events.append)
        others = self.collect(self.api)
        self.join("one")
        wait_for(lambda: len(events) == len(others) == 1)
        watch.cancel()
        watch.cancel()
        view = process.shared().view("compute")
        self.assertEqual(1, len(view._subscriptions))
        self.join("two")
        wait_for(lambda: len(others) == 2)
        self.assertEqual([("joined", "one")], self.hosts(events))

    def test_cancel_from_inside(self):
        events = []
        others = self.collect(self.api)

        def once(event):
            events.append(event)
            watch.cancel()

        watch = self.api.watch("compute", once)
        for number, host in enumerate(("one", "two", "three"), 1):
            self.join(host)
            wait_for(lambda number=number: len(others) == number)
        self.assertEqual([("joined", "one")], self.hosts(events))

    def test_cancel_while_it_blocks(self):
        inside, leave = threading.Event(), threading.Event()
        self.addCleanup(leave.set)

        def block(event):
            inside.set()
            leave.wait(2 * PATIENCE)

        watch = self.api.watch("compute", block)
        self.join("one")
        wait_for(inside.is_set)
        begun = time.monotonic()
        watch.cancel()
        self.assertLess(time.monotonic() - begun, PATIENCE / 2)
        names = [thread.name for thread in threading.enumerate()]
        self.assertIn("nova-sg-watch-compute", names)
        leave.set()
        self.assert_no_thread_named("nova-sg-watch")
