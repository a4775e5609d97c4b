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

"""Members on whose state two backends disagree, and for how long."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import model
from nova_sg.servicegroup import compare

UP, DOWN = model.REPORTED, model.SILENT
FORCED, LOST, LEFT = model.FORCED_DOWN, model.LOST, model.LEFT

VERDICTS = st.sampled_from(
    [None, UP, model.REGISTERED, DOWN, FORCED, LOST, LEFT]
)
GROUPS = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([UP, DOWN, FORCED, LOST])
)


class KindTest(unittest.TestCase):
    def test_the_kind_of_a_disagreement(self):
        cases = [
            # primary, secondary, kind
            (None, None, None),
            (UP, UP, None),
            (UP, model.REGISTERED, None),
            (UP, DOWN, "up-down"),
            (UP, LEFT, "up-down"),
            (UP, None, "up-unknown"),
            (UP, FORCED, "not-forced"),
            (DOWN, UP, "down-up"),
            (LOST, UP, "down-up"),
            (DOWN, LOST, None),
            (DOWN, None, None),
            (DOWN, FORCED, "not-forced"),
            (None, UP, "unknown-up"),
            (None, DOWN, None),
            (FORCED, FORCED, None),
            (FORCED, UP, "forced-not"),
            (FORCED, DOWN, "forced-not"),
            (FORCED, None, None),
            (None, FORCED, None),
        ]
        for primary, secondary, kind in cases:
            with self.subTest(primary=primary, secondary=secondary):
                self.assertEqual(kind, compare.kind(primary, secondary))

    @given(VERDICTS, VERDICTS)
    def test_swapped_backends_disagree_the_other_way_round(self, one, two):
        there, back = compare.kind(one, two), compare.kind(two, one)
        if there is None:
            self.assertIsNone(back)
        else:
            self.assertEqual(there.split("-")[::-1], back.split("-"))
            self.assertIn(there, compare.KINDS)


class ComparerTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.comparer = compare.Comparer()

    def settle(self, now, primary, secondary):
        self.comparer.compare(now, 10.0, primary, secondary)
        return self.comparer.settled

    def test_a_difference_that_does_not_last_is_no_disagreement(self):
        for begin in range(0, 100, 20):
            self.assertEqual({}, self.settle(begin, {"a": UP}, {"a": DOWN}))
            self.assertEqual(
                {}, self.settle(begin + 9, {"a": UP}, {"a": DOWN})
            )
            self.assertEqual({}, self.settle(begin + 12, {"a": UP}, {"a": UP}))
        self.assertEqual({0}, set(self.comparer.totals.values()))

    def test_a_disagreement_that_lasts_counts_once(self):
        for now in range(40):
            settled = self.settle(now, {"a": UP, "b": UP}, {"b": UP})
        self.assertEqual({"a": "up-unknown"}, settled)
        self.assertEqual(1, self.comparer.totals["up-unknown"])
        self.assertEqual({}, self.settle(40, {"a": UP}, {"a": UP}))
        self.settle(41, {"a": UP}, {})
        self.settle(51, {"a": UP}, {})
        self.assertEqual(2, self.comparer.totals["up-unknown"])

    def test_a_disagreement_of_another_kind_begins_anew(self):
        self.settle(0, {"a": UP}, {})
        self.assertEqual({}, self.settle(9, {"a": UP}, {"a": DOWN}))
        self.assertEqual({}, self.settle(18, {"a": UP}, {"a": DOWN}))
        self.assertEqual(
            {"a": "up-down"}, self.settle(19, {"a": UP}, {"a": DOWN})
        )
        self.assertEqual(1, sum(self.comparer.totals.values()))

    def test_time_in_which_a_backend_is_unreachable_does_not_count(self):
        self.settle(0, {"a": UP, "b": UP}, {"a": DOWN, "b": UP})
        self.settle(10, {"a": UP, "b": UP}, {"a": DOWN, "b": DOWN})
        self.comparer.interrupt()
        settled = self.settle(100, {"a": UP, "b": UP}, {"a": DOWN, "b": DOWN})
        # A disagreement that had settled before stays, and counts once.
        self.assertEqual({"a": "up-down"}, settled)
        self.assertEqual(1, self.comparer.totals["up-down"])

    @given(st.lists(st.tuples(GROUPS, GROUPS, st.booleans()), max_size=20))
    def test_a_settled_disagreement_is_there_now_and_was_counted(
        self, refreshes
    ):
        comparer = compare.Comparer()
        counted = 0
        for now, (primary, secondary, interrupted) in enumerate(refreshes):
            if interrupted:
                comparer.interrupt()
            comparer.compare(now, 2.0, primary, secondary)
            for host, kind in comparer.settled.items():
                self.assertEqual(
                    kind,
                    compare.kind(primary.get(host), secondary.get(host)),
                )
            total = sum(comparer.totals.values())
            self.assertGreaterEqual(total, counted)
            self.assertGreaterEqual(total, len(comparer.settled) > 0)
            counted = total
