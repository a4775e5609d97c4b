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

"""Where the C client waits between two attempts to connect.

Here: Gate, one more "server" of a session. Not here: for how long the C
client waits (reconnection.py).

While no server accepts its session, the C client tries all servers, waits for
a sixtieth of the session timeout, and tries them again. Its API has no way to
slow it down. So its list of servers has one more entry, a port of this
process. While the gate is shut, a connection to it is made by the kernel and
never answered: there the C client waits after it has tried all servers. While
the gate is open, the port refuses connections, and the C client goes on to
the next server at once.

If Python stands still while the gate is shut, the C client goes on by itself
after two thirds of the session timeout.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_LOOPBACK = "127.0.0.1"
_ATTEMPTS = 10


class Gate:
    """A port that only the C client of one session connects to.

    :ivar address: host:port
    :ivar filler: host:port of another port, which always refuses.
    :raises OSError: there is no such port.
    """

    def __init__(self) -> None:
        self._socket = _bound()
        try:
            self._filler = _bound()
        except OSError:
            self._socket.close()
            raise
        # accept() never waits, neither for eventlet's hub.
        self._socket.setblocking(False)
        self.address, self.filler = map(
            _address, (self._socket, self._filler))
        self._is_shut = False

    def shut(self) -> None:
        """Have the C client wait when it comes here."""
        if not self._is_shut:
            self._socket.listen()
            self._is_shut = True

    def open(self) -> None:
        """Let it through, now and when it comes again."""
        if self._is_shut:
            # Not close(): another process could take the port. A port that
            # was chosen by bind() is kept.
            self._socket.shutdown(socket.SHUT_RDWR)
            self._is_shut = False

    def let_through(self) -> None:
        """Let it through, once."""
        self.open()
        self.shut()

    @contextmanager
    def holding(self) -> Iterator[bool]:
        """Keep the C client here, if it waits here.

        :returns: whether it does.
        """
        try:
            link, _ = self._socket.accept()
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            link.close()

    def close(self) -> None:
        self._socket.close()
        self._filler.close()


class NoGate(Gate):
    """For a client that has pauses of its own."""

    def __init__(self) -> None:
        self.address = self.filler = ""
        # So that it is never opened.
        self._is_shut = False

    def shut(self) -> None:
        pass

    def close(self) -> None:
        pass


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()
    return f"{host}:{port}"


def _bound() -> socket.socket:
    """Return a socket with a free port, chosen by bind().

    A port that the kernel chooses is free again after shutdown().
    """
    error: OSError | None = None
    for _ in range(_ATTEMPTS):
        with socket.socket() as probe:
            probe.bind((_LOOPBACK, 0))
            address = probe.getsockname()
        found = socket.socket()
        try:
            found.bind(address)
            return found
        except OSError as exc:
            found.close()
            error = exc
            if exc.errno != errno.EADDRINUSE:
                break
    assert error is not None
    raise error
