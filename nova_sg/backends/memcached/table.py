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

"""The values of many members, read again and again: only changes are returned.

Thousands of values are read every few seconds, and most are the same as
before. An answer is kept as it arrived, and the next one is compared with it,
column by column. So a value with the same bytes as before is not parsed again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from nova_sg.backends.memcached import local, protocol
from nova_sg.backends.memcached.protocol import Connection
from nova_sg.backends.memcached.replicas import Replicas, Server

# Keys in one request: a longer one would hold up other callers, and other
# threads while its answer is read.
CHUNK = 1000
# Requests more than are needed after which all are made anew.
SPARE = 8


class Unanswered(Exception):
    """Some servers did not answer all requests."""

    def __init__(self, missing: Collection[Server]) -> None:
        super().__init__()
        self.servers = missing


class _Answer(NamedTuple):
    """What one server answered to a request."""

    #: The bytes of the answer; empty: the values are in `values`.
    raw: bytes
    #: The indexes of the keys that have a value.
    present: Sequence[int]
    values: Sequence[bytes] = ()

    def column(self, length: int) -> list[bytes | None]:
        """Return the value of each key; None: there is none."""
        values = self.values
        if self.raw:
            values = protocol.columns(self.raw)[1]
        column: list[bytes | None] = [None] * length
        for index, value in zip(self.present, values, strict=True):
            column[index] = value
        return column


_NOTHING = _Answer(b"", ())


class _Request:
    """A request for up to CHUNK values, and its last answers."""

    def __init__(
        self, hosts: Sequence[str], key: Callable[[str], str]
    ) -> None:
        self.hosts = hosts
        # Its keys are not kept: they take twice the memory.
        self._request = protocol.get(map(key, hosts)).request
        self._last: dict[Server, _Answer] = {}

    def command(self, server: Server) -> protocol.Command:
        """Return the command for a server."""
        last = self._last.get(server, _NOTHING)
        keys: Sequence[str] = ()
        if isinstance(server, local.LocalServer):
            keys = self._keys()
        read = functools.partial(_read, last.raw)
        return protocol.Command("get", (keys,), self._request, read)

    def _keys(self) -> list[str]:
        return self._request.decode().split()[1:]

    def changes(
        self, answers: dict[Server, tuple[bytes, dict[str, bytes] | None]]
    ) -> Iterator[tuple[str, dict[Server, bytes]]]:
        """Take in answers; return each host with a value that has changed.

        :param answers: what _read() returned, of all servers
        """
        changed: set[int]
        before, self._last = self._last, {
            server: self._answer(server, answer)
            for server, answer in answers.items()
        }
        if not before:
            # What these hosts had in another request is not known here.
            before = dict.fromkeys(answers, _NOTHING)
            changed = set(range(len(self.hosts)))
        elif all(before.get(s) is one for s, one in self._last.items()):
            return
        else:
            changed = set()
        length = len(self.hosts)
        columns = {s: one.column(length) for s, one in self._last.items()}
        for server, column in columns.items():
            old = before.get(server, _NOTHING)
            if old is not self._last[server]:
                changed.update(
                    index
                    for index, (new, value) in enumerate(
                        zip(column, old.column(length), strict=True)
                    )
                    if new != value
                )
        for index in changed:
            yield self.hosts[index], {
                server: value
                for server, column in columns.items()
                if (value := column[index]) is not None
            }

    def _answer(self, server: Server, answer: Any) -> _Answer:
        if isinstance(answer, dict):
            # Of a server inside the process.
            raw, found = b"", answer
        else:
            raw, found = answer
        last = self._last.get(server, _NOTHING)
        if found is None:
            return last if raw == last.raw else last._replace(raw=raw)
        keys = self._keys()
        present: Sequence[int] = range(len(keys))
        if len(found) < len(keys):
            present = [n for n in present if keys[n] in found]
        values = [found[keys[n]] for n in present]
        if list(found.values()) == values:
            return _Answer(raw, present, () if raw else values)
        # Not in the order of the request.
        return _Answer(b"", present, values)


def _read(
    before: bytes, connection: Connection
) -> tuple[bytes, dict[str, bytes] | None]:
    return connection.read_raw_values(before)


class Table:
    """The values of members on the servers of their group.

    :param key: returns the key of a host's value
    """

    def __init__(self, key: Callable[[str], str]) -> None:
        self.key = key
        self._hosts: frozenset[str] = frozenset()
        self._requests: list[_Request] = []

    def read(
        self,
        replicas: Replicas,
        asked: Collection[Server],
        hosts: frozenset[str],
    ) -> Iterator[tuple[str, dict[Server, bytes]]]:
        """Read the values of hosts; return those that have changed.

        After an exception the table must not be used again.

        :param asked: the servers, always the same
        :returns: each host with its values by server, which may be none. A
            host may be returned without a change. What is known of a host
            that is not read is forgotten
        :raises Unanswered: some of the servers do not answer
        :raises BackendError: no server answers
        """
        self._change_hosts(hosts)
        for number, request in enumerate(self._requests):
            if number:
                # Let other threads run: there may be many thousand values.
                time.sleep(0)
            answers = replicas.execute(
                {server: request.command(server) for server in asked}
            )
            if len(answers) < len(asked):
                raise Unanswered(asked - answers.keys())
            yield from request.changes(answers)

    def _change_hosts(self, hosts: frozenset[str]) -> None:
        """Have the requests ask for these hosts."""
        if hosts == self._hosts:
            return
        new, gone = hosts - self._hosts, self._hosts - hosts
        self._hosts = hosts
        kept = [r for r in self._requests if gone.isdisjoint(r.hosts)]
        if len(kept) + len(new) / CHUNK > len(hosts) / CHUNK + SPARE:
            kept = []
        if len(kept) < len(self._requests):
            new = hosts.difference(*(request.hosts for request in kept))
        ordered = sorted(new)
        self._requests = kept + [
            _Request(ordered[start : start + CHUNK], self.key)
            for start in range(0, len(ordered), CHUNK)
        ]
