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

"""Reading a group: its lists, reports and marks.

A value that is not written as it has to be is ignored; see values.py.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg import once
from nova_sg.backends import base
from nova_sg.backends.memcached import (
    canaries,
    marks,
    protocol,
    refresh_signals,
    table,
    values,
)
from nova_sg.backends.memcached import replicas as mc_replicas
from nova_sg.backends.memcached.replicas import Server
from nova_sg.liveness.model import (
    Attributes,
    Observation,
    Refresh,
    ServerOutage,
)

LOG = logging.getLogger(__name__)

# Seconds. A report from further in the future means that the server's clock
# was misread: a server shows whole seconds.
MAX_AHEAD = 3.0
# Seconds by which the clocks of two servers may differ.
MARGIN = 2.0
# Seconds by which the estimate of a server's clock may change without the
# moments of known reports being calculated anew.
CLOCK_STEP = 0.1
# Different attributes of members that are remembered.
MOST_ATTRIBUTES = 1000


class _LastReport(NamedTuple):
    """The last report of a member."""

    #: When it was written, monotonic, by the clock of its server.
    moment: float
    report: values.StoredReport
    #: When each server's value was written, by that server's own clock.
    by_server: dict[Server, float]


class _ReportNumbers:
    """Numbers the reports of each member in the order in which they are seen.

    Servers have clocks of their own, and a server's clock may be set. A
    report is later if it is later than the one that the same server had, or
    later than all of them by more than clocks may differ.
    """

    def __init__(self) -> None:
        # By host: the number, the last moment, and each server and its time
        # in the last by_server: many tuples take less memory than dicts.
        self._known: dict[str, tuple] = {}

    def number(self, host: str, found: _LastReport) -> int:
        """Return the number of a member's last report."""
        known = self._known.get(host)
        if known is None:
            self._remember(host, 1, found.moment, found.by_server)
            return 1
        number, moment, *times = known
        before = dict(zip(times[::2], times[1::2], strict=True))
        if found.by_server == before:
            return number
        after_all = found.moment > moment + MARGIN
        later = {
            server: at
            for server, at in found.by_server.items()
            if after_all or server not in before or at > before[server]
        }
        if after_all or any(server in before for server in later):
            number, moment = number + 1, found.moment
        self._remember(host, number, moment, {**before, **later})
        return number

    def _remember(
        self,
        host: str,
        number: int,
        moment: float,
        by_server: Mapping[Server, float],
    ) -> None:
        times = itertools.chain.from_iterable(by_server.items())
        self._known[host] = number, moment, *times

    def is_old(self, host: str, now: float) -> bool:
        """Whether a member of which memcached has no report is not listed.

        It has left its name in the index. Its record has expired, or this
        process never saw one.

        :param now: monotonic
        """
        known = self._known.get(host)
        return known is None or known[1] < now - base.LISTED

    def keep(self, hosts: Collection[str]) -> None:
        """Forget all other members."""
        if len(self._known) > len(hosts):
            self._known = {
                host: known
                for host, known in self._known.items()
                if host in hosts
            }


class _Kept:
    """The reports of members, or their records, as they were read last.

    :param key: returns the key of a host's value
    """

    def __init__(self, key: Callable[[str], str]) -> None:
        self.values = table.Table(key)
        #: The members without a valid value, those that an operator removed,
        #: and what is wrong with the value of a member.
        self.missing: set[str] = set()
        self.gone: set[str] = set()
        self.wrong: dict[str, str] = {}

    def take_in(
        self, host: str, last: _LastReport | None, wrong: str
    ) -> None:
        """Take in the value of a member."""
        (self.missing.add if last is None else self.missing.discard)(host)
        gone = last is not None and last.report.kind == values.GONE
        (self.gone.add if gone else self.gone.discard)(host)
        self.wrong.pop(host, None)
        if wrong:
            self.wrong[host] = wrong

    def keep(self, hosts: Set[str]) -> None:
        """Forget all other members."""
        self.missing &= hosts
        self.gone &= hosts
        for host in self.wrong.keys() - hosts:
            del self.wrong[host]


