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

Here: ZKSession, its beginning and its end. Not here: its handles (keeper.py),
its calls (calls.py), its listeners (listeners.py), how services are restored
(restorer.py), and what they restore (service.py, membership.py).

A session has two threads. The keeper opens and closes handles and calls the
listeners; it never waits for an answer of a server. The restorer starts with
the first service, and may wait for answers.
"""

import atexit
import functools
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from nova_sg import threads, zookeeper
from nova_sg.evzookeeper import calls, keeper, reconnection, restorer
from nova_sg.evzookeeper.deadlines import after, remaining

LOG = logging.getLogger(__name__)

_sessions: "weakref.WeakSet[ZKSession]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    # Python calls this before nova_sg.zookeeper closes the handles. Threads
    # must not report that as trouble.
    for session in list(_sessions):
        session._closed = True


class ZKSession(keeper.Keeper, calls.Calls):
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
            ident: tuple[int, str] = keeper.NO_IDENT, zklog_fd: Any = None,
            init_cbs: Iterable[Any] | None = None, *,
            operation_timeout: float | None = None,
            ssl_cert: str | None = None,
            auths: Iterable[tuple[str, Any]] = (),
            client: Any = zookeeper,
            listeners: Iterable[Callable[[str], object]] = ()) -> None:
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
        :param listeners: as for add_listener(), which may come too late for
            the first event.
        :raises zookeeper.OperationTimeoutException: when there is no
            connection after `timeout`; the session is then closed.
        :raises zookeeper.TLSNotSupported: with ssl_cert, when the C library
            has no TLS.
        """
        super().__init__(init_cbs or (), listeners)
        self._client = client
        self._init = client.init
        if client is zookeeper:
            self._init = functools.partial(zookeeper.init, in_order=True)
        if ssl_cert is not None:
            init_ssl = zookeeper.init_ssl
            self._init = lambda host, *args: init_ssl(
                host, ssl_cert, *args, in_order=True)
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
        self._server: str | None = None
        self._connected = False
        # The handle that close() closes; the keeper closes all others.
        self._closing: int | None = None
        self._closed = True
        self._events: queue.Queue = queue.Queue()
        self._keeper: threading.Thread | None = None
        _sessions.add(self)
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
            self._events.put(keeper.RECONNECT)
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

    @property
    def server(self) -> str | None:
        """The address and the port of the server that is connected, or was.

        None: the client does not say.
        """
        return self._server

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

    def _begin(self) -> None:
        try:
            waiting = reconnection.Reconnection(
                self._recv_timeout,
                paced=not getattr(self._client, "paces_itself", False))
        except OSError as exc:
            raise zookeeper.SystemErrorException(
                f"no port on the loopback interface: {exc}") from exc
        with self._condition:
            self._waiting = waiting
            self._closed = False
            self._pid = os.getpid()
            self._restorer = restorer.Restorer(
                self._condition, lambda: self._connected)
            self._events = queue.Queue()
        self._keeper = threading.Thread(
            target=self._keep, name="nova_sg.evzookeeper keeper", daemon=True)
        self._keeper.start()
