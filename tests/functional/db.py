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

"""Base classes of the db driver's tests, with databases and counters."""

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

# A report and a refresh, as the database logs these statements.
REPORT = re.compile(
    r"UPDATE services SET updated_at=UTC_TIMESTAMP\(6\), "
    r"report_count=\d+, last_seen_up=UTC_TIMESTAMP\(6\) "
    r"WHERE services\.id = \d+ AND services\.deleted = 0 "
    # A member's first report knows the number that it replaces.
    r"AND services\.report_count (BETWEEN 1 AND \d+ - 1|= 0 AND .*) "
    r"AND UTC_TIMESTAMP\(6\) <= '[-\d]+ [:.\d]+'"
)
REFRESH = re.compile(
    r"SELECT UTC_TIMESTAMP\(6\) AS now, .* FROM services WHERE"
)


class TestCase(base.TestCase):
    """A group compute with short intervals, on the embedded database.

    service_down_time is long unless a test sets it, so that no member falls
    because the machine is busy.
    """

    DOWN_TIME = 20.0

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=self.DOWN_TIME, report_interval=0.1)
        self.flags("servicegroup", view_refresh_interval=0.05)
        # Otherwise the second report comes five seconds after the first.
        self.enterContext(
            mock.patch.object(reporter, "INITIAL_REPORTING_DELAY", 0.1)
        )
        # The tests rely on the first report, which may take long on a busy
        # machine.
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
        """Ask about a member by its name alone."""
        return self.api.service_is_up({"host": host, "topic": group})

    def wait_for_state(self, state, host, timeout=PATIENCE):
        wait_for(
            lambda: self.state(host) == state,
            timeout,
            lambda: f"{host} is {state}, it is {self.state(host)}",
        )

    def stop_reports(self):
        """End all reports of this process; no member leaves."""
        for shared in list(process._shared.values()):
            shared.stop_reports()
        self.assert_no_thread_named("nova-sg-report")

    def count_statements(self):
        """Return a list that gets each statement from now on."""
        statements = []

        def note(connection, cursor, statement, *more):
            statements.append(" ".join(statement.split()))

        driver = process.shared().driver
        sa.event.listen(driver._database.engine, "before_cursor_execute", note)
        return statements

    def count_reports(self):
        """Return a list that gets each attempt to report from now on."""
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
        # A report under way would count in the next test.
        self.stop_reports()
        raised = [error for m in self.members for error in m.tg.raised]
        self.assertEqual([], raised, "raised out of a timer")


class MariaDBTestCase(TestCase):
    """The same on MariaDB, with a database and a user for each test."""

    SERVER = mariadb.MariaDB

    def setUp(self):
        super().setUp()
        self.server = servers.shared(self.SERVER)
        self.name = self.make_database()
        self.url = self.make_user(self.name, "ALL")
        self.flags("database", connection=self.url)
        # Before the database is dropped no driver uses it any more.
        self.addCleanup(process.reset)

    def make_database(self):
        """Make a database with the services table; return its name."""
        url = self.server.create_database()
        name = url.rpartition("/")[2]
        self.addCleanup(self._drop, name)
        self.sync(url)
        return name

    def link(self):
        """Open a transaction of another client; return its cursor."""
        link = pymysql.connect(
            host="127.0.0.1",
            port=self.server.port,
            user="root",
            password=PASSWORD,
            database=self.name,
            autocommit=False,
            read_timeout=PATIENCE,
            # For TLS it would read all certificates of the system.
            ssl_disabled=True,
        )
        self.addCleanup(link.close)
        return link.cursor()

    @staticmethod
    def sync(url, revision="head"):
        database = engine.Database(sa.make_url(url))
        try:
            schema.sync(database, revision=revision)
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
        """Wait until a host has reported so many times more."""
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
        """Have the server log the statements of a user; return the log."""
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
    """The statements of one user, by the server's general log."""

    def __init__(self, server, user):
        self._server = server
        self._user = user

    def entries(self):
        """Return (when, command, text), the oldest first.

        Connects and disconnects are left out.
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

    def connections(self):
        """Return the ids of the connections that the user's statements had."""
        rows = self._server.execute(
            "SELECT DISTINCT thread_id FROM mysql.general_log "
            "WHERE user_host LIKE %s AND command_type = 'Query'",
            f"{self._user}[%",
        )
        return {number for (number,) in rows}

    def from_first_report(self):
        """Return the entries from the first report on."""
        entries = self.entries()
        while entries and not REPORT.fullmatch(entries[0][2]):
            del entries[0]
        return entries
