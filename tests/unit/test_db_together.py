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

"""A whole group in one text: it says the same as its rows, or is refused."""

import datetime
import logging
import string
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.backends.db import queries, records, together
from nova_sg.backends.db.models import CRASHED

NAMES = st.text(string.ascii_letters + "-_.ä中 ", max_size=12)
MOMENTS = st.datetimes(
    datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1)
)
SEPARATORS = (queries.VALUE_END, queries.RECORD_END)
ROWS = st.builds(
    together.Row,
    now=st.none(),
    id=st.integers(1, 10_000),
    host=st.none() | NAMES,
    topic=st.none() | NAMES,
    binary=st.none() | NAMES,
    report_count=st.none() | st.sampled_from([0, CRASHED]) | st.integers(1, 9),
    last_seen_up=st.none() | MOMENTS | st.just("0000-00-00 00:00:00"),
    created_at=st.none() | MOMENTS | st.just("0000-00-00 00:00:00"),
    forced_down=st.none() | st.integers(0, 1),
    disabled=st.none() | st.integers(0, 1),
    disabled_reason=st.none() | NAMES,
)
GROUPS = st.lists(ROWS, max_size=8, unique_by=lambda row: row.id)


def text(rows):
    """Return the text that the server makes of rows."""

    def value(one):
        return queries.NULL if one is None else str(one)

    return queries.RECORD_END.join(
        "".join(
            value(one) + queries.VALUE_END
            for one in (
                *(row.id, row.report_count, row.host),
                *(row.last_seen_up, row.created_at),
                *(row.forced_down, row.disabled),
                *(row.topic, row.binary, row.disabled_reason),
            )
        )
        for row in rows
    )


class TogetherTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    def reader(self):
        made = records.Reader()
        made.clock.sample(0.0, 0.001, 1.7e9)
        return made

    def rows(self, rows):
        reader = self.reader()
        return [reader.observation(9.0, r) for r in rows if reader.named(r)]

    @given(st.lists(GROUPS, max_size=4))
    def test_it_says_the_same_as_the_rows(self, refreshes):
        reader = together.GroupReader(self.reader())
        # Each is refreshed twice: then nothing has changed.
        for rows in [one for group in refreshes for one in (group, group)]:
            found = reader.read(9.0, len(rows), text(rows) or None)
            for one, other in zip(found, self.rows(rows), strict=True):
                if one.report_number is None:
                    self.assertEqual(one, other)
                    continue
                # A report that is known is not read again, whatever else is
                # stored of it.
                self.assertEqual(one.host, other.host)
                self.assertEqual(one.report_number, other.report_number)
                self.assertEqual(one.attributes, other.attributes)

    @given(GROUPS.filter(bool))
    def test_a_first_refresh_says_all_that_the_rows_say(self, rows):
        reader = together.GroupReader(self.reader())
        self.assertEqual(
            self.rows(rows), reader.read(9.0, len(rows), text(rows))
        )

    def row(self, **values):
        return together.Row(
            *(None, 1, "one", "compute", "nova-compute", 7),
            *(datetime.datetime(2026, 1, 1), None, 0, 0, None),
        )._replace(**values)

    def test_what_has_changed_is_read(self):
        reader = together.GroupReader(self.reader())
        row = self.row()
        (first,) = reader.read(9.0, 1, text([row]))
        (again,) = reader.read(9.0, 1, text([row]))
        self.assertIs(first, again)
        for changed in (
            {"id": 2},
            {"host": "two"},
            {"topic": "Compute"},
            {"binary": None},
            {"report_count": 8},
            {"report_count": 0},
            {"report_count": CRASHED},
            {"report_count": None},
            {"last_seen_up": None},
            {"forced_down": 1},
            {"disabled": 1},
            {"disabled_reason": "why"},
        ):
            with self.subTest(changed):
                reader.read(9.0, 1, text([row]))
                other = row._replace(**changed)
                (found,) = reader.read(9.0, 1, text([other]))
                if changed == {"last_seen_up": None}:
                    # Its number is the same.
                    continue
                self.assertEqual(self.rows([other]), [found])

    @given(
        GROUPS.filter(bool),
        st.sampled_from(["host", "topic", "binary", "disabled_reason"]),
        st.text([*SEPARATORS, "a"], max_size=4),
        st.data(),
    )
    def test_a_value_with_a_separator_is_refused(
        self, rows, name, value, data
    ):
        place = data.draw(st.integers(0, len(rows) - 1))
        rows[place] = rows[place]._replace(**{name: value})
        reader = together.GroupReader(self.reader())
        if any(one in value for one in SEPARATORS):
            with self.assertRaises(ValueError):
                reader.read(9.0, len(rows), text(rows))
        else:
            self.assertEqual(
                self.rows(rows), reader.read(9.0, len(rows), text(rows))
            )

    @given(GROUPS.filter(bool), st.data())
    def test_a_text_that_is_cut_off_is_refused(self, rows, data):
        whole = text(rows)
        length = data.draw(st.integers(0, len(whole) - 1))
        reader = together.GroupReader(self.reader())
        with self.assertRaises(ValueError):
            reader.read(9.0, len(rows), whole[:length])

    def test_what_is_no_text_is_refused(self):
        reader = together.GroupReader(self.reader())
        for nonsense in (None, b"1", 1, "", "1"):
            with self.subTest(nonsense), self.assertRaises(ValueError):
                reader.read(9.0, 1, nonsense)
        self.assertEqual([], reader.read(9.0, 0, None))
