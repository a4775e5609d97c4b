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

"""Base class for tests that run nova-sg and nova-sg-agent as processes."""

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sysconfig
import tempfile
import time
import unittest

from nova_sg import config, servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process as shared_by_process
from tests.fixtures import watchdog
from tests.fixtures.process import wait_for
from tests.processes import inprocess

#: Seconds to wait for what takes about one second on an idle machine.
PATIENCE = 120

#: A password in the configurations of these tests. No output may contain it.
PASSWORD = "Tr0ub4dor-s3cret"

SCRIPTS = sysconfig.get_path("scripts")

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))

# Runs a program so that root, too, obeys permissions.
AS_NORMAL_USER = (
    [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
    ]
    if os.geteuid() == 0
    else []
)


@dataclasses.dataclass
class Result:
    """How a program ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()

    def json(self):
        return json.loads(self.out)


class TestCase(unittest.TestCase):
    """A test with a folder of its own, in which programs run."""

    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="nova-sg-test-")
        watchdog.guard_folder(self.folder)
        self.addCleanup(self._remove_folder)
        self.state = self.path("state")
        self.config = self.path("nova-sg.conf")
        self.temporary = self.path("tmp")
        os.mkdir(self.temporary)
        self.configure()

    def _remove_folder(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        watchdog.release_folder(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        """Write a file into the folder and return its path."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return path

    def configure(
        self, more="", report_interval=0.2, service_down_time=3600, refresh=0.1
    ):
        """Write the configuration file.

        :param more: lines to add; those before a section belong to [DEFAULT]
        """
        self.write(
            "nova-sg.conf",
            "[servicegroup]\n"
            f"view_refresh_interval = {refresh}\n"
            "[DEFAULT]\n"
            f"state_path = {self.state}\n"
            f"report_interval = {report_interval}\n"
            f"service_down_time = {service_down_time}\n"
            f"{more}\n",
        )

    @property
    def environment(self):
        """The programs' environment variables, without this machine's."""
        keep = ("PATH", "LD_LIBRARY_PATH")
        return {k: os.environ[k] for k in keep if k in os.environ} | {
            "HOME": self.folder,
            "XDG_CACHE_HOME": self.path("cache"),
            "TMPDIR": self.temporary,
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "500",
        }

    def start(self, program, *arguments, config=True, prefix=(), **kwargs):
        """Start a program; it is killed at the end of the test.

        :param config: whether to give it the configuration file
        """
        # A shell's background process ignores SIGINT, and so would its
        # children.
        command = ["env", "--default-signal=INT,HUP"]
        command += [*prefix, os.path.join(SCRIPTS, program)]
        if config:
            command += ["--config-file", self.config]
        kwargs = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": self.environment,
            "cwd": self.folder,
        } | kwargs
        process = subprocess.Popen([*command, *arguments], text=True, **kwargs)
        watchdog.guard_process(process.pid)
        self.addCleanup(self._end, process)
        return process

    def _end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait()
        watchdog.release_process(process.pid)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def finish(self, process, *signals):
        """Send signals, wait for the end, and return the Result.

        Its output must have no traceback and no password.
        """
        for signo in signals:
            process.send_signal(signo)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self.fail(f"{process.args} does not end\n{out}\n{err}")
        return self.check_result(
            Result(process.returncode, out or "", err or "")
        )

    def check_result(self, result):
        """Check that the output is fit for operators; return the result."""
        self.check_words(result.out)
        self.check_words(result.err)
        return result

    def check_words(self, text):
        """Check that a text has no traceback and no password."""
        self.assertNotIn("Traceback", text)
        self.assertNotIn("Exception ignored", text)
        self.assertNotIn(PASSWORD, text)

    def run_program(self, program, *arguments, **kwargs):
        """Run a program to its end."""
        return self.finish(self.start(program, *arguments, **kwargs))

    def run_here(self, program, *arguments, config=True):
        """Run a program in this process; see tests.processes.inprocess."""
        if config:
            arguments = ("--config-file", self.config, *arguments)
        return self.check_result(
            Result(
                *inprocess.run(
                    os.path.join(SCRIPTS, program),
                    arguments,
                    self.environment,
                    self.folder,
                )
            )
        )

    def nova_sg(self, *arguments, **kwargs):
        """Run nova-sg to its end."""
        return self.run_program("nova-sg", *arguments, **kwargs)

    def do(self, *arguments):
        """Run nova-sg, which has to succeed; return its output.

        It runs in this process: the preparation of a test needs no other.
        """
        result = self.run_here("nova-sg", *arguments)
        self.assertEqual((0, ""), (result.status, result.err))
        return result.out

    def agent(self, host, *arguments, **kwargs):
        """Start an agent that logs to a file; return an Agent."""
        log = self.path(f"{host}.log")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        process = self.start(
            "nova-sg-agent",
            *("--host", host, "--log-file", log),
            *arguments,
            **kwargs,
        )
        return Agent(self, host, process, log)

    def wait_for_state(self, host, state, *arguments):
        """Wait, by nova-sg wait, until a member is up or down.

        A member that is up has reported then, not only registered.
        """
        waiting = ("wait", host, "--for", state, "--timeout", str(PATIENCE))
        self.assertEqual("", self.do(*waiting, *arguments))
        if state == "up":
            show = ("show", host, *arguments)
            wait_for(lambda: "no report yet" not in self.do(*show))

    def observe(self):
        """Return the API, in this process, configured as the programs are."""
        config.parse(["--config-file", self.config], "nova-sg")
        self.addCleanup(CONF.reset)
        # Runs before CONF is reset, as the driver's threads read CONF.
        self.addCleanup(shared_by_process.reset)
        return servicegroup.API()

    def execute(self, sql, *parameters):
        """Run a statement in the embedded database; return the rows."""
        path = os.path.join(self.state, "nova-sg.sqlite")
        link = sqlite3.connect(path, timeout=PATIENCE)
        try:
            with link:
                return link.execute(sql, parameters).fetchall()
        finally:
            link.close()

    def insert(self, host, ago, **fields):
        """Put a member into the embedded database.

        :param ago: seconds since its last report
        """
        moment = "strftime('%Y-%m-%d %H:%M:%f000', 'now', ?)"
        ((created, seen),) = self.execute(
            f"SELECT {moment}, {moment}", "-1 day", f"-{ago} seconds"
        )
        fields = {
            "host": host,
            "topic": "compute",
            "binary": "nova-compute",
            "created_at": created,
            "last_seen_up": seen,
            "report_count": 7,
            "deleted": 0,
            "disabled": 0,
            "forced_down": 0,
        } | fields
        self.execute(
            f"INSERT INTO services ({', '.join(fields)}) "
            f"VALUES ({', '.join('?' * len(fields))})",
            *fields.values(),
        )


