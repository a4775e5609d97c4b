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

"""The locks and notes of groups, on all servers of the group.

A process has a lock if most servers of the group show it as the holder. So a
lock takes two of three servers, both of two, or the only one. A server that is
restarted loses a lock, and takes the next holder. If most servers lost it, its
holder has not renewed it, but taken it anew, and waits as any new holder does:
another process may have had it meanwhile. Any two majorities have a server in
common. So, whichever servers are restarted, of two processes that had a
majority one after the other the later one waits until the earlier one no
longer relies on the lock.

A note has the time at which it was written, by the clock of the process that
wrote it, and the newest counts. A process keeps in mind the newest that it has
read, and writes it to servers that have lost it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable

from nova_sg import exception
from nova_sg.backends.base import Lock
from nova_sg.backends.memcached import values
from nova_sg.backends.memcached.replicas import Replicas, Server

# Seconds for which a server keeps that a lock was released.
RELEASED_LIFETIME = 7 * 24 * 3600
# What a released lock has in the place of a holder.
_FREE = "free"
_HELD = "held "


class Locks:
    """The locks and notes of all groups."""

    def __init__(self, replicas: Replicas, codec: values.Codec) -> None:
        self._replicas = replicas
        self._codec = codec
        # By group: the newest note, and when it was written.
        self._notes: dict[str, tuple[int, str]] = {}

    def acquire(self, group: str, holder: str, seconds: float) -> Lock:
        """As Driver.acquire()."""
        key, replicas = values.lock_key(group), self._replicas.of(group)

        def take(old: bytes) -> bytes | None:
            if self._read(key, old) not in ("", _FREE, _HELD + holder):
                return None
            return self._codec.lines(key, [_HELD + holder])

        def give_back(old: bytes) -> bytes | None:
            # Not as if it had been released by a holder.
            if self._read(key, old) != _HELD + holder:
                return None
            return self._codec.lines(key, [])

        # memcached counts whole seconds, and may be early by one.
        lifetime = math.ceil(seconds) + 1
        found = {
            server: (self._read(key, old), self._read(key, new))
            for server, (old, new) in self._replicas.gather(
                {s: s.exchange(key, take, lifetime) for s in replicas}
            ).items()
        }
        ours = _HELD + holder
        most = len(replicas) // 2 + 1
        if [now for _, now in found.values()].count(ours) >= most:
            before = [old for old, _ in found.values()]
            return Lock(
                holder,
                clean=before.count(_FREE) >= most,
                renewed=before.count(ours) >= most,
            )
        new = {
            server: server.exchange(key, give_back, 1)
            for server, (old, now) in found.items()
            if now == ours != old
        }
        if new:
            self._replicas.gather(new)
        others = [
            now.removeprefix(_HELD)
            for _, now in found.values()
            if now.startswith(_HELD) and now != ours
        ]
        # Of two that have one server each none has it.
        return Lock(max(others, key=others.count, default=""))

    def release(self, group: str, holder: str) -> None:
        """As Driver.release()."""
        key = values.lock_key(group)

        def free(old: bytes) -> bytes | None:
            if self._read(key, old) != _HELD + holder:
                return None
            return self._codec.lines(key, [_FREE])

        self._replicas.gather(
            {
                server: server.exchange(key, free, RELEASED_LIFETIME)
                for server in self._replicas.of(group)
            }
        )

    def _read(self, key: str, value: bytes) -> str:
        """Return what a lock shows; empty: nothing that is valid."""
        found, _ = self._codec.read_lines(key, value)
        return next(iter(found)) if len(found) == 1 else ""

    # -- notes

    def read_note(self, group: str) -> str:
        """As Driver.read_note()."""
        return self._newest(group)[1]

    def write_note(self, group: str, text: str) -> None:
        """As Driver.write_note()."""
        at = max(int(time.time() * 1000), self._newest(group)[0] + 1)
        self._write_note(group, self._replicas.of(group), (at, text))

    def _newest(self, group: str) -> tuple[int, str]:
        key = values.note_key(group)
        answers = self._replicas.gather(
            {s: s.get([key]) for s in self._replicas.of(group)}
        )
        found = {
            server: self._read_note(key, answer.get(key, b""))
            for server, answer in answers.items()
        }
        newest = max(*found.values(), self._notes.get(group, (0, "")))
        self._notes[group] = newest
        lacking = [server for server, note in found.items() if note != newest]
        if lacking:
            # A server that takes no note does not make it unknown.
            with contextlib.suppress(exception.BackendError):
                self._write_note(group, lacking, newest)
        return newest

    def _write_note(
        self, group: str, replicas: Iterable[Server], note: tuple[int, str]
    ) -> None:
        key, (at, text) = values.note_key(group), note
        line = self._codec.lines(key, [f"{at} {text}"])

        def change(old: bytes) -> bytes:
            return line if self._read_note(key, old)[0] < at else old

        self._replicas.gather({s: s.update(key, change) for s in replicas})

    def _read_note(self, key: str, value: bytes) -> tuple[int, str]:
        """Return when a note was written, in ms, and its text."""
        at, _, text = self._read(key, value).partition(" ")
        valid = at.isascii() and at.isdigit() and len(at) < 16
        return (int(at), text) if valid else (0, "")
