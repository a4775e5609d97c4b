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

"""Each fault of the catalogue as a test.

All faults are played side by side. They begin before the first test, and each
test waits for its own. With NOVA_SG_LONG all faults are played, at default
settings and beside stock Nova; otherwise those of the short form. The table is
printed at the end.
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
        # stestr reads its own protocol from the standard output.
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
