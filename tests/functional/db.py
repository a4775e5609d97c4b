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

"""What the tests of the db driver share: databases, counters, logs."""

import contextlib
import re
from unittest import mock

import pymysql
import sqlalchemy as sa

from nova_sg import exception, servicegroup
from nova_sg.backends.db import engine, schema
from nova_sg.servicegroup import process, reporter
from tests import base
from tests.base import PATIENCE, wait_for
from tests.fixtures import mariadb
from tests.fixtures import process as servers

PASSWORD = "secret"

# What the driver tells the database, as the database writes it down.
REPORT = re.compile(
    r"UPDATE services SET updated_at=UTC_TIMESTAMP\(6\), "
    r"report_count=\d+, last_seen_up=UTC_TIMESTAMP\(6\) "
    r"WHERE services\.id = \d+ AND services\.deleted = 0 "
    # The first one knows what it finds.
    r"AND services\.report_count (BETWEEN 1 AND \d+ - 1|= 0 AND .*) "
    r"AND UTC_TIMESTAMP\(6\) <= '[-\d]+ [:.\d]+'"
)
LOOK = re.compile(r"SELECT UTC_TIMESTAMP\(6\) AS now, .* FROM services WHERE")


class TestCase(base.TestCase):
    """A group compute with short intervals, on the embedded database.

    The time that a member may be silent is long where a test does not say
    otherwise: no machine is too slow for it.
    """

    DOWN_TIME = 20.0

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=self.DOWN_TIME, report_interval=0.1)
        self.flags("servicegroup", view_refresh_interval=0.05)
        # The second report would come five seconds after the first.
        self.enterContext(
            mock.patch.object(reporter, "INITIAL_REPORTING_DELAY", 0.1)
        )
        # On a busy machine the first report may take longer than join waits
        # for it; the tests rely on it.
        self.enterContext(mock.patch.object(reporter, "JOIN_WAIT", 60))
        self.api = servicegroup.API()
        self.members = []
        self.addCleanup(self._check_timers)

    def join(self, host, group="compute", **kwargs):
        """Have a new member join, and return its service."""
        member = base.Member(host, topic=group, **kwargs)
        self.members.append(member)
        self.api.join(host, group, member)
        return member

    def state(self, host, group="compute"):
        """Return a member's state; None: there is no such member."""
        try:
            return self.api.member(group, host).state
        except exception.MemberNotFound:
            return None
        except exception.ServiceGroupUnavailable:
            return "unknown"

    def is_up(self, host, group="compute"):
        """Ask about a member as somebody who knows no more than its name."""
        return self.api.service_is_up({"host": host, "topic": group})

    def wait_for_state(self, state, host, timeout=PATIENCE):
        wait_for(
            lambda: self.state(host) == state,
            timeout,
            lambda: f"{host} is {state}, it is {self.state(host)}",
        )

    def stop_reports(self):
        """End all reports of this process; nobody leaves."""
        for shared in list(process._shared.values()):
            shared.stop_reports()
        self.assert_no_thread_named("nova-sg-report")

    def count_statements(self):
        """Return the list that each statement from now on is added to."""
        statements = []

        def note(connection, cursor, statement, *more):
            statements.append(" ".join(statement.split()))

        driver = process.shared().driver
        sa.event.listen(driver._database.engine, "before_cursor_execute", note)
        return statements

    def count_reports(self):
        """Return the list that each attempt to report is added to."""
        attempts = []
        driver = process.shared().driver
        report = driver.report

        def count(membership):
            try:
                report(membership)
            except BaseException as error:
                attempts.append(error)
                raise
            attempts.append(None)

        driver.report = count
        return attempts

    def _check_timers(self):
        # A report on its way would be the next test's.
        self.stop_reports()
        raised = [error for m in self.members for error in m.tg.raised]
        self.assertEqual([], raised, "raised out of a timer")


