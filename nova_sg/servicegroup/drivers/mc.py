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

What stands where in memcached is in nova_sg.memcached.values.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import hashlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import exception
from nova_sg.conf import CONF
from nova_sg.guard import keeper
from nova_sg.memcached import configured, marks, servers, values
from nova_sg.servicegroup import detector
from nova_sg.servicegroup.drivers import base

LOG = logging.getLogger(__name__)

# Reports go to so many servers.
REPLICAS = 3
# A record stays for so many seconds after its last refresh: a week.
RECORD_LIFE = 7 * 24 * 3600
# A server's clock is read again after so many seconds.
CLOCK_LIFE = 60.0

Server = servers.RemoteServer | servers.LocalServer


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
        self._timeout = CONF.memcache.socket_timeout
        self._lock = threading.Lock()
        # By group: the members that observations have shown so far. They
        # are asked for even when the index has lost them.
        self._seen: dict[str, set[str]] = {}
        # When each server's clock was read, and the connection that it was
        # read by: a server that was restarted may show another time.
        self._clock_read: dict[Server, tuple[float, int]] = {}
        self._warned: set[str] = set()
        self._wills = keeper.Wills("mc")

    def _replicas(self, group: str) -> list[Server]:
        """Return the servers that keep a group: the same ones everywhere."""
        if len(self._servers) <= REPLICAS:
            return self._servers

        def rank(server: Server) -> bytes:
            text = f"{server.address}\0{group}".encode()
            return hashlib.sha256(text).digest()

        return sorted(self._servers, key=rank)[:REPLICAS]

    def backend_of(self, group: str) -> tuple[str, ...]:
        return tuple(server.address for server in self._replicas(group))

    # -- what I am

    def report(self, membership: base.Membership) -> None:
        expire = math.ceil(CONF.service_down_time) + 1
        self._write(
            membership,
            values.UP,
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
        replicas = self._replicas(group)
        self._read_clocks(replicas)
        reports = {
            server: values.Report(kind, _now(server), membership.binary)
            for server in replicas
        }
        written = {s: self._codec.report(key, reports[s]) for s in replicas}
        if kind == values.UP and self._wills.wanted():
            self._entrust(membership, key, reports, written)
        stored = self._gather(
            {s: store(s, key, written[s]) for s in replicas}
        )
        stale = [
            server
            for server in stored
            if self._is_stale(membership.state, server)
        ]
        if stale:
            self._list(membership, {s: reports[s] for s in stale})

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
            server: report._replace(kind=values.CRASHED, at=report.at + 0.001)
            for server, report in reports.items()
        }
        self._wills.entrust(
            membership,
            apart=self.apart,
            key=key,
            servers=[server.place for server in written],
            value=list(written.values()),
            crashed=[
                self._codec.report(key, crashed[server]) for server in written
            ],
            life=RECORD_LIFE,
        )

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
        found = self._gather(
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
                self._codec.report(record, reports[server]),
                RECORD_LIFE,
            )
        done = self._gather(writes)
        for server in found:
            if (server, record) in done:
                membership.state[server] = (
                    time.monotonic(),
                    server.generation,
                )

    # -- what others are

    def observe(self, group: str) -> base.Snapshot:
        asked = time.monotonic()
        replicas = self._replicas(group)
        self._read_clocks(replicas)
        forced_key = values.forced_key(group)
        keys = [*values.index_keys(group), forced_key]
        lists = self._gather({s: s.get(keys) for s in replicas})
        with self._lock:
            hosts = set(self._seen.get(group, ()))
        # By key: what is wrong with its value.
        ignored: dict[str, str] = {}
        for found in lists.values():
            for key, value in found.items():
                if key == forced_key:
                    continue
                names, refused = self._codec.read_lines(key, value)
                if refused:
                    ignored[key] = f"{refused} lines that are not names"
                hosts |= names
        marked, refused = self._read_marks(forced_key, lists)
        if refused:
            ignored[forced_key] = f"{refused} lines that are not marks"
        best = self._read(
            lists, {values.member_key(group, h): h for h in hosts}, ignored
        )
        # A member without a value may have a record.
        absent = {
            values.record_key(group, h): h for h in hosts if h not in best
        }
        if absent:
            best.update(self._read(lists, absent, ignored))
        self._warn(ignored)
        gone = {h for h, (_, r) in best.items() if r.kind == values.GONE}
        hosts -= gone
        with self._lock:
            self._seen[group] = hosts
        forced = {host for host, mark in marked.items() if mark.forced}
        facts = [
            self._fact(asked, host, best.get(host), host in forced)
            for host in hosts
        ]
        return base.Snapshot(asked, facts, complete=True)

    def _read(
        self,
        replicas: Mapping[Server, Any],
        keys: Mapping[str, str],
        ignored: dict[str, str],
    ) -> dict[str, tuple[float, values.Report]]:
        """Return the latest report of each host, and its monotonic moment.

        :param keys: the host that each key belongs to
        :param ignored: takes what is wrong with the value of a key
        """
        if not keys:
            return {}
        best: dict[str, tuple[float, values.Report]] = {}
        answers = self._gather({s: s.get(keys) for s in replicas})
        for server, found in answers.items():
            for key, value in found.items():
                try:
                    report = self._codec.read_report(key, value)
                except ValueError as error:
                    ignored[key] = str(error)
                    continue
                at = server.clock.to_monotonic(report.at)
                host = keys[key]
                if host not in best or at > best[host][0]:
                    best[host] = at, report
        return best

    def _fact(
        self,
        asked: float,
        host: str,
        found: tuple[float, values.Report] | None,
        forced: bool,
    ) -> detector.Fact:
        if found is None:
            return detector.Fact(host=host, asked=asked, forced_down=forced)
        at, report = found
        try:
            seen = datetime.datetime.fromtimestamp(report.at, datetime.UTC)
        except (OverflowError, ValueError, OSError):
            seen = None
        return detector.Fact(
            host=host,
            asked=asked,
            last_report=at,
            last_seen=seen,
            binary=report.binary,
            left=report.kind == values.LEFT,
            crashed=report.kind == values.CRASHED,
            forced_down=forced,
        )

    def _warn(self, ignored: Mapping[str, str]) -> None:
        """Tell of keys whose values were ignored, once of each."""
        new = sorted(ignored.keys() - self._warned)
        if not new:
            return
        self._warned.update(new)
        LOG.warning(
            "Ignored what memcached has as %(key)r: %(what)s (%(count)d such "
            "keys). Somebody else writes there, or [memcache] "
            "memcache_secret_key is not the same everywhere",
            {"key": new[0], "what": ignored[new[0]], "count": len(new)},
        )

    def groups(self) -> list[str]:
        found: set[str] = set()
        key = values.GROUPS_KEY
        answers = self._gather({s: s.get([key]) for s in self._servers})
        for answer in answers.values():
            names, _ = self._codec.read_lines(key, answer.get(key, b""))
            found |= names
        return list(found)

    # -- what operators say

    def force_down(self, group: str, host: str, forced: bool) -> None:
        self._require(group, host)
        self._gather(self._mark(group, host, forced))

    def forget(self, group: str, host: str) -> None:
        self._require(group, host)
        index = values.index_key(group, host)
        writes = self._mark(group, host, False)
        for server in self._replicas(group):
            change = self._without(index, host)
            writes[server, index] = server.update(index, change)
            gone = values.Report(values.GONE, _now(server), "gone")
            for key in (
                values.member_key(group, host),
                values.record_key(group, host),
            ):
                writes[server, key] = server.set(
                    key, self._codec.report(key, gone), RECORD_LIFE
                )
        self._gather(writes)

    def _read_marks(
        self, key: str, answers: Mapping[Server, Mapping[str, bytes]]
    ) -> tuple[dict[str, marks.Mark], int]:
        """Return what all servers together say of who is forced down."""
        all_marks: dict[str, marks.Mark] = {}
        all_refused = 0
        for found in answers.values():
            one, refused = marks.read(self._codec, key, found.get(key, b""))
            all_marks = marks.merged(all_marks, one)
            all_refused += refused
        return all_marks, all_refused

    def _mark(
        self, group: str, host: str, forced: bool
    ) -> dict[Any, concurrent.futures.Future]:
        """Begin to write down whether host is forced down."""
        key = values.forced_key(group)
        replicas = self._replicas(group)
        known, _ = self._read_marks(
            key, self._gather({s: s.get([key]) for s in replicas})
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
        found = self._gather({s: s.get([key]) for s in self._replicas(group)})
        known, _ = self._read_marks(key, found)
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
        if all(fact.host != host for fact in self.observe(group).facts):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )

    # -- servers

    def _gather(
        self, futures: Mapping[Any, concurrent.futures.Future]
    ) -> dict:
        """Return the results of those that succeed in time.

        :raises BackendError: none did
        """
        give_up = time.monotonic() + self._timeout * 2
        results, errors = {}, []
        for key, future in futures.items():
            try:
                results[key] = future.result(
                    max(0.0, give_up - time.monotonic())
                )
            except exception.BackendError as error:
                errors.append(str(error))
            except concurrent.futures.TimeoutError:
                future.cancel()
                server = key[0] if isinstance(key, tuple) else key
                errors.append(f"memcached at {server.address}: no answer")
        if errors and not results:
            raise exception.BackendError("; ".join(sorted(set(errors))))
        return results

    def _read_clocks(self, replicas: list[Server]) -> None:
        now = time.monotonic()
        due = []
        for server in replicas:
            read, generation = self._clock_read.get(server, (now, None))
            if generation != server.generation or now - read >= CLOCK_LIFE:
                due.append(server)
        if not due:
            return
        try:
            read = self._gather({server: server.stats() for server in due})
        except exception.BackendError:
            return
        for server in read:
            self._clock_read[server] = now, server.generation

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
        findings = []
        for server in self._servers:
            where = f"memcached {server.address}"
            begun = time.monotonic()
            try:
                found = self._gather({server: server.stats()})[server]
            except exception.BackendError as error:
                findings.append(
                    base.Finding(
                        False,
                        where,
                        str(error).removeprefix(
                            f"memcached at {server.address}: "
                        ),
                        "Start the server, or correct memcached_servers",
                    )
                )
                continue
            took = time.monotonic() - begun
            findings.append(
                base.Finding(
                    True,
                    where,
                    f"reachable, memcached {found['version'].strip()}, "
                    f"{took * 1000:.1f} ms",
                )
            )
            findings.append(_check_clock(server))
            evictions = int(found.get("evictions", 0))
            findings.append(
                base.Finding(
                    evictions == 0,
                    where,
                    f"{evictions} values were evicted",
                    "Give the server more memory (-m), or one of its own: "
                    "members seem to vanish when their values are evicted",
                )
            )
        return findings

    def close(self) -> None:
        self._wills.revoke_all()
        for server in self._servers:
            server.close()


def _now(server: Server) -> float:
    """The server's clock, or ours until it has been read."""
    if not server.clock.synced:
        return time.time()
    return server.clock.from_monotonic(time.monotonic())


def _check_clock(server: Server) -> base.Finding:
    offset = _now(server) - time.time()
    return base.Finding(
        abs(offset) <= 2.0,
        "clock",
        f"memcached {server.address} is {offset:+.1f} s from this host",
        "Synchronise the clocks (NTP). Verdicts of nova_sg do not depend on "
        "it; the times it shows do",
    )
