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


"""An error is one line, also if the program is a process.

tests/cli/test_errors.py has all kinds of errors. Here are those that need a
process: files that its user may not use, and Python's own output at its end.
"""

import os

from tests import native_services
from tests.fixtures import mariadb, process
from tests.processes import base


class ConfigurationTest(base.TestCase):
    """Neither program starts with a wrong configuration."""

    def check(self, *words, **kwargs):
        for program, *command in (("nova-sg", "list"), ("nova-sg-agent",)):
            with self.subTest(program):
                result = self.run_program(program, *command, **kwargs)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertEqual(1, result.err.count("\n"), result.err)
                for word in words:
                    self.assertIn(word, result.err)
        # The program has done nothing.
        self.assertFalse(os.path.exists(self.state))

    def test_file_that_may_not_be_read(self):
        os.chmod(self.config, 0)
        self.check(
            f"Failed to open some config files: {self.config}. Correct",
            "owner or mode",
            prefix=base.AS_NORMAL_USER,
        )

    def test_wrong_value(self):
        self.configure(report_interval="often")
        self.check("[DEFAULT] report_interval", "'often'", self.config)


class _Without(base.TestCase):
    """A library is missing."""

    LIBRARY: str

    @property
    def environment(self):
        os.makedirs(self.path("without"), exist_ok=True)
        self.write(
            f"without/{self.LIBRARY}.py",
            f"raise ModuleNotFoundError('no {self.LIBRARY}', "
            f"name={self.LIBRARY!r})\n",
        )
        return super().environment | {"PYTHONPATH": self.path("without")}


class GreenThreadsTest(_Without):
    """The library for concurrency_backend = eventlet is missing."""

    LIBRARY = "eventlet"

    def test_the_remedy_is_named(self):
        for program in ("nova-sg-agent", "nova-sg-monitor"):
            with self.subTest(program):
                result = self.run_program(program)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertEqual(1, result.err.count("\n"), result.err)
                self.assertIn('"nova-sg[eventlet]"', result.err)
                self.assertIn("concurrency_backend = threading", result.err)

    def test_what_takes_no_eventlet(self):
        result = self.nova_sg("list")
        self.assertEqual(0, result.status)
        self.assertIn("There are no members", result.err)

    @native_services
    def test_native_threads_take_no_eventlet(self):
        self.configure("concurrency_backend = threading")
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        agent.stop()


class NativeThreadsTest(_Without):
    """The library for concurrency_backend = threading is missing."""

    # With oslo.service 4.1 it is not missing, but unknown.
    LIBRARY = "cotyledon"

    def test_the_remedy_is_named(self):
        self.configure("concurrency_backend = threading")
        for program in ("nova-sg-agent", "nova-sg-monitor"):
            with self.subTest(program):
                result = self.run_program(program)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertEqual(1, result.err.count("\n"), result.err)
                self.assertIn("oslo.service[threading]>=4.3.0", result.err)
                self.assertIn("concurrency_backend = eventlet", result.err)

    def test_eventlet_takes_no_such_library(self):
        agent = self.agent("node")
        agent.wait_for_log("node joins the group")
        agent.stop()


# An agent whose start fails after it has joined.
FAILING = """\
import sys

from nova_sg.cmd import agent
from nova_sg import service

start = service.Service.start

def fail(self):
    start(self)
    raise RuntimeError("it cannot start")

service.Service.start = fail
sys.exit(agent.main())
"""


class StartTest(base.TestCase):
    """An agent whose start fails ends, and its member leaves."""

    def check(self, backend):
        self.configure(f"concurrency_backend = {backend}")
        started = self.start(
            "python",
            *("-c", FAILING, "--config-file", self.config, "--host=node"),
            config=False,
        )
        said, _ = started.communicate(timeout=base.PATIENCE)
        self.assertNotEqual(0, started.returncode)
        self.assertIn("it cannot start", said)
        shown = self.do("show", "node", "-f", "value", "-c", "Reason")
        self.assertEqual("left the group\n", shown)

    def test_on_eventlet(self):
        self.check("eventlet")

    @native_services
    def test_on_native_threads(self):
        self.check("threading")


class BackendTest(base.TestCase):
    """An unusable backend: nova-sg prints an error and ends, an agent goes on.
    """

    def check(self, *words, **kwargs):
        result = self.nova_sg("list", **kwargs)
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertEqual(1, result.err.count("\n"), result.err)
        for word in words:
            self.assertIn(word, result.err)
        agent = self.agent("node", "--debug", **kwargs)
        agent.wait_for_log("Cannot report the state of node")
        for word in words:
            self.assertIn(word, agent.log)
        agent.stop()

    def test_wrong_password(self):
        url = process.shared(mariadb.MariaDB).create_database()
        url = url.replace(":secret@", f":{base.PASSWORD}@")
        self.configure(f"[database]\nconnection = {url}")
        self.check("root:***@127.0.0.1", "Access denied for user 'root'")
        # The output for developers has no password, either.
        program = self.start("nova-sg", "-vv", "list", "--debug")
        words = "".join(program.communicate(timeout=base.PATIENCE))
        self.assertIn("Access denied", words)
        self.assertNotIn(base.PASSWORD, words)

    def test_folder_that_cannot_be_written_to(self):
        os.mkdir(self.state, 0o500)
        self.check(
            f"[DEFAULT] state_path: cannot keep a database in {self.state}: "
            "Permission denied. Make the folder writable, choose another, or",
            prefix=base.AS_NORMAL_USER,
        )
        self.assertEqual([], os.listdir(self.state))
        result = self.nova_sg("doctor", prefix=base.AS_NORMAL_USER)
        self.assertEqual(1, result.status)
        self.assertIn("BAD database sqlite:///", result.out)
        self.assertIn("[DEFAULT] state_path: cannot keep", result.out)
        self.assertIn("Make the folder writable", result.out)
        self.assertEqual([], os.listdir(self.state))
