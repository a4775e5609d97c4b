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

"""Many reports of one process are written by few statements."""

import contextlib
import os
import sqlite3
import threading
import unittest.mock

import pymysql

from nova_sg import exception, threads
from nova_sg.backends import base as drivers
from nova_sg.backends.db import writer
from nova_sg.servicegroup import process, standalone
from tests import base
from tests.base import wait_for
from tests.functional import db

PATIENCE = 60


class Caller:
    """Calls a function on a thread, and keeps its result or error."""

    def __init__(self, function, *arguments):
        self.result = None
        self.error = None
        self._call = function, arguments
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        function, arguments = self._call
        try:
            self.result = function(*arguments)
        except Exception as error:
            self.error = error

    @property
    def is_waiting(self):
        return self._thread.is_alive()

    def end(self):
        """Wait for the end; return the result, or raise the error."""
        threads.join(self._thread, PATIENCE)
        assert not self.is_waiting, "the call has not returned"
        if self.error is not None:
            raise self.error
        return self.result


class Table:
    """A table that a Writer writes to; writes can be delayed, or fail."""

    def __init__(self):
        self.writes = []
        self.open = threading.Event()
        self.open.set()
        self.trouble = None

    def write(self, reports):
        self.writes.append(dict(reports))
        trouble = self.trouble
        assert self.open.wait(PATIENCE)
        if trouble is not None:
            raise trouble
        return {key: value * 10 for key, value in reports.items() if value}


class WriterTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.table = Table()
        self.addCleanup(self.table.open.set)

    def _block(self, into):
        """Begin a write that does not end."""
        self.table.open.clear()
        caller = Caller(into.put, 0, 1)
        wait_for(lambda: len(self.table.writes) == 1)
        return caller

    def _gather(self, into, keys):
        """Return a waiting Caller for each key, while the table is closed."""
        callers = [
            Caller(into.put, key, number)
            for number, key in enumerate(keys, 1)
        ]
        wait_for(
            lambda: (
                sum(map(len, self.table.writes)) + len(into._gathering)
                == 1 + len(callers)
            )
        )
        return callers

    def test_each_caller_gets_its_own_result(self):
        made = writer.Writer(self.table.write, PATIENCE)
        blocked = self._block(made)
        callers = self._gather(made, range(1, 51))
        self.table.open.set()
        self.assertEqual(
            [10 * number for number in range(1, 51)],
            [caller.end() for caller in callers],
        )
        self.assertEqual(10, blocked.end())
        self.assertEqual(51, sum(map(len, self.table.writes)))
        # The writes that were under way, and one for all later callers.
        self.assertLessEqual(len(self.table.writes), writer.WRITES + 1)

    def test_only_the_caller_of_a_lost_report_gets_an_error(self):
        made = writer.Writer(self.table.write, PATIENCE)
        self._block(made)
        callers = [Caller(made.put, 1, 5), Caller(made.put, 2, 0)]
        self.table.open.set()
        self.assertEqual([50, None], [caller.end() for caller in callers])

    def test_reports_of_one_row_are_in_different_writes(self):
        made = writer.Writer(self.table.write, PATIENCE)
        self._block(made)
        callers = self._gather(made, [1, 2] * 5)
        self.table.open.set()
        self.assertEqual(
            [10 * number for number in range(1, 11)],
            [caller.end() for caller in callers],
        )
        self.assertEqual(11, sum(map(len, self.table.writes)))

    def test_every_caller_of_a_failed_write_gets_the_error(self):
        made = writer.Writer(self.table.write, PATIENCE)
        self.table.trouble = OSError("the disk is full")
        blocked = self._block(made)
        self.table.trouble = None
        callers = self._gather(made, [1, 2, 3])
        self.table.open.set()
        with self.assertRaisesRegex(exception.BackendError, "disk is full"):
            blocked.end()
        self.assertEqual([10, 20, 30], [caller.end() for caller in callers])

    def test_callers_do_not_wait_for_ever_for_a_write_that_hangs(self):
        made = writer.Writer(self.table.write, patience=1.0)
        callers = [self._block(made)]
        callers += [Caller(made.put, key, key) for key in range(1, 51)]
        # The callers that write wait for the database, which has a time
        # limit of its own.
        wait_for(
            lambda: sum(c.is_waiting for c in callers) <= writer.WRITES,
            PATIENCE,
        )
        self.assertLessEqual(len(self.table.writes), writer.WRITES)
        self.assertEqual(0, len(made._gathering))
        for caller in callers:
            if not caller.is_waiting:
                with self.assertRaisesRegex(
                    exception.BackendError, "within 1 s"
                ):
                    caller.end()
        self.table.open.set()
        wait_for(lambda: not any(caller.is_waiting for caller in callers))
        self.assertEqual(70, made.put(1, 7))


