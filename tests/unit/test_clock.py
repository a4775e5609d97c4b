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

"""The bridge between a backend's clock and this process's clock."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.backends import clock


class BackendClockTest(unittest.TestCase):
    def test_an_instant_sample_is_exact(self):
        bridge = clock.BackendClock()
        self.assertFalse(bridge.synced)
        bridge.sample(sent=10.0, received=10.0, backend=5000.0)
        self.assertTrue(bridge.synced)
        self.assertEqual(10.0, bridge.to_monotonic(5000.0))
        self.assertEqual(5001.0, bridge.from_monotonic(11.0))

    def test_a_slow_sample_does_not_spoil_a_good_one(self):
        bridge = clock.BackendClock()
        bridge.sample(sent=10.0, received=10.001, backend=1010.0)
        bridge.sample(sent=11.0, received=16.0, backend=1011.0)
        self.assertAlmostEqual(1000.0, bridge.offset, delta=0.005)

    def test_a_clock_that_was_set_is_followed(self):
        bridge = clock.BackendClock()
        bridge.sample(sent=10.0, received=10.1, backend=1010.0)
        bridge.sample(sent=20.0, received=20.1, backend=4620.0)
        self.assertAlmostEqual(4600.0, bridge.offset, delta=0.1)

    def test_whole_seconds_are_refined_by_many_samples(self):
        bridge = clock.BackendClock()
        for step in range(20):
            moment = 100.0 + step * 1.1
            bridge.sample(
                moment, moment, float(int(moment + 1000.37)), resolution=1.0
            )
        self.assertAlmostEqual(1000.37, bridge.offset, delta=0.1)

    @given(
        st.floats(-1e9, 1e9),
        st.lists(
            st.tuples(st.floats(0.1, 30), st.floats(0, 5), st.floats(0, 1)),
            min_size=1,
            max_size=20,
        ),
    )
    def test_the_error_is_at_most_half_the_round_trip(self, offset, samples):
        bridge = clock.BackendClock()
        now = 0.0
        for pause, took, part in samples:
            sent = now + pause
            now = sent + took
            bridge.sample(sent, now, sent + part * took + offset)
            error = abs(bridge.offset - offset)
            # The margin: a float of this size has no more digits.
            self.assertLessEqual(error, took / 2 + 1e-6)
