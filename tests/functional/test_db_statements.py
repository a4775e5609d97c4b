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

"""The statements of the db driver: how many there are, and which."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from oslo_utils import timeutils

from nova_sg import exception
from nova_sg.backends.db import reports
from nova_sg.servicegroup import process
from tests import single_mode
from tests.base import PATIENCE, wait_for
from tests.functional import db

# Seconds between two refreshes of an agent that observes.
REFRESH = 0.5


@single_mode
class SteadyMemberTest(db.MariaDBTestCase):
    def test_a_report_is_one_update_and_nothing_else(self):
        interval = 0.1
        updates = self._global_status("Com_update")
        # These include pings, which are not in the log.
        others = self._global_status("Com_admin_commands")
        with self.general_log() as log:
            counted = self.count_statements()
            self.join("one", interval=interval)
            wait_for(
                lambda: (self.value("report_count", "one") or 0) >= 15
            )
            self.stop_reports()
            reports = log.from_first_report()
        number = self.value("report_count", "one")

        self.assertEqual(number, len(reports))
        for _, command, text in reports:
            self.assertEqual("Query", command)
            self.assertRegex(text, db.REPORT)
        self.assertEqual(number, self._global_status("Com_update") - updates)
        self.assertEqual(0, self._global_status("Com_admin_commands") - others)
        # SQLAlchemy counts them, too, with names for the parameters. The
        # first report has other parameters.
        self.assertEqual(1, len(set(counted[1 - number:])), counted)
        self.assertEqual(
            number, sum(text.startswith("UPDATE") for text in counted)
        )
        self._check_pace(reports, interval)

    def _check_pace(self, reports, interval):
        # The first report is sent by join, not by the timer.
        times = [when for when, _, _ in reports[1:]]
        span = (times[-1] - times[0]).total_seconds()
        steps = len(times) - 1
        # Each pause may be shorter by up to a tenth of an interval, and any
        # report may be late.
        self.assertGreater(span, (steps - 1) * interval)
        self.assertLess(span, steps * interval * 3 + 2)

    def test_the_agent_sends_reports_alone(self):
        """Nothing asks in its process, so it reads nothing of the group."""
        number, entries, reports, refreshes, others = self._run_agent()
        self.assertEqual(number, len(reports))
        self.assertEqual([], refreshes)
        self._check_connections(others, 1)

    def test_an_agent_that_logs_transitions_sends_refreshes_as_well(self):
        number, entries, reports, refreshes, others = self._run_agent(
            "log_transitions = true\n"
        )
        self.assertEqual(number, len(reports))
        span = (entries[-1][0] - entries[0][0]).total_seconds()
        self.assertGreater(len(refreshes), 1)
        self.assertLessEqual(len(refreshes), span / REFRESH + 2)
        # Where a report, a refresh and a periodic task meet, another
        # connection is opened.
        self._check_connections(others, 2)

    def _check_connections(self, statements, most):
        """Check that statements are those that begin connections."""
        for text in statements:
            # The last one is asked by a report on a new connection.
            self.assertRegex(
                text,
                r"^(SET (NAMES utf8mb4|AUTOCOMMIT = [01]|"
                r"SESSION innodb_lock_wait_timeout = .*)|"
                r"SELECT UTC_TIMESTAMP\(6\) AS \w+)$",
            )
        self.assertLessEqual(len(statements), 5 * most)

    def _run_agent(self, options=""):
        """Run an agent for several intervals.

        :param options: more lines of [DEFAULT]
        :returns: the number of the last report; the statements; the texts of
            the reports, of the refreshes, and of all others
        """
        interval = 0.2
        path = os.path.join(self.folder, "agent.conf")
        with open(path, "w") as config:
            config.write(
                "[DEFAULT]\n"
                "host = one\n"
                f"report_interval = {interval}\n"
                "service_down_time = 20\n"
                f"{options}"
                "[servicegroup]\n"
                f"view_refresh_interval = {REFRESH}\n"
                "[database]\n"
                f"connection = {self.url}\n"
            )
        with self.general_log() as log:
            agent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "nova_sg.cmd.agent"),
                    *("--config-file", path),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            with agent:
                self.addCleanup(agent.kill)
                # The timer's first report comes five seconds later.
                wait_for(
                    lambda: (self.value("report_count", "one") or 0) >= 10
                )
                # So that it sends nothing while the log is read.
                agent.send_signal(signal.SIGSTOP)
                entries = self._settled(log)
                number = self.value("report_count", "one")
                agent.send_signal(signal.SIGCONT)
                agent.send_signal(signal.SIGTERM)
                output, _ = agent.communicate(timeout=PATIENCE)
        self.assertEqual(0, agent.returncode, output)

        reports, refreshes, others = [], [], []
        for _, _, text in entries:
            if db.REPORT.fullmatch(text):
                reports.append(text)
            elif db.REFRESH.match(text):
                refreshes.append(text)
            else:
                others.append(text)
        return number, entries, reports, refreshes, others

    def _settled(self, log):
        """Return the log once the last statement is in it."""

        def settled():
            entries = log.from_first_report()
            time.sleep(0.2)
            return entries if log.from_first_report() == entries else None

        return wait_for(settled, message="no further statement comes")

    def _global_status(self, name):
        rows = self.server.execute(f"SHOW GLOBAL STATUS LIKE '{name}'")
        return int(rows[0][1])


@single_mode
class ManyMembersTest(db.MariaDBTestCase):
    MEMBERS = 10_000

    def setUp(self):
        super().setUp()
        self.sql(
            "INSERT INTO services (host, topic, `binary`, report_count, "
            "deleted, created_at, last_seen_up) "
            "SELECT CONCAT('node-', seq), 'compute', 'nova-compute', 7, 0, "
            "UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) - INTERVAL IF(seq > 10, 0, 1) "
            f"DAY FROM seq_1_to_{self.MEMBERS}"
        )

    def listed(self):
        """List the group; None: there is no answer yet."""
        with contextlib.suppress(exception.ServiceGroupUnavailable):
            return self.api.members("compute")

    def test_a_list_is_one_query(self):
        # However slow the machine is, there is no second refresh, and no
        # question to the server why no member reports.
        self.flags("servicegroup", view_refresh_interval=600)
        self.flags(service_down_time=3600.0, report_interval=600.0)
        counted = self.count_statements()
        with self.general_log() as log:
            # It waits for the first refresh, but not for as long as that may
            # take on a busy machine.
            members = wait_for(self.listed)
            again = self.api.members("compute")
            up = self.api.get_all("compute")
            refreshes = [t for t in log.texts() if "FROM services" in t]
        self.assertEqual(self.MEMBERS, len(members))
        self.assertEqual(
            [f"node-{n}" for n in range(1, 11)],
            sorted(
                (m.host for m in members if m.state == "down"),
                key=lambda host: int(host.partition("-")[2]),
            ),
        )
        self.assertEqual(self.MEMBERS - 10, len(up))
        self.assertEqual(self.MEMBERS, len(again))
        self.assertEqual(1, len(refreshes))
        self.assertRegex(refreshes[0], db.REFRESH)
        self.assertEqual(1, len(counted), counted)

    def test_no_statement_reads_the_whole_table(self):
        # Add another group of deleted members, and delete some of this one.
        self.sql(
            "INSERT INTO services (host, topic, `binary`, report_count, "
            "deleted) SELECT CONCAT('gone-', seq), 'conductor', "
            f"'nova-conductor', 7, seq FROM seq_1_to_{2 * self.MEMBERS}"
        )
        self.sql(
            "UPDATE services SET deleted = id WHERE host LIKE 'node-%%9'"
        )
        self.sql("ANALYZE TABLE services")
        with self.general_log() as log:
            self.join("one", group="conductor")
            self.api.members("conductor")
            self.api.groups()
            self.api.force_down("one", "conductor")
            self.api.leave("one", "conductor")
            self.api.forget("one", "conductor")
            driver = process.shared().driver
            many = [reports.Record(number) for number in range(1, 101)]
            for one in many:
                one.adopt(reports.Stored(7, None), timeutils.utcnow())
                one.found = None
            driver._database.run(
                lambda c: reports.report_many(c, many, 10.0)
            )
            said = [t for t in log.texts() if " services" in t]
        explained = {}
        for statement in said:
            if statement.startswith("INSERT"):
                continue
            [plan] = self.sql(
                "EXPLAIN " + statement.replace("%", "%%")
            )
            explained[statement] = plan[3], plan[8]
        # Finding a record, a refresh, the groups, and four changes, two of
        # them for many members.
        self.assertEqual(9, len(explained), explained)
        for statement, (access, rows) in explained.items():
            with self.subTest(statement):
                self.assertNotIn(access, ("ALL", None))
                if "DISTINCT" not in statement:
                    self.assertNotEqual("index", access)
                    self.assertLessEqual(int(rows), 200)

    def test_questions_by_name_make_no_query(self):
        self.flags("servicegroup", view_refresh_interval=600)
        # No member reports, which is no reason to ask the server yet.
        self.flags(service_down_time=3600.0, report_interval=600.0)
        self.wait_for_state("up", "node-5000")
        counted = self.count_statements()
        self.assertTrue(
            all(self.is_up(f"node-{n}") for n in range(11, self.MEMBERS + 1))
        )
        self.assertFalse(any(self.is_up(f"node-{n}") for n in range(1, 11)))
        self.assertEqual([], counted)
