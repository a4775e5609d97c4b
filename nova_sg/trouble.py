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

"""Logging trouble once when it begins and once when it ends."""

from __future__ import annotations

import time

# At most MOST beginnings are logged within WITHIN seconds. Trouble that comes
# and goes, as when every other connection works, must not flood the log.
MOST = 3
WITHIN = 60.0


class TroubleLog:
    """Decides when one kind of trouble is logged.

    :param told: whether its beginning has been logged already
    """

    # A process may have many.
    __slots__ = ("_begun", "_told")

    def __init__(self, told: bool = False) -> None:
        self._told = told
        # The last MOST times at which a beginning was logged, monotonic.
        self._begun: tuple[float, ...] = ()

    def begins(self) -> bool:
        """Note a failure; return whether to log that trouble has begun.

        A beginning that is not logged now is logged at a later failure.
        """
        now = time.monotonic()
        if self._told or (
            len(self._begun) == MOST and now - self._begun[0] < WITHIN
        ):
            return False
        self._told = True
        self._begun = (*self._begun, now)[-MOST:]
        return True

    def ends(self) -> bool:
        """Note a success; return whether to log that the trouble has ended."""
        told, self._told = self._told, False
        return told
