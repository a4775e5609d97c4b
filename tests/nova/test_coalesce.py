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


"""Heartbeats that Nova's conductor writes together."""

import os
import subprocess
import unittest

import tests
from tests.fixtures import nova
from tests.nova import base


class Saving:
    """The effects of an object's save(), alone or in many threads."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        server = base.site().mariadb
        done = nova.run(
            [
                *(nova.python(), "-P", "-W", "ignore"),
                os.path.join(base.SCRIPTS, "heartbeats.py"),
                server.create_database(),
                server.create_database(),
                str(server.pid),
            ],
            {**os.environ, **base.mode_variable(cls.MODE)},
            errors=subprocess.PIPE,
        )
        if done.returncode:
            raise AssertionError(f"{done.stderr}\n{server.log_tail()}")
        cls.found = base.read_json(done.stdout)

    def test_it_has_the_same_effects_as_stock_nova(self):
        gathered, left = {}, set()
        for name, case in self.found["cases"].items():
            with self.subTest(name):
                stock, ours = case["stock"], case["ours"]
                self.assertFalse(stock.pop("tried") or stock.pop("together"))
                gathered[name] = ours.pop("together")
                if not ours.pop("tried"):
                    left.add(name)
                self.assertEqual(stock, ours)
        self.assertEqual(
            {"one more", "many more"},
            {name for name, together in gathered.items() if together},
        )
        self.assertEqual({"leaving", "disabled", "nothing"}, left)

    def test_the_cases_have_the_expected_effects(self):
        # Otherwise the comparison would prove nothing.
        cases = self.found["cases"]
        for name in ("one more", "many more"):
            ours = cases[name]["ours"]
            self.assertEqual("now", ours["row"]["last_seen_up"])
            self.assertEqual("now", ours["object"]["last_seen_up"])
            self.assertTrue(ours["object"]["forced_down"])
            self.assertEqual([], ours["notifications"])
        for name in ("less", "leaving"):
            row = cases[name]["ours"]["row"]
            self.assertEqual("before", row["last_seen_up"])
        self.assertEqual(
            ["update"], cases["disabled"]["ours"]["notifications"]
        )
        for name in ("deleted", "unknown"):
            self.assertIn("ServiceNotFound", cases[name]["ours"]["error"])

    def test_many_heartbeats_take_few_statements(self):
        found = self.found["together"]
        self.assertEqual([None], found["errors"])
        self.assertEqual([5], found["grown"])
        self.assertEqual([5], found["objects"])
        self.assertEqual(found["updates"], found["together"])
        self.assertLess(found["updates"], found["heartbeats"] / 2)

    def test_a_locked_record_delays_only_its_own_heartbeat(self):
        self.assertEqual(
            {"errors": [None], "waiting": True, "grown": [1]},
            self.found["locked"],
        )

    def test_no_row_is_locked_between_the_two_statements(self):
        # If the host vanished there, the locks would outlive it.
        self.assertEqual(
            {"locked": [0], "grown": [1]}, self.found["locks"]
        )

    def test_heartbeats_go_on_after_connections_are_killed(self):
        self.assertEqual(
            {"errors": [None], "grown": [1]}, self.found["killed"]
        )

    def test_heartbeats_wait_while_the_server_hangs(self):
        self.assertEqual(
            {"errors": [None], "waiting": 20, "grown": [1]},
            self.found["frozen"],
        )

    def test_a_record_of_another_cell_is_written_there(self):
        self.assertEqual(
            {"there": [8], "together": True}, self.found["cell"]
        )

    def test_a_save_within_a_transaction_is_part_of_it(self):
        self.assertEqual(
            {"grown": [0], "together": False}, self.found["transaction"]
        )

    def test_a_server_without_skip_locked_is_asked_once(self):
        self.assertEqual(
            {"errors": [None], "tried": [True, False], "grown": [2]},
            self.found["old"],
        )

    def test_a_forked_child_can_save(self):
        self.assertEqual(
            {"status": 0, "errors": [None], "grown": [1]},
            self.found["child"],
        )


class SavingOnThreadsTest(Saving, unittest.TestCase):
    MODE = "threads"


@tests.long_form
class SavingOnEventletTest(Saving, unittest.TestCase):
    MODE = "eventlet"
