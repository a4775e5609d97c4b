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


"""A long task shows its progress on a terminal.

That it does so nowhere else is in test_cli.py, by the same command.
"""

import os
import pty

from tests.fixtures import terminal
from tests.processes import base


class DbSyncTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.path_of_database = self.path("services.sqlite")
        self.configure(
            f"[database]\nconnection = sqlite:///{self.path_of_database}"
        )

    def test_on_a_terminal(self):
        ours, its = pty.openpty()
        self.addCleanup(os.close, ours)
        process = self.start(
            "nova-sg",
            *("db", "sync"),
            stderr=its,
            env=self.environment | {"TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(its)
        shown = b""
        try:
            # Until no process has the terminal open.
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass
        out, _ = process.communicate(timeout=base.PATIENCE)
        self.assertEqual(0, process.returncode)
        text = shown.decode()
        self.assertIn(f"Looking at sqlite:///{self.path_of_database}", text)
        for revision in "0001", "0002", "0003", "0004":
            self.assertIn(f"is at revision {revision} now", text)
        # It is wiped, and the result is not mixed with it.
        screen = terminal.Screen()
        screen.write(text)
        self.assertEqual("", screen.text)
        self.assertTrue(screen.cursor_is_visible)
        self.assertRegex(out, "^sqlite:.* is at revision 0004\n$")
