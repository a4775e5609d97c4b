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


"""The measurement of many computes' costs works; figures are not checked."""

import os
import subprocess
import unittest

import tests
from tests.fixtures import nova

_ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
_ROWS = (
    "a heartbeat: SQL statements",
    "a heartbeat: the conductor's CPU",
    "GET /os-services",
    "GET /os-services: the API's CPU",
    "ComputeFilter, all hosts: first",
    "ComputeFilter, all hosts",
)


class Many:
    """tools/nova-rig.sh many, without making the environment."""

    def _tables(self, *options):
        done = nova.run(
            [
                *(nova.python(), "tools/nova-rig/many.py", "--rounds", "1"),
                *("--count", "2", "--seconds", "5", *options),
            ],
            {**os.environ, "PYTHONPATH": f".{os.pathsep}tools"},
            _ROOT,
            timeout=600,
            errors=subprocess.PIPE,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        _, *tables = done.stdout.strip().split("\n\n")
        return [table.splitlines() for table in tables]

    def test_every_driver(self):
        tables = self._tables()
        names = [
            ["nova db", "nova_sg db", "nova_sg db+", "nova_sg mc"],
            ["nova mc", "nova_sg mc", "nova_sg zk"],
        ]
        for table, contenders in zip(tables, names, strict=True):
            for contender in contenders:
                self.assertIn(f" {contender} ", table[0])
            for row in _ROWS:
                self.assertTrue(
                    any(line.startswith(f"{row}  ") for line in table), row
                )


@tests.long_form
class ManyTest(Many, unittest.TestCase):
    """Every driver takes half a minute."""
