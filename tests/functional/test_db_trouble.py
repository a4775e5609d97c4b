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

"""The db driver while MariaDB, or a member's record, is in trouble.

No timer raises an error (see db.TestCase). Trouble is logged once when it
begins and once when it ends. No process has to be restarted.
"""

import contextlib
import datetime
import logging
import os
import shutil
import sys
import threading
import time
from unittest import mock

import pymysql
import sqlalchemy as sa

from nova_sg import exception, servicegroup
from nova_sg.servicegroup import process, reporter
from tests.base import quickest, wait_for
from tests.fixtures import auth_proxy, mariadb
from tests.fixtures import process as servers
from tests.functional import db

# How long join waits for the first report, unless a test makes it longer.
JOIN_WAIT = reporter.JOIN_WAIT

REPORT_TROUBLE = "Cannot report the state of one"
REPORT_AGAIN = "The state of one is reported to the group compute again"
REFRESH_TROUBLE = "Cannot refresh group compute"
REFRESH_AGAIN = "reachable again; monitoring group compute"


class TroubleTestCase(db.MariaDBTestCase):
    # The driver waits for an answer for a quarter of it at most.
    DOWN_TIME = 8.0
    # Seconds to wait, long enough for slow machines.
    PATIENCE = 60

    def setUp(self):
        super().setUp()
        self.addCleanup(self._release)

    def _release(self):
        # Other tests use the server, too.
        servers.shared(mariadb.MariaDB)
        self.server.execute("SET GLOBAL read_only = 0")
        self.server.execute("SET GLOBAL innodb_lock_wait_timeout = DEFAULT")

    def wait_for_log(self, words, times=1):
        wait_for(
            lambda: len(self.logs.matching(words)) >= times,
            message=f"{words!r} is logged",
        )

    def assert_logged_once(self, *wordings):
        for words in wordings:
            self.assertEqual(1, len(self.logs.matching(words)), words)

    def wait_for_attempts(self, attempts, more):
        target = len(attempts) + more
        wait_for(
            lambda: len(attempts) >= target,
            message=f"{more} more reports were tried",
        )

    def assert_recovered(self, member):
        """Check that the member reports and is up, by every way to ask."""
        self.wait_for_report("one", 3, self.PATIENCE)
        wait_for(lambda: not member.model_disconnected)
        wait_for(lambda: self.is_up("one"))
        self.assertEqual("up", self.state("one"))


class RecordTest(TroubleTestCase):
    GONE = (
        "The services table record for the nova-compute service on host one "
        "is gone"
    )

    def _delete(self, soft):
        if soft:
            self.sql(
                "UPDATE services SET deleted = id, deleted_at = NOW(6) "
                "WHERE host = 'one'"
            )
        else:
            self.sql("DELETE FROM services WHERE host = 'one'")

    def test_a_deleted_record_is_an_error_and_stays_out(self):
        for soft in (False, True):
            with self.subTest(soft=soft):
                self.logs.records.clear()
                member = self.join("one")
                attempts = self.count_reports()
                events = self.collect(self.api)
                self._delete(soft)
                self.wait_for_log(self.GONE)
                self.wait_for_attempts(attempts, 5)
                self.assertEqual(
                    1, len(self.logs.matching(self.GONE, logging.ERROR))
                )
                self.assertEqual([], self.logs.matching(REPORT_TROUBLE))
                self.assertTrue(member.model_disconnected)
                wait_for(events.__len__)
                self.assertEqual(["left"], [e.type for e in events])
                self.assertEqual([], self.api.members("compute"))
                self.assertFalse(self.is_up("one"))
                rows = self.sql(
                    "SELECT count(*) FROM services WHERE deleted = 0"
                )
                self.assertEqual(((0,),), rows)
                process.reset()

    def test_a_restored_record_is_reported_to_again(self):
        member = self.join("one")
        self._delete(soft=True)
        self.wait_for_log(self.GONE)
        self.sql("UPDATE services SET deleted = 0, deleted_at = NULL")
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(self.GONE, REPORT_AGAIN)

    def test_a_missing_record_is_created_again_if_configured(self):
        self.flags("servicegroup", recreate_missing_record=True)
        member = self.join("one")
        self.join("other")
        events = self.collect(self.api)
        for number, soft in enumerate((False, True), 1):
            with self.subTest(soft=soft):
                old = self.value("id", "one")
                self._delete(soft)
                wait_for(
                    lambda old=old: self.value("id", "one") not in (old, None),
                    message="there is a new record",
                )
                self.assert_recovered(member)
                again = self.logs.matching("is created again")
                self.assertEqual(number, len(again), again)
        self.assertEqual([], self.logs.matching("", logging.ERROR))
        # A refresh may have been between the two or not. If it was, the
        # member left and joined, and nothing else.
        self.assertLessEqual(
            {event.type for event in events}, {"left", "joined"}
        )

    def test_a_member_joins_by_an_existing_record(self):
        # As after a restart, it keeps the record's id and number.
        self.join("one")
        self.wait_for_report("one", 2)
        self.stop_reports()
        before = self.value("report_count", "one")
        process.reset()
        self.join("one")
        self.wait_for_report("one", 2)
        self.assertEqual(((1,),), self.sql("SELECT count(*) FROM services"))
        self.assertGreater(self.value("report_count", "one"), before)


