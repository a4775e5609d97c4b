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

"""Errors are one line that names the cause, never a traceback.

On native threads nova-sg is tested, on green threads nova-sg-agent.
"""

import os

from tests.cli import base
from tests.fixtures import mariadb, process


class ConfigurationTest(base.TestCase):
    """No program starts with a wrong configuration."""

    def check(self, *words, arguments=()):
        program, *command = self.ASKING
        result = self.run_program(program, *arguments, *command)
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertEqual(1, result.err.count("\n"), result.err)
        for word in words:
            self.assertIn(word, result.err)
        # The program has begun nothing.
        self.assertFalse(os.path.exists(self.state))

    def test_missing_file(self):
        os.unlink(self.config)
        self.check(f"config files: {self.config}. Correct its name")

    def test_missing_folder(self):
        folder = self.path("nowhere")
        self.check(
            f"directory: {folder}. Correct its name",
            arguments=("--config-dir", folder),
        )

    def test_file_that_is_a_folder(self):
        self.config = self.folder
        self.check(f"{self.folder}: Is a directory")

    def test_file_that_is_no_text(self):
        self.write("nova-sg.conf", b"\x7fELF\x02\x01\x01\x00\xff\xfe\xfd")
        self.check(f"{self.config}: not a text file")

    def test_file_that_is_no_configuration(self):
        self.write("nova-sg.conf", f"[database]\nconnection {base.PASSWORD}\n")
        self.check(f"{self.config}, line 2: ", "OPTION = VALUE")

    def test_file_without_a_section(self):
        self.write("nova-sg.conf", f"password = {base.PASSWORD}\n")
        self.check(f"{self.config}, line 1: ", "Write [SECTION], ")

    def test_wrong_value(self):
        self.configure(report_interval="often")
        self.check("[DEFAULT] report_interval", "'often'", self.config)

    def test_no_value(self):
        self.configure(service_down_time="")
        self.check("[DEFAULT] service_down_time: no value", "default, 60")

    def test_password_with_a_dollar_sign(self):
        url = f"mysql+pymysql://nova:${base.PASSWORD}@sql/nova"
        self.configure(f"[database]\nconnection = {url}")
        self.check("[database] connection", "is written $$")

    def test_unknown_driver(self):
        self.configure("servicegroup_driver = zookeper")
        self.check(
            "[DEFAULT] servicegroup_driver", "Use db, mc, zk", self.config
        )

    def test_bad_url(self):
        for url, words in (
            (f"nova:{base.PASSWORD}@sql/nova", "not the URL of a database"),
            (f"mysql+pymysql://n:p@{base.PASSWORD}@sql/nova", "an @ too many"),
        ):
            with self.subTest(words):
                self.configure(f"[database]\nconnection = {url}")
                self.check("[database] connection: ", words)

    def test_bad_memcached_address(self):
        self.configure("servicegroup_driver = mc\nmemcached_servers = a:b")
        self.check("[DEFAULT] memcached_servers: 'a:b'", "Write ")


class AgentArguments:
    """For a TestCase: the arguments of nova-sg-agent alone."""

    def test_log_that_cannot_be_written(self):
        for path in (self.path("no/such/folder.log"), self.folder):
            with self.subTest(path):
                result = self.run_program("nova-sg-agent", "--log-file", path)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertIn(f"cannot be written to {path}", result.err)
                self.assertIn("Correct log_file", result.err)

    def test_wrong_arguments(self):
        for arguments in (["--no-such"], ["surplus"], ["--host"]):
            with self.subTest(arguments):
                result = self.run_program("nova-sg-agent", *arguments)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertIn("nova-sg-agent: error: ", result.err)


@base.green_mode
class AgentArgumentsTest(AgentArguments, base.TestCase):
    pass


class BackendTest(base.TestCase):
    """nova-sg reports the error and ends; an agent logs it and goes on."""

    def check(self, *words):
        complaint = self.complaint()
        for word in words:
            self.assertIn(word, complaint)

    def complaint(self):
        """Return what the program of this mode reports of its backend."""
        program, *command = self.ASKING
        if program == "nova-sg-agent":
            return self.run_agent_until("Cannot report the state of node")
        result = self.run_program(program, *command)
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertEqual(1, result.err.count("\n"), result.err)
        return result.err

    def test_database_that_is_not_there(self):
        url = f"mysql+pymysql://nova:{base.PASSWORD}@127.0.0.1:1/nova"
        self.configure(f"[database]\nconnection = {url}")
        self.check("mysql+pymysql://nova:***@127.0.0.1:1/nova: Can't connect")

    def test_wrong_password(self):
        url = process.shared(mariadb.MariaDB).create_database()
        url = url.replace(":secret@", f":{base.PASSWORD}@")
        self.configure(f"[database]\nconnection = {url}")
        self.check("root:***@127.0.0.1", "Access denied for user 'root'")

    def test_parameters_that_the_driver_does_not_know(self):
        url = process.shared(mariadb.MariaDB).create_database()
        for parameters, words in (
            ("charset=klingon", "check the parameters in [database] connecti"),
            ("nosuch=1", "'nosuch'; check the parameters in [database]"),
            (f"password={base.PASSWORD}", "Access denied"),
        ):
            with self.subTest(parameters):
                self.configure(
                    f"[database]\nconnection = {url.replace(':secret', '')}"
                    f"?{parameters}"
                )
                self.check(words)

    def test_database_without_a_table(self):
        url = process.shared(mariadb.MariaDB).create_database()
        self.configure(f"[database]\nconnection = {url}")
        self.check("create it with: nova-sg db sync")

    def test_a_file_that_is_no_database(self):
        path = self.write("notes.txt", "To do: nothing.\n" * 100)
        self.configure(f"[database]\nconnection = sqlite:///{path}")
        self.check(f"{path}: file is not a database")
        with open(path) as file:
            self.assertEqual("To do: nothing.\n" * 100, file.read())

    def test_memcached_that_is_not_there(self):
        self.configure(
            "servicegroup_driver = mc\nmemcached_servers = 127.0.0.1:1"
        )
        self.check("memcached at 127.0.0.1:1: cannot connect")

    def test_folder_that_is_a_file(self):
        self.write("state", "precious")
        self.check(f"state_path: cannot keep a database in {self.state}: ")
        with open(self.state) as file:
            self.assertEqual("precious", file.read())
