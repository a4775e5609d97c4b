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

"""Waiting for threads, and giving way to them; in green processes, too."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# How many items are worked through before other threads run: a few
# milliseconds for a few microseconds each.
SLICE = 500


def join(thread: threading.Thread, seconds: float | None) -> None:
    """Wait until a thread has ended.

    Thread.join() of a green thread raises eventlet's Timeout on Python 3.13
    when the time is over (eventlet 0.41): hence this function.

    :param seconds: to wait at most; None: as long as it takes
    """
    if seconds is None:
        thread.join()
        return
    deadline = time.monotonic() + seconds
    pause = 0.001
    while thread.is_alive():
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)


def in_slices(items: Sequence[T], size: int = SLICE) -> Iterator[T]:
    """Yield items; after every so many of them other threads run.

    A green thread would otherwise hold up all others while it works through
    a long list, and a native one would hold the interpreter's lock for longer
    than it has to.
    """
    for begin in range(0, len(items), size):
        if begin:
            time.sleep(0)
        yield from items[begin : begin + size]
