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


"""The commands of an operator during a failure, on each backend."""

import json
import os

from tests import single_mode
from tests.cli import base
from tests.fixtures import mariadb, memcached, process
from tests.fixtures.process import wait_for


@single_mode
class EveryBackendTest(base.TestCase):
    def test_sqlite(self):
        self.check("")

    def test_mariadb(self):
        url = process.shared(mariadb.MariaDB).create_database()
        self.check(f"[database]\nconnection = {url}")

    def test_memcached(self):
        server = process.shared(memcached.Memcached)
        self.check(
            f"servicegroup_driver = mc\nmemcached_servers = {server.address}"
        )

    def check(self, backend):
        """Use each command on a member that comes, and that is killed.

        :param backend: lines of the configuration
        """
        # The servers are shared, the group is not.
        group = os.path.basename(self.folder)
        self.configure(f"topic = {group}\n{backend}", service_down_time=10)
        listed = ("list", "--group", group, "-f", "json")
        if "mysql" in backend:
            self.do("db", "sync")
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        self.assertEqual("up\n", self.do("is-up", "node"))
        (row,) = json.loads(self.do(*listed))
        self.assertEqual(("node", "up"), (row["Host"], row["State"]))
        self.do("force-down", "node")
        result = self.nova_sg("is-up", "node")
        self.assertEqual((1, "down\n"), (result.status, result.out))
        self.assertEqual(1, self.nova_sg("forget", "node").status)
        self.do("force-down", "node", "--unset")
        self.wait_for_state("node", "up")
        self.assertEqual(1, self.nova_sg("forget", "node").status)
        agent.kill()
        self.wait_for_state("node", "down")

        def show():
            shown = json.loads(self.do("show", "node", "-f", "json"))
            return shown["Age"] > 11.5 and shown

        # memcached's clock has whole seconds: until that long after the limit
        # each new process may find it up again.
        shown = wait_for(show, message="its age is past every doubt")
        self.assertEqual("down", shown["State"])
        self.assertIsNotNone(shown["Last Seen"])
        self.do("forget", "node")
        self.assertEqual([], json.loads(self.do(*listed)))
        self.assertEqual(2, self.nova_sg("is-up", "node").status)
