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


"""A test of a real conductor that writes many heartbeats together."""

import time

from tests.fixtures import novarig, process
from tests.nova import base

OPTIONS = """\
[conductor]
workers = 2
"""


class Computes:
    """A test of many computes, with a conductor of two workers."""

    COUNT = 30

    def _up(self):
        return {
            host
            for host, state in self.cloud.states("nova-compute").items()
            if state == "up" and host.startswith("many")
        }

    def test_many_computes(self):
        self._coalesce()
        mariadb = self.cloud.site.mariadb
        many = novarig.Many(self.cloud, self.COUNT, idle=True)
        self.addCleanup(many.forget)
        try:
            process.wait_for(
                lambda: len(self._up()) == self.COUNT,
                120,
                "all computes are listed up",
            )
            before = self._reports()
            mariadb.execute("SET GLOBAL log_output = 'TABLE'")
            mariadb.execute("TRUNCATE mysql.general_log")
            mariadb.execute("SET GLOBAL general_log = 1")
            try:
                # All computes have reported, some more than once.
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
        process.wait_for(lambda: not self._up(), 60, "no compute is listed up")
        took = time.monotonic() - begun
        self.assertLess(took, self.cloud.service_down_time + 1 + base.SLACK)
        self.assertEqual(
            {"up"}, set(self.cloud.states("nova-conductor").values())
        )
        print(
            f"{self.MODE}: {updates} UPDATEs for {heartbeats} heartbeats; "
            f"killed, listed down after {took:.1f} s"
        )

    def _coalesce(self):
        cloud = self.cloud
        cloud.configure("conductor", self.DRIVER, OPTIONS)
        self.addCleanup(cloud.configure, "conductor", self.DRIVER)
        # A clean stop would lose heartbeats. Their senders would wait a
        # minute for the answer and send no other.
        cloud.conductor.kill()
        cloud.conductor.start()
        # The next test starts it again with its own configuration.
        self.addCleanup(cloud.conductor.kill)
        cloud.wait_until_all_are_up()

    def _reports(self):
        return dict(
            self.cloud.site.mariadb.execute(
                "SELECT host, report_count FROM services "
                "WHERE host LIKE 'many%%' AND deleted = 0",
                database="nova",
            )
        )
