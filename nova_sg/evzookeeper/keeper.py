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

"""The handles of a session, one after the other.

Here: Keeper, the part of ZKSession with the thread that opens, follows and
closes handles. Not here: when it tries again (reconnection.py), and to which
addresses (names.py).

A handle of the C client is replaced

- when its session has expired, or its authentication was refused: by a new
  session;
- when it has had no connection for twice the session timeout: by a handle
  that continues the session. If the servers' data were lost or restored, they
  are older than what the handle has seen. Then the servers refuse the handle,
  but not the session, which has expired if they do not know it;
- when the servers' names have other addresses by now: likewise;
- when it has no session, after each attempt: the C client has no longer pause
  than a fraction of the session timeout.

A client that paces itself does the last three on its own.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from nova_sg import zookeeper
from nova_sg.evzookeeper import listeners, names, reconnection, restorer
from nova_sg.zookeeper import addresses, sessions

LOG = logging.getLogger(__name__)

NO_IDENT = (-1, "")

# Events in the keeper's queue beside those of the C client.
RECONNECT = object()
_RESOLVED = object()

# After so many session timeouts without a connection a handle is replaced.
_HANDLE_LIFE = 2


class Keeper(listeners.Listeners):
    """The thread that keeps a handle, and what it knows."""

    # Of ZKSession.
    _condition: threading.Condition
    _closed: bool
    _closing: int | None
    _connected: bool
    _zhandle: int | None
    _session_id: int | None
    _server: str | None
    _events: queue.Queue
    _host: str
    _recv_timeout: int
    _ident: tuple[int, str]
    _auths: list[tuple[Any, Any]]
    _client: Any
    _init: Callable[..., int]
    _restorer: restorer.Restorer
    _waiting: reconnection.Reconnection

    def _lose(self) -> int | None:
        """Forget the present handle and return it; with the lock held."""
        handle, self._zhandle = self._zhandle, None
        self._session_id = None
        self._connected = False
        return handle

    # The rest runs on the keeper's thread alone.

    def _keep(self) -> None:
        events = self._events
        ident, self._ident = self._ident, NO_IDENT
        self._names = names.Names(
            self._host, lambda: events.put((_RESOLVED,)))
        self._waiting.has_session = ident != NO_IDENT
        # The addresses that the present handle has.
        self._used: addresses.Servers | None = None
        self._in_trouble = False
        # The authentication that the present handle has not had yet.
        self._unsent: list[tuple] = []
        delay = 0.0
        while not self._pause(events, delay):
            handle = self._open(events, ident)
            if handle is None:
                delay = self._waiting.pause()
                continue
            ident, delay = self._follow(events, handle, ident)
            if self._end(handle):
                break
        self._waiting.close()
        self._tell(listeners.CLOSED)

    def _end(self, handle: int) -> bool:
        """Close a handle; True: the session's close() closes it."""
        with self._condition:
            if self._zhandle is handle:
                self._lose()
            if self._closing is handle:
                return True
        try:
            self._client.close(handle)
        except zookeeper.ZooKeeperException:
            pass  # it is closed already
        return False

    def _pause(self, events: queue.Queue, delay: float) -> bool:
        """Wait; return True if the session has been closed."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._closed or events is not self._events, delay)
            return self._closed or events is not self._events

    def _open(
            self, events: queue.Queue,
            ident: tuple[int, str]) -> int | None:
        try:
            host = self._host_argument(events)
            if host is None:
                return None  # the session is being closed
            handle = self._init(
                host, zookeeper.Immediate(lambda *event: events.put(event)),
                self._recv_timeout, ident)
        except Exception as exc:
            self._warn(
                "Cannot begin a session with ZooKeeper at %s: %s. Trying "
                "again", exc)
            return None
        self._unsent = self._send_auths(handle, self._auths)
        with self._condition:
            closed = self._closed or events is not self._events
            if not closed and not self._unsent:
                self._zhandle = handle
                self._condition.notify_all()
        if closed:
            self._client.close(handle)
            return None
        return handle

    def _send_auths(
            self, handle: int, auths: list[tuple[Any, Any]]) -> list[tuple]:
        """Authenticate.

        :returns: what the C client does not take now, as it takes nothing
            between two attempts to connect.
        """
        unsent = []
        for scheme, cert in list(auths):
            try:
                self._client.add_auth(handle, scheme, cert)
            except zookeeper.ZooKeeperException:
                unsent.append((scheme, cert))
        return unsent

    def _host_argument(self, events: queue.Queue) -> str | None:
        """Return the client's host argument; None: the session is closed.

        :raises zookeeper.ZooKeeperException: no name can be resolved.
        """
        if not self._waiting.paced:
            self._waiting.begin()
            return self._host
        self._used = self._addresses(events)
        if self._used is None:
            return None
        if not self._used.servers:
            raise zookeeper.ZooKeeperException(self._names.error)
        self._waiting.begin()
        gate = self._waiting.gate
        return self._used.for_client(gate.address, gate.filler)

    def _addresses(self, events: queue.Queue) -> addresses.Servers | None:
        """Return the servers by address; None: the session is closed."""
        self._names.ask()
        while self._names.found is None:
            if events.get() is None:
                return None
        return self._names.found

    def _warn(self, message: str, *args: object) -> None:
        """Log a message on the servers, the first time in each trouble."""
        LOG.log(
            logging.DEBUG if self._in_trouble else logging.WARNING,
            message, self._host, *args)
        self._in_trouble = True

    def _follow(
            self, events: queue.Queue, handle: int,
            ident: tuple[int, str]) -> tuple[tuple[int, str], float]:
        """Handle the events of a handle until it has to be replaced.

        :returns: the session to continue, and seconds to wait before that.
        """
        # Whether this handle has been connected, and has seen data.
        seen = False
        while True:
            try:
                event = events.get(timeout=self._waiting.due())
            except queue.Empty:
                delay = self._without_connection(handle, seen)
                if delay is not None:
                    return ident, delay
                continue
            if event is None or event is RECONNECT:
                return NO_IDENT, 0.0
            if event[0] is not handle:
                continue
            state = event[2]
            LOG.debug("ZooKeeper session %d: state %d", handle, state)
            if state == zookeeper.CONNECTED_STATE:
                try:
                    ident = self._have_connected(handle)
                except zookeeper.ZooKeeperException:
                    continue  # closed meanwhile
                seen = True
                self._tell(listeners.CONNECTED)
            elif state == zookeeper.EXPIRED_SESSION_STATE:
                LOG.warning(
                    "The session with ZooKeeper at %s has expired. Making a "
                    "new one", self._host)
                self._have_lost(handle)
                self._tell(listeners.EXPIRED)
            elif state == zookeeper.AUTH_FAILED_STATE:
                self._warn(
                    "ZooKeeper at %s refused the authentication. Trying "
                    "again with a new session")
                self._have_lost(handle)
                self._tell(listeners.AUTH_FAILED)
            else:
                with self._condition:
                    was_connected, self._connected = self._connected, False
                self._waiting.lost()
                if was_connected:
                    self._tell(listeners.SUSPENDED)
            self._call_back(event)
            if state == zookeeper.EXPIRED_SESSION_STATE:
                return NO_IDENT, 0.0
            if state == zookeeper.AUTH_FAILED_STATE:
                return NO_IDENT, self._recv_timeout / 1000

    def _without_connection(self, handle: int, seen: bool) -> float | None:
        """Try again, with this handle or another one.

        :returns: None: with this one; or seconds to wait before the other.
        """
        waiting = self._waiting
        try:
            self._names.ask()
        except OSError as exc:
            LOG.debug("Cannot resolve the names in %s: %s", self._host, exc)
        old = seen and waiting.outage >= _HANDLE_LIFE * waiting.timeout
        moved = (
            self._used is not None and self._names.found is not None
            and set(self._used.servers) != set(self._names.found.servers))
        useless = not waiting.has_session and waiting.has_tried
        if old or moved or useless:
            # Not while it may be connecting to a server: the session would
            # end with the handle.
            with waiting.gate.holding() as held:
                if held:
                    sessions.find(handle).end_watches()
                    self._end(handle)
                    return 0.0 if waiting.has_session else waiting.pause()
        waiting.try_again()
        return None

    def _have_connected(self, handle: int) -> tuple[int, str]:
        """Return the session's (id, password).

        :raises zookeeper.ZooKeeperException: it has been closed meanwhile.
        """
        ident = self._client.client_id(handle)
        timeout = self._client.recv_timeout(handle)
        self._server = self._client.connected_host(handle)
        late = self._unsent
        if late:
            # Before any request of another thread.
            self._unsent = self._send_auths(handle, late)
        with self._condition:
            if self._closed or not late and self._zhandle is not handle:
                raise zookeeper.ClosingException("closed meanwhile")
            self._zhandle = handle
            self._session_id = ident[0] & (1 << 64) - 1
            self._connected = True
            self._condition.notify_all()
            self._restorer.connected()
        self._waiting.has_session = True
        self._waiting.timeout = timeout / 1000
        self._waiting.connected()
        self._in_trouble = False
        return ident

    def _have_lost(self, handle: int) -> None:
        with self._condition:
            if self._zhandle is handle:
                self._lose()
        self._waiting.has_session = False
        self._waiting.connected()  # to a server that has answered
