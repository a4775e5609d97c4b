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

"""Noticing that a server has lost its values.

Another user of a server may wipe it (flush_all), and connections stay as they
are. So each server has a value for each group, the group's epoch: a random
name. A member asks for it after each report. If it is another one than
before, the server was wiped, and the member writes everything again.

The epoch also has the time of the group's newest mark, so that members read
the marks soon after one was made: see marks.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import NamedTuple

from nova_sg.backends.memcached import values
from nova_sg.backends.memcached.replicas import Replicas, Server


class Epoch(NamedTuple):
    """The epoch of a group on one server."""

    #: Another one after the server was wiped.
    name: str
    #: When the newest mark was made, as in forced_down.Mark; 0: no mark.
    marks_at: int


class Epochs:
    """The epochs of all groups."""

    def __init__(self, replicas: Replicas, codec: values.Codec) -> None:
        self._replicas = replicas
        self._codec = codec

    def read(
        self, group: str, replicas: Iterable[Server]
    ) -> dict[Server, Epoch]:
        """Return the epoch on each server that answers; make it if needed.

        :raises BackendError: no server answers
        """
        return self._exchange(group, replicas, None)

    def announce(
        self, group: str, replicas: Iterable[Server], marks_at: int
    ) -> None:
        """Have members read the marks with their next report.

        :raises BackendError: no server answers
        """
        self._exchange(group, replicas, marks_at)

    def _exchange(
        self, group: str, replicas: Iterable[Server], marks_at: int | None
    ) -> dict[Server, Epoch]:
        key = values.epoch_key(group)

        def change(old: bytes) -> bytes | None:
            epoch = self._parse(key, old)
            if epoch is not None and marks_at in (None, epoch.marks_at):
                return None
            name = secrets.token_hex(8) if epoch is None else epoch.name
            return self._codec.lines(key, [f"{name} {marks_at or 0}"])

        found = self._replicas.gather(
            {server: server.exchange(key, change, 0) for server in replicas}
        )
        epochs = {
            server: self._parse(key, new) for server, (_, new) in found.items()
        }
        return {s: epoch for s, epoch in epochs.items() if epoch is not None}

    def _parse(self, key: str, value: bytes) -> Epoch | None:
        """Read an epoch; None: this is none."""
        names, refused = self._codec.read_lines(key, value)
        if refused or len(names) != 1:
            return None
        name, _, marks_at = names.pop().partition(" ")
        if not (marks_at.isascii() and marks_at.isdigit()):
            return None
        return Epoch(name, int(marks_at[:15]))
