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

"""Names of one host that differ in case only, and names that are shared."""

import contextlib
import sqlite3
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.backends import base as backends
from nova_sg.backends.db import schema
from nova_sg.servicegroup import process, reporter
from tests.base import wait_for
from tests.functional import db, mc, zk


class OtherCase:
    """The record of a service may have another case than its member."""

    def setUp(self):
        super().setUp()
        self.start_backend()
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.api = servicegroup.API()

    def start_backend(self):
        pass

    def is_up(self, host):
        return self.api.service_is_up({"topic": "compute", "host": host})

    def test_a_record_in_another_case_is_of_the_same_member(self):
        self.join("Ctl1")
        wait_for(lambda: self.is_up("Ctl1"))
        self.assertTrue(self.is_up("ctl1"))
        self.assertTrue(
            self.api.accepts({"topic": "compute", "host": "CTL1"})
        )
        self.assertEqual("Ctl1", self.api.member("compute", "ctl1").host)
        [state] = self.api.backend_states("compute", "ctl1")
        self.assertEqual("Ctl1", state.member.host)
        self.assertIsNotNone(
            self.api.get_updated_time(
                {"topic": "compute", "host": "ctl1", "updated_at": None}
            )
        )

    def test_an_old_record_in_another_case_does_not_count_alone(self):
        """As inside Nova: the services table has an old report."""
        self.join("Ctl1")
        wait_for(lambda: self.is_up("Ctl1"))
        shared = self.api._driver.shared()
        record = backends.Record("2020-01-01", 7, 1e8)
        verdict = shared.verdict(
            "compute", "ctl1", record, self.api._driver._limits
        )
        self.assertEqual("up", verdict.state)

    def test_what_was_done_to_the_member_counts_for_its_record(self):
        self.join("Ctl1")
        wait_for(lambda: self.is_up("ctl1"))
        self.api.force_down("Ctl1", "compute")
        self.assertFalse(self.is_up("ctl1"))
        self.api.force_down("Ctl1", "compute", forced=False)
        wait_for(lambda: self.is_up("ctl1"))
        self.api.leave("Ctl1", "compute")
        self.assertFalse(self.is_up("ctl1"))

    def test_of_two_members_neither_is_guessed(self):
        self.join("Ctl1")
        self.join("ctl1")
        wait_for(lambda: self.is_up("Ctl1") and self.is_up("ctl1"))
        self.assertFalse(self.is_up("CTL1"))
        with self.assertRaises(exception.MemberNotFound):
            self.api.member("compute", "CTL1")
        self.api.leave("ctl1", "compute")
        self.assertFalse(self.is_up("ctl1"))
        self.assertTrue(self.is_up("Ctl1"))


class McTest(OtherCase, mc.McTestCase):
    def start_backend(self):
        self.start()

    def join(self, host):
        return super().join(host, interval=0.1)


class ZkTest(OtherCase, zk.ZkTestCase):
    pass


class Records:
    """Members that have a record of their own in nova_sg's own table."""

    DOWN_TIME = 6.0

    def stop(self, member):
        """Have a member report no more, as if it had died."""
        member.tg.moving.clear()
        self.addCleanup(member.tg.moving.set)

    def test_one_binary_in_two_groups_of_a_host(self):
        """The end of one of them is seen, whichever was there first."""
        first = self.join("one", "first", binary="agent")
        self.join("one", "second", binary="agent")
        for group in ("first", "second"):
            wait_for(lambda g=group: self.state("one", g) == "up")
            self.assertEqual(["one"], self.api.get_all(group))
        self.stop(first)
        wait_for(lambda: self.state("one", "first") == "down")
        self.assertEqual("up", self.state("one", "second"))
        self.api.leave("one", "second")
        self.assertEqual("down", self.state("one", "second"))

    def test_hosts_that_differ_in_case_only(self):
        one = self.join("Ctl1")
        self.join("ctl1")
        self.assertEqual(["Ctl1", "ctl1"], self.api.get_all("compute"))
        self.stop(one)
        wait_for(lambda: self.state("Ctl1") == "down")
        self.assertEqual("up", self.state("ctl1"))
        self.api.force_down("ctl1", "compute")
        self.assertEqual(
            {"Ctl1": False, "ctl1": True},
            {
                member.host: member.forced_down
                for member in self.api.members("compute")
            },
        )
        self.api.forget("Ctl1", "compute")
        members = self.api.members("compute")
        self.assertEqual(["ctl1"], [member.host for member in members])

    def test_groups_that_differ_in_case_only(self):
        self.join("one", "Compute")
        self.join("two", "compute")
        self.assertEqual(["one"], self.api.get_all("Compute"))
        self.assertEqual(["two"], self.api.get_all("compute"))

    def test_the_table_is_upgraded_while_members_report(self):
        """No member has to be restarted, and none falls."""
        self.make_older()
        self.join("one")
        self.join("two")
        count = self.count("one")
        events = self.collect(self.api)
        self.sync(self.url, "head")
        for host in ("one", "two"):
            self.assertGreaterEqual(self.count(host), count)
            reached = self.count(host)
            wait_for(lambda h=host, n=reached: self.count(h) > n + 2)
            self.assertEqual("up", self.state(host))
        self.assertEqual([], events)
        self.assertEqual([], self.logs.matching("Cannot report", 30))
        # It has the rules of the new one.
        self.join("one", "second", binary="nova-compute")
        wait_for(lambda: self.state("one", "second") == "up")


