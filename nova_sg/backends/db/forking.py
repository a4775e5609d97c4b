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

"""No process forks while one of its threads is inside SQLite.

SQLite has locks for all of a process, such as that of its memory. The child
of a fork has none of its parent's other threads: a lock that one of them held
in that moment is never released there, and the child would wait for it for
ever when it first opens a database of its own.

So a fork waits until all threads have come out, and none enters meanwhile.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator

# Seconds for which a fork waits. A statement does not wait for others' locks,
# and takes milliseconds.
PATIENCE = 10.0


class _Gate:
    """Many are inside, or one is forking."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        # How many threads are about to fork.
        self._forking = 0
        # How often this thread has entered.
        self._own = threading.local()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside; again and again, if need be."""
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
        """Wait until no other thread is inside, and keep them all out."""
        self._changed.acquire()
        self._forking += 1
        limit = time.monotonic() + PATIENCE
        while self._inside > min(1, self._depth()):
            left = limit - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)

    def open(self) -> None:
        """Let them in again."""
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    def after_fork(self) -> None:
        """Have no other thread inside: in the child there is none."""
        self._changed = threading.Condition()
        self._inside = min(1, self._depth())
        self._forking = 0


_gate = _Gate()
#: With it a thread is inside SQLite.
inside = _gate.entered

os.register_at_fork(
    before=_gate.close,
    after_in_parent=_gate.open,
    after_in_child=_gate.after_fork,
)
