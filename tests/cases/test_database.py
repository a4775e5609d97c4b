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

"""The database: cases that operators reported, on MariaDB and Galera."""

import contextlib
import logging
import os
import subprocess
import time

import pymysql
import sqlalchemy as sa
from oslo_db import options as oslo_db_options

from nova_sg import config, exception, servicegroup
from nova_sg.backends.db import engine, health, schema
from nova_sg.conf import CONF
from nova_sg.conf import database as database_options
from nova_sg.servicegroup import process
from tests import LONG, single_mode
from tests.base import wait_for
from tests.fixtures import galera
from tests.fixtures import process as servers
from tests.functional import db, test_db_galera, test_db_trouble
from tests.functional.test_db_trouble import (
    REPORT_AGAIN,
    REPORT_TROUBLE,
    TlsMariaDB,
)

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")


def make_certificate(path, *more):
    """Make a certificate, with its key in PATH.key."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-days", "2", "-subj", "/CN=x"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-out", path, "-keyout", f"{path}.key"),
            *(more or ["-nodes"]),
        ],
        check=True,
        capture_output=True,
    )
    return path


def _green_if_long(test):
    """Decorate a class that runs in eventlet in the long form alone.

    Its statements are those of other classes, which run in both modes.
    """
    return test if LONG else single_mode(test)


class DatabaseTestCase(test_db_trouble.TroubleTestCase):
    def connect_with(self, *parameters, url=None):
        """Use other parameters of the connection from now on."""
        process.reset()
        text = f"{url or self.url}?{'&'.join(parameters)}".rstrip("?")
        self.flags("database", connection=text)
        self.api = servicegroup.API()

    def run_work(self, work):
        """Run a function with a connection of the driver."""
        return process.shared().driver._run(work)

    def row(self, statement):
        """Return a row that a connection of the driver gets."""
        return self.run_work(lambda c: c.execute(sa.text(statement)).one())

    def path(self, name, content=None):
        """Return a path in the test's folder, of a file with that content."""
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content.encode("latin-1"))
        return path

    def refuse(self, number, condition="TRUE"):
        """Have the server answer updates by an error, until accept()."""
        self.sql(
            "CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON services "
            f"FOR EACH ROW BEGIN IF {condition} THEN SIGNAL SQLSTATE 'HY000' "
            f"SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'refused'; "
            "END IF; END"
        )

    def accept(self):
        self.sql("DROP TRIGGER IF EXISTS refuse")


