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

"""Handles, and the sessions behind them.

Here: opening and closing sessions, finding the session of a handle, sending
requests, delivering callbacks. Not here: the individual requests (api.py),
and the functions that C calls (callbacks.py).

A handle is a small int, the lowest free number, as in python-zookeeper. It
is also an object that knows its session: a closed handle stays invalid when
its number is used again. A plain int means the session that has that number
now.
"""

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from nova_sg.zookeeper import (
    callbacks,
    clib,
    constants,
    convert,
    dispatch,
    exceptions,
    logstream,
    offhub,
)

LOG = logging.getLogger("nova_sg.zookeeper")

# Seconds to wait for closing at exit. It takes the time of the server's
# answer, and 1.5 s at most by the C client's own limit. If it takes longer,
# the resolver or the server hangs.
EXIT_TIMEOUT = 3.0

Completion = Callable[..., object] | dispatch.Immediate


class Handle(int):
    """The number of a session."""

    session: "Session"

    def __new__(cls, number: int, session: "Session") -> "Handle":
        handle = super().__new__(cls, number)
        handle.session = session
        return handle


class Session:
    """One zhandle_t, and everything that belongs to it."""

    # The watch of the session itself never ends; see callbacks.py.
    one_shot = False

    def __init__(self, number: int, watcher: Completion | None) -> None:
        self.handle = Handle(number, self)
        self.watcher = watcher
        # Why the handle cannot be used, or None.
        self.gone: str | None = None
        # Held during each C call, so that no call is under way when
        # zookeeper_close() frees the zhandle_t.
        self.lock = threading.Lock()
        self.zh: Any = None
        self._id = dispatch.new_id()
        # Events that arrived before zookeeper_init() returned.
        self._early: list[tuple] | None = []
        self._deliveries: queue.Queue | None = None

    # Opening and closing.

    def open(
            self, init: Callable[[int], Any],
            timeout: float | None) -> None:
        """Call init(context), off the hub, to get the zhandle_t."""
        reply = dispatch.Reply()
        ffi, zk = clib.load().ffi, clib.load().zk
        dispatch.contexts[self._id] = self

        def call() -> tuple[Any, int]:
            zh = init(self._id)
            errno = ffi.errno  # that of this OS thread
            if zh != ffi.NULL:
                # By default the I/O thread resolves the servers' names before
                # each poll, and sends no pings meanwhile. This setting makes
                # it do so for a new connection only.
                zk.zoo_set_servers_resolution_delay(zh, -1)
            return zh, errno

        def opened(result: tuple[Any, int]) -> None:
            zh, errno = result
            if zh == ffi.NULL:
                self._finish_close("zhandle could not be opened")
                reply.set(errno)
                return
            with self.lock:
                self.zh = zh
                abandoned = self.gone
            if abandoned:
                # The caller of open() no longer waits.
                self._close_in_c(zh, lambda rc: None)
            else:
                early, self._early = self._early, None
                for func, args in early or ():
                    self.deliver(func, args)
            reply.set(None)

        try:
            offhub.run(call, opened)
        except BaseException:
            self._finish_close("zhandle could not be opened")
            raise
        in_time = False
        try:
            in_time = reply.wait(timeout)
        finally:
            if not in_time:
                self._abandon()
        if not in_time:
            raise exceptions.OperationTimeoutException(
                f"no zookeeper handle within {timeout} s")
        if reply.value is not None:
            raise exceptions.ZooKeeperException(
                "Could not internally obtain zookeeper handle: "
                f"{os.strerror(reply.value)}")

    def _abandon(self) -> None:
        with self.lock:
            self.gone = "zhandle already freed"
            zh = self.zh
        if zh is not None:
            self._close_in_c(zh, lambda rc: None)

    def close(self, timeout: float | None) -> int:
        zh = self._mark_closed()
        reply = dispatch.Reply()
        self._close_in_c(zh, reply.set)
        if not reply.wait(timeout):
            raise exceptions.OperationTimeoutException(
                f"the session is not closed after {timeout} s; closing "
                "continues in the background")
        return reply.value

    def _mark_closed(self) -> Any:
        with self.lock:
            if self.gone or self.zh is None:
                raise exceptions.ZooKeeperException(
                    self.gone or "zhandle not yet open")
            self.gone = "zhandle already freed"
            return self.zh

    def _close_in_c(
            self, zh: Any, then: Callable[[int], object]) -> offhub.Job:
        zk = clib.load().zk

        def closed(rc: int) -> None:
            self._finish_close("zhandle already freed")
            then(rc)

        return offhub.run(lambda: zk.zookeeper_close(zh), closed)

    def close_at_exit(self) -> offhub.Job | None:
        try:
            return self._close_in_c(self._mark_closed(), lambda rc: None)
        except (exceptions.ZooKeeperException, OSError):
            return None

    def _finish_close(self, why: str) -> None:
        """Called once, on the dispatcher, when C makes no more calls."""
        self.gone = why
        dispatch.contexts.pop(self._id, None)
        _sessions.pop(int(self.handle), None)
        # The C client usually calls the completions of requests under way
        # when it closes. But its completion thread may have ended first.
        for ident, context in list(dispatch.contexts.items()):
            if getattr(context, "session", None) is self:
                dispatch.contexts.pop(ident, None)
                context.closed()
        if self._deliveries is not None:
            self._deliveries.put(None)

    def end_watches(self) -> None:
        """Tell all watchers that their znodes are watched no longer.

        For a session that goes on with another handle: the C client does not
        know its watches there.
        """
        reply = dispatch.Reply()

        def end() -> None:
            for ident, watch in list(dispatch.contexts.items()):
                if isinstance(watch, Watch) and watch.session is self:
                    dispatch.contexts.pop(ident, None)
                    watch.fire(constants.NOTWATCHING_EVENT, 0, None)
            reply.set(None)

        dispatch.post(end)
        reply.wait()

    # Requests.

    def submit(
            self, request: "Request", watcher: Completion | None,
            call: Callable[[Any, Any, int, int], int]) -> None:
        """Send a request.

        :param call: makes the C call. It gets the zhandle_t, the watcher
            function, the context of the watcher and that of the request, and
            returns the return code.
        """
        ident = dispatch.new_id()
        watch, watch_function = 0, clib.load().ffi.NULL
        if watcher is not None:
            watch = request.watch = dispatch.new_id()
            watch_function = callbacks.load().watcher
            dispatch.contexts[watch] = Watch(self, watcher)
        dispatch.contexts[ident] = request
        rc = constants.SYSTEMERROR
        try:
            with self.lock:
                rc = call(self.alive(), watch_function, watch, ident)
        finally:
            if rc != constants.OK:
                dispatch.contexts.pop(ident, None)
                dispatch.contexts.pop(watch, None)
        if rc != constants.OK:
            raise error(rc)

    def alive(self) -> Any:
        """The zhandle_t. Call this, and use it, with the lock held."""
        if self.gone:
            raise exceptions.ZooKeeperException(self.gone)
        if self.zh is None:
            raise exceptions.ZooKeeperException("zhandle not yet open")
        return self.zh

    # Callbacks.

    def fire(self, kind: int, state: int, path: bytes | None) -> None:
        """Take in an event of the session; on the dispatcher."""
        if self.watcher is not None:
            self.deliver_event(self.watcher, kind, state, path)

    def deliver_event(
            self, func: Completion, kind: int, state: int,
            path: bytes | None) -> None:
        # After close() no event is delivered. Completions are, as each
        # request has exactly one.
        if self.gone is None:
            self.deliver(
                func, (self.handle, kind, state, convert.from_bytes(path)))

    def deliver(self, func: Completion, args: tuple) -> None:
        """Call func(*args) on the session's delivery thread.

        Called on the dispatcher. Callbacks run in order, on one thread for
        each session, as in the C client. A callback that blocks delays only
        the callbacks of its own session. It may make synchronous calls, and
        close the session.
        """
        if self._early is not None and self.gone is None:
            self._early.append((func, args))
            return
        if isinstance(func, dispatch.Immediate):
            func.func(*args)
            return
        if self._deliveries is None:
            if _exiting:
                return  # Python no longer starts threads
            self._deliveries = queue.Queue()
            threading.Thread(
                target=_deliver_all, args=(self._deliveries,),
                name=f"nova_sg.zookeeper {int(self.handle)}",
                daemon=True).start()
        self._deliveries.put((func, args))


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


