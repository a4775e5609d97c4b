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

"""The programs as services of systemd: its units, and what they tell it."""

import os
import pathlib
import re
import signal
import socket
import subprocess

from tests import native_services
from tests.fixtures import process
from tests.processes import base

UNITS = pathlib.Path(base.ROOT, "etc", "systemd")


class NotifyTest(base.TestCase):
    """Each program tells systemd that it has started, once it has."""

    def setUp(self):
        super().setUp()
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.systemd.close)
        self.systemd.settimeout(base.PATIENCE)
        self.systemd.bind(self.path("notify"))

    @property
    def environment(self):
        return super().environment | {"NOTIFY_SOCKET": self.path("notify")}

    def wait_until_started(self):
        self.assertEqual(b"READY=1", self.systemd.recv(512))

    def assert_told_once(self):
        self.systemd.setblocking(False)
        with self.assertRaises(BlockingIOError):
            self.systemd.recv(512)

    def check_agent(self, more=""):
        self.configure(more)
        agent = self.agent("node")
        self.wait_until_started()
        # Its start is over: only a report that takes more than a second, on a
        # busy machine, may still be under way.
        self.assertIn("node joins the group", agent.log)
        self.wait_for_state("node", "up")
        agent.stop()
        self.assert_told_once()

    def test_agent(self):
        self.check_agent()

    @native_services
    def test_agent_on_native_threads(self):
        self.check_agent("concurrency_backend = threading")

    def test_agent_starts_without_its_backend(self):
        port = process.free_port()
        self.configure(
            "servicegroup_driver = mc\n"
            f"memcached_servers = 127.0.0.1:{port}"
        )
        agent = self.agent("node")
        self.wait_until_started()
        agent.stop()

    def test_monitor(self):
        port = process.free_port()
        self.configure(f"[monitor]\nport = {port}")
        monitor = self.start("nova-sg-monitor")
        self.wait_until_started()
        self.assertTrue(
            process.answers(
                port,
                b"GET /healthz HTTP/1.0\r\n\r\n",
                b" 200 ",
                timeout=base.PATIENCE,
            )
        )
        self.finish(monitor, signal.SIGTERM)
        self.assert_told_once()

    def test_watch(self):
        watch = self.start("nova-sg", "watch")
        self.wait_until_started()
        self.finish(watch, signal.SIGTERM)
        self.assert_told_once()


class UnitsTest(base.TestCase):
    """systemd accepts the units."""

    def analyze(self, *arguments):
        return subprocess.run(
            ["systemd-analyze", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=base.PATIENCE,
        )

    def unit(self, name, *changes):
        """Return the path of a copy that starts the programs from here."""
        text = (UNITS / name).read_text()
        for old, new in (
            ("\nExecStart=", f"\nExecStart={base.SCRIPTS}/"),
            *changes,
        ):
            self.assertIn(old, text)
            text = text.replace(old, new)
        return self.write(name, text)

    def test_systemd_verifies_them(self):
        names = sorted(os.listdir(UNITS))
        self.assertEqual(
            ["nova-sg-agent.service", "nova-sg-monitor.service"],
            names[:2],
        )
        done = self.analyze("verify", *map(self.unit, names))
        self.assertEqual((0, ""), (done.returncode, done.stdout))

    def test_systemd_would_find_a_mistake(self):
        done = self.analyze(
            "verify",
            self.unit(
                "nova-sg-agent.service", ("Type=notify", "Tipe=notify")
            ),
        )
        self.assertIn("Tipe", done.stdout)

    def test_the_daemons_have_few_rights(self):
        # In tenths: 10.0 are all rights.
        for name, most in (
            ("nova-sg-agent.service", 25),
            ("nova-sg-monitor.service", 25),
        ):
            with self.subTest(name):
                done = self.analyze(
                    *("security", "--offline=true", "--no-pager"),
                    f"--threshold={most}",
                    self.unit(name),
                )
                self.assertEqual(0, done.returncode, done.stdout)

    def test_the_commands_of_watch_may_gain_rights(self):
        # sudo and ping need them. systemd implies NoNewPrivileges where it
        # filters system calls.
        text = (UNITS / "nova-sg-watch.service").read_text()
        used = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
        self.assertFalse(
            used
            & {
                "CapabilityBoundingSet",
                "LockPersonality",
                "MemoryDenyWriteExecute",
                "NoNewPrivileges",
                "PrivateDevices",
                "ProtectClock",
                "ProtectHostname",
                "ProtectKernelLogs",
                "ProtectKernelModules",
                "ProtectKernelTunables",
                "RestrictAddressFamilies",
                "RestrictNamespaces",
                "RestrictRealtime",
                "RestrictSUIDSGID",
                "SystemCallArchitectures",
                "SystemCallFilter",
            }
        )
