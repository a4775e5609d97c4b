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


"""Heartbeats that are written together."""

import os
import subprocess
import time
import unittest

from tests.fixtures import mariadb, nova, novarig, process
from tests.nova import base

OPTIONS = base.QUIET + "[servicegroup]\ncoalesce_reports = true\n"


class Saving:
    """What an object's save() does, with many threads or alone."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        server = process.shared(mariadb.MariaDB)
        done = subprocess.run(
            [
                *(nova.python(), "-P", "-W", "ignore"),
                os.path.join(base.SCRIPTS, "heartbeats.py"),
                server.create_database(),
                server.create_database(),
                str(server.pid),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **base.mode_variable(cls.MODE)},
        )
        if done.returncode:
            raise AssertionError(done.stderr)
        cls.found = base.read_json(done.stdout)

    def test_it_is_what_nova_does(self):
        gathered, left = {}, set()
        for name, case in self.found["cases"].items():
            with self.subTest(name):
                stock, ours = case["stock"], case["ours"]
                self.assertFalse(stock.pop("tried") or stock.pop("together"))
                gathered[name] = ours.pop("together")
                if not ours.pop("tried"):
                    left.add(name)
                self.assertEqual(stock, ours)
        self.assertEqual(
            {"one more", "many more"},
            {name for name, together in gathered.items() if together},
        )
        self.assertEqual({"leaving", "disabled", "nothing"}, left)

    def test_what_nova_does(self):
        # Or the comparison would prove nothing.
        cases = self.found["cases"]
        for name in ("one more", "many more"):
            ours = cases[name]["ours"]
            self.assertEqual("now", ours["row"]["last_seen_up"])
            self.assertEqual("now", ours["object"]["last_seen_up"])
            self.assertTrue(ours["object"]["forced_down"])
            self.assertEqual([], ours["notifications"])
        for name in ("less", "leaving"):
            row = cases[name]["ours"]["row"]
            self.assertEqual("before", row["last_seen_up"])
        self.assertEqual(
            ["update"], cases["disabled"]["ours"]["notifications"]
        )
        for name in ("deleted", "unknown"):
            self.assertIn("ServiceNotFound", cases[name]["ours"]["error"])

    def test_few_statements(self):
        found = self.found["together"]
        self.assertEqual([None], found["errors"])
        self.assertEqual([5], found["grown"])
        self.assertEqual([5], found["objects"])
        self.assertEqual(found["updates"], found["together"])
        self.assertLess(found["updates"], found["heartbeats"] / 2)

    def test_a_lock_keeps_nobody_else_waiting(self):
        self.assertEqual(
            {"errors": [None], "waiting": True, "grown": [1]},
            self.found["locked"],
        )

    def test_killed_connections(self):
        self.assertEqual(
            {"errors": [None], "grown": [1]}, self.found["killed"]
        )

    def test_a_server_that_hangs(self):
        self.assertEqual(
            {"errors": [None], "waiting": 20, "grown": [1]},
            self.found["frozen"],
        )

    def test_another_cell(self):
        self.assertEqual(
            {"there": [8], "together": True}, self.found["cell"]
        )

    def test_a_transaction_of_somebody_else(self):
        self.assertEqual(
            {"grown": [0], "together": False}, self.found["transaction"]
        )

    def test_fork(self):
        self.assertEqual(
            {"status": 0, "errors": [None], "grown": [1]},
            self.found["child"],
        )


class SavingOnThreadsTest(Saving, unittest.TestCase):
    MODE = "threads"


class SavingOnEventletTest(Saving, unittest.TestCase):
    MODE = "eventlet"


class Computes:
    """A Nova whose conductor has two workers, and many computes."""

    SETTINGS = {"workers": 2, "options": OPTIONS, "service_down_time": 10}
    COUNT = 30

    def _up(self):
        return {
            host
            for host, state in self.cloud.states("nova-compute").items()
            if state == "up" and host.startswith("many")
        }

    def test_many_computes(self):
        mariadb = self.cloud.site.mariadb
        many = novarig.Many(self.cloud, self.COUNT)
        self.addCleanup(many.forget)
        try:
            process.wait_for(
                lambda: len(self._up()) == self.COUNT,
                120,
                self.cloud.log_tails,
            )
            before = self._reports()
            mariadb.execute("SET GLOBAL log_output = 'TABLE'")
            mariadb.execute("TRUNCATE mysql.general_log")
            mariadb.execute("SET GLOBAL general_log = 1")
            try:
                # Everybody has reported, some of them more than once.
                process.wait_for(
                    lambda: all(
                        count > before[host] + 3
                        for host, count in self._reports().items()
                    ),
                    120,
                )
                after = self._reports()
            finally:
                mariadb.execute("SET GLOBAL general_log = 0")
            heartbeats = sum(after.values()) - sum(before.values())
            [[updates]] = mariadb.execute(
                "SELECT COUNT(*) FROM mysql.general_log "
                "WHERE argument LIKE 'UPDATE services %%'"
            )
            self.assertLess(updates, heartbeats * 0.7)
            self.assertEqual(self.COUNT, len(self._up()))
        finally:
            many.kill()
        begun = time.monotonic()
        process.wait_for(lambda: not self._up(), 60, self.cloud.log_tails)
        took = time.monotonic() - begun
        self.assertLess(took, self.cloud.service_down_time + 1 + base.SLACK)
        self.assertEqual(
            {"up"}, set(self.cloud.states("nova-conductor").values())
        )
        print(
            f"{self.MODE}: {updates} UPDATEs for {heartbeats} heartbeats; "
            f"killed, listed down after {took:.1f} s"
        )

    def _reports(self):
        return dict(
            self.cloud.site.mariadb.execute(
                "SELECT host, report_count FROM services "
                "WHERE host LIKE 'many%%' AND deleted = 0",
                database="nova",
            )
        )


base.make_variants(
    globals(), Computes, [("db", "threads", True), ("db", "eventlet", False)]
)