class SQLiteTest(Records, db.TestCase):
    def make_older(self):
        self.url = f"sqlite:///{self.folder}/older.sqlite"
        self.flags("database", connection=self.url)
        db.MariaDBTestCase.sync(self.url, "0002")

    sync = staticmethod(db.MariaDBTestCase.sync)

    def count(self, host):
        with contextlib.closing(
            sqlite3.connect(self.url.removeprefix("sqlite:///"))
        ) as link:
            [[count]] = link.execute(
                "SELECT report_count FROM services "
                "WHERE host = ? AND topic = 'compute'",
                [host],
            ).fetchall()
        return count


class MariaDBTest(Records, db.MariaDBTestCase):
    def make_older(self):
        self.downgrade()

    def count(self, host):
        return self.value("report_count", host)

    def downgrade(self):
        """Have the table as an older version of nova_sg made it."""
        self.sql("DROP TABLE services")
        self.sql(f"DROP TABLE {schema.VERSION_TABLE}")
        self.sync(self.url, "0002")

    def refusal(self, words, *arguments, **parameters):
        """Return why a member cannot report: the warning with these words."""
        with mock.patch.object(reporter, "JOIN_WAIT", 0.1):
            self.join(*arguments, **parameters)
        [text] = wait_for(lambda: self.logs.matching(words, 30))
        return text

    def test_the_table_of_an_older_version(self):
        """What it cannot hold apart is refused until it is upgraded."""
        self.downgrade()
        [bad] = [one for one in process.load("db").check() if not one.ok]
        self.assertIn("at revision 0002", bad.text)
        self.assertIn("nova-sg db sync", bad.remedy)
        self.join("Ctl1", "first", binary="agent")
        self.assertEqual(["Ctl1"], self.api.get_all("first"))
        text = self.refusal("older version", "Ctl1", "second", binary="agent")
        self.assertIn("agent on Ctl1", text)
        self.assertIn("nova-sg db sync", text)
        self.assertEqual([], self.api.get_all("second"))
        text = self.refusal("has a record of Ctl1", "ctl1", "first")
        self.assertIn("nova-sg db sync", text)
        self.assertEqual(["Ctl1"], self.api.get_all("first"))
        self.sync(self.url)
        wait_for(lambda: self.api.get_all("second") == ["Ctl1"])
        wait_for(lambda: self.api.get_all("first") == ["Ctl1", "ctl1"])
        findings = process.shared().driver.check()
        self.assertEqual([], [one for one in findings if not one.ok])
        self.assertEqual(
            schema.HEAD, schema.revision(process.shared().driver._database)
        )


    def as_nova_makes_it(self):
        """Have a table that nova_sg did not make, with one record."""
        self.downgrade()
        self.sql(f"DROP TABLE {schema.VERSION_TABLE}")
        self.sql(
            "INSERT INTO services (host, topic, `binary`, created_at, "
            "report_count, deleted) VALUES ('Ctl1', 'compute', "
            "'nova-compute', UTC_TIMESTAMP(6), 0, 0)"
        )

    def test_a_record_of_nova_s_in_another_case(self):
        self.as_nova_makes_it()
        text = self.refusal("has a record of Ctl1", "ctl1")
        self.assertIn("[DEFAULT] host", text)
        self.assertEqual(0, self.value("report_count", "Ctl1"))
        self.join("Ctl1")
        self.wait_for_report("Ctl1")

    def test_a_record_of_nova_s_in_another_group(self):
        self.as_nova_makes_it()
        text = self.refusal(
            "group compute", "Ctl1", "mine", binary="nova-compute"
        )
        self.assertIn("nova-compute on Ctl1", text)
        self.assertEqual(0, self.value("report_count", "Ctl1"))
