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

"""Records at hand, judged in view of what our own reports met."""

import unittest

from nova_sg.servicegroup import detector, records
from nova_sg.servicegroup.facts import Reference

D = 60.0
INTERVAL = 10.0


class RecordsTest(unittest.TestCase):
    def setUp(self):
        self.records = records.Records()

    def judge(self, report, now, verdict=detector.SILENT):
        """Judge a member whose last report was at a moment."""
        return self.records.judge(verdict, now - report, now, D, INTERVAL)

    def test_alone(self):
        cases = [
            (Reference(age=0, reported=True, left=False), detector.REPORTED),
            (Reference(age=D, reported=True, left=False), detector.REPORTED),
            (
                Reference(age=D + 0.001, reported=True, left=False),
                detector.SILENT,
            ),
            (Reference(age=-D, reported=True, left=False), detector.REPORTED),
            (
                Reference(age=-D - 0.001, reported=True, left=False),
                detector.SILENT,
            ),
            (Reference(age=1, reported=True, left=True), detector.LEFT),
            (
                Reference(age=1, reported=True, left=False, crashed=True),
                detector.CRASHED,
            ),
            (
                Reference(age=1, reported=False, left=False),
                detector.REGISTERED,
            ),
            (
                Reference(age=D + 1, reported=False, left=False),
                detector.NEVER_REPORTED,
            ),
        ]
        for reference, verdict in cases:
            with self.subTest(reference=reference):
                self.assertIs(
                    verdict, records.judge_alone(reference, D)
                )

    def test_without_trouble_the_record_stands(self):
        for verdict in (
            detector.SILENT,
            detector.NEVER_REPORTED,
            detector.LEFT,
            detector.REPORTED,
        ):
            self.assertIs(verdict, self.judge(0, 61, verdict))

    def test_while_reports_do_not_get_through(self):
        self.records.stall("us", 100, 101, False)
        self.assertTrue(self.records.trouble)
        self.assertIs(detector.REPORTED, self.judge(95, 220))
        # Who was down before stays down; who has left stays away.
        self.assertIs(detector.SILENT, self.judge(39, 220))
        self.assertIs(detector.LEFT, self.judge(95, 220, detector.LEFT))

    def test_after_that_everybody_has_the_whole_time_once(self):
        self.records.stall("us", 100, 101, False)
        self.records.stall("us", 100, 220, True)
        self.assertFalse(self.records.trouble)
        self.assertIs(detector.REPORTED, self.judge(95, 280))
        self.assertIs(detector.SILENT, self.judge(95, 281))
        # It is forgotten when it can no longer matter.
        self.assertIs(detector.SILENT, self.judge(95, 400))
        self.assertFalse(self.records._stalls)

    def heed(self, who, report, now):
        self.records.heed(who, now - report, now, D, INTERVAL)

    def test_trouble_that_is_ours_alone(self):
        self.records.stall("us", 100, 130, False)
        self.heed("a", 129, 130)
        # What was said of the time until then stands, and no more.
        self.assertIs(detector.REPORTED, self.judge(95, 190))
        self.assertIs(detector.SILENT, self.judge(95, 191))
        # Nobody else reports any more either: it was not ours alone.
        self.heed("a", 129, 160)
        self.assertIs(detector.REPORTED, self.judge(129, 260))
        self.records.stall("us", 100, 300, True)
        self.assertFalse(self.records.trouble)

    def test_most_have_to_get_through(self):
        self.records.stall("us", 100, 151, False)
        self.heed("a", 80, 150)
        self.heed("b", 90, 150)
        self.heed("c", 149, 150)
        self.assertIs(detector.REPORTED, self.judge(95, 260))
        # Who had been down before counts for nothing.
        self.heed("d", 38, 150)
        self.heed("b", 149, 151)
        self.assertIs(detector.REPORTED, self.judge(95, 211))
        self.assertIs(detector.SILENT, self.judge(95, 212))

    def test_it_stays_ours_alone_while_others_report(self):
        for now in range(110, 400, 10):
            self.records.stall("us", 100, now - 5, False)
            self.heed("a", now - 1, now)
            self.heed("b", 95, now)
        self.assertIs(detector.SILENT, self.judge(95, 400))

    def test_where_few_are_asked_about_it_is_ours_in_the_end(self):
        for enough, verdict in (1, detector.REPORTED), (4, detector.SILENT):
            self.setUp()
            for now in range(110, 110 + int(4 * D), 5):
                self.records.stall("us", 100, now - 5, False)
                report = min(now - 1, 119)
                self.records.heed("a", now - report, now, D, INTERVAL, enough)
            self.assertIs(detector.REPORTED, self.judge(119, 250))
            self.assertIs(verdict, self.judge(119, 350))
