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

All faults are played as soon as the first test wants to know, side by side.
NOVA_SG_LONG=1 plays them at default settings and prints the table.
"""

import os
import re
import sys
import unittest

from tests.faults import catalogue, runner, table

LONG = bool(os.environ.get("NOVA_SG_LONG"))


class FaultsTest(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.playing = runner.Runner(LONG, jobs=10 if LONG else 6)
        cls.addClassCleanup(cls.playing.close)
        cls.playing.start(catalogue.FAULTS)
        cls.addClassCleanup(cls._print)

    @classmethod
    def _print(cls):
        outcomes = cls.playing.outcomes()
        lines = table.lines(outcomes[f.name] for f in catalogue.FAULTS)
        # Standard output belongs to the test runner.
        print("\n" + "\n".join(lines), file=sys.stderr)


def _test(name):
    def test(self):
        outcome = self.playing.outcome(name)
        self.assertTrue(outcome.rows or outcome.complaints)
        self.assertEqual([], outcome.complaints)

    return test


for _fault in catalogue.FAULTS:
    _name = re.sub(r"\W+", "_", _fault.name.lower()).strip("_")
    setattr(FaultsTest, f"test_{_name}", _test(_fault.name))
