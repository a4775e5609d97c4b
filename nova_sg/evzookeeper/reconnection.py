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

"""When a session without a connection tries to connect again.

Here: Reconnection, which decides for one session. Not here: the handles and
the events (keeper.py), and how the C client is made to wait (gate.py).

The pauses become longer, and are random, so that the clients of an ensemble
that comes back do not all connect at the same moment. While there is a session
they are at most half of its timeout: when the ensemble comes back, its
sessions have their whole timeout again, and none is lost. Without a session
nothing can be lost, and the pauses may become longer.
"""

import random
import time

from nova_sg.evzookeeper import gate

# Seconds: the first pause, and the longest one without a session.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0


class Reconnection:
    """Counts the attempts of one session, over all its handles."""

    def __init__(self, recv_timeout: int, paced: bool = True) -> None:
        """
        :param recv_timeout: the session timeout that is asked for, in ms.
        :param paced: False: the client has pauses of its own.
        :raises OSError: no port can be had on the loopback interface.
        """
        #: The session timeout, in seconds.
        self.timeout = recv_timeout / 1000
        #: Whether there is a session that can be continued.
        self.has_session = False
        self._attempts = 0
        self._is_new = True
        self._lost_at: float | None = None
        self._next = 0.0
        self.paced = paced
        #: Where the C client waits.
        self.gate = gate.Gate() if paced else gate.NoGate()

    def begin(self) -> None:
        """A new handle begins to connect."""
        self._lost_at = time.monotonic()
        self._is_new = True
        if self._attempts:
            # It may come to the gate before it has tried any server.
            self.gate.let_through()
        else:
            self.gate.open()
        self._next = self._lost_at + _random(FIRST_PAUSE)

    def lost(self) -> None:
        """There is no connection any more."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            self._next = self._lost_at + self.pause()

    def connected(self) -> None:
        """A server has answered."""
        self._lost_at = None
        self._attempts = 0
        self.gate.open()

    def due(self) -> float | None:
        """Seconds until try_again() is to be called; None: never."""
        if self._lost_at is None or not self.paced:
            return None
        return max(0.0, self._next - time.monotonic())

    def pause(self) -> float:
        """Return the seconds until the next attempt, which it counts."""
        longest = self.timeout / 2 if self.has_session else LONGEST_PAUSE
        # After hours the power would be too large.
        pause = FIRST_PAUSE * 2 ** min(self._attempts, 20)
        self._attempts += 1
        return _random(min(pause, longest))

    def try_again(self) -> None:
        """Let the C client try all servers, once."""
        if self.has_session:
            pause = self.pause()
        else:
            # The handle is closed as soon as it has tried all servers.
            pause = _random(FIRST_PAUSE)
        self._next = time.monotonic() + pause
        if self.has_session or self._is_new:
            self.gate.let_through()
        self._is_new = False

    @property
    def has_tried(self) -> bool:
        """Whether the present handle may have tried all servers."""
        return not self._is_new

    @property
    def outage(self) -> float:
        """For how many seconds there has been no connection."""
        if self._lost_at is None:
            return 0.0
        return time.monotonic() - self._lost_at

    def close(self) -> None:
        self.gate.close()


def _random(seconds: float) -> float:
    """Return half of it to all of it."""
    return seconds * random.uniform(0.5, 1)
