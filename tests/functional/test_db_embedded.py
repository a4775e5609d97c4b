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

"""The SQLite database that is used when none is configured; nova-sg db sync
on it and on MariaDB.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.backends.db import engine, schema
from nova_sg.servicegroup import process
from tests import LONG, single_mode
from tests.base import wait_for
from tests.functional import db

# Joins at a line on its input, prints which members are up, and ends at
# another line.
JOINING = """
import sys
import tests
from nova_sg import servicegroup
from nova_sg.conf import CONF
# Imported now because it takes long: the processes are to make the database
# at the same time.
import alembic.command
from nova_sg.servicegroup import process, reporter

# Long enough for a busy machine.
reporter.JOIN_WAIT = 60
folder, host = sys.argv[1:]
CONF([], project="nova-sg", default_config_files=[])
CONF.set_override("state_path", folder)
process.shared()
print("ready", flush=True)
sys.stdin.readline()
api = servicegroup.API()
api.join(host, "compute")
print(api.service_is_up({"host": host, "topic": "compute"}), flush=True)
sys.stdin.readline()
api.refresh("compute")
print(*api.get_all("compute"), flush=True)
"""

LIST = (sys.executable, "-m", "nova_sg.cmd.shell")


class EmbeddedTest(db.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "nova-sg.sqlite")

    def sql(self, statement):
        link = sqlite3.connect(self.path, timeout=30)
        try:
            with link:
                return link.execute(statement).fetchall()
        finally:
            link.close()

    def test_it_is_made_on_first_use(self):
        folder = os.path.join(self.folder, "not", "there", "yet")
        self.flags(state_path=folder)
        api = servicegroup.API()
        process.shared()
        self.assertFalse(os.path.exists(folder))
        self.assertEqual([], api.members("compute"))
        self.assertTrue(os.path.isfile(os.path.join(folder, "nova-sg.sqlite")))

    def test_it_has_novas_columns(self):
        self.api.members("compute")
        columns = [row[1] for row in self.sql("PRAGMA table_info(services)")]
        self.assertEqual(
            {
                *("created_at", "updated_at", "deleted", "deleted_at", "id"),
                *("uuid", "host", "binary", "topic", "report_count"),
                *("disabled", "disabled_reason", "last_seen_up"),
                *("forced_down", "version"),
            },
            set(columns),
        )

    def test_three_processes_can_make_it_at_once(self):
        for number in range(4 if LONG else 1):
            with self.subTest(round=number):
                folder = os.path.join(self.folder, f"state{number}")
                hosts = ["one", "three", "two"]
                children = [self._start(folder, host) for host in hosts]
                for child in children:
                    self.assertEqual("ready\n", child.stdout.readline())
                for child in children:
                    self._tell(child)
                for child in children:
                    self.assertEqual("True\n", child.stdout.readline())
                for child in children:
                    self._tell(child)
                for child in children:
                    output, errors = child.communicate(timeout=60)
                    self.assertEqual("one three two\n", output)
                    self.assertEqual("", errors)
                    self.assertEqual(0, child.returncode)

    def _start(self, folder, host):
        child = subprocess.Popen(
            [sys.executable, "-c", JOINING, folder, host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(child.__exit__, None, None, None)
        self.addCleanup(child.kill)
        return child

    def _tell(self, child):
        child.stdin.write("\n")
        child.stdin.flush()

    # -- state_path

    def test_a_folder_that_cannot_be_made_is_an_error(self):
        a_file = os.path.join(self.folder, "file")
        with open(a_file, "w"):
            pass
        self.flags(state_path=os.path.join(a_file, "state"))
        api = servicegroup.API()
        with self.assertRaisesRegex(
            exception.ServiceGroupUnavailable, r"\[DEFAULT\] state_path"
        ):
            api.members("compute")

        # The member goes on to try: the folder may be mended meanwhile.
        self.join("one")
        said = self.logs.matching("Cannot report the state of one")
        self.assertEqual(1, len(said))
        self.assertIn("[DEFAULT] state_path", said[0])
        self.assertIn(a_file, said[0])
        os.remove(a_file)
        self.wait_for_state("up", "one")

    @single_mode
    def test_a_folder_that_cannot_be_written_to_is_an_error(self):
        closed = os.path.join(self.folder, "closed")
        os.mkdir(closed, mode=0o555)
        config = os.path.join(self.folder, "nova-sg.conf")
        with open(config, "w") as file:
            file.write(f"[DEFAULT]\nstate_path = {closed}\n")
        command = [*LIST, "--config-file", config, "list"]
        if os.geteuid() == 0:
            # Without this privilege root obeys permissions.
            command = [
                "setpriv",
                "--bounding-set=-dac_override,-dac_read_search",
                "--inh-caps=-dac_override,-dac_read_search",
                *command,
            ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60
        )
        self.assertNotEqual(0, done.returncode)
        self.assertIn("[DEFAULT] state_path", done.stderr)
        self.assertIn(closed, done.stderr)
        self.assertIn("Permission denied", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual("", done.stdout)

    # -- trouble with the file

    def test_a_file_that_is_no_database_is_an_error(self):
        with open(self.path, "w") as file:
            file.write("This is no database. " * 200)
        member = self.join("one")
        said = self.logs.matching("Cannot report the state of one")
        self.assertEqual(1, len(said))
        self.assertIn("not a database", said[0])
        self.assertIn(self.path, said[0])
        attempts = self.count_reports()
        wait_for(lambda: len(attempts) >= 3)
        self.assertEqual(
            said, self.logs.matching("Cannot report the state of one")
        )
        os.remove(self.path)
        self.wait_for_state("up", "one")
        wait_for(lambda: not member.model_disconnected)

    def test_a_services_table_of_another_program_is_not_changed(self):
        self.sql("CREATE TABLE services (name TEXT)")
        before = self.sql("SELECT * FROM sqlite_master")
        with self.assertRaises(exception.ServiceGroupUnavailable):
            self.api.members("compute")
        database = engine.Database(engine.url())
        self.addCleanup(database.close)
        with self.assertRaisesRegex(exception.ConfigError, "left alone"):
            schema.sync(database)
        self.assertEqual(before, self.sql("SELECT * FROM sqlite_master"))

    def _lock(self):
        link = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False
        )
        self.addCleanup(link.close)
        link.execute("BEGIN IMMEDIATE")
        return link

    def test_a_report_waits_for_a_short_lock(self):
        # Reports wait and succeed, without blocking the hub.
        self.join("one")
        attempts = self.count_reports()
        ticks = []
        ending = threading.Event()

        def tick():
            while not ending.wait(0.01):
                ticks.append(time.monotonic())

        ticker = threading.Thread(target=tick)
        ticker.start()
        link = self._lock()
        begun = time.monotonic()
        wait_for(lambda: time.monotonic() - begun > 1.5)
        # Readers do not wait.
        self.assertTrue(self.is_up("one"))
        self.api.refresh("compute")
        during = [moment for moment in ticks if moment > begun]
        self.assertEqual([], attempts, "it did not wait")
        link.execute("COMMIT")
        ending.set()
        ticker.join()
        # 150 on an idle machine; 1 or 2 if the hub is blocked.
        self.assertGreater(len(during), 15)
        wait_for(lambda: len(attempts) >= 3)
        self.assertEqual([], [error for error in attempts if error])
        self.assertEqual([], self.logs.matching("Cannot"))

    def test_a_long_lock_is_an_error_and_then_over(self):
        self.join("one")
        events = self.collect(self.api)
        self.enterContext(mock.patch.object(engine, "SQLITE_PATIENCE", 0.2))
        attempts = self.count_reports()
        link = self._lock()
        wait_for(lambda: len(attempts) >= 3)
        said = self.logs.matching("Cannot report the state of one")
        self.assertEqual(1, len(said))
        self.assertIn("locked", said[0])
        self.assertTrue(self.is_up("one"))
        link.execute("COMMIT")
        again = "is reported to the group compute again"
        wait_for(lambda: self.logs.matching(again))
        self.assertEqual(1, len(self.logs.matching(again)))
        self.assertEqual([], events)

    # -- nova-sg db sync

    def _sync(self, *arguments):
        return subprocess.run(
            [*LIST, *arguments, "db", "sync"],
            capture_output=True,
            text=True,
            timeout=60,
        )

    @single_mode
    def test_sync(self):
        folder = os.path.join(self.folder, "state")
        config = os.path.join(self.folder, "nova-sg.conf")
        with open(config, "w") as file:
            file.write(f"[DEFAULT]\nstate_path = {folder}\n")
        for _ in range(2):
            done = self._sync("--config-file", config)
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertRegex(done.stdout, r"is at revision \d{4}\n$")
        shutil.copy(os.path.join(folder, "nova-sg.sqlite"), self.path)
        self.assertEqual([], self.api.members("compute"))


@single_mode
class SyncMariaDBTest(db.MariaDBTestCase):
    def test_sync(self):
        self.sql("DROP TABLE services, nova_sg_alembic_version")
        config = os.path.join(self.folder, "nova-sg.conf")
        with open(config, "w") as file:
            file.write(f"[database]\nconnection = {self.url}\n")
        command = [*LIST, "--config-file", config, "db", "sync"]
        definitions = set()
        for _ in range(2):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertRegex(done.stdout, r"is at revision \d{4}\n$")
            self.assertNotIn(db.PASSWORD, done.stdout)
            definitions.add(self.sql("SHOW CREATE TABLE services"))
        self.assertEqual(1, len(definitions))
        self.join("one")
        self.assertTrue(self.is_up("one"))

    def test_sync_upgrades_an_older_table(self):
        newest = self._sync_and_show()
        self.sql("DROP TABLE services, nova_sg_alembic_version")
        self.sync(self.url, "0001")
        self.join("one")
        self.assertTrue(self.is_up("one"))
        self.assertEqual(newest, self._sync_and_show())
        self.assertTrue(self.is_up("one"))

    def _sync_and_show(self):
        self.sync(self.url)
        [[_, table]] = self.sql("SHOW CREATE TABLE services")
        # Without the next id.
        return re.sub(r" AUTO_INCREMENT=\d+", "", table)

    def test_sync_of_mariadb_makes_no_embedded_file(self):
        self.join("one")
        self.assertEqual([], os.listdir(self.folder))
