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

"""Help, the version, and wrong arguments."""

import subprocess
import sys

from tests import single_mode
from tests.cli import base

COMMANDS = (
    "db sync",
    "doctor",
    "force-down",
    "forget",
    "is-up",
    "list",
    "show",
    "wait",
    "watch",
)


# Runs a program, and then prints the modules that it has imported.
IMPORTS = """
import sys
from nova_sg.cmd import shell
status = shell.main(sys.argv[1:])
print("\\n".join(sys.modules))
sys.exit(status)
"""
# What the command list has no use for.
NOT_FOR_LIST = (
    "nova_sg.actions",
    "nova_sg.backends.db.doctor",
    "nova_sg.backends.memcached",
    "nova_sg.backends.zookeeper",
    "nova_sg.cmd.doctor",
    "nova_sg.cmd.progress",
    "nova_sg.cmd.top",
    "nova_sg.monitor",
    "alembic",
    "pymysql",
    "rich",
)


@single_mode
class BasicsTest(base.TestCase):
    def test_no_command(self):
        result = self.nova_sg(config=False)
        self.assertEqual((2, ""), (result.status, result.err))
        for command in COMMANDS:
            self.assertRegex(result.out, rf"(?m)^  {command}  +\w")

    def test_help_needs_no_valid_configuration(self):
        self.write("nova-sg.conf", "nonsense\n")
        for arguments in (["help"], ["--help"]):
            result = self.nova_sg(*arguments)
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertIn("services of an OpenStack", result.out)

    def test_help_on_every_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                result = self.nova_sg(*command.split(), "--help", config=False)
                self.assertEqual((0, ""), (result.status, result.err))
                self.assertRegex(result.out, rf"^usage: nova-sg {command} ")

    def test_unknown_command(self):
        result = self.nova_sg("lits")
        self.assertEqual(2, result.status)
        self.assertIn("'lits' is not a nova-sg command", result.out)
        self.assertIn("  list\n", result.out)

    def test_unknown_option(self):
        for arguments in (["--no-such"], ["list", "--no-such"], ["list", "x"]):
            with self.subTest(arguments):
                result = self.nova_sg(*arguments)
                self.assertEqual(2, result.status)
                self.assertRegex(
                    result.out + result.err,
                    f"{arguments[-1]}('? is not a|$)",
                )

    def imported(self, *arguments):
        """Return the modules that nova-sg has imported for a command."""
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=base.PATIENCE,
        )
        return done.stdout.split()

    def test_modules_of_other_commands_are_not_imported(self):
        database = f"sqlite:///{self.path('nova-sg.sqlite')}"
        config = self.write(
            "nova-sg.conf", f"[database]\nconnection = {database}\n"
        )
        arguments = ("--config-file", str(config))
        self.assertIn("alembic", self.imported(*arguments, "db", "sync"))
        imported = self.imported(*arguments, "list")
        self.assertIn("nova_sg.cmd.members", imported)
        self.assertEqual([], sorted(set(NOT_FOR_LIST).intersection(imported)))

    def test_exec_without_a_command(self):
        result = self.run_program("nova-sg-exec", config=False)
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertRegex(result.err, "^usage: nova-sg-exec .*COMMAND ")
        result = self.run_program("nova-sg-exec", "--help", config=False)
        self.assertEqual((0, ""), (result.status, result.err))
        self.assertRegex(result.out, "^usage: nova-sg-exec .*COMMAND ")

    def test_exec_of_a_missing_command(self):
        missing = self.path("missing")
        result = self.run_program("nova-sg-exec", missing, config=False)
        self.assertEqual((127, ""), (result.status, result.out))
        self.assertEqual(
            f"nova-sg-exec: {missing}: No such file or directory\n",
            result.err,
        )
