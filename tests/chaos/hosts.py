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

from tests.chaos import cloud
from tests.chaos.cloud import now
from tests.faults import contenders, processes
from tests.fixtures import nova, watchdog
from tests.fixtures.process import wait_for

GROUP = "compute"
#: The group of the members of which one process has many.
BULK = "bulk"
MONITOR_PORT = 8890
# Seconds after which a command is killed.
_COMMAND_LIMIT = 30

_PROGRAMS = os.path.join(os.path.dirname(__file__), "programs")


class ForkServer(processes.ForkServer):
    """Forks hosts and controllers into their namespaces.

    :param mode: threads or eventlet
    :param stack: ours; stock: Nova, in an environment of its own; inside: Nova
        with nova_sg inside
    """

    def __init__(self, mode, stack="ours"):
        python = sys.executable if stack == "ours" else nova.python()
        environment = dict(os.environ)
        environment.pop("NOVA_SG_TEST_MODE", None)
        script = os.path.join(_PROGRAMS, "netns_server.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", script, stack, mode],
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


def start(server, node, program, folder, hosts, options, group=GROUP, **more):
    """Start a process in a node; return it."""
    contenders.write_config(folder, *options)
    return processes.Child(
        _InNamespace(server, node, **more), program, folder, group, hosts
    )


class Shadow:
    """A member of stock Nova on a host: what happens to that happens to it."""

    def __init__(self, server, node, folder, options):
        self._start = (server, node, "stock_host", folder, [node.name])
        self._options = options
        self._number = 0
        self.process = None

    def start(self):
        self._number += 1
        server, node, program, folder, hosts = self._start
        self.process = start(
            *(server, node, program, os.path.join(folder, str(self._number))),
            *(hosts, self._options),
        )

    def send(self, number):
        if self.process is not None:
            self.process.send(number)

    def close(self):
        if self.process is not None:
            self.process.close()
            self.process = None


class Host:
    """A host: its process may be killed, suspended, and started again.

    :param options: layers of options, as write_config() takes them
    :param members: the names of its members; by default one, its own
    :param group: the group of these
    :param shadows: its Shadow objects
    """

    def __init__(
        self,
        server,
        node,
        folder,
        options,
        history,
        members=None,
        group=GROUP,
        shadows=(),
    ):
        self.members = members or [node.name]
        self._group = group
        self.shadows = shadows
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
            self.members,
            self._options,
            self._group,
        )
        self._tell("started", begun)
        for shadow in self.shadows:
            shadow.start()

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
        self._kill_shadows()
        self._tell("killed", begun)

    def _kill_shadows(self):
        for shadow in self.shadows:
            shadow.close()

    def freeze(self):
        begun = now()
        self._send(signal.SIGSTOP)
        self._tell("suspended", begun)

    def thaw(self):
        begun = now()
        self._send(signal.SIGCONT)
        self._tell("resumed", begun)

    def _send(self, number):
        self.process.send(number)
        for shadow in self.shadows:
            shadow.send(number)

    def tell(self, state, begun):
        """Write down what an operator does about it."""
        self._tell(state, begun)

    def block(self, seconds):
        """Have all of Python stand still for a time."""
        begun = now()
        before = len(self.process.events("blocked"))
        self._tell("blocking", begun)
        self.process.order("block", str(seconds))
        wait_for(
            lambda: len(self.process.events("blocked")) > before,
            seconds + 60,
            f"{self.name} goes on",
        )
        at = self.process.events("blocking")[-1]["at"]
        self._tell("blocked", at, at)
        at = self.process.events("blocked")[-1]["at"]
        self._tell("unblocked", at, at)

    def leave(self):
        begun = now()
        self._tell("leaving", begun)
        # Members of stock Nova cannot leave.
        self._kill_shadows()
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
        for shadow in self.shadows:
            shadow.start()
        self.process.order("join")
        self.wait_until_joined(count)

    def close(self):
        if self.process is not None:
            self.process.close()
        self._kill_shadows()