class Member:
    """A member that reports when the test calls report()."""

    def __init__(self, driver, host):
        service = standalone.Standalone(host, "compute")
        self.membership = drivers.Membership(
            host, "compute", "nova-compute", service, 10
        )
        self._driver = driver

    def report(self):
        self._driver.report(self.membership)


class SingleMemberTest(db.MariaDBTestCase):
    def test_a_single_member_reports_by_one_plain_statement(self):
        driver = process.load("db")
        self.addCleanup(driver.close)
        member = Member(driver, "one")
        member.report()
        with (
            unittest.mock.patch.object(writer.Writer, "put") as put,
            self.general_log() as log,
        ):
            member.report()
            texts = log.texts()
        self.assertFalse(put.called)
        [statement] = [text for text in texts if "services" in text]
        self.assertRegex(statement, db.REPORT)
        # Another member joins. From now on reports are written together.
        Member(driver, "two").report()
        with unittest.mock.patch.object(
            writer.Writer, "put", return_value=None
        ) as put:
            member.report()
        self.assertTrue(put.called)


class ManyMembersTest(db.MariaDBTestCase):
    DOWN_TIME = 240.0
    MEMBERS = 20

    def setUp(self):
        super().setUp()
        self.driver = process.shared().driver
        self.members = [
            Member(self.driver, f"node-{number}")
            for number in range(self.MEMBERS + 1)
        ]
        for member in self.members:
            member.report()
        # The member whose record is locked, and the others.
        self.slow, *self.others = self.members
        self.locker = self._lock("node-0")

    def _check_timers(self):
        # These members have no timers.
        pass

    def _lock(self, *hosts):
        cursor = self.link()
        cursor.execute(
            "SELECT * FROM services WHERE host IN %s FOR UPDATE", [hosts]
        )
        return cursor

    def _report_all(self):
        """Have all members report at once; return the Callers."""
        slow = Caller(self.slow.report)
        wait_for(
            lambda: self.server.execute(
                "SELECT * FROM information_schema.innodb_lock_waits"
            ),
            PATIENCE,
        )
        return slow, [Caller(member.report) for member in self.others]

    def _counts(self):
        return dict(self.sql("SELECT host, report_count FROM services"))

    def test_many_reports_are_written_by_few_statements(self):
        with self.general_log() as log:
            slow, callers = self._report_all()
            for caller in callers:
                caller.end()
            # A report that waits for a lock delays no other.
            self.assertTrue(slow.is_waiting)
            self.assertEqual(
                {f"node-{n}": 2 for n in range(1, self.MEMBERS + 1)}
                | {"node-0": 1},
                self._counts(),
            )
            self.locker.execute("COMMIT")
            slow.end()
            texts = log.texts()
        updates = [t for t in texts if t.startswith("UPDATE")]
        self.assertRegex(updates[0], db.REPORT)
        # On a slow machine late reports make some more statements.
        self.assertLessEqual(len(updates), 2 + self.MEMBERS / 2)
        together = [t for t in updates if " IN (" in t]
        self.assertTrue(together)
        for update in together:
            self.assertRegex(
                update,
                r"UPDATE services FORCE INDEX \(PRIMARY\) SET .* WHERE "
                r"id IN \([\d, ]+\) AND services\.deleted = 0 AND "
                r"services\.report_count BETWEEN 1 AND CASE id ",
            )
        self.assertEqual({2}, set(self._counts().values()))

    def test_a_missing_record_is_an_error_for_its_member_alone(self):
        self.sql("UPDATE services SET deleted = id WHERE host = 'node-3'")
        self.sql("DELETE FROM services WHERE host = 'node-4'")
        slow, callers = self._report_all()
        for number, caller in enumerate(callers, 1):
            if number in (3, 4):
                with self.assertRaisesRegex(
                    exception.MemberVanished, f"host node-{number} is gone"
                ):
                    caller.end()
            else:
                caller.end()
        counts = self._counts()
        for number in range(1, self.MEMBERS + 1):
            if number not in (3, 4):
                self.assertEqual(2, counts[f"node-{number}"])
        self.assertEqual(1, counts["node-3"])
        self.locker.execute("COMMIT")
        slow.end()

    def test_locked_records_delay_only_their_members(self):
        more = self._lock("node-5", "node-6")
        slow, callers = self._report_all()
        for number, caller in enumerate(callers, 1):
            if number not in (5, 6):
                caller.end()
        self.assertTrue(callers[4].is_waiting)
        self.assertTrue(callers[5].is_waiting)
        more.execute("COMMIT")
        callers[4].end()
        callers[5].end()
        self.locker.execute("COMMIT")
        slow.end()
        self.assertEqual({2}, set(self._counts().values()))

    def test_reports_go_on_after_connections_are_killed(self):
        slow, callers = self._report_all()
        for caller in callers:
            caller.end()
        self.locker.execute("COMMIT")
        slow.end()
        # Now all callers wait: some to write, and the others for these.
        table = self.link()
        table.execute("LOCK TABLES services READ")
        callers = [Caller(member.report) for member in self.members]
        wait_for(
            lambda: self.server.execute(
                "SELECT * FROM information_schema.processlist "
                "WHERE user = %s AND state LIKE 'Waiting%%'",
                self.name,
            ),
            PATIENCE,
        )
        for connection in self.connections():
            try:
                self.server.execute(f"KILL {connection}")
            except pymysql.OperationalError as error:
                # It was gone already ("unknown thread id").
                self.assertEqual(1094, error.args[0])
        table.execute("UNLOCK TABLES")
        for caller in callers:
            caller.end()
        for count in self._counts().values():
            # A killed statement may have been executed or not.
            self.assertIn(count, (3, 4))


