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
"""The hosts of a group, as the names of its znodes show them."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.backends.zookeeper import names, roster

HOSTS = ("one", "two.example", "thr%C3%A9e")
MEMBERS = st.sets(
    st.sampled_from(
        [f"{host}@{session}" for host in HOSTS for session in "12"]
        + ["one", "@1", "one@x", "%@1"]
    )
)
ENTRIES = st.sets(
    st.sampled_from(
        [
            f"{host}@{binary}{end}"
            for host in HOSTS
            for binary in ("nova-compute", "b")
            for end in ("", "@left", "@crashed", "@domain@r1", "@draining")
        ]
        + ["one", "one@b@other", "one@b@domain", "%@b"]
    )
)
# What becomes of the first znodes that are not checked yet.
CHECKS = st.lists(st.booleans(), max_size=3)


def _read(reader, found):
    for name in found:
        try:
            yield name, reader(name)
        except ValueError:
            pass


class RosterTest(unittest.TestCase):
    @given(st.lists(st.tuples(MEMBERS, ENTRIES, CHECKS, st.booleans())))
    def test_changes_lead_to_the_same_as_reading_everything(self, polls):
        made = roster.Roster(lambda name: None)
        copied = set()
        for members, entries, checks, again in polls:
            before = dict(made.hosts)
            if again:
                made.check_again()
                copied = set()
            made.take_in(members, entries)
            for ends in checks:
                for name in list(made.unchecked)[:1]:
                    made.checked(name, ends)
                    if not ends:
                        copied.add(name)
            copied &= members
            shown = {}
            for name, host in _read(names.read_member, members):
                live, told = shown.get(host, roster.NOTHING)
                live += name not in copied
                shown[host] = roster.Shown(live, told)
            for _, entry in _read(names.read_entry, entries):
                live, told = shown.get(entry.host, roster.NOTHING)
                told = tuple(sorted([*told, tuple(entry[1:])]))
                shown[entry.host] = roster.Shown(live, told)
            shown = {
                host: one
                for host, one in shown.items()
                if one != roster.NOTHING
            }
            self.assertEqual(shown, made.hosts)
            self.assertEqual(
                {host for host, one in shown.items() if not one.live},
                made.absent,
            )
            self.assertEqual(copied, made.copied)
            self.assertLessEqual(set(made.unchecked), members - copied)
            self.assertEqual(
                before,
                {
                    host: one
                    for host, one in made.before()
                    if one != roster.NOTHING
                },
            )
            made.touched = {}

    def test_only_what_came_or_went_is_read(self):
        made = roster.Roster(self.fail)
        members = {f"node{number}@1" for number in range(1000)}
        entries = {f"node{number}@b" for number in range(1000)}
        made.take_in(members, entries)
        made.touched = {}
        made.take_in({*members, "new@1"} - {"node7@1"}, set(entries))
        self.assertEqual({"new", "node7"}, set(made.touched))
        self.assertEqual({"node7"}, made.absent)

    def test_after_an_exception_everything_is_read_again(self):
        def refuse(name):
            raise RuntimeError(name)

        made = roster.Roster(refuse)
        made.take_in({"one@1"}, {"one@b"})
        made.touched = {}
        with self.assertRaises(RuntimeError):
            made.take_in({"two@1", "three"}, set())
        made.take_in({"two@1"}, {"two@b"})
        self.assertEqual({"two"}, set(made.hosts))
        self.assertEqual(
            {"one": 1, "two": 0},
            {host: shown.live for host, shown in made.touched.items()},
        )

    def test_the_entry_that_counts(self):
        def entry(*kinds):
            told = sorted(("b", kind, "") for kind in kinds)
            return roster.Shown(0, tuple(told)).entry

        self.assertEqual(("b", ""), entry("", "draining"))
        self.assertEqual(("b", "left"), entry("", "left"))
        self.assertEqual(("b", "crashed"), entry("left", "crashed", ""))
        self.assertIsNone(entry("draining"))
        self.assertFalse(roster.Shown(0, (("b", "draining", ""),)).is_member)


if __name__ == "__main__":
    unittest.main()
