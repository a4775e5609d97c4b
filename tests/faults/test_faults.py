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

"""The faults, as tests: what must hold for nova_sg holds.

The faults are played as soon as the first test wants to know, side by side:
those of the short form, and in the long form all of them, at default
settings, beside stock Nova, and the table is printed.
"""

import re
import sys
import unittest

import tests
from tests.faults import catalogue, runner, table

FAULTS = [fault for fault in catalogue.FAULTS if tests.LONG or fault.short]


class FaultsTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.playing = runner.Runner(
            tests.LONG, jobs=10 if tests.LONG else 6, stock=tests.LONG
        )
        cls.addClassCleanup(cls.playing.close)
        cls.playing.start(FAULTS)
        cls.addClassCleanup(cls._print)

    @classmethod
    def _print(cls):
        outcomes = cls.playing.outcomes()
        lines = table.lines(outcomes[f.name] for f in FAULTS)
        # Standard output belongs to the test runner.
        print("\n" + "\n".join(lines), file=sys.stderr)


def _test(name):
    def test(self):
        outcome = self.playing.outcome(name)
        self.assertTrue(outcome.rows or outcome.complaints)
        self.assertEqual([], outcome.complaints)

    return test


for _fault in FAULTS:
    _name = re.sub(r"\W+", "_", _fault.name.lower()).strip("_")
    setattr(FaultsTest, f"test_{_name}", _test(_fault.name))