class _Memory:
    """What a refresh of a group has found, for the next one.

    :param run: the number of the refresh
    :param servers: those that have answered
    """

    def __init__(
        self,
        group: str,
        run: int = 0,
        servers: Collection[Server] = (),
    ) -> None:
        self.run = run
        self.servers = frozenset(servers)
        # By which its moments were translated.
        self.offsets = _offsets(servers)
        #: By server: the lists, {key: value}.
        self.lists: dict[Server, dict[str, bytes]] = {}
        #: What is wrong with a list, by its key.
        self.wrong: dict[str, str] = {}
        #: The members that the index names.
        self.indexed: frozenset[str] = frozenset()
        self.reports = _Kept(functools.partial(values.member_key, group))
        #: Of members without a report.
        self.records = _Kept(functools.partial(values.record_key, group))
        self.forced: set[str] = set()
        self.observations: dict[str, Observation] = {}

    def fits(self, servers: Collection[Server]) -> bool:
        """Whether it may be used for answers of these servers."""
        # A refined clock makes known reports no better.
        return self.servers == frozenset(servers) and all(
            now is not None
            and before is not None
            and abs(now - before) < CLOCK_STEP
            for now, before in zip(
                _offsets(self.servers), self.offsets, strict=True
            )
        )


def _offsets(servers: Collection[Server]) -> list[float | None]:
    return [
        getattr(server.clock, "offset", None)
        for server in sorted(servers, key=id)
    ]


