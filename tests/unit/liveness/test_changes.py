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
"""A refresh that says what has changed is as one that does not."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import detector, group
from nova_sg.liveness.model import (
    Attributes,
    Changes,
    Limits,
    MassRule,
    Observation,
    Refresh,
)

LIMITS = Limits(60.0, 10.0, MassRule(0.55, 3, 120.0))
KINDS = (
    Attributes(present=True),
    Attributes(present=True, draining=True),
    Attributes(lost=True),
    Attributes(lost=True, left=True),
    Attributes(present=True, forced_down=True),
)
SEEN = st.dictionaries(st.sampled_from("abcde"), st.sampled_from(KINDS))
# What is seen, after how long, and whether the observer misses the refresh.
POLLS = st.lists(st.tuples(SEEN, st.sampled_from((1.0, 50.0)), st.booleans()))


class ChangesTest(unittest.TestCase):
    @given(POLLS)
    def test_the_verdicts_are_the_same(self, polls):
        plain = quick = group.new("zk")
        before, mark, now = {}, object(), 100.0
        for seen, later, missed in polls:
            now += later
            observed = {
                host: before[host]
                if host in before and before[host].attributes is attributes
                else Observation(host, attributes=attributes)
                for host, attributes in seen.items()
            }
            new = [
                one
                for host, one in observed.items()
                if before.get(host) is not one
            ]
            gone = [host for host in before if host not in observed]
            since, before = mark, observed
            if new or gone:
                mark = object()
            if missed:
                continue
            refresh = Refresh(
                "zk", now, list(observed.values()), spread=2.0, stamped=False
            )
            plain, expected = detector.step(plain, refresh, LIMITS)
            changes = Changes(since, mark, new, gone)
            quick, changed = detector.step(
                quick, refresh._replace(changes=changes), LIMITS
            )
            self.assertEqual(plain.members, quick.members)
            self.assertEqual(plain.mass, quick.mass)
            self.assertEqual(
                sorted(map(repr, expected)), sorted(map(repr, changed))
            )

    def test_only_the_changes_are_read(self):
        mark = object()
        first = Refresh(
            "zk",
            1.0,
            [Observation("a", attributes=KINDS[0])],
            changes=Changes(None, mark, [], []),
        )
        known, _ = detector.step(group.new("zk"), first, LIMITS)
        # Not a list: nothing reads it.
        second = first._replace(
            observations=None, changes=Changes(mark, mark, [], [])
        )
        again, changes = detector.step(known, second, LIMITS)
        self.assertEqual(["a"], list(again.members))
        self.assertEqual([], changes)


if __name__ == "__main__":
    unittest.main()
