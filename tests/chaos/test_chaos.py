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

"""A cloud in network namespaces works: a few faults, and right answers.

tools/chaos.sh plays more. Without root, or without the programs, these tests
are skipped and say what is missing. The long form has every driver.
"""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
from unittest import mock

import tests
from tests.chaos import __main__, checker, cloud, history, nemesis
from tests.chaos.run import Run

_REASON = cloud.why_not()
_DRIVERS = ("db", "mc", "zk", "zk,db")
# How often a run is played, on a busy machine.
_ATTEMPTS = 3
# Faults that only some backends have.
_MORE = {
    "db": [
        (5.0, 1.0, "reload_proxy", ("lb2",)),
        (5.5, 2.0, "lock_tables", ("g2",)),
        (5.5, 2.0, "read_only", ("g3",)),
        (8.0, 2.0, "fill_disk", ("g2",)),
    ],
    "mc": [(3.0, 2.0, "step_clock", ("m2",), (), "both", 1.0, 9.0)],
    "zk": [(8.0, 2.0, "fill_disk", ("z2",))],
}
_SERVERS = {"db": "g1", "mc": "m1", "zk": "z1", "zk,db": "z1"}


@tests.long_form
@unittest.skipIf(_REASON, _REASON)
class ChaosTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="nova-sg-test-")
        self.folder = self.enterContext(folder)

    def play(self, driver, *faults):
        """Play faults; once more if processes did not get a core."""
        plan = [
            nemesis.Fault(number, *fault)
            for number, fault in enumerate(faults, 1)
        ]
        for attempt in range(_ATTEMPTS):
            entries = self._play(driver, plan, str(attempt))
            if not any(entry["event"] == "starved" for entry in entries):
                break
        return entries

    def _play(self, driver, plan, folder):
        run = Run(
            os.path.join(self.folder, folder),
            *(1, 0.0, driver.split(","), "threads"),
            count=4,
            plan=plan,
            calm=6.0,
        )
        run.play()
        self.assertEqual([], run.errors)
        left = subprocess.run(
            ["ip", "netns", "list"], stdout=subprocess.PIPE, text=True
        )
        self.assertNotIn(f"sg{os.getpid()}-", left.stdout)
        return history.read(run.path)


def _test(driver):
    def test(self):
        server = _SERVERS[driver]
        entries = self.play(
            driver,
            (0.0, 13.0, "kill_host", ("h00",)),
            (0.5, 2.0, "suspend_server", (server,)),
            (1.0, 2.0, "cut", ("h01",), (server,)),
            (1.5, 2.0, "cut", (server,), (), "in", 0.3),
            (2.0, 2.0, "hold_gil", ("h02",)),
            *_MORE.get(driver, ()),
        )
        result = checker.check(entries)
        self.assertEqual([], result.wrongs)
        self.assertEqual(5 + len(_MORE.get(driver, ())), result.faults)
        # Something was judged.
        self.assertLess(0, result.had_to_be_up)
        self.assertLess(0, result.had_to_answer)
        answers = [
            entry["letters"]
            for entry in entries
            if entry["event"] == "answers" and entry["observer"] == "c1"
        ]
        self.assertIn("DUUU", answers)
        self.assertEqual("UUUU", answers[-1])
        # The watcher acted upon the one that died, and upon no other.
        acted = [
            (entry["type"], entry["host"])
            for entry in entries
            if entry["event"] == "acted"
        ]
        self.assertEqual([("down", "h00"), ("up", "h00")], acted)
        # The same answers are wrong if another host was killed.
        untrue = [
            entry | {"host": "h02"} if entry.get("host") == "h00" else entry
            for entry in entries
            if entry["event"] not in ("server", "cut", "healed", "process")
            or entry.get("host") in ("h00", "h01", "h03")
        ]
        kinds = {found.kind for found in checker.check(untrue).violations}
        self.assertIn("wrong up", kinds)

    return test


if ChaosTest is not None:
    for _driver in _DRIVERS:
        _name = f"test_{_driver.replace(',', '_and_')}"
        setattr(ChaosTest, _name, _test(_driver))


class WhyNotTest(unittest.TestCase):
    def test_without_root(self):
        with mock.patch("os.geteuid", return_value=1000):
            self.assertRegex(cloud.why_not(), "run this as root")
            output = self.enterContext(
                contextlib.redirect_stderr(io.StringIO())
            )
            self.assertEqual(2, __main__.main(["--minutes", "1"]))
        self.assertIn("run this as root", output.getvalue())

    @unittest.skipIf(_REASON, _REASON)
    def test_without_a_program(self):
        with mock.patch("shutil.which", return_value=None):
            self.assertRegex(cloud.why_not(), "install Debian's package")
