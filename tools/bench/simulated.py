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

"""What judging a group costs an observer, without any server.

Its members report every ten seconds, and it looks every two: so a fifth of
them has a new report at each look. It shows what more members than one machine
can simulate would cost an observer, beyond reading them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import measure, rows
from nova_sg.liveness import detector, group, model

SIZES = (10_000, 30_000, 100_000)
_INTERVAL, _LOOK = 10.0, 2.0
_LIMITS = model.Limits(60.0, _INTERVAL)
# For how many looks the CPU is measured.
_LOOKS = 20


def measured(size: int) -> Iterator[rows.Row]:
    """Measure a group of one size."""
    kept: list[_Observer] = []

    def make() -> list[_Observer]:
        kept[:] = [_Observer(size)]
        return kept

    used, _ = measure.memory(make)
    yield _row("memory of a simulated observer", size, used / 1e6, "MB")
    [observer] = kept
    # Not while memory is traced.
    cpu = sum(observer.look() for _ in range(_LOOKS))
    yield _row("a simulated look: CPU", size, 1e3 * cpu / _LOOKS, "ms")


def _row(name: str, size: int, figure: float, unit: str) -> rows.Row:
    return rows.Row(
        name=f"{name}, of {size:,}",
        contender="nova_sg",
        figure=figure,
        unit=unit,
        backend="no server",
        mode="threads",
    )


class _Observer:
    """The group as an observer knows it."""

    def __init__(self, size: int) -> None:
        self._now = 1000.0
        self._looks = 0
        self._observed = {
            number: self._report(f"node-{number:06}.example.org", 0)
            for number in range(size)
        }
        self._mark = object()
        self._group = group.new("simulated")
        everything = list(self._observed.values())
        self._take(model.Changes(None, self._mark, everything, []))

    def _report(self, host: str, number: int) -> model.Observation:
        return model.Observation(host, number, self._now)

    def look(self) -> float:
        """Take in the reports of two seconds; return the seconds of CPU."""
        self._now += _LOOK
        self._looks += 1
        turns = int(_INTERVAL / _LOOK)
        new = {
            number: self._report(one.host, one.report_number + 1)
            for number, one in self._observed.items()
            if number % turns == self._looks % turns
        }
        self._observed.update(new)
        before, self._mark = self._mark, object()
        return self._take(
            model.Changes(before, self._mark, list(new.values()), [])
        )

    def _take(self, changes: model.Changes) -> float:
        refresh = model.Refresh(
            "simulated",
            self._now,
            list(self._observed.values()),
            exact=True,
            changes=changes,
        )
        begun = time.process_time()
        self._group, changed = detector.step(self._group, refresh, _LIMITS)
        took = time.process_time() - begun
        down = [one for one in changed if one.now and one.now.state != "up"]
        if down:
            raise AssertionError(f"{len(down)} members that report are down")
        return took
