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

"""From the C client's threads to Python's: one queue, one eventfd.

Here: the queue to which C threads append, the dispatcher that empties it, the
registry of the contexts that C has, and the objects that callers wait on. Not
here: the callbacks that C calls (callbacks.py).

The C client calls back on threads of its own. Such a thread may hold the GIL,
but under eventlet it must not touch anything green: no lock, no logging, no
thread-local. So it only appends to a deque and writes to an eventfd. Each
process has one dispatcher, which waits for the eventfd with the standard
library's `selectors`: under eventlet that is the hub, otherwise epoll, which
has no limit on descriptor numbers. The dispatcher is a threading.Thread, which
is a green thread under eventlet.

The dispatcher must never wait for a user's code, as every synchronous call in
the process waits for the dispatcher. It wakes callers, and passes callbacks to
the session's delivery thread (sessions.py). The exceptions are callbacks
wrapped in Immediate, which have to return at once.
"""

import collections
import itertools
import logging
import os
import selectors
import threading
from collections.abc import Callable
from typing import Any

LOG = logging.getLogger("nova_sg.zookeeper")

# The objects that C knows by a number. No number is used twice: so a number
# that C passes back late finds nothing, and never another object.
contexts: dict[int, Any] = {}
new_id = itertools.count(1).__next__


class Immediate:
    """A callback that runs on the dispatcher itself, without a thread.

    It must return at once and must not block: no call of this package, no
    lock that is held across such a call. It may set an event or append to a
    queue.
    """

    __slots__ = ("func",)

    def __init__(self, func: Callable[..., object]) -> None:
        self.func = func


class Reply:
    """A value that one thread waits for; the dispatcher sets it once."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        # A lock instead of an Event: an Event makes two locks and a
        # Condition for every request.
        self._lock = threading.Lock()
        self._lock.acquire()
        self.value: Any = None

    def set(self, value: Any) -> None:
        self.value = value
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for set(); False: it was not called within timeout seconds."""
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=max(timeout, 0))


class _Dispatcher:
    def __init__(self) -> None:
        self._queue: collections.deque[tuple] = collections.deque()
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signalled = False
        threading.Thread(
            target=self._run, name="nova_sg.zookeeper", daemon=True).start()

    def post(self, call: Callable[..., object], args: tuple) -> None:
        self._queue.append((call, args))
        # The flag saves a system call while the dispatcher has been woken
        # already. It is cleared before the queue is emptied: so a call that
        # is appended in between is either seen or signalled again.
        if not self._signalled:
            self._signalled = True
            # Not os.write, which eventlet replaces.
            os.eventfd_write(self._eventfd, 1)

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._eventfd, selectors.EVENT_READ)
        while True:
            selector.select()
            if _dispatcher is not self:
                # This is the copy of a green thread in the child of a fork:
                # it must not read the parent's eventfd.
                return
            try:
                os.eventfd_read(self._eventfd)
            except BlockingIOError:
                continue
            self._signalled = False
            while self._queue:
                call, args = self._queue.popleft()
                try:
                    call(*args)
                except Exception:
                    LOG.exception("ZooKeeper dispatcher: %r failed", call)
                # So that they are not kept until the next call arrives.
                del call, args


_dispatcher: _Dispatcher | None = None
_starting = threading.Lock()


def start() -> None:
    """Make sure that the dispatcher runs; call this before any post()."""
    global _dispatcher
    with _starting:
        if _dispatcher is None:
            _dispatcher = _Dispatcher()


def post(call: Callable[..., object], *args: Any) -> None:
    """Run call(*args) on the dispatcher; for any thread, also those of C."""
    dispatcher = _dispatcher
    if dispatcher is not None:
        dispatcher.post(call, args)


def _forked() -> None:
    # The child has copies of all objects, but none of the threads. The
    # eventfd stays open: it is shared with the parent, and the hub of a green
    # child may still have it registered.
    global _dispatcher, _starting
    _dispatcher = None
    _starting = threading.Lock()
    contexts.clear()


os.register_at_fork(after_in_child=_forked)
