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

"""Translation between a backend's clock and this process's monotonic clock.

Reports have times by the backend's clock and are judged on the observer's
monotonic clock. The observer's wall clock has no part in it, so a step of it
changes nothing.
"""

from __future__ import annotations

import time
from typing import NamedTuple

# Seconds a second by which two good clocks may drift apart. Quartz is good to
# 100 ppm, NTP slews at up to 500.
DRIFT = 0.0005
# Seconds; a greater change between two clocks is a leap.
LEAP = 1.0
# Seconds; a smaller step of the wall clock changes no verdict.
STEP = 2.0
# Seconds after which a wall clock that was set is trusted again.
DOUBT = 600.0


class Clocks(NamedTuple):
    """The differences between this host's clocks.

    They stay the same while the host runs and no clock is set.
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
    """Finds out whether the wall clock was set since this was made."""

    def __init__(self) -> None:
        # The offset that is trusted.
        self._right = self._offset()
        # When a step was found, monotonic.
        self._set: float | None = None

    def step(self) -> float:
        """Return the seconds by which it was set forward; 0: it was not set.

        DOUBT seconds after a step the new time is trusted.
        """
        # Called for each question about a record: as few calls as possible.
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
        # Both are slewed alike, and continue while the host is suspended.
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class BackendClock:
    """Estimates offset = backend's clock - monotonic clock, from samples.

    The backend's clock showed `backend` at some moment between `sent` and
    `received`, so each sample gives the offset a lower and an upper bound.
    The true offset lies within the bounds of all recent samples.
    """

    #: Seconds to add to the monotonic clock to get the backend's. The
    #: attribute does not exist before the first sample.
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

        :param sent: monotonic time just before the request
        :param received: monotonic time just after the answer
        :param backend: the time by the backend's clock, in seconds
        :param resolution: of that clock: 1.0 if it shows whole seconds
        """
        low, high = backend - received, backend + resolution - sent
        if self._low is not None:
            slack = (received - self._at) * DRIFT
            both_low = max(low, self._low - slack)
            both_high = min(high, self._high + slack)
            # Otherwise the backend's clock was set, or this is another
            # server: earlier samples no longer count.
            if both_low <= both_high:
                low, high = both_low, both_high
        # Before _low, by which synced knows that there is an offset.
        self.offset = (low + high) / 2
        self._low, self._high, self._at = low, high, received

    def to_monotonic(self, backend: float) -> float:
        """Translate a time of the backend's clock."""
        return backend - self.offset

    def from_monotonic(self, moment: float) -> float:
        """Translate a time of the monotonic clock."""
        return moment + self.offset
