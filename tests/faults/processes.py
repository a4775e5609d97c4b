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

"""The processes of the fault suite: starts, orders and ends them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time

from tests.fixtures import nova, watchdog
from tests.fixtures.process import wait_for

_PROGRAMS = os.path.join(os.path.dirname(__file__), "programs")

#: The library of Debian's package libfaketime.
FAKETIME = (
    f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/faketime/"
    "libfaketimeMT.so.1"
)

#: Seconds to wait for what takes about one second on an idle machine.
PATIENCE = 90


class ForkServer:
    """A process that has imported a stack and forks others.

    Importing Nova takes seconds of CPU time, so it is done once.

    :param stack: ours or stock
    :param mode: threads or eventlet
    :param clock: a file with an offset for the wall clock of its children,
        as libfaketime reads it
    """

    def __init__(self, stack, mode, clock=None):
        python = nova.python() if stack == "stock" else sys.executable
        environment = dict(os.environ)
        environment.pop("NOVA_SG_TEST_MODE", None)
        if clock is not None:
            environment |= {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": clock,
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        script = os.path.join(_PROGRAMS, "fork_server.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", script, stack, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        watchdog.guard_process(self._process.pid)
        self._lock = threading.Lock()
        self._read()

    def fork(self, order):
        """Have a child forked; return its process id."""
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return int(self._read())

    def _read(self):
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise AssertionError(f"{self._process.args} does not answer")
        return line

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        watchdog.release_process(self._process.pid)


class _Process:
    """A process that may be killed, suspended and resumed.

    :param folder: where its log is
    """

    def __init__(self, pid, folder):
        self.pid = pid
        self.folder = folder
        self._handle = os.pidfd_open(pid)
        watchdog.guard_process(pid)

    def send(self, number):
        signal.pidfd_send_signal(self._handle, number)

    @property
    def has_ended(self):
        return bool(select.select([self._handle], [], [], 0)[0])

    def waited_for_core(self):
        """Return how long its threads were ready to run, but did not run.

        :returns: seconds, summed up over the threads that it has now
        """
        nanoseconds = 0
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                path = f"/proc/{self.pid}/task/{thread}/schedstat"
                with contextlib.suppress(OSError), open(path) as schedule:
                    nanoseconds += int(schedule.read().split()[1])
        return nanoseconds / 1e9

    def end(self, number=signal.SIGKILL):
        """End it by a signal; return the moment of the signal."""
        at = time.monotonic()
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGCONT)
                at = time.monotonic()
                self.send(number)
            wait_for(lambda: self.has_ended, PATIENCE, f"{self} ends")
        watchdog.release_process(self.pid)
        return at

    def log(self):
        try:
            with open(os.path.join(self.folder, "log")) as log:
                return log.read()[-2000:]
        except OSError as error:
            return str(error)

    def close(self):
        if self._handle is not None:
            self.end()
            os.close(self._handle)
            self._handle = None

    def __str__(self):
        return f"process {self.pid} of {self.folder}"


class Child(_Process):
    """A process with members, or an observer; a fork server started it."""

    def __init__(self, fork_server, program, folder, group, hosts):
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "orders")
        os.mkfifo(path)
        # Opened for reading, too: a pipe without a reader takes no orders.
        self._orders = os.open(path, os.O_RDWR)
        self.hosts = hosts
        pid = fork_server.fork(
            {
                "program": program,
                "folder": folder,
                "group": group,
                "hosts": hosts,
            }
        )
        super().__init__(pid, folder)

    def order(self, *words):
        os.write(self._orders, " ".join(words).encode() + b"\n")

    def close(self):
        super().close()
        os.close(self._orders)

    def events(self, event, **fields):
        """Return the entries of its journal of a kind of event, so far."""
        wanted = {"event": event} | fields
        return [
            entry
            for entry in self._journal()
            if wanted.items() <= entry.items()
        ]

    def wait(self, event, count=1, **fields):
        """Wait until so many such entries are in its journal; return them."""

        def are_there():
            if self.has_ended:
                raise AssertionError(f"{self} ended\n{self.log()}")
            return len(self.events(event, **fields)) >= count

        wait_for(
            are_there,
            PATIENCE,
            lambda: f"{self} writes the event {event!r}\n{self.log()}",
        )
        return self.events(event, **fields)

    def _journal(self):
        try:
            with open(os.path.join(self.folder, "journal")) as journal:
                text = journal.read()
        except OSError:
            return []
        complete = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in complete.splitlines()]


class Agent(_Process):
    """A nova-sg-agent, as operators run it."""

    def __init__(self, folder, group, host):
        self.hosts = [host]
        os.makedirs(folder, exist_ok=True)
        command = os.path.join(sysconfig.get_path("scripts"), "nova-sg-agent")
        environment = dict(os.environ) | {"HOME": folder}
        environment.pop("NOVA_SG_TEST_MODE", None)
        self._popen = subprocess.Popen(
            [
                command,
                *("--config-file", os.path.join(folder, "service.conf")),
                *("--host", host, "--topic", group),
                *("--log-file", os.path.join(folder, "log")),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
        )
        super().__init__(self._popen.pid, folder)

    def close(self):
        super().close()
        self._popen.wait()
