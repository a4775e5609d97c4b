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

"""The documented installation in a system that boots: units, user, log."""

import json
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

import tests
from tests.fixtures import memcached, process, system, zookeeper

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "/etc/nova-sg/nova-sg.conf"
AGENT = "nova-sg-agent"
MONITOR = "nova-sg-monitor"
WATCH = "nova-sg-watch"
# Seconds for what takes about one second on an idle machine.
PATIENCE = 120


def documented(heading):
    """Return the commands that doc/source/install.rst shows below a heading.
    """
    text = (ROOT / "doc" / "source" / "install.rst").read_text()
    section = text.partition(f"\n{heading}\n")[2]
    block = re.search(r"\.\. code-block:: sh\n\n((?:   .*\n|\n)+)", section)
    return re.sub("^   ", "", block[1], flags=re.MULTILINE)


# debian-system.sh puts the checkout where the page has it.
INSTALL = (
    documented("An environment of its own")
    + documented("As services of systemd")
    # What starts at boot.
    + f"systemctl enable {AGENT}\n"
)


class Units:
    """Tests on one release of Debian."""

    #: Its name.
    SUITE = ""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.system = system.BootedSystem(cls.SUITE, INSTALL)
        cls.addClassCleanup(cls.system.close)
        cls.system.start()

    def setUp(self):
        super().setUp()
        # One is started at boot.
        self.stop()
        self.begun = time.time()
        self.addCleanup(self.stop)

    def stop(self):
        self.system.do("systemctl", "stop", AGENT, MONITOR, WATCH)

    def sh(self, script):
        return self.system.do("bash", "-euc", script)

    def configure(self, *lines):
        """Write the configuration file, its owner and mode as they were."""
        text = "\n".join(
            [
                "[servicegroup]",
                "view_refresh_interval = 0.2",
                "crash_guard = true",
                "[DEFAULT]",
                "host = node",
                "report_interval = 0.5",
                "service_down_time = 60",
                *lines,
            ]
        )
        self.sh(f"cat >{CONFIG} <<'EOF'\n{text}\nEOF")

    def journal(self, unit):
        """Return what a unit logged in this test."""
        return self.system.do(
            *("journalctl", "--no-pager", "--output=cat", "--unit", unit),
            f"--since=@{self.begun:.0f}",
        )

    def wait_for_journal(self, unit, words, times=1):
        process.wait_for(
            lambda: self.journal(unit).count(words) >= times,
            PATIENCE,
            lambda: f"{unit} logs {words!r}\n{self.journal(unit)}",
        )

    def show(self, unit, name):
        return self.system.do(
            "systemctl", "show", "--value", "--property", name, unit
        ).strip()

    def nova_sg(self, *arguments):
        return self.system.do(
            *("runuser", "-u", "nova-sg", "--"),
            *("nova-sg", *arguments),
            timeout=2 * PATIENCE,
        )

    def member(self, name):
        """Return what nova-sg show says of the member node."""
        shown = json.loads(self.nova_sg("show", "node", "-f", "json"))
        return shown[name]

    def wait_until_up(self):
        self.nova_sg("wait", "node", "--for", "up", "--timeout", str(PATIENCE))

    def kill(self, unit):
        """Kill a unit's program; wait until systemd has started it again."""
        before = self.show(unit, "MainPID")
        self.sh(f"kill -KILL {before}")
        process.wait_for(
            lambda: (
                self.show(unit, "MainPID") not in ("0", before)
                and self.show(unit, "ActiveState") == "active"
            ),
            PATIENCE,
            lambda: f"{unit} is active again\n{self.journal(unit)}",
        )

    def check_agent(self, *lines):
        self.configure(*lines)
        self.system.do("systemctl", "start", AGENT)
        # It was started, so it has reported.
        self.wait_until_up()
        # A reload, and one that is refused.
        self.system.do("systemctl", "reload", AGENT)
        self.wait_for_journal(AGENT, "The configuration is reloaded")
        self.configure(*lines, "[DEFAULT]", "report_interval = often")
        self.system.do("systemctl", "reload", AGENT)
        self.wait_for_journal(AGENT, "The configuration is not reloaded")
        self.configure(*lines)
        self.assertEqual("active", self.show(AGENT, "ActiveState"))
        # A crash: the guard withdraws the member, systemd starts the agent.
        self.kill(AGENT)
        self.wait_for_journal(AGENT, "ended without leaving; withdrawn")
        self.wait_until_up()
        self.system.do("systemctl", "restart", AGENT)
        self.wait_until_up()
        self.system.do("systemctl", "stop", AGENT)
        self.assertEqual("success", self.show(AGENT, "Result"))
        self.wait_for_journal(AGENT, "node left the group compute", times=2)
        self.assertEqual("", self.show(AGENT, "ControlGroup"))

    def test_agent_with_db(self):
        self.check_agent()
        self.assertEqual("left the group", self.member("Reason"))

    def test_agent_with_mc(self):
        server = process.shared(memcached.Memcached)
        self.check_agent(
            "servicegroup_driver = mc",
            f"memcached_servers = {server.address}",
        )

    def test_agent_with_zk(self):
        server = process.shared(zookeeper.ZooKeeperServer)
        self.check_agent(
            "servicegroup_driver = zk",
            "[zookeeper]",
            f"address = {server.address}",
        )

    def drop_in(self, *lines):
        """Add directives to the agent's unit; it is not started again."""
        folder = f"/run/systemd/system/{AGENT}.service.d"
        text = "\n".join(["[Service]", "Restart=no", *lines])
        self.sh(
            f"mkdir -p {folder}; cat >{folder}/test.conf <<'EOF'\n{text}\nEOF"
        )
        self.addCleanup(self.system.do, "systemctl", "daemon-reload")
        self.addCleanup(self.sh, f"rm -r {folder}")
        self.system.do("systemctl", "daemon-reload")
        self.configure("[servicegroup]", "crash_guard = false")
        self.system.do("systemctl", "start", AGENT)
        self.wait_until_up()

    def check_crash(self):
        """The agent has been killed."""
        process.wait_for(
            lambda: self.show(AGENT, "ActiveState") == "failed",
            PATIENCE,
            lambda: f"{AGENT} has failed\n{self.journal(AGENT)}",
        )
        self.assertEqual(
            "its process ended without leaving the group",
            self.member("Reason"),
        )

    def test_systemd_tells_of_a_crash(self):
        self.drop_in("ExecStopPost=nova-sg withdraw --if-crashed")
        self.system.do("systemctl", "stop", AGENT)
        self.assertEqual("left the group", self.member("Reason"))
        self.system.do("systemctl", "start", AGENT)
        self.wait_until_up()
        self.sh(f"kill -KILL {self.show(AGENT, 'MainPID')}")
        self.check_crash()

    def test_a_guard_that_is_the_parent(self):
        self.drop_in(
            "NotifyAccess=all",
            "KillMode=mixed",
            "ExecStart=",
            "ExecStart=nova-sg-exec --guard nova-sg-agent",
        )
        self.system.do("systemctl", "reload", AGENT)
        self.wait_for_journal(AGENT, "The configuration is reloaded")
        self.system.do("systemctl", "restart", AGENT)
        self.wait_for_journal(AGENT, "node left the group compute")
        self.wait_until_up()
        parent = self.show(AGENT, "MainPID")
        self.sh(f"kill -KILL $(cat /proc/{parent}/task/{parent}/children)")
        self.check_crash()
        self.wait_for_journal(AGENT, "ended without leaving; withdrawn")

    def test_agent_starts_without_its_backend(self):
        self.configure(
            "servicegroup_driver = mc",
            f"memcached_servers = 127.0.0.1:{process.free_port()}",
        )
        self.system.do("systemctl", "start", AGENT)
        self.assertEqual("active", self.show(AGENT, "ActiveState"))

    def test_agent_starts_at_boot(self):
        self.system.restart()
        process.wait_for(
            lambda: self.show(AGENT, "ActiveState") == "active",
            PATIENCE,
            lambda: f"the agent runs\n{self.journal(AGENT)}",
        )

    def test_monitor(self):
        port = process.free_port()
        self.configure("[monitor]", f"port = {port}")

        def answers():
            return process.answers(
                port, b"GET /healthz HTTP/1.0\r\n\r\n", b" 200 "
            )

        self.system.do("systemctl", "start", MONITOR)
        self.assertTrue(answers())
        self.system.do("systemctl", "reload", MONITOR)
        self.wait_for_journal(MONITOR, "The configuration is reloaded")
        self.kill(MONITOR)
        self.assertTrue(answers())
        self.system.do("systemctl", "stop", MONITOR)
        self.assertEqual("success", self.show(MONITOR, "Result"))

    def test_watch(self):
        # A command that takes time, and may gain rights.
        self.sh(
            "cat >/usr/local/bin/act <<'EOF'\n"
            "#!/bin/sh\n"
            "echo begun $NOVA_SG_TYPE >>/var/lib/nova-sg/acted\n"
            "grep NoNewPrivs /proc/self/status >>/var/lib/nova-sg/acted\n"
            "sleep 3\n"
            "echo ended $NOVA_SG_TYPE >>/var/lib/nova-sg/acted\n"
            "EOF\n"
            "chmod 755 /usr/local/bin/act; rm -f /var/lib/nova-sg/acted"
        )
        self.configure(
            "[events]", "exec = /usr/local/bin/act", "only = joined, left, up"
        )
        self.system.do("systemctl", "start", AGENT, WATCH)
        self.wait_until_up()
        self.system.do("systemctl", "stop", AGENT)

        def acted():
            return self.sh("cat /var/lib/nova-sg/acted 2>&1 || true")

        process.wait_for(
            lambda: "begun left" in acted(), PATIENCE, "the command is run"
        )
        # It is not cut off.
        self.system.do("systemctl", "stop", WATCH)
        self.assertIn("ended left", acted())
        self.assertIn("NoNewPrivs:\t0", acted())
        self.assertEqual("success", self.show(WATCH, "Result"))
        self.system.do("systemctl", "start", WATCH)
        self.kill(WATCH)

    def test_the_configuration_is_secret(self):
        self.system.do("systemd-tmpfiles", "--create")
        for path, expected in (
            ("/etc/nova-sg", "root:nova-sg 750"),
            (CONFIG, "root:nova-sg 640"),
            ("/var/lib/nova-sg", "nova-sg:nova-sg 750"),
            ("/var/log/nova-sg", "nova-sg:nova-sg 750"),
        ):
            said = self.system.do("stat", "--format=%U:%G %a", path)
            self.assertEqual(expected, said.strip(), path)

    def test_log_files_are_rotated(self):
        self.configure("log_dir = /var/log/nova-sg")
        log = "/var/log/nova-sg/nova-sg-agent.log"
        self.system.do("systemctl", "start", AGENT)
        self.wait_until_up()
        self.assertIn("node joins the group", self.sh(f"cat {log}"))
        self.system.do("logrotate", "--force", "/etc/logrotate.d/nova-sg")
        self.assertIn("node joins the group", self.sh(f"cat {log}.1"))
        self.system.do("systemctl", "reload", AGENT)
        process.wait_for(
            lambda: "reloaded" in self.sh(f"cat {log}"),
            PATIENCE,
            "the agent logs to the new file",
        )
        self.assertNotIn("node joins the group", self.sh(f"cat {log}"))


@tests.long_form
class Debian12Test(Units, unittest.TestCase):
    SUITE = "bookworm"


@tests.long_form
class Debian13Test(Units, unittest.TestCase):
    SUITE = "trixie"


@tests.long_form
class DebianPackagesTest(unittest.TestCase):
    """nova_sg beside Debian's own Nova, by the commands of the page."""

    CONF = """\
[DEFAULT]
config_source = nova_sg
servicegroup_driver = mc
memcached_servers = 127.0.0.1:1
[nova_sg]
driver = nova_sg
"""

    def test_nova_of_debian_13(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        script = (
            "export DEBIAN_FRONTEND=noninteractive\napt-get update\n"
            "apt-get install --yes --no-install-recommends python3-nova\n"
            + documented("The system's Python, where Nova is a package of "
                         "Debian")
            + f"cat >/tmp/nova.conf <<'EOF'\n{self.CONF}EOF\n"
            "cd /\nnova-sg nova status /tmp/nova.conf\n"
        )
        done = subprocess.run(
            [
                ROOT / "tools" / "debian-system.sh",
                *("trixie", f"{folder}/system", "bash", "-exc", script),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertIn("Nova 31.", done.stdout)
        self.assertIn("nova_sg is on: driver mc", done.stdout)
