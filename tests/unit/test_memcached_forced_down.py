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

"""Marks of members that are forced down: however merged, they agree."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.backends.memcached import forced_down, values

KEY = values.forced_key("compute")
OPEN = values.Codec(None)

hosts = st.text(min_size=1, max_size=20)
# Within the lifetime of a mark that was taken back.
moments = st.integers(10**12, 10**12 + forced_down.LIFETIME * 1000 - 1)
all_marks = st.dictionaries(
    hosts, st.builds(forced_down.Mark, moments, st.booleans()), max_size=6
)


class MarksTest(unittest.TestCase):
    @given(all_marks, st.sampled_from([None, "secret"]))
    def test_written_marks_are_read_back(self, marks, secret):
        codec = values.Codec(secret)
        written = forced_down.write(codec, KEY, marks)
        self.assertEqual((marks, 0), forced_down.read(codec, KEY, written))

    @given(all_marks, all_marks, all_marks)
    def test_the_order_in_which_servers_are_read_does_not_matter(
        self, one, two, three
    ):
        merge = forced_down.merge
        self.assertEqual(
            merge(merge(one, two), three), merge(three, merge(two, one))
        )
        self.assertEqual(merge(one, two), merge(merge(one, two), one))

    @given(all_marks, hosts, st.booleans(), st.floats(0, 2e9))
    def test_a_new_mark_counts_whatever_the_clock_says(
        self, marks, host, forced, now
    ):
        new = forced_down.newer_mark(marks, host, forced, now)
        self.assertEqual(new, forced_down.merge(marks, {host: new})[host])
        self.assertEqual(forced, new.forced)

    @given(all_marks, all_marks)
    def test_merging_keeps_the_marks_of_the_server(self, there, more):
        old = forced_down.write(OPEN, KEY, there)
        new = forced_down.merging(OPEN, KEY, more)(old)
        self.assertEqual(
            forced_down.merge(there, more),
            forced_down.read(OPEN, KEY, new)[0],
        )

    def test_an_old_mark_that_takes_another_back_is_dropped(self):
        now = 10**12
        old = now - forced_down.LIFETIME * 1000
        marks = {
            "back": forced_down.Mark(old, False),
            "down": forced_down.Mark(old, True),
            "new": forced_down.Mark(now, False),
        }
        written = forced_down.write(OPEN, KEY, marks)
        kept, _ = forced_down.read(OPEN, KEY, written)
        self.assertEqual({"down", "new"}, kept.keys())

    @given(st.binary(max_size=60))
    def test_any_bytes_can_be_read(self, value):
        found, refused = forced_down.read(OPEN, KEY, value)
        lines = [line for line in set(value.split(b"\n")) if line]
        self.assertLessEqual(len(found) + refused, len(lines))

    def test_lines_that_are_no_marks_are_counted(self):
        for line in ("", "1", "1 down", "1 up h", "x down h", "-1 down h"):
            with self.subTest(line=line):
                value = OPEN.line(KEY, line) if line else b"\n"
                found, refused = forced_down.read(OPEN, KEY, value)
                self.assertEqual({}, found)
                self.assertEqual(1 if line else 0, refused)
