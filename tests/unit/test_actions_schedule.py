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

    def test_down_waits_until_other_members_are_known(self):
        jobs = schedule.Schedule(TYPES, 0, 0, gather_for=15)
        jobs.put(event(events.DOWN), 100)
        jobs.put(event(events.UP, "other"), 100)
        self.assertEqual([events.UP], take_all(jobs, 114.9))
        self.assertTrue(jobs.take(115).to_confirm)
        # Both times run at once.
        jobs = schedule.Schedule(TYPES, 60, 0, gather_for=15)
        jobs.put(event(events.DOWN), 100)
        self.assertEqual(160, jobs.due())

    def test_what_may_not_be_done_is_kept_for_a_while(self):
        jobs = schedule.Schedule(TYPES, 0, 100)
        jobs.put(event(events.DOWN), 0)
        jobs.put(event(events.HELD), 0)
        for now in (0, 50, 90):
            job = jobs.take(now)
            self.assertEqual(now > 0, job.to_confirm)
            self.assertTrue(jobs.wait(job, now, 20))
            self.assertIsNone(jobs.take(now + 9))
        self.assertEqual(100, jobs.due())
        self.assertFalse(jobs.wait(jobs.take(100), 100, 20))
        # The next event of the member is no down: it is not to be confirmed.
        job = jobs.take(100)
        self.assertEqual(events.HELD, job.event.type)
        self.assertFalse(jobs.wait(job, 100, 20))
        self.assertEqual(0, len(jobs))

    def test_a_member_that_comes_back_while_nothing_may_be_done(self):
        jobs = schedule.Schedule(TYPES, 0, 100)
        jobs.put(event(events.DOWN), 0)
        jobs.wait(jobs.take(0), 0, 20)
        jobs.put(event(events.UP), 10)
        self.assertEqual([], take_all(jobs, 1000))

    def test_ids(self):
        """Observers have the same id for the same down."""

        def made(**fields):
            jobs = schedule.Schedule(TYPES, 0, 0)
            jobs.put(event(events.DOWN)._replace(**fields), 0)
            return jobs.take(0).id

        moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        later = moment + datetime.timedelta(milliseconds=1)
        one = made(last_seen=moment, at=moment)
        self.assertEqual(one, made(last_seen=moment, at=later, reason="x"))
        for other in (
            {"last_seen": later},
            {"last_seen": moment, "host": "other"},
            {"last_seen": moment, "group": "other"},
            {"last_seen": moment, "type": events.UP},
        ):
            self.assertNotEqual(one, made(**other))
        # A command may be repeated without any report in between.
        for same in (
            {"last_seen": moment, "cause": "forced-down"},
            {"last_seen": None},
        ):
            self.assertNotEqual(made(**same), made(**same))

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
