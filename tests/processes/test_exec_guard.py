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


"""nova-sg-exec --guard: the parent of a service, and its crash guard."""

import contextlib
import os
import pty
import re
import shlex
import signal
import time

from tests import single_mode
from tests.base import wait_for
from tests.fixtures import mariadb, memcached, process, zookeeper
from tests.processes import base

CRASHED = "its process ended without leaving the group"
KILLED = 128 + signal.SIGKILL
AGENT = os.path.join(base.SCRIPTS, "nova-sg-agent")
# Of a PID namespace nova-sg-exec is the first process. Only root may mount.
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]
if os.geteuid():
    CONTAINER.append("--map-root-user")
ZOMBIES = """
import os, subprocess, sys, time
# The parent of this process ends at once.
subprocess.run(["sh", "-c", "sh -c 'sleep 0.1; exit 3' &"])
deadline = time.monotonic() + 30
def orphans():
    found = subprocess.run(
        ["ps", "-o", "pid,stat,args", "--ppid", sys.argv[1]],
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return [
        line
        for line in found.splitlines()[1:]
        if line.split()[0] != str(os.getpid())
    ]
while orphans():
    if time.monotonic() > deadline:
        sys.exit(str(orphans()))
    time.sleep(0.02)
"""


def children(pid):
    """Return the process ids of the children of a process."""
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/{pid}/task/{pid}/children") as found:
            return [int(one) for one in found.read().split()]
    return []


