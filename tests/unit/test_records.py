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


"""Members that are judged by the record that comes with a question."""

import unittest

from nova_sg.backends import base
from nova_sg.liveness import model
from nova_sg.servicegroup import service_records
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen


class RecordsTestCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.records = service_records.ServiceRecords()
        self.limits = model.Limits(LIMIT, INTERVAL)

    def ask(self, host, record, now, others=None, configured=True):
        """Return the cause of the verdict by a record."""
        member = "compute", host
        return self.records.judge(
            member, record, now, self.limits, others, configured
        ).cause

    def judge(self, report, now, host=None, **keywords):
        """Judge a member whose last report was at a moment.

        :param host: None: a member that was never asked about
        """
        host = host or f"{report} at {now}"
        record = base.Record(report, 100 + report, now - report)
        return self.ask(host, record, now, **keywords)

    def reports_fail(self, begin, certain):
        self.records.reports_fail("us", begin, certain)

    def reports_work(self, certain):
        self.records.reports_work("us", certain)


class FirstQuestionTest(RecordsTestCase):
    """The verdict by a record alone."""

    def test_the_verdict_of_a_first_question(self):
        for verdict, record in (
            ("reported", (1, 1, 0.0)),
            ("reported", (1, 1, LIMIT)),
            ("silent", (1, 1, LIMIT + 0.001)),
            ("reported", (1, 1, -LIMIT)),
            # A stamp too far in the future is no report.
            ("never-reported", (1, 1, -LIMIT - 0.001)),
            ("left", (1, 0, 1.0, True)),
            ("left", (1, 0, 1000.0, True)),
            ("crashed", (1, -1, 1.0, False, True)),
            ("registered", (None, None, 1.0)),
            ("never-reported", (None, None, LIMIT + 1)),
        ):
            with self.subTest(record):
                self.setUp()
                record = base.Record(*record)
                for _ in range(2):
                    self.assertEqual(verdict, self.ask("h", record, 1000.0))


class OwnReportsTest(RecordsTestCase):
    """Own reports, those of this process, that fail."""

    def test_while_they_fail_no_living_member_turns_down(self):
        self.reports_fail(100, 101)
        self.assertEqual("reported", self.judge(95, 220))
        # A member that was down before stays down; one that left, too.
        self.assertEqual("silent", self.judge(39, 220))
        left = base.Record(95, 0, 125.0, True)
        self.assertEqual("left", self.ask("left", left, 220))
        # A member that only registered is excused, too.
        self.assertEqual(
            "registered",
            self.ask("new", base.Record(None, None, 125.0), 220),
        )

    def test_afterwards_every_member_has_its_whole_time(self):
        self.reports_fail(100, 101)
        self.reports_work(220)
        self.assertEqual("reported", self.judge(95, 280, "h"))
        self.assertEqual("silent", self.judge(95, 281, "h"))
        # The outage is forgotten when it can no longer matter.
        self.assertEqual("silent", self.judge(95, 400))
        self.assertEqual((), self.records._backend.outages)

    def test_they_are_no_outage_while_other_members_report(self):
        self.reports_fail(100, 130)
        self.assertEqual("reported", self.judge(129, 130, "a"))
        # It counts as an outage up to that report, and no longer.
        for now, verdict in (
            (160, "reported"),
            (190, "reported"),
            (191, "silent"),
        ):
            self.judge(now - 1, now, "a")
            self.assertEqual(verdict, self.judge(95, now, "h"))
        # Now no other member reports. It is an outage after all.
        self.assertEqual("reported", self.judge(150, 230))
        self.reports_work(300)
        self.assertEqual({}, self.records._backend.failing_reports)

    def test_reports_of_half_of_the_members_refute_an_outage(self):
        def begin():
            self.setUp()
            self.reports_fail(100, 151)
            self.judge(80, 139, "a")
            self.judge(90, 139, "b")
            self.judge(149, 150, "c")

        begin()
        self.assertEqual("reported", self.judge(95, 260))
        for now, verdict in ((211, "reported"), (212, "silent")):
            begin()
            # Members that were down before do not count.
            for host in "def":
                self.assertEqual("silent", self.judge(38, 150, host))
            self.judge(149, 151, "b")
            self.assertEqual(verdict, self.judge(95, now))

    def test_they_stay_no_outage_for_as_long_as_others_report(self):
        for now in range(110, 400, 10):
            self.reports_fail(100, now - 5)
            self.judge(now - 1, now, "a")
            self.judge(95, now, "b")
        self.assertEqual("silent", self.judge(95, 400))

    def test_few_members_confirm_no_outage_for_ever(self):
        for enough, verdict in ((1, "reported"), (4, "silent")):
            self.setUp()
            mass = model.MassRule(0.55, enough, 2 * LIMIT)
            self.limits = self.limits._replace(mass=mass)
            verdicts = {}
            for now in range(110, 410, 5):
                self.reports_fail(100, now - 5)
                verdicts[now] = self.judge(min(now - 1, 119), now, "a")
            self.assertEqual("reported", verdicts[250])
            self.assertEqual(verdict, verdicts[400])


