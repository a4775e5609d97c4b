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

"""Marks of who is forced down: kept apart, they come together."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.backends.memcached import marks, values

KEY = values.forced_key("compute")

hosts = st.text(min_size=1, max_size=20)
# All within the life of a mark that was taken back.
moments = st.integers(10**12, 10**12 + marks.LIFE * 1000 - 1)
all_marks = st.dictionaries(
    hosts, st.builds(marks.Mark, moments, st.booleans()), max_size=6
)


class MarksTest(unittest.TestCase):
    @given(all_marks, st.sampled_from([None, "secret"]))
    def test_what_is_written_is_read_back(self, some, secret):
        codec = values.Codec(secret)
        written = marks.write(codec, KEY, some)
        self.assertEqual((some, 0), marks.read(codec, KEY, written))

    @given(all_marks, all_marks, all_marks)
    def test_the_order_in_which_servers_are_read_does_not_matter(
        self, one, two, three
    ):
        merged = marks.merged
        self.assertEqual(
            merged(merged(one, two), three), merged(three, merged(two, one))
        )
        self.assertEqual(merged(one, two), merged(merged(one, two), one))

    @given(all_marks, hosts, st.booleans(), st.floats(0, 2e9))
    def test_a_new_mark_counts_whatever_the_clock_says(
        self, some, host, forced, now
    ):
        new = marks.newer(some, host, forced, now)
        self.assertEqual(new, marks.merged(some, {host: new})[host])
        self.assertEqual(forced, new.forced)

    @given(all_marks, all_marks)
    def test_merging_adds_to_what_is_there(self, there, more):
        codec = values.Codec(None)
        old = marks.write(codec, KEY, there)
        new = marks.merging(codec, KEY, more)(old)
        self.assertEqual(
            marks.merged(there, more), marks.read(codec, KEY, new)[0]
        )

    def test_an_old_mark_that_takes_another_back_is_dropped(self):
        codec = values.Codec(None)
        now = 10**12
        old = now - marks.LIFE * 1000
        some = {
            "back": marks.Mark(old, False),
            "down": marks.Mark(old, True),
            "new": marks.Mark(now, False),
        }
        kept, _ = marks.read(codec, KEY, marks.write(codec, KEY, some))
        self.assertEqual({"down", "new"}, kept.keys())

    @given(st.binary(max_size=60))
    def test_anything_can_be_read(self, value):
        found, refused = marks.read(values.Codec(None), KEY, value)
        lines = [line for line in set(value.split(b"\n")) if line]
        self.assertLessEqual(len(found) + refused, len(lines))

    def test_lines_that_are_no_marks(self):
        codec = values.Codec(None)
        for line in ("", "1", "1 down", "1 up h", "x down h", "-1 down h"):
            with self.subTest(line=line):
                value = codec.line(KEY, line) if line else b"\n"
                found, refused = marks.read(codec, KEY, value)
                self.assertEqual({}, found)
                self.assertEqual(1 if line else 0, refused)
