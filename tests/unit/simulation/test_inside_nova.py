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

"""What is said of a host that reports to Nova's database, too."""

import itertools
import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import LONG
from tests.unit.simulation.inside_nova import Event, World

KINDS = (
    *("start", "kill", "stop"),
    *("cut mc", "heal mc", "cut db", "heal db"),
    *("blind", "see"),
)
events = st.lists(
    st.builds(Event, st.integers(0, 150), st.sampled_from(KINDS)), max_size=12
)
BACKENDS = ("sessions", "reports", "none")
asks = st.sampled_from([1.0, 2.0, 7.0, 30.0, 200.0])


class PromisesTest(unittest.TestCase):
    @settings(deadline=None, max_examples=3000 if LONG else 80)
    @given(st.booleans(), st.sampled_from(BACKENDS), asks, events)
    def test_no_verdict_is_wrong(self, inside, kind, every, happens):
        World(inside, kind, every).run([Event(0, "start"), *happens])

    def test_each_promise_is_checked(self):
        for inside, kind in itertools.product((True, False), BACKENDS):
            world = World(inside, kind, 1.0)
            world.run(
                [
                    Event(0, "start"),
                    Event(100, "kill"),
                    Event(150, "start"),
                    Event(100, "stop"),
                    Event(200, "start"),
                    Event(50, "cut mc"),
                    Event(200, "heal mc"),
                    Event(50, "cut db"),
                    Event(200, "kill"),
                ]
            )
            self.assertGreater(min(world.checked.values()), 30, world.checked)
