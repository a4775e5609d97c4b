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

"""Timing of calls: rate and CPU time. It does not depend on the calls."""

from __future__ import annotations

import _socket
import contextlib
import gc
import os
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Timing(NamedTuple):
    """The time that a number of calls took."""

    calls: int
    #: How many of them failed, that is, returned False.
    failed: int
    #: Seconds on the clock.
    wall: float
    #: Seconds of CPU in this process, all threads.
    cpu: float
    #: Seconds of CPU in the server; None: there is no server.
    server_cpu: float | None

    @property
    def done(self) -> int:
        """How many calls succeeded."""
        return self.calls - self.failed

    @property
    def rate(self) -> float:
        """How many calls succeeded in a second."""
        return self.done / self.wall

    def each(self, total: float) -> float:
        """A call's share of a total."""
        return total / max(1, self.done)


class _Stopwatch:
    def __init__(self, server: int | None) -> None:
        self._server = server
        self._begin = self._now()

    def _now(self) -> tuple[float, float, float | None]:
        server = None
        if self._server is not None:
            server = cpu_of(self._server)
        return time.monotonic(), time.process_time(), server

    def read(self, calls: int, failed: int) -> Timing:
        wall, cpu, server = self._now()
        if server is not None:
            server -= self._begin[2]
        return Timing(
            calls, failed, wall - self._begin[0], cpu - self._begin[1], server
        )


def repeat(
    call: Callable[[], Any], seconds: float, server: int | None = None
) -> Timing:
    """Call again and again for so many seconds.

    :param call: returns False if it failed
    :param server: the process id of the server that it asks
    """
    call()
    # The clock is read after batches: it takes longer than some calls.
    batch = 1
    while True:
        begin = time.monotonic()
        for _ in range(batch):
            call()
        took = time.monotonic() - begin
        if took > seconds / 50:
            break
        batch *= 2
    calls = failed = 0
    deadline = time.monotonic() + seconds
    watch = _Stopwatch(server)
    while not calls or time.monotonic() < deadline:
        for _ in range(batch):
            if call() is False:
                failed += 1
        calls += batch
    return watch.read(calls, failed)


def together(
    calls: Sequence[Callable[[], Any]],
    seconds: float,
    server: int | None = None,
) -> Timing:
    """Call all of them again and again, each on a thread of its own."""
    counts = [[0, 0] for _ in calls]
    begin = threading.Event()
    deadline = 0.0

    def run(call: Callable[[], Any], count: list[int]) -> None:
        begin.wait()
        while not count[0] or time.monotonic() < deadline:
            if call() is False:
                count[1] += 1
            count[0] += 1

    threads = [
        threading.Thread(target=run, args=pair, daemon=True)
        for pair in zip(calls, counts, strict=True)
    ]
    for thread in threads:
        thread.start()
    watch = _Stopwatch(server)
    deadline = time.monotonic() + seconds
    begin.set()
    for thread in threads:
        thread.join()
    done, failed = (sum(column) for column in zip(*counts, strict=True))
    return watch.read(done, failed)


def once(calls: Sequence[Callable[[], Any]]) -> Timing:
    """Call each of them once, one after the other."""
    # The first call makes the objects that all of them share.
    calls[0]()
    watch = _Stopwatch(None)
    for call in calls[1:]:
        call()
    return watch.read(len(calls) - 1, 0)


def memory(make: Callable[[], Any]) -> tuple[int, int]:
    """Return the bytes that a result keeps, and the most while it is made.

    It is Python's own memory, as tracemalloc counts it.
    """
    gc.collect()
    tracemalloc.start()
    try:
        kept = make()
        gc.collect()
        now, peak = tracemalloc.get_traced_memory()
        del kept
        return now, peak
    finally:
        tracemalloc.stop()


def traffic(where: str) -> int:
    """Return the bytes, both ways, of all this process's connections.

    :param where: the server's host:port; others are not counted
    """
    port = int(where.rpartition(":")[2])
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            # Not socket.socket, which may be green and change the descriptor.
            link = _socket.socket(fileno=int(name))
            try:
                inet = link.family in (_socket.AF_INET, _socket.AF_INET6)
                if inet and link.getpeername()[1] == port:
                    info = link.getsockopt(
                        _socket.IPPROTO_TCP, _socket.TCP_INFO, 136
                    )
                    # tcpi_bytes_acked and tcpi_bytes_received.
                    total += sum(struct.unpack_from("@QQ", info, 120))
            finally:
                # The descriptor belongs to another object.
                link.detach()
    return total


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used, to 0.01."""
    with open(f"/proc/{pid}/stat") as stat:
        # The name, in brackets, may contain spaces and brackets.
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def exact_cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process's threads have used.

    Unlike cpu_of(), which counts ticks and so may miss what wakes by a timer
    and soon sleeps again. Threads that have ended do not count.
    """
    total = 0
    for task in os.scandir(f"/proc/{pid}/task"):
        # One that ended meanwhile.
        with contextlib.suppress(OSError):
            with open(os.path.join(task.path, "schedstat")) as file:
                total += int(file.read().split()[0])
    return total / 1e9
