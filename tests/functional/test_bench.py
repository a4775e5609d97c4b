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

"""The benchmark works: all contenders have all rows. Figures do not matter.

The short form measures four of the contenders, on native threads.
"""

import json
import os
import shutil
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
    "refresh, of 5",
    "refresh, of 5: CPU",
    "refresh, of 20",
    "refresh, of 20: CPU",
    "memory a membership, reporter of 3",
}
_SERVER = {
    "report, 1 member: the server's CPU",
    "report, 3 members: the server's CPU",
}
_STATEMENTS = {"report, 3 members: statements a report"}
_MANY = {
    f"report, 3 members{what}"
    for what in ("", ": CPU a report", ": the server's CPU")
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
_CPU = ("", ": CPU", ": the server's CPU")
_REQUESTS = {
    f"{name}, {how}{what}"
    for name in ("get", "set")
    for how in ("one by one", "20 threads")
    for what in _CPU
}
_IN_FLIGHT = {
    f"{name}, 3 in flight{what}" for name in ("get", "set") for what in _CPU
}
_JOIN = {"join", "join: CPU"}
_FOLLOW = {
    f"follow 20 {what}{pace}{figure}"
    for what in ("joins", "leaves")
    for pace in ("", ", 200 a second")
    for figure in ("", ": behind", ": CPU", ": bytes", ": lists seen")
}
_STANDSTILL = {"session of 1 s after a standstill of 2.5 s"}
_OUTAGE = {
    f"5 sessions without a server for 2 s: {figure}"
    for figure in (
        "connections a second",
        "until all are back",
        "connections until then",
        "sessions",
    )
}
_CRASH = {"a crash seen, beside a guard", "a crash seen, by silence"}
_SHORT_REFRESH = {"a crash seen, beside a guard, refresh every 0.2 s"}
_OURS = _ALL | _BY_NAME | _OBSERVER | _IN_MEMORY | _CRASH

EXPECTED = {
    ("nova_sg db", "SQLite"): _OURS | _AT_HAND | _SHORT_REFRESH,
    ("nova_sg db", "MariaDB"): (
        _OURS | _AT_HAND | _SERVER | _STATEMENTS | _SHORT_REFRESH
    ),
    ("nova_sg conductor", "MariaDB"): _MANY | _STATEMENTS,
    ("nova db", "MariaDB"): (
        _ALL | _BY_NAME | _OBSERVER | _AT_HAND | _SERVER | _STATEMENTS
    ),
    ("nova_sg mc", "memcached"): _OURS | _SERVER,
    ("nova mc", "memcached"): _ALL | _BY_NAME | _SERVER,
    ("tooz", "memcached"): _ALL | _BY_NAME | _OBSERVER | _SERVER,
    ("nova_sg zk", "ZooKeeper"): _OURS | _SERVER,
    ("tooz", "ZooKeeper"): _ALL | _BY_NAME | _OBSERVER | _SERVER,
    ("nova_sg zookeeper", "ZooKeeper clients"): _REQUESTS | _IN_FLIGHT,
    ("nova_sg evzookeeper", "ZooKeeper clients"): (
        _REQUESTS | _JOIN | _FOLLOW | _STANDSTILL | _OUTAGE
    ),
    ("kazoo", "ZooKeeper clients"): (
        _REQUESTS
        | _IN_FLIGHT
        | _JOIN
        | _FOLLOW
        | _STANDSTILL
        | _OUTAGE
    ),
    ("tooz", "ZooKeeper clients"): _JOIN,
}


_RATIOS = {
    ("nova_sg db", "nova db", "MariaDB"),
    ("nova_sg conductor", "nova db", "MariaDB"),
    ("nova_sg mc", "nova mc", "memcached"),
    ("nova_sg mc", "tooz", "memcached"),
    ("nova_sg zk", "tooz", "ZooKeeper"),
    ("nova_sg zookeeper", "kazoo", "ZooKeeper clients"),
    ("nova_sg evzookeeper", "kazoo", "ZooKeeper clients"),
    ("nova_sg evzookeeper", "tooz", "ZooKeeper clients"),
}


class Bench:
    """The tests for some contenders or for all."""

    # Their names on the command line. Without any all are measured.
    CONTENDERS = ()
    EXPECTED = EXPECTED

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
                *(
                    word
                    for name in cls.CONTENDERS
                    for word in ("--contender", name)
                ),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if cls.bench.returncode:
            raise AssertionError(cls.bench.stderr)
        with open(path) as file:
            cls.figures = json.load(file)

    def test_progress_is_shown_on_terminals_only(self):
        self.assertEqual("", self.bench.stderr)

    def test_every_contender_has_its_rows(self):
        found = {}
        for row in self.figures["rows"]:
            self.assertEqual(tests.MODE, row["mode"])
            contender = row["contender"], row["backend"]
            found.setdefault(contender, set()).add(row["name"])
        self.assertEqual(self.EXPECTED, found)

    def test_every_figure_is_above_zero(self):
        for row in self.figures["rows"]:
            with self.subTest(name=row["name"], contender=row["contender"]):
                if row["name"].endswith("the server's CPU"):
                    # It may be zero: it is read to a hundredth of a second.
                    self.assertGreaterEqual(row["figure"], 0)
                elif row["name"].endswith(": behind"):
                    # It may be zero: the observer may know of a join before
                    # the crowd does.
                    self.assertGreaterEqual(row["figure"], 0)
                elif row["name"].endswith(("connections a second", "then")):
                    # It may be zero: a client may have paused meanwhile, or
                    # connected while the server started.
                    self.assertGreaterEqual(row["figure"], 0)
                elif row["unit"] == "kept":
                    self.assertGreaterEqual(row["figure"], 0)
                    self.assertLessEqual(row["figure"], 1)
                else:
                    self.assertGreater(row["figure"], 0)
                self.assertNotIn("failed", row["note"])

    def test_figures_of_nova_sg_are_divided_by_those_of_peers(self):
        figures = {
            (row["name"], row["contender"], row["backend"]): row["figure"]
            for row in self.figures["rows"]
        }
        units = {row["name"]: row["unit"] for row in self.figures["rows"]}
        pairs = set()
        for ratio in self.figures["ratios"]:
            where = ratio["backend"]
            ours = figures[ratio["name"], ratio["ours"], where]
            peer = figures[ratio["name"], ratio["peer"], where]
            self.assertAlmostEqual(ours / peer, ratio["ratio"])
            if units[ratio["name"]] in ("1/s", "kept"):
                self.assertEqual(ours > peer, ratio["better"])
            else:
                self.assertEqual(ours < peer, ratio["better"])
            pairs.add((ratio["ours"], ratio["peer"], where))
        self.assertEqual(
            {
                (ours, peer, where)
                for ours, peer, where in _RATIOS
                if (ours, where) in self.EXPECTED
                and (peer, where) in self.EXPECTED
            },
            pairs,
        )

    def test_people_get_the_same_as_tables(self):
        lines = self.bench.stdout.splitlines()
        for backend in {where for _, where in self.EXPECTED}:
            title = f"{backend}, {tests.MODE}"
            [head] = [line for line in lines if line.startswith(title)]
            begin = lines.index(head)
            end = (*lines[begin:], "").index("") + begin
            here = lines[begin:end]
            for (contender, where), names in self.EXPECTED.items():
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
        servers = ("mariadb", "memcached", "zookeeper")
        for name in ("cores", "python", *servers, "nova"):
            self.assertIn(f"{name}: {machine[name]}", self.bench.stdout)
            self.assertNotEqual("not installed", machine[name])


@tests.long_form
class EverythingTest(Bench, unittest.TestCase):
    """Every contender, in this mode."""


@tests.single_mode
@tests.long_form
class BeforeTest(unittest.TestCase):
    def run_bench(self, before):
        return subprocess.run(
            [
                *(nova.python(), os.path.normpath(_BENCH), "--quick"),
                *("--mode", "threads", "--many", "3", "--group", "5"),
                *("--contender", "nova_sg-db-sqlite", "--before", before),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )

    def test_another_checkout_is_measured_as_one_more_contender(self):
        root = os.path.join(os.path.dirname(__file__), "..", "..")
        with tempfile.TemporaryDirectory() as folder:
            for name in ("nova_sg", "tests", "tools"):
                shutil.copytree(
                    os.path.join(root, name), os.path.join(folder, name)
                )
            # Use this environment, as making another takes minutes.
            path = os.path.join(folder, "tools", "nova-env.sh")
            with open(path, "w") as script:
                script.write(f"#!/bin/sh\necho {nova.python()}\n")
            # Break that checkout: it is the one that has to be measured.
            path = os.path.join(folder, "nova_sg", "servicegroup", "api.py")
            with open(path, "a") as api:
                api.write("API.service_is_up = None\n")
            broken = self.run_bench(folder)
            self.assertEqual(1, broken.returncode)
            self.assertIn("nova_sg-db-sqlite, threads", broken.stderr)
            self.assertRegex(
                broken.stdout, r"(?m)^SQLite, threads .* nova_sg db$"
            )
            shutil.copy(
                os.path.join(root, "nova_sg", "servicegroup", "api.py"), path
            )
            done = self.run_bench(folder)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.assertRegex(
            done.stdout, r"SQLite, threads .* nova_sg db +before: nova_sg db"
        )

    def test_a_folder_that_is_no_checkout_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            done = self.run_bench(folder)
        self.assertEqual(2, done.returncode)
        self.assertIn("there is no tools/bench in that folder", done.stderr)


@tests.single_mode
class SomeTest(Bench, unittest.TestCase):
    """A driver and its peer, and a client of ZooKeeper and its peer."""

    CONTENDERS = (
        "nova_sg-mc-memcached",
        "tooz-memcached",
        "nova_sg-zookeeper-zookeeper-clients",
        "kazoo-zookeeper-clients",
    )
    EXPECTED = {
        contender: EXPECTED[contender]
        for contender in (
            ("nova_sg mc", "memcached"),
            ("tooz", "memcached"),
            ("nova_sg zookeeper", "ZooKeeper clients"),
            ("kazoo", "ZooKeeper clients"),
        )
    }


class Scale:
    """tools/bench --scale with one driver, and few members."""

    DRIVER: str

    ROWS = (
        "reports: CPU of the servers",
        "a report: until its answer, mean",
        "a report: until its answer, most",
        "memory of the servers",
        "an observer: its CPU",
        "an observer: CPU of the servers",
        "a death seen",
        "memory of a simulated observer",
        "a simulated look: CPU",
    )

    def test_the_rows_of_a_small_group(self):
        done = subprocess.run(
            [
                *(nova.python(), os.path.normpath(_BENCH), "--scale"),
                *("--driver", self.DRIVER, "--members", "20"),
                *("--observers", "1", "--seconds", "1", "--down-time", "6"),
                *("--simulated", "20"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        found = {}
        for line in done.stdout.splitlines():
            name, _, rest = line.partition(", of 20 ")
            if rest:
                found[name] = float(rest.split()[-1].replace(",", ""))
        self.assertEqual(set(self.ROWS), set(found))
        for name, figure in found.items():
            # Both may be too little to be seen in a second.
            if "CPU" not in name:
                self.assertGreater(figure, 0, name)


@tests.single_mode
class MemcachedScaleTest(Scale, unittest.TestCase):
    DRIVER = "mc"


@tests.single_mode
@tests.long_form
class MariaDBScaleTest(Scale, unittest.TestCase):
    DRIVER = "db"


@tests.single_mode
@tests.long_form
class ZooKeeperScaleTest(Scale, unittest.TestCase):
    DRIVER = "zk"