class Watch:
    """A watcher that C has: it fires once for its znode."""

    __slots__ = ("session", "_watcher")
    one_shot = True

    def __init__(self, session: Session, watcher: Completion) -> None:
        self.session = session
        self._watcher = watcher

    def fire(self, kind: int, state: int, path: bytes | None) -> None:
        self.session.deliver_event(self._watcher, kind, state, path)

    def closed(self) -> None:
        pass


class Request:
    """The context of a request that is under way.

    :ivar watch: the context of the watch that it sets, or 0.
    :ivar watch_absent: whether it sets its watch even if there is no znode,
        as exists() does.
    """

    __slots__ = ("session", "watch", "watch_absent")

    def __init__(self, session: Session, watch_absent: bool = False) -> None:
        self.session = session
        self.watch = 0
        self.watch_absent = watch_absent

    def finish(self, rc: int, *result: Any) -> None:
        """Take in the answer that callbacks.py copied; on the dispatcher."""
        if self.watch and rc != constants.OK and not (
                self.watch_absent and rc == constants.NONODE):
            dispatch.contexts.pop(self.watch, None)
        self.answer(rc, result)

    def closed(self) -> None:
        self.answer(constants.CLOSING, ())

    def answer(self, rc: int, result: tuple) -> None:
        raise NotImplementedError