def maps(pid, name):
    """Whether a process has a file with such a name in its memory."""
    with open(f"/proc/{pid}/maps") as files:
        return name in files.read()


def catches(pid, signo):
    """Whether a process handles a signal, rather than to end by it."""
    with open(f"/proc/{pid}/status") as status:
        [mask] = [line.split()[1] for line in status if "SigCgt" in line]
    return bool(int(mask, 16) >> (signo - 1) & 1)


class ByProcess:
    """For a TestCase: all programs run as processes."""

    def run_program(self, program, *arguments, **kwargs):
        return TestCase.run_program(self, program, *arguments, **kwargs)

    run_here = run_program

    def run_agent_until(self, words, *arguments, host="node"):
        """Run an agent until its log contains words; return the log."""
        agent = self.agent(host, "--debug", *arguments)
        agent.wait_for_log(words)
        agent.stop()
        return agent.log


class Agent:
    """A running nova-sg-agent."""

    def __init__(self, case, host, process, log):
        self.host = host
        self.process = process
        self.log_path = log
        self._case = case

    @property
    def log(self):
        try:
            with open(self.log_path) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def wait_for_log(self, words):
        """Wait until the log contains words."""
        wait_for(
            lambda: words in self.log or self.process.poll() is not None,
            PATIENCE,
            lambda: f"{self.host} logs {words!r}:\n{self.log}",
        )
        self._case.assertIn(words, self.log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, signo=signal.SIGTERM):
        """End it by a signal; check that it ends in order."""
        result = self._case.finish(self.process, signo)
        self._case.assertEqual(
            (0, "", ""), (result.status, result.out, result.err)
        )
        self._case.check_words(self.log)


class Lines:
    """Reads the lines of a pipe as they come."""

    def __init__(self, pipe):
        self._pipe = pipe
        self._ended = False
        self._rest = b""
        self._lines = []

    def wait(self, timeout):
        """Wait for a line, for so many seconds at most.

        :returns: whether there is a line
        """
        deadline = time.monotonic() + timeout
        while not self._lines and not self._ended:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._pipe], [], [], left)[0]:
                break
            data = os.read(self._pipe.fileno(), 65536)
            self._ended = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines += [line.decode() for line in lines]
        return bool(self._lines)

    def take(self):
        """Return the lines that have come, without waiting."""
        self.wait(0)
        lines, self._lines = self._lines, []
        return lines

    def take_one(self):
        """Return the first line that has come."""
        return self._lines.pop(0)

    def close(self):
        self._ended = True
        self._pipe.close()
