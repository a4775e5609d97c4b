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

"""nova_sg can be installed with the constraints of each OpenStack release.

tests/constraints has what each release is installed with, and what Debian's
packages are.
"""

import configparser
import pathlib
import re
import subprocess
import sys
import unittest

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tests

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "constraints").glob("*.txt"))
# The extras that need what only a later release has.
LATER = {"2025.1": {"threading"}, "debian-13": {"threading"}}
# By release, what its constraints do not have; pure-sasl is in none of them.
UNCONSTRAINED = {"debian-13": {"kazoo", "pure-sasl"}}
# They are not for Nova's environment, or of one release alone.
OTHER_EXTRAS = {"bench", "masakari"}


def lines(text):
    """Return a file's lines without comments and empty ones."""
    found = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in found if line]


def pins(path):
    """Return the version of each package, by its name."""
    found = {}
    for line in lines(path.read_text()):
        name, _, version = line.partition("==")
        found[canonicalize_name(name)] = version
    return found


def extras():
    """Return the requirements of each extra."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return {name: lines(text) for name, text in setup["extras"].items()}


class BoundsTest(unittest.TestCase):
    def check(self, path, requirements):
        pinned = pins(path)
        for requirement in map(Requirement, requirements):
            with self.subTest(f"{requirement}, {path.stem}"):
                name = canonicalize_name(requirement.name)
                if name in UNCONSTRAINED.get(path.stem, {"pure-sasl"}):
                    self.assertNotIn(name, pinned)
                    continue
                version = pinned[name]
                self.assertIn(version, requirement.specifier)

    def test_requirements(self):
        text = (ROOT / "requirements.txt").read_text()
        for path in FILES:
            self.check(path, lines(text))

    def test_extras(self):
        for path in FILES:
            for name, requirements in extras().items():
                if name not in OTHER_EXTRAS | LATER.get(path.stem, set()):
                    self.check(path, requirements)

    def test_an_extra_that_a_release_cannot_have_is_named(self):
        for release, names in LATER.items():
            pinned = pins(ROOT / "tests" / "constraints" / f"{release}.txt")
            for name in names:
                self.assertFalse(
                    all(
                        pinned[canonicalize_name(one.name)] in one.specifier
                        for one in map(Requirement, extras()[name])
                    ),
                    name,
                )

    def test_the_releases_are_those_that_are_documented(self):
        page = (ROOT / "doc" / "source" / "install.rst").read_text()
        (found,) = re.findall(
            r"with the constraints of OpenStack ([^a-z]+) and\s([\d.]+),", page
        )
        self.assertEqual(
            [path.stem for path in FILES if path.stem != "debian-13"],
            [*found[0].replace(" ", "").split(","), found[1]],
        )

    def test_the_releases_of_nova_are_those_that_are_documented(self):
        page = (ROOT / "doc" / "source" / "compatibility.rst").read_text()
        found = re.findall(r"\n   \* - (\d+)\.[\d.]+\n     - ([\d.]+)\n", page)
        [newest] = re.findall(
            r"^NEWEST=(\d+)$", (ROOT / "tools/nova-env.sh").read_text(), re.M
        )
        there = {(newest, "2026.2"), ("29", "2024.1")} | {
            (pins(path)["nova"].partition(".")[0], path.stem)
            for path in FILES
            if path.stem != "debian-13"
        }
        self.assertEqual(there, set(found))


@tests.long_form
class ResolveTest(unittest.TestCase):
    """pip agrees, for all that nova_sg and Nova depend on."""

    def check(self, release, *extra):
        path = ROOT / "tests" / "constraints" / f"{release}.txt"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet"),
                *("--dry-run", "--ignore-installed", "--constraint", path),
                *("nova", f"{ROOT}[{','.join(extra)}]"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(0, done.returncode, done.stdout)

    def test_2025_1(self):
        self.check("2025.1", "notifications")

    def test_debian_13(self):
        self.check("debian-13", "notifications")

    def test_2025_2(self):
        self.check("2025.2", "notifications", "threading")

    def test_2026_1(self):
        self.check("2026.1", "notifications", "threading")
