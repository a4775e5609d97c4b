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

"""Statements that reach the database too late change nothing."""

import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import time

import sqlalchemy as sa

from nova_sg.backends.db import engine, queries, reports
from nova_sg.backends.db import guard as guard_db
from nova_sg.servicegroup import process
from tests import base
from tests.base import wait_for
from tests.fixtures import mariadb
from tests.fixtures.proxy import TcpProxy
from tests.functional import db, zk


class LateTest(db.MariaDBTestCase):
    """A member in a process of its own, behind a proxy that holds data."""

    # The driver waits for an answer for a quarter of it. For so long, only
    # its number shows that a statement is late.
    DOWN_TIME = 40.0

    def setUp(self):
        super().setUp()
        self.proxy = TcpProxy(self.server.port)
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        self.member = None

    def start(self, down_time=None):
        """Have the member one report, behind the proxy."""
        settings = {
            "DEFAULT": {"service_down_time": down_time or self.DOWN_TIME},
            "database": {
                "connection": self.url.replace(
                    f":{self.server.port}/", f":{self.proxy.port}/"
                )
            },
            "servicegroup": {"crash_guard": False},
        }
        self.member = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(self.member.close)
        self.member.expect("ready", 60)
        self.member.tell("join one")
        self.wait_for_report("one", 3)
        # All of them are the member's: this process has none yet.
        self.connected = set(self.connections())
        self.wait_for_state("up", "one")

    def hold_statement(self):
        """Cut the connection; wait until the proxy holds a statement."""

        def is_held():
            self.proxy.cut()
            until = time.monotonic() + 2
            while time.monotonic() < until:
                if self.proxy.held() > 60:
                    return True
                time.sleep(0.01)
            # It holds an answer. The member sends nothing before that.
            self.proxy.restore()
            return False

        wait_for(is_held, 60, "a statement is held")

    def release_statement(self):
        """End the partition; wait until the statement was executed."""
        with self.general_log() as log:
            self.proxy.restore()
            wait_for(
                lambda: any(
                    text.startswith("UPDATE services") for text in log.texts()
                ),
                30,
                "the late statement arrives",
            )
        wait_for(
            lambda: not self.connected & set(self.connections()),
            30,
            "the late statement was executed",
        )
        self.api.refresh("compute")

    def record(self):
        return self.value("report_count", "one"), self.seen()

    def seen(self):
        return self.value("last_seen_up", "one")

    def test_a_late_report_raises_no_dead_member(self):
        # So that the member gives up, and is down, soon.
        self.flags(service_down_time=3.0)
        self.start(down_time=3.0)
        self.hold_statement()
        self.member.kill()
        self.wait_for_state("down", "one")
        before = self.record()
        events = self.collect(self.api)
        self.release_statement()
        self.assertEqual("down", self.state("one"))
        self.assertEqual(before, self.record())
        self.assertEqual([], events)

    def test_a_late_report_raises_no_member_that_left(self):
        self.start()
        self.hold_statement()
        self.api.leave("one", "compute")
        self.member.kill()
        before = self.record()
        self.assertEqual(0, before[0])
        self.release_statement()
        self.assertEqual("down", self.state("one"))
        self.assertEqual("left the group", self.reason())
        self.assertEqual(before, self.record())

    def test_a_late_report_raises_no_crashed_member(self):
        self.start()
        self.hold_statement()
        self.member.kill()
        self.assertTrue(self.guard())
        before = self.record()
        self.release_statement()
        self.assertEqual("down", self.state("one"))
        self.assertEqual(
            "its process ended without leaving the group", self.reason()
        )
        self.assertEqual(before, self.record())

    def test_a_late_leave_does_not_withdraw_the_next_process(self):
        self.start()
        # No report is under way, so that the next statement is the leaving.
        self.hold_statement()
        self.proxy.restore()
        self.wait_for_report("one")
        self.proxy.cut()
        self.member.tell("leave one")
        wait_for(lambda: self.proxy.held() > 120, 30, "leaving is held")
        self.member.kill()
        self.join("one")
        self.wait_for_report("one", 2)
        self.release_statement()
        self.assertEqual("up", self.state("one"))
        self.assertGreater(self.value("report_count", "one"), 0)

    def reason(self):
        return self.api.member("compute", "one").reason

    def guard(self, **more):
        """Mark the record as the guard of the member's process does."""
        driver = process.shared().driver
        number = self.value("report_count", "one") + 1
        will = {
            **driver._database.outside(),
            "id": self.value("id", "one"),
            "number": number,
            "died": time.monotonic(),
            "answered": None,
            "late": 5,
            "patience": 5,
            **more,
        }
        return guard_db.withdraw(will)

    def test_a_late_order_of_a_guard_does_not_withdraw_the_next_process(self):
        self.start()
        self.member.kill()
        number = self.value("report_count", "one")
        self.join("one")
        self.wait_for_report("one", 2)
        self.stop_reports()
        # Even if the new process has long been silent by the guard's clock.
        self.assertFalse(self.guard(number=number, died=time.monotonic() + 99))
        self.assertEqual("up", self.state("one"))


