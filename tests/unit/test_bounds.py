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

"""Queues and sets stay bounded while something is slow, broken or hostile."""

import datetime
import threading
from unittest import mock

from nova_sg import once
from nova_sg.actions import schedule
from nova_sg.backends.db import records
from nova_sg.servicegroup import events
from tests import base


def event(host, kind="down"):
    return events.Event(
        kind,
        "compute",
        host,
        "compute",
        "nova-compute",
        datetime.datetime.now(datetime.UTC),
        None,
        "",
    )


class WarnedTest(base.TestCase):
    def test_only_so_many_wrong_names_bring_a_warning(self):
        self.enterContext(mock.patch.object(once, "SIZE", 5))
        reader = records.Reader()
        for number in range(20):
            row = mock.Mock(host=number, topic="compute")
            for _ in range(2):
                self.assertFalse(reader.named(row))
        self.assertEqual(5, len(self.logs.matching("should be; it is")))
        self.assertEqual(1, len(self.logs.matching("More than 5 services")))


class WatchTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(events, "QUEUE", 8))
        self.seen = []
        self.entered = threading.Event()
        self.free = threading.Event()
        self.watch = events.Subscription(
            "compute", self.take, lambda watch: None
        )
        self.addCleanup(self.watch.cancel)
        self.addCleanup(self.free.set)

    def take(self, event):
        self.entered.set()
        self.free.wait(60)
        self.seen.append((event.host, event.type))

    def block(self):
        self.watch.put(event("first"))
        self.assertTrue(self.entered.wait(60))

    def drain(self, last):
        self.free.set()
        self.watch.put(event(last))
        base.wait_for(lambda: self.seen[-1:] == [(last, "down")])

    def test_a_slow_watcher_gets_the_newest_state_of_each_member(self):
        self.block()
        for _ in range(50):
            for kind in "down", "up":
                self.watch.put(event("flaps", kind))
        self.watch.put(event("other"))
        self.drain("last")
        self.assertLessEqual(len(self.seen), 10)
        self.assertEqual(
            [("flaps", "up"), ("other", "down"), ("last", "down")],
            self.seen[-3:],
        )
        self.assertEqual(1, len(self.logs.matching("is too slow")))

    def test_events_of_more_members_than_have_room_are_dropped(self):
        self.block()
        for number in range(50):
            self.watch.put(event(f"node{number}"))
        self.drain("last")
        self.assertLessEqual(len(self.seen), 10)
        self.assertEqual(("node49", "down"), self.seen[-2])

    def test_no_event_is_dropped_while_there_is_room(self):
        self.block()
        told = [("flaps", kind) for kind in ("down", "up") * 3]
        for host, kind in told:
            self.watch.put(event(host, kind))
        self.drain("last")
        self.assertEqual(told, self.seen[1:-1])
        self.assertEqual([], self.logs.matching("is too slow"))


class ScheduleTest(base.TestCase):
    def test_the_oldest_event_of_the_member_with_most_is_dropped(self):
        jobs = schedule.Schedule(("down", "up"), 0.0, 3600.0, most=4)
        self.assertFalse(jobs.put(event("once"), 0.0))
        for number in range(3):
            self.assertFalse(jobs.put(event("flaps"), float(number)))
        first = jobs.take(10.0)
        self.assertEqual("once", first.event.host)
        busy = jobs.take(10.0)
        for _ in range(20):
            self.assertTrue(jobs.put(event("flaps", "up"), 10.0))
            self.assertEqual(4, len(jobs))
        # An event that is being acted on is not dropped.
        jobs.done(busy)
        jobs.done(first)
        self.assertEqual(2, len(jobs))
        self.assertEqual("up", jobs.take(11.0).event.type)
