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

"""A ZooKeeper session that is there for as long as it is wanted.

Here: ZKSession, which opens a session, replaces it when it expires, tells
who wants to know, and has services restored in their order. Not here: what
a service restores (service.py, membership.py).

A session has two threads. The keeper opens and closes handles and tells the
listeners what happens; it waits for no answer of a server. The restorer,
which starts with the first service, may wait.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from nova_sg import threads, zookeeper

LOG = logging.getLogger(__name__)

ZOO_OPEN_ACL_UNSAFE = {
    "perms": zookeeper.PERM_ALL, "scheme": "world", "id": "anyone"}

#: What a listener is told.
#: The session is usable: for the first time, again, or a new one.
CONNECTED = "connected"
#: No server is connected; the session may live on or not.
SUSPENDED = "suspended"
#: The session is lost, its ephemeral znodes are gone; a new one is made.
EXPIRED = "expired"
#: The server refused the authentication; a new session is tried later.
AUTH_FAILED = "auth_failed"
#: close() was called.
CLOSED = "closed"

# Seconds until what failed is tried again: making a handle where the name
# of no server resolves, restoring a service.
RETRY_INTERVAL = 1.0

_NO_IDENT = (-1, "")
_RECONNECT = object()


class ZKSession:
    """A session, or after an expiry the next one, under one name.

    Calls wait for the answer, for at most their `timeout` seconds. Without
    that argument the session's operation_timeout holds, and without that
    they wait for as long as it takes.

    A call that is under way when the connection breaks raises
    ConnectionLossException, and may have been carried out. So does one made
    while no server is connected, when the next attempt to connect fails:
    use wait_connected() to wait longer. One under way when the session
    expires raises SessionExpiredException, InvalidStateException or
    ClosingException.
    """

    def __init__(
            self, host: str, timeout: float | None = None,
            recv_timeout: int = 10000,
            ident: tuple[int, str] = _NO_IDENT, zklog_fd: Any = None,
            init_cbs: Iterable[Any] | None = None, *,
            operation_timeout: float | None = None,
            ssl_cert: str | None = None,
            auths: Iterable[tuple[str, Any]] = ()) -> None:
        """Begin a session.

        :param host: host:port pairs with commas between them, and possibly
            a chroot path after the last.
        :param timeout: seconds to wait for the connection. None: do not
            wait, and go on trying for as long as it takes.
        :param recv_timeout: the session timeout to ask for, in ms.
        :param ident: client_id() of an earlier session to continue with.
        :param zklog_fd: a file for the C client's log. None: Python's
            logging, under nova_sg.zookeeper.
        :param init_cbs: callbacks for add_connection_callback().
        :param operation_timeout: the timeout of calls that are given none,
            in seconds.
        :param auths: (scheme, certificate) to authenticate with, from the
            first request on; see add_auth().
        :param ssl_cert: use TLS, with the files that zookeeper.init_ssl
            takes.
        :raises zookeeper.OperationTimeoutException: when `timeout` is over;
            the session is then closed.
        :raises zookeeper.TLSNotSupported: with ssl_cert, when the C library
            has no TLS.
        """
        self._init = zookeeper.init
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
        self._listeners: list[Callable[[str], object]] = []
        self._connection_callbacks = list(init_cbs or ())

        # Guards what follows; held for moments only.
        self._condition = threading.Condition()
        self._zhandle: int | None = None
        self._session_id: int | None = None
        self._connected = False
        self._connections = 0
        # The handle that close() closes; all others the keeper does.
        self._closing: int | None = None
        self._closed = True
        # Services in the order in which they came, and those of them that
        # are to be restored, in the same order.
        self._services: dict[Any, None] = {}
        self._due: dict[Any, None] = {}

        self._events: queue.Queue = queue.Queue()
        self._keeper: threading.Thread | None = None
        self._restorer: threading.Thread | None = None
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
        """Have a new session in place of the present one.

        Also after close(), except that services are not there any more.

        :param timeout: seconds to wait for the connection; None: do not.
        :raises zookeeper.OperationTimeoutException: when they are over. The
            session goes on trying.
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
        """Wait until a server is connected; False when it took too long."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._connected or self._closed,
                timeout) and self._connected

    def close(self, quiet: bool = True, timeout: float | None = None) -> None:
        """End the session and its threads. Services are closed, too.

        Where a server is connected, it is told, and the ephemeral znodes
        go at once.

        :param quiet: log what goes wrong instead of raising it.
        :param timeout: seconds that it may take at most.
        :raises zookeeper.ZooKeeperException: unless quiet.
        """
        deadline = _deadline(timeout)
        if os.getpid() != self._pid:
            # The child of a fork has neither threads to end nor a session.
            return
        with self._condition:
            if self._closed:
                return
            self._closed = True
            handle = self._closing = self._lose()
            services = list(self._services)
            self._services.clear()
            self._due.clear()
            self._condition.notify_all()
        self._events.put(None)
        for service in services:
            service.close()
        try:
            if handle is not None:
                zookeeper.close(handle, timeout=_remaining(deadline))
        except zookeeper.ZooKeeperException:
            if not quiet:
                raise
            LOG.warning("ZooKeeper session not closed", exc_info=True)
        finally:
            ending = [self._keeper, self._restorer]
            ending += [service.thread for service in services]
            for thread in ending:
                if thread not in (None, threading.current_thread()):
                    threads.join(thread, _remaining(deadline))

    def is_connected(self) -> bool:
        return self._connected and os.getpid() == self._pid

    @property
    def session_id(self) -> int | None:
        """The session's id, as ephemeralOwner has it; None: has none now."""
        return self._session_id

    @property
    def operation_timeout(self) -> float | None:
        """The timeout of calls that are given none, in seconds."""
        return self._operation_timeout

    @property
    def recv_timeout(self) -> int:
        """The session timeout that is asked for, in ms."""
        return self._recv_timeout

    def client_id(self) -> tuple[int, str]:
        """The present session's (id, password), for `ident`."""
        return zookeeper.client_id(self._handle(0))

    def state(self) -> int:
        """One of zookeeper's *_STATE constants."""
        with self._condition:
            handle = self._zhandle
        if handle is None:
            return zookeeper.NOTCONNECTED_STATE
        return zookeeper.state(handle)

    def add_listener(self, listener: Callable[[str], object]) -> None:
        """Have listener(event) called with CONNECTED, SUSPENDED, EXPIRED,
        AUTH_FAILED and CLOSED, each when it happens and in that order.

        It is called on the session's keeper and must not block: no call of
        the session, which can wait for what only the keeper can bring.
        """
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[str], object]) -> None:
        self._listeners.remove(listener)

    def add_connection_callback(self, callback: Any) -> None:
        """Have callback.set_and_notify((handle, type, state, path)) called
        when the state changes.

        :param callback: a utils.StatePipeCondition, or anything with such a
            method.
        """
        if callback not in self._connection_callbacks:
            self._connection_callbacks.append(callback)

    def remove_connection_callback(self, callback: Any) -> None:
        """:raises KeyError: when it was not added."""
        try:
            self._connection_callbacks.remove(callback)
        except ValueError:
            raise KeyError(callback) from None

    # Calls.

    def add_auth(
            self, scheme: str, cert: Any,
            timeout: float | None = None) -> None:
        """Authenticate this session, and those that will replace it.

        :raises zookeeper.AuthFailedException: when the server refuses.
        """
        answered = threading.Event()
        codes: list[int] = []

        def completion(_handle: int, rc: int) -> None:
            codes.append(rc)
            answered.set()

        deadline = _deadline(self._timeout(timeout))
        zookeeper.add_auth(
            self._handle(_remaining(deadline)), scheme, cert,
            zookeeper.Immediate(completion))
        self._auths.append((scheme, cert))
        if not answered.wait(_remaining(deadline)):
            raise zookeeper.OperationTimeoutException(
                "no answer to the authentication")
        if codes[0] != zookeeper.OK:
            self._auths.remove((scheme, cert))
            raise zookeeper.exceptions.for_code(
                codes[0], zookeeper.zerror(codes[0]))

    def create(
            self, path: str, value: Any, acl: list | None = None,
            flags: int = 0, timeout: float | None = None) -> str:
        """Create a znode and return its path.

        :param acl: None for [ZOO_OPEN_ACL_UNSAFE].
        :param flags: zookeeper.EPHEMERAL, SEQUENCE, both or 0.
        """
        return self._call(
            timeout, zookeeper.create, path, value, _acl(acl), flags)

    def ensure_path(
            self, path: str, acl: list | None = None,
            timeout: float | None = None) -> None:
        """Create a znode, and those above it, where they are not there.

        With a chroot, the chroot's own znode too, though not those above
        it, which cannot be reached from here.
        """
        deadline = _deadline(self._timeout(timeout))
        # Not simply create(): to be told that a znode exists takes the
        # permission to create it.
        if self._call(_remaining(deadline), zookeeper.exists, path):
            return
        if path != "/":
            above = path.rpartition("/")[0] or "/"
            self.ensure_path(above, acl, _remaining(deadline))
        try:
            self.create(path, "", acl, timeout=_remaining(deadline))
        except zookeeper.NodeExistsException:
            pass  # by somebody else, meanwhile

    def delete(
            self, path: str, version: int = -1,
            timeout: float | None = None) -> int:
        """Delete a znode, provided that it has this version; -1: any."""
        return self._call(timeout, zookeeper.delete, path, version)

    def exists(
            self, path: str, watch: Any = None,
            timeout: float | None = None) -> dict[str, int]:
        """The znode's stat.

        :param watch: called once with (handle, type, state, path) when the
            znode is created, changed or deleted. It is not set again when
            the session is replaced: it is then told of the expiry.
        :raises zookeeper.NoNodeException: when there is no znode; the watch
            is set nevertheless.
        """
        stat = self._call(timeout, zookeeper.exists, path, watch)
        if stat is None:
            raise zookeeper.NoNodeException("no node")
        return stat

    def get(
            self, path: str, watcher: Any = None,
            timeout: float | None = None) -> tuple[str, dict[str, int]]:
        """The znode's (data, stat)."""
        return self._call(timeout, zookeeper.get, path, watcher)

    def get_children(
            self, path: str, watcher: Any = None,
            timeout: float | None = None) -> list[str]:
        """The names of the znode's children."""
        return self._call(timeout, zookeeper.get_children, path, watcher)

    def set(
            self, path: str, data: Any, version: int = -1,
            timeout: float | None = None) -> int:
        """Write a znode's data, provided that it has this version."""
        return self._call(timeout, zookeeper.set, path, data, version)

    def set2(
            self, path: str, data: Any, version: int = -1,
            timeout: float | None = None) -> dict[str, int]:
        """As set(); returns the new stat."""
        return self._call(timeout, zookeeper.set2, path, data, version)

    def get_acl(
            self, path: str,
            timeout: float | None = None) -> tuple[list, dict[str, int]]:
        """The znode's (ACL, stat)."""
        stat, acl = self._call(timeout, zookeeper.get_acl, path)
        return acl, stat

    def set_acl(
            self, path: str, version: int, acl: list,
            timeout: float | None = None) -> int:
        """Write a znode's ACL, provided that the ACL has this version."""
        return self._call(timeout, zookeeper.set_acl, path, version, acl)

    def sync(self, path: str, timeout: float | None = None) -> int:
        """Have this session's server catch up with the leader."""
        answered = threading.Event()
        codes: list[int] = []

        def completion(_handle: int, rc: int, _path: str | None) -> None:
            codes.append(rc)
            answered.set()

        deadline = _deadline(self._timeout(timeout))
        zookeeper.async_(
            self._handle(_remaining(deadline)), path,
            zookeeper.Immediate(completion))
        if not answered.wait(_remaining(deadline)):
            raise zookeeper.OperationTimeoutException("no answer to sync")
        if codes[0] != zookeeper.OK:
            raise zookeeper.exceptions.for_code(
                codes[0], zookeeper.zerror(codes[0]))
        return zookeeper.OK

    # For services.

    def add_service(self, service: Any) -> None:
        """Have service.restore() called whenever a server is connected.

        In the order of add_service(), on the session's restorer, where it
        may wait for answers. What it raises is logged, and it is called
        again.
        """
        with self._condition:
            self._check_open()
            self._services[service] = None
            if self._restorer is None:
                self._restorer = _thread(self._restore, "restorer")

    def remove_service(self, service: Any) -> None:
        with self._condition:
            self._services.pop(service, None)
            self._due.pop(service, None)

    def restore_soon(self, service: Any) -> None:
        """Have service.restore() called as soon as possible."""
        with self._condition:
            if service in self._services:
                self._due[service] = None
                self._condition.notify_all()

    def connected_handle(
            self, timeout: float | None = None) -> tuple[int, int]:
        """The handle and the id of one and the same connected session.

        For what must not be done in any other session, should this one be
        replaced meanwhile: the handle's calls will then raise.

        :raises zookeeper.OperationTimeoutException: when there is none in
            time.
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

    def _timeout(self, timeout: float | None) -> float | None:
        return self._operation_timeout if timeout is None else timeout

    def _call(
            self, timeout: float | None, function: Callable[..., Any],
            *args: Any) -> Any:
        deadline = _deadline(self._timeout(timeout))
        handle = self._handle(_remaining(deadline))
        try:
            return function(handle, *args, timeout=_remaining(deadline))
        except zookeeper.InvalidStateException:
            # Raised without any wait. Who tries again would, under
            # eventlet, never let the keeper hear of the expiry, if
            # wait_connected() said that all is well.
            with self._condition:
                if self._zhandle is handle:
                    self._connected = False
            raise

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
        # Before any lock: in the child of a fork it may be held for ever,
        # by a thread that was not copied.
        if os.getpid() != self._pid:
            raise zookeeper.ZooKeeperException(
                "the ZooKeeper session belongs to the parent process")

    def _check_open(self) -> None:
        if self._closed:
            raise zookeeper.ClosingException("the ZooKeeper session is closed")

    def _lose(self) -> int | None:
        """Forget the present handle and return it. With the lock held."""
        handle, self._zhandle = self._zhandle, None
        self._session_id = None
        self._connected = False
        return handle

    def _begin(self) -> None:
        with self._condition:
            self._closed = False
            self._pid = os.getpid()
            self._restorer = None
            self._events = queue.Queue()
        self._keeper = _thread(self._keep, "keeper")

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
                zookeeper.close(handle)
            except zookeeper.ZooKeeperException:
                pass  # closed already, because Python exits
        self._tell(CLOSED)

    def _pause(self, events: queue.Queue, delay: float) -> bool:
        """Wait; True when the session has been closed."""
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
            LOG.exception("No ZooKeeper session")
            return None
        except Exception as exc:
            LOG.warning("No ZooKeeper session with %s: %s", self._host, exc)
            return None
        with self._condition:
            closed = self._closed or events is not self._events
            if not closed:
                self._zhandle = handle
                self._condition.notify_all()
        if closed:
            zookeeper.close(handle)
            return None
        for scheme, cert in list(self._auths):
            try:
                zookeeper.add_auth(handle, scheme, cert)
            except zookeeper.ZooKeeperException:
                LOG.exception("ZooKeeper authentication not sent")
        return handle

    def _follow(self, events: queue.Queue, handle: int) -> float:
        """Follow a session to its end.

        :returns: seconds to wait before the next one.
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
                self._tell(CONNECTED)
            elif state == zookeeper.EXPIRED_SESSION_STATE:
                LOG.warning("ZooKeeper session expired, making a new one")
                self._have_lost(handle)
                self._tell(EXPIRED)
            elif state == zookeeper.AUTH_FAILED_STATE:
                LOG.error("ZooKeeper authentication failed")
                self._have_lost(handle)
                self._tell(AUTH_FAILED)
            else:
                with self._condition:
                    was_connected, self._connected = self._connected, False
                if was_connected:
                    self._tell(SUSPENDED)
            for callback in list(self._connection_callbacks):
                try:
                    callback.set_and_notify(event)
                except Exception:
                    LOG.exception("ZooKeeper connection callback failed")
            if state == zookeeper.EXPIRED_SESSION_STATE:
                return 0.0
            if state == zookeeper.AUTH_FAILED_STATE:
                return self._recv_timeout / 1000

    def _have_connected(self, handle: int) -> bool:
        try:
            session_id = zookeeper.client_id(handle)[0] & (1 << 64) - 1
        except zookeeper.ZooKeeperException:
            return False  # closed meanwhile
        with self._condition:
            if self._zhandle is not handle:
                return False
            self._session_id = session_id
            self._connected = True
            self._connections += 1
            self._due = dict(self._services)
            self._condition.notify_all()
        return True

    def _have_lost(self, handle: int) -> None:
        with self._condition:
            if self._zhandle is handle:
                self._lose()

    def _tell(self, event: str) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                LOG.exception("ZooKeeper session listener failed")

    def _restore(self) -> None:
        events = self._events
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: events is not self._events or self._closed
                    or self._connected and self._due)
                if events is not self._events or self._closed:
                    return
                due, self._due = self._due, {}
                connections = self._connections
            failed = []
            for service in due:
                with self._condition:
                    if (not self._connected
                            or self._connections != connections):
                        # The next connection begins again, with the first:
                        # those that follow must not overtake it.
                        failed = []
                        break
                if not _restored(service):
                    failed.append(service)
            if not failed:
                continue
            with self._condition:
                # A new connection has all services restored, at once.
                self._condition.wait_for(
                    lambda: self._closed or events is not self._events
                    or self._connections != connections,  # noqa: B023
                    RETRY_INTERVAL)
                self._due = {
                    service: None for service in self._services
                    if service in failed or service in self._due}


def _restored(service: Any) -> bool:
    try:
        service.restore()
    except zookeeper.ZooKeeperException as exc:
        # A connection that breaks again, most likely.
        LOG.debug("%r not restored: %s", service, exc)
        return False
    except Exception:
        LOG.exception("%r not restored", service)
        return False
    return True


def _acl(acl: list | None) -> list:
    return [ZOO_OPEN_ACL_UNSAFE] if acl is None else acl


def _thread(target: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(
        target=target, name=f"nova_sg.evzookeeper {name}", daemon=True)
    thread.start()
    return thread


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0, deadline - time.monotonic())
