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

"""db sync: the table on every kind of database."""

import json
import os
import re

from tests import single_mode
from tests.cli import base
from tests.fixtures import mariadb, process


@single_mode
class DbSyncTest(base.TestCase):
    def check(self, name):
        for _ in range(2):
            result = self.nova_sg("db", "sync")
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertEqual(f"{name} is at revision 0004\n", result.out)

    def test_sqlite(self):
        self.check(f"sqlite:///{self.state}/nova-sg.sqlite")
        self.insert("one", 10)
        self.do("db", "sync")
        self.assertEqual("up\n", self.do("is-up", "one"))

    def test_sqlite_file_of_ones_own(self):
        path = self.path("own.sqlite")
        self.configure(f"[database]\nconnection = sqlite:///{path}")
        self.check(f"sqlite:///{path}")
        self.assertFalse(os.path.exists(self.state))

    def test_mariadb(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        self.configure(f"[database]\nconnection = {url}")
        result = self.nova_sg("list")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("create it with: nova-sg db sync", result.err)
        self.check(re.sub(":[^:@]*@", ":***@", url))
        self.assertEqual([], json.loads(self.do("list", "-f", "json")))

    def test_a_table_of_another_program(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        name = url.rpartition("/")[2]
        server.execute(
            "CREATE TABLE services (id INT PRIMARY KEY, host VARCHAR(255), "
            "topic VARCHAR(255))",
            database=name,
        )
        server.execute(
            "INSERT INTO services VALUES (1, 'one', 'compute')", database=name
        )

        def everything():
            return (
                server.execute("SHOW TABLES", database=name),
                server.execute("SHOW CREATE TABLE services", database=name),
                server.execute("SELECT * FROM services", database=name),
            )

        before = everything()
        self.configure(f"[database]\nconnection = {url}")
        result = self.nova_sg("db", "sync")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("was not made by nova_sg and is left alone", result.err)
        self.assertEqual(before, everything())
        agent = self.agent("one")
        agent.wait_for_log("Cannot report the state of one")
        agent.stop()
        self.assertEqual(before, everything())

