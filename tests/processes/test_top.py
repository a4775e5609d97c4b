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
import struct
import termios
import time

from tests.fixtures import terminal
from tests.processes import base


class TopTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("alive", ago=1)
        self.insert("dead", ago=7200)
        self.insert("evil\x1b]0;title\x07", ago=7200)

    def top(self, *, columns=100, lines=30, prefix=(), **environment):
        """Start it on a terminal; return (process, descriptor)."""
        ours, its = pty.openpty()
        self.addCleanup(os.close, ours)
        resize(ours, columns, lines)
        self.before = termios.tcgetattr(ours)
        self.screen, self.unread = terminal.Screen(), b""
        environment = self.environment | {"TERM": "xterm"} | environment
        # It would come before the terminal's own size.
        environment.pop("COLUMNS")
        process = self.start(
            "nova-sg",
            "top",
            stdin=its,
            stdout=its,
            prefix=prefix,
            env=environment,
            # Ctrl-C goes to the processes of the terminal.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        # Where no process has it open any more it forgets its settings.
        self.addCleanup(os.close, its)
        return process, ours

    def read_until(self, descriptor, shows):
        """Read what is written until the screen shows what it should.

        :param shows: a text, or a function of the screen
        """
        if isinstance(shows, str):
            words, shows = shows, lambda screen: words in screen.text
        deadline = time.monotonic() + base.PATIENCE
        while not (self.read_some(descriptor) and shows(self.screen)):
            if time.monotonic() > deadline:
                self.fail(f"it shows: {self.screen.text}")
        return self.screen.text

    def read_some(self, descriptor):
        """Return whether something was read, in whole sequences."""
        if not select.select([descriptor], [], [], 0.05)[0]:
            return False
        self.unread += os.read(descriptor, 65536)
        if not re.search(rb"\x1b[^a-zA-Z]*$|[\x80-\xff]$", self.unread):
            self.screen.write(self.unread.decode())
            self.unread = b""
        return not self.unread

    def test_on_a_terminal(self):
        for key in b"q", b"\x03":
            with self.subTest(key):
                process, descriptor = self.top()
                text = self.read_until(descriptor, "alive")
                self.assertIn("compute: 2 down, 1 up", text)
                # Trouble comes first, and no name does anything to the
                # terminal: the screen would not take it.
                self.assertLess(text.index("dead"), text.index("alive"))
                self.assertIn("evil?]0;title?", text)
                os.write(descriptor, key)
                self.assertEqual(0, self.wait_for_end(process, descriptor))

    def test_a_member_that_may_be_restarting(self):
        self.configure("[servicegroup]\nrestart_grace = 3600")
        self.insert("stopping", ago=5, report_count=0)
        process, descriptor = self.top()
        text = self.read_until(descriptor, "alive")
        self.assertIn("compute: 2 down, 1 stopped, 1 up", text)
        # It is no trouble, and its reason is shown.
        self.assertRegex(
            text, r"(?m)^- stopping .* stopped .* stopped \d+ s ago, may be"
        )
        self.assertLess(text.index("dead"), text.index("stopping"))
        self.assertLess(text.index("stopping"), text.index("alive"))

    def test_keys_scroll(self):
        for number in range(40):
            self.insert(f"host{number:02}", ago=1)
        process, descriptor = self.top(lines=12)
        self.read_until(descriptor, "dead")
        first, last = "dead", "host39"
        for keys, words in (
            (b"\x1b[B\x1b[B\x1b[B", "host00"),
            (b"\x1b[6~" * 10, last),
            (b"\x1b[5~" * 10, first),
            (b"\x1b[6~" * 10, last),
            (b"\x1b[H", first),
        ):
            with self.subTest(keys):
                os.write(descriptor, keys)
                text = self.read_until(descriptor, words)
                self.assertNotIn(first if words == last else last, text)
                self.assertLessEqual(len(text.splitlines()), 12)

    def test_narrow_and_resized(self):
        self.insert("compute-0123456789.example.org", ago=7200)
        process, descriptor = self.top(columns=40)
        text = self.read_until(descriptor, "alive")
        self.assertLessEqual(max(map(len, text.splitlines())), 40)
        # What matters is there, and a name that is cut shows it.
        self.assertRegex(text, r"compute-\S*\u2026 (down|held) ")
        resize(descriptor, 150, 30)
        # At once, and not only with the next picture.
        self.read_until(descriptor, "compute-0123456789.example.org")

    def test_another_encoding(self):
        self.insert("zw\xf6lf", ago=7200)
        process, descriptor = self.top(columns=40, PYTHONIOENCODING="ascii")
        text = self.read_until(descriptor, "alive")
        self.assertIn("zw?lf", text)

    def test_suspended(self):
        # A shell stands above it: Ctrl-Z means nothing otherwise.
        script = 'exec 2>&1; set -m; "$@"; echo it is suspended; read; fg'
        prefix = ("bash", "-c", script, "bash")
        process, descriptor = self.top(prefix=prefix)
        self.read_until(descriptor, "alive")
        os.write(descriptor, b"\x1a")
        self.read_until(descriptor, "it is suspended")
        self.assertTrue(self.screen.cursor_is_visible)
        self.assertEqual(self.before, termios.tcgetattr(descriptor))
        os.write(descriptor, b"\n")
        self.read_until(descriptor, "alive")
        os.write(descriptor, b"q")
        self.assertEqual(0, self.wait_for_end(process, descriptor))

    def test_a_signal(self):
        process, descriptor = self.top()
        self.read_until(descriptor, "alive")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(
            128 + signal.SIGTERM, self.wait_for_end(process, descriptor)
        )

    def wait_for_end(self, process, descriptor):
        """See to it that it leaves a terminal as it was; return the status."""
        deadline = time.monotonic() + base.PATIENCE
        while process.poll() is None:
            self.assertLess(time.monotonic(), deadline, "it does not end")
            self.read_some(descriptor)
        while self.read_some(descriptor):
            pass
        self.assertFalse(self.screen.is_alternate)
        self.assertTrue(self.screen.cursor_is_visible)
        self.assertEqual(self.before, termios.tcgetattr(descriptor))
        self.check_words(process.stderr.read())
        return process.returncode

    def test_without_a_terminal(self):
        result = self.run_here("nova-sg", "top")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("needs a terminal", result.err)

    def test_a_terminal_that_can_show_nothing(self):
        process, descriptor = self.top(TERM="dumb")
        self.assertEqual(2, process.wait(base.PATIENCE))
        self.assertIn("(dumb) cannot show a table", process.stderr.read())


def resize(descriptor, columns, lines):
    size = struct.pack("HHHH", lines, columns, 0, 0)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)
