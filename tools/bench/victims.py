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

"""Members that are killed, and the time until an observer sees it.

As a program (python -m bench.victims) it is the process that forks them, so
that they start fast. It reads a job as one line of JSON, and then forks a
member for each host that it reads.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

# Seconds to wait for any single step.
_LIMIT = 120


class Victims:
    """Members of one group, each in a process of its own.

    :param job: see main()
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.victims"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._tell(json.dumps(job))

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *exc_info) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")

    def join(self, host: str) -> int:
        """Have a member join; return its process id once it has joined."""
        self._tell(host)
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"{host} did not join")
        return int(answer)


def seen_after(
    victims: Victims,
    api: Any,
    group: str,
    hosts: Sequence[str],
    pause: float,
) -> list[float]:
    """Kill members in turn; return the seconds until each is down.

    :param api: the observer, a servicegroup.API
    :param pause: seconds between two kills
    """
    pids = [victims.join(host) for host in hosts]
    for host in hosts:
        _wait(lambda: _is_up(api, group, host), f"{host} is up")  # noqa: B023
    downs: dict[str, float] = {}
    done = threading.Event()

    def note(event: Any) -> None:
        if event.type == "down":
            downs[event.host] = time.monotonic()
            if downs.keys() >= set(hosts):
                done.set()

    watch = api.watch(group, note)
    try:
        begun = {}
        for host, pid in zip(hosts, pids, strict=True):
            begun[host] = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            time.sleep(pause)
        if not done.wait(_LIMIT):
            raise AssertionError(f"{set(hosts) - downs.keys()}: still up")
    finally:
        watch.cancel()
    return [downs[host] - begun[host] for host in hosts]


def _is_up(api: Any, group: str, host: str) -> bool:
    return api.service_is_up({"topic": group, "host": host})


def _wait(condition: Any, what: str) -> None:
    give_up = time.monotonic() + _LIMIT
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"not in time: {what}")
        time.sleep(0.005)


def main() -> None:
    """Fork members.

    The job has the module and class of the contender, the address of its
    server, the group, the options by section, and the mode.
    """
    job = json.loads(sys.stdin.readline())
    if job["mode"] == "eventlet":
        from nova_sg import monkey_patch

        monkey_patch.patch()
    module = importlib.import_module(f"bench.contenders.{job['module']}")
    contender = getattr(module, job["class"])
    # Imported now, so that the children need not do it.
    importlib.import_module("nova_sg.guard.orders")
    # No parent waits for the children.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if not os.fork():
            with ending():
                _be(contender, job, line.strip())


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End this process, a child, after the block; print its error."""
    try:
        yield
    except Exception as error:
        print(f"{error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


def _be(contender: type, job: dict[str, Any], host: str) -> None:
    from bench.contenders import base
    from nova_sg import servicegroup
    from nova_sg.conf import CONF
    from nova_sg.guard import orders

    # Popen, which starts the guard, needs SIGCHLD's default.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    contender(job["where"])
    for section, options in job["options"].items():
        for name, value in options.items():
            group = None if section == "DEFAULT" else section
            CONF.set_override(name, value, group)
    api = servicegroup.API()
    service = base.Service(host, job["group"])
    api.join(host, job["group"], service)
    _wait(service.report, f"{host} reports")
    if CONF.servicegroup.crash_guard:
        # Wait for the guard, whose start is not part of the measurement.
        name = f"/proc/{orders._supervisor()._process.pid}/comm"
        _wait(lambda: _read(name) == "nova-sg-guard", "the guard is there")
    os.write(1, f"{os.getpid()}\n".encode())
    # A member that is not killed ends with its parent.
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


if __name__ == "__main__":
    main()