class FilesTest(DatabaseTestCase):
    """The files of TLS, and option files.

    After a rotation of certificates, or on a node where a file was forgotten,
    the error was "[Errno 2] No such file or directory", or lines of a parser.
    """

    def errors_of(self, *parameters):
        """Return what an operator reads with these parameters."""
        self.connect_with(*parameters)
        with self.assertRaises(exception.BackendError) as caught:
            self.api.groups()
        said = str(caught.exception)
        [found] = process.shared().driver.check()
        self.assertFalse(found.ok)
        self.assertIn(found.text, said)
        for text in (said, found.text):
            self.assertNotIn(db.PASSWORD, text)
            self.assertNotIn("\n", text)
        return said

    def test_a_file_of_tls_that_cannot_be_used_is_named(self):
        good = make_certificate(self.path("good.pem"))
        other = make_certificate(self.path("other.pem"))
        locked = make_certificate(
            self.path("locked.pem"), "-passout", "pass:word"
        )
        missing = self.path("missing.pem")
        text = self.path("text.pem", "not a certificate")
        broken = self.path(
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        for parameters, words in (
            ([f"ssl_ca={missing}"], f"ssl_ca: cannot read {missing}: No such"),
            ([f"ssl_ca={self.folder}"], f"cannot read {self.folder}: Is a d"),
            ([f"ssl_ca={text}"], f"ssl_ca: {text} is not a file in PEM form"),
            ([f"ssl_ca={broken}"], f"ssl_ca: {broken} has no valid certific"),
            ([f"ssl_ca={good}", f"ssl_cert={missing}"], "ssl_cert: cannot r"),
            (
                [f"ssl_cert={good}", f"ssl_key={missing}"],
                f"ssl_key: cannot read {missing}: No such file",
            ),
            (
                [f"ssl_cert={good}", f"ssl_key={other}.key"],
                f"ssl_key: {other}.key is not the private key of {good}",
            ),
            (
                [f"ssl_cert={locked}", f"ssl_key={locked}.key"],
                f"ssl_key: {locked}.key is protected by a password",
            ),
        ):
            with self.subTest(words):
                said = self.errors_of(*parameters)
                self.assertIn(words, said)
                self.assertIn("[database] connection names", said)

    def test_a_file_that_connection_parameters_names(self):
        missing = self.path("missing.pem")
        self.flags("database", connection_parameters=f"ssl_ca={missing}")
        said = self.errors_of()
        self.assertIn(f"ssl_ca: cannot read {missing}", said)
        self.assertIn("[database] connection_parameters names", said)

    def test_an_option_file_that_cannot_be_used_is_named(self):
        """PyMySQL's parser knows no !includedir, which Debian's files have.

        It passes over a file that is missing, and would connect without the
        TLS that is asked for there.
        """
        missing = self.path("missing.cnf")
        missing_ca = self.path("missing.pem")
        secret = f"password = {db.PASSWORD}\n"
        for content, words in (
            (None, f"cannot read {missing}: No such file"),
            ("!includedir /etc/mysql/conf.d/\n", "line 1: PyMySQL does not "),
            (f"[client]\n{secret}!include /x\n", None),
            (secret, "line 1: it has to begin with a section"),
            (f"[client]\n{secret}[client]\n", "line 3: a section is there tw"),
            (f"[client]\n{secret}{secret}", "line 3: an option is there twic"),
            ("[client]\nuser = \xff\n", "is not a text file in UTF-8"),
            (f"[client]\nssl-ca = {missing_ca}\n", "ssl-ca in "),
        ):
            path = missing
            if content is not None:
                path = self.path("my.cnf", content)
            with self.subTest(content):
                if words is None:
                    # The line is taken for an option of that name.
                    self.connect_with(f"read_default_file={path}")
                    self.assertEqual([], self.api.groups())
                    continue
                said = self.errors_of(f"read_default_file={path}")
                self.assertIn(words, said)
                self.assertIn(path, said)

    def test_an_option_file_is_used(self):
        path = self.path("my.cnf", f"[client]\npassword = {db.PASSWORD}\n")
        url = self.url.replace(f":{db.PASSWORD}@", "@")
        self.connect_with(f"read_default_file={path}", url=url)
        self.assertEqual([], self.api.groups())

    def test_it_is_one_warning_and_over_when_the_file_is_right(self):
        """An agent wrote 670 lines and 8 tracebacks in 14 seconds."""
        path = self.path("my.cnf", "!includedir /etc/mysql/conf.d/\n")
        self.connect_with(f"read_default_file={path}")
        self.logs.records.clear()
        member = self.join("one")
        attempts = self.count_reports()
        self.wait_for_log(REPORT_TROUBLE)
        self.wait_for_attempts(attempts, 5)
        self.path("my.cnf", "[client]\n")
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(REPORT_TROUBLE, REPORT_AGAIN)
        self.assertIn("!includedir", self.logs.matching(REPORT_TROUBLE)[0])
        traced = [one for one in self.logs.records if one.exc_info]
        self.assertEqual([], traced)


@_green_if_long
class AlikeTest(DatabaseTestCase):
    """mariadb+pymysql:// is mysql+pymysql://.

    SQLAlchemy has a dialect of its own for it, and oslo.db knows the errors of
    the other one: db sync ended with error 1146, and deadlocks, duplicates and
    1047 were handled otherwise.
    """

    PREFIXES = (
        "mysql+pymysql",
        "mariadb+pymysql",
        # SQLAlchemy would take MySQLdb for these.
        "mysql",
        "mariadb",
    )

    def each(self):
        """Use the database by each prefix in turn."""
        for prefix in self.PREFIXES:
            url = self.url.replace("mysql+pymysql", prefix)
            self.connect_with(url=url)
            yield prefix
            process.reset()
            self.sql("DELETE FROM services")

    def test_the_table_is_made(self):
        for prefix in self.each():
            url = self.server.create_database()
            self.addCleanup(self._drop, url.rpartition("/")[2])
            url = sa.make_url(url).set(drivername=prefix)
            made = engine.Database(url)
            try:
                self.assertEqual(schema.HEAD, schema.sync(made))
                self.assertEqual(schema.HEAD, schema.sync(made))
            finally:
                made.close()
            self.assertIn(f"{prefix}://root:***@", made.name)

    def test_a_missing_table_names_the_remedy(self):
        for prefix in self.each():
            self.sql("RENAME TABLE services TO elsewhere")
            with self.assertRaisesRegex(
                exception.BackendError, "db sync", msg=prefix
            ):
                self.api.groups()
            self.sql("RENAME TABLE elsewhere TO services")

    def test_processes_that_register_at_once(self):
        for prefix in self.each():
            driver = process.shared().driver
            found = driver._find
            calls = []

            def find(membership, found=found, calls=calls):
                calls.append(found(membership))
                if len(calls) == 1:
                    # Another process registers in this moment.
                    self.sql(
                        "INSERT INTO services (host, topic, `binary`, "
                        "report_count, deleted) VALUES "
                        "('one', 'compute', 'nova-compute', 0, 0)"
                    )
                return calls[-1]

            driver._find = find
            self.join("one")
            self.wait_for_report("one")
            self.assertIsNone(calls[0], prefix)
            self.assertEqual([], self.logs.matching(REPORT_TROUBLE))

    def test_a_deadlock_is_repeated_and_a_refusal_is_left(self):
        # So that an attempt to report takes half a second.
        self.flags(service_down_time=4.0)
        for prefix in self.each():
            for number, kept in ((1213, True), (1047, False)):
                self.join("one")
                self.wait_for_report("one")
                before = set(self.connections())
                attempts = self.count_reports()
                self.refuse(number)
                wait_for(
                    lambda attempts=attempts: any(attempts),
                    message=f"{prefix}: a report fails",
                )
                self.accept()
                self.wait_for_report("one", 3)
                self.assertTrue(self.is_up("one"))
                left = not before & set(self.connections())
                if kept:
                    self.assertFalse(left, prefix)
                process.reset()
                self.api = servicegroup.API()


class OtherLibraryTest(DatabaseTestCase):
    """Other libraries and databases are refused by name.

    MySQLdb and psycopg2 wait for the server in C code: all green threads of
    the process stood still for 34 seconds, and SIGTERM had no effect.
    """

    def test_it_is_refused_with_the_remedy(self):
        for prefix in (
            "mysql+mysqldb",
            "mysql+mysqlconnector",
            "mariadb+mariadbconnector",
            "mysql+aiomysql",
            "postgresql",
            "postgresql+psycopg2",
            "sqlite+aiosqlite",
            "oracle",
            "nosuch",
        ):
            with self.subTest(prefix):
                self.flags(
                    "database", connection=f"{prefix}://u:{db.PASSWORD}@h/d"
                )
                with self.assertRaises(exception.ConfigError) as caught:
                    process.load("db")
                said = str(caught.exception)
                self.assertIn(
                    f"[database] connection: {prefix} is not supported", said
                )
                self.assertIn("Write mysql+pymysql://USER:PASSWORD@", said)
                self.assertNotIn(db.PASSWORD, said)


@_green_if_long
class OptionsTest(DatabaseTestCase):
    """oslo.db's options have the effect that oslo.db gives them."""

    def test_each_option_of_oslo_db_is_accounted_for(self):
        honoured = set(database_options.HONOURED)
        without = set(database_options.WITHOUT_EFFECT)
        self.assertEqual(set(), honoured & without)
        theirs = {opt.name for opt in oslo_db_options.database_opts}
        self.assertEqual(
            set(),
            theirs - honoured - without,
            "oslo.db has new options: nova_sg/conf/database.py says whether "
            "they have an effect, and doc/source/drivers/db.rst",
        )
        self.assertEqual(set(), honoured - theirs)
        self.assertEqual(
            honoured, {opt.name for opt in database_options.DATABASE_OPTS}
        )
        page = os.path.join(ROOT, "doc", "source", "drivers", "db.rst")
        with open(page) as file:
            text = file.read()
        for name in theirs:
            self.assertIn(f"``{name}``", text)
        tested = " ".join(name for name in dir(self) if "test_" in name)
        for name in honoured - {"connection"}:
            self.assertIn(f"test_{name}", tested)

    def use(self, **options):
        process.reset()
        self.flags("database", **options)
        self.api = servicegroup.API()

    def connection_id(self):
        return self.row("SELECT CONNECTION_ID()")[0]

    def hold(self, number):
        """Hold connections at the same time; return how many there were."""

        def work(connection, left=number):
            if left == 1:
                return len(self.connections())
            return self.run_work(lambda c: work(c, left - 1))

        return self.run_work(work)

    def test_connection_parameters(self):
        """ssl_ca there was ignored: the server was not verified."""
        server = self.enterContext(TlsMariaDB())
        self.addCleanup(process.reset)
        other = make_certificate(self.path("other.pem"))
        url = server.create_database()
        self.sync(url)
        self.use(
            connection=url, connection_parameters=f"ssl_ca={other}"
        )
        with self.assertRaisesRegex(
            exception.BackendError, r"(?i)certificate.*check ssl_ca"
        ):
            self.api.groups()
        own = f"ssl_ca={server.certificate}"
        self.use(connection_parameters=own)
        self.assertEqual([], self.api.groups())
        # The guard connects in the same way.
        self.assertEqual(
            server.certificate,
            process.shared().driver._database.outside()["keywords"]["ssl"][
                "ca"
            ],
        )
        process.reset()
        self.flags("database", connection=f"{url}?{own}")
        with self.assertRaisesRegex(
            exception.ConfigError, "ssl_ca is given twice"
        ):
            process.load("db")

    def test_mysql_sql_mode(self):
        self.assertIn("NO_ZERO_DATE", self.row("SELECT @@sql_mode")[0])
        self.use(mysql_sql_mode="ANSI_QUOTES")
        self.assertEqual("ANSI_QUOTES", self.row("SELECT @@sql_mode")[0])
        self.use(mysql_sql_mode="")
        self.assertEqual(
            self.row("SELECT @@global.sql_mode"), self.row("SELECT @@sql_mode")
        )
        self.use(mysql_sql_mode="NO_SUCH_MODE")
        with self.assertRaisesRegex(
            exception.BackendError, "check .database. mysql_sql_mode"
        ):
            self.api.groups()

    def test_mysql_wsrep_sync_wait(self):
        self.assertEqual(0, self.row("SELECT @@wsrep_sync_wait")[0])
        self.use(mysql_wsrep_sync_wait=1)
        self.assertEqual(1, self.row("SELECT @@wsrep_sync_wait")[0])

    def test_the_url_may_have_an_init_command_as_well(self):
        self.connect_with("init_command=SET @mark = 7")
        row = self.row("SELECT @mark, @@innodb_lock_wait_timeout")
        self.assertEqual((7, int(self.DOWN_TIME / 4)), tuple(row))

    def test_connection_recycle_time(self):
        first = self.connection_id()
        self.assertEqual(first, self.connection_id())
        self.use(connection_recycle_time=1)
        first = self.connection_id()
        wait_for(
            lambda: self.connection_id() != first,
            message="a connection that is older than a second is replaced",
        )

    def test_max_pool_size(self):
        self.use(max_pool_size=2)
        # More may be open while they are needed, or a report would wait.
        self.assertGreaterEqual(self.hold(8), 8)
        wait_for(
            lambda: len(self.connections()) == 2,
            message="no more than two are kept",
        )

    def test_max_overflow(self):
        self.use(max_pool_size=10, max_overflow=2)
        self.assertEqual(12, self.hold(12))
        with self.assertRaisesRegex(exception.BackendError, "QueuePool"):
            self.hold(13)
        self.use(max_pool_size=0)
        self.assertEqual(20, self.hold(20))

    def test_pool_timeout(self):
        """It is never longer than a report may take."""
        for given, used in ((1, 1.0), (3600, self.DOWN_TIME / 4)):
            self.use(pool_timeout=given)
            with self.assertRaisesRegex(
                exception.BackendError, f"timeout {used:.2f}"
            ):
                self.hold(11)

    def test_connection_debug(self):
        logger = logging.getLogger("sqlalchemy.engine")
        self.addCleanup(logger.setLevel, logger.level)
        self.use(connection_debug=50)
        self.row("SELECT 'a statement'")
        self.assertTrue(self.logs.matching("SELECT 'a statement'"))

    def test_backend(self):
        self.flags("database", backend="tpool")
        with self.assertRaisesRegex(
            exception.ConfigError, "backend: tpool is not known"
        ):
            process.load("db")

    def test_sqlite_synchronous(self):
        url = f"sqlite:///{self.path('members.sqlite')}"
        self.use(connection=url)
        self.assertEqual(1, self.row("PRAGMA synchronous")[0])
        self.use(sqlite_synchronous=False)
        self.assertEqual(0, self.row("PRAGMA synchronous")[0])


class ReadOnlyTest(DatabaseTestCase):
    """A server that takes no writes says so in many words.

    Only error 1290 gave the connection up. With tx_read_only set for five
    seconds, a session that began then kept it, and its healthy node was down
    for an hour.
    """

    def setUp(self):
        super().setUp()
        self.addCleanup(
            lambda: servers.shared(self.SERVER).execute(
                "SET GLOBAL tx_read_only = 0"
            )
        )

    def drop_connections(self):
        for connection in self.connections():
            try:
                self.server.execute(f"KILL {connection}")
            except pymysql.OperationalError:
                # It has ended by itself.
                pass

    def test_sessions_that_began_while_transactions_were_read_only(self):
        member = self.join("one")
        events = self.collect(self.api)
        self.wait_for_report("one")
        self.server.execute("SET GLOBAL tx_read_only = 1")
        self.drop_connections()
        self.wait_for_log(REPORT_TROUBLE)
        # What was logged may be that its connection is lost.
        reporter = process.shared().reporter
        wait_for(lambda: "error 1792" in reporter.members()[0].trouble)
        self.assertTrue(self.run_work(health.read).read_only)
        self.server.execute("SET GLOBAL tx_read_only = 0")
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(REPORT_TROUBLE, REPORT_AGAIN)
        self.assertEqual([], events)

    def test_a_group_whose_sessions_are_read_only_is_not_down(self):
        # On a busy machine a refresh may take seconds.
        self.flags(service_down_time=6.0)
        for host in ("one", "two"):
            self.join(host)
        events = self.collect(self.api)
        self.wait_for_report("two")
        self.wait_for_state("up", "two")
        self.server.execute("SET GLOBAL tx_read_only = 1")
        self.drop_connections()
        self.wait_for_log("takes no reports of the group")
        until = time.monotonic() + 1.5 * CONF.service_down_time
        answers = 0
        while time.monotonic() < until or answers < 10:
            # On a machine that is busier still, no refresh may end in time.
            with contextlib.suppress(exception.ServiceGroupUnavailable):
                self.assertEqual(["one", "two"], self.api.get_all("compute"))
                answers += 1
            self.assertLess(time.monotonic(), until + 60)
            time.sleep(0.02)
        self.server.execute("SET GLOBAL tx_read_only = 0")
        for host in ("one", "two"):
            self.wait_for_report(host, 2)
        self.assertEqual([], events)

    def test_every_refusal_gives_the_connection_up(self):
        # So that an attempt to report takes half a second.
        self.flags(service_down_time=4.0)
        for number in (1036, 1290, 1792, 1836, 1874, 3032, 3100, 1030):
            with self.subTest(number):
                member = self.join(f"host{number}")
                attempts = self.count_reports()
                self.wait_for_report(member.host)
                before = set(self.connections())
                self.refuse(number)
                wait_for(lambda attempts=attempts: any(attempts))
                error = next(filter(None, attempts))
                self.assertIn(f"error {number}", str(error))
                # Connections that are kept aside are not used.
                with self.general_log() as log:
                    self.wait_for_attempts(attempts, 2)
                    used = log.connections()
                self.assertEqual(set(), before & used)
                self.accept()
                self.wait_for_report(member.host, 2)
                process.reset()
                self.api = servicegroup.API()

    def test_an_answer_about_the_statement_keeps_the_connection(self):
        self.join("one")
        self.wait_for_report("one")
        before = set(self.connections())
        with self.assertRaises(exception.BackendError):
            self.row("SELECT nonsense")
        with self.assertRaises(exception.BackendError):
            self.row("SELECT 1 FROM no_such_table")
        self.assertLessEqual(before, set(self.connections()))

    def test_few_connections_are_kept_aside(self):
        self.join("one")
        attempts = self.count_reports()
        self.refuse(1290)
        self.wait_for_attempts(attempts, 4)
        self.assertLessEqual(len(self.connections()), 10)
        aside = process.shared().driver._database._aside
        wait_for(lambda: 0 < len(aside) <= engine.ASIDE + 1)
        process.reset()
        wait_for(
            lambda: not self.connections(),
            message="no connection is left open",
        )


class ConflictTest(DatabaseTestCase):
    """Certification failures: error 1213, of a whole batch of reports."""

    def join_several(self):
        """Have eight members join; return their memberships by host.

        They report when the test wants it.
        """
        members = [self.join(f"node-{number}") for number in range(8)]
        reporters = process.shared().reporter._by_service
        found = [reporters[id(one)].membership for one in members]
        for member in members:
            self.wait_for_report(member.host)
        self.stop_reports()
        self.driver = process.shared().driver
        return {one.host: one for one in found}

    def report_together(self, members):
        """Report members in one batch; return those that are written."""
        records = [one.state["record"] for one in members.values()]
        written = self.driver._write_reports({one.id: one for one in records})
        ids = {one.state["record"].id: host for host, one in members.items()}
        return {ids[number] for number, done in written.items() if done}

    def counts(self):
        rows = self.sql("SELECT host, report_count FROM services")
        return dict(rows)

    def test_a_few_failures_lose_no_report(self):
        """30 reports were lost after the one retry."""
        members = self.join_several()
        # Three of four attempts to write a record fail. MyISAM has no
        # transactions, and counts them.
        self.sql("CREATE TABLE turns (id INT, n INT) ENGINE = MyISAM")
        self.sql("INSERT INTO turns SELECT id, 0 FROM services")
        self.sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON services FOR EACH ROW "
            "BEGIN UPDATE turns SET n = n + 1 WHERE id = NEW.id; "
            "IF (SELECT n FROM turns WHERE id = NEW.id) % 4 > 0 THEN "
            "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = "
            "'WSREP detected deadlock/conflict and aborted the transaction'; "
            "END IF; END"
        )
        before = self.counts()
        for membership in members.values():
            self.driver.report(membership)
        after = self.counts()
        for host, count in before.items():
            self.assertGreater(after[host], count)
        self.assertGreaterEqual(self.sql("SELECT MIN(n) FROM turns")[0][0], 4)

    def test_one_row_does_not_silence_the_others(self):
        members = self.join_several()
        self.assertEqual(set(members), self.report_together(members))
        self.refuse(1213, "NEW.host = 'node-7'")
        before = self.counts()
        # None of them is an error; each caller reports by itself then.
        self.assertEqual(set(), self.report_together(members))
        for host, membership in members.items():
            if host == "node-7":
                with self.assertRaisesRegex(exception.BackendError, "1213"):
                    self.driver.report(membership)
            else:
                self.driver.report(membership)
        after = self.counts()
        self.assertEqual(
            {"node-7"}, {one for one in before if after[one] <= before[one]}
        )
        self.accept()
        self.driver.report(members["node-7"])
        self.assertEqual(set(members), self.report_together(members))

    def test_reports_that_are_given_up_leave_no_lock(self):
        """Two members were silent for 98 s: locks of an open transaction."""
        members = self.join_several()
        held = []

        def count(connection, cursor, statement, *more):
            if statement.startswith("UPDATE services"):
                # Between the two statements of a batch.
                held.append(
                    self.server.execute(
                        "SELECT COUNT(*) FROM information_schema.innodb_trx"
                    )[0][0]
                )

        sa.event.listen(
            self.driver._database.engine, "before_cursor_execute", count
        )
        with self.general_log() as log:
            self.report_together(members)
            texts = log.texts()
        self.assertEqual([0], held)
        self.assertEqual(2, len(texts), texts)
        self.assertIn("SKIP LOCKED", texts[0])
        for text in texts:
            self.assertNotRegex(text, "(?i)^(begin|start|commit|rollback)")