class Waited(Request):
    """A request that a thread waits for."""

    __slots__ = ("_reply",)

    def __init__(self, session: Session, watch_absent: bool = False) -> None:
        super().__init__(session, watch_absent)
        self._reply = dispatch.Reply()

    def answer(self, rc: int, result: tuple) -> None:
        self._reply.set((rc, result))

    def wait(self, timeout: float | None) -> tuple[int, tuple]:
        if not self._reply.wait(timeout):
            raise exceptions.OperationTimeoutException(
                f"no answer within {timeout} s; the request may still be "
                "executed")
        return self._reply.value


class Called(Request):
    """A request whose answer goes to a callback.

    :ivar convert: makes the callback's arguments after the return code, from
        what callbacks.py copied, or from nothing.
    """

    __slots__ = ("_completion", "_convert")

    def __init__(
            self, session: Session, completion: Completion | None,
            convert_result: Callable[..., tuple],
            watch_absent: bool = False) -> None:
        super().__init__(session, watch_absent)
        self._completion = completion
        self._convert = convert_result

    def answer(self, rc: int, result: tuple) -> None:
        if self._completion is not None:
            self.session.deliver(
                self._completion,
                (self.session.handle, rc, *self._convert(*result)))


# The table of sessions.

_sessions: dict[int, Session] = {}
_numbers = threading.Lock()
_exiting = False


def open_session(
        init: Callable[[int], Any], watcher: Completion | None,
        timeout: float | None) -> Handle:
    dispatch.start()
    logstream.start()
    with _numbers:
        number = 0
        while number in _sessions:
            number += 1
        session = _sessions[number] = Session(number, watcher)
    session.open(init, timeout)
    return session.handle


def find(handle: int) -> Session:
    """The session of a handle.

    :raises ZooKeeperException: when there is no such session.
    """
    if isinstance(handle, Handle):
        session = handle.session
        if session.gone:
            raise exceptions.ZooKeeperException(session.gone)
        return session
    if not isinstance(handle, int):
        raise TypeError(
            f"a zookeeper handle is an int, not {type(handle).__name__}")
    found = _sessions.get(handle)
    if found is None:
        raise exceptions.ZooKeeperException(
            "zhandle out of range, or already freed")
    return found


def error(rc: int) -> exceptions.ZooKeeperException:
    """The exception for a return code."""
    return exceptions.for_code(rc, strerror(rc))


def strerror(rc: int) -> str:
    library = clib.load()
    return library.ffi.string(library.zk.zerror(rc)).decode()


@atexit.register
def _close_all() -> None:
    """Close all sessions at exit, within EXIT_TIMEOUT.

    So the ephemeral znodes of a program that ends are deleted at once. And
    after zookeeper_close() has begun, the C threads of a session do not call
    Python any more: they must not when the interpreter has ended.
    """
    global _exiting
    _exiting = True
    if not _sessions:
        return
    jobs = [session.close_at_exit() for session in list(_sessions.values())]
    deadline = time.monotonic() + EXIT_TIMEOUT
    libc = clib.load().libc
    # Waiting without eventlet, whose hub may have ended by now.
    while time.monotonic() < deadline and not all(
            job is None or job.done for job in jobs):
        libc.usleep(2000)


def _forked() -> None:
    # The child has none of the C client's threads, and their locks may have
    # been held. So the child makes no C call on a zhandle_t of the parent, not
    # even to free it. One lock remains: that of glibc's resolver, which the
    # parent's C client holds for a moment when it connects. A child that is
    # forked in that moment waits for it; its init() can have a timeout.
    global _numbers
    _numbers = threading.Lock()
    for session in list(_sessions.values()):
        session.gone = "zhandle belongs to the parent process"
    _sessions.clear()


os.register_at_fork(after_in_child=_forked)