class NumberTest(db.MariaDBTestCase):
    """A member's numbers grow, whatever happens to its record."""

    def number(self):
        return self.value("report_count", "one")

    def older_version_reports(self):
        """Report as stock Nova and earlier versions of nova_sg do."""
        self.sql(
            "UPDATE services SET report_count = report_count + 1, "
            "last_seen_up = UTC_TIMESTAMP(6), updated_at = UTC_TIMESTAMP(6)"
        )

    def test_numbers_grow_over_leaves_crashes_and_clock_steps(self):
        self.join("one")
        self.wait_for_report("one", 3)
        before = self.number()
        # They begin with 1, as long as no record is lost.
        self.assertLess(before, 10_000)

        self.api.leave("one", "compute")
        self.assertEqual(0, self.number())
        self.join("one")
        self.wait_for_report("one", 2)
        self.assertGreater(self.number(), before + 10_000)

        self.stop_reports()
        before = self.number()
        self.sql(f"UPDATE services SET report_count = {guard_db.CRASHED}")
        self.api.refresh("compute")
        self.assertEqual("down", self.state("one"))
        # The clock may be behind the last report.
        self.sql(
            "UPDATE services SET last_seen_up = "
            "last_seen_up + INTERVAL 1 HOUR"
        )
        self.join("one")
        self.assertGreater(self.number(), before + 3500)
        self.assertTrue(self.is_up("one"))

    def test_numbers_grow_beside_older_versions(self):
        member = self.join("one")
        events = self.collect(self.api)
        for _ in range(5):
            self.older_version_reports()
            self.wait_for_report("one", 2)
            self.assertTrue(self.is_up("one"))
        self.assertEqual([], events)
        self.assertFalse(member.model_disconnected)

        # They grow on after the member has left, or has crashed.
        for mark in (0, guard_db.CRASHED):
            self.api.leave("one", "compute")
            self.sql(f"UPDATE services SET report_count = {mark}")
            self.older_version_reports()
            self.api.refresh("compute")
            self.assertTrue(self.is_up("one"))
            self.join("one")
            self.wait_for_report("one", 2)
            self.assertTrue(self.is_up("one"))

    def test_numbers_grow_with_two_processes_of_one_member(self):
        # On a busy machine a report may be executed a second late.
        self.flags(service_down_time=40.0)
        process.reset()
        self.join("one")
        other = base.Member("one")
        self.members.append(other)
        self.api.join("one", "compute", other)
        events = self.collect(self.api)
        self.wait_for_report("one", 20)
        self.assertEqual([], [m for m in self.members if m.model_disconnected])
        self.assertEqual([], self.logs.matching("Cannot report"))
        self.assertEqual([], events)

    def test_a_report_that_waits_for_a_lock_is_given_up(self):
        """It is not executed long after the member gave it up."""
        self.flags(service_down_time=4.0)
        process.reset()
        self.join("one")
        locker = self.link()
        locker.execute("SELECT * FROM services FOR UPDATE")
        self.stop_reports()
        wait_for(
            lambda: not self.server.execute(
                "SELECT * FROM information_schema.innodb_trx "
                "WHERE trx_state = 'LOCK WAIT'"
            ),
            10,
            "no statement waits for the lock",
        )

    def test_reports_of_many_members_leave_no_transaction_open(self):
        driver = process.shared().driver
        names = [f"host{number}" for number in range(5)]
        for name in names:
            self.join(name)
        self.stop_reports()
        rows = self.sql("SELECT id, report_count FROM services")
        records = []
        for service_id, count in rows:
            record = reports.Record(service_id)
            record.number, record.found = count, None
            records.append(record)
        open_ = []

        def work(connection):
            written = reports.report_many(connection, records, 5.0)
            open_.append(
                self.server.execute(
                    "SELECT COUNT(*) FROM information_schema.innodb_trx "
                    "WHERE trx_mysql_thread_id IN (SELECT id FROM "
                    "information_schema.processlist WHERE user = %s)",
                    self.name,
                )[0][0]
            )
            return written

        written = driver._database.run(work)
        self.assertEqual(5, len(written))
        self.assertEqual([0], open_)
        # host1 has left meanwhile, and another process reports for host2.
        self.sql("UPDATE services SET report_count = 0 WHERE host = 'host1'")
        self.sql("UPDATE services SET report_count = 99 WHERE host = 'host2'")
        written = driver._database.run(work)
        self.assertEqual(3, len(written))
        self.assertEqual(0, self.value("report_count", "host1"))
        self.assertEqual(99, self.value("report_count", "host2"))

    def test_a_late_batch_changes_no_record(self):
        self.join("one")
        self.stop_reports()
        before = self.number()
        late = datetime.datetime.now(datetime.UTC).replace(
            tzinfo=None
        ) - datetime.timedelta(seconds=0.01)
        service_id = self.value("id", "one")
        written = process.shared().driver._database.run(
            lambda c: queries.report_many(c, {service_id: before + 9}, late)
        )
        self.assertEqual(0, written)
        self.assertEqual(before, self.number())


