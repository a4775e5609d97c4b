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

"""nova-sg doctor: finds problems, and their remedies."""

import os

from tests import single_mode
from tests.cli import base
from tests.fixtures import mariadb, memcached, process


@single_mode
class DoctorTest(base.TestCase):
    def check(self, *findings):
        """Run it, and check that it finds these problems only.

        :param findings: texts of the lines that are not ok, in order: each
            a list of what has to stand in it
        """
        result = self.nova_sg("doctor")
        self.assertEqual(1 if findings else 0, result.status, result.out)
        for line in result.lines:
            self.assertRegex(line, r"^(ok |BAD) \S.*: \S")
        bad = [line for line in result.lines if line.startswith("BAD")]
        self.assertEqual(len(findings), len(bad), result.out)
        for line, words in zip(bad, findings, strict=True):
            for word in words:
                self.assertIn(word, line)
        return result

    def test_all_is_well_on_sqlite(self):
        result = self.check()
        self.assertEqual("", result.err)
        self.assertIn(f"files: {self.config}", result.out)
        self.assertIn("report_interval 0.2 s", result.out)
        self.assertRegex(result.out, r"reachable, sqlite 3[0-9.]+, [0-9.]+ ms")
        self.assertRegex(result.out, r"clock: the database is [+-]\d+\.\d+ s")

    def test_all_is_well_on_mariadb(self):
        server = process.shared(mariadb.MariaDB)
        self.configure(f"[database]\nconnection = {server.create_database()}")
        self.do("db", "sync")
        result = self.check()
        self.assertIn("driver db: in use", result.out)
        self.assertRegex(result.out, r"reachable, m[a-z]+ 1[0-9.]+, ")
        self.assertIn("the services table is nova_sg's own", result.out)
        self.assertIn("root:***@", result.out)

    def test_all_is_well_on_memcached(self):
        server = process.shared(memcached.Memcached)
        self.configure(
            f"servicegroup_driver = mc\nmemcached_servers = {server.address}"
        )
        result = self.check()
        self.assertRegex(
            result.out,
            rf"memcached {server.address}: reachable, memcached 1\.[0-9.]+, ",
        )
        self.assertRegex(result.out, r"clock: memcached .* is [+-]\d\.\d s")
        self.assertIn("0 values were evicted", result.out)

    def test_a_backend_that_is_not_in_use_is_checked_too(self):
        self.configure("memcached_servers = 127.0.0.1:1")
        result = self.check(["memcached 127.0.0.1:1", "Start the server"])
        self.assertIn("driver mc: configured, not in use", result.out)

    def test_servers_of_oslo_cache_alone_are_not_checked(self):
        """A nova.conf has them for Nova's cache, in any spelling."""
        self.configure(
            "[cache]\nmemcache_servers = [::1]:1,inet:[127.0.0.1]:1\n"
            "memcache_sasl_enabled = true\ntls_cafile = /none"
        )
        self.assertNotIn("driver mc", self.check().out)

    def test_database_down(self):
        url = f"mysql+pymysql://nova:{base.PASSWORD}@127.0.0.1:1/nova"
        self.configure(f"[database]\nconnection = {url}")
        self.check(
            [
                "database mysql+pymysql://nova:***@127.0.0.1:1/nova",
                "Can't connect",
                "Start the database, or correct [database] connection",
            ]
        )

    def test_wrong_password(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        url = url.replace(":secret@", f":{base.PASSWORD}@")
        self.configure(f"[database]\nconnection = {url}")
        self.check(["Access denied", "correct [database] connection"])

    def test_no_such_database(self):
        server = process.shared(mariadb.MariaDB)
        self.configure(f"[database]\nconnection = {server.url('nosuch')}")
        self.check(["nosuch", "correct [database] connection"])

    def test_no_table(self):
        server = process.shared(mariadb.MariaDB)
        self.configure(f"[database]\nconnection = {server.create_database()}")
        self.check(["there is no services table", "Run: nova-sg db sync"])

    def test_a_table_of_nova(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        name = url.rpartition("/")[2]
        server.execute("CREATE TABLE services (id INT)", database=name)
        self.configure(f"[database]\nconnection = {url}")
        result = self.check()
        self.assertIn("the services table is Nova's", result.out)

    def test_silence_that_is_too_short(self):
        self.configure(report_interval=10, service_down_time=15)
        self.check(
            [
                "report_interval 10 s, service_down_time 15 s",
                "make service_down_time at least 2.5",
            ]
        )

    def test_wrong_memcached_address(self):
        for address, words in (
            ("127.0.0.1:1", ["127.0.0.1:1: cannot connect", "Start"]),
            (
                "memcached.invalid:11211",
                ["there is no host", "correct [DEFAULT] memc"],
            ),
            (
                "one:two",
                ["[DEFAULT] memcached_servers: 'one:two' is not", "Write"],
            ),
        ):
            with self.subTest(address):
                self.configure(
                    f"servicegroup_driver = mc\nmemcached_servers = {address}"
                )
                self.check(words)

    def test_one_server_of_two(self):
        server = process.shared(memcached.Memcached)
        self.configure(
            "servicegroup_driver = mc\n"
            f"memcached_servers = {server.address},127.0.0.1:1"
        )
        self.check(["memcached 127.0.0.1:1: cannot connect"])

    def test_memcached_inside_the_process(self):
        self.configure("servicegroup_driver = mc\nmemcached_servers = <None>")
        self.check(["memcached_servers", "name your servers"])

    def test_unknown_driver(self):
        self.configure("servicegroup_driver = zookeper")
        self.check(
            ["[DEFAULT] servicegroup_driver", "Use db, mc, zk", self.config]
        )

    def test_bad_url(self):
        self.configure(f"[database]\nconnection = nova:{base.PASSWORD}@sql")
        self.check(["[database] connection", "mysql+pymysql://USER"])

    def test_wrong_value(self):
        self.configure("[memcache]\nsocket_timeout = soon")
        self.check(["[memcache] socket_timeout", "'soon'", self.config])

    def test_missing_file(self):
        os.unlink(self.config)
        self.check([f"config files: {self.config}. Correct its name"])