class BalancerTest(DatabaseTestCase):
    """A balancer that leads to the server with the fewest connections."""

    def test_a_server_that_refuses_has_the_fewest_connections(self):
        """Each attempt led there again, for as long as it refused."""
        well, ill = self.server, self.enterContext(self.SERVER())
        ill.create_database(self.name)
        ill.execute(f"CREATE USER {self.name} IDENTIFIED BY '{db.PASSWORD}'")
        ill.execute(f"GRANT ALL ON {self.name}.* TO {self.name}")
        self.sync(ill.url(self.name))
        ill.execute("SET GLOBAL read_only = 1")
        balancer = self.enterContext(galera.HAProxy([well.port, ill.port]))
        self.addCleanup(process.reset)

        def connect():
            link = pymysql.connect(
                host="127.0.0.1",
                port=balancer.port,
                user=self.name,
                password=db.PASSWORD,
            )
            with link.cursor() as cursor:
                cursor.execute("SELECT @@port")
                return link, cursor.fetchone()[0]

        # The other one has two more.
        for link, port in [connect() for _ in range(4)]:
            if port == ill.port:
                link.close()
            else:
                self.addCleanup(link.close)
        url = sa.make_url(self.url).set(port=balancer.port)
        self.connect_with(url=url.render_as_string(hide_password=False))
        attempts = self.count_reports()
        self.join("one")
        self.wait_for_report("one", 5)
        # On a busy machine one of them may not have had the time for both.
        self.assertLessEqual(sum(map(bool, attempts)), 1, attempts)
        # The driver was led to both.
        driver = process.shared().driver
        self.assertTrue(driver._database._aside)