class SteppedClockTest(db.MariaDBTestCase):
    SERVER = mariadb.SteppableMariaDB

    def test_no_report_is_lost_when_the_clock_is_set(self):
        members = [self.join(f"host{number}") for number in range(3)]
        attempts = self.count_reports()
        events = self.collect(self.api)
        self.addCleanup(self.server.set_clock, 0)
        for step in (3600, -3600, 0):
            self.server.set_clock(step)
            for number in range(3):
                self.wait_for_report(f"host{number}", 3)
                self.assertTrue(self.is_up(f"host{number}"))
        self.assertEqual([], [error for error in attempts if error])
        self.assertEqual([], [m for m in members if m.model_disconnected])
        self.assertEqual([], events)


class SocketTest(db.MariaDBTestCase):
    """The kernel drops data that it cannot deliver for long."""

    def test_a_tcp_socket_has_a_time_limit(self):
        database = process.shared().driver._database
        self.assertEqual(5.0, database.timeout)
        found = database.run(
            lambda c: c.connection.dbapi_connection._sock.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
            )
        )
        self.assertEqual(5000, found)

    def test_a_unix_socket_works_without_one(self):
        path = f"{self.server._data}/mariadb.sock"
        url = f"mysql+pymysql://root@localhost/?unix_socket={path}"
        database = engine.Database(sa.make_url(url))
        self.addCleanup(database.close)
        self.assertEqual(
            1, database.run(lambda c: c.exec_driver_sql("SELECT 1").scalar())
        )

    def test_a_tls_socket_has_a_time_limit(self):
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as link,
            ssl.create_default_context().wrap_socket(
                link,
                server_hostname="localhost",
                do_handshake_on_connect=False,
            ) as wrapped,
        ):
            driver = type("Connection", (), {"_sock": wrapped})
            process.shared().driver._database._forget_unsent(driver, None)
            self.assertEqual(
                5000,
                wrapped.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
                ),
            )


