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

"""The deadline: when a silence becomes too long."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import outages as outages_
from nova_sg.liveness.deadline import deadline
from nova_sg.liveness.model import Outage

LIMIT, LONG = 60.0, 10.0


def deadline_with(*outages):
    """Return the deadline after a report at second 0, with these outages."""
    return deadline([Outage(*one) for one in outages], 0.0, LIMIT, LONG)


class TableTest(unittest.TestCase):
    def test_the_deadline_after_a_report_at_second_0(self):
        for name, expected, outages in (
            ("no outage", 60, []),
            ("over before the last report", 60, [(-50, 0)]),
            ("a short outage is added", 65, [(20, 25)]),
            ("only the part after the last report", 63, [(-2, 3)]),
            ("a long outage gives the limit anew", 100, [(20, 40)]),
            ("so does one that made a report fail", 85, [(20, 25, True)]),
            ("only its end, a short one", 65, [(-200, 5)]),
            ("only its end, a long one", 75, [(-200, 15)]),
            ("two long ones", 330, [(10, 130), (150, 270)]),
            ("the second comes too late", 190, [(10, 130), (191, 300)]),
            ("one that begins at the deadline", 130, [(60, 70)]),
            ("one that begins after the deadline", 60, [(60.1, 500)]),
            ("a short one, and one after its end", 65, [(10, 15), (66, 99)]),
            ("several add up", 120, [(10, 15), (40, 60)]),
            (
                "never more than two limits without an outage",
                140,
                [
                    (50, 60),
                    (100, 110),
                    (150, 160),
                    (160, 170),
                    (200, 210),
                ],
            ),
        ):
            with self.subTest(name):
                self.assertEqual(expected, deadline_with(*outages))

    def test_a_death_is_found_although_the_backend_fails_again_and_again(self):
        """It is found after two limits without an outage."""
        outages = [(at, at + 10) for at in range(10, 1000, 20)]
        due = deadline_with(*outages)
        self.assertEqual(
            120, outages_.without([Outage(*one) for one in outages], 0.0, due)
        )


@st.composite
def disjoint(draw):
    """Make sorted outages with time between them."""
    found, at = [], 0.0
    for pause, length, missed in draw(
        st.lists(
            st.tuples(st.integers(1, 80), st.integers(1, 80), st.booleans()),
            max_size=6,
        )
    ):
        begin = at + pause
        at = begin + length
        found.append(Outage(float(begin), float(at), missed))
    return found


class PropertyTest(unittest.TestCase):
    @given(disjoint(), st.integers(0, 300))
    def test_a_silence_may_last_one_to_two_limits_without_an_outage(
        self, found, since
    ):
        due = deadline(found, since, LIMIT, LONG)
        healthy = outages_.without(found, since, due)
        self.assertGreaterEqual(healthy, LIMIT - 1e-9)
        self.assertLessEqual(healthy, 2 * LIMIT + 1e-9)

    @given(disjoint(), st.integers(0, 300), st.integers(1, 50))
    def test_a_later_report_never_makes_the_deadline_earlier(
        self, found, since, later
    ):
        self.assertLessEqual(
            deadline(found, since, LIMIT, LONG),
            deadline(found, since + later, LIMIT, LONG) + 1e-9,
        )

    @given(
        disjoint(),
        st.integers(0, 300),
        st.integers(0, 400),
        st.integers(1, 80),
        st.booleans(),
    )
    def test_one_more_outage_never_makes_the_deadline_earlier(
        self, found, since, begin, length, missed
    ):
        one = Outage(float(begin), float(begin + length), missed)
        more = outages_.add(tuple(found), one)
        self.assertLessEqual(
            deadline(found, since, LIMIT, LONG),
            deadline(more, since, LIMIT, LONG) + 1e-9,
        )

    @given(disjoint(), st.integers(0, 200))
    def test_forgotten_outages_make_no_difference(self, found, since):
        """No silence that they would excuse is still short enough."""
        now = max((one.end for one in found), default=0.0) + 50
        kept = outages_.recent(tuple(found), now, LIMIT)
        known = deadline(found, since, LIMIT, LONG)
        if known >= now:
            self.assertEqual(known, deadline(kept, since, LIMIT, LONG))
        else:
            self.assertLess(deadline(kept, since, LIMIT, LONG), now)
