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

"""The db driver on Nova's own database.

A released Nova makes the schema on MariaDB, and Nova's own code writes the
services there.
"""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

from nova_sg import exception
from nova_sg.backends.db import engine, schema
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from tests import single_mode
from tests.base import wait_for
from tests.fixtures import mariadb, nova, watchdog
from tests.fixtures import process as servers
from tests.functional import db
from tests.processes import inprocess

# The statements that a reading command may send.
HARMLESS = re.compile(
    r"(SELECT|SHOW|DESCRIBE|SET NAMES|SET AUTOCOMMIT"
    r"|SET SESSION innodb_lock_wait_timeout)\b"
)

# Runs on Nova's side: makes the tables, writes services by Nova's database
# code, or judges them by Nova's servicegroup API. It evaluates each line of
# its standard input, and answers by a line with the result.
NOVA_PROGRAM = """
import datetime
import json
import sys
import traceback

answers, sys.stdout = sys.stdout, sys.stderr

from nova import monkey_patch
monkey_patch.patch(backend="threading")
from nova import config, context, objects, servicegroup
from nova.db import migration
from nova.db.main import api
from oslo_utils import timeutils

config.parse_args(["nova", "--config-file", sys.argv[1]])
objects.register_all()
admin = context.get_admin_context()


def create(host, topic="compute", **values):
    return api.service_create(
        admin,
        {
            "host": host,
            "binary": f"nova-{topic}",
            "topic": topic,
            "report_count": 0,
            "version": objects.service.SERVICE_VERSION,
            **values,
        },
    )


def report(host):
    service = api.service_get_by_host_and_binary(admin, host, "nova-compute")
    count = service.report_count + 1
    api.service_update(admin, service.id, {"report_count": count})


def fill():
    hour_ago = timeutils.utcnow() - datetime.timedelta(hours=1)
    for host in ("alive", "silent", "forced", "disabled"):
        create(host)
        report(host)
    create("new")
    create("stillborn", created_at=hour_ago)
    create("boss", "scheduler")
    create("gone")

    def change(host, **values):
        service = api.service_get_by_host_and_binary(
            admin, host, "nova-compute"
        )
        api.service_update(admin, service.id, values)

    change("silent", last_seen_up=hour_ago)
    change("forced", forced_down=True)
    change("disabled", disabled=True, disabled_reason="new disks")
    gone = api.service_get_by_host_and_binary(admin, "gone", "nova-compute")
    api.service_destroy(admin, gone.id)


def judge():
    asked = servicegroup.API()
    services = objects.ServiceList.get_all(admin)
    return {s.host: asked.service_is_up(s) for s in services}


for line in sys.stdin:
    try:
        answer = {"result": eval(line)}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""


class Nova:
    """A process with Nova's code, on a database of Nova."""

    def __init__(self, python, config, log):
        # Sockets: reading from a pipe would block all green threads.
        self._link, theirs = socket.socketpair()
        # eventlet has made the socket non-blocking.
        os.set_blocking(theirs.fileno(), True)
        surroundings = {"OS_NOVA_DISABLE_EVENTLET_PATCHING": "True"}
        with theirs, open(log, "w") as stderr:
            self._process = subprocess.Popen(
                [python, "-c", NOVA_PROGRAM, config],
                stdin=theirs,
                stdout=theirs,
                stderr=stderr,
                cwd=os.path.dirname(config),
                env=os.environ | surroundings,
            )
        watchdog.guard_process(self._process.pid)
        self._log = log
        self._answers = self._link.makefile("r")

    def do(self, order):
        """Have it evaluate an expression; return the value."""
        self._link.sendall(f"{order}\n".encode())
        line = self._answers.readline()
        if not line:
            with open(self._log) as log:
                raise AssertionError(f"Nova has ended\n{log.read()}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"{order}: {answer['error']}")
        return answer["result"]

    def close(self):
        self._answers.close()
        self._link.close()
        self._process.kill()
        self._process.wait()
        watchdog.release_process(self._process.pid)


class NovaDatabaseTest(db.MariaDBTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(
            tempfile.TemporaryDirectory(prefix="nova-sg-test-")
        )
        cls.nova_url = servers.shared(mariadb.MariaDB).create_database()
        cls.nova_name = cls.nova_url.rpartition("/")[2]
        cls.addClassCleanup(cls._drop_class_database, cls.nova_name)
        config = os.path.join(folder, "nova.conf")
        with open(config, "w") as file:
            file.write(
                "[DEFAULT]\n"
                f"state_path = {folder}\n"
                "report_interval = 10\n"
                "service_down_time = 600\n"
                "[database]\n"
                f"connection = {cls.nova_url}\n"
            )
        log = os.path.join(folder, "nova.log")
        cls.nova_process = Nova(nova.python(), config, log)
        cls.addClassCleanup(cls.nova_process.close)
        # nova-manage db sync calls this.
        cls.nova_process.do("migration.db_sync()")

    @staticmethod
    def _drop_class_database(name):
        servers.shared(mariadb.MariaDB).execute(f"DROP DATABASE `{name}`")

    def make_database(self):
        self.sql_of(self.nova_name, "DELETE FROM services")
        return self.nova_name

    def sql_of(self, name, statement):
        return self.server.execute(statement, database=name)

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=600.0, report_interval=0.1)
        self.nova("fill()")

    def nova(self, order):
        """Have Nova's own code evaluate an expression."""
        return self.nova_process.do(order)

    def config(self, url):
        path = os.path.join(self.folder, "nova-sg.conf")
        with open(path, "w") as config:
            config.write(
                f"[DEFAULT]\nstate_path = {self.folder}\n"
                "service_down_time = 600\n"
                "[servicegroup]\nview_refresh_interval = 0.1\n"
                f"[database]\nconnection = {url}\n"
            )
        return path

    def run_command(self, url, *arguments):
        """Run nova-sg in this process; this resets the configuration.

        :returns: the exit status, stdout and stderr
        """
        process.reset()
        CONF.reset()
        return inprocess.run(
            "nova-sg",
            ["--config-file", self.config(url), *arguments],
            os.environ,
            self.folder,
        )

    def contents(self):
        """Return the tables and records of Nova's database."""
        columns = self.sql(
            "SELECT table_name, ordinal_position, column_name, column_type, "
            "is_nullable, column_default, extra, collation_name "
            "FROM information_schema.columns WHERE table_schema = %s",
            self.name,
        )
        indexes = self.sql(
            "SELECT table_name, index_name, seq_in_index, column_name, "
            "non_unique FROM information_schema.statistics "
            "WHERE table_schema = %s",
            self.name,
        )
        names = ", ".join(f"`{name}`" for name in {row[0] for row in columns})
        return {
            "definition": sorted(map(repr, columns + indexes)),
            "checksums": sorted(self.sql(f"CHECKSUM TABLE {names} EXTENDED")),
            # With the next id.
            "services": self.sql("SHOW CREATE TABLE services"),
            "records": self.sql("SELECT * FROM services ORDER BY id"),
        }

    EXPECTED = {
        "alive": "up",
        "boss": "up",
        "disabled": "up",
        "forced": "down",
        "new": "up",
        "silent": "down",
        "stillborn": "down",
    }

    @single_mode
    def test_read_only_commands_change_nothing(self):
        reader = self.make_user(f"{self.name}_reader", "SELECT")
        before = self.contents()
        # First as a user that may write, then as one that may only read.
        for url, check in (
            (self.url, self._check_commands),
            (reader, self._check_list),
        ):
            with self.subTest(url=url):
                with self.general_log(url.split(":")[1][2:]) as log:
                    check(url)
                    said = log.texts()
                self.assertTrue(any("FROM services" in text for text in said))
                self.assertEqual(
                    [], [text for text in said if not HARMLESS.match(text)]
                )
        self.assertEqual(before, self.contents())
        # Nova itself gives the same verdicts.
        self.assertEqual(
            {host: state == "up" for host, state in self.EXPECTED.items()},
            self.nova("judge()"),
        )
        # The number of tables shows that it is Nova's database.
        self.assertGreater(len(before["checksums"]), 50)
        self.assertEqual(len(self.EXPECTED) + 1, len(before["records"]))

    def _check_list(self, url):
        status, output, errors = self.run_command(url, "list", "-f", "json")
        self.assertEqual((0, ""), (status, errors))
        rows = {row["Host"]: row for row in json.loads(output)}
        states = {host: row["State"] for host, row in rows.items()}
        self.assertEqual(self.EXPECTED, states)
        self.assertEqual("scheduler", rows["boss"]["Topic"])
        self.assertEqual("nova-scheduler", rows["boss"]["Binary"])
        self.assertEqual("disabled: new disks", rows["disabled"]["Reason"])
        self.assertTrue(rows["forced"]["Forced Down"])
        self.assertGreater(rows["silent"]["Age"], 3000)
        self.assertIsNone(rows["new"]["Last Seen"])

    def _check_commands(self, url):
        self._check_list(url)
        status, output, errors = self.run_command(
            url, "show", "silent", "-f", "json"
        )
        self.assertEqual((0, ""), (status, errors))
        shown = json.loads(output)
        self.assertEqual("down", shown["State"])
        seen = self.value("last_seen_up", "silent")
        self.assertEqual(f"{seen.isoformat()}.000Z", shown["Last Seen"])

        for host, state, expected in (
            ("alive", "up", 0),
            ("silent", "down", 1),
            ("gone", "unknown", 2),
        ):
            status, output, _ = self.run_command(url, "is-up", host)
            self.assertEqual((expected, f"{state}\n"), (status, output))

    @single_mode
    def test_watch_sees_what_nova_does(self):
        reader = self.make_user(f"{self.name}_reader", "SELECT")
        with self.general_log(f"{self.name}_reader") as log:
            watching = subprocess.Popen(
                [
                    *(sys.executable, "-m", "nova_sg.cmd.shell"),
                    *("--config-file", self.config(reader)),
                    *("watch", "-f", "json"),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            with watching:
                self.addCleanup(watching.kill)
                wait_for(
                    lambda: any("FROM services" in t for t in log.texts())
                )
                before = self.contents()
                seen = len(log.texts())
                wait_for(lambda: len(log.texts()) > seen + 3)
                self.assertEqual(before, self.contents())
                self.nova("report('silent')")
                self.nova("create('newer') and None")
                events = [json.loads(watching.stdout.readline())]
                events.append(json.loads(watching.stdout.readline()))
                watching.send_signal(signal.SIGINT)
                output, errors = watching.communicate(timeout=30)
            said = log.texts()
        self.assertEqual((0, "", ""), (watching.returncode, output, errors))
        self.assertEqual(
            {("up", "silent"), ("joined", "newer")},
            {(event["type"], event["host"]) for event in events},
        )
        self.assertEqual(
            [], [text for text in said if not HARMLESS.match(text)]
        )

    def test_a_member_that_nova_does_not_know_is_refused(self):
        before = self.contents()
        member = self.join("stranger")
        self.assertTrue(member.model_disconnected)
        attempts = self.count_reports()
        wait_for(lambda: len(attempts) >= 3)
        self.assertTrue(
            all(isinstance(e, exception.BackendError) for e in attempts)
        )
        said = self.logs.matching("only Nova creates records there", 30)
        self.assertEqual(1, len(said), said)
        self.assertEqual(before, self.contents())
        self.assertFalse(self.is_up("stranger"))
        # A record that Nova has deleted does not count.
        self.join("gone")
        self.assertEqual(before, self.contents())

    def test_a_member_that_nova_knows_reports(self):
        self.flags("servicegroup", view_refresh_interval=0.1)
        silent = self.value("last_seen_up", "silent")
        others = self.others()
        self.assertFalse(self.is_up("silent"))
        events = self.collect(self.api)
        self.join("silent")
        self.wait_for_report("silent", 3)
        self.wait_for_state("up", "silent")
        wait_for(events.__len__)
        self.assertEqual(
            [("up", "silent")], [(e.type, e.host) for e in events]
        )
        self.assertGreater(self.value("last_seen_up", "silent"), silent)
        self.assertTrue(self.nova("judge()")["silent"])
        self.assertEqual([], self.logs.matching("", logging.WARNING))

        # Nova's tables have no mark for leaving. Stock Nova learns of it by
        # the member's silence.
        self.api.leave("silent", "compute")
        self.assertFalse(self.is_up("silent"))
        self.assertEqual(0, self.value("deleted", "silent"))
        self.assertEqual(others, self.others())

    def others(self):
        return self.sql(
            "SELECT * FROM services WHERE host <> 'silent' ORDER BY id"
        )

    def test_missing_records_are_not_created_again(self):
        # Only Nova creates records there, also with this option.
        self.flags("servicegroup", recreate_missing_record=True)
        self.join("alive")
        self.sql("DELETE FROM services WHERE host = 'alive'")
        wait_for(
            lambda: self.logs.matching("only Nova creates records there")
        )
        self.assertIsNone(self.value("id", "alive"))

    @single_mode
    def test_its_tables_are_never_migrated(self):
        before = self.contents()
        database = engine.Database(engine.url())
        self.addCleanup(database.close)
        self.assertEqual(schema.FOREIGN, schema.owner(database))
        with self.assertRaisesRegex(
            exception.ConfigError, "not made by nova_sg"
        ) as caught:
            schema.sync(database)
        self.assertNotIn(db.PASSWORD, str(caught.exception))
        with self.general_log() as log:
            status, output, errors = self.run_command(self.url, "db", "sync")
            said = log.texts()
        self.assertNotEqual(0, status)
        self.assertIn("not made by nova_sg", errors + output)
        self.assertNotIn("Traceback", errors)
        self.assertEqual(
            [], [text for text in said if not HARMLESS.match(text)]
        )
        self.assertEqual(before, self.contents())
