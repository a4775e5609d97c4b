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

"""nova-sg as a process: each command once, signals, streams that are gone.

What the commands print, and with which exit status, is in tests/cli.
"""

import datetime
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv

from nova_sg.nova import startup
from tests import long_form
from tests.fixtures import memcached
from tests.fixtures.process import wait_for
from tests.processes import base


class EveryCommandTest(base.TestCase):
    """Commands that end by themselves. watch is below, top in test_top.py."""

    def check(self, *arguments, status=0, out=""):
        """Run nova-sg; what it prints has to contain out."""
        result = self.nova_sg(*arguments)
        self.assertEqual((status, ""), (result.status, result.err))
        self.assertIn(out, result.out)

    def test_members(self):
        self.check("db", "sync", out="nova-sg.sqlite is at revision 0004\n")
        self.insert("one", 10)
        self.insert("two", 7200)
        self.check("list", "--format", "value", out="two compute nova-compute")
        self.check("show", "two", out="allowed are 3600 s")
        self.check("is-up", "two", status=1, out="down\n")
        self.check("wait", "one", "--for", "up")
        self.check("force-down", "one")
        self.check("forget", "two")
        self.assertEqual(
            [("one", 1, 0)],
            self.execute(
                "SELECT host, forced_down, deleted FROM services "
                "WHERE deleted = 0"
            ),
        )

    def test_doctor(self):
        self.check("doctor", out="reachable, sqlite 3")

    def test_nova_status(self):
        self.check(
            *("nova", "status", self.config),
            status=1,
            out="nova_sg is off, or not ready: driver db\n",
        )


