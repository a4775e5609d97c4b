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

"""Nova runs with nova_sg, or does not start."""

import os
import shutil
import subprocess
import tempfile
import unittest

from nova_sg.backends import base as drivers
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from tests.fixtures import memcached, nova
from tests.nova import base

NOVA_CONF = """\
[DEFAULT]
config_source = nova_sg
{options}
state_path = {folder}
concurrency_backend = {mode}

[nova_sg]
{driver}
"""


class _TestCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="nova-sg-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def run_script(self, name, *arguments, **options):
        """Run a script in Nova's environment, with such a nova.conf."""
        path = os.path.join(self.folder, "nova.conf")
        with open(path, "w") as file:
            file.write(NOVA_CONF.format(folder=self.folder, **options))
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OS_", "PYTHON"))
        }
        script = os.path.join(base.SCRIPTS, name)
        return nova.run(
            [
                *(nova.python(), "-P", "-W", "ignore", script),
                *(*arguments, "--config-file", path),
            ],
            environment,
            self.folder,
            errors=subprocess.STDOUT,
        )


class ActiveTest(_TestCase):
    """The start of one process of Nova, without a cloud."""

    def start(self, *arguments, mode="threading", driver="driver = nova_sg"):
        return self.run_script(
            "active.py",
            *arguments,
            options="servicegroup_driver = db",
            mode=mode,
            driver=driver,
        )

    def active(self, mode, processes=1):
        done = self.start(mode=mode)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertEqual(
            processes,
            done.stdout.count(f"nova_sg {self.version()} active, driver db"),
            done.stdout,
        )
        # Nova warns so of imports that came before the patching.
        self.assertNotIn("known eventlet monkey patching issues", done.stdout)
        found = base.read_json(done.stdout)
        self.assertEqual("nova_sg.nova.api", found["module"])
        # The driver works.
        self.assertEqual([True], found["checked"])
        return found

    @staticmethod
    def version():
        """Return the version in Nova's environment, which may be older."""
        program = "from nova_sg import version as v; print(v.version_string())"
        return nova.run([nova.python(), "-c", program]).stdout.strip()

    def test_on_threads(self):
        # Python is not patched, so modules that were imported stay.
        self.assertTrue(self.active("threading")["kept"])

    def test_on_eventlet(self):
        # A child that uses nova_sg logs the line, too.
        found = self.active("eventlet", processes=2)
        self.assertEqual([], found["kept"])
        # oslo.config refers to oslo.log only to know that it is installed.
        self.assertEqual(["oslo_config.cfg.oslo_log"], found["holders"])
        # A child that does not use nova_sg is not changed.
        self.assertEqual("True", found["idle"])
        self.assertEqual("False", found["uses"])

    def test_nova_stops_if_a_name_is_missing(self):
        for missing in (
            "nova.servicegroup.api:API",
            "nova.conf.servicegroup:SERVICEGROUP_OPTS",
            "nova.servicegroup.api",
        ):
            with self.subTest(missing):
                self.check_stopped(
                    missing.replace(":", "."),
                    self.start("--without", missing),
                )

    def test_nova_stops_if_the_source_cannot_be_opened(self):
        for driver, words in (
            ("", "no 'driver' is set"),
            ("driver = nova-sg", "could not load configuration"),
        ):
            with self.subTest(driver):
                self.check_stopped(words, self.start(driver=driver))

    def check_stopped(self, words, done):
        """Check that a process ended, and logged why in one line."""
        self.assertEqual(1, done.returncode, done.stdout)
        line = done.stdout.splitlines()[-1]
        self.assertIn(words, line)
        self.assertIn("Nova is stopped", line)
        self.assertIn("config_source", line)
        self.assertNotIn("Traceback", done.stdout)


class FollowTest(_TestCase):
    """A worker of the scheduler knows the computes before it is asked."""

    HOSTS = ("one", "two", "three")

    def start(self, service, mode):
        done = self.run_script(
            "follow.py",
            *(service, "compute"),
            options=(
                "servicegroup_driver = mc\n"
                f"memcached_servers = {self.server.address}\n"
                "[servicegroup]\nview_refresh_interval = 3600\n"
                "[DEFAULT]"
            ),
            mode=mode,
            driver="driver = nova_sg",
        )
        self.assertEqual(0, done.returncode, done.stdout)
        return base.read_json(done.stdout)

    def setUp(self):
        super().setUp()
        self.server = self.enterContext(memcached.Memcached())
        CONF.set_override("memcached_servers", [self.server.address])
        self.addCleanup(CONF.clear_override, "memcached_servers")
        driver = process.load("mc")
        self.addCleanup(driver.close)
        for host in self.HOSTS:
            driver.report(
                drivers.Membership(host, "compute", "nova-compute", None, 10)
            )

    def test_a_scheduler(self):
        for mode in "threading", "eventlet":
            with self.subTest(mode):
                found = self.start("scheduler", mode)
                self.assertEqual({"compute": 3}, found["views"])
                self.assertEqual(list(self.HOSTS), found["passed"])
                self.assertEqual(0, found["refreshes"])

    def test_a_compute_reads_nothing(self):
        self.assertEqual({}, self.start("compute", "threading")["views"])

    def test_a_scheduler_starts_while_its_backend_hangs(self):
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        found = self.start("scheduler", "threading")
        self.assertLess(found["join"], 1)
        self.assertEqual("ServiceGroupUnavailable", found["error"])
