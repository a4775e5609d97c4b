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


"""A driver in a package of its own: that of the documentation."""

import os
import pathlib
import shutil
import subprocess

from tests import single_mode
from tests.fixtures import nova
from tests.processes import base

EXAMPLE = (
    pathlib.Path(__file__).parents[2] / "doc/source/examples/folder_driver.py"
)
ENTRY_POINTS = """\
[nova_sg.servicegroup.drivers]
folder = folder_driver:FolderDriver
broken = folder_driver:Missing
other = argparse:Namespace
[oslo.config.opts]
folder_driver = folder_driver:list_opts
"""
# In Nova's own process: its option, and the class that it makes.
IN_NOVA = """
import sys
from nova import config, context, servicegroup
config.parse_args(["nova", "--config-file", sys.argv[1]])
api = servicegroup.API()
print(type(api).__module__, api.service_is_up(
    {"host": "one", "topic": "compute", "binary": "nova-compute",
     "forced_down": False, "report_count": 1, "updated_at": None,
     "last_seen_up": None, "created_at": None, "disabled": False}))
"""


@single_mode
class FolderDriverTest(base.TestCase):
    def setUp(self):
        super().setUp()
        site = pathlib.Path(self.path("site"))
        metadata = site / "folder_driver-1.0.dist-info"
        metadata.mkdir(parents=True)
        shutil.copy(EXAMPLE, site)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: folder-driver\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
        self.site = str(site)
        self.use("folder")

    def use(self, name, more=""):
        self.configure(
            f"servicegroup_driver = {name}\n{more}\n"
            f"[folder]\npath = {self.path('shared')}\n",
            service_down_time=4,
        )

    @property
    def environment(self):
        return super().environment | {"PYTHONPATH": self.site}

    def do(self, *arguments):
        result = self.nova_sg(*arguments)
        self.assertEqual((0, ""), (result.status, result.err))
        return result.out

    def test_members_come_and_go(self):
        agent, other = self.agent("one"), self.agent("zone.1")
        for host in ("one", "zone.1"):
            self.wait_for_state(host, "up")
        self.assertEqual(
            "one\nzone.1\n", self.do("list", "-f", "value", "-c", "host")
        )
        self.do("force-down", "one")
        self.wait_for_state("one", "down")
        self.do("force-down", "one", "--unset")
        self.wait_for_state("one", "up")
        agent.stop()
        self.wait_for_state("one", "down")
        self.assertIn("left the group", self.do("show", "one"))
        other.kill()
        self.wait_for_state("zone.1", "down")
        self.do("forget", "zone.1")
        self.assertIn("can be written", self.do("doctor"))
        self.assertNotIn("Warning", agent.log)

    def test_as_a_secondary(self):
        self.use("db", "[servicegroup]\nsecondary_drivers = folder")
        self.do("db", "sync")
        self.agent("one")
        self.wait_for_state("one", "up")
        self.use("folder")
        self.wait_for_state("one", "up")

    def test_what_cannot_be_loaded(self):
        for name, words in (
            ("broken", "'broken' cannot be loaded: "),
            ("other", "is a Namespace, and no nova_sg.backends.base.Driver"),
            ("none", "Use broken, db, folder, mc, other, zk, or install"),
        ):
            with self.subTest(name):
                self.use(name)
                result = self.nova_sg("list")
                self.assertEqual(2, result.status)
                self.assertIn("servicegroup_driver", result.err)
                self.assertIn(words, result.err)
        self.configure("servicegroup_driver = folder")
        result = self.run_program("nova-sg-agent")
        self.assertEqual(2, result.status)
        self.assertIn("[folder] path", result.err)

    def test_inside_nova(self):
        self.agent("one")
        self.wait_for_state("one", "up")
        python = nova.python()
        # Nova's report_interval is a whole number.
        config = self.write(
            "nova.conf",
            "[DEFAULT]\nservicegroup_driver = folder\nreport_interval = 1\n"
            f"service_down_time = 4\n[folder]\npath = {self.path('shared')}\n",
        )
        done = subprocess.run(
            [
                os.path.join(os.path.dirname(python), "nova-sg-exec"),
                *(python, "-c", IN_NOVA, config),
            ],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=base.PATIENCE,
        )
        self.assertEqual("nova_sg.nova.api True\n", done.stdout, done.stderr)
