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

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, grace
from nova_sg.backends import base
from nova_sg.backends.memcached import (
    doctor,
    local,
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
# What a command besides a report is about.
_LISTS, _RECORD = "lists", "record"
NEVER = float("-inf")
_PLAINLY_UP = values.UP, False
# Seconds between two messages that one server has lost values.
PAUSE = 600.0


class _State:
    """What the driver remembers of a membership. A process may have many."""

    __slots__ = (
        "lost",
        "registered",
        "replicas",
        "shown",
        "told_at",
        "written",
    )

    def __init__(self, replicas: list[Server]) -> None:
        self.replicas = replicas
        #: For each of them: when the last report was written there, and when
        #: the record and the lists were found in order, monotonic; or NEVER.
        self.written = [NEVER] * len(replicas)
        self.registered = [NEVER] * len(replicas)
        #: What observers have to see at once: the kind of the last report,
        #: and whether it says that the member is unwell.
        self.shown = _PLAINLY_UP
        #: From when to when all servers had lost the last report, monotonic,
        #: and when a report told of that first.
        self.lost: tuple[float, float] | None = None
        self.told_at: float | None = None


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
        self._local = isinstance(self._servers[0], local.LocalServer)
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
        kind = values.DRAINING if membership.draining else values.UP
        self._write(membership, kind)

    def withdraw(self, membership: base.Membership) -> None:
        membership.state.clear()
        self._orders.cancel(membership)
        self._write(membership, values.LEFT)

    def _write(self, membership: base.Membership, kind: str) -> None:
        """Write a report; see to the record and the lists if that is due."""
        down_time = CONF.service_down_time
        # memcached counts whole seconds: without the additional one a value
        # could expire before service_down_time.
        expire = math.ceil(down_time) + 1
        if kind == values.LEFT:
            expire = RECORD_LIFETIME
        group = membership.group
        key = values.member_key(group, membership.host)
        replicas = self._replicas.of(group)
        state = membership.state.get("mc")
        if state is None or state.replicas != replicas:
            state = membership.state["mc"] = _State(replicas)
        self._replicas.read_clocks(replicas)
        reports, written = self._make_reports(membership, key, kind, replicas)
        # A server may have lost the rest meanwhile.
        old = time.monotonic() - down_time / 2
        commands, due = {}, False
        for server, registered in zip(replicas, state.registered, strict=True):
            due |= registered < old
            write = protocol.renew if registered > NEVER else protocol.set_
            commands[server] = write(key, written[server], expire)
        beside = self._beside(membership, state, reports) if due else {}
        answers = self._replicas.execute(commands, beside)
        stored = answers
        if due:
            stored = {s: answers[s] for s in replicas if s in answers}
        shown = kind, bool(membership.unwell)
        if shown != state.shown:
            self._signal(group, stored)
            state.shown = shown
        noted, lost = False, []
        if False in stored.values():
            lost = [s for s, renewed in stored.items() if renewed is False]
            # After a server was wiped no observer sees a member without its
            # mark.
            mark = self._marks.restore(group).get(membership.host)
            # It may have been deleted by the command that made the mark.
            if mark is None or not mark.forced:
                noted = self._note_loss(state, lost, stored)
                reports, written = self._make_reports(
                    membership, key, kind, replicas
                )
            self._replicas.execute(
                {s: protocol.set_(key, written[s], expire) for s in lost}
            )
        moment = time.monotonic()
        for number, server in enumerate(replicas):
            if server in stored:
                state.written[number] = moment
        if noted:
            state.told_at = moment
        if due:
            self._register(membership, state, reports, stored, answers)
        elif lost:
            lists = self._replicas.execute(self._lists(membership, replicas))
            self._register(membership, state, reports, lost, lists)

    @staticmethod
    def _lists(
        membership: base.Membership, replicas: Iterable[Server]
    ) -> dict[Any, protocol.Command]:
        """Return the commands that read what _register() needs."""
        group = membership.group
        keys = [
            values.index_key(group, membership.host),
            values.GROUPS_KEY,
            values.forced_key(group),
            values.refresh_signal_key(group),
        ]
        return {(server, _LISTS): protocol.get(keys) for server in replicas}

    def _beside(
        self,
        membership: base.Membership,
        state: _State,
        reports: Mapping[Server, values.StoredReport],
    ) -> dict[Any, protocol.Command]:
        """Return what to do beside a report when _register() is due.

        Where a server has the record it is renewed. Where it has not,
        _register() writes it, when the marks are there.
        """
        commands = self._lists(membership, reports)
        for server, registered in zip(
            state.replicas, state.registered, strict=True
        ):
            if registered > NEVER:
                commands[server, _RECORD] = protocol.renew(
                    *self._record(membership, reports[server])
                )
        return commands

    def _record(
        self, membership: base.Membership, report: values.StoredReport
    ) -> tuple[str, bytes, int]:
        """Return the key, the value and the lifetime of a record."""
        key = values.record_key(membership.group, membership.host)
        if report.outage is not None or report.unwell:
            # They are true for a while only.
            report = report._replace(outage=None, unwell="")
        return key, self._codec.write_report(key, report), RECORD_LIFETIME

    def _make_reports(
        self,
        membership: base.Membership,
        key: str,
        kind: str,
        replicas: list[Server],
    ) -> tuple[dict[Server, values.StoredReport], dict[Server, bytes]]:
        """Return the report for each server, and the value that has it.

        The crash guard knows the values before a server does.
        """
        reports, written = {}, {}
        for server in replicas:
            report = _make_report(kind, membership, server)
            reports[server] = report
            written[server] = self._codec.write_report(key, report)
        if kind != values.LEFT and self._orders.wanted():
            self._give_order(membership, key, reports, written)
        return reports, written

    def _note_loss(
        self,
        state: _State,
        lost: Iterable[Server],
        stored: Mapping[Server, Any],
    ) -> bool:
        """Note that servers have lost the last report of a member.

        If no server has it any more, the time since then is an outage, which
        the next reports tell observers of: they may not have seen it.

        :returns: whether it is one
        """
        written_at = dict(zip(state.replicas, state.written, strict=True))
        now = time.monotonic()
        # An older one has expired.
        young = now - CONF.service_down_time
        wiped = [s for s in lost if written_at[s] > young]
        for server in wiped:
            self._log_lost(server)
        if not wiped or any(stored.values()):
            return False
        begin = max(written_at.values())
        if state.lost is not None and state.told_at == begin:
            # The last report told of an outage, and is lost as well.
            begin = state.lost[0]
        state.lost = begin, now
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
        state: _State,
        reports: Mapping[Server, values.StoredReport],
        replicas: Iterable[Server],
        answers: Mapping[Any, Any],
    ) -> None:
        """Have observers find the member: write its record and index line.

        :param reports: the report on each server
        :param replicas: the servers that have it
        :param answers: to _lists() of all servers, and to _beside()
        """
        group, host = membership.group, membership.host
        found = {
            server: answers[server, _LISTS]
            for server in reports
            if (server, _LISTS) in answers
        }
        # The marks come first: see _write().
        self._marks.restore(group, found)
        index = values.index_key(group, host)
        lines = {
            key: self._codec.line(key, name)
            for key, name in ((index, host), (values.GROUPS_KEY, group))
        }
        signalled = not self._local and (
            self._orders.wanted() or bool(grace.restart())
        )
        seen = [s for s in replicas if s in found]
        commands: dict[Any, protocol.Command] = {}
        full: dict[Any, Future] = {}
        for server in seen:
            if not answers.get((server, _RECORD)):
                commands[server, _RECORD] = protocol.set_(
                    *self._record(membership, reports[server])
                )
            for key, line in lines.items():
                value = found[server].get(key, b"")
                if b"\n" + line in b"\n" + value:
                    continue
                if len(value) < values.MAX_LIST_LENGTH:
                    if value and not value.endswith(b"\n"):
                        # Another program left its last line open.
                        line = b"\n" + line
                    commands[server, key] = protocol.append(
                        key, line, begin=not value
                    )
                else:
                    # Another program has filled it.
                    name = host if key == index else group
                    full[server, key] = server.update(
                        key, self._edit_list(key, {name}.union)
                    )
            if signalled:
                key, value = self._signals.new(group)
                commands[server, key] = protocol.keep(
                    key,
                    value,
                    self._signal_lifetime(),
                    begin=key not in found[server],
                )
        done = self._replicas.execute(commands)
        # Another process has begun the list meanwhile, or it is lost.
        again = {
            (server, key): server.append(key, lines[key])
            for (server, key), result in done.items()
            if key in lines and result is False
        }
        open_ = again | full
        # The report got through. The next one sees to this.
        with contextlib.suppress(exception.BackendError):
            for key in self._replicas.gather(open_):
                del open_[key]
        # Not another object, if it is the same in all places.
        now = max(state.written)
        for server in seen:
            record = server, _RECORD
            if not answers.get(record) and record not in done:
                continue
            if all(one is not server for one, _ in open_):
                state.registered[state.replicas.index(server)] = now

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
    state = membership.state.get("mc")
    failed = membership.reported_outage
    lost = None if state is None else state.lost
    if lost is None or lost[1] < time.monotonic() - CONF.service_down_time:
        return failed
    if failed is None:
        return lost
    first, second = sorted((failed, lost))
    if second[0] > first[1]:
        return second
    return first[0], max(first[1], second[1])
