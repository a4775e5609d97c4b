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

"""The C client's log.

By default it goes to Python's logging, as `nova_sg.zookeeper.client` and at
matching levels; set_log_stream() sends it to a file, as python-zookeeper
does.

The C client's log callback is not used: it would be called on the C client's
I/O thread, which would then wait for the GIL and send no pings. Instead C
writes to a pipe that never blocks, and a Python thread reads it. Messages for
which the pipe has no space are lost.
"""

import fcntl
import logging
import os
import re
import selectors
import threading
from typing import Any

from nova_sg.zookeeper import clib, constants, convert

LOG = logging.getLogger("nova_sg.zookeeper.client")
# If a program does not configure logging, Python prints warnings to stderr.
# The C client logs several for each server that is down.
LOG.addHandler(logging.NullHandler())

_LEVELS = {
    b"ZOO_ERROR": logging.ERROR,
    b"ZOO_WARN": logging.WARNING,
    b"ZOO_INFO": logging.INFO,
    b"ZOO_DEBUG": logging.DEBUG,
}
# date time:pid(thread):LEVEL@function@line: message
_LINE = re.compile(
    rb"^\S+ [\d:,]+:\d+\(0x[0-9a-f]+\):(ZOO_[A-Z]+)@(\w+)@\d+: ?(.*)$")

_PIPE_SIZE = 1 << 20


class _Stream:
    """The FILE * to which C writes as long as the process lives.

    C threads may write at any moment. So it is never closed or replaced: only
    the file behind its descriptor changes.
    """

    def __init__(self, previous: "_Stream | None") -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:
            pass  # the default size, 64 KiB, is enough
        if previous is None:
            library = clib.load()
            self.fd = os.dup(self._writer)
            stream = library.libc.fdopen(self.fd, b"w")
            if stream == library.ffi.NULL:
                raise OSError(library.ffi.errno, "fdopen")
            library.zk.zoo_set_log_stream(stream)
        else:
            self.fd = previous.fd
            self.redirect(None)
        threading.Thread(
            target=self._run, name="nova_sg.zookeeper log",
            daemon=True).start()

    def redirect(self, target: int | None) -> None:
        os.dup2(
            self._writer if target is None else target, self.fd,
            inheritable=False)

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._reader, selectors.EVENT_READ)
        rest = b""
        while True:
            selector.select()
            if _stream is not self:
                return  # in the child of a fork: the pipe is the parent's
            try:
                chunk = os.read(self._reader, 65536)
            except BlockingIOError:
                continue
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    _log(line)


def _log(line: bytes) -> None:
    match = _LINE.match(line)
    if match is None:
        # The rest of a message of several lines.
        LOG.info("%s", convert.from_bytes(line))
        return
    level, function, message = match.groups()
    LOG.log(
        _LEVELS.get(level, logging.INFO), "%s: %s",
        convert.from_bytes(function), convert.from_bytes(message))


_stream: _Stream | None = None
_inherited: _Stream | None = None
_level: int | None = None
_lock = threading.Lock()


def start() -> None:
    """Direct C's log to Python's logging. Called by every init().

    Unless the program has chosen a level, C gets that of the Python logger:
    then C does not write messages that are not logged.
    """
    global _stream
    with _lock:
        if _stream is None:
            _stream = _Stream(_inherited)
        if _level is None:
            clib.load().zk.zoo_set_debug_level(_matching_level())


def _matching_level() -> int:
    # Not LOG_LEVEL_DEBUG, which makes several messages for each request: only
    # set_debug_level() turns it on.
    if LOG.isEnabledFor(logging.INFO):
        return constants.LOG_LEVEL_INFO
    if LOG.isEnabledFor(logging.WARNING):
        return constants.LOG_LEVEL_WARN
    return constants.LOG_LEVEL_ERROR


def set_debug_level(level: int) -> None:
    """Set how much the C client logs.

    :param level: LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO or
        LOG_LEVEL_DEBUG.
    """
    global _level
    clib.load().zk.zoo_set_debug_level(level)
    _level = level


def set_log_stream(stream: Any) -> None:
    """Send the C client's log to a file, in the C client's own format.

    The setting is for the whole process. The stream may be closed afterwards:
    the log still goes to its file. None sends the log to Python's logging
    again.

    :raises ValueError: when it is not an open file.
    """
    if stream is None:
        target = None
    else:
        try:
            stream.flush()
            target = stream.fileno()
        except (AttributeError, OSError) as exc:
            raise ValueError("Must supply a file object") from exc
    start()
    with _lock:
        assert _stream is not None
        _stream.redirect(target)


def _forked() -> None:
    global _stream, _inherited, _lock
    _inherited = _stream or _inherited
    _stream = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
