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

"""Sessions: one KazooClient each, and the requests that are under way.

As with the C client, a handle stands for one session: once that has ended, the
handle can only be closed. Unlike kazoo, a request that is made while no server
is connected fails when the next attempt to connect fails, and a request whose
caller no longer waits is not sent late.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from kazoo.protocol import states

from nova_sg.kazoo_transport import client, convert
from nova_sg.zookeeper import addresses, constants, dispatch, exceptions
from nova_sg.zookeeper import convert as texts

LOG = logging.getLogger("nova_sg.zookeeper")
# The logger of the C client's messages; see nova_sg/zookeeper/logstream.py.
CLIENT_LOG = logging.getLogger("nova_sg.zookeeper.client")

# Seconds to wait for the server's answer to closing, as in the C client.
CLOSE_TIMEOUT = 1.5
# Seconds to wait for closing at exit.
EXIT_TIMEOUT = 3.0

Completion = Callable[..., object] | dispatch.Immediate

_ENDS = {
    states.KeeperState.EXPIRED_SESSION: constants.EXPIRED_SESSION_STATE,
    states.KeeperState.AUTH_FAILED: constants.AUTH_FAILED_STATE,
}
_CODES = {
    constants.EXPIRED_SESSION_STATE: constants.SESSIONEXPIRED,
    constants.AUTH_FAILED_STATE: constants.AUTHFAILED,
}
_EVENTS = {
    states.EventType.CREATED: constants.CREATED_EVENT,
    states.EventType.DELETED: constants.DELETED_EVENT,
    states.EventType.CHANGED: constants.CHANGED_EVENT,
    states.EventType.CHILD: constants.CHILD_EVENT,
}

_numbers = itertools.count()
_sessions: dict[int, Session] = {}


class Handle(int):
    """The number of a session."""

    session: Session


class Request:
    """A request, from its submission to its answer.

    :param send: has the client send it; returns its AsyncResult
    :param convert_result: converts what kazoo answers
    :param completion: called with (handle, rc, result); None: wait() is called
    """

    def __init__(
        self,
        session: Session,
        send: Callable[[client.Client], Any],
        convert_result: Callable[[Any], Any] | None = None,
        completion: Completion | None = None,
    ) -> None:
        self._session = session
        self.send = send
        self._convert = convert_result
        self._completion = completion
        self._reply = dispatch.Reply()
        self._over = False

    def answered(self, result: Any) -> None:
        """Take in an AsyncResult; on the client's completion thread."""
        error = result.exception
        if error is not None:
            self.finish(self._session.code(error))
            return
        value = result.value
        if self._convert is not None:
            value = self._convert(value)
        self.finish(constants.OK, value)

    def finish(self, rc: int, value: Any = None) -> None:
        """Give the answer to the caller; only the first one counts."""
        if not self._session.take_out(self):
            return
        if self._completion is None:
            self._reply.set((rc, value))
        else:
            self._session.deliver(
                self._completion, (self._session.handle, rc, value)
            )

    def wait(self, timeout: float | None) -> Any:
        """Return the answer.

        :raises ZooKeeperException: for any return code but OK
        """
        if not self._reply.wait(timeout):
            self._session.take_out(self)
            raise exceptions.OperationTimeoutException(
                f"no answer within {timeout} s; the request may still be "
                "executed"
            )
        rc, value = self._reply.value
        if rc != constants.OK:
            raise convert.exception(rc)
        return value


