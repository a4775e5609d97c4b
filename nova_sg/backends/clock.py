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

"""A backend's clock, seen from here.

Reports are stamped by the backend's clock and judged on the observer's
monotonic clock; this is the bridge. The wall clock of the observer has no
part in it, so its steps change nothing.
"""

from __future__ import annotations

import time
from typing import NamedTuple

# How far apart two good clocks may run, in seconds a second. Quartz is good
# to 100 ppm, NTP slews at up to 500.
DRIFT = 0.0005
# By so many seconds a clock may differ from another before it has leapt.
LEAP = 1.0
# Whoever sets the wall clock by less changes no verdict.
STEP = 2.0
# For so many seconds a wall clock that was set is doubted.
DOUBT = 600.0


class Clocks(NamedTuple):
    """How far this host's clocks are apart.

    It stays the same for as long as the host runs and nobody sets a clock.
    """

    #: The clock that goes on while the host is suspended - the monotonic one.
    asleep: float
    #: The wall clock - the monotonic one.
    wall: float

    @classmethod
    def read(cls) -> Clocks:
        """Read the clocks."""
        now = time.monotonic()
        return cls(
            time.clock_gettime(time.CLOCK_BOOTTIME) - now, time.time() - now
        )

    def leapt_since(self, other: Clocks) -> bool:
        """Whether a clock leapt: the host slept, or the time was set."""
        return (
            abs(self.asleep - other.asleep) > LEAP
            or abs(self.wall - other.wall) > LEAP
        )


class WallClock:
    """Tells whether the wall clock was set since this was made."""

    def __init__(self) -> None:
        self._right = self._offset()
        # When it was found to be set.
        self._set: float | None = None

    def step(self) -> float:
        """Return by how many seconds it was set forward; 0: it was not.

        After a while nobody doubts that it was set right.
        """
        # Each question about a record comes here: no call more than needed.
        step = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        step -= self._right
        if abs(step) <= STEP:
            self._set = None
            return 0.0
        now = time.monotonic()
        if self._set is None:
            self._set = now
        if now - self._set > DOUBT:
            self._right += step
            self._set = None
            return 0.0
        return step

    @staticmethod
    def _offset() -> float:
        # Both are slewed alike, and go on while the host sleeps.
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class BackendClock:
    """Estimates offset = backend's clock - monotonic clock, from samples.

    Each sample says that the backend's clock showed `backend` at some moment
    between `sent` and `received`; the true offset lies in what all recent
    samples have in common.
    """

    #: Seconds to add to the monotonic clock to get the backend's. There is
    #: no such attribute before the first sample.
    offset: float

    def __init__(self) -> None:
        self._low: float | None = None
        self._high = 0.0
        self._at = 0.0

    @property
    def synced(self) -> bool:
        """Whether there has been a sample."""
        return self._low is not None

    def sample(
        self,
        sent: float,
        received: float,
        backend: float,
        resolution: float = 0.0,
    ) -> None:
        """Take in one reading of the backend's clock.

        :param sent: monotonic moment just before the question
        :param received: monotonic moment just after the answer
        :param backend: what the backend's clock showed, in seconds
        :param resolution: what that clock leaves out: 1.0 for a clock that
            shows whole seconds
        """
        low, high = backend - received, backend + resolution - sent
        if self._low is not None:
            slack = (received - self._at) * DRIFT
            both_low = max(low, self._low - slack)
            both_high = min(high, self._high + slack)
            # Nothing in common: the backend's clock was set, or this is
            # another server. The past says nothing then.
            if both_low <= both_high:
                low, high = both_low, both_high
        # Before _low, which says that there is an offset.
        self.offset = (low + high) / 2
        self._low, self._high, self._at = low, high, received

    def to_monotonic(self, backend: float) -> float:
        """Translate a moment of the backend's clock."""
        return backend - self.offset

    def from_monotonic(self, moment: float) -> float:
        """Translate a moment of the monotonic clock."""
        return moment + self.offset
