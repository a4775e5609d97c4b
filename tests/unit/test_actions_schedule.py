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

"""Which event is acted upon next: order, pauses, waiting, giving up."""

import datetime
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.actions import schedule
from nova_sg.servicegroup import events

TYPES = (events.JOINED, events.UP, events.DOWN, events.LEFT, events.HELD)


def event(kind, host="h", reason=""):
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return events.Event(
        kind, "compute", host, "compute", "nova-compute", moment, None, reason
    )


def take_all(jobs, now):
    """Return the types of all that can be done now, one after the other."""
    done = []
    while (job := jobs.take(now)) is not None:
        jobs.begin(job, now)
        jobs.done(job)
        done.append(job.event.type)
    return done


class ScheduleTest(unittest.TestCase):
    def test_only_some_types(self):
        jobs = schedule.Schedule([events.DOWN], 0, 0)
        for kind in TYPES:
            jobs.put(event(kind), 0)
        self.assertEqual([events.DOWN], take_all(jobs, 0))
        self.assertEqual(0, len(jobs))
        self.assertIsNone(jobs.due())

    def test_down_waits(self):
        jobs = schedule.Schedule(TYPES, 30, 0)
        jobs.put(event(events.DOWN), 100)
        self.assertEqual([], take_all(jobs, 129.9))
        self.assertEqual(130, jobs.due())
        job = jobs.take(130)
        self.assertTrue(job.to_confirm)
        jobs.later(job, 130)
        self.assertEqual([], take_all(jobs, 130))
        self.assertEqual([events.DOWN], take_all(jobs, 131))

    def test_a_member_that_comes_back_in_time_has_no_event(self):
        for back, told in (
            (events.UP, []),
            (events.JOINED, [events.JOINED]),
            (events.LEFT, [events.LEFT]),
        ):
            with self.subTest(back):
                jobs = schedule.Schedule(TYPES, 30, 0)
                jobs.put(event(events.HELD), 99)
                jobs.put(event(events.DOWN), 100)
                jobs.put(event(back), 129)
                self.assertEqual([events.HELD, *told], take_all(jobs, 1000))
        jobs = schedule.Schedule(TYPES, 30, 0)
        jobs.put(event(events.DOWN), 100)
        jobs.put(event(events.UP), 130)
        self.assertEqual([events.DOWN, events.UP], take_all(jobs, 130))

    def test_pauses_grow_until_the_time_is_over(self):
        jobs = schedule.Schedule(TYPES, 0, 200)
        jobs.put(event(events.DOWN), 0)
        jobs.put(event(events.UP), 0)
        now, pauses = 0.0, []
        while True:
            job = jobs.take(now)
            self.assertEqual(events.DOWN, job.event.type)
            self.assertIsNone(jobs.take(now))
            jobs.begin(job, now)
            if not jobs.failed(job, now):
                break
            self.assertIsNone(jobs.take(now))
            pauses.append(jobs.due() - now)
            now = jobs.due()
        self.assertEqual([1, 2, 4, 8, 16, 32, 60, 60], pauses)
        self.assertEqual([events.UP], take_all(jobs, now))

    @given(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from(TYPES)),
            max_size=12,
        ),
        st.randoms(use_true_random=False),
    )
    def test_each_member_has_its_own_order(self, happened, random):
        """Whatever fails, and in whatever order answers come."""
        jobs = schedule.Schedule(TYPES, 0, float("inf"))
        now, wanted, busy, done = 0.0, {}, [], {}
        coming = [
            event(kind, host, str(number))
            for number, (host, kind) in enumerate(happened)
        ]
        for one in coming:
            wanted.setdefault(one.host, []).append(one.reason)
        while coming or busy or len(jobs):
            step = random.choice("put take answer time".split())
            if step == "put" and coming:
                jobs.put(coming.pop(0), now)
            elif step == "take":
                job = jobs.take(now)
                if job is not None:
                    self.assertNotIn(
                        job.event.host, [one.event.host for one in busy]
                    )
                    jobs.begin(job, now)
                    busy.append(job)
            elif step == "answer" and busy:
                job = busy.pop(random.randrange(len(busy)))
                if random.random() < 0.3:
                    self.assertTrue(jobs.failed(job, now))
                else:
                    jobs.done(job)
                    done.setdefault(job.event.host, []).append(
                        job.event.reason
                    )
            elif step == "time":
                now += random.uniform(0, 70)
        self.assertEqual(wanted, done)