class ConnectionTest(TroubleTestCase):
    def test_a_killed_connection_makes_no_member_fall(self):
        member = self.join("one")
        events = self.collect(self.api)
        for _ in range(5):
            connections = self.connections()
            self.assertTrue(connections)
            for connection in connections:
                try:
                    self.server.execute(f"KILL {connection}")
                except pymysql.OperationalError as error:
                    # It was gone already ("unknown thread id").
                    self.assertEqual(1094, error.args[0])
            self.assert_recovered(member)
            wait_for(
                lambda old=connections: not set(old) & set(self.connections()),
                self.PATIENCE,
            )
        # A new connection is tried at once, so hardly a report is late.
        self.assertEqual([], events)
        for begin, end in (
            (REPORT_TROUBLE, REPORT_AGAIN),
            (REFRESH_TROUBLE, REFRESH_AGAIN),
        ):
            begun = len(self.logs.matching(begin))
            self.assertLessEqual(begun, 5)
            self.wait_for_log(end, begun)
            self.assertEqual(begun, len(self.logs.matching(end)))

    def test_connections_do_not_pile_up(self):
        self.join("one")
        self.collect(self.api)
        for _ in range(2):
            self.server.freeze()
            self.wait_for_log(REPORT_TROUBLE)
            self.server.thaw()
            self.wait_for_log(REPORT_AGAIN)
            self.logs.records.clear()
        # One for reports, and one for refreshes. Abandoned ones are closed.
        wait_for(
            lambda: len(self.connections()) <= 3,
            message=lambda: f"few connections, not {self.connections()}",
        )


