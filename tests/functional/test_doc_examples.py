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

"""The examples of the documentation print what it shows."""

import os
import pathlib
import signal
import subprocess
import sys

from nova_sg import servicegroup
from tests import base, native_services, single_mode

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "doc" / "source" / "examples"

# Runs an example in the concurrency mode of the tests. join waits longer than
# usual: on a busy machine the first report, which makes the database, takes
# long, and the example would call its member down.
RUN = """
import runpy, sys
import tests
from nova_sg.servicegroup import reporter
reporter.JOIN_WAIT = 60
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

CONFIGURATION = """
[DEFAULT]
host = worker1
state_path = {folder}
report_interval = 0.5
service_down_time = 30

[servicegroup]
view_refresh_interval = 0.1
"""


class DocExamplesTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.flags(service_down_time=30)
        self.flags("servicegroup", view_refresh_interval=0.1)
        self.folder = pathlib.Path(self.folder)
        self.file = self.folder / "nova-sg.conf"
        self.file.write_text(CONFIGURATION.format(folder=self.folder))

    def test_ask(self):
        self.assertEqual(self.expected("ask"), self.run_example("ask"))

    def test_watch(self):
        self.assertEqual(self.expected("watch"), self.run_example("watch"))

    # The example chooses its mode itself: native threads.
    @single_mode
    @native_services
    def test_service(self):
        process = self.start(EXAMPLES / "service.py")
        api = servicegroup.API()
        base.wait_for(
            lambda: process.poll() is not None
            or api.get_all("worker") == ["worker1"],
            timeout=60,
            message="the service has joined",
        )
        self.assertIsNone(process.poll(), self.printed("stderr"))
        process.send_signal(signal.SIGTERM)
        self.wait(process)

        def told():
            member = api.member("worker", "worker1")
            return member.state, member.reason, member.binary

        # The answer may be as old as one refresh.
        self.assert_becomes(("down", "left the group", "nova-worker"), told)

    def expected(self, name):
        return (EXAMPLES / f"{name}.out").read_text()

    def run_example(self, name):
        """Run an example to its end; return what it printed."""
        self.wait(self.start("-c", RUN, EXAMPLES / f"{name}.py"))
        return self.printed("stdout")

    def start(self, *arguments):
        with (
            open(self.folder / "stdout", "w") as out,
            open(self.folder / "stderr", "w") as err,
        ):
            process = subprocess.Popen(
                [sys.executable, *arguments, "--config-file", self.file],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # The checkout, so that the examples import it.
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.addCleanup(self.kill, process)
        return process

    def kill(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()

    def wait(self, process):
        base.wait_for(
            lambda: process.poll() is not None,
            timeout=60,
            message="the example ends",
        )
        self.assertEqual(0, process.returncode, self.printed("stderr"))

    def printed(self, where):
        return (self.folder / where).read_text()
