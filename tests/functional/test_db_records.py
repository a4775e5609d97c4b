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

"""An asker's records that grow old because the database is unreachable."""

import datetime

from tests import single_mode
from tests.base import wait_for
from tests.fixtures import mariadb
from tests.fixtures import process as servers
from tests.functional import db


@single_mode
class UnreachableTest(db.MariaDBTestCase):
    DOWN_TIME = 5.0

    def setUp(self):
        super().setUp()
        # In an outage each attempt is a new connection, which takes long.
        self.flags("servicegroup", view_refresh_interval=0.25)
        self.join("us", interval=0.5)
        self.wait_for_report("us")

    def ask(self, host, seen):
        return self.api.service_is_up(
            {"host": host, "topic": "compute", "last_seen_up": seen}
        )

    def is_old(self, seen):
        age = datetime.datetime.now(datetime.UTC) - seen
        return age.total_seconds() > self.DOWN_TIME + 1

    def kill_server(self):
        """Kill the server; return another member's last report."""
        seen = datetime.datetime.now(datetime.UTC)
        self.server.kill()
        # Other tests need the server.
        self.addCleanup(servers.shared, mariadb.MariaDB)
        wait_for(
            lambda: self.logs.matching("Cannot report the state of us"),
            message="reports fail",
        )
        return seen

    def test_no_member_is_down_because_of_the_outage(self):
        dead = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
            # Longer than a busy machine delays a report.
            minutes=10
        )
        self.assertFalse(self.ask("dead", dead))
        seen = self.kill_server()
        wait_for(lambda: self.is_old(seen), message="the record is old")
        self.assertTrue(self.ask("other", seen))
        self.assertFalse(self.ask("dead", dead))
        self.server.start()
        self.wait_for_report("us")
        self.assertTrue(self.ask("other", seen))
        # A member that stays silent afterwards is found.
        wait_for(
            lambda: not self.ask("other", seen),
            message="a member that stays silent is down",
        )

    def test_a_member_is_down_if_only_this_process_cannot_report(self):
        seen = self.kill_server()
        wait_for(lambda: self.is_old(seen), message="the record is old")
        self.assertTrue(self.ask("other", seen))
        for host in ("third", "fourth"):
            now = datetime.datetime.now(datetime.UTC)
            self.assertTrue(self.ask(host, now))
        wait_for(
            lambda: not self.ask("other", seen),
            message="one is down while the others report",
        )