class MariaDBTestCase(TestCase):
    """The same on MariaDB, with a database and a user of its own."""

    SERVER = mariadb.MariaDB

    def setUp(self):
        super().setUp()
        self.server = servers.shared(self.SERVER)
        self.name = self.make_database()
        self.url = self.make_user(self.name, "ALL")
        self.flags("database", connection=self.url)
        # Nobody is to find the database gone.
        self.addCleanup(process.reset)

    def make_database(self):
        """Make a database with the services table; return its name."""
        url = self.server.create_database()
        name = url.rpartition("/")[2]
        self.addCleanup(self._drop, name)
        self.sync(url)
        return name

    def link(self):
        """Open a transaction of somebody else; return its cursor."""
        link = pymysql.connect(
            host="127.0.0.1",
            port=self.server.port,
            user="root",
            password=PASSWORD,
            database=self.name,
            autocommit=False,
            read_timeout=PATIENCE,
        )
        self.addCleanup(link.close)
        return link.cursor()

    @staticmethod
    def sync(url):
        database = engine.Database(sa.make_url(url))
        try:
            schema.sync(database)
        finally:
            database.close()

    def make_user(self, name, privilege):
        """Make a user with a privilege on the database; return the URL."""
        self.server.execute(
            f"CREATE USER {name}@127.0.0.1 IDENTIFIED BY '{PASSWORD}'"
        )
        self.server.execute(
            f"GRANT {privilege} ON `{self.name}`.* TO {name}@127.0.0.1"
        )
        self.addCleanup(self._drop_user, name)
        return (
            f"mysql+pymysql://{name}:{PASSWORD}@127.0.0.1:"
            f"{self.server.port}/{self.name}"
        )

    def sql(self, statement, *parameters):
        """Run a statement on the database as root."""
        return self.server.execute(statement, *parameters, database=self.name)

    def value(self, column, host):
        """Return a column of a host's newest record."""
        rows = self.sql(
            f"SELECT {column} FROM services WHERE host = %s "
            "ORDER BY id DESC LIMIT 1",
            host,
        )
        return rows[0][0] if rows else None

    def wait_for_report(self, host, more=1, timeout=PATIENCE):
        """Wait until a host has reported so many times from now on."""
        target = (self.value("report_count", host) or 0) + more
        wait_for(
            lambda: (self.value("report_count", host) or 0) >= target,
            timeout,
            f"{host} has reported {more} times more",
        )

    def connections(self):
        """Return the ids of the connections of the database's user."""
        rows = self.server.execute(
            "SELECT id FROM information_schema.processlist WHERE user = %s",
            self.name,
        )
        return [row[0] for row in rows]

    @contextlib.contextmanager
    def general_log(self, user=None):
        """Have the server write down what a user tells it."""
        self.server.execute("SET GLOBAL log_output = 'TABLE'")
        self.server.execute("TRUNCATE mysql.general_log")
        self.server.execute("SET GLOBAL general_log = 1")
        try:
            yield GeneralLog(self.server, user or self.name)
        finally:
            self.server.execute("SET GLOBAL general_log = 0")

    def _drop(self, name):
        servers.shared(self.SERVER)
        self.server.execute(f"DROP DATABASE `{name}`")

    def _drop_user(self, name):
        servers.shared(self.SERVER)
        self.server.execute(f"DROP USER {name}@127.0.0.1")


class GeneralLog:
    """What one user told the server, by the server's own account."""

    def __init__(self, server, user):
        self._server = server
        self._user = user

    def entries(self):
        """Return (when, command, text), the oldest first.

        Connecting and disconnecting are not among them.
        """
        return [
            (when, command, " ".join(text.split()))
            for when, command, text in self._server.execute(
                "SELECT event_time, command_type, argument "
                "FROM mysql.general_log WHERE user_host LIKE %s "
                "AND command_type NOT IN ('Connect', 'Quit') "
                "ORDER BY event_time",
                f"{self._user}[%",
            )
        ]

    def texts(self):
        return [text for _, _, text in self.entries()]

    def from_first_report(self):
        """Return the entries, the first report being the first."""
        entries = self.entries()
        while entries and not REPORT.fullmatch(entries[0][2]):
            del entries[0]
        return entries
