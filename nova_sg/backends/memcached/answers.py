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

"""The answers of several memcached servers to one caller.

Of those that were sent their commands by begin() each is read as it arrives;
the threads of the others execute theirs meanwhile.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nova_sg.backends.memcached import channel
from nova_sg.backends.memcached.protocol import Command
from nova_sg.backends.memcached.servers import RemoteServer

# Seconds for which a green thread waits for one server before it looks whether
# another one has answered.
PATIENCE = 0.02


class Answers:
    """The results of several servers; one caller waits for them."""

    def __init__(self) -> None:
        #: None: it has not answered.
        self._found: dict[RemoteServer, Any] = {}
        self._waits = True
        # Taken by the caller, and released when a server has answered.
        self._arrived = threading.Lock()

    def expect(self, server: RemoteServer, commands: list[Command]) -> None:
        """Have the server's thread execute commands."""
        self._found[server] = None
        server.submit_all(
            commands,
            lambda: self._waits,
            lambda result: self._add(server, result),
        )

    def wait(self, timeout: float) -> dict[RemoteServer, Any]:
        """Wait for all servers.

        :param timeout: seconds; what was not begun by then is not executed
        :returns: the results of each server in a list, or a BackendError;
            None: it has not answered
        """
        deadline = time.monotonic() + timeout
        while None in self._found.values():
            left = deadline - time.monotonic()
            if left <= 0 or not self._arrived.acquire(timeout=left):
                break
        self._waits = False
        return dict(self._found)

    def _add(self, server: RemoteServer, result: Any) -> None:
        self._found[server] = result
        channel.release(self._arrived)


def as_answered(
    begun: Sequence[RemoteServer], timeout: float
) -> Iterator[RemoteServer]:
    """Yield servers in the order in which they answer.

    :param begun: servers after begin()
    :param timeout: seconds after which the others are yielded; finish() fails
        then
    """
    waiting = list(begun)
    deadline = time.monotonic() + timeout
    while len(waiting) > 1:
        left = deadline - time.monotonic()
        if left <= 0:
            for server in waiting:
                server.give_up()
            break
        for server in _answered(waiting, left):
            waiting.remove(server)
            yield server
    yield from waiting


def _answered(
    waiting: Sequence[RemoteServer], timeout: float
) -> Iterable[RemoteServer]:
    """Wait for a while; return servers of which something has arrived."""
    make = getattr(select, "poll", None)
    if make is None:
        # In a green process. There select() of several connections may wake
        # its caller once more, later and anywhere (eventlet 0.41).
        return [one for one in waiting if one.has_answered(PATIENCE)]
    poll = make()
    by_number = {}
    for server in waiting:
        by_number[server.fileno()] = server
        poll.register(server, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(timeout * 1000)]
