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

# How far apart two good clocks may run, in seconds a second. Quartz is good
# to 100 ppm, NTP slews at up to 500.
DRIFT = 0.0005


class BackendClock:
    """Estimates offset = backend's clock - monotonic clock, from samples.

    Each sample says that the backend's clock showed `backend` at some moment
    between `sent` and `received`; the true offset lies in what all recent
    samples have in common.
    """

    def __init__(self) -> None:
        self._low: float | None = None
        self._high = 0.0
        self._at = 0.0

    @property
    def synced(self) -> bool:
        """Whether there has been a sample."""
        return self._low is not None

    @property
    def offset(self) -> float:
        """Seconds to add to the monotonic clock to get the backend's."""
        return (self._low + self._high) / 2

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
        self._low, self._high, self._at = low, high, received

    def to_monotonic(self, backend: float) -> float:
        """Translate a moment of the backend's clock."""
        return backend - self.offset

    def from_monotonic(self, moment: float) -> float:
        """Translate a moment of the monotonic clock."""
        return moment + self.offset
