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


"""Nova's own unit tests, unchanged, with the drop-in."""

import os
import unittest

import tests
from tests.fixtures import nova
from tests.nova import base

RUNNER = os.path.join(os.path.dirname(__file__), "..", "nova_runner.py")
MODULES = (
    "nova.tests.unit.servicegroup.test_api",
    "nova.tests.unit.servicegroup.test_db_servicegroup",
    "nova.tests.unit.scheduler.filters.test_compute_filters",
    "nova.tests.unit.db.main.test_api.ServiceTestCase",
)
if tests.LONG:
    MODULES += ("nova.tests.unit.objects.test_service",)


class NovaTestsTest(unittest.TestCase):
    """The tests run in one process for each mode."""

    def _run(self, mode):
        done = nova.run(
            [nova.python(), "-P", os.path.abspath(RUNNER), *MODULES],
            {**os.environ, **base.mode_variable(mode)},
        )
        last = done.stdout.splitlines()[-1]
        self.assertRegex(last, r"^\d+ run, 0 failed, 0 skipped$", done.stdout)
        self.assertGreaterEqual(int(last.split()[0]), 13)
        self.assertEqual(0, done.returncode)

    def test_on_native_threads(self):
        self._run("threads")

    @tests.long_form
    def test_on_eventlet(self):
        self._run("eventlet")
