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

"""Which members are forced down: read, remembered, and written again.

A server that is restarted or wiped loses all marks, and a mark that is not
there says nothing: the operator's command that takes it back is a mark, too.
So a process keeps in mind the marks that it has read, and writes them to each
server that lacks them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import exception
from nova_sg.backends.memcached import forced_down, values
from nova_sg.backends.memcached.forced_down import Mark
from nova_sg.backends.memcached.replicas import Replicas, Server

LOG = logging.getLogger(__name__)

# Seconds without reading after which a process no longer relies on the marks
# that it has in mind: one that was suspended may have missed a newer mark,
# and that mark its end.
MEMORY = forced_down.LIFETIME / 2
# Seconds between two attempts of an observer to write marks to a server.
PAUSE = 5.0


class Marks:
    """The marks of all groups, as this process knows them."""

    def __init__(self, replicas: Replicas, codec: values.Codec) -> None:
        self._replicas = replicas
        self._codec = codec
        self._lock = threading.Lock()
        # By group: when they were last read, and the marks.
        self._known: dict[str, tuple[float, dict[str, Mark]]] = {}
        # When marks were last written by restore_soon(), monotonic.
        self._written: dict[tuple[str, Server], float] = {}

    def take_in(
        self, group: str, answers: Mapping[Server, Mapping[str, bytes]]
    ) -> tuple[dict[str, Mark], list[Server], int]:
        """Take in the marks that servers have.

        :param answers: from each server: {key: value}
        :returns: all marks that are known, the servers that lack some of
            them, and how many lines are no marks
        """
        key = values.forced_key(group)
        by_server, all_refused = {}, 0
        found: dict[str, Mark] = {}
        for server, answer in answers.items():
            marks, refused = forced_down.read(
                self._codec, key, answer.get(key, b"")
            )
            by_server[server] = marks
            found = forced_down.merge(found, marks)
            all_refused += refused
        known = self._remember(group, found)
        lacking = [
            server
            for server, marks in by_server.items()
            if any(marks.get(host) != mark for host, mark in known.items())
        ]
        return known, lacking, all_refused

    def _remember(
        self, group: str, marks: Mapping[str, Mark]
    ) -> dict[str, Mark]:
        """Return these marks, and those that were known before."""
        # It goes on while the host is suspended.
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        with self._lock:
            read_at, known = self._known.get(group, (now, {}))
            if now - read_at > MEMORY:
                known = {}
            known = forced_down.pruned(forced_down.merge(known, marks))
            self._known[group] = now, known
        return known

    def restore(
        self,
        group: str,
        answers: Mapping[Server, Mapping[str, bytes]] | None = None,
    ) -> dict[str, Mark]:
        """Read the marks from all servers; write them where they lack.

        :param answers: from each server: {key: value}; None: ask them
        :returns: all marks that are known, by host
        :raises BackendError: no server answers
        """
        if answers is None:
            answers = self._read(group)
        known, lacking, _ = self.take_in(group, answers)
        if lacking:
            # A server that takes no mark must not keep a member from
            # reporting.
            with contextlib.suppress(exception.BackendError):
                self._replicas.gather(self._write(group, lacking, known))
        return known

    def restore_soon(
        self, group: str, lacking: Iterable[Server], known: Mapping[str, Mark]
    ) -> None:
        """Begin to write marks where they lack, and do not wait."""
        now = time.monotonic()
        due = [
            server
            for server in lacking
            if now - self._written.get((group, server), -PAUSE) >= PAUSE
        ]
        self._written.update({(group, server): now for server in due})
        self._write(group, due, known)

    def command(
        self, group: str, host: str, forced: bool, forgotten: bool = False
    ) -> None:
        """Write whether a member is forced down.

        :param forgotten: whether the member is removed, so that no mark is
            needed unless it has one
        :raises BackendError: no server answers
        """
        replicas = self._replicas.of(group)
        known, _, _ = self.take_in(group, self._read(group))
        if forgotten and host not in known:
            return
        # Also if no mark is known: another process may know one, and write
        # it to a server that was wiped.
        mark = forced_down.newer_mark(known, host, forced, time.time())
        known = self._remember(group, {host: mark})
        self._replicas.gather(self._write(group, replicas, known))
        if forced:
            try:
                self._have_it_read(group, host, replicas)
            except exception.BackendError as error:
                # It reads the mark later.
                LOG.debug("Cannot have %s read its mark: %s", host, error)

    def _have_it_read(
        self, group: str, host: str, replicas: Iterable[Server]
    ) -> None:
        """Have a member read its mark with its next report.

        A member that finds its value missing reads the marks. So its value
        becomes its record, which observers use where there is no value.
        """
        key = values.member_key(group, host)
        record = values.record_key(group, host)
        answers = self._replicas.gather({s: s.get([key]) for s in replicas})
        writes = {}
        for server, answer in answers.items():
            try:
                report = self._codec.read_report(key, answer[key])
            except (KeyError, ValueError):
                continue
            if report.kind in (values.UP, values.DRAINING):
                report = report._replace(outage=None, unwell="")
                value = self._codec.write_report(record, report)
                # A server executes them in this order.
                writes[server, record] = server.set(
                    record, value, forced_down.LIFETIME
                )
                writes[server, key] = server.delete(key)
        self._replicas.gather(writes)

    def _read(self, group: str) -> dict[Server, dict[str, bytes]]:
        key = values.forced_key(group)
        return self._replicas.gather(
            {s: s.get([key]) for s in self._replicas.of(group)}
        )

    def _write(
        self, group: str, replicas: Iterable[Server], known: Mapping[str, Mark]
    ) -> dict[Server, Any]:
        key = values.forced_key(group)
        change = forced_down.merging(self._codec, key, known)
        return {server: server.update(key, change) for server in replicas}