@_green_if_long
class ClusterTest(test_db_galera.GaleraTestCase):
    """Galera behind HAProxy with leastconn."""

    CLOCKS = (0.0, 0.0, 0.0)
    DOWN_TIME = 6.0

    def test_a_node_that_refuses_and_is_still_in_the_balancer(self):
        """The balancer's check does not see it, and prefers the node.

        It says 1047, its clients leave it, and so it has the fewest
        connections and gets each new one. 19 living members were down.
        """
        hosts = [f"node-{number}" for number in range(6)]
        for host in hosts:
            self.member(host)
        wait_for(lambda: self.api.get_all("compute") == hosts)
        events = self.collect(self.api)
        ill = self.cluster.nodes[1]
        ill.execute("SET GLOBAL wsrep_reject_queries = ALL")
        try:
            until = time.monotonic() + 2 * self.DOWN_TIME
            while time.monotonic() < until:
                self.assertEqual(hosts, self.api.get_all("compute"))
                time.sleep(0.1)
        finally:
            ill.execute("SET GLOBAL wsrep_reject_queries = NONE")
        self.assertEqual([], events)


class ReferenceTest(DatabaseTestCase):
    """$my_ip in an option that nova_sg reads: Nova's guides write it so."""

    def parse(self, text):
        config.parse(
            ["--config-file", self.path("nova.conf", text)], "nova-sg"
        )

    def test_my_ip_is_taken_from_the_file(self):
        CONF.clear_override("connection", "database")
        url = self.url.replace("127.0.0.1", "$my_ip")
        self.parse(
            "[DEFAULT]\nmy_ip = 127.0.0.1\n"
            "memcached_servers = ${my_ip}:11211,$my_block_storage_ip:11211\n"
            f"[database]\nconnection = {url}\n"
        )
        self.assertEqual(self.url, CONF.database.connection)
        self.assertEqual(["127.0.0.1:11211"] * 2, CONF.memcached_servers)
        self.assertEqual([], servicegroup.API().groups())

    def test_an_option_of_another_section(self):
        self.parse(
            "[vnc]\nserver_listen = 192.0.2.8\n"
            "[DEFAULT]\nhost = ${vnc.server_listen}\n"
        )
        self.assertEqual("192.0.2.8", CONF.host)

    def test_a_reference_that_leads_nowhere(self):
        for line, reference in (
            ("[DEFAULT] host = $my_other_ip", "$my_other_ip"),
            ("[DEFAULT] host = ${vncproxy.address}", "$vncproxy.address"),
            ("[DEFAULT] memcached_servers = $our_ip:11211", "$our_ip"),
            ("[monitor] port = $our_port", "$our_port"),
            ("[DEFAULT] host = $my_ip.", "$my_ip."),
            ("[DEFAULT] host = $a.b.c", "$a.b.c"),
            ("[DEFAULT] host = $_ip", "$_ip"),
            ("[DEFAULT] host = $database.nosuch", "$database.nosuch"),
        ):
            with self.subTest(line):
                with self.assertRaises(exception.ConfigError) as caught:
                    self.parse(line.replace("] ", "]\n"))
                self.assertIn(
                    f"{line.partition(' =')[0]} refers, by a dollar sign, to "
                    f"{reference} that is neither",
                    str(caught.exception),
                )
        # It may be there the next time.
        self.parse("[DEFAULT]\nhost = $my_other_ip\nmy_other_ip = ::1\n")
        self.assertEqual("::1", CONF.host)
