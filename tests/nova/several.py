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

"""Tests of ZooKeeper first, and Nova's own records second."""

import os
import signal

from tests.fixtures import nova, process
from tests.fixtures.novarig import proc
from tests.nova import base

BINARIES = ("nova-conductor", "nova-scheduler", "nova-compute")


class Several:
    """Tests of zk with db as a secondary, in one mode."""

    OPTIONS = base.QUIET + "[servicegroup]\nsecondary_drivers = db\n"
    SETTINGS = {"options": OPTIONS}

    def _reports(self, binary):
        """Return the number of a service's reports to the database."""
        [[count]] = self.cloud.site.mariadb.execute(
            "SELECT report_count FROM services "
            "WHERE `binary` = %s AND deleted = 0",
            binary,
            database="nova",
        )
        return count

    def _wait_for_reports(self, binary, more=3):
        target = self._reports(binary) + more
        process.wait_for(
            lambda: self._reports(binary) >= target,
            60,
            f"{binary} reports to the database",
        )

    def test_all_report_to_both(self):
        cloud = self.cloud
        for binary in BINARIES:
            self._wait_for_reports(binary)
        database = {cloud.site.mariadb.port}
        # It reports to the database by nova-conductor, as in stock Nova.
        self.assertEqual(0, proc.connections(cloud.compute.pid, database))
        for service in cloud.services:
            self.assertEqual([], base.log_lines(service, "Traceback"))

    def test_status(self):
        result = nova.run(
            [
                *(self.cloud.site.python, "-m", "nova_sg.cmd.shell"),
                *("nova", "status", self.cloud.config("compute")),
            ],
        )
        self.assertEqual(0, result.returncode, result.stdout)
        self.assertIn("driver db: Nova's own records", result.stdout)
        self.assertIn("nova_sg is on: driver zk, secondary db", result.stdout)

    def test_the_database_hangs(self):
        cloud = self.cloud
        # Suspend conductor and its workers: the computes' messages stay
        # unanswered.
        os.killpg(cloud.conductor.pid, signal.SIGSTOP)
        self.addCleanup(os.killpg, cloud.conductor.pid, signal.SIGCONT)
        living = ("nova-scheduler", "nova-compute")
        self.assert_stays("up", living, 2 * cloud.service_down_time)

    def test_zookeeper_goes_away(self):
        cloud = self.cloud
        for binary in BINARIES:
            self._wait_for_reports(binary)
        for server in cloud.site.zookeeper.servers:
            server.kill()
        try:
            # Longer than the last verdicts stand. From then on the database
            # counts.
            self.assert_stays("up", BINARIES, 3 * cloud.service_down_time)
            cloud.compute.kill()
            cloud.wait_for_state("nova-compute", "down")
            self.assert_stays("up", BINARIES[:2], 5)
        finally:
            cloud.site.zookeeper.start()
        self.assert_stays("down", ["nova-compute"], 10)
        cloud.compute.start()
        cloud.wait_for_state("nova-compute", "up", timeout=120)
