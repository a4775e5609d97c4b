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

"""Calls that block in C, each in an OS thread of its own.

zookeeper_init() may resolve names; zookeeper_close() waits for the server and
for the C client's threads. Both may take seconds. Under eventlet nothing may
block for seconds, and a threading.Thread is a green thread, which would block
the hub, too.

eventlet could make a real thread (tpool, patcher.original). But nothing here
may import eventlet, and where its patching stores the originals differs
between versions. pthread_create() always makes a thread of the operating
system, and cffi gives it a Python state for as long as it runs. The rules for
the C client's threads apply to such a thread: the function that it runs may
only call C and return a value.
"""

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

from nova_sg.zookeeper import callbacks, clib, dispatch

LOG = logging.getLogger("nova_sg.zookeeper")

# From <pthread.h>, the same in glibc and musl.
_PTHREAD_CREATE_DETACHED = 1
# More than any pthread_attr_t takes.
_ATTRIBUTES_SIZE = 256


@functools.cache
def _detached() -> Any:
    """Return the attributes of a detached thread, which is never joined.

    The thread has to be created detached. In glibc, up to 2.36 at least,
    pthread_detach() accesses a thread that may already have ended and been
    freed. With short threads this sometimes crashes the process.
    """
    library = clib.load_libc()
    attributes = library.ffi.new("char[]", _ATTRIBUTES_SIZE)
    library.libc.pthread_attr_init(attributes)
    library.libc.pthread_attr_setdetachstate(
        attributes, _PTHREAD_CREATE_DETACHED)
    return attributes


class Job:
    """One function in one OS thread.

    :ivar done: True once the function has returned or raised; may be read
        from any thread at any time.
    """

    __slots__ = ("_func", "_then", "done")

    def __init__(
            self, func: Callable[[], Any],
            then: Callable[[Any], object]) -> None:
        self._func = func
        self._then = then
        self.done = False

    def run(self) -> None:
        try:
            result = self._func()
        except Exception as error:
            # The dispatcher logs it: this thread must not.
            dispatch.post(_log_failure, self._func, error)
        else:
            dispatch.post(self._then, result)
        finally:
            self.done = True


def _log_failure(func: Callable[[], Any], error: Exception) -> None:
    LOG.error("%r failed in its thread", func, exc_info=error)


def run(func: Callable[[], Any], then: Callable[[Any], object]) -> Job:
    """Start func() in an OS thread; then(result) runs on the dispatcher.

    If func() raises an exception, that is logged, and then() is not called.

    :raises OSError: when no thread can be created.
    """
    library = clib.load_libc()
    job = Job(func, then)
    ident = dispatch.new_id()
    dispatch.contexts[ident] = job
    thread = library.ffi.new("unsigned long *")
    error = library.libc.pthread_create(
        thread, _detached(), callbacks.load().job, ident)
    if error:
        del dispatch.contexts[ident]
        raise OSError(error, os.strerror(error))
    return job
