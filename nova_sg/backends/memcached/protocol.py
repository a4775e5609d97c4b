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

"""memcached's text protocol: commands as bytes, and the reading of answers.

No connection is opened here, and no error is explained.
"""

from __future__ import annotations

import operator
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

#: Bytes of commands that are sent before the first of their answers is read.
#: A server stops reading while its answers are not taken; so more could
#: leave both sides waiting for each other.
WINDOW = 16 * 1024
# Bytes read at a time.
_READ = 64 * 1024
# The end of an answer with values.
_END = b"\r\nEND\r\n"
# Of a shorter one each line is checked as it arrives.
_SHORT = 4096
_ERRORS = b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"

_WANTS_PASSWORD = (
    "it wants a user name and a password (memcached -Y): set [cache] username "
    "and password"
)


class Closed(ConnectionError):
    """The server has closed the connection."""


class Refused(Exception):
    """The server refused one command, and works."""


class Command(NamedTuple):
    """A command that may be sent together with others.

    It may be executed twice; that makes no difference.
    """

    #: The method of a server that does the same, and its arguments.
    name: str
    args: tuple
    request: bytes
    #: Reads the answer from a connection.
    read: Callable[[Connection], Any]


def get(keys: Iterable[str]) -> Command:
    """Read the values of those keys that exist: {key: bytes}."""
    keys = list(keys)
    request = f"get {' '.join(keys)}\r\n".encode()
    return Command("get", (keys,), request, Connection.read_values)


def set_(key: str, value: bytes, expire: int = 0) -> Command:
    """Set a value, for expire seconds; 0: for good."""
    return Command(
        "set", (key, value, expire), store("set", key, value, expire), _set
    )


def renew(key: str, value: bytes, expire: int) -> Command:
    """Replace a value, for expire seconds.

    The result is whether there was one; if not, nothing is written.
    """
    return Command(
        "renew",
        (key, value, expire),
        store("replace", key, value, expire),
        Connection.read_stored,
    )


def append(key: str, line: bytes, begin: bool) -> Command:
    """Add a line to a list.

    The result is False if the list did not exist, or if it was to be begun
    and existed.

    :param begin: whether to begin the list
    """
    verb = "add" if begin else "append"
    return Command(
        "append",
        (key, line),
        store(verb, key, line),
        Connection.read_stored,
    )


def keep(key: str, value: bytes, expire: int, begin: bool) -> Command:
    """Keep a value for expire more seconds, or add it.

    :param begin: whether to add it
    """
    request = f"touch {key} {expire}\r\n".encode()
    if begin:
        request = store("add", key, value, expire)
    return Command(
        "keep", (key, value, expire), request, Connection.read_stored
    )


def store(verb: str, key: str, value: bytes, expire: int = 0) -> bytes:
    """Return the request that stores a value."""
    head = f"{verb} {key} 0 {expire} {len(value)}\r\n"
    return b"%b%b\r\n" % (head.encode(), value)


def _set(connection: Connection) -> None:
    if not connection.read_stored():
        raise Refused("the value was not stored")


