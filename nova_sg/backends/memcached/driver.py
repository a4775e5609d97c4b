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

"""The memcached driver: a member is a value that is set again and again.

The keys and values are described in nova_sg.backends.memcached.values.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, grace
from nova_sg.backends import base
from nova_sg.backends.memcached import (
    doctor,
    locks,
    marks,
    protocol,
    reader,
    refresh_signals,
    server_options,
    servers,
    values,
)
from nova_sg.backends.memcached import replicas as mc_replicas
from nova_sg.backends.memcached.replicas import Server
from nova_sg.conf import CONF
from nova_sg.guard import orders
from nova_sg.liveness.model import Refresh, ServerOutage

LOG = logging.getLogger(__name__)

# Seconds for which a record is kept after it was written last.
RECORD_LIFETIME = int(base.LISTED)
# Seconds between two messages that one server has lost values.
PAUSE = 600.0


class McDriver(base.LockingDriver):
    """Reports by one command for each server, observes by multi-gets.

    Stored times are those of each server's own clock.
    """

    name = "mc"
    characteristics = base.Characteristics(
        detects="a service, or a host, that no longer reaches memcached",
        bound="service_down_time + view_refresh_interval",
        blind=(
            "a service whose timer runs while its work is stuck; which "
            "members were forced down, once all servers and all processes "
            "that knew of it were restarted at the same time"
        ),
    )

    def __init__(self) -> None:
        self._servers = server_options.make_servers()
        self._tls = getattr(self._servers[0], "tls", None)
        self._login = getattr(self._servers[0], "login", None)
        self._local = isinstance(self._servers[0], servers.LocalServer)
        if self._local:
            LOG.warning(
                "memcached_servers names no server: this process knows only "
                "the members that joined in it"
            )
        self._codec = values.Codec(CONF.memcache.memcache_secret_key)
        self._replicas = mc_replicas.Replicas(
            self._servers,
            CONF.memcache.socket_timeout,
            server_options.addresses()[0],
        )
        self._signals = refresh_signals.RefreshSignals(self._codec)
        self._marks = marks.Marks(self._replicas, self._codec)
        self._reader = reader.GroupReader(
            self._replicas, self._codec, self._signals, self._marks
        )
        # The groups that memcached has named so far: it may lose the names.
        self._groups: set[str] = set()
        # When it was last logged that a server has lost values, monotonic.
        self._logged_lost: dict[Server, float] = {}
        self._locks = locks.Locks(self._replicas, self._codec)
        self._orders = orders.Orders("mc")

    def backend_of(self, group: str) -> tuple[str, ...]:
        return tuple(server.address for server in self._replicas.of(group))

    # -- members of this process

    def report(self, membership: base.Membership) -> None:
        # memcached counts whole seconds: without the additional one a value
        # could expire before service_down_time.
        expire = math.ceil(CONF.service_down_time) + 1
        kind = values.DRAINING if membership.draining else values.UP
        self._write(membership, kind, expire)

    def withdraw(self, membership: base.Membership) -> None:
        membership.state.clear()
        self._orders.cancel(membership)
        self._write(membership, values.LEFT, RECORD_LIFETIME)

    def _write(
        self, membership: base.Membership, kind: str, expire: int
    ) -> None:
        group, state = membership.group, membership.state
        key = values.member_key(group, membership.host)
        replicas = self._replicas.of(group)
        self._replicas.read_clocks(replicas)
        reports, written = self._make_reports(membership, kind, replicas)
        stored = self._replicas.execute(
            {
                server: protocol.renew(key, written[server], expire)
                if server in state
                else protocol.set_(key, written[server], expire)
                for server in replicas
            }
        )
        shown = kind, bool(membership.unwell)
        if state.get("shown", (values.UP, False)) != shown:
            self._signal(group, stored)
        state["shown"] = shown
        lost = [s for s, renewed in stored.items() if renewed is False]
        noted = False
        if lost:
            # After a server was wiped no observer sees a member without its
            # mark.
            mark = self._marks.restore(group).get(membership.host)
            # It may have been deleted by the command that made the mark.
            if mark is None or not mark.forced:
                noted = self._note_loss(state, lost, stored)
                reports, written = self._make_reports(
                    membership, kind, replicas
                )
            self._replicas.gather(
                {s: s.set(key, written[s], expire) for s in lost}
            )
        moment = time.monotonic()
        state.setdefault("written", {}).update(dict.fromkeys(stored, moment))
        if noted:
            state["told_at"] = moment
        stale = [s for s in stored if s in lost or self._is_stale(state, s)]
        if stale:
            self._register(membership, {s: reports[s] for s in stale})

    @staticmethod
    def _is_stale(state: dict, server: Server) -> bool:
        """Whether a server may have lost what _register() wrote there."""
        registered_at = state.get(server, float("-inf"))
        return time.monotonic() - registered_at > CONF.service_down_time / 2

    def _make_reports(
        self, membership: base.Membership, kind: str, replicas: list[Server]
    ) -> tuple[dict[Server, values.StoredReport], dict[Server, bytes]]:
        """Return the report for each server, and the value that has it.

        The crash guard knows the values before a server does.
        """
        key = values.member_key(membership.group, membership.host)
        reports = {
            server: _make_report(kind, membership, server)
            for server in replicas
        }
        written = {
            server: self._codec.write_report(key, report)
            for server, report in reports.items()
        }
        if kind != values.LEFT and self._orders.wanted():
            self._give_order(membership, key, reports, written)
        return reports, written

    def _note_loss(
        self, state: dict, lost: Iterable[Server], stored: Mapping[Server, Any]
    ) -> bool:
        """Note that servers have lost the last report of a member.

        If no server has it any more, the time since then is an outage, which
        the next reports tell observers of: they may not have seen it.

        :returns: whether it is one
        """
        written_at = state["written"]
        now = time.monotonic()
        # An older one has expired.
        young = now - CONF.service_down_time
        wiped = [s for s in lost if written_at.get(s, 0.0) > young]
        for server in wiped:
            self._log_lost(server)
        if not wiped or any(stored.values()):
            return False
        begin = max(written_at.values())
        if state.get("told_at") == begin:
            # The last report told of an outage, and is lost as well.
            begin = state["lost"][0]
        state["lost"] = begin, now
        return True

    def _log_lost(self, server: Server) -> None:
        now = time.monotonic()
        if now - self._logged_lost.get(server, -PAUSE) >= PAUSE:
            self._logged_lost[server] = now
            LOG.warning(
                "memcached at %s has lost values: it was restarted, another "
                "program wiped it (flush_all), or it has too little memory. "
                "Writing again what this process knows. If this happens "
                "again, use a memcached for nova_sg alone",
                server.address,
            )

    def _signal(self, group: str, replicas: Iterable[Server]) -> None:
        """Have observers that follow a group refresh at once."""
        key, value = self._signals.new(group)
        for server in replicas:
            # A failure only makes observers slower.
            server.set(key, value, self._signal_lifetime())

    def _give_order(
        self,
        membership: base.Membership,
        key: str,
        reports: Mapping[Server, values.StoredReport],
        written: Mapping[Server, bytes],
    ) -> None:
        """Tell the crash guard which values to replace, and by what."""
        if self._local:
            self._orders.impossible("memcached_servers names no server")
            return
        crashed = map(_crashed, reports.values())
        signal, signal_value = self._signals.new(membership.group)
        self._orders.give(
            membership,
            apart=self.apart,
            refresh_signal=(signal, self._signal_lifetime(), signal_value),
            key=key,
            servers=[
                (*server.target, server.host)
                for server in written
                if isinstance(server, servers.RemoteServer)
            ],
            tls=self._tls and tuple(self._tls),
            login=self._login and tuple(self._login),
            value=list(written.values()),
            crashed=[self._codec.write_report(key, one) for one in crashed],
            life=RECORD_LIFETIME,
        )

    @staticmethod
    def _signal_lifetime() -> int:
        """Return the seconds for which a refresh signal is kept."""
        return 2 * math.ceil(CONF.service_down_time)

    def _register(
        self,
        membership: base.Membership,
        reports: Mapping[Server, values.StoredReport],
    ) -> None:
        """Have observers find the member: write its record and index line.

        The marks come first: see _restore().
        """
        group, host = membership.group, membership.host
        record = values.record_key(group, host)
        index = values.index_key(group, host)
        self._marks.restore(group)
        found = self._replicas.gather(
            {s: s.get([index, values.GROUPS_KEY]) for s in reports}
        )
        wanted = ((index, host), (values.GROUPS_KEY, group))
        writes = {}
        for server, lists in found.items():
            for key, name in wanted:
                value = lists.get(key, b"")
                names, _ = self._codec.read_lines(key, value)
                if name in names:
                    continue
                if len(value) < values.MAX_LIST_LENGTH:
                    line = self._codec.line(key, name)
                    if value and not value.endswith(b"\n"):
                        # Another program left its last line open.
                        line = b"\n" + line
                    writes[server, key] = server.append(key, line)
                else:
                    # Another program has filled it.
                    writes[server, key] = server.update(
                        key, self._edit_list(key, {name}.union)
                    )
            writes[server, record] = server.set(
                record,
                # Without what is true for a while only.
                self._codec.write_report(
                    record, reports[server]._replace(outage=None, unwell="")
                ),
                RECORD_LIFETIME,
            )
            if not self._local and (self._orders.wanted() or grace.restart()):
                signal, value = self._signals.new(group)
                writes[server, signal] = server.keep(
                    signal, value, self._signal_lifetime()
                )
        done = self._replicas.gather(writes)
        for server in found:
            if (server, record) in done:
                membership.state[server] = time.monotonic()

    # -- observing

    def observe(self, group: str) -> Refresh:
        return self._reader.observe(group)

    def unlisted(self, group: str) -> dict[str, float]:
        self._reader.observe(group)
        return dict.fromkeys(self._reader.unlisted[group], math.inf)

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        self._signals.follow(group, wake)

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        self._signals.unfollow(group, wake)

    def outage(self, group: str, since: float) -> ServerOutage | None:
        shown = [
            self._replicas.restarted(self._replicas.of(group), since),
            self._reader.wiped(group, since),
        ]
        return max(filter(None, shown), key=lambda one: one.end, default=None)

    def groups(self) -> list[str]:
        # What has no clock, such as a proxy, is no server.
        self._replicas.read_clocks(self._servers)
        key = values.GROUPS_KEY
        answers = self._replicas.gather(
            {s: s.get([key]) for s in self._servers}
        )
        for answer in answers.values():
            names, _ = self._codec.read_lines(key, answer.get(key, b""))
            self._groups |= names
        return list(self._groups)

    # -- commands of operators

    def force_down(self, group: str, host: str, forced: bool) -> None:
        self._require_member(group, host)
        self._marks.command(group, host, forced)

    def forget(self, group: str, host: str) -> None:
        self._require_member(group, host)
        index = values.index_key(group, host)
        self._marks.command(group, host, False, forgotten=True)
        writes = {}
        for server in self._replicas.of(group):
            writes[server, index] = server.update(
                index, self._edit_list(index, lambda names: names - {host})
            )
            gone = values.StoredReport(
                values.GONE, mc_replicas.now(server), "gone"
            )
            for key in (
                values.member_key(group, host),
                values.record_key(group, host),
            ):
                value = self._codec.write_report(key, gone)
                writes[server, key] = server.set(key, value, RECORD_LIFETIME)
        self._replicas.gather(writes)

    def note_crash(self, group: str, host: str) -> bool:
        key = values.member_key(group, host)

        def change(old: bytes) -> bytes | None:
            report = self._codec.read_report(key, old) if old else None
            if report is None or report.kind not in (
                values.UP,
                values.DRAINING,
            ):
                return None
            return self._codec.write_report(key, _crashed(report))

        replicas = self._replicas.of(group)
        answers = self._replicas.gather(
            {s: s.exchange(key, change, RECORD_LIFETIME) for s in replicas}
        )
        noted = any(old != new for old, new in answers.values())
        if noted:
            self._signal(group, answers)
        return noted

    def _edit_list(
        self, key: str, edit: Callable[[set[str]], set[str]]
    ) -> Callable[[bytes], bytes]:
        """Return a function that edits a list, and drops invalid lines."""

        def change(old: bytes) -> bytes:
            names, _ = self._codec.read_lines(key, old)
            return self._codec.lines(key, edit(names))

        return change

    def _require_member(self, group: str, host: str) -> None:
        found = {one.host for one in self.observe(group).observations}
        if host not in found | self._reader.unlisted[group]:
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )

    def write_note(self, group: str, text: str) -> None:
        if self._local:
            raise exception.BackendError(
                "memcached_servers names no server: no other process would "
                "see the note"
            )
        super().write_note(group, text)

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
        return doctor.check(self._replicas, server_options.addresses()[0])

    def close(self) -> None:
        self._orders.cancel_all()
        self._signals.close()
        for server in self._servers:
            server.close()


def _crashed(report: values.StoredReport) -> values.StoredReport:
    """Return what replaces a report if its process ended without leaving.

    It is later than the report, and earlier than any next one.
    """
    return report._replace(
        kind=values.CRASHED, at=report.at + 0.001, outage=None, unwell=""
    )


def _make_report(
    kind: str, membership: base.Membership, server: Server
) -> values.StoredReport:
    """Return a report with times by a server's clock."""
    at, outage = mc_replicas.now(server), None
    told = _outage_to_tell(membership)
    if kind != values.LEFT and told is not None:
        now = time.monotonic()
        begin, end = (max(0.0, at - (now - t)) for t in told)
        outage = begin, end
    return values.StoredReport(
        kind,
        at,
        membership.binary,
        outage,
        "" if kind == values.LEFT else membership.unwell,
        membership.domain,
    )


def _outage_to_tell(
    membership: base.Membership,
) -> tuple[float, float] | None:
    """Return the last outage of a member's reports, from when to when.

    They failed, or the servers have lost them.
    """
    failed, lost = membership.reported_outage, membership.state.get("lost")
    if lost is None or lost[1] < time.monotonic() - CONF.service_down_time:
        return failed
    if failed is None:
        return lost
    first, second = sorted((failed, lost))
    if second[0] > first[1]:
        return second
    return first[0], max(first[1], second[1])
