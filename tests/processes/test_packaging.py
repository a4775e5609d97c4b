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

"""The files that are installed from a checkout, or from its sdist."""

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import unittest

from tests.fixtures import watchdog

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))

ENTRY_POINTS = {
    "console_scripts": {"nova-sg", "nova-sg-agent"},
    "nova_sg.servicegroup.drivers": {"db", "mc"},
    "oslo.config.opts": {"nova_sg"},
    "nova_sg.cli": {
        "db_sync",
        "doctor",
        "force-down",
        "forget",
        "is-up",
        "list",
        "show",
        "wait",
        "watch",
    },
}


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp(prefix="nova-sg-test-")
        watchdog.guard_folder(cls.folder)
        cls.addClassCleanup(cls._remove)
        # A copy of the files alone, as a build leaves files behind.
        checkout = os.path.join(cls.folder, "checkout")
        names = cls.git(
            ROOT, "ls-files", "--cached", "--others", "--exclude-standard"
        )
        for name in names.splitlines():
            target = os.path.join(checkout, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.isfile(os.path.join(ROOT, name)):
                shutil.copy(os.path.join(ROOT, name), target)
        # pbr asks git for the names of the files, and for the version.
        cls.git(checkout, "init", "--quiet")
        cls.git(checkout, "add", ".")
        cls.git(checkout, "commit", "--quiet", "--message=All there is")
        dist = os.path.join(cls.folder, "dist")
        cls.set_up(checkout, "sdist", f"--dist-dir={dist}")
        (name,) = os.listdir(dist)
        with tarfile.open(os.path.join(dist, name)) as archive:
            archive.extractall(cls.folder, filter="data")
        cls.source = os.path.join(cls.folder, name.removesuffix(".tar.gz"))
        # The wheel is made of the sdist, as by pip install.
        wheels = os.path.join(cls.folder, "wheels")
        cls.pip(
            *("wheel", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", wheels, os.path.join(dist, name)),
        )
        (name,) = os.listdir(wheels)
        # Installed as into an environment of its own.
        cls.prefix = os.path.join(cls.folder, "prefix")
        cls.pip(
            *("install", "--no-deps", "--ignore-installed", "--no-compile"),
            *("--no-warn-script-location", "--prefix", cls.prefix),
            os.path.join(wheels, name),
        )
        variables = {"base": cls.prefix, "platbase": cls.prefix}
        # Not that of Debian's Python, which is for /usr/local.
        cls.library = sysconfig.get_path("purelib", "venv", variables)

    @classmethod
    def _remove(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)
        watchdog.release_folder(cls.folder)

    @staticmethod
    def git(where, *arguments):
        return subprocess.run(
            [
                "git",
                *("-c", f"safe.directory={where}"),
                *("-c", "user.name=Nobody"),
                *("-c", "user.email=nobody@example.org"),
                *arguments,
            ],
            cwd=where,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    @classmethod
    def set_up(cls, where, *arguments):
        cls.python(where, "setup.py", *arguments)

    @classmethod
    def pip(cls, *arguments):
        cls.python(cls.folder, "-m", "pip", "--no-input", *arguments)

    @staticmethod
    def python(where, *arguments, **variables):
        """Run Python, which has to succeed; return what it prints."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=where,
            env={**os.environ, "PIP_NO_INDEX": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise AssertionError(f"{arguments} fails\n{done.stdout}")
        return done.stdout

    @staticmethod
    def files(where):
        """Return the names of all files below a folder."""
        return {
            os.path.relpath(os.path.join(folder, name), where)
            for folder, _, names in os.walk(where)
            for name in names
            if not name.endswith(".pyc")
        }

    def modules(self):
        checkout = os.path.join(self.folder, "checkout")
        return {
            name
            for name in self.files(checkout)
            if name.startswith("nova_sg/")
        }

    def read(self, name):
        with open(os.path.join(self.source, name)) as file:
            return file.read()

    def test_sdist(self):
        names = self.files(self.source)
        self.assertLessEqual(self.modules(), names)
        self.assertLessEqual(
            {
                "LICENSE",
                "README.rst",
                "bindep.txt",
                "etc/nova-sg/nova-sg.conf.sample",
                "pyproject.toml",
                "requirements.txt",
                "setup.cfg",
                "setup.py",
                "test-requirements.txt",
                "tests/processes/test_packaging.py",
                "tools/run-tests.sh",
            },
            names,
        )

    def test_what_is_installed(self):
        installed = {
            name
            for name in self.files(self.library)
            if not name.partition("/")[0].endswith(".dist-info")
        }
        self.assertEqual(self.modules(), installed)
        self.assertIn(
            "nova_sg/backends/db/migrations/versions/0001_services.py",
            installed,
        )

    def test_what_operators_need_is_installed(self):
        share = os.path.join(self.prefix, "share", "nova-sg")
        self.assertEqual(
            {
                "events/fence-and-evacuate",
                "grafana/nova-sg.json",
                "logrotate.d/nova-sg",
                "nova-sg.conf.sample",
                "prometheus/nova-sg.rules.yaml",
                "systemd/nova-sg-agent.service",
                "systemd/nova-sg-monitor.service",
                "systemd/nova-sg-watch.service",
                "sysusers.d/nova-sg.conf",
                "tmpfiles.d/nova-sg.conf",
            },
            self.files(share),
        )
        # Every file of etc/, but for what makes the sample.
        names = {os.path.basename(name) for name in self.files(share)}
        etc = os.path.join(self.folder, "checkout", "etc")
        self.assertEqual(
            {os.path.basename(name) for name in self.files(etc)}
            - {"config-generator.conf"},
            names,
        )
        script = os.path.join(share, "events", "fence-and-evacuate")
        self.assertTrue(os.access(script, os.X_OK))

    def test_the_installed_programs_run(self):
        for name in ("nova-sg", "nova-sg-agent", "nova-sg-monitor"):
            said = self.python(
                self.folder,
                os.path.join(self.prefix, "bin", name),
                "--version",
                PYTHONPATH=self.library,
            )
            self.assertIn(self.version(), said)
        said = self.python(
            self.folder,
            *("-c", "import nova_sg; print(nova_sg.__file__)"),
            PYTHONPATH=self.library,
        )
        self.assertTrue(said.startswith(self.library), said)

    def version(self):
        (name,) = (
            name
            for name in os.listdir(self.library)
            if name.endswith(".dist-info")
        )
        return name.removesuffix(".dist-info").partition("-")[2]

    def test_entry_points(self):
        parser = configparser.ConfigParser(delimiters="=")
        parser.optionxform = str
        parser.read_string(self.read("nova_sg.egg-info/entry_points.txt"))
        for group, expected in ENTRY_POINTS.items():
            self.assertLessEqual(expected, set(parser[group]))
        # The modules that they name exist.
        installed = self.files(self.library)
        for group in parser.sections():
            for target in parser[group].values():
                module = target.partition(":")[0].strip().replace(".", "/")
                self.assertIn(f"{module}.py", installed)

    def test_requirements(self):
        metadata = self.read("nova_sg.egg-info/PKG-INFO")
        self.assertRegex(metadata, r"\nName: nova[-_]sg\n")
        self.assertIn("\nRequires-Python: >=3.11\n", metadata)
        required = self.read("nova_sg.egg-info/requires.txt").splitlines()
        for line in self.read("requirements.txt").splitlines():
            requirement = line.partition("#")[0].strip()
            if requirement:
                self.assertIn(requirement, required)