class ServerTest(TroubleTestCase):
    DOWN_TIME = 24.0

    def _trouble(self, begin, end, attempts=5):
        """Join; have trouble for longer than an interval, and end it."""
        member = self.join("one")
        self.join("other")
        events = self.collect(self.api)
        self.assertTrue(self.is_up("one"))
        tried = self.count_reports()
        begin()
        begun = time.monotonic()
        self.wait_for_log(REPORT_TROUBLE)
        self.wait_for_log(REFRESH_TROUBLE)
        self.assertTrue(member.model_disconnected)
        self.wait_for_attempts(tried, attempts)
        # The last verdict stands, and no question waits for the server.
        self.assertLess(quickest(self._ask, 0.5), 0.5)
        end()
        took = time.monotonic() - begun
        self.wait_for_log(REPORT_AGAIN)
        self.wait_for_log(REFRESH_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(
            REPORT_TROUBLE, REPORT_AGAIN, REFRESH_TROUBLE, REFRESH_AGAIN
        )
        self.assertEqual([], events)
        self.assertEqual([], self.logs.matching("", logging.ERROR))
        # It was longer than an interval by far.
        self.assertGreater(took, 3 * member.report_interval)

    def _refuse_for_long(self):
        # That the server is gone is noticed at once. Then the last verdict
        # has to stand for as long as a slow machine takes.
        self.flags(service_down_time=2 * self.PATIENCE)

    def _ask(self):
        asked = time.monotonic()
        self.assertTrue(self.is_up("one"))
        return time.monotonic() - asked

    def test_the_server_is_killed_and_started(self):
        self._refuse_for_long()
        self._trouble(self.server.kill, self.server.start)

    def test_the_server_is_restarted_by_an_operator(self):
        self._refuse_for_long()
        self._trouble(self.server.stop, self.server.start)

    def test_the_server_is_frozen_and_thawed(self):
        self._trouble(self.server.freeze, self.server.thaw, attempts=0)

    def test_a_view_answers_soon_after_a_freeze(self):
        # A refresh that failed took seconds. The next ones must not become
        # rare because of that.
        self.join("one")
        self.collect(self.api)

        def came_back():
            self.logs.records.clear()
            self.server.freeze()
            self.wait_for_log(REFRESH_TROUBLE)
            self.server.thaw()
            thawed = time.monotonic()
            self.wait_for_log(REFRESH_AGAIN)
            return time.monotonic() - thawed

        # One more refresh may have waited for the frozen server.
        bound = self.DOWN_TIME / 4 + 3
        self.assertLess(quickest(came_back, bound, attempts=3), bound)


class LongOutageTest(TroubleTestCase):
    DOWN_TIME = 5.0

    def setUp(self):
        super().setUp()
        # In an outage each attempt is a new connection, which takes long.
        self.flags("servicegroup", view_refresh_interval=0.25)

    def test_verdicts_stand_for_service_down_time(self):
        member = self.join("one", interval=0.5)
        events = self.collect(self.api)
        self.assertTrue(self.is_up("one"))
        record = {"host": "one", "topic": "compute"}
        asked = time.monotonic()
        self.server.kill()
        killed = time.monotonic()
        while True:
            before = time.monotonic()
            try:
                self.assertTrue(self.api.service_is_up(record))
            except exception.ServiceGroupUnavailable as error:
                self.assertIn("one", str(error))
                self.assertIn("127.0.0.1", str(error))
                self.assertNotIn(db.PASSWORD, str(error))
                break
            # The last answer is at most from when the server died.
            self.assertLessEqual(before - killed, self.DOWN_TIME + 1)
            time.sleep(0.05)
        # The last refresh may have been as much before it.
        self.assertGreaterEqual(time.monotonic() - asked, self.DOWN_TIME / 2)
        for question in (self.api.get_all, self.api.members):
            with self.assertRaises(exception.ServiceGroupUnavailable):
                question("compute")
        # A question with a record needs no query.
        seen = datetime.datetime.now(datetime.UTC)
        self.assertTrue(
            self.api.service_is_up(record | {"last_seen_up": seen})
        )

        self.server.start()
        wait_for(lambda: self._answer(record))
        self.assert_recovered(member)
        self.assert_logged_once(
            REPORT_TROUBLE, REPORT_AGAIN, REFRESH_TROUBLE, REFRESH_AGAIN
        )
        # No member could report in that time, so none is down for it.
        self.assertEqual([], events)

    def test_the_dead_are_found_after_a_long_outage(self):
        self.join("one", interval=0.5)
        dead = self.join("dead", interval=0.5)
        events = self.collect(self.api)
        self.wait_for_report("dead")
        self.server.kill()
        self.wait_for_log(REFRESH_TROUBLE)
        process.shared().reporter._by_service[id(dead)].stop()
        self.server.start()
        self.wait_for_log(REFRESH_AGAIN)
        wait_for(lambda: events)
        self.assertEqual(
            [("down", "dead")], [(e.type, e.host) for e in events]
        )
        self.assertTrue(self.is_up("one"))
        self.assertFalse(self.is_up("dead"))

    def _answer(self, record):
        try:
            return self.api.service_is_up(record)
        except exception.ServiceGroupUnavailable:
            return False


class TlsMariaDB(mariadb.MariaDB):
    """A server with a certificate of its own."""

    @property
    def certificate(self):
        return os.path.join(self.directory, "server.pem")

    def prepare(self):
        super().prepare()
        self.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-subj", "/CN=127.0.0.1"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
                *("-out", self.certificate),
                *("-keyout", f"{self.certificate}.key"),
            ]
        )

    def command(self):
        return [
            *super().command(),
            f"--ssl-cert={self.certificate}",
            f"--ssl-key={self.certificate}.key",
        ]


