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

"""A process does not fork while one of its threads is inside SQLite.

SQLite has locks for the whole process, such as that of its memory allocator.
After a fork the child has only the thread that forked. A lock that another
thread held at that moment is never released in the child, which would wait
for it for ever when it first opens a database.

So a fork waits until all other threads have left SQLite, and no thread enters
it meanwhile.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

# Seconds for which a fork waits at most. A statement takes milliseconds, as it
# does not wait for locks of other processes.
PATIENCE = 10.0


class _Gate:
    """Many threads may be inside at a time, but none while one forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        # How many threads want to fork.
        self._forking = 0
        # How often each thread has entered.
        self._own = threading.local()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """A context in which this thread is inside; it may be nested."""
        depth = self._depth()
        if not depth:
            with self._changed:
                while self._forking:
                    self._changed.wait()
                self._inside += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if not depth:
                with self._changed:
                    self._inside -= 1
                    self._changed.notify_all()

    def _depth(self) -> int:
        return getattr(self._own, "depth", 0)

    def close(self) -> None:
        """Wait until no other thread is inside; keep all of them out."""
        self._changed.acquire()
        self._forking += 1
        limit = time.monotonic() + PATIENCE
        while self._inside > min(1, self._depth()):
            left = limit - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)

    def open(self) -> None:
        """Let threads in again."""
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    def after_fork(self) -> None:
        """Forget other threads: the child has none."""
        self._changed = threading.Condition()
        self._inside = min(1, self._depth())
        self._forking = 0


_gate = _Gate()
#: The context in which a thread may call SQLite.
inside = _gate.entered

os.register_at_fork(
    before=_gate.close,
    after_in_parent=_gate.open,
    after_in_child=_gate.after_fork,
)