class EmbeddedTest(db.TestCase):
    """On SQLite, which locks the whole file."""

    def _check_timers(self):
        pass

    def test_many_members_report(self):
        driver = process.shared().driver
        members = [Member(driver, f"node-{number}") for number in range(30)]
        for _ in range(3):
            callers = [Caller(member.report) for member in members]
            for caller in callers:
                caller.end()
        with contextlib.closing(
            sqlite3.connect(os.path.join(self.folder, "nova-sg.sqlite"))
        ) as link:
            counts = dict(
                link.execute("SELECT host, report_count FROM services")
            )
        # Each report has succeeded, and the record has each member's last
        # number. A report that finds the file locked is tried again with the
        # next number, so there may be more than three.
        attempts = {
            member.membership.host: member.membership.state["record"].number
            for member in members
        }
        self.assertEqual(attempts, counts)
        self.assertEqual(30, len(counts))
        self.assertGreaterEqual(min(counts.values()), 3)


class FrozenTest(db.MariaDBTestCase):
    # The driver waits for an answer for a quarter of it.
    DOWN_TIME = 8.0

    def _check_timers(self):
        pass

    def test_many_members_report_again_after_the_server_hung(self):
        driver = process.shared().driver
        members = [Member(driver, f"node-{number}") for number in range(30)]
        for member in members:
            member.report()
        self.addCleanup(self.server.thaw)
        self.server.freeze()
        callers = [Caller(member.report) for member in members]
        for caller in callers:
            with self.assertRaises(exception.BackendError):
                caller.end()
        self.server.thaw()
        wait_for(lambda: self._reported(members), PATIENCE)

    def _reported(self, members):
        try:
            for member in members:
                member.report()
        except exception.BackendError:
            return False
        return True