class GroupReader:
    """Reads groups, and remembers the members that it has seen."""

    def __init__(
        self,
        replicas: mc_replicas.Replicas,
        codec: values.Codec,
        signals: refresh_signals.RefreshSignals,
        all_marks: marks.Marks,
    ) -> None:
        self._replicas = replicas
        self._codec = codec
        self._signals = signals
        self._marks = all_marks
        self._canaries = canaries.Canaries()
        self._lock = threading.Lock()
        # By group: the members that observations have shown so far. They
        # are asked for even when the index has lost them.
        self._seen: dict[str, frozenset[str]] = {}
        #: By group: the members that the last observation left out as too
        #: old.
        self.unlisted: dict[str, set[str]] = {}
        self._numbers: dict[str, _ReportNumbers] = {}
        # By group and host: the outage that the member's last report told of,
        # monotonic. It stays true when memcached has lost the report.
        self._told: dict[str, dict[str, tuple[float, float]]] = {}
        # By group: the number of the last refresh that began, and what the
        # last one has found.
        self._runs: dict[str, int] = {}
        self._memories: dict[str, _Memory] = {}
        # Attributes that many members have in common.
        self._attributes: dict[tuple, Attributes] = {}
        self._warned = once.Once("memcached keys")
        # When clocks were last read because of a report from the future.
        self._doubted_at = float("-inf")

    def observe(self, group: str) -> Refresh:
        """Ask about all members of a group.

        :raises BackendError: no server answers
        """
        with self._lock:
            run = self._runs.get(group, 0) + 1
            self._runs[group] = run
            # Only one refresh can use it, and only the one after it.
            memory = self._memories.pop(group, None)
            seen = self._seen.get(group, frozenset())
        if memory is None or memory.run != run - 1:
            memory = _Memory(group)
        asked = time.monotonic()
        replicas = self._replicas.of(group)
        self._replicas.read_clocks(replicas)
        forced_key = values.forced_key(group)
        signal_key = values.refresh_signal_key(group)
        canary_key = self._canaries.key(group)
        own_keys = (forced_key, signal_key, canary_key)
        shared = protocol.get([*values.index_keys(group), *own_keys])
        lists = self._replicas.execute(dict.fromkeys(replicas, shared))
        known_marks, lacking, refused = self._marks.take_in(group, lists)
        if lacking:
            self._marks.restore_soon(group, lacking, known_marks)
        forced = {h for h, mark in known_marks.items() if mark.forced}
        canary = {server: canary_key in got for server, got in lists.items()}
        signals = {s: got.get(signal_key) for s, got in lists.items()}
        for found in lists.values():
            for key in own_keys:
                found.pop(key, None)
        servers = set(lists)
        while True:
            if not memory.fits(servers):
                memory = _Memory(group, run, servers)
            try:
                changed = self._read(
                    memory,
                    {server: lists[server] for server in servers},
                    # Those that are forced down also if the index has lost
                    # them.
                    seen | forced,
                )
            except table.Unanswered as missing:
                servers -= set(missing.servers)
                memory = _Memory(group)
                continue
            if not self._has_future_report(changed.values()):
                break
            self._replicas.read_clocks(list(servers), anew=True)
            memory = _Memory(group)
        unread = memory.reports.wrong.keys() | memory.records.wrong.keys()
        ignored = dict(memory.wrong)
        for kept in memory.reports, memory.records:
            for host, text in kept.wrong.items():
                ignored[kept.values.key(host)] = text
        if refused:
            ignored[forced_key] = f"{refused} lines are not marks"
        self._warn(ignored)
        numbers = self._numbers.setdefault(group, _ReportNumbers())
        # They have no record, either.
        silent = memory.records.missing
        unlisted = {
            host
            for host in silent - unread
            if host not in forced and numbers.is_old(host, asked)
        }
        hosts = memory.indexed | seen | forced
        hosts -= memory.reports.gone | memory.records.gone | unlisted
        if hosts == memory.indexed:
            # Nearly always: keep one of them.
            hosts = memory.indexed
        # A record stays for a week: where there is none, memcached was
        # restarted, or had no room for it.
        vanished = (seen & silent) - unread
        told = dict(self._told.get(group, {}))
        observations = memory.observations
        for host in observations.keys() - hosts:
            del observations[host]
        for host in forced ^ memory.forced:
            one = observations.get(host)
            if one is not None:
                attributes = one.attributes._replace(
                    forced_down=host in forced
                )
                observations[host] = one._replace(attributes=attributes)
        again: dict[str, _LastReport | None] = dict.fromkeys(silent & hosts)
        again.update((h, one) for h, one in changed.items() if h in hosts)
        for host, last in again.items():
            one = self._observation(
                host,
                last,
                numbers,
                forced=host in forced,
                vanished=host in vanished,
                told=told.get(host),
            )
            observations[host] = one
            if one.attributes.outage is not None:
                told[host] = one.attributes.outage
            else:
                told.pop(host, None)
        numbers.keep(hosts)
        lost = self._canaries.refreshed(group, asked, replicas, canary)
        self._signals.refreshed(group, asked, signals)
        memory.run, memory.forced = run, forced
        with self._lock:
            self._seen[group] = hosts
            self.unlisted[group] = unlisted
            self._told[group] = {h: o for h, o in told.items() if h in hosts}
            if self._runs[group] == run:
                self._memories[group] = memory
        return Refresh(
            "mc", asked, list(observations.values()), exact=True, lost=lost
        )

    def wiped(self, group: str, since: float) -> ServerOutage | None:
        """Return the time in which all servers lost what was written."""
        return self._canaries.wiped(group, since)

    def _has_future_report(
        self, reports: Iterable[_LastReport]
    ) -> bool:
        """Whether a report suggests that a server's clock was misread."""
        now = time.monotonic()
        if all(one.moment <= now + MAX_AHEAD for one in reports):
            return False
        # The clock of a member may be wrong instead: do not ask too often.
        if now - self._doubted_at < mc_replicas.CLOCK_LIFETIME:
            return False
        self._doubted_at = now
        return True

    def _read(
        self,
        memory: _Memory,
        lists: dict[Server, dict[str, bytes]],
        others: Set[str],
    ) -> dict[str, _LastReport]:
        """Read the reports and records of all members.

        :param lists: the parts of the index on each server
        :param others: members that the index may lack
        :returns: the last report of each member that has another one than
            before. What is the same as before may be there, too
        """
        self._read_index(memory, lists)
        hosts = memory.indexed
        if not others <= hosts:
            hosts = hosts | others
        changed: dict[str, _LastReport] = {}
        # A member without a report may have a record.
        for kept, wanted in (
            (memory.reports, hosts),
            (memory.records, memory.reports.missing),
        ):
            kept.keep(wanted)
            for host, by_server in kept.values.read(
                self._replicas, lists.keys(), frozenset(wanted)
            ):
                last, wrong = self._last_report(
                    kept.values.key(host), by_server
                )
                kept.take_in(host, last, wrong)
                if last is not None:
                    changed[host] = last
        return changed

    def _read_index(
        self, memory: _Memory, lists: dict[Server, dict[str, bytes]]
    ) -> None:
        """Take in the parts of the index that have changed."""
        before, memory.lists = memory.lists, lists
        changed = {
            key
            for server, found in lists.items()
            for key in found.keys() | before.get(server, {}).keys()
            if found.get(key) != before.get(server, {}).get(key)
        }
        removed: set[str] = set()
        named: set[str] = set()
        for key in changed:
            memory.wrong.pop(key, None)
            old: set[str] = set()
            new: set[str] = set()
            for found in before.values():
                old |= self._codec.read_lines(key, found.get(key, b""))[0]
            for found in lists.values():
                names, refused = self._codec.read_lines(
                    key, found.get(key, b"")
                )
                new |= names
                if refused:
                    memory.wrong[key] = f"{refused} lines are not names"
            removed |= old - new
            named |= new - memory.indexed
        if removed or named:
            memory.indexed = (memory.indexed - removed) | named

    def _last_report(
        self, key: str, by_server: Mapping[Server, bytes]
    ) -> tuple[_LastReport | None, str]:
        """Return the last report in the values of a key, or None.

        :returns: also what is wrong with one of the values
        """
        last: _LastReport | None = None
        wrong, written = "", {}
        for server, value in by_server.items():
            try:
                report = self._codec.read_report(key, value)
            except ValueError as error:
                wrong = str(error)
                continue
            if not report.outage_is_possible:
                wrong = "an impossible outage"
                report = report._replace(outage=None)
            moment = server.clock.to_monotonic(report.at)
            written[server] = report.at
            if last is None or moment > last.moment:
                last = _LastReport(moment, report, written)
        return last, wrong

    def _warn(self, ignored: Mapping[str, str]) -> None:
        """Log which values were ignored: each key once."""
        new = [key for key in sorted(ignored) if self._warned.first(key)]
        if not new:
            return
        LOG.warning(
            "Ignored the value of memcached key %(key)r: %(error)s "
            "(%(count)d such keys). Another program writes to it, or "
            "[memcache] memcache_secret_key is not the same everywhere",
            {"key": new[0], "error": ignored[new[0]], "count": len(new)},
        )

    def _observation(
        self,
        host: str,
        last: _LastReport | None,
        numbers: _ReportNumbers,
        *,
        forced: bool,
        vanished: bool,
        told: tuple[float, float] | None,
    ) -> Observation:
        """Return what memcached says of a member.

        :param last: its last report; None: memcached has none
        :param told: the outage that an earlier report told of
        """
        if last is None:
            attributes = Attributes(
                forced_down=forced,
                vanished=vanished,
                outage=told if vanished else None,
            )
            return Observation(host, attributes=attributes)
        moment, report = last.moment, last.report
        try:
            last_seen = datetime.datetime.fromtimestamp(
                report.at, datetime.UTC
            )
        except (OverflowError, ValueError, OSError):
            last_seen = None
        outage = None
        if report.outage is not None:
            since, until = report.outage
            outage = moment - (report.at - since), moment - (report.at - until)
        return Observation(
            host,
            numbers.number(host, last),
            moment,
            last_seen,
            attributes=self._attributes_of(report, forced, outage),
        )

    def _attributes_of(
        self,
        report: values.StoredReport,
        forced: bool,
        outage: tuple[float, float] | None,
    ) -> Attributes:
        """Return the attributes in a report: one object for equal ones."""
        key = report.kind, report.binary, report.unwell, report.domain, forced
        if outage is None and (known := self._attributes.get(key)) is not None:
            return known
        attributes = Attributes(
            binary=report.binary,
            left=report.kind == values.LEFT,
            crashed=report.kind == values.CRASHED,
            draining=report.kind == values.DRAINING,
            unwell=report.unwell,
            domain=report.domain,
            forced_down=forced,
            outage=outage,
        )
        if outage is None:
            if len(self._attributes) >= MOST_ATTRIBUTES:
                self._attributes = {}
            self._attributes[key] = attributes
        return attributes