class EnvironmentTest(base.TestCase):
    """The commands for the environment that Nova is installed in."""

    def test_nova_enable_and_disable(self):
        python, library = self.make_environment()
        written = os.path.join(library, "nova_sg_nova.pth")
        for command, words, expected in (
            ("enable", "written", [written]),
            ("disable", "not there any more", []),
            # A second time, too.
            ("disable", "not there any more", []),
        ):
            result = self.run_in(python, "nova", command)
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertIn(f"{written}: {words}.", result.out)
            self.assertEqual(
                expected, glob.glob(os.path.join(library, "*.pth"))
            )
        with self.subTest("an environment that is not ours to change"):
            shutil.rmtree(library)
            result = self.run_in(python, "nova", "enable")
            self.assertEqual((2, ""), (result.status, result.out))
            self.assertIn(f"{written}: No such file", result.err)

    def make_environment(self):
        """Return the Python of an empty environment, and its library."""
        home = self.path("environment")
        venv.create(home, symlinks=True)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            os.path.join(home, "bin", "python"),
            os.path.join(home, "lib", version, "site-packages"),
        )

    def run_in(self, python, *arguments):
        """Run nova-sg by the Python of another environment."""
        ours = [sysconfig.get_path("purelib"), base.ROOT]
        done = subprocess.run(
            [python, "-m", "nova_sg.cmd.shell", *arguments],
            env=self.environment | {"PYTHONPATH": os.pathsep.join(ours)},
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        return self.check_result(
            base.Result(done.returncode, done.stdout, done.stderr)
        )

    def test_exec_becomes_the_command(self):
        program = self.start(
            *("nova-sg-exec", "sh", "-c", "echo $$ $PYTHONPATH; exit 7"),
            config=False,
        )
        result = self.finish(program)
        self.assertEqual(
            (7, f"{program.pid} {os.path.dirname(startup.__file__)}\n", ""),
            (result.status, result.out, result.err),
        )


class StreamsTest(base.TestCase):
    def test_a_reader_that_is_gone(self):
        for arguments in (["list", "-f", "json"], ["doctor"], []):
            with self.subTest(arguments):
                reading, writing = os.pipe()
                os.close(reading)
                program = self.start("nova-sg", *arguments, stdout=writing)
                os.close(writing)
                self.assertEqual("", self.finish(program).err)

    def test_no_room_for_the_answer(self):
        self.do("db", "sync")
        self.insert("one", 10)
        with open("/dev/full", "w") as full:
            program = self.start("nova-sg", "is-up", "one", stdout=full)
            result = self.finish(program)
        # 0 would mean that it is up, 1 that it is down.
        self.assertNotIn(result.status, (0, 1))
        self.assertIn("No space left", result.err)


class WatchTest(base.TestCase):
    def setUp(self):
        super().setUp()
        # An answer that took longer than this would be an outage, and give
        # every member service_down_time from then on.
        self.configure(report_interval=5)
        self.do("db", "sync")

    def watch(self, *arguments, **kwargs):
        """Start watching; return once events are seen."""
        program = self.start("nova-sg", "watch", *arguments, **kwargs)
        # A member that comes and goes until the watcher sees it.
        host = "probe"
        reader = base.Lines(program.stdout)
        self.insert(host, 10)
        self.addCleanup(reader.close)

        def seen():
            forced = "1 - forced_down"
            self.execute(
                f"UPDATE services SET forced_down = {forced} WHERE host = ?",
                host,
            )
            return reader.wait(0.5)

        wait_for(seen, base.PATIENCE, "the watcher sees events")
        self.execute("DELETE FROM services WHERE host = ?", host)
        # Everything about the probe ends with this.
        wait_for(
            lambda: any("removed" in line for line in reader.take()),
            base.PATIENCE,
            "the watcher sees the probe go",
        )
        return program, reader

    def next_line(self, reader):
        wait_for(lambda: reader.wait(1), base.PATIENCE, "there is an event")
        return reader.take_one()

    def test_text(self):
        program, reader = self.watch()
        # It falls silent in so many seconds that the watcher has seen it
        # before, on a busy machine, too.
        self.insert("one", 3585)
        self.assertRegex(
            self.next_line(reader),
            r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z joined one \(last rep",
        )
        self.assertRegex(
            self.next_line(reader),
            r"Z down one \(last report 36.* s ago, allowed are 3600 s\)$",
        )
        self.execute(
            "UPDATE services SET report_count = report_count + 1, "
            "last_seen_up = strftime('%Y-%m-%d %H:%M:%f000', 'now') "
            "WHERE host = 'one'"
        )
        self.assertRegex(self.next_line(reader), r"Z up one \(last report ")
        self.insert("two", 5)
        self.assertRegex(self.next_line(reader), r"Z joined two \(")
        self.execute("UPDATE services SET report_count = 0 WHERE host = 'two'")
        self.assertRegex(
            self.next_line(reader), r"Z left two \(left the group\)$"
        )
        self.do("forget", "two")
        self.assertRegex(self.next_line(reader), r"Z left two \(removed\)$")
        # What is seen live, line by line, is not lost at the end.
        result = self.finish(program, signal.SIGTERM)
        self.assertEqual((0, ""), (result.status, result.err))

    def test_json(self):
        program, reader = self.watch("-f", "json")
        self.insert("one", 0, last_seen_up="2026-01-02 03:04:05.678900")
        event = json.loads(self.next_line(reader))
        at = datetime.datetime.fromisoformat(event.pop("at"))
        now = datetime.datetime.now(datetime.UTC)
        self.assertLess(abs((now - at).total_seconds()), base.PATIENCE)
        self.assertRegex(event.pop("reason"), "^last report .* ago, allowed")
        self.assertEqual("silent", event.pop("cause"))
        self.assertEqual(
            {
                "type": "joined",
                "group": "compute",
                "host": "one",
                "topic": "compute",
                "binary": "nova-compute",
                "last_seen": "2026-01-02T03:04:05.678Z",
                "disabled": False,
                "failure_domain": None,
            },
            event,
        )
        result = self.finish(program, signal.SIGINT)
        self.assertEqual((0, ""), (result.status, result.err))

    def test_a_reader_that_is_gone(self):
        program, reader = self.watch()
        self.insert("one", 10)
        reader.close()
        program.stdout = None
        wait_for(
            lambda: self.toggle() or program.poll() is not None,
            base.PATIENCE,
            "watch ends when its reader is gone",
        )
        self.assertEqual("", self.finish(program).err)

    def toggle(self):
        self.execute("UPDATE services SET forced_down = 1 - forced_down")


class UnreachableBackendTest(base.TestCase):
    """watch and wait start before their backend."""

    def test_memcached(self):
        server = memcached.Memcached()
        self.configure(
            "servicegroup_driver = mc\n"
            f"memcached_servers = {server.address}\n",
            service_down_time=60,
        )
        with open(self.path("stderr"), "w") as stderr:
            watching = self.start("nova-sg", "watch", stderr=stderr)
        reader = base.Lines(watching.stdout)
        self.addCleanup(reader.close)
        waiting = self.start(
            *("nova-sg", "wait", "late0", "--for", "up"),
            *("--timeout", str(base.PATIENCE)),
        )
        agents = [self.agent("late0")]
        agents[0].wait_for_log("Cannot report the state of late0")
        wait_for(
            lambda: os.path.getsize(self.path("stderr")),
            base.PATIENCE,
            "the watcher says that there is no answer",
        )
        with open(self.path("stderr")) as stderr:
            self.assertIn("Cannot refresh group", stderr.read())
        self.assertIsNone(waiting.poll())
        self.enterContext(server)
        result = self.finish(waiting)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))
        # It refreshes by itself, and finds a member that joins then.
        wait_for(
            lambda: reader.wait(5)
            or agents.append(self.agent(f"late{len(agents)}")),
            base.PATIENCE,
            "the watcher sees a member join",
        )
        self.assertRegex(reader.take_one(), r"Z joined late\d+ ")
        result = self.finish(watching, signal.SIGTERM)
        self.assertEqual((0, ""), (result.status, result.err))


class WaitTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("one", 10)
        self.insert("two", 7200)

    def test_a_member_that_comes_later(self):
        waiting = self.start(
            *("nova-sg", "wait", "three", "--for", "up"),
            *("--timeout", str(base.PATIENCE)),
        )
        agent = self.agent("three")
        result = self.finish(waiting)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))
        waiting = self.start("nova-sg", "wait", "three", "--for", "down")
        agent.stop()
        result = self.finish(waiting)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))

    def test_interrupted(self):
        for signo, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(signo):
                waiting = self.start("nova-sg", "wait", "two", "--for", "up")
                # It has begun to refresh when it has opened the database.
                wait_for(
                    lambda pid=waiting.pid: "sqlite" in open_files(pid),
                    base.PATIENCE,
                    "nova-sg has opened the database",
                )
                result = self.finish(waiting, signo)
                self.assertEqual(
                    (status, "", ""), (result.status, result.out, result.err)
                )

    def test_a_signal_at_any_moment_of_the_start(self):
        self.check_signal(signal.SIGINT, 0, 0.2, 0.5)
        self.check_signal(signal.SIGTERM, 0.1, 0.3, 0.8)

    @long_form
    def test_the_other_signal_at_these_moments(self):
        self.check_signal(signal.SIGTERM, 0, 0.2, 0.5)
        self.check_signal(signal.SIGINT, 0.1, 0.3, 0.8)

    def check_signal(self, signo, *pauses):
        """Send a signal so many seconds after Python has begun with us."""
        for pause in pauses:
            with self.subTest(signo, pause=pause):
                waiting = self.start("nova-sg", "wait", "two", "--for", "up")
                wait_for(
                    lambda pid=waiting.pid: catches_sigterm(pid),
                    base.PATIENCE,
                )
                # What happens in between is not known: that is tested.
                time.sleep(pause)
                result = self.finish(waiting, signo)
                self.assertEqual(
                    (128 + signo, "", ""),
                    (result.status, result.out, result.err),
                )


def catches_sigterm(pid):
    """Whether a process handles SIGTERM."""
    with open(f"/proc/{pid}/status") as status:
        caught = re.search(r"^SigCgt:\s*(\w+)", status.read(), re.M)[1]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def open_files(pid):
    """Return what a process has open, as text."""
    folder = f"/proc/{pid}/fd"
    names = []
    for entry in os.listdir(folder):
        try:
            names.append(os.readlink(os.path.join(folder, entry)))
        except FileNotFoundError:
            continue
    return "\n".join(names)


class VersionTest(base.TestCase):
    def test_as_a_script(self):
        for program in ("nova-sg", "nova-sg-agent"):
            result = self.run_program(program, "--version", config=False)
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertRegex(result.out, r"\d+\.\d+")

    def test_as_a_module(self):
        for module in ("shell", "agent"):
            done = subprocess.run(
                [
                    *(os.path.join(base.SCRIPTS, "python"), "-m"),
                    *(f"nova_sg.cmd.{module}", "--version"),
                ],
                env=self.environment,
                cwd=os.path.dirname(os.path.abspath(__file__)),
                capture_output=True,
                text=True,
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr))