class ChangeNotTimeTest(RecordsTestCase):
    """Rule 1: an observer knows of a report by a change, not by its time."""

    def test_a_record_that_changes_is_a_report(self):
        """It is no older than the question before, whatever its stamp is."""
        for age in (500.0, 61.0, 0.0, -LIMIT):
            with self.subTest(age):
                self.setUp()
                self.ask("h", base.Record(1, 1, 0.0), 100.0)
                new = base.Record(2, 2, age)
                self.assertEqual("reported", self.ask("h", new, 160.0))
                # The report was at 100 at the earliest, at 160 at the latest.
                last = min(max(160.0 - age, 100.0), 160.0)
                for now, verdict in (
                    (last + LIMIT, "reported"),
                    (last + LIMIT + 0.1, "silent"),
                ):
                    self.assertEqual(verdict, self.ask("h", new, now))

    def test_a_record_that_stays_the_same_is_no_report(self):
        """It ages by this process's clock."""
        self.ask("h", base.Record(1, 1, 0.0), 100.0)
        for now, verdict in ((160.0, "reported"), (160.1, "silent")):
            # The database's clock stands still.
            same = base.Record(1, 1, 0.0)
            self.assertEqual(verdict, self.ask("h", same, now))

    def test_an_older_copy_changes_nothing(self):
        old, new = base.Record(1, 1, 0.0), base.Record(2, 2, 0.0)
        self.ask("h", old, 90.0)
        self.ask("h", new, 100.0)
        for now, verdict in ((160.0, "reported"), (160.1, "silent")):
            for record in (old, new, old):
                self.assertEqual(verdict, self.ask("h", record, now))

    def test_reports_count_after_a_backup_was_restored(self):
        """Their numbers begin anew, with new stamps."""
        self.ask("h", base.Record(1, 500, 0.0), 100.0)
        new = base.Record(150, 3, 5.0)
        self.assertEqual("reported", self.ask("h", new, 155.0))
        self.assertEqual("reported", self.ask("h", new, 210.0))
        self.assertEqual("silent", self.ask("h", new, 210.1))

    def test_a_member_that_was_down_before_it_left_stays_down(self):
        """That it left is no report."""
        self.limits = self.limits._replace(restart_grace=LIMIT)
        old = base.Record(100, 7, 0.0)
        self.assertEqual("reported", self.ask("h", old, 100.0))
        for now in (161.0, 170.0):
            self.assertEqual("silent", self.ask("h", old, now))
        left = base.Record(100, 0, 75.0, True)
        for now in (175.0, 176.0):
            self.assertEqual("left", self.ask("h", left, now))

    def test_a_member_that_left_long_before_the_question(self):
        """restart_grace counts from about when it left."""
        self.limits = self.limits._replace(restart_grace=LIMIT)
        self.ask("h", base.Record(100, 7, 0.0), 100.0)
        for now, verdict in ((261.0, "stopped"), (300.0, "left")):
            left = base.Record(195, 0, now - 195.0, True)
            with self.subTest(now=now):
                self.assertEqual(verdict, self.ask("h", left, now))
                self.setUp()
                self.limits = self.limits._replace(restart_grace=LIMIT)
                self.ask("h", base.Record(100, 7, 0.0), 100.0)

    def test_an_older_copy_does_not_undo_that_a_member_left(self):
        """Requests may read the record at one time and ask at another."""
        self.limits = self.limits._replace(restart_grace=LIMIT)
        old = base.Record(100, 7, 0.0)
        left = base.Record(100, 0, 1.0, True)
        self.assertEqual("reported", self.ask("h", old, 100.0))
        for record in (left, old, left, old):
            self.assertEqual("stopped", self.ask("h", record, 101.0))
        self.assertEqual("left", self.ask("h", old, 102.0 + LIMIT))
        # A record has whole seconds: the next report may have the same stamp.
        back = base.Record(100, 1, 1.0)
        self.assertEqual("reported", self.ask("h", back, 103.0 + LIMIT))

    def test_a_member_that_left_is_up_with_its_next_report(self):
        self.ask("h", base.Record(100, 7, 0.0), 100.0)
        left = base.Record(100, 0, 5.0, True)
        for now in (105.0, 106.0):
            self.assertEqual("left", self.ask("h", left, now))
        back = base.Record(110, 1, 0.0)
        self.assertEqual("reported", self.ask("h", back, 110.0))


