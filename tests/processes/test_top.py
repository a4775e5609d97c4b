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

"""nova-sg top, on a terminal and without one."""

import fcntl
import os
import pty
import re
import select
import signal
import termios
import time

from tests.processes import base

# What a terminal does by it, and what it shows, apart.
CONTROLS = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>]")


class TopTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("alive", ago=1)
        self.insert("dead", ago=7200)
        self.insert("evil\x1b]0;title\x07", ago=7200)

    def terminal(self):
        """Start it on a terminal; return (process, descriptor)."""
        ours, its = pty.openpty()
        self.addCleanup(os.close, ours)
        process = self.start(
            "nova-sg",
            "top",
            stdin=its,
            stdout=its,
            env=self.environment | {"TERM": "xterm", "LINES": "30"},
            # Ctrl-C goes to who has the terminal.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(its)
        return process, ours

    def read_until(self, descriptor, words):
        """Read what is shown until it holds words; return all of it."""
        shown = b""
        deadline = time.monotonic() + base.PATIENCE
        while words not in CONTROLS.sub(b"", shown):
            left = max(0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left)[0]:
                self.fail(f"{words!r} is not shown: {shown!r}")
            shown += os.read(descriptor, 65536)
        return shown

    def test_on_a_terminal(self):
        for key in b"q", b"\x03":
            with self.subTest(key):
                process, terminal = self.terminal()
                shown = self.read_until(terminal, b"alive")
                text = CONTROLS.sub(b"", shown)
                self.assertIn(b"compute: 2 down, 1 up", text)
                # Trouble comes first, and nobody has a word with the
                # terminal.
                self.assertLess(text.index(b"dead"), text.index(b"alive"))
                self.assertNotIn(b"\x07", shown)
                os.write(terminal, key)
                status = self.wait_for_end(process, terminal)
                self.assertEqual(0, status)

    def test_a_signal(self):
        process, terminal = self.terminal()
        self.read_until(terminal, b"alive")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(
            128 + signal.SIGTERM, self.wait_for_end(process, terminal)
        )

    def wait_for_end(self, process, terminal):
        """Return the status; what is shown has to be read meanwhile."""
        deadline = time.monotonic() + base.PATIENCE
        while process.poll() is None:
            self.assertLess(time.monotonic(), deadline, "it does not end")
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    os.read(terminal, 65536)
                except OSError:
                    # Nobody has the terminal any more.
                    process.wait(base.PATIENCE)
        self.check_words(process.stderr.read())
        return process.returncode

    def test_without_a_terminal(self):
        result = self.run_here("nova-sg", "top")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("needs a terminal", result.err)
