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

"""The database: cases that operators reported, by the programs."""

import time

from tests.fixtures import mariadb, process
from tests.processes import base


class FilesTest(base.TestCase):
    """A file of TLS that is missing, and an option file with !includedir.

    "[Errno 2] No such file or directory", or three lines of a parser, were all
    that nova-sg said, doctor broke off, and an agent wrote 670 lines and 8
    tracebacks in 14 seconds.
    """

    def cases(self):
        """Use one of the files after the other; yield what names it."""
        url = process.shared(mariadb.MariaDB).create_database()
        missing = self.path("missing.pem")
        option_file = self.write(
            "my.cnf", "!includedir /etc/mysql/mariadb.conf.d/\n"
        )
        for parameters, words in (
            (f"ssl_ca={missing}", f"ssl_ca: cannot read {missing}"),
            (
                f"read_default_file={option_file}",
                f"read_default_file: {option_file}, line 1: PyMySQL does not "
                "know !includedir",
            ),
        ):
            self.configure(
                "memcached_servers = 127.0.0.1:1\n"
                f"[database]\nconnection = {url}?{parameters}"
            )
            yield words

    def test_nova_sg_names_option_and_file(self):
        for words in self.cases():
            for arguments, out in (
                (["list"], ""),
                (["is-up", "node"], "unknown\n"),
                (["db", "sync"], ""),
            ):
                result = self.nova_sg(*arguments)
                self.assertEqual((2, out), (result.status, result.out))
                self.assertIn(words, result.err)
                self.assertIn("[database] connection names", result.err)
                self.assertEqual(1, result.err.count("\n"), result.err)

    def test_doctor_says_so_and_goes_on(self):
        for words in self.cases():
            result = self.nova_sg("doctor")
            self.assertEqual((1, ""), (result.status, result.err))
            bad = [one for one in result.lines if one.startswith("BAD")]
            self.assertIn(words, bad[0])
            # The checks after it.
            self.assertEqual(2, len(bad), bad)
            self.assertIn("memcached 127.0.0.1:1", bad[1])

    def test_an_agent_warns_once(self):
        for words in self.cases():
            agent = self.agent("node")
            agent.wait_for_log(words)
            # Many intervals.
            time.sleep(4)
            log = agent.log
            self.check_words(log)
            self.assertLessEqual(len(log.splitlines()), 6, log)
            # One for the reports, one for the refreshes.
            self.assertLessEqual(log.count("WARNING"), 2, log)
            self.assertNotIn("ERROR", log)
            agent.stop()


class OtherLibraryTest(base.TestCase):
    """With MySQLdb or psycopg2 the hub of an agent stood for 34 seconds."""

    def test_they_are_refused_at_start(self):
        for prefix in ("mysql+mysqldb", "postgresql+psycopg2"):
            url = f"{prefix}://u:{base.PASSWORD}@127.0.0.1:1/nova"
            self.configure(f"[database]\nconnection = {url}")
            for program in ("nova-sg-agent", "nova-sg-monitor"):
                with self.subTest(prefix, program=program):
                    result = self.run_program(program)
                    self.assertEqual(2, result.status)
                    self.assertIn(
                        f"[database] connection: {prefix} is not supported",
                        result.err,
                    )
                    self.assertIn("Write mysql+pymysql://", result.err)


class PrefixTest(base.TestCase):
    """db sync ended with error 1146 for mariadb+pymysql://."""

    def test_db_sync_and_an_agent(self):
        server = process.shared(mariadb.MariaDB)
        # A nova.conf that was made by a charm has the second one.
        for prefix in ("mariadb+pymysql", "mysql"):
            url = server.create_database().replace("mysql+pymysql", prefix)
            self.configure(f"[database]\nconnection = {url}")
            self.do("db", "sync")
            agent = self.agent("node")
            self.wait_for_state("node", "up")
            agent.stop()
            self.assertEqual([], self.nova_sg("doctor").err.splitlines())


class ReferenceTest(base.TestCase):
    """Nova's install guide has $my_ip in its options."""

    def test_a_file_of_nova(self):
        url = process.shared(mariadb.MariaDB).create_database()
        url = url.replace("127.0.0.1", "$my_ip")
        self.configure(
            "my_ip = 127.0.0.1\n"
            "[vnc]\nserver_proxyclient_address = $my_ip\n"
            f"[database]\nconnection = {url}"
        )
        self.do("db", "sync")
        self.assertEqual(0, self.nova_sg("doctor").status)

    def test_a_reference_that_leads_nowhere(self):
        self.configure("memcached_servers = $our_ip:11211")
        for program in ("nova-sg", "nova-sg-agent"):
            arguments = ["list"] if program == "nova-sg" else []
            result = self.run_program(program, *arguments)
            self.assertEqual(2, result.status)
            self.assertIn(
                "[DEFAULT] memcached_servers refers, by a dollar sign, to "
                "$our_ip that is neither an option of nova_sg nor set in the "
                "files",
                result.err,
            )


class OutageTest(base.TestCase):
    """While a database is away, others' agents write thousands of lines."""

    def test_an_agent_writes_few_lines(self):
        server = self.enterContext(mariadb.MariaDB())
        self.configure(
            "log_transitions = true\n"
            f"[database]\nconnection = {server.create_database()}",
            service_down_time=4,
        )
        self.do("db", "sync")
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        before = len(agent.log.splitlines())
        server.kill()
        agent.wait_for_log("Cannot report the state of node")
        # Forty reports and more refreshes are due meanwhile.
        time.sleep(8)
        server.start()
        agent.wait_for_log("is reported to the group compute again")
        agent.wait_for_log("reachable again; monitoring group compute")
        agent.stop()
        added = agent.log.splitlines()[before:]
        self.assertLessEqual(len(added), 6, agent.log)
        self.check_words(agent.log)