class Program:
    """One of nova_sg's own programs, in a controller's node.

    :param module: its function, as in setup.cfg, in nova_sg.cmd
    :param words: its arguments
    """

    def __init__(self, node, folder, options, module, *words):
        contenders.write_config(folder, *options)
        self.folder = folder
        self.node = node
        file = os.path.join(folder, "service.conf")
        code = (
            "import sys; from nova_sg.cmd import "
            f"{module.rpartition('.')[0]} as program; "
            f"sys.exit(program.{module.rpartition('.')[2]}())"
        )
        with (
            node.inside(),
            open(os.path.join(folder, "log"), "ab") as log,
        ):
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "--config-file", file, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        watchdog.guard_process(self.pid)

    def check(self):
        """Raise AssertionError if it has ended."""
        status = self._process.poll()
        if status is not None:
            with open(os.path.join(self.folder, "log")) as log:
                raise AssertionError(
                    f"the program of {self.folder} ended with status "
                    f"{status}: {log.read()[-1000:]}"
                )

    def close(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        watchdog.release_process(self.pid)


# Appends when it was called, and for what, to the file of its argument. The
# clock of /proc/uptime is the monotonic one, and the time of suspensions.
_NOTE = """\
read -r up rest </proc/uptime
echo "$up $NOVA_SG_TYPE $NOVA_SG_HOST ${NOVA_SG_CAUSE:--}" >>"$1"
"""


class Watcher(Program):
    """nova-sg watch, which acts upon events by a command.

    The command writes down what it is called for. Each "down" is an
    evacuation.
    """

    def __init__(self, node, folder, options):
        os.makedirs(folder)
        script = os.path.join(folder, "act.sh")
        with open(script, "w") as file:
            file.write(_NOTE)
        self._acts = os.path.join(folder, "acts")
        options = [
            *options,
            {"events": {"only": "up,down,joined,left"}},
        ]
        super().__init__(
            *(node, folder, options, "entry.shell", "watch"),
            *("--exec", f"sh {script} {self._acts}"),
        )

    def acts(self):
        """Yield when it acted, upon which type of event, of which host."""
        with open("/proc/uptime") as uptime:
            ahead = float(uptime.read().split()[0]) - now()
        with contextlib.suppress(OSError), open(self._acts) as lines:
            for line in lines:
                up, kind, host, cause = line.split()
                yield float(up) - ahead, kind, host, cause


class Monitor(Program):
    """nova-sg-monitor, which is asked by HTTP about all members.

    :param groups: the names of the members, by group
    """

    def __init__(self, node, folder, options, groups, history, period):
        options = [*options, {"monitor": {"port": MONITOR_PORT}}]
        super().__init__(node, folder, options, "monitor.main")
        self._groups = groups
        self._history = history
        self._period = period
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def _run(self):
        while not self._end.wait(self._period):
            begun = now()
            letters = self.ask()
            self._history.write(
                *("answers", begun),
                observer=self.node.name,
                letters=letters,
            )

    def ask(self):
        """Return a letter for each member."""
        return "".join(
            self._letters(group, members)
            for group, members in self._groups.items()
            if members
        )

    def _letters(self, group, members):
        try:
            found = self._get(f"/v1/groups/{group}/members?limit=1000")
        except (OSError, ValueError):
            return "?" * len(members)
        states = {one["host"]: one["state"] for one in found["members"]}
        shown = {"up": "U", "down": "D"}
        # A member that is not listed is none.
        return "".join(
            shown.get(states.get(host, "down"), "?") for host in members
        )

    def _get(self, path):
        with contextlib.closing(
            cloud.connect(self.node, "127.0.0.1", MONITOR_PORT, 3.0)
        ) as link:
            link.sendall(
                f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
            )
            with link.makefile("rb") as file:
                if file.readline().split()[1:2] != [b"200"]:
                    raise ValueError("not found")
                while file.readline() not in (b"\r\n", b""):
                    pass
                return json.load(file)

    def close(self):
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        super().close()


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
        self._orders = 0

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

    def order(self, *arguments):
        """Run another command; return its exit status, or None."""
        self._orders += 1
        folder = os.path.join(self._folder, f"order-{self._orders}")
        self.run(folder, *arguments)
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(folder, "status")) as file:
                return int(file.read())
        return None

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