class LibraryTest(TroubleTestCase):
    """Errors that PyMySQL raises which are no errors of a database."""

    DOWN_TIME = 3.0

    def setUp(self):
        super().setUp()
        self.flags("servicegroup", view_refresh_interval=0.25)

    def _drop_connections(self):
        for connection in self.connections():
            with contextlib.suppress(pymysql.OperationalError):
                self.server.execute(f"KILL {connection}")

    def _is_unknown(self, host, drop=True):
        if drop:
            # Also connections that were made meanwhile.
            self._drop_connections()
        try:
            self.is_up(host)
        except exception.ServiceGroupUnavailable as error:
            self.assertNotIn(db.PASSWORD, str(error))
            return str(error)
        return ""

    def _trouble(self, begin, end, words):
        member = self.join("one", interval=0.5)
        dead = self.join("dead", interval=0.5)
        events = self.collect(self.api)
        self.assertTrue(self.is_up("one"))
        self.assertTrue(self.is_up("dead"))
        self.logs.records.clear()
        begin()
        process.shared().reporter._by_service[id(dead)].stop()
        begun = time.monotonic()
        wait_for(lambda: self._is_unknown("dead"), self.PATIENCE)
        self.assertGreater(time.monotonic() - begun, self.DOWN_TIME / 2)
        self.assertIn(words, self._is_unknown("one"))
        self.assertTrue(member.model_disconnected)
        for ask in (
            self.api.groups,
            lambda: self.api.force_down("one", "compute"),
            lambda: self.api.leave("no-such-host", "compute"),
        ):
            with self.assertRaisesRegex(exception.BackendError, words):
                ask()
        [found] = process.shared().driver.check()
        self.assertFalse(found.ok)
        self.assertIn(words, found.text)
        view = process.shared().view("compute")
        self.assertFalse(view.answering())
        self.assertFalse(view.refresh_statuses()[0].answering)
        self.assertEqual([], events)
        end()
        # No connection is dropped from now on: it would be trouble again.
        wait_for(
            lambda: not self._is_unknown("dead", drop=False), self.PATIENCE
        )
        self.assert_recovered(member)
        wait_for(lambda: not self.is_up("dead"))
        self.assert_logged_once(
            REFRESH_TROUBLE, REFRESH_AGAIN, REPORT_TROUBLE, REPORT_AGAIN
        )
        self.assertIn(words, self.logs.matching(REFRESH_TROUBLE)[0])
        traced = [one for one in self.logs.records if one.exc_info]
        self.assertLessEqual(len(traced), 2)
        self.assertLessEqual({one.levelname for one in traced}, {"DEBUG"})
        self.assertEqual([], self.logs.matching("", logging.ERROR))

    def test_a_login_that_lacks_a_library_is_an_error_and_then_over(self):
        # As if the library that this needs were not installed.
        self.enterContext(mock.patch.dict(sys.modules, {"nacl": None}))
        proxy = auth_proxy.AuthProxy(self.server.port)
        self.addCleanup(proxy.close)
        url = sa.make_url(self.url).set(port=proxy.port)
        text = url.render_as_string(hide_password=False)
        self.flags("database", connection=text)
        self._trouble(
            lambda: setattr(proxy, "plugin", "client_ed25519"),
            lambda: setattr(proxy, "plugin", None),
            "RuntimeError: 'pynacl' package is required",
        )

    def _use(self, server):
        """Use another server until the test ends."""
        self.addCleanup(setattr, self, "server", self.server)
        self.addCleanup(setattr, self, "name", self.name)
        self.server = self.enterContext(server)
        self.name = self.make_database()
        self.url = self.make_user(self.name, "ALL")
        self.addCleanup(process.reset)

    def test_without_a_word_of_tls_it_is_as_pymysql_has_it(self):
        """But nobody reads the certificates of the system for it."""
        self._use(TlsMariaDB())
        self.flags("database", connection=self.url)
        ask = "SHOW STATUS LIKE 'Ssl_cipher'"
        url = sa.make_url(self.url)
        link = pymysql.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
        )
        with link, link.cursor() as cursor:
            cursor.execute(ask)
            [expected] = cursor.fetchall()
        reads = self.enterContext(
            mock.patch("ssl.create_default_context", side_effect=OSError)
        )
        self.api = servicegroup.API()
        self.join("one")
        driver = process.shared().driver
        found = driver._database.run(lambda c: c.execute(sa.text(ask)).one())
        self.assertEqual(expected, tuple(found))
        reads.assert_not_called()

    def test_a_missing_certificate_is_an_error_and_then_over(self):
        self._use(TlsMariaDB())
        path = os.path.join(self.folder, "ca.pem")
        away = os.path.join(self.folder, "away.pem")
        shutil.copy(self.server.certificate, path)
        self.flags("database", connection=f"{self.url}?ssl_ca={path}")
        self.api = servicegroup.API()
        self._trouble(
            lambda: os.rename(path, away),
            lambda: os.rename(away, path),
            f"ssl_ca: cannot read {path}",
        )


