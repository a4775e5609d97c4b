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

"""No two processes rely on a lock at once, whatever the backend forgets."""

import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from nova_sg.actions import lease
from nova_sg.backends.base import Lock

SECONDS = 60.0


class LeaseTest(unittest.TestCase):
    def test_a_clean_lock_counts_at_once(self):
        one = lease.Lease("one", SECONDS)
        self.assertFalse(one.covers(0, 0))
        one.answered(Lock("one", True), 100, 103)
        self.assertTrue(one.covers(103, 57))
        # Counted from before it was asked.
        self.assertFalse(one.covers(103, 57.1))
        self.assertFalse(one.covers(160.1, 0))

    def test_a_lock_whose_holder_died_counts_later(self):
        one = lease.Lease("one", SECONDS)
        one.answered(Lock("one"), 100, 103)
        self.assertEqual(50, one.waits(113))
        self.assertFalse(one.covers(113, 0))
        for moment in (120, 140, 160):
            one.answered(Lock("one", renewed=True), moment, moment)
        self.assertFalse(one.covers(162.9, 0))
        self.assertTrue(one.covers(163, 30))
        self.assertEqual(0, one.waits(163))

    def test_another_has_it(self):
        one = lease.Lease("one", SECONDS)
        one.answered(Lock("one", True), 100, 100)
        one.answered(Lock("other"), 110, 110)
        self.assertFalse(one.covers(110, 0))
        self.assertEqual("other", one.other)
        one.answered(Lock("one", True), 120, 120)
        self.assertEqual("", one.other)
        self.assertTrue(one.covers(120, 60))

    def test_a_renewal_that_comes_too_late(self):
        one = lease.Lease("one", SECONDS)
        one.answered(Lock("one", True), 100, 100)
        # Another process may have had it meanwhile.
        one.answered(Lock("one", renewed=True), 161, 161)
        self.assertFalse(one.covers(161, 0))
        self.assertEqual(60, one.waits(161))

    def test_a_lock_that_the_backend_lost(self):
        one = lease.Lease("one", SECONDS)
        one.answered(Lock("one", True), 100, 100)
        # Taken anew: another process may have had it meanwhile.
        one.answered(Lock("one"), 110, 110)
        self.assertFalse(one.covers(110, 0))
        self.assertEqual(60, one.waits(110))

    def test_an_answer_that_comes_late(self):
        one = lease.Lease("one", SECONDS)
        one.answered(Lock("one", True), 100, 100)
        # Executed at some time in between: it did not lapse.
        one.answered(Lock("one", renewed=True), 159, 200)
        self.assertTrue(one.covers(200, 19))
        self.assertFalse(one.covers(200, 20))

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["renew", "renew", "renew", "lose", "release"]),
        st.floats(0.1, 40),
        st.floats(0, 15),
        st.floats(0, 15),
    ), max_size=60))
    def test_no_two_rely_on_it_at_once(self, steps):
        """The backend loses the lock at any time, and answers late."""
        now = 0.0
        leases = {name: lease.Lease(name, SECONDS) for name in "abc"}
        # What the backend has.
        holder, until, clean = "", 0.0, True

        def check():
            relying = [n for n in leases if leases[n].covers(now, 0)]
            self.assertLessEqual(len(relying), 1)

        for name, what, pause, there, back in steps:
            now += pause
            check()
            if what == "lose":
                # As by a restart, or by a clock that leaps.
                holder, clean = "", False
                continue
            if what == "release":
                # The process ends, and another one of its name may begin.
                if holder == name and leases[name].covers(now, 0):
                    holder, clean = "", True
                leases[name] = lease.Lease(name, SECONDS)
                continue
            sent = now
            now += there
            check()
            if holder and now > until:
                holder, clean = "", False
            taken = not holder
            if taken:
                holder = name
            if holder == name:
                until = now + SECONDS
            answer = Lock(holder, taken and clean, not taken)
            now += back
            check()
            leases[name].answered(answer, sent, now)
            check()