@single_mode
class GuardTest(base.TestCase):
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.do("db", "sync")

    def guarded(self, *prefix):
        """Start a member below nova-sg-exec; return them."""
        return self.start(
            "nova-sg-exec",
            *("--guard", AGENT, "--config-file", self.config),
            *("--host", "one", "--log-file", self.path("one.log")),
            config=False,
            prefix=prefix,
        )

    def service(self, top):
        """Return the process id of the service that a process runs."""

        def found():
            pid = top.pid
            while True:
                with open(f"/proc/{pid}/cmdline", "rb") as command:
                    words = command.read().split(b"\0")
                if AGENT.encode() in words[:2]:
                    return pid
                below = children(pid)
                if not below:
                    return None
                pid = below[0]

        return wait_for(found, base.PATIENCE, "the service runs")

    def reason(self):
        return self.do("show", "one")

    def log(self):
        with open(self.path("one.log")) as file:
            return file.read()

    def wait_for_log(self, words):
        wait_for(lambda: words in self.log(), base.PATIENCE, self.log)

    def check_crash(self, *prefix):
        """The service is killed; it is down at once."""
        top = self.guarded(*prefix)
        self.wait_for_state("one", "up")
        service = self.service(top)
        # No other guard is beside it.
        self.assertEqual([], children(service))
        begun = time.monotonic()
        os.kill(service, signal.SIGKILL)
        result = self.finish(top)
        took = time.monotonic() - begun
        self.assertEqual(KILLED, result.status)
        self.assertRegex(
            result.err,
            r"one in the group compute ended without leaving; withdrawn from "
            r"(db|mc|zk) after \d+ ms\n",
        )
        self.assertIn(CRASHED, self.reason())
        within = re.search(r"after (\d+) ms", result.err)[1]
        print(
            f"nova-sg-exec: {within} ms to withdraw, {took:.3f} s to its end"
        )

    def test_first_process_db(self):
        url = process.shared(mariadb.MariaDB).create_database()
        self.configure(f"[database]\nconnection = {url}\n")
        self.do("db", "sync")
        self.check_crash(*CONTAINER)

    def test_first_process_mc(self):
        server = process.shared(memcached.Memcached)
        self.configure(
            "servicegroup_driver = mc\n"
            f"memcached_servers = {server.address}\n"
            f"[memcache]\nmemcache_secret_key = {self._testMethodName}\n"
        )
        self.check_crash(*CONTAINER)

    def test_first_process_zk(self):
        server = process.shared(zookeeper.ZooKeeperServer)
        self.configure(
            "servicegroup_driver = zk\n[zookeeper]\nrecv_timeout = 40000\n"
            f"address = {server.address}\nsg_prefix = /{os.getpid()}/exec\n"
        )
        self.check_crash(*CONTAINER)

    def test_not_the_first_process(self):
        self.check_crash()

    def test_signals_are_passed_on(self):
        top = self.guarded(*CONTAINER)
        self.wait_for_state("one", "up")
        parent = children(top.pid)[0]
        os.kill(parent, signal.SIGHUP)
        self.wait_for_log("The configuration is reloaded")
        os.kill(parent, signal.SIGTERM)
        result = self.finish(top)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))
        self.assertIn("left the group", self.reason())

    def test_a_key_is_passed_once(self):
        """The terminal sends it to the service, too.

        A second one would have the service end without leaving.
        """
        pid, terminal = pty.fork()
        if not pid:
            os.execve(
                os.path.join(base.SCRIPTS, "nova-sg-exec"),
                [
                    *("nova-sg-exec", "--guard", AGENT),
                    *("--config-file", self.config, "--host", "one"),
                    *("--log-file", self.path("one.log")),
                ],
                self.environment,
            )
        self.addCleanup(os.close, terminal)
        self.wait_for_state("one", "up")
        os.write(terminal, b"\x03")
        _, status = os.waitpid(pid, 0)
        self.assertEqual(0, os.waitstatus_to_exitcode(status))
        self.assertIn("left the group", self.reason())

    def test_a_service_below_a_shell(self):
        command = shlex.join(
            [AGENT, "--config-file", self.config, "--host", "one"]
        )
        top = self.start(
            *("nova-sg-exec", "--guard", "sh", "-c"),
            f"{command}; exec sleep 3600",
            config=False,
        )
        self.wait_for_state("one", "up")
        os.kill(self.service(top), signal.SIGKILL)
        self.wait_for_state("one", "down")
        self.assertIn(CRASHED, self.reason())
        self.assertIsNone(top.poll())
        # What runs in its place gets the signal.
        result = self.finish(top, signal.SIGTERM)
        self.assertEqual(128 + signal.SIGTERM, result.status)

    def test_a_service_that_loses_its_parent_has_another_guard(self):
        top = self.guarded()
        self.wait_for_state("one", "up")
        service = self.service(top)
        self.addCleanup(os.kill, service, signal.SIGKILL)
        top.kill()
        top.wait()
        self.wait_for_log("starting another")
        wait_for(lambda: children(service), base.PATIENCE, "a guard")

    def test_it_ends_with_the_status_of_the_command(self):
        for command, status in (
            ("exit 7", 7),
            ("kill -SEGV $$", 128 + signal.SIGSEGV),
            ("kill -PIPE $$", 128 + signal.SIGPIPE),
            ("true", 0),
        ):
            with self.subTest(command):
                result = self.run_program(
                    *("nova-sg-exec", "--guard", "sh", "-c", command),
                    config=False,
                )
                self.assertEqual(
                    (status, "", ""), (result.status, result.out, result.err)
                )

    def test_what_cannot_be_run(self):
        for arguments, status, words in (
            (["--guard", "no-such-command"], 127, "no-such-command: No such"),
            (["--guard"], 2, "usage: "),
            (["--gard", "true"], 2, "usage: "),
            ([], 2, "usage: "),
        ):
            with self.subTest(arguments):
                result = self.run_program(
                    "nova-sg-exec", *arguments, config=False
                )
                self.assertEqual(status, result.status)
                self.assertIn(words, result.err)

    def test_it_waits_for_processes_that_lost_their_parents(self):
        result = self.run_program(
            *("nova-sg-exec", "--guard", "sh", "-c"),
            f"exec python3 -c {shlex.quote(ZOMBIES)} $PPID",
            config=False,
            prefix=CONTAINER + ["--mount-proc"],
        )
        self.assertEqual((0, ""), (result.status, result.err))
