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

"""When a lock in the backend may be relied upon. No I/O, no clock here.

The rules are those of nova_sg.backends.base.Driver.acquire(). They depend on
no clock but this process's monotonic one.
"""

from __future__ import annotations

from nova_sg.backends.base import Lock


class Lease:
    """A lock, as one process may rely on it.

    :param holder: what the backend shows if this process holds it
    :param seconds: for how long a renewal counts
    """

    def __init__(self, holder: str, seconds: float) -> None:
        self.holder = holder
        self.seconds = seconds
        #: The other process that holds it; empty: none is known.
        self.other = ""
        # From when, and until when, this process may rely on it.
        self._since = float("inf")
        self._until = float("-inf")

    def answered(self, lock: Lock, sent: float, now: float) -> None:
        """Take in an answer to Driver.acquire().

        :param sent: when it was called
        :param now: when it returned
        """
        if lock.holder != self.holder:
            self.other = lock.holder
            self._since, self._until = float("inf"), float("-inf")
            return
        self.other = ""
        if not lock.renewed or sent > self._until:
            # The holder before may rely on it for as long.
            self._since = now if lock.clean else now + self.seconds
        self._until = sent + self.seconds

    def covers(self, now: float, needed: float) -> bool:
        """Whether it may be relied upon from now on, for needed seconds."""
        return self._since <= now and now + needed <= self._until

    def waits(self, now: float) -> float:
        """Return for how many seconds it is held and not relied upon."""
        if now > self._until:
            return 0.0
        return max(0.0, self._since - now)
