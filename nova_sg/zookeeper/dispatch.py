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

Here: the queue that C threads append to, the dispatcher that empties it,
the registry of what C was given as contexts, and what is waited on.
Not here: the callbacks that C calls (callbacks.py).

Two worlds meet in this module. The C client calls back on threads of its
own. Such a thread may hold the GIL, but under eventlet it may touch nothing
green: no lock, no logging, no thread-local. So it appends to a deque and
writes to an eventfd, and nothing else. One dispatcher a process waits for
the eventfd with the standard library's `selectors`, which under eventlet
is the hub (and natively is epoll, with no limit on descriptor numbers). The
dispatcher is a plain threading.Thread: a green thread under eventlet.

The dispatcher must never wait for a user's code, since every synchronous
call in the process waits for the dispatcher. It wakes waiters, and hands
callbacks to the session's delivery thread (sessions.py). The exception are
callbacks wrapped in Immediate, by which their author promises to be quick.
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

# What C knows as a number. Numbers are never used twice, so that a number
# that comes back late finds nothing instead of something else.
contexts: dict[int, Any] = {}
new_id = itertools.count(1).__next__


class Immediate:
    """A callback that runs on the dispatcher itself, without a thread.

    It must return at once and must not block: no call of this package, no
    lock that is held across such a call. Setting an event or appending to
    a queue is what it is for.
    """

    __slots__ = ("func",)

    def __init__(self, func: Callable[..., object]) -> None:
        self.func = func


class Reply:
    """What one thread waits for and the dispatcher brings, once."""

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
        """Wait for set(); False when it did not happen in time (s)."""
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
        # The flag saves the system call while the dispatcher is known to
        # be on its way. It is cleared before the queue is emptied: what is
        # appended in between is either seen or signalled again.
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
                # A fork was made: the eventfd is the parent's, and not to
                # be read by the child's copy of this green thread.
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
                # Not kept alive until the next one comes.
                del call, args


_dispatcher: _Dispatcher | None = None
_starting = threading.Lock()


def start() -> None:
    """Make sure that the dispatcher runs. To be called before any post."""
    global _dispatcher
    with _starting:
        if _dispatcher is None:
            _dispatcher = _Dispatcher()


def post(call: Callable[..., object], *args: Any) -> None:
    """Have call(*args) run on the dispatcher. For any thread, C's too."""
    dispatcher = _dispatcher
    if dispatcher is not None:
        dispatcher.post(call, args)


def _forked() -> None:
    # The child has a copy of everything and none of the threads. The
    # eventfd stays open: it is shared with the parent, and a green child's
    # hub may still have it registered.
    global _dispatcher, _starting
    _dispatcher = None
    _starting = threading.Lock()
    contexts.clear()


os.register_at_fork(after_in_child=_forked)