class DownStaysDownTest(RecordsTestCase):
    """Rule 3: nothing but a new report raises a member that is down."""

    def test_an_outage_that_becomes_known_late_raises_no_member(self):
        self.assertEqual("silent", self.judge(100, 161, "h"))
        self.reports_fail(103, 160)
        self.assertEqual("silent", self.judge(100, 162, "h"))
        # It excuses a member that was not asked about before.
        self.assertEqual("reported", self.judge(100, 162, "another"))
        self.reports_work(160)
        self.assertEqual("silent", self.judge(100, 163, "h"))
        self.assertEqual("reported", self.judge(162, 164, "h"))

    def test_an_older_report_to_another_backend_raises_no_member(self):
        self.assertEqual("reported", self.judge(100, 159, "h"))
        self.assertEqual("silent", self.judge(100, 161, "h"))
        others = Observer("mc")
        others.refresh(162.0, {"h": 130.0})
        self.assertEqual(
            "silent", self.judge(100, 162, "h", others=others.group)
        )
        others.refresh(164.0, {"h": 163.0})
        self.assertEqual(
            "reported", self.judge(100, 165, "h", others=others.group)
        )


class OtherBackendsTest(RecordsTestCase):
    """Rule 5: a record and other backends are merged observations."""

    def setUp(self):
        super().setUp()
        self.others = Observer("mc")

    def merged(self, report, now, host="h", **keywords):
        return self.judge(
            report, now, host, others=self.others.group, **keywords
        )

    def test_the_newest_report_counts(self):
        self.others.refresh(200.0, {"h": 195.0})
        self.assertEqual("reported", self.merged(100, 200))
        self.setUp()
        self.others.refresh(200.0, {"h": 100.0})
        self.assertEqual("reported", self.merged(195, 200))
        self.setUp()
        self.others.refresh(200.0, {"h": 139.0})
        self.assertEqual("silent", self.merged(100, 200))

    def test_it_is_up_by_its_record_when_another_backend_finds_it_silent(self):
        """Whether the last question was before or after that."""
        for asked in (None, 150, 165):
            with self.subTest(asked=asked):
                self.setUp()
                for now in (100, 130, 165):
                    self.others.refresh(float(now), {"h": 100.0})
                    if now == asked:
                        report = min(now - 5, 159)
                        self.assertEqual("reported", self.merged(report, now))
                self.assertEqual("silent", self.others.cause("h"))
                self.assertEqual("reported", self.merged(159, 166))
                self.assertEqual("reported", self.merged(159, 159 + LIMIT))
                self.assertEqual("silent", self.merged(159, 160 + LIMIT))

    def test_a_member_that_another_backend_holds_is_held(self):
        """Silent in both: its rack is cut off."""
        hosts = [f"host{number}" for number in range(6)]
        rule = model.MassRule(0.5, 4, 2 * LIMIT)
        self.others = Observer("mc", mass=rule)
        for now in (100, 130, 165):
            self.others.refresh(float(now), dict.fromkeys(hosts, 100.0))
        self.assertEqual("held", self.others.cause("host0"))
        self.assertEqual("held", self.merged(101, 166, "host0"))
        self.assertEqual("held", self.merged(101, 167, "host0"))
        # One that was down before stays down.
        self.assertEqual("silent", self.judge(30, 99, "host1"))
        self.assertEqual("silent", self.merged(30, 166, "host1"))
        # Then the hold ends.
        self.others.refresh(165.0 + 3 * LIMIT, dict.fromkeys(hosts, 100.0))
        self.assertEqual("silent", self.others.cause("host0"))
        self.assertEqual("silent", self.merged(101, 350, "host0"))

    def test_it_is_up_by_its_record_when_its_session_has_ended(self):
        """Until its next report to the database is due."""
        self.others.refresh(100.0, [seen("h", None, None, present=True)])
        self.others.refresh(165.0, [seen("h", None, None, lost=True)])
        self.assertEqual("lost", self.others.cause("h"))
        self.assertEqual("reported", self.merged(159, 166))
        self.assertEqual("reported", self.merged(159, 175))
        self.assertEqual("lost", self.merged(159, 181))

    def test_a_clean_stop_of_a_member_that_had_been_down(self):
        """It was up again by the other backend; nobody asked meanwhile."""
        self.limits = self.limits._replace(restart_grace=LIMIT)
        self.assertEqual("silent", self.merged(30, 100))
        self.others.refresh(110.0, [seen("h", None, None, present=True)])
        self.others.refresh(200.0, [seen("h", None, None, present=True)])
        self.others.refresh(
            201.0, [seen("h", None, None, left=True, lost=True)]
        )
        left = base.Record(198, 0, 3.5, True)
        for now in (201.5, 202.0):
            self.assertEqual(
                "stopped", self.ask("h", left, now, self.others.group)
            )
        self.assertEqual(
            "left", self.ask("h", left, 203.0 + LIMIT, self.others.group)
        )

    def test_forced_down_in_another_backend_counts(self):
        self.others.refresh(200.0, [seen("h", 1, 195.0, forced_down=True)])
        self.assertEqual("forced-down", self.merged(199, 200))

    def test_leaving_counts_if_it_is_newer_than_any_report(self):
        self.others.refresh(150.0, {"h": 150.0})
        self.others.refresh(190.0, [seen("h", 150.0, 150.0, left=True)])
        self.assertEqual("left", self.merged(149, 200))
        # It left the other backend before it reported to the database.
        self.setUp()
        self.others.refresh(150.0, {"h": 150.0})
        self.others.refresh(190.0, [seen("h", 150.0, 150.0, left=True)])
        self.assertEqual("reported", self.merged(180, 200))
        self.setUp()
        self.others.refresh(200.0, {"h": 195.0})
        left = base.Record(100, 0, 100.0, True)
        self.assertEqual(
            "reported", self.ask("h", left, 200, self.others.group)
        )

    def test_the_record_counts_while_the_other_backend_is_unreachable(self):
        """It counts if the member reports to the database, too."""
        self.others.refresh(100.0, {"h": 99.0})
        self.others.fails(102.0)
        self.assertEqual("reported", self.merged(195, 200))
        # It reported to both until it died.
        for report in (98, 130):
            self.setUp()
            self.others.refresh(100.0, {"h": 99.0})
            self.others.fails(102.0)
            self.assertEqual("silent", self.merged(report, 200))

    def test_unavailable_if_its_only_backend_is_unreachable(self):
        self.others.refresh(100.0, {"h": 99.0})
        self.others.fails(102.0)
        self.assertEqual("reported", self.merged(38, 160))
        self.assertEqual("unavailable", self.merged(38, 160.1))
        # A member that the other backend does not know is judged by its
        # record.
        self.assertEqual("silent", self.merged(38, 161, "h2"))

    def test_only_an_outage_of_both_backends_excuses_a_member(self):
        self.others.refresh(100.0, {"h": 95.0})
        self.others.fails(102.0)
        self.reports_fail(101, 160)
        self.reports_work(161)
        self.others.refresh(165.0, {"h": 95.0})
        self.assertEqual("reported", self.merged(95, 166))
        # An outage of the database alone does not.
        self.setUp()
        self.others.refresh(100.0, {"h": 95.0})
        self.reports_fail(101, 160)
        self.others.refresh(165.0, {"h": 95.0})
        self.assertEqual("silent", self.merged(95, 166))


