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


"""The line that shows how far a long task is."""

import io
import unittest
from unittest import mock

from nova_sg.cmd import progress
from tests import base
from tests.fixtures import terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


def picture(stream):
    """Return what the terminal shows now."""
    screen = terminal.Screen()
    screen.write(stream.getvalue())
    return screen.text


class LineTest(unittest.TestCase):
    def test_its_text(self):
        for words, step, seconds in (
            ("0:00 one", ("one",), 0.4),
            ("[0/4] 1:05 one", ("one", 0, 4), 65.0),
            ("[1/4] 1:05 (3:15 left) one", ("one", 1, 4), 65.0),
            ("[3/4] 2:00:00 (40:00 left) one", ("one", 3, 4), 7200.0),
            ("[4/4] 0:09 (0:00 left) one", ("one", 4, 4), 9.0),
        ):
            with self.subTest(words):
                shown = progress.Progress(io.StringIO())
                shown.step(*step)
                self.assertEqual(words, shown.line(seconds))

    def test_a_terminal(self):
        stream = Terminal()
        with (
            mock.patch.dict("os.environ", TERM="xterm", COLUMNS="30"),
            progress.Progress(stream) as shown,
        ):
            shown.step("one", 0, 2)
            self.assertRegex(picture(stream), r"^\[0/2\] \S+ one$")
            shown.say("what stays, [b]however[/b] long it is")
            shown.note("and this")
            self.assertIn("one", picture(stream))
            shown.step("x" * 100)
            *_, line = picture(stream).splitlines()
            self.assertRegex(line, r"^\S+ x+$")
            # One that does not fit would be left behind when it is wiped.
            self.assertLessEqual(len(line), 30)
        # No picture is left in a line that stays.
        self.assertEqual(
            "what stays, [b]however[/b] long it is\nand this", picture(stream)
        )

    def test_the_time_goes_on_by_itself(self):
        stream = Terminal()
        with (
            mock.patch.dict("os.environ", TERM="xterm"),
            progress.Progress(stream) as shown,
        ):
            shown.step("one")
            base.wait_for(
                lambda: "0:01 one" in picture(stream), message="a second"
            )

    def test_elsewhere_there_is_none(self):
        for stream, kind in (
            (io.StringIO(), "xterm"),
            (Terminal(), "dumb"),
        ):
            with (
                mock.patch.dict("os.environ", TERM=kind, FORCE_COLOR="1"),
                progress.Progress(stream) as shown,
            ):
                shown.step("one", 1, 2)
                shown.note("not shown")
                self.assertEqual("", stream.getvalue())
                shown.say("always shown")
            self.assertEqual("always shown\n", stream.getvalue())
