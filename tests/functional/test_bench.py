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

"""The benchmark runs: every contender, every row. Not how fast."""

import json
import os
import subprocess
import tempfile
import unittest

import tests
from tests.fixtures import nova

_BENCH = os.path.join(os.path.dirname(__file__), "..", "..", "tools", "bench")

# The names of the rows.
_ALL = {
    "API()",
    "report, 1 member",
    "report, 1 member: CPU a report",
    "report, 3 members",
    "report, 3 members: CPU a report",
    "who is up, of 5",
    "who is up, of 5: CPU",
    "who is up, of 20",
    "who is up, of 20: CPU",
    "memory a membership, reporter of 3",
}
_SERVER = {
    "report, 1 member: the server's CPU",
    "report, 3 members: the server's CPU",
}
_AT_HAND = {
    "service_is_up, record at hand",
    "service_is_up, record at hand: CPU",
}
_BY_NAME = {"service_is_up, by name", "service_is_up, by name: CPU"}
_OBSERVER = {
    "memory a member, observer of 20",
    "memory a member, observer of 20: while it asks",
}
_IN_MEMORY = {
    "members(), in memory, of 5",
    "members(), in memory, of 5: CPU",
    "members(), in memory, of 20",
    "members(), in memory, of 20: CPU",
}
_OURS = _ALL | _BY_NAME | _OBSERVER | _IN_MEMORY

EXPECTED = {
    ("nova_sg db", "SQLite"): _OURS | _AT_HAND,
    ("nova_sg db", "MariaDB"): _OURS | _AT_HAND | _SERVER,
    ("nova db", "MariaDB"): _ALL | _BY_NAME | _OBSERVER | _AT_HAND | _SERVER,
    ("nova_sg mc", "memcached"): _OURS | _SERVER,
    ("nova mc", "memcached"): _ALL | _BY_NAME | _SERVER,
    ("tooz", "memcached"): _ALL | _BY_NAME | _OBSERVER | _SERVER,
}


class BenchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        path = os.path.join(folder, "figures.json")
        cls.bench = subprocess.run(
            [
                nova.python(),
                os.path.normpath(_BENCH),
                *("--quick", "--mode", tests.MODE, "--json", path),
                *("--many", "3", "--group", "5", "--group", "20"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if cls.bench.returncode:
            raise AssertionError(cls.bench.stderr)
        with open(path) as file:
            cls.figures = json.load(file)

    def test_every_contender_has_its_rows(self):
        found = {}
        for row in self.figures["rows"]:
            self.assertEqual(tests.MODE, row["mode"])
            who = row["contender"], row["backend"]
            found.setdefault(who, set()).add(row["name"])
        self.assertEqual(EXPECTED, found)

    def test_everybody_did_something(self):
        for row in self.figures["rows"]:
            with self.subTest(name=row["name"], contender=row["contender"]):
                if row["name"].endswith("the server's CPU"):
                    # It is read to a hundredth of a second.
                    self.assertGreaterEqual(row["figure"], 0)
                else:
                    self.assertGreater(row["figure"], 0)
                self.assertNotIn("failed", row["note"])

    def test_ours_are_divided_by_the_peers(self):
        figures = {
            (row["name"], row["contender"]): row["figure"]
            for row in self.figures["rows"]
            if row["backend"] != "SQLite"
        }
        pairs = set()
        for ratio in self.figures["ratios"]:
            ours = figures[ratio["name"], ratio["ours"]]
            peer = figures[ratio["name"], ratio["peer"]]
            self.assertAlmostEqual(ours / peer, ratio["ratio"])
            more = ratio["name"].startswith(("report", "service_is_up"))
            if more and "CPU" not in ratio["name"]:
                self.assertEqual(ours > peer, ratio["better"])
            else:
                self.assertEqual(ours < peer, ratio["better"])
            pairs.add((ratio["ours"], ratio["peer"]))
        self.assertEqual(
            {
                ("nova_sg db", "nova db"),
                ("nova_sg mc", "nova mc"),
                ("nova_sg mc", "tooz"),
            },
            pairs,
        )

    def test_people_get_the_same_as_tables(self):
        lines = self.bench.stdout.splitlines()
        for backend in ("SQLite", "MariaDB", "memcached"):
            title = f"{backend}, {tests.MODE}"
            [head] = [line for line in lines if line.startswith(title)]
            begin = lines.index(head)
            end = (*lines[begin:], "").index("") + begin
            here = lines[begin:end]
            for (contender, where), names in EXPECTED.items():
                if where != backend:
                    continue
                self.assertIn(contender, head)
                for name in names:
                    self.assertTrue(
                        any(line.startswith(name + " ") for line in here),
                        f"{name} is not in the table {title}",
                    )

    def test_the_machine_is_described(self):
        machine = self.figures["machine"]
        for name in ("cores", "python", "mariadb", "memcached", "nova"):
            self.assertIn(f"{name}: {machine[name]}", self.bench.stdout)
            self.assertNotEqual("not installed", machine[name])