class Connection:
    """A connection, and what has arrived on it.

    :param link: the socket, with its timeout
    :param timeout: seconds to wait for each answer
    """

    def __init__(self, link: socket.socket, timeout: float) -> None:
        self._timeout = timeout
        self._deadline = 0.0
        self._buffer = b""
        #: The socket, for what uses it between two requests.
        self.link = link
        #: Whether the server has answered on this connection.
        self.answered = False

    def fileno(self) -> int:
        """Return the file descriptor, to wait for an answer."""
        return self.link.fileno()

    def close(self) -> None:
        """Close it."""
        self.link.close()

    def send(self, request: bytes) -> None:
        """Send a request.

        :raises OSError: it was not sent
        """
        if self._buffer:
            raise OSError(f"unexpected answer {self._buffer[:100]!r}")
        self._extend()
        self.link.sendall(request)

    def call(self, request: bytes, read: Callable[[Connection], Any]) -> Any:
        """Send a request, and return what read() makes of the answer."""
        self.send(request)
        return read(self)

    def read_all(self, commands: Sequence[Command]) -> list[Any]:
        """Read the answers to commands that were sent.

        :returns: for each its result, or the Refused
        """
        results: list[Any] = []
        for command in commands:
            if results:
                self._extend()
            try:
                results.append(command.read(self))
            except Refused as refused:
                results.append(refused)
        self.answered = True
        return results

    # -- answers

    def read_line(self) -> bytes:
        """Read a line, without its end."""
        while True:
            line, end, rest = self._buffer.partition(b"\r\n")
            if end:
                self._buffer = rest
                return line
            self._receive()

    def read_stored(self) -> bool:
        """Read whether a value was stored, or deleted, or touched.

        :raises Refused: the server cannot store it
        """
        line = self.read_line()
        if line in (b"STORED", b"DELETED", b"TOUCHED"):
            return True
        if line in (b"NOT_STORED", b"NOT_FOUND", b"EXISTS"):
            return False
        if line.startswith(b"SERVER_ERROR"):
            raise Refused("the value was not stored")
        refuse_answer(line)

    def read_values(self) -> dict[str, bytes]:
        """Read values: {key: bytes}. Flags are ignored."""
        return self.read_raw_values(b"")[1] or {}

    def read_raw_values(
        self, before: bytes
    ) -> tuple[bytes, dict[str, bytes] | None]:
        """Read values whose last answer is known.

        :param before: the bytes of that answer; empty: not known
        :returns: the bytes of the answer, if it came in one piece, or b"";
            and the values, in the order of the answer, or None: there are
            values of the same keys as before, of the same lengths
        """
        buffer = self._take_until_end()
        if before and buffer == before:
            self._buffer = b""
            return buffer, None
        if buffer.endswith(b"\r\n"):
            # Nearly always that is the whole answer, and no value has such
            # bytes.
            headers, values = columns(buffer)
            if before:
                old_headers, old = columns(before)
                if headers == old_headers and all(
                    map(operator.eq, map(len, values), map(len, old))
                ):
                    self._buffer = b""
                    return buffer, None
            found = _pair(headers, values)
            if found is not None:
                self._buffer = b""
                return buffer, found
        return b"", self._read_each(buffer)

    def _take_until_end(self) -> bytes:
        """Return what has arrived, once it may be a whole answer."""
        if not self._buffer:
            self._receive()
        parts = [self._buffer]
        while not _may_be_whole(parts):
            self._buffer = b""
            self._receive()
            if len(self._buffer) > len(_END):
                parts.append(self._buffer)
            else:
                # What is looked for may be in several parts.
                parts = [b"".join([*parts, self._buffer])]
        self._buffer = b"".join(parts)
        return self._buffer

    def _read_each(self, buffer: bytes) -> dict[str, bytes]:
        """Read values one after the other, by their lengths."""
        found: dict[str, bytes] = {}
        at = 0
        while True:
            end = buffer.find(b"\r\n", at)
            if end >= 0:
                line = buffer[at:end]
                if line == b"END":
                    self._buffer = buffer[end + 2 :]
                    return found
                words = line.split()
                if len(words) < 4 or words[0] != b"VALUE":
                    refuse_answer(line)
                begin = end + 2
                end = begin + int(words[3])
                if len(buffer) >= end + 2:
                    found[words[1].decode()] = buffer[begin:end]
                    at = end + 2
                    continue
            parts, missing = [buffer[at:]], max(1, end + 2 - len(buffer))
            at = 0
            while missing > 0:
                self._buffer = b""
                self._receive()
                parts.append(self._buffer)
                missing -= len(self._buffer)
            self._buffer = buffer = b"".join(parts)

    def await_bytes(self, timeout: float) -> bool:
        """Wait for the first bytes of an answer.

        :param timeout: seconds
        :returns: whether a read would return, or fail, at once
        """
        if self._buffer:
            return True
        self.link.settimeout(timeout)
        try:
            self._receive()
        except TimeoutError:
            return False
        except OSError:
            # The next read fails, too.
            return True
        finally:
            self.link.settimeout(self._timeout)
        return True

    def give_up(self) -> None:
        """Have the next read fail if its answer has not arrived."""
        self._deadline = 0.0

    def _extend(self) -> None:
        # A server that hangs is found by the socket's own timeout. This one
        # is for a server that sends a few bytes now and then.
        self._deadline = time.monotonic() + 2 * self._timeout

    def _receive(self) -> None:
        """Wait for more bytes."""
        if time.monotonic() > self._deadline:
            raise TimeoutError()
        more = self.link.recv(_READ)
        if not more:
            raise Closed("the server closed the connection")
        self._buffer += more


def _may_be_whole(parts: list[bytes]) -> bool:
    """Whether an answer with values may end in the last part."""
    last = parts[-1]
    if len(parts) > 1:
        last = parts[-2][-len(_END) :] + last
    elif last.startswith(_END[2:]):
        return True
    if _END in last:
        return True
    if not last.endswith(b"\r\n"):
        return False
    if sum(map(len, parts)) < _SHORT:
        # It is looked at line by line.
        return True
    # An error is one line, and the last one.
    lines = b"".join(parts).rsplit(b"\r\n", 2)
    return lines[-2].startswith(_ERRORS)


def columns(answer: bytes) -> tuple[list[bytes], list[bytes]]:
    """Split an answer, to what looks like its headers and its values.

    The last header is that of the end.
    """
    lines = answer.split(b"\r\n")
    return lines[::2], lines[1:-1:2]


def _pair(
    headers: list[bytes], values: list[bytes]
) -> dict[str, bytes] | None:
    """Return the values of an answer that columns() has split.

    :returns: None: that was not all of one answer
    """
    if headers[-1] != b"END" or len(headers) != len(values) + 1:
        return None
    found = {}
    for header, value in zip(headers, values, strict=False):
        words = header.split()
        if len(words) < 4 or words[0] != b"VALUE":
            return None
        if int(words[3]) != len(value):
            return None
        found[words[1].decode()] = value
    return found


def refuse_answer(line: bytes) -> NoReturn:
    """Raise what a line means that is no answer to the command."""
    if line.startswith(b"CLIENT_ERROR unauth"):
        raise OSError(_WANTS_PASSWORD)
    raise OSError(f"unexpected answer {line[:100]!r}")