class FrozenForLongTest(TroubleTestCase):
    # So that the driver waits for the answer to a refresh for 10 s.
    DOWN_TIME = 40.0

    def test_no_question_waits(self):
        self.join("one")
        self.assertTrue(self.is_up("one"))
        self.addCleanup(self.server.thaw)
        self.server.freeze()
        waited = [0.0]
        begun = time.monotonic()
        while time.monotonic() - begun < 4:
            asked = time.monotonic()
            self.assertTrue(self.is_up("one"))
            waited.append(time.monotonic() - asked)
            time.sleep(0.02)
        # The refresh under way takes ten.
        self.assertLess(max(waited), 5)


class ReadOnlyTest(TroubleTestCase):
    def connections(self):
        """Return the ids of the connections to this test's database."""
        rows = self.server.execute(
            "SELECT id FROM information_schema.processlist WHERE db = %s",
            self.name,
        )
        return {number for (number,) in rows}

    def test_a_read_only_server_is_an_error_and_then_over(self):
        member = self.join("one")
        events = self.collect(self.api)
        attempts = self.count_reports()
        self.server.execute("SET GLOBAL read_only = 1")
        self.wait_for_log(REPORT_TROUBLE)
        self.wait_for_attempts(attempts, 5)
        self.assertIn(
            "read-only", self.logs.matching(REPORT_TROUBLE)[0].lower()
        )
        # It can still be read, so refreshes are answered, and the member is
        # up.
        self.assertTrue(self.is_up("one"))
        with self.assertRaisesRegex(exception.BackendError, "read-only"):
            self.api.force_down("one", "compute")
        self.server.execute("SET GLOBAL read_only = 0")
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(REPORT_TROUBLE, REPORT_AGAIN)
        self.assertEqual([], self.logs.matching(REFRESH_TROUBLE))
        self.assertEqual([], events)

    def test_each_attempt_connects_anew(self):
        """The address may lead to another primary by now."""
        self.join("one")
        attempts = self.count_reports()
        self.server.execute("SET GLOBAL read_only = 1")
        self.wait_for_log(REPORT_TROUBLE)
        before = self.connections()
        self.wait_for_attempts(attempts, 3)
        wait_for(
            lambda: not before & self.connections(),
            message="no connection to the read-only server was kept",
        )


class LockTest(TroubleTestCase):
    # So that the driver waits longer than the locks are held.
    DOWN_TIME = 40.0

    def setUp(self):
        super().setUp()
        self.locker = self.link()

    def _wait_for_waiting_update(self):
        wait_for(
            lambda: self.server.execute(
                "SELECT * FROM information_schema.innodb_lock_waits"
            ),
            message="a report waits for the lock",
        )

    def test_a_report_that_lost_a_deadlock_is_repeated(self):
        member = self.join("one")
        attempts = self.count_reports()
        errors = []
        sa.event.listen(
            process.shared().driver._database.engine,
            "handle_error",
            lambda context: errors.append(context.original_exception),
        )
        # The locker locks first what a report locks second.
        self.locker.execute("CREATE TABLE counter (n INT)")
        self.locker.execute("CREATE TABLE ballast (n INT)")
        self.locker.execute("INSERT INTO counter VALUES (0)")
        self.locker.execute(
            "CREATE TRIGGER count_reports AFTER UPDATE ON services "
            "FOR EACH ROW UPDATE counter SET n = n + 1"
        )
        # InnoDB ends the transaction that has changed less: the report.
        self.locker.execute("INSERT INTO ballast SELECT seq FROM seq_1_to_99")
        self.locker.execute("UPDATE counter SET n = 0")
        self._wait_for_waiting_update()
        self.locker.execute("UPDATE services SET disabled = 1")
        wait_for(lambda: errors, message="the report was the victim")
        self.locker.execute("COMMIT")

        self.assertEqual(1213, errors[0].args[0])
        self.assert_recovered(member)
        # The statement is repeated at once; no report was lost.
        self.assertEqual([], [error for error in attempts if error])
        self.assertEqual([], self.logs.matching(REPORT_TROUBLE))

    def test_a_lock_that_times_out_is_an_error_and_then_over(self):
        self.server.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        member = self.join("one")
        events = self.collect(self.api)
        attempts = self.count_reports()
        self.locker.execute("SELECT * FROM services FOR UPDATE")
        self.wait_for_log(REPORT_TROUBLE)
        self.wait_for_attempts(attempts, 1)
        self.assertIn("Lock wait", self.logs.matching(REPORT_TROUBLE)[0])
        # Refreshes do not wait for locks.
        self.assertTrue(self.is_up("one"))
        self.locker.execute("COMMIT")
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(REPORT_TROUBLE, REPORT_AGAIN)
        self.assertEqual([], self.logs.matching(REFRESH_TROUBLE))
        self.assertEqual([], events)


