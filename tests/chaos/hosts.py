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

"""The processes of a cloud's hosts and controllers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

from tests.chaos.cloud import now
from tests.faults import contenders, processes
from tests.fixtures import watchdog
from tests.fixtures.process import wait_for

GROUP = "compute"
# Seconds after which a command is killed.
_COMMAND_LIMIT = 30

_PROGRAMS = os.path.join(os.path.dirname(__file__), "programs")


class ForkServer(processes.ForkServer):
    """Forks hosts and controllers into their namespaces.

    :param mode: threads or eventlet
    """

    def __init__(self, mode):
        environment = dict(os.environ)
        environment.pop("NOVA_SG_TEST_MODE", None)
        script = os.path.join(_PROGRAMS, "netns_server.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        watchdog.guard_process(self._process.pid)
        self._lock = threading.Lock()
        self._read()


class _InNamespace:
    """A fork server whose children are in a node and get more of an order."""

    def __init__(self, server, node, **more):
        self._server = server
        self._more = {"namespace": node.path} | more

    def fork(self, order):
        return self._server.fork(order | self._more)


def start(server, node, program, folder, hosts, options, **more):
    """Start a process in a node; return it."""
    contenders.write_config(folder, *options)
    return processes.Child(
        _InNamespace(server, node, **more), program, folder, GROUP, hosts
    )


class Host:
    """A host: its process may be killed, suspended, and started again.

    :param options: layers of options, as write_config() takes them
    """

    def __init__(self, server, node, folder, options, history):
        self.node = node
        self.name = node.name
        self._server = server
        self._folder = folder
        self._options = options
        self._history = history
        self._number = 0
        self.process = None

    def _tell(self, state, begun, at=None, **more):
        self._history.write(
            "process", begun=begun, at=at, host=self.name, state=state, **more
        )

    def start(self):
        """Start the process, which joins; do not wait for that."""
        self._number += 1
        begun = now()
        self.process = start(
            self._server,
            self.node,
            "host",
            os.path.join(self._folder, str(self._number)),
            [self.name],
            self._options,
        )
        self._tell("started", begun)

    def wait_until_joined(self, count=1):
        """Wait until it has joined, and write down when."""
        try:
            *_, event = self.process.wait("joined", count)
        except AssertionError as error:
            self._tell("failed", now(), error=str(error)[-300:])
            return
        self._tell("joined", event["at"], event["at"])

    def kill(self):
        begun = self.process.end(signal.SIGKILL)
        self._tell("killed", begun)

    def freeze(self):
        begun = now()
        self.process.send(signal.SIGSTOP)
        self._tell("suspended", begun)

    def thaw(self):
        begun = now()
        self.process.send(signal.SIGCONT)
        self._tell("resumed", begun)

    def leave(self):
        begun = now()
        self._tell("leaving", begun)
        before = len(self.process.events("left"))
        failed = len(self.process.events("leave-failed"))
        self.process.order("leave")
        with contextlib.suppress(AssertionError):
            wait_for(
                lambda: (
                    len(self.process.events("left")) > before
                    or len(self.process.events("leave-failed")) > failed
                ),
                20,
            )
        if len(self.process.events("left")) > before:
            at = self.process.events("left")[-1]["at"]
            self._tell("left", begun, at)

    def join(self):
        count = len(self.process.events("joined")) + 1
        self._tell("started", now())
        self.process.order("join")
        self.wait_until_joined(count)

    def close(self):
        if self.process is not None:
            self.process.close()


class Command:
    """nova-sg list, run again and again in a controller's node."""

    def __init__(self, server, node, folder, options, hosts, history, period):
        self._server = server
        self._node = node
        self._folder = folder
        self._options = options
        self._hosts = hosts
        self._history = history
        self._period = period
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._number = 0

    def start(self):
        self._thread.start()

    def _run(self):
        while not self._end.wait(self._period):
            self._number += 1
            folder = os.path.join(self._folder, str(self._number))
            begun = now()
            letters = self.run(folder, "list", "-f", "json")
            if self._end.is_set():
                # It was killed.
                break
            self._history.write(
                "answers",
                begun=begun,
                observer=self._node.name,
                letters=letters,
            )

    def run(self, folder, *arguments):
        """Run a command; return a letter for each host."""
        process = start(
            self._server,
            self._node,
            "command",
            folder,
            [],
            self._options,
            arguments=list(arguments),
        )
        try:
            with contextlib.suppress(AssertionError):
                wait_for(
                    lambda: process.has_ended or self._end.is_set(),
                    _COMMAND_LIMIT,
                )
        finally:
            process.close()
        return self._letters(os.path.join(folder, "out"))

    def _letters(self, path):
        states = {}
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            states = {row["Host"]: row["State"] for row in json.load(file)}
        shown = {"up": "U", "down": "D"}
        return "".join(
            shown.get(states.get(host), "?") for host in self._hosts
        )

    def close(self):
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
