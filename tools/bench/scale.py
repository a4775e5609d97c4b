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

"""Many members on real servers: what they cost, by the size of the group.

The members are simulated (bench.load), so that one machine has room for them;
the servers and the observers are real.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from bench import machine, measure, rows, simulated
from nova_sg.cmd import progress
from tests.fixtures import mariadb, memcached, process, zookeeper

_GROUP = "compute"
#: Members that die, one after the other.
_VICTIMS = 5
# Members of one process: a process may have so many connections only.
_PART = 4000
# Seconds to wait for any step, beyond what it takes by its nature.
_PATIENCE = 600.0
_NAMES = {"db": "MariaDB", "mc": "memcached", "zk": "ZooKeeper"}


class _Failed(Exception):
    """A measurement failed."""


class _MariaDB(mariadb.MariaDB):
    def __init__(self, members: int) -> None:
        super().__init__()
        self._connections = members + 500

    def command(self) -> list[str]:
        return [
            *super().command(),
            f"--max-connections={self._connections}",
        ]


class _Memcached(memcached.Memcached):
    def command(self) -> list[str]:
        # As many connections as this process could have.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        return [*super().command(), "-c", str(most - 500)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _options(arguments)
    for name, value in machine.facts().items():
        print(f"{name}: {value}")
    measured: list[rows.Row] = []
    failures = 0
    steps = [(d, n) for d in options.driver for n in options.members]
    with progress.Progress() as shown:
        for done, (driver, members) in enumerate(steps):
            shown.step(f"{driver}, {members:,} members", done, len(steps))
            try:
                found = _Scale(driver, members, options).rows()
                measured += found
                shown.say(rows.tables(found))
            except _Failed as failure:
                failures += 1
                shown.say(f"{driver}, {members:,} members: {failure}")
        for size in options.simulated:
            shown.step(f"{size:,} members, simulated")
            measured += simulated.measured(size)
    print()
    print(rows.tables(measured))
    return 1 if failures or not measured else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench.sh --scale",
        description="Measures real servers and observers with many members, "
        "which are simulated.",
    )
    parser.add_argument(
        "--driver",
        action="append",
        choices=list(_NAMES),
        help="measure only this driver; may be repeated",
    )
    parser.add_argument(
        "--members",
        type=int,
        action="append",
        help="the size of the group; may be repeated (1000, 3000, 10000)",
    )
    parser.add_argument(
        "--observers",
        type=int,
        default=5,
        help="how many processes follow the group (5)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        help="for how long the CPU is measured, without and with observers "
        "(30)",
    )
    parser.add_argument(
        "--down-time",
        type=int,
        default=60,
        help="service_down_time; report_interval is a sixth of it (60)",
    )
    parser.add_argument(
        "--simulated",
        type=int,
        action="append",
        help="a size of the group for what an observer judges without a "
        "server; may be repeated; 0: none "
        f"({', '.join(map(str, simulated.SIZES))})",
    )
    options = parser.parse_args(arguments)
    sizes = options.simulated or simulated.SIZES
    options.simulated = sorted(size for size in set(sizes) if size > 0)
    options.driver = options.driver or list(_NAMES)
    options.members = sorted(set(options.members or (1000, 3000, 10000)))
    if options.members[0] <= _VICTIMS:
        parser.error(f"--members: {_VICTIMS} of them die, so it takes more")
    if options.down_time < 6:
        parser.error("--down-time: at least 6 s, for reports each second")
    return options


class _Scale:
    """One driver with a group of one size."""

    def __init__(
        self, driver: str, members: int, options: argparse.Namespace
    ) -> None:
        self._driver = driver
        self._hosts = [f"node-{n:06}.example.org" for n in range(members)]
        self._options = options
        self._servers: list[process.Daemon] = []
        self._found: list[rows.Row] = []

    def rows(self) -> list[rows.Row]:
        """Measure.

        :raises _Failed: a program ended, or did not come so far in time
        """
        with contextlib.ExitStack() as stack:
            where, settings = self._start_servers(stack)
            settings.setdefault("DEFAULT", {}).update(
                servicegroup_driver=self._driver,
                report_interval=self._options.down_time // 6,
                service_down_time=self._options.down_time,
            )
            job = {
                "driver": self._driver,
                "where": where,
                "group": _GROUP,
                "members": len(self._hosts),
                "count": self._options.observers,
                "options": settings,
            }
            crowd = _Crowd(stack, job, self._hosts)
            alone = self._window(crowd, [])
            self._add("reports: CPU of the servers", alone.servers, "%")
            self._add("a report: until its answer, mean", alone.mean, "ms")
            self._add("a report: until its answer, most", alone.most, "ms")
            self._add("memory of the servers", self._memory(), "MB")
            watchers = stack.enter_context(_Program("bench.watchers", job))
            observers = [
                watchers.json("knows")["pid"]
                for _ in range(self._options.observers)
            ]
            together = self._window(crowd, observers)
            count = len(observers)
            self._add("an observer: its CPU", together.observers / count, "%")
            self._add(
                "an observer: CPU of the servers",
                max(0.0, together.servers - alone.servers) / count,
                "%",
            )
            deaths = self._deaths(crowd, watchers, count)
            self._add("a death seen", deaths, "s")
        return self._found

    def _add(self, name: str, figure: float, unit: str) -> None:
        self._found.append(
            rows.Row(
                name=f"{name}, of {len(self._hosts):,}",
                contender=f"nova_sg {self._driver}",
                figure=figure,
                unit=unit,
                backend=_NAMES[self._driver],
                mode="threads",
            )
        )

    def _start_servers(
        self, stack: contextlib.ExitStack
    ) -> tuple[str, dict[str, dict[str, Any]]]:
        """Return where they are, and the options for them."""
        if self._driver == "db":
            server = stack.enter_context(_MariaDB(len(self._hosts)))
            self._servers = [server]
            url = server.create_database()
            _make_table(url)
            return url, {"database": {"connection": url}}
        if self._driver == "mc":
            self._servers = [
                stack.enter_context(_Memcached()) for _ in range(3)
            ]
            addresses = [server.address for server in self._servers]
            return ",".join(addresses), {
                "DEFAULT": {"memcached_servers": addresses}
            }
        ensemble = stack.enter_context(zookeeper.ZooKeeperEnsemble())
        self._servers = ensemble.servers
        return ensemble.address, {"zookeeper": {"address": ensemble.address}}

    def _window(self, crowd: _Crowd, observers: Sequence[int]) -> Any:
        """Measure for some seconds."""
        watched = [server.pid for server in self._servers], observers
        crowd.told()
        begun = time.monotonic()
        before = [sum(map(measure.exact_cpu_of, pids)) for pids in watched]
        time.sleep(self._options.seconds)
        took = time.monotonic() - begun
        after = [sum(map(measure.exact_cpu_of, pids)) for pids in watched]
        told = crowd.told()
        if told["failed"]:
            raise _Failed(
                f"{told['failed']} of {told['reports']} reports failed"
            )
        servers, seen = (
            100 * (b - a) / took for a, b in zip(before, after, strict=True)
        )
        return argparse.Namespace(
            servers=servers,
            observers=seen,
            mean=told["mean"],
            most=told["most"],
        )

    def _memory(self) -> float:
        """Return the megabytes that the servers have of their own."""
        total = 0
        for server in self._servers:
            with open(f"/proc/{server.pid}/status") as status:
                for line in status:
                    if line.startswith("RssAnon:"):
                        total += int(line.split()[1])
        return total / 1024

    def _deaths(
        self, crowd: _Crowd, watchers: _Program, observers: int
    ) -> float:
        """Have members die; return the seconds until an observer sees it."""
        delays = []
        victims = self._hosts[:: len(self._hosts) // _VICTIMS][:_VICTIMS]
        begun = {}
        for host in victims:
            begun[host] = time.monotonic()
            crowd.kill(host)
            time.sleep(0.37)
        while len(delays) < observers * len(victims):
            seen = watchers.json("down")
            if seen["down"] not in begun:
                raise _Failed(f"{seen['down']} was called down, and reports")
            delays.append(seen["at"] - begun[seen["down"]])
        return statistics.median(delays)


def _make_table(url: str) -> None:
    import sqlalchemy

    from nova_sg.backends.db import engine, schema

    database = engine.Database(sqlalchemy.make_url(url))
    schema.sync(database)
    database.close()


class _Crowd:
    """All members, in as many programs as it takes."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        job: dict[str, Any],
        hosts: Sequence[str],
    ) -> None:
        self._programs = {}
        for first in range(0, len(hosts), _PART):
            part = hosts[first : first + _PART]
            program = _Program("bench.load", {**job, "hosts": part})
            stack.enter_context(program)
            program.expect("ready")
            self._programs.update(dict.fromkeys(part, program))

    def kill(self, host: str) -> None:
        """Silence a member."""
        self._programs[host].tell(f"kill {host}")

    def told(self) -> dict[str, float]:
        """Return what became of the reports since the last time."""
        programs = set(self._programs.values())
        for program in programs:
            program.tell("told")
        parts = [json.loads(program.line()) for program in programs]
        return {
            "reports": sum(part["reports"] for part in parts),
            "failed": sum(part["failed"] for part in parts),
            "mean": statistics.mean(part["mean"] for part in parts),
            "most": max(part["most"] for part in parts),
        }


class _Program:
    """A program that obeys lines and prints lines."""

    def __init__(self, module: str, job: dict[str, Any]) -> None:
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.tell(json.dumps(job))

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *exc_info) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def tell(self, line: str) -> None:
        """Send a line."""
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise _Failed(f"{self._name} has ended: {error}") from error

    def line(self) -> str:
        """Return the next line."""
        try:
            line = self._lines.get(timeout=_PATIENCE)
        except queue.Empty:
            raise _Failed(
                f"{self._name} prints nothing for {_PATIENCE:g} s"
            ) from None
        if not line:
            raise _Failed(f"{self._name} has ended, see above")
        return line.strip()

    def expect(self, word: str) -> None:
        """Wait for a line."""
        while self.line() != word:
            pass

    def json(self, key: str) -> dict[str, Any]:
        """Return the next line that has a key."""
        while key not in (found := json.loads(self.line())):
            pass
        return found