class NotConfiguredTest(RecordsTestCase):
    """Members report by another driver: a record never makes one down."""

    def ask_both(self, record, now, others=None):
        return self.ask("h", record, now, others, configured=False)

    def test_the_verdict_of_a_record_alone(self):
        for verdict, record in (
            ("reported", (1, 1, LIMIT)),
            ("not-a-member", (1, 1, LIMIT + 1)),
            ("not-a-member", (1, -1, 1.0, False, True)),
            ("not-a-member", (None, None, LIMIT + 1)),
        ):
            with self.subTest(record):
                self.setUp()
                record = base.Record(*record)
                self.assertEqual(verdict, self.ask_both(record, 1000.0))

    def test_the_verdict_of_a_record_and_another_backend(self):
        others = Observer("mc")
        others.refresh(200.0, {"h": 195.0, "other": 130.0})
        old, fresh = base.Record(1, 1, 150.0), base.Record(2, 2, 1.0)
        self.assertEqual("reported", self.ask_both(old, 200.0, others.group))
        self.assertEqual(
            "unavailable", self.ask_both(old, 261.0, others.group)
        )
        # The member still reports to the database, too.
        others.refresh(256.0, {"h": 195.0, "other": 130.0})
        self.assertEqual("silent", self.ask_both(old, 256.0, others.group))
        self.assertEqual("reported", self.ask_both(fresh, 257.0, others.group))
