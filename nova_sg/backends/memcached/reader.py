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
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg import once
from nova_sg.backends import base
from nova_sg.backends.memcached import (
    canaries,
    marks,
    refresh_signals,
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
        # By host: the number, the last moment, and the last by_server.
        self._known: dict[str, tuple[int, float, dict[Server, float]]] = {}

    def number(self, host: str, found: _LastReport) -> int:
        """Return the number of a member's last report."""
        known = self._known.get(host)
        if known is None:
            self._known[host] = 1, found.moment, found.by_server
            return 1
        number, moment, before = known
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
        self._known[host] = number, moment, {**before, **later}
        return number

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
        self._seen: dict[str, set[str]] = {}
        #: By group: the members that the last observation left out as too
        #: old.
        self.unlisted: dict[str, set[str]] = {}
        self._numbers: dict[str, _ReportNumbers] = {}
        # By group and host: the outage that the member's last report told of,
        # monotonic. It stays true when memcached has lost the report.
        self._told: dict[str, dict[str, tuple[float, float]]] = {}
        self._warned = once.Once("memcached keys")
        # When clocks were last read because of a report from the future.
        self._doubted_at = float("-inf")

    def observe(self, group: str) -> Refresh:
        """Ask about all members of a group.

        :raises BackendError: no server answers
        """
        asked = time.monotonic()
        replicas = self._replicas.of(group)
        self._replicas.read_clocks(replicas)
        forced_key = values.forced_key(group)
        signal_key = values.refresh_signal_key(group)
        canary_key = self._canaries.key(group)
        own_keys = (forced_key, signal_key, canary_key)
        shared = [*values.index_keys(group), *own_keys]
        lists = self._replicas.gather({s: s.get(shared) for s in replicas})
        with self._lock:
            seen = self._seen.get(group, set())
        hosts = set(seen)
        # By key: what is wrong with its value.
        ignored: dict[str, str] = {}
        for found in lists.values():
            for key, value in found.items():
                if key in own_keys:
                    continue
                names, refused = self._codec.read_lines(key, value)
                if refused:
                    ignored[key] = f"{refused} lines are not names"
                hosts |= names
        known_marks, lacking, refused = self._marks.take_in(group, lists)
        if lacking:
            self._marks.restore_soon(group, lacking, known_marks)
        if refused:
            ignored[forced_key] = f"{refused} lines are not marks"
        forced = {h for h, mark in known_marks.items() if mark.forced}
        # Also if the index has lost them.
        hosts |= forced
        keys = {values.member_key(group, h): h for h in hosts}
        last = self._read(lists, keys, ignored)
        if self._has_future_report(last):
            self._replicas.read_clocks(list(lists), anew=True)
            last = self._read(lists, keys, ignored)
        # A member without a value may have a record.
        absent = {
            values.record_key(group, h): h for h in hosts if h not in last
        }
        if absent:
            last.update(self._read(lists, absent, ignored))
        unread = {h for k, h in (keys | absent).items() if k in ignored}
        self._warn(ignored)
        hosts -= {
            host
            for host, found in last.items()
            if found.report.kind == values.GONE
        }
        numbers = self._numbers.setdefault(group, _ReportNumbers())
        unlisted = {
            host
            for host in hosts - last.keys() - unread
            if host not in forced
            and numbers.is_old(host, asked)
        }
        hosts -= unlisted
        with self._lock:
            self._seen[group] = hosts
            self.unlisted[group] = unlisted
        # A record stays for a week: where there is none, memcached was
        # restarted, or had no room for it.
        vanished = seen - last.keys() - unread
        told = self._told.get(group, {})
        observations = [
            _observation(
                host,
                last.get(host),
                numbers,
                forced=host in forced,
                vanished=host in vanished,
                told=told.get(host),
            )
            for host in hosts
        ]
        self._told[group] = {
            one.host: one.attributes.outage
            for one in observations
            if one.attributes.outage is not None
        }
        numbers.keep(hosts)
        canary = {server: canary_key in got for server, got in lists.items()}
        self._canaries.refreshed(group, asked, replicas, canary)
        self._signals.refreshed(
            group, asked, {s: got.get(signal_key) for s, got in lists.items()}
        )
        return Refresh("mc", asked, observations, exact=True)

    def wiped(self, group: str, since: float) -> ServerOutage | None:
        """Return the time in which all servers lost what was written."""
        return self._canaries.wiped(group, since)

    def _has_future_report(self, last: Mapping[str, _LastReport]) -> bool:
        """Whether a report suggests that a server's clock was misread."""
        now = time.monotonic()
        if all(one.moment <= now + MAX_AHEAD for one in last.values()):
            return False
        # The clock of a member may be wrong instead: do not ask too often.
        if now - self._doubted_at < mc_replicas.CLOCK_LIFETIME:
            return False
        self._doubted_at = now
        return True

    def _read(
        self,
        replicas: Mapping[Server, Any],
        keys: Mapping[str, str],
        ignored: dict[str, str],
    ) -> dict[str, _LastReport]:
        """Return the last report of each host.

        :param keys: the host that each key belongs to
        :param ignored: takes what is wrong with the value of a key
        """
        if not keys:
            return {}
        last: dict[str, _LastReport] = {}
        answers = self._replicas.gather({s: s.get(keys) for s in replicas})
        for server, found in answers.items():
            for key, value in found.items():
                try:
                    report = self._codec.read_report(key, value)
                except ValueError as error:
                    ignored[key] = str(error)
                    continue
                if not report.outage_is_possible:
                    ignored[key] = "an impossible outage"
                    report = report._replace(outage=None)
                moment = server.clock.to_monotonic(report.at)
                host = keys[key]
                known = last.get(host)
                by_server = {} if known is None else known.by_server
                by_server[server] = report.at
                if known is None or moment > known.moment:
                    last[host] = _LastReport(moment, report, by_server)
        return last

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
        last_seen = datetime.datetime.fromtimestamp(report.at, datetime.UTC)
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
        attributes=Attributes(
            binary=report.binary,
            left=report.kind == values.LEFT,
            crashed=report.kind == values.CRASHED,
            draining=report.kind == values.DRAINING,
            unwell=report.unwell,
            domain=report.domain,
            forced_down=forced,
            outage=outage,
        ),
    )
