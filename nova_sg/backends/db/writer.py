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

"""Writing many reports of one process in few statements.

Each caller of a Writer waits until its own report is written. Reports that
arrive while others are being written, or soon after, are written together, on
the thread of one of the callers. The writer has no thread of its own: so none
is lost in a fork, and a single report costs next to nothing.

Gathering decides which reports are written when. It has no clock, no lock and
no thread. The function that writes comes from the user of the Writer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from nova_sg import exception

# Seconds that a report waits for others, at most.
GATHER = 0.2
# How many reports one write has at most: MariaDB takes half a millisecond for
# that many rows, and with more rows hardly less time for each.
MOST = 200
# How many writes may be under way at the same time: a second one starts if the
# first takes longer than GATHER. A database that hangs gets no more than that.
WRITES = 3


class Report:
    """What one caller wants written."""

    __slots__ = ("done", "error", "event", "key", "result", "since", "value")

    def __init__(self, key: int, value: Any, since: float) -> None:
        self.key = key
        self.value = value
        #: When it arrived.
        self.since = since
        #: Wakes its caller; None: the caller does not wait yet.
        self.event: threading.Event | None = None
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def wake(self) -> None:
        """Wake its caller, which checks what to do."""
        if self.event is not None:
            self.event.set()


class Gathering:
    """The reports that wait, and when they are to be written.

    :param pace: seconds at least from the start of one write to the start of
        the next; 0: a report that arrives while no write is under way is
        written at once
    :param enough: with this many reports a write starts regardless of pace
    """

    def __init__(self, pace: float, enough: int) -> None:
        self._pace = pace
        self._enough = enough
        self._waiting: list[Report] = []
        self._writes = 0
        self._begun = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, report: Report) -> None:
        """Add a report."""
        self._waiting.append(report)

    def discard(self, report: Report) -> None:
        """Remove a report, as its caller no longer waits."""
        if report in self._waiting:
            self._waiting.remove(report)
            self._wake_first()

    def take(self, now: float) -> list[Report]:
        """Return the reports to write now, if any: a write starts.

        Their keys are all different: a second report for the same row is
        left for another write.
        """
        if self.due() > now:
            return []
        taken: dict[int, Report] = {}
        left = []
        for report in self._waiting:
            if len(taken) < MOST and report.key not in taken:
                taken[report.key] = report
            else:
                left.append(report)
        self._waiting = left
        self._writes += 1
        self._begun = now
        self._wake_first()
        return list(taken.values())

    def finished(self) -> None:
        """Note that a write has ended."""
        self._writes -= 1
        self._wake_first()

    def due(self) -> float:
        """Return when take() will return reports; inf: not yet known."""
        if not self._waiting or self._writes >= WRITES:
            return float("inf")
        late = self._waiting[0].since + GATHER
        if self._writes:
            return late
        if len(self._waiting) >= self._enough:
            return float("-inf")
        return min(late, self._begun + self._pace)

    def is_first(self, report: Report) -> bool:
        """Whether this report's caller has to wait for due()."""
        return bool(self._waiting) and self._waiting[0] is report

    def _wake_first(self) -> None:
        if self._waiting:
            self._waiting[0].wake()


class Writer:
    """Writes the reports of many callers together.

    :param write: called with {key: value} of some reports; returns
        {key: result}. Several threads may call it at the same time
    :param patience: seconds that a caller waits while others write
    :param pace: see Gathering
    :param enough: see Gathering
    """

    def __init__(
        self,
        write: Callable[[dict[int, Any]], Mapping[int, Any]],
        patience: float,
        *,
        pace: float = 0.0,
        enough: int = MOST,
    ) -> None:
        self._write = write
        self._patience = patience
        self._gathering = Gathering(pace, enough)
        self._lock = threading.Lock()

    def put(self, key: int, value: Any = None) -> Any:
        """Write a report, with others; return once that is done.

        :param key: identifies the row
        :param value: passed to write()
        :returns: what write() returned for the row; None: nothing
        :raises BackendError: write() failed, or took too long
        """
        now = time.monotonic()
        report = Report(key, value, now)
        with self._lock:
            self._gathering.add(report)
            batch = self._gathering.take(now)
        try:
            while True:
                if batch:
                    self._write_out(batch)
                if report.done:
                    break
                batch = self._wait(report)
        except BaseException:
            with self._lock:
                self._gathering.discard(report)
            raise
        if report.error is not None:
            # A new exception for each caller, with its own traceback.
            kind = exception.BackendError
            if isinstance(report.error, exception.UnexpectedError):
                kind = exception.UnexpectedError
            text = exception.describe(report.error)
            raise kind(text) from report.error
        return report.result

    def _wait(self, report: Report) -> list[Report]:
        """Wait until there is something to do; return the reports to write."""
        give_up = report.since + self._patience
        with self._lock:
            if report.done:
                return []
            if report.event is None:
                report.event = threading.Event()
            report.event.clear()
            until = give_up
            if self._gathering.is_first(report):
                until = min(until, self._gathering.due())
        report.event.wait(max(0.0, until - time.monotonic()))
        with self._lock:
            if report.done:
                return []
            now = time.monotonic()
            # Another caller may be the first one now. Any of them may write.
            batch = self._gathering.take(now)
        if not batch and now >= give_up:
            raise exception.BackendError(
                f"no report was written within {self._patience:g} s"
            )
        return batch

    def _write_out(self, batch: list[Report]) -> None:
        results: Mapping[int, Any] = {}
        # Stays if this thread, a green one, is killed during the write.
        failure: BaseException | None = exception.BackendError(
            "the thread that wrote the report has ended"
        )
        try:
            results = self._write({r.key: r.value for r in batch})
            failure = None
        except Exception as error:
            failure = error
        finally:
            with self._lock:
                for report in batch:
                    report.result = results.get(report.key)
                    report.error = failure
                    report.done = True
                    report.wake()
                self._gathering.finished()