# The addresses of the member and the database on a network that is cut.
_MEMBER, _SERVER = "10.233.117.2", "10.233.117.1"
# Carries connections from the namespace to the server's socket, a file.
_RELAY = """
import asyncio, sys

async def carry(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    onward = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(
        carry(reader, onward[1]), carry(onward[0], writer),
        return_exceptions=True,
    )

async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 3306)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def _as_root(test):
    """Decorate a test that needs root, to make network namespaces."""
    return test if os.geteuid() == 0 else None


@_as_root
class CutWireTest(db.MariaDBTestCase):
    """A member and a database, each in a network namespace."""

    DOWN_TIME = 3.0

    def setUp(self):
        super().setUp()
        name = f"nova-sg-{os.getpid()}"
        self.inside = {"member": f"{name}-m", "server": f"{name}-s"}
        for namespace in self.inside.values():
            self.ip("netns", "add", namespace)
            self.addCleanup(self.ip, "netns", "del", namespace)
        member, server = self.inside.values()
        self.ip(
            *("-n", server, "link", "add", "wire", "type", "veth"),
            *("peer", "name", "wire", "netns", member),
        )
        for namespace, address in (member, _MEMBER), (server, _SERVER):
            self.ip(
                "-n", namespace, "addr", "add", f"{address}/24", "dev", "wire"
            )
            self.ip("-n", namespace, "link", "set", "wire", "up")
        self.server.execute(
            f"CREATE USER {self.name}@localhost "
            f"IDENTIFIED BY '{db.PASSWORD}'"
        )
        self.addCleanup(
            self.server.execute, f"DROP USER {self.name}@localhost"
        )
        self.server.execute(
            f"GRANT ALL ON `{self.name}`.* TO {self.name}@localhost"
        )

    @staticmethod
    def ip(*arguments):
        return subprocess.run(
            ["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def run_inside(self, side, *arguments):
        """Start a Python program in a namespace."""
        started = zk.Process(
            "-c",
            "import os, sys; os.execvp('ip', ['ip', *sys.argv[1:]])",
            *("netns", "exec", self.inside[side], sys.executable),
            *arguments,
        )
        self.addCleanup(started.close)
        started.expect("ready", 60)
        return started

    def sockets_inside(self):
        """Return the TCP connections that the member's kernel has."""
        table = self.ip(
            *("netns", "exec", self.inside["member"]),
            *("cat", "/proc/net/tcp"),
        )
        return table.splitlines()[1:]

    def test_the_kernel_drops_a_report(self):
        path = f"{self.server._data}/mariadb.sock"
        self.run_inside("server", "-c", _RELAY, _SERVER, path)
        url = self.url.replace(f"127.0.0.1:{self.server.port}", _SERVER)
        settings = {
            "DEFAULT": {"service_down_time": self.DOWN_TIME},
            "database": {"connection": url},
            "servicegroup": {"crash_guard": False},
        }
        member = self.run_inside(
            "member", "-m", "tests.functional.guarded", json.dumps(settings)
        )
        member.tell("join one")
        self.wait_for_report("one", 3)
        self.ip("-n", self.inside["server"], "link", "set", "wire", "down")
        wait_for(
            # How many bytes the kernel holds, in hexadecimal.
            lambda: any(
                int(line.split()[4].partition(":")[0], 16) > 100
                for line in self.sockets_inside()
            ),
            30,
            "a report is in the kernel",
        )
        member.kill()
        self.wait_for_state("down", "one")
        before = self.value("last_seen_up", "one")
        wait_for(
            lambda: not self.sockets_inside(), 10, "the kernel drops it"
        )
        self.ip("-n", self.inside["server"], "link", "set", "wire", "up")
        self.api.refresh("compute")
        self.assertEqual("down", self.state("one"))
        self.assertEqual(before, self.value("last_seen_up", "one"))
