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

"""Whether a figure grows: the line through its samples."""

import random
import unittest

from tests.soak import slopes

HOURS = [minute / 60 for minute in range(60)]


class FitTest(unittest.TestCase):
    def test_a_line_without_noise(self):
        line = slopes.fit(HOURS, [5.0 + 2.0 * hour for hour in HOURS])
        self.assertAlmostEqual(2.0, line.slope)
        self.assertAlmostEqual(0.0, line.error)
        # Not from the first sample: a fifth is left out.
        self.assertAlmostEqual(5.4, line.first)
        self.assertAlmostEqual(5.0 + 2.0 * 59 / 60, line.last)
        self.assertTrue(line.grows(1.5))
        self.assertFalse(line.grows(1.7))

    def test_noise_is_no_growth(self):
        for seed in range(50):
            rng = random.Random(seed)
            line = slopes.fit(HOURS, [rng.gauss(100, 10) for _ in HOURS])
            self.assertFalse(line.grows(5.0), (seed, line))

    def test_growth_in_noise_is_found(self):
        for seed in range(50):
            rng = random.Random(seed)
            line = slopes.fit(
                HOURS, [rng.gauss(100 + 60 * hour, 10) for hour in HOURS]
            )
            self.assertTrue(line.grows(5.0), (seed, line))
            self.assertLess(abs(line.slope - 60), 4 * line.error)

    def test_what_is_made_once_is_no_growth(self):
        line = slopes.fit(HOURS, [0.0] * 10 + [100.0] * 50)
        self.assertFalse(line.grows(1.0))

    def test_what_shrinks_does_not_grow(self):
        self.assertFalse(slopes.fit(HOURS, [-hour for hour in HOURS]).grows(0))

    def test_too_few_samples(self):
        with self.assertRaisesRegex(ValueError, "2 samples are too few"):
            slopes.fit([1.0, 2.0], [1.0, 2.0])
