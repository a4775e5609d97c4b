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

"""The measurements of a ZooKeeper client, the same for each client."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

from bench import measure, operations, rows
from bench.contenders import client
from tests.fixtures import zookeeper

# Threads that ask at the same time.
_THREADS = 20
# Seconds to wait for any single step.
_PATIENCE = 120


class Clients:
    """Measures one client.

    :param template: a row with the fields that all figures have in common
    :param server: the process id of the server
    """

    def __init__(
        self,
        contender: client.Client,
        template: rows.Row,
        sizes: operations.Sizes,
        server: int,
    ) -> None:
        self._client = contender
        self._template = template
        self._sizes = sizes
        self._server = server

    def all(self) -> Iterator[rows.Row]:
        """Measure everything."""
        yield from self.requests()
        yield from self.joins()
        yield from self.follow()
        yield from self.stall()
        yield from self.outage()

    def requests(self) -> Iterator[rows.Row]:
        seconds, server = self._sizes.seconds, self._server
        many = self._sizes.many
        for name in ("get", "set"):
            one = self._client.one(name)
            if one is not None:
                # Warm up: a server that has just started is slow at first.
                measure.together([one] * _THREADS, seconds)
                timing = measure.repeat(one, seconds, server)
                yield from self._rates(f"{name}, one by one", timing)
                timing = measure.together([one] * _THREADS, seconds, server)
                yield from self._rates(f"{name}, {_THREADS} threads", timing)
            pipelined = self._client.pipelined(name, many)
            if pipelined is not None:
                timing = measure.repeat(pipelined, seconds, server)
                yield from self._rates(
                    f"{name}, {many} in flight", timing, many
                )

    def joins(self) -> Iterator[rows.Row]:
        joins = self._client.joins(5 * self._sizes.many)
        if joins is not None:
            yield from self._rates("join", measure.once(joins))

    def follow(self) -> Iterator[rows.Row]:
        """Have one observer follow a crowd that joins and leaves."""
        observer = _Observer()
        if self._client.follow("/crowd", observer.changed):
            observer.wait(0)
            yield from self._follow(observer, 0, "")
            pace = self._sizes.pace
            yield from self._follow(observer, pace, f", {pace:,g} a second")

    def _follow(
        self, observer: _Observer, pace: float, suffix: str
    ) -> Iterator[rows.Row]:
        where, count = self._client.where, self._sizes.crowd
        with _crowd(where, "/crowd", count, pace) as (tell, told):
            for what, expected in (("joins", count), ("leaves", 0)):
                seen = observer.calls
                received = measure.traffic(where)
                begin = time.monotonic()
                cpu = time.process_time()
                tell()
                moment = observer.wait(expected)
                cpu = time.process_time() - cpu
                received = measure.traffic(where) - received
                name = f"follow {count:,} {what}{suffix}"
                late = moment - told()
                yield self._row(name, moment - begin, "s")
                yield self._row(f"{name}: behind", max(late, 0.0) * 1e3, "ms")
                yield self._row(f"{name}: CPU", cpu, "s")
                yield self._row(f"{name}: bytes", received, "bytes")
                yield self._row(
                    f"{name}: lists seen", observer.calls - seen, ""
                )

    def stall(self) -> Iterator[rows.Row]:
        """Hold the interpreter lock for longer than a session lasts."""
        stall, session = self._sizes.stall, self._sizes.session
        if not self._client.hold("/held", session):
            return
        # PyDLL keeps the interpreter lock.
        ctypes.PyDLL(None).usleep(int(stall * 1e6))
        yield self._row(
            f"session of {session:g} s after a standstill of {stall:g} s",
            float(self._client.exists("/held")),
            "kept",
        )

    def outage(self) -> Iterator[rows.Row]:
        """Stop the server of many sessions, and start it again.

        The connections are those of the second half of the outage.
        """
        count, outage = self._sizes.sessions, self._sizes.outage
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(zookeeper.ZooKeeperServer())
            where, connections = stack.enter_context(_gateway(server.port))
            asked = self._client.sessions(where, count, self._sizes.session)
            if asked is None:
                return
            before = _all_connected(asked)
            server.kill()
            time.sleep(outage / 2)
            begun = connections()
            time.sleep(outage / 2)
            tried = connections() - begun
            server.start()
            begin, begun = time.monotonic(), connections()
            after = _all_connected(asked)
            took = time.monotonic() - begin
            name = f"{count} sessions without a server for {outage:g} s"
            yield self._row(
                f"{name}: connections a second", tried / outage * 2, ""
            )
            yield self._row(f"{name}: until all are back", took, "s")
            yield self._row(
                f"{name}: connections until then", connections() - begun, ""
            )
            kept = sum(a == b for a, b in zip(before, after, strict=True))
            yield self._row(f"{name}: sessions", kept / count, "kept")

    def _rates(
        self, name: str, timing: measure.Timing, each: int = 1
    ) -> Iterator[rows.Row]:
        """:param each: how many operations a call consists of"""
        failed = ""
        if timing.failed:
            failed = f"{timing.failed} of {timing.calls} failed"
        yield self._row(name, timing.rate * each, "1/s", failed)
        for what, total in (
            ("CPU", timing.cpu),
            ("the server's CPU", timing.server_cpu),
        ):
            if total is not None:
                figure = timing.each(total) / each * 1e6
                yield self._row(f"{name}: {what}", figure, "us")

    def _row(
        self, name: str, figure: float, unit: str, note: str = ""
    ) -> rows.Row:
        note = note or self._client.notes.get(name, "")
        return self._template._replace(
            name=name, figure=figure, unit=unit, note=note
        )


class _Observer:
    """Takes the lists of names from a client's callback."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._size = -1
        self._moment = 0.0
        #: How many lists have come.
        self.calls = 0

    def changed(self, names: set[str] | list[str] | None) -> None:
        with self._condition:
            self.calls += 1
            self._size = -1 if names is None else len(names)
            self._moment = time.monotonic()
            self._condition.notify_all()

    def wait(self, size: int) -> float:
        """Wait for a list of so many names; return when it came."""
        with self._condition:
            if not self._condition.wait_for(
                lambda: self._size == size, _PATIENCE
            ):
                raise AssertionError(f"{self._size} of {size} are known")
            return self._moment


