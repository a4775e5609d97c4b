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


"""The benchmark's plots show every row of their tables."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest
from xml.etree import ElementTree

import tests
from tests.fixtures import nova

ROOT = pathlib.Path(__file__).parents[2]

BENCH = """\
cores: 2
load average before: 0.10

MariaDB, threads                    unit  nova_sg db      nova db  nova_sg/nova
----------------------------------  ----  ----------  -----------  ------------
report, 1 member                    1/s          797     97.3 [1]          8.19
report, 1 member: CPU a report      us           176        2,167        0.0812
service_is_up, by name: CPU         us         0.552        1,092      0.000505
refresh, of 1,000                   ms          36.5          116         0.315
refresh, of 10,000                  ms           336        4,973        0.0676
a crash seen, beside a guard        ms       157 [2]            -             -
a crash seen, by silence            ms     8,912 [2]            -             -
[1] nova: without the way to nova-conductor by RPC
[2] the observer refreshes every 0.2 s

MariaDB, eventlet               unit  nova_sg db
------------------------------  ----  ----------
report, 1 member: CPU a report  us           333

ZooKeeper, threads            unit  nova_sg zk  tooz  nova_sg/tooz
----------------------------  ----  ----------  ----  ------------
refresh, of 1,000             ms          15.3  1.69    9.04 worse
a crash seen, beside a guard  ms          21.0     -             -
"""
RIG = """\
3 computes, Nova's db driver, threads  unit  nova db  nova_sg zk  zk/nova
-------------------------------------  ----  -------  ----------  -------
a heartbeat: SQL statements                     4.02           0        0
a heartbeat: the conductor's CPU       ms       4.36       0.111   0.0255
GET /os-services                       ms       48.1        47.6    0.990
"""
SCALE = """\
cores: 2

memcached, threads                       unit  nova_sg mc
---------------------------------------  ----  ----------
reports: CPU of the servers, of 1,000    %           3.00
an observer: its CPU, of 1,000           %          0.500
a death seen, of 1,000                   s           60.0
reports: CPU of the servers, of 10,000   %           30.0
an observer: its CPU, of 10,000          %           2.50
a death seen, of 10,000                  s           60.0

ZooKeeper, threads                       unit  nova_sg zk
---------------------------------------  ----  ----------
reports: CPU of the servers, of 1,000    %           20.0
reports: CPU of the servers, of 10,000   %           63.2
"""
#: The texts that each plot has to have.
EXPECTED = {
    "is-up": {"nova_sg db, MariaDB", "0.552 µs", "nova db, MariaDB"}
    | {"1,092 µs", "service_is_up, by name: CPU"},
    "report": {"nova_sg db, MariaDB", "176 µs", "nova db, MariaDB"}
    | {"2,167 µs", "report, 1 member: CPU a report"},
    "refresh": {"MariaDB", "36.5 ms", "336 ms nova_sg db", "116 ms"}
    | {"4,973 ms nova db", "ZooKeeper", "15.3 ms nova_sg zk"}
    | {"1.69 ms tooz", "1,000", "10,000"},
    "crash": {"nova_sg db, MariaDB", "157 ms", "8,912 ms", "21.0 ms"}
    | {"a crash seen, beside a guard", "a crash seen, by silence"},
    "heartbeat": {"nova db", "nova_sg zk", "4.02", "0", "4.36 ms"}
    | {"0.111 ms", "a heartbeat: the conductor's CPU"},
}


def texts(svg):
    """Return the texts in a picture."""
    return {
        " ".join("".join(one.itertext()).split())
        for one in ElementTree.fromstring(svg).iter(
            "{http://www.w3.org/2000/svg}text"
        )
    }


def draw(folder, *tables, page="benchmarks-plots.inc"):
    """Run the command; return its output, and a page that it wrote."""
    done = subprocess.run(
        [nova.python(), ROOT / "tools/bench", "--plots", "--to", folder]
        + list(tables),
        check=True,
        capture_output=True,
        text=True,
        # So that it cannot download anything.
        env={**os.environ, "https_proxy": "http://127.0.0.1:9"},
    )
    with open(os.path.join(folder, page), encoding="utf-8") as file:
        return done.stdout.splitlines(), file.read()


class PlotsTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.tables = []
        for name, text in (("bench.txt", BENCH), ("rig.txt", RIG)):
            self.tables.append(os.path.join(self.folder, name))
            with open(self.tables[-1], "w") as file:
                file.write(text)

    def test_every_row_is_drawn(self):
        self.check_every_row()

    def check_every_row(self):
        """Draw and check the plots; return their texts, by path."""
        said, page = draw(self.folder, *self.tables)
        images = [f"images/bench-{name}.svg" for name in EXPECTED]
        self.assertEqual(images, said)
        self.assertEqual(images, re.findall(r"figure:: (\S+)", page))
        written = {}
        for name, path in zip(EXPECTED, images, strict=True):
            text = pathlib.Path(self.folder, path).read_text()
            words = texts(text)
            self.assertEqual(set(), EXPECTED[name] - words, name)
            # No plot mixes modes.
            self.assertNotIn("333 µs", words)
            # It has colours for dark pages, too.
            self.assertIn("prefers-color-scheme: dark", text)
            self.assertNotRegex(text, "<dc:date>|#0a0b0c|#fafbfc")
            written[path] = text
        # The text for readers who cannot see the plots has the figures, too.
        for words in (
            "nova db, MariaDB 2,167 µs",
            "nova_sg zk, ZooKeeper 21.0 ms",
            "a heartbeat: SQL statements: nova db 4.02; nova_sg zk 0.",
        ):
            self.assertIn(words, page)
        return written

    def test_growth_is_drawn_with_its_slope(self):
        table = os.path.join(self.folder, "scale.txt")
        with open(table, "w") as file:
            file.write(SCALE)
        names = "scale-servers", "scale-observer", "scale-death"
        said, page = draw(self.folder, table, page="scale-plots.inc")
        images = [f"images/bench-{name}.svg" for name in names]
        self.assertEqual(images, said)
        self.assertEqual(images, re.findall(r"figure:: (\S+)", page))
        self.assertIn("nova_sg zk, ZooKeeper 63.2 %", page)
        for path, slopes in zip(
            images,
            (
                {"mc, slope 1.00", "zk, slope 0.50"},
                {"mc, slope 0.70"},
                {"mc, slope 0.00"},
            ),
            strict=True,
        ):
            words = texts(pathlib.Path(self.folder, path).read_text())
            self.assertEqual(
                slopes, {word for word in words if "slope" in word}
            )

    @tests.long_form
    def test_what_has_not_changed_is_the_same_to_the_byte(self):
        written = self.check_every_row()
        draw(self.folder, *self.tables)
        for path, text in written.items():
            again = pathlib.Path(self.folder, path).read_text()
            self.assertEqual(text, again, path)

    def test_the_documentation_has_those_of_its_tables(self):
        said, _ = draw(self.folder)
        source = ROOT / "doc/source"
        for name in "benchmarks-plots.inc", "scale-plots.inc":
            self.assertEqual(
                (source / name).read_text(),
                pathlib.Path(self.folder, name).read_text(),
                "tools/bench.sh --plots makes them anew",
            )
        self.assertEqual(
            {source / name for name in said},
            set(source.glob("images/bench-*.svg")),
        )