class Session:
    """One session, and everything that belongs to it."""

    def __init__(
        self,
        hosts: str,
        watcher: Completion | None,
        recv_timeout: int,
        client_id: tuple[int, bytes] | None,
        encrypt: client.Encrypt | None,
        sasl_options: dict[str, str] | None,
    ) -> None:
        self.handle = Handle(next(_numbers))
        self.handle.session = self
        self._watcher = watcher
        # The negotiated timeout, in ms; until it is known, the one asked for.
        self.timeout = recv_timeout
        # Why the last attempt to connect failed; None: it succeeded.
        self.problem: str | None = None
        # Why the handle cannot be used, or None.
        self.gone: str | None = None
        # Reentrant, as kazoo answers at once when its threads have ended.
        self._lock = threading.RLock()
        self._connected = False
        self._client_id = client_id or (0, b"")
        # The state in which the session has ended; 0: it has not.
        self._ended = 0
        # Requests to be sent once a server is connected, and all requests.
        self._held: list[Request] = []
        self._requests: set[Request] = set()
        self._deliveries: queue.Queue | None = None
        self._client = client.Client(
            self,
            hosts,
            recv_timeout / 1000,
            client_id,
            client.Handler(encrypt),
            CLIENT_LOG,
            sasl_options,
        )

    def start(self) -> None:
        _sessions[int(self.handle)] = self
        self._client.start_async()

    # What the client tells, on the thread of its connection.

    def connected(self, timeout: int) -> None:
        with self._lock:
            if self.gone or self._ended:
                return
            self.timeout, self.problem = timeout, None
            self._connected = True
            self._client_id = self._client.session()
            held, self._held = self._held, []
            for request in held:
                self._send(request)
        self._tell(constants.CONNECTED_STATE)

    def failed(self, problem: str) -> None:
        self.problem = problem
        with self._lock:
            held, self._held = self._held, []
        for request in held:
            request.finish(constants.CONNECTIONLOSS)

    def changed(self, state: str) -> None:
        ended = _ENDS.get(state, 0)
        if state == states.KeeperState.CLOSED:
            # Unless this process has closed it, kazoo's thread has failed.
            ended = constants.EXPIRED_SESSION_STATE
        with self._lock:
            if self.gone or self._ended:
                return
            was_connected = self._connected
            if state != states.KeeperState.CONNECTED:
                self._connected = False
            self._ended = ended
            held = []
            if ended:
                held, self._held = self._held, []
        for request in held:
            request.finish(_CODES[ended])
        if ended:
            self._tell(ended)
        elif was_connected and not self._connected:
            self._tell(constants.CONNECTING_STATE)

    def _tell(self, state: int) -> None:
        if self._watcher is not None:
            self.deliver(
                self._watcher,
                (self.handle, constants.SESSION_EVENT, state, ""),
            )

    # Requests.

    def submit(self, request: Request) -> Request:
        """Send a request, or keep it until a server is connected.

        :raises ZooKeeperException: the session has ended
        """
        with self._lock:
            self.check()
            if self._ended:
                raise convert.exception(constants.INVALIDSTATE)
            self._requests.add(request)
            if self._connected:
                self._send(request)
            else:
                self._held.append(request)
        return request

    def _send(self, request: Request) -> None:
        try:
            result = request.send(self._client)
        except (ValueError, TypeError):
            # kazoo refuses an argument.
            request.finish(constants.BADARGUMENTS)
        else:
            result.rawlink(request.answered)

    def take_out(self, request: Request) -> bool:
        """Forget a request; return False if it is forgotten already."""
        with self._lock:
            if request not in self._requests:
                return False
            self._requests.discard(request)
            if request in self._held:
                self._held.remove(request)
            return True

    def watch(self, watcher: Completion | None) -> Callable | None:
        """Return kazoo's watch for a watcher."""
        if watcher is None:
            return None

        def watch(event: Any) -> None:
            # Anything but a change: kazoo forgets the watch when a connection
            # breaks, and the next connection does not have it.
            kind = _EVENTS.get(event.type, constants.NOTWATCHING_EVENT)
            state = constants.CONNECTED_STATE
            if self._ended:
                kind, state = constants.SESSION_EVENT, self._ended
            if self.gone is None:
                self.deliver(
                    watcher, (self.handle, kind, state, event.path or "")
                )

        return watch

    def deliver(self, func: Completion, args: tuple) -> None:
        """Call func(*args), Immediate ones here, others on a thread."""
        if isinstance(func, dispatch.Immediate):
            try:
                func.func(*args)
            except Exception:
                LOG.exception("ZooKeeper callback %r failed", func.func)
            return
        with self._lock:
            if self._deliveries is None:
                self._deliveries = queue.Queue()
                threading.Thread(
                    target=_deliver_all,
                    args=(self._deliveries,),
                    name=f"nova_sg.kazoo_transport {int(self.handle)}",
                    daemon=True,
                ).start()
        self._deliveries.put((func, args))

    def code(self, error: Exception) -> int:
        return constants.CLOSING if self.gone else convert.code(error)

    # State.

    def check(self) -> None:
        """:raises ZooKeeperException: the handle is closed"""
        if self.gone is not None:
            raise exceptions.ZooKeeperException(self.gone)

    def state(self) -> int:
        self.check()
        if self._ended:
            return self._ended
        if self._connected:
            return constants.CONNECTED_STATE
        return constants.CONNECTING_STATE

    def connected_host(self) -> str | None:
        self.check()
        last = self._client.last_server() if self._connected else None
        return last and addresses.host_and_port(*last)

    def client_id(self) -> tuple[int, str]:
        self.check()
        if self._ended:
            raise convert.exception(constants.INVALIDSTATE)
        number, password = self._client_id
        return number, texts.from_bytes(password.rstrip(b"\0")) or ""

    def add_auth(
        self, scheme: str, credential: str, completion: Completion | None
    ) -> None:
        # Also if the next attempt to connect fails, and with it the request.
        self._client.remember_auth(scheme, credential)
        self.submit(
            Request(
                self,
                lambda one: one.add_auth_async(scheme, credential),
                completion=completion or dispatch.Immediate(lambda *_: None),
            )
        )

    # Closing.

    def close(self, timeout: float | None) -> None:
        """End the session; its ephemeral znodes are deleted at once.

        :raises OperationTimeoutException: it takes longer
        """
        over = threading.Event()
        connected = self._mark_closed("zhandle already freed")
        threading.Thread(
            target=self._finish_close,
            args=(over,),
            name=f"nova_sg.kazoo_transport close {int(self.handle)}",
            daemon=True,
        ).start()
        # Without a connection there is no server to be told.
        if connected and not over.wait(timeout):
            raise exceptions.OperationTimeoutException(
                f"the session is not closed after {timeout} s; closing "
                "continues in the background"
            )

    def _mark_closed(self, why: str) -> bool:
        """Return whether a server was connected."""
        with self._lock:
            self.check()
            self.gone = why
            connected, self._connected = self._connected, False
            requests = list(self._requests)
        self._client.begin_close()
        for request in requests:
            request.finish(constants.CLOSING)
        _sessions.pop(int(self.handle), None)
        return connected

    def _finish_close(self, over: threading.Event) -> None:
        if not self._client.has_stopped(CLOSE_TIMEOUT):
            self._client.cut()
            over.set()
            self._client.has_stopped(None)
        self._client.free()
        over.set()
        if self._deliveries is not None:
            self._deliveries.put(None)

    def close_at_exit(self) -> None:
        try:
            self._mark_closed("the process ends")
        except (exceptions.ZooKeeperException, OSError):
            pass  # another thread closes it

    def has_stopped(self) -> bool:
        return self._client.has_stopped()

    def abandon(self) -> None:
        """In the child of a fork: the session is the parent's."""
        self.gone = "zhandle belongs to the parent process"
        # It would wait for threads that the child does not have.
        atexit.unregister(self._client.handler.stop)


def _deliver_all(deliveries: queue.Queue) -> None:
    while True:
        item = deliveries.get()
        if item is None:
            return
        func, args = item
        try:
            func(*args)
        except Exception:
            LOG.exception("ZooKeeper callback %r failed", func)
        # So that they are not kept until the next item arrives.
        del item, func, args


def find(handle: int) -> Session:
    """The session of a handle.

    :raises ZooKeeperException: it is closed
    """
    if not isinstance(handle, Handle):
        raise TypeError(f"{handle!r} is no handle of this transport")
    handle.session.check()
    return handle.session


@atexit.register
def _close_all() -> None:
    """Close all sessions at exit, so that members are gone at once."""
    sessions = list(_sessions.values())
    for session in sessions:
        session.close_at_exit()
    deadline = time.monotonic() + EXIT_TIMEOUT
    while time.monotonic() < deadline:
        if all(session.has_stopped() for session in sessions):
            return
        time.sleep(0.005)


def _forked() -> None:
    for session in list(_sessions.values()):
        session.abandon()
    _sessions.clear()


os.register_at_fork(after_in_child=_forked)
