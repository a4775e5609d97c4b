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

"""The memcached driver: a member is a value that keeps being set.

What stands where in memcached is in nova_sg.backends.memcached.values.
"""

from __future__ import annotations

import concurrent.futures
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, grace
from nova_sg.backends import base
from nova_sg.backends.memcached import (
    changes,
    configured,
    doctor,
    marks,
    servers,
    values,
)
from nova_sg.backends.memcached import group as mc_group
from nova_sg.backends.memcached import replicas as mc_replicas
from nova_sg.backends.memcached.replicas import Server
from nova_sg.conf import CONF
from nova_sg.guard import keeper
from nova_sg.liveness.model import Refresh, ServerOutage

LOG = logging.getLogger(__name__)

# A record stays for so many seconds after its last refresh: a week.
RECORD_LIFE = 7 * 24 * 3600


class McDriver(base.Driver):
    """Reports by one set a server, observes by multi-gets.

    Times are those of each server's own clock.
    """

    name = "mc"
    characteristics = base.Characteristics(
        detects="a service, or a host, that no longer reaches memcached",
        bound="service_down_time + view_refresh_interval",
        blind=(
            "a service whose timer runs while its work is stuck; who was "
            "forced down, once all servers were restarted at the same time"
        ),
    )

    def __init__(self) -> None:
        self._servers = configured.make()
        self._local = isinstance(self._servers[0], servers.LocalServer)
        if self._local:
            LOG.warning(
                "memcached_servers names no server: this process knows only "
                "the members that joined in it"
            )
        self._codec = values.Codec(CONF.memcache.memcache_secret_key)
        self._replicas = mc_replicas.Replicas(
            self._servers, CONF.memcache.socket_timeout
        )
        self._changes = changes.Changes(self._codec)
        self._reader = mc_group.Reader(
            self._replicas, self._codec, self._changes
        )
        self._wills = keeper.Wills("mc")

    def backend_of(self, group: str) -> tuple[str, ...]:
        return tuple(server.address for server in self._replicas.of(group))

    # -- what I am

    def report(self, membership: base.Membership) -> None:
        expire = math.ceil(CONF.service_down_time) + 1
        self._write(
            membership,
            values.DRAINING if membership.draining else values.UP,
            # memcached counts in whole seconds: one more, so that no value
            # expires before service_down_time.
            lambda server, key, value: server.set(key, value, expire),
        )

    def withdraw(self, membership: base.Membership) -> None:
        membership.state.clear()
        self._wills.revoke(membership)
        self._write(
            membership,
            values.LEFT,
            lambda server, key, value: server.set(key, value, RECORD_LIFE),
        )

    def _write(
        self,
        membership: base.Membership,
        kind: str,
        store: Callable[[Server, str, bytes], concurrent.futures.Future],
    ) -> None:
        group, host = membership.group, membership.host
        key = values.member_key(group, host)
        replicas = self._replicas.of(group)
        self._replicas.read_clocks(replicas)
        reports = {
            server: _report(kind, membership, server) for server in replicas
        }
        written = {s: self._codec.report(key, reports[s]) for s in replicas}
        if kind != values.LEFT and self._wills.wanted():
            self._entrust(membership, key, reports, written)
        stored = self._replicas.gather(
            {s: store(s, key, written[s]) for s in replicas}
        )
        if membership.state.get("kind", values.UP) != kind:
            self._tell(group, stored)
        membership.state["kind"] = kind
        stale = [
            server
            for server in stored
            if self._is_stale(membership.state, server)
        ]
        if stale:
            self._list(membership, {s: reports[s] for s in stale})

    def _tell(self, group: str, told: Iterable[Server]) -> None:
        """Have observers that follow a group refresh at once."""
        key, value = self._changes.new(group)
        for server in told:
            # It delays no report: where it is lost they refresh soon.
            server.set(key, value, self._heard_for())

    def _entrust(
        self,
        membership: base.Membership,
        key: str,
        reports: Mapping[Server, values.Report],
        written: Mapping[Server, bytes],
    ) -> None:
        """Have the crash guard replace what is about to be written."""
        if self._local:
            self._wills.impossible("memcached_servers names no server")
            return
        # Later than the report, and not as late as anybody's next one.
        crashed = {
            server: report._replace(
                kind=values.CRASHED, at=report.at + 0.001, away=None
            )
            for server, report in reports.items()
        }
        places = []
        for server in written:
            assert isinstance(server, servers.RemoteServer)
            places.append(server.place)
        changed, news = self._changes.new(membership.group)
        self._wills.entrust(
            membership,
            apart=self.apart,
            changes=(changed, self._heard_for(), news),
            key=key,
            servers=places,
            value=list(written.values()),
            crashed=[
                self._codec.report(key, crashed[server]) for server in written
            ],
            life=RECORD_LIFE,
        )

    @staticmethod
    def _heard_for() -> int:
        """Return the seconds that the value lives which tells of crashes."""
        return 2 * math.ceil(CONF.service_down_time)

    def _is_stale(self, state: dict, server: Server) -> bool:
        """Whether server may have lost what _list() wrote there."""
        listed, generation = state.get(server, (None, 0))
        return (
            listed is None
            or generation != server.generation
            or time.monotonic() - listed > CONF.service_down_time / 2
        )

    def _list(
        self,
        membership: base.Membership,
        reports: Mapping[Server, values.Report],
    ) -> None:
        """See to it that observers find the member: record and index."""
        group, host = membership.group, membership.host
        record = values.record_key(group, host)
        index = values.index_key(group, host)
        found = self._replicas.gather(
            {s: s.get([index, values.GROUPS_KEY]) for s in reports}
        )
        wanted = ((index, host), (values.GROUPS_KEY, group))
        writes = self._mend_marks(group)
        for server, lists in found.items():
            for key, name in wanted:
                value = lists.get(key, b"")
                names, _ = self._codec.read_lines(key, value)
                if name in names:
                    continue
                if len(value) < values.LIST_LENGTH:
                    line = self._codec.line(key, name)
                    if value and not value.endswith(b"\n"):
                        # What others wrote there would spoil the line.
                        line = b"\n" + line
                    writes[server, key] = server.append(key, line)
                else:
                    # What others wrote there leaves no room for a line.
                    writes[server, key] = server.update(
                        key, self._adding(key, name)
                    )
            writes[server, record] = server.set(
                record,
                # It may stay for a week, and be read by who is older.
                self._codec.report(
                    record, reports[server]._replace(away=None)
                ),
                RECORD_LIFE,
            )
            if (self._wills.wanted() and not self._local) or grace.restart():
                changed, value = self._changes.new(group)
                writes[server, changed] = server.keep(
                    changed, value, self._heard_for()
                )
        done = self._replicas.gather(writes)
        for server in found:
            if (server, record) in done:
                membership.state[server] = (
                    time.monotonic(),
                    server.generation,
                )

    # -- what others are

    def observe(self, group: str) -> Refresh:
        return self._reader.observe(group)

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        self._changes.follow(group, wake)

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        self._changes.unfollow(group, wake)

    def outage(self, group: str, since: float) -> ServerOutage | None:
        return self._replicas.restarted(self._replicas.of(group), since)

    def groups(self) -> list[str]:
        found: set[str] = set()
        key = values.GROUPS_KEY
        answers = self._replicas.gather(
            {s: s.get([key]) for s in self._servers}
        )
        for answer in answers.values():
            names, _ = self._codec.read_lines(key, answer.get(key, b""))
            found |= names
        return list(found)

    # -- what operators say

    def force_down(self, group: str, host: str, forced: bool) -> None:
        self._require(group, host)
        self._replicas.gather(self._mark(group, host, forced))

    def forget(self, group: str, host: str) -> None:
        self._require(group, host)
        index = values.index_key(group, host)
        writes = self._mark(group, host, False)
        for server in self._replicas.of(group):
            change = self._without(index, host)
            writes[server, index] = server.update(index, change)
            gone = values.Report(
                values.GONE, mc_replicas.now(server), "gone"
            )
            for key in (
                values.member_key(group, host),
                values.record_key(group, host),
            ):
                writes[server, key] = server.set(
                    key, self._codec.report(key, gone), RECORD_LIFE
                )
        self._replicas.gather(writes)

    def _mark(
        self, group: str, host: str, forced: bool
    ) -> dict[Any, concurrent.futures.Future]:
        """Begin to write down whether host is forced down."""
        key = values.forced_key(group)
        replicas = self._replicas.of(group)
        known, _ = self._reader.read_marks(
            key, self._replicas.gather({s: s.get([key]) for s in replicas})
        )
        if not forced and host not in known:
            return {}
        new = marks.newer(known, host, forced, time.time())
        change = marks.merging(self._codec, key, {**known, host: new})
        return {(s, key): s.update(key, change) for s in replicas}

    def _mend_marks(
        self, group: str
    ) -> dict[Any, concurrent.futures.Future]:
        """Begin to tell each server what it has missed, or forgotten."""
        key = values.forced_key(group)
        replicas = self._replicas.of(group)
        found = self._replicas.gather({s: s.get([key]) for s in replicas})
        known, _ = self._reader.read_marks(key, found)
        change = marks.merging(self._codec, key, known)
        return {
            (server, key): server.update(key, change)
            for server, answer in found.items()
            if marks.read(self._codec, key, answer.get(key, b""))[0] != known
        }

    def _adding(self, key: str, name: str) -> Callable[[bytes], bytes]:
        """Return what adds a name to a list, and drops what is none."""

        def change(old: bytes) -> bytes:
            names, _ = self._codec.read_lines(key, old)
            return self._codec.lines(key, names | {name})

        return change

    def _without(self, key: str, name: str) -> Callable[[bytes], bytes]:
        """Return what removes a name from a list, and what is none."""

        def change(old: bytes) -> bytes:
            names, _ = self._codec.read_lines(key, old)
            return self._codec.lines(key, names - {name})

        return change

    def _require(self, group: str, host: str) -> None:
        if all(
            one.host != host for one in self.observe(group).observations
        ):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )

    def check(self) -> list[base.Finding]:
        if self._local:
            return [
                base.Finding(
                    False,
                    "memcached_servers",
                    "<None>: a process knows only the members that joined "
                    "in it, nova-sg knows none",
                    "Unless that is what you want, name your servers",
                )
            ]
        return doctor.check(self._replicas)

    def close(self) -> None:
        self._wills.revoke_all()
        self._changes.close()
        for server in self._servers:
            server.close()


def _report(
    kind: str, membership: base.Membership, server: Server
) -> values.Report:
    """Return a report as a server's clock has it."""
    at, away = mc_replicas.now(server), None
    if kind != values.LEFT and membership.away is not None:
        now = time.monotonic()
        since, until = (max(0.0, at - (now - t)) for t in membership.away)
        away = since, until
    return values.Report(kind, at, membership.binary, away)