def _all_connected(asked: list[Callable[[], int | None]]) -> list[int]:
    """Wait until all sessions are connected; return their ids."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        found = [ask() for ask in asked]
        if None not in found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{found.count(None)} are not connected")
        time.sleep(0.05)


@contextlib.contextmanager
def _gateway(port: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """Start bench.gateway; yield its address, and a function that counts."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.gateway", str(port)],
            stdin=subprocess.PIPE,
            stdout=output,
        )
        lines = _Lines(process, output)
        numbers = itertools.count(1)

        def count() -> int:
            os.write(process.stdin.fileno(), b"\n")
            return int(lines.wait(next(numbers)))

        try:
            yield f"127.0.0.1:{lines.wait(0)}", count
        finally:
            process.kill()
            process.wait()


class _Lines:
    """The lines that a process writes to a file.

    A file, as reading a pipe would block all green threads.
    """

    def __init__(self, process: subprocess.Popen, output: IO[bytes]) -> None:
        self._process = process
        self._output = output.fileno()

    def wait(self, number: int) -> str:
        """Wait for a line; the first one is 0."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            length = os.fstat(self._output).st_size
            said = os.pread(self._output, length, 0).decode()
            if said.count("\n") > number:
                return said.splitlines()[number]
            if self._process.poll() or time.monotonic() > deadline:
                raise AssertionError(f"no more from the process: {said}")
            time.sleep(0.01)


@contextlib.contextmanager
def _crowd(
    where: str, path: str, count: int, pace: float
) -> Iterator[tuple[Callable[[], None], Callable[[], float]]]:
    """Start bench.crowd; yield a function to go on, and one to wait."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.crowd"),
                *(where, path, str(count), str(pace)),
            ],
            stdin=subprocess.PIPE,
            stdout=output,
        )

        lines = _Lines(process, output)
        numbers = itertools.count(1)
        try:
            lines.wait(0)
            yield (
                lambda: os.write(process.stdin.fileno(), b"\n"),
                lambda: float(lines.wait(next(numbers))),
            )
        finally:
            process.kill()
            process.wait()
