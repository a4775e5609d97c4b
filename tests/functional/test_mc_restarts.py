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

"""memcached servers that are restarted lose all reports."""

import time

from nova_sg.servicegroup import process
from tests.base import wait_for
from tests.functional import mc


class RestartTest(mc.McTestCase):
    def since(self):
        """Return a past moment at which each server has been running.

        A server shows its uptime in whole seconds.
        """
        since = time.monotonic() + 1.5
        wait_for(lambda: time.monotonic() > since)
        return since

    def test_a_restart_of_all_servers_is_an_outage(self):
        servers = self.start(2)
        driver = process.shared().driver
        since = self.since()
        self.assertIsNone(driver.outage(self.GROUP, since))
        servers[0].restart()
        # The other server has all reports.
        self.assertIsNone(driver.outage(self.GROUP, since))
        began = time.monotonic()
        servers[1].restart()
        wait_for(lambda: self.outage(driver, since) is not None)
        outage = self.outage(driver, since)
        self.assertEqual(since, outage.begin)
        self.assertLess(began, outage.end)
        self.assertLess(outage.end, time.monotonic())
        self.assertIn("restarted", outage.reason)

    def outage(self, driver, since):
        try:
            return driver.outage(self.GROUP, since)
        except Exception as error:
            # A server that failed is not tried again for a second.
            self.assertIn("memcached at", str(error))

    def test_an_unreachable_server_may_have_the_reports(self):
        servers = self.start(2)
        driver = process.shared().driver
        since = self.since()
        for server in servers:
            server.restart()
        wait_for(lambda: self.outage(driver, since) is not None)
        servers[0].stop()
        self.assertIsNone(driver.outage(self.GROUP, since))
