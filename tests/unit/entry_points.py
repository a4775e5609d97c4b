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

"""The programs and commands of setup.cfg, for tests of documentation."""

import configparser
import importlib
import pathlib
from unittest import mock

from nova_sg.cmd import shell

ROOT = pathlib.Path(__file__).parents[2]


def read():
    """Return the programs, and the commands of nova-sg, by their names.

    Not of what is installed: that may be older.
    """
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    points = {
        group: dict(line.split(" = ") for line in text.split("\n") if line)
        for group, text in setup["entry_points"].items()
    }
    return points["console_scripts"], {
        name.replace("_", " "): where
        for name, where in points["nova_sg.cli"].items()
    }


def parse(case, commands, words):
    """Parse a command of nova-sg; the test fails if its words are wrong.

    :param commands: as read() returns them
    """
    length = 1 if words[0] in commands else 2
    name = " ".join(words[:length])
    module, _, attribute = commands[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    parser = command(shell.Shell(), None).get_parser(name)
    with mock.patch.object(parser, "error", case.fail):
        parser.parse_args(words[length:])
