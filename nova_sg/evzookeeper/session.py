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

"""A ZooKeeper session that is replaced when it expires.

Here: ZKSession, which opens a session and replaces it. Not here: its calls
(calls.py), its listeners (listeners.py), how services are restored
(restorer.py), and what they restore (service.py, membership.py).

A session has two threads. The keeper opens and closes handles and calls the
listeners; it never waits for an answer of a server. The restorer starts with
the first service, and may wait for answers.
"""

import logging
import os
import queue
import threading
from collections.abc import Iterable
from typing import Any

from nova_sg import threads, zookeeper
from nova_sg.evzookeeper import calls, listeners, restorer
from nova_sg.evzookeeper.deadlines import after, remaining

LOG = logging.getLogger(__name__)

# Seconds until making a handle is tried again, when no server's name could be
# resolved.
RETRY_INTERVAL = 1.0

_NO_IDENT = (-1, "")
_RECONNECT = object()


class ZKSession(listeners.Listeners, calls.Calls):
    """A session; after it has expired, the next session.

    Calls wait for the answer for at most `timeout` seconds. Without that
    argument the session's operation_timeout applies, and without that they
    wait as long as it takes.

    A call that is under way when the connection breaks raises
    ConnectionLossException, and may have been executed. A call that is made
    while no server is connected raises it when the next attempt to connect
    fails: use wait_connected() to wait longer. A call that is under way when
    the session expires raises SessionExpiredException, InvalidStateException
    or ClosingException.
    """

    def __init__(
            self, host: str, timeout: float | None = None,
            recv_timeout: int = 10000,
            ident: tuple[int, str] = _NO_IDENT, zklog_fd: Any = None,
            init_cbs: Iterable[Any] | None = None, *,
            operation_timeout: float | None = None,
            ssl_cert: str | None = None,
            auths: Iterable[tuple[str, Any]] = (),
            client: Any = zookeeper) -> None:
        """Begin a session.

        :param host: host:port pairs with commas between them, and possibly
            a chroot path after the last.
        :param timeout: seconds to wait for the connection. None: do not
            wait, and keep trying in the background.
        :param recv_timeout: the session timeout to ask for, in ms.
        :param ident: client_id() of an earlier session, to continue it.
        :param zklog_fd: a file for the C client's log. None: Python's
            logging, under nova_sg.zookeeper.
        :param init_cbs: callbacks for add_connection_callback().
        :param operation_timeout: the timeout of calls that are given none,
            in seconds.
        :param auths: pairs of (scheme, certificate) to authenticate with,
            from the first request on; see add_auth().
        :param ssl_cert: use TLS, with the files that zookeeper.init_ssl
            takes.
        :param client: the module nova_sg.zookeeper, or another transport: a
            nova_sg.kazoo_transport.KazooTransport.
        :raises zookeeper.OperationTimeoutException: when there is no
            connection after `timeout`; the session is then closed.
        :raises zookeeper.TLSNotSupported: with ssl_cert, when the C library
            has no TLS.
        """
        super().__init__(init_cbs or ())
        self._client = client
        self._init = client.init
        if ssl_cert is not None:
            init_ssl = zookeeper.init_ssl
            self._init = lambda host, *args: init_ssl(host, ssl_cert, *args)
        if zklog_fd is not None:
            zookeeper.set_log_stream(zklog_fd)
        self._host = host
        self._recv_timeout = recv_timeout
        self._ident = ident
        self._operation_timeout = operation_timeout
        self._auths: list[tuple[Any, Any]] = list(auths)

        # Guards the attributes below; held for moments only.
        self._condition = threading.Condition()
        self._zhandle: int | None = None
        self._session_id: int | None = None
        self._connected = False
        # The handle that close() closes; the keeper closes all others.
        self._closing: int | None = None
        self._closed = True
        self._events: queue.Queue = queue.Queue()
        self._keeper: threading.Thread | None = None
        self._begin()
        if timeout is not None and not self.wait_connected(timeout):
            self.close()
            raise zookeeper.OperationTimeoutException(
                f"not connected to {host} within {timeout} s")

    def __enter__(self) -> "ZKSession":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The session.

    def connect(self, timeout: float | None = None) -> None:
        """Replace the present session by a new one.

        This is possible after close(), too, but without its services.

        :param timeout: seconds to wait for the connection; None: do not wait.
        :raises zookeeper.OperationTimeoutException: when there is none by
            then. The session keeps trying.
        """
        with self._condition:
            again = not self._closed
            self._lose()
        if again:
            self._events.put(_RECONNECT)
        else:
            self._begin()
        if timeout is not None and not self.wait_connected(timeout):
            raise zookeeper.OperationTimeoutException(
                f"not connected to {self._host} within {timeout} s")

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until a server is connected; False: it took too long."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._connected or self._closed,
                timeout) and self._connected

    def close(self, quiet: bool = True, timeout: float | None = None) -> None:
        """End the session and its threads, and close its services.

        If a server is connected, it is told, and deletes the ephemeral znodes
        at once.

        :param quiet: log errors instead of raising them.
        :param timeout: seconds that it may take at most.
        :raises zookeeper.ZooKeeperException: unless quiet.
        """
        deadline = after(timeout)
        if os.getpid() != self._pid:
            # In the child of a fork there are no threads and no session.
            return
        with self._condition:
            if self._closed:
                return
            self._closed = True
            handle = self._closing = self._lose()
            services = self._restorer.close()
            self._condition.notify_all()
        self._events.put(None)
        for service in services:
            service.close()
        try:
            if handle is not None:
                self._client.close(handle, timeout=remaining(deadline))
        except zookeeper.ZooKeeperException:
            if not quiet:
                raise
            LOG.warning(
                "Could not close the session with ZooKeeper at %s cleanly",
                self._host, exc_info=True)
        finally:
            ending = [self._keeper, self._restorer.thread]
            ending += [service.thread for service in services]
            for thread in ending:
                if (thread is not None
                        and thread is not threading.current_thread()):
                    threads.join(thread, remaining(deadline))

    def is_closed(self) -> bool:
        """Whether close() has been called."""
        return self._closed

    def is_connected(self) -> bool:
        return self._connected and os.getpid() == self._pid

    @property
    def session_id(self) -> int | None:
        """The session's id, as in ephemeralOwner; None: it has none now."""
        return self._session_id

    @property
    def client(self) -> Any:
        """The module nova_sg.zookeeper, or another transport."""
        return self._client

    @property
    def operation_timeout(self) -> float | None:
        """The timeout of calls that are given none, in seconds."""
        return self._operation_timeout

    @property
    def recv_timeout(self) -> int:
        """The session timeout that it asks for, in ms."""
        return self._recv_timeout

    def client_id(self) -> tuple[int, str]:
        """The present session's (id, password), for `ident`."""
        return self._client.client_id(self._handle(0))

    def state(self) -> int:
        """One of zookeeper's *_STATE constants."""
        with self._condition:
            handle = self._zhandle
        if handle is None:
            return zookeeper.NOTCONNECTED_STATE
        return self._client.state(handle)

    def problem(self) -> str | None:
        """Why the last attempt to connect failed, where the client says."""
        with self._condition:
            handle = self._zhandle
        if handle is None or not hasattr(self._client, "problem"):
            return None
        try:
            return self._client.problem(handle)
        except zookeeper.ZooKeeperException:
            return None  # closed meanwhile

    def add_auth(
            self, scheme: str, cert: Any,
            timeout: float | None = None) -> None:
        """Authenticate this session, and the sessions that replace it.

        :raises zookeeper.AuthFailedException: when the server refuses.
        """
        def send(handle: int, done: Any) -> None:
            self._client.add_auth(handle, scheme, cert, done)
            self._auths.append((scheme, cert))

        code = self._answer(timeout, "the authentication", send)
        if code != zookeeper.OK:
            self._auths.remove((scheme, cert))
            self._check(code)

    # For services.

    def add_service(self, service: Any) -> None:
        """Call service.restore() whenever a server is connected.

        Services are restored in the order of add_service(), on the session's
        restorer thread, where they may wait for answers. An exception is
        logged, and restore() is called again.
        """
        with self._condition:
            self._check_open()
            self._restorer.add(service)

    def remove_service(self, service: Any) -> None:
        with self._condition:
            self._restorer.remove(service)

    def restore_soon(self, service: Any) -> None:
        """Call service.restore() as soon as possible."""
        with self._condition:
            self._restorer.soon(service)

    def connected_handle(
            self, timeout: float | None = None) -> tuple[int, int]:
        """The handle and the id of the connected session.

        For calls that must not be made in another session. If the session is
        replaced meanwhile, calls with this handle raise an exception.

        :raises zookeeper.OperationTimeoutException: when no session is
            connected in time.
        """
        self._check_process()
        with self._condition:
            self._condition.wait_for(
                lambda: self._closed or self._connected, timeout)
            self._check_open()
            if not self._connected:
                raise zookeeper.OperationTimeoutException(
                    f"not connected to {self._host}")
            assert self._zhandle is not None and self._session_id is not None
            return self._zhandle, self._session_id

    # Inside.

    def _found_invalid(self, handle: int) -> None:
        # A call that is repeated fails again without any wait. If
        # wait_connected() then returned True at once, the keeper would get
        # no turn under eventlet, and never learn of the expiry.
        with self._condition:
            if self._zhandle is handle:
                self._connected = False

    def _handle(self, timeout: float | None) -> int:
        """The present handle, connected or not."""
        self._check_process()
        with self._condition:
            self._condition.wait_for(
                lambda: self._closed or self._zhandle is not None, timeout)
            self._check_open()
            if self._zhandle is None:
                raise zookeeper.OperationTimeoutException(
                    f"no session with {self._host} yet")
            return self._zhandle

    def _check_process(self) -> None:
        # Before taking any lock: in the child of a fork a lock may stay held
        # for ever, as the child does not have the thread that held it.
        if os.getpid() != self._pid:
            raise zookeeper.ZooKeeperException(
                "the ZooKeeper session belongs to the parent process")

    def _check_open(self) -> None:
        if self._closed:
            raise zookeeper.ClosingException("the ZooKeeper session is closed")

    def _lose(self) -> int | None:
        """Forget the present handle and return it; with the lock held."""
        handle, self._zhandle = self._zhandle, None
        self._session_id = None
        self._connected = False
        return handle

    def _begin(self) -> None:
        with self._condition:
            self._closed = False
            self._pid = os.getpid()
            self._restorer = restorer.Restorer(
                self._condition, lambda: self._connected)
            self._events = queue.Queue()
        self._keeper = threading.Thread(
            target=self._keep, name="nova_sg.evzookeeper keeper", daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        events = self._events
        ident, self._ident = self._ident, _NO_IDENT
        delay = 0.0
        while not self._pause(events, delay):
            handle = self._open(events, ident)
            if handle is None:
                delay = RETRY_INTERVAL
                continue
            ident = _NO_IDENT
            delay = self._follow(events, handle)
            with self._condition:
                if self._zhandle is handle:
                    self._lose()
                if self._closing is handle:
                    break
            try:
                self._client.close(handle)
            except zookeeper.ZooKeeperException:
                pass  # already closed at the exit of Python
        self._tell(listeners.CLOSED)

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
            handle = self._init(
                self._host, zookeeper.Immediate(
                    lambda *event: events.put(event)),
                self._recv_timeout, ident)
        except zookeeper.LibraryNotFound:
            LOG.exception(
                "Cannot begin a session with ZooKeeper at %s", self._host)
            return None
        except Exception as exc:
            LOG.warning(
                "Cannot begin a session with ZooKeeper at %s: %s. Trying "
                "again", self._host, exc)
            return None
        with self._condition:
            closed = self._closed or events is not self._events
            if not closed:
                self._zhandle = handle
                self._condition.notify_all()
        if closed:
            self._client.close(handle)
            return None
        for scheme, cert in list(self._auths):
            try:
                self._client.add_auth(handle, scheme, cert)
            except zookeeper.ZooKeeperException:
                LOG.exception(
                    "Could not send the authentication to ZooKeeper at %s",
                    self._host)
        return handle

    def _follow(self, events: queue.Queue, handle: int) -> float:
        """Handle the events of a session until it ends.

        :returns: seconds to wait before the next session.
        """
        while True:
            event = events.get()
            if event is None or event is _RECONNECT:
                return 0.0
            if event[0] is not handle:
                continue
            state = event[2]
            LOG.debug("ZooKeeper session %d: state %d", handle, state)
            if state == zookeeper.CONNECTED_STATE:
                if not self._have_connected(handle):
                    continue
                self._tell(listeners.CONNECTED)
            elif state == zookeeper.EXPIRED_SESSION_STATE:
                LOG.warning(
                    "The session with ZooKeeper at %s has expired. Making a "
                    "new one", self._host)
                self._have_lost(handle)
                self._tell(listeners.EXPIRED)
            elif state == zookeeper.AUTH_FAILED_STATE:
                LOG.error(
                    "ZooKeeper at %s refused the authentication. Trying "
                    "again with a new session", self._host)
                self._have_lost(handle)
                self._tell(listeners.AUTH_FAILED)
            else:
                with self._condition:
                    was_connected, self._connected = self._connected, False
                if was_connected:
                    self._tell(listeners.SUSPENDED)
            self._call_back(event)
            if state == zookeeper.EXPIRED_SESSION_STATE:
                return 0.0
            if state == zookeeper.AUTH_FAILED_STATE:
                return self._recv_timeout / 1000

    def _have_connected(self, handle: int) -> bool:
        try:
            session_id = self._client.client_id(handle)[0] & (1 << 64) - 1
        except zookeeper.ZooKeeperException:
            return False  # closed meanwhile
        with self._condition:
            if self._zhandle is not handle:
                return False
            self._session_id = session_id
            self._connected = True
            self._condition.notify_all()
            self._restorer.connected()
        return True

    def _have_lost(self, handle: int) -> None:
        with self._condition:
            if self._zhandle is handle:
                self._lose()