class JoinTest(TroubleTestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(reporter, "JOIN_WAIT", JOIN_WAIT))

    def test_join_while_the_server_is_down(self):
        self.server.kill()
        begun = time.monotonic()
        member = self.join("one")
        self.assertLess(time.monotonic() - begun, self.PATIENCE / 2)
        attempts = self.count_reports()
        self.wait_for_attempts(attempts, 3)
        self.assert_logged_once(REPORT_TROUBLE)
        self.server.start()
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(REPORT_TROUBLE, REPORT_AGAIN)

    def test_join_while_the_server_is_frozen(self):
        self.flags(service_down_time=24.0)
        self.server.freeze()
        begun = time.monotonic()
        member = self.join("one")
        took = time.monotonic() - begun
        # It waits a second for the first report, which fails after six.
        self.assertGreaterEqual(took, 0.9)
        self.assertLess(took, 5.5)
        self.wait_for_log(REPORT_TROUBLE)
        self.server.thaw()
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)
        self.assert_logged_once(REPORT_TROUBLE, REPORT_AGAIN)

    def test_leave_while_the_server_is_down(self):
        self.join("one")
        self.wait_for_report("one")
        self.server.kill()
        with self.assertRaisesRegex(exception.BackendError, "127.0.0.1"):
            self.api.leave("one", "compute")
        # It has stopped reporting nevertheless.
        self.assert_no_thread_named("nova-sg-report")
        self.server.start()
        count = self.value("report_count", "one")
        self.join("other")
        self.wait_for_report("other", 3)
        self.assertEqual(count, self.value("report_count", "one"))

    def test_a_missing_table_is_an_error_that_names_the_remedy(self):
        self.sql("DROP TABLE services")
        member = self.join("one")
        self.wait_for_log(REPORT_TROUBLE)
        self.assertIn("nova-sg db sync", self.logs.matching(REPORT_TROUBLE)[0])
        self.assertNotIn(db.PASSWORD, self.logs.matching(REPORT_TROUBLE)[0])
        with self.assertRaisesRegex(
            exception.ServiceGroupUnavailable, "nova-sg db sync"
        ):
            self.api.members("compute")
        self.sql("DROP TABLE nova_sg_alembic_version")
        self.sync(self.url)
        self.wait_for_log(REPORT_AGAIN)
        self.assert_recovered(member)

    def test_many_join_while_the_server_is_frozen(self):
        # As many of them wait at a time as the pool has connections. One
        # after the other would take thirty times as long as one.
        self.server.freeze()
        begun = time.monotonic()
        self.join("first")
        alone = time.monotonic() - begun
        spans = []

        def join(host):
            asked = time.monotonic() - begun
            self.join(host)
            spans.append((asked, time.monotonic() - begun))

        begun, used = time.monotonic(), time.process_time()
        joining = [
            threading.Thread(target=join, args=[f"host{number}"])
            for number in range(30)
        ]
        for thread in joining:
            thread.start()
        for thread in joining:
            thread.join()
        took, used = time.monotonic() - begun, time.process_time() - used
        self.assertLess(
            took,
            15 * alone,
            f"CPU {used:.1f} s; asked and joined: {sorted(spans)}",
        )
        self.server.thaw()
        wait_for(
            lambda: self.sql("SELECT count(*) FROM services")[0][0] == 31,
            self.PATIENCE,
        )
        for number in range(30):
            self.wait_for_report(f"host{number}", 1, self.PATIENCE)
