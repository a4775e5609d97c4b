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

"""The note that pauses actions."""

import datetime
import unittest

from nova_sg.actions import pause

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


class PauseTest(unittest.TestCase):
    def test_what_is_written_is_read(self):
        for until in (None, NOW + HOUR):
            made = pause.Pause("ctl1", NOW, until, "moving racks \u2013 A, B")
            self.assertEqual(made, pause.read(pause.write(made), NOW))

    def test_it_ends_by_itself(self):
        note = pause.write(pause.Pause("ctl1", NOW, NOW + HOUR, ""))
        self.assertIsNotNone(pause.read(note, NOW + HOUR / 2))
        self.assertIsNone(pause.read(note, NOW + HOUR))
        self.assertIsNone(pause.read("", NOW))

    def test_a_note_that_makes_no_sense_is_a_pause(self):
        for note in (
            "x",
            "1",
            "null",
            "[]",
            "{}",
            '{"by": "a", "at": 5, "until": null, "reason": ""}',
            '{"by": "a", "at": "2026-01-01", "until": null, "reason": ""}',
        ):
            with self.subTest(note):
                self.assertIsNotNone(pause.read(note, NOW))

    def test_what_people_read(self):
        self.assertEqual(
            "since 2026-01-01T00:00:00.000Z, by a command on ctl1, until "
            "2026-01-01T01:00:00.000Z (why)",
            str(pause.Pause("ctl1", NOW, NOW + HOUR, "why")),
        )
        self.assertEqual(
            "since 2026-01-01T00:00:00.000Z, by a command on ctl1",
            str(pause.Pause("ctl1", NOW, None, "")),
        )
