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


"""What memcached says of a group: lists, reports and marks, read.

Nothing is believed that is not written as it has to be; see values.py.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg import once
from nova_sg.backends.memcached import changes, marks, values
from nova_sg.backends.memcached import replicas as mc_replicas
from nova_sg.backends.memcached.replicas import Server
from nova_sg.liveness.model import Facts, Observation, Refresh

LOG = logging.getLogger(__name__)

# A report from so many seconds ahead says that we do not know what time the
# server has: a server shows whole seconds.
AHEAD = 3.0
# Moments by the clocks of several servers differ by less, in seconds.
MARGIN = 2.0


class _Found(NamedTuple):
    """The last report of a member."""

    #: When it was taken, monotonic, by the clock of its server.
    moment: float
    report: values.Report
    #: When, by each server's own clock: what the server has.
    by_server: dict[Server, float]


class _Numbers:
    """Numbers the reports of each member, as they are seen.

    Servers have clocks of their own, and a server's clock may be set. What a
    server has is a later report if it is later than what that server had; or
    later than all, by more than clocks that are compared differ.
    """

    def __init__(self) -> None:
        # By host: the number, the last moment, and what each server had.
        self._known: dict[str, tuple[int, float, dict[Server, float]]] = {}

    def number(self, host: str, found: _Found) -> int:
        """Return the number of a member's last report."""
        known = self._known.get(host)
        if known is None:
            self._known[host] = 1, found.moment, found.by_server
            return 1
        number, moment, had = known
        if found.by_server == had:
            return number
        after_all = found.moment > moment + MARGIN
        later = {
            server: at
            for server, at in found.by_server.items()
            if after_all or server not in had or at > had[server]
        }
        if after_all or any(server in had for server in later):
            number, moment = number + 1, found.moment
        self._known[host] = number, moment, {**had, **later}
        return number

    def keep(self, hosts: Collection[str]) -> None:
        """Forget all other members."""
        if len(self._known) > len(hosts):
            self._known = {
                host: known
                for host, known in self._known.items()
                if host in hosts
            }


class Reader:
    """Reads groups, and remembers the members that it has seen."""

    def __init__(
        self,
        replicas: mc_replicas.Replicas,
        codec: values.Codec,
        heard: changes.Changes,
    ) -> None:
        self._replicas = replicas
        self._codec = codec
        self._changes = heard
        self._lock = threading.Lock()
        # By group: the members that observations have shown so far. They
        # are asked for even when the index has lost them.
        self._seen: dict[str, set[str]] = {}
        self._numbers: dict[str, _Numbers] = {}
        self._warned = once.Once("memcached keys")
        # When clocks were read because of a report from the future.
        self._doubted = float("-inf")

    def observe(self, group: str) -> Refresh:
        """Ask about all members of a group.

        :raises BackendError: no server answers
        """
        asked = time.monotonic()
        replicas = self._replicas.of(group)
        self._replicas.read_clocks(replicas)
        forced_key = values.forced_key(group)
        changes_key = values.changes_key(group)
        shared = [*values.index_keys(group), forced_key, changes_key]
        lists = self._replicas.gather({s: s.get(shared) for s in replicas})
        with self._lock:
            seen = self._seen.get(group, set())
        hosts = set(seen)
        # By key: what is wrong with its value.
        ignored: dict[str, str] = {}
        for found in lists.values():
            for key, value in found.items():
                if key in (forced_key, changes_key):
                    continue
                names, refused = self._codec.read_lines(key, value)
                if refused:
                    ignored[key] = f"{refused} lines that are not names"
                hosts |= names
        marked, refused = self.read_marks(forced_key, lists)
        if refused:
            ignored[forced_key] = f"{refused} lines that are not marks"
        keys = {values.member_key(group, h): h for h in hosts}
        best = self._read(lists, keys, ignored)
        if self._doubts(best):
            self._replicas.read_clocks(list(lists), anew=True)
            best = self._read(lists, keys, ignored)
        # A member without a value may have a record.
        absent = {
            values.record_key(group, h): h for h in hosts if h not in best
        }
        if absent:
            best.update(self._read(lists, absent, ignored))
        unread = {h for k, h in (keys | absent).items() if k in ignored}
        self._warn(ignored)
        gone = {
            host
            for host, found in best.items()
            if found.report.kind == values.GONE
        }
        hosts -= gone
        with self._lock:
            self._seen[group] = hosts
        forced = {host for host, mark in marked.items() if mark.forced}
        # A record stays for a week: where there is none, memcached was
        # restarted, or had no room for it.
        lost = seen - best.keys() - unread
        numbers = self._numbers.setdefault(group, _Numbers())
        observations = [
            _observation(
                host,
                best.get(host),
                numbers,
                forced_down=host in forced,
                vanished=host in lost,
            )
            for host in hosts
        ]
        numbers.keep(hosts)
        self._changes.looked(
            group, asked, {s: got.get(changes_key) for s, got in lists.items()}
        )
        return Refresh("mc", asked, observations, exact=True)

    def _doubts(self, best: Mapping[str, _Found]) -> bool:
        """Whether reports say that we have a wrong idea of the time."""
        now = time.monotonic()
        if all(one.moment <= now + AHEAD for one in best.values()):
            return False
        # Somebody's clock may just be wrong.
        if now - self._doubted < mc_replicas.CLOCK_LIFE:
            return False
        self._doubted = now
        return True

    def _read(
        self,
        replicas: Mapping[Server, Any],
        keys: Mapping[str, str],
        ignored: dict[str, str],
    ) -> dict[str, _Found]:
        """Return the latest report of each host.

        :param keys: the host that each key belongs to
        :param ignored: takes what is wrong with the value of a key
        """
        if not keys:
            return {}
        best: dict[str, _Found] = {}
        answers = self._replicas.gather({s: s.get(keys) for s in replicas})
        for server, found in answers.items():
            for key, value in found.items():
                try:
                    report = self._codec.read_report(key, value)
                except ValueError as error:
                    ignored[key] = str(error)
                    continue
                if not report.is_credible:
                    ignored[key] = "a time without reports that cannot be"
                    report = report._replace(away=None)
                at = server.clock.to_monotonic(report.at)
                host = keys[key]
                known = best.get(host)
                by_server = {} if known is None else known.by_server
                by_server[server] = report.at
                if known is None or at > known.moment:
                    best[host] = _Found(at, report, by_server)
        return best

    def read_marks(
        self, key: str, answers: Mapping[Server, Mapping[str, bytes]]
    ) -> tuple[dict[str, marks.Mark], int]:
        """Return what all servers together say of who is forced down.

        :returns: the marks, and how many lines are none
        """
        all_marks: dict[str, marks.Mark] = {}
        all_refused = 0
        for found in answers.values():
            one, refused = marks.read(self._codec, key, found.get(key, b""))
            all_marks = marks.merged(all_marks, one)
            all_refused += refused
        return all_marks, all_refused

    def _warn(self, ignored: Mapping[str, str]) -> None:
        """Tell of keys whose values were ignored, once of each."""
        new = [key for key in sorted(ignored) if self._warned.first(key)]
        if not new:
            return
        LOG.warning(
            "Ignored what memcached has as %(key)r: %(what)s (%(count)d such "
            "keys). Somebody else writes there, or [memcache] "
            "memcache_secret_key is not the same everywhere",
            {"key": new[0], "what": ignored[new[0]], "count": len(new)},
        )


def _observation(
    host: str,
    found: _Found | None,
    numbers: _Numbers,
    *,
    forced_down: bool,
    vanished: bool,
) -> Observation:
    """Return what is known of a member.

    :param found: its last report; None: memcached has none
    """
    if found is None:
        facts = Facts(forced_down=forced_down, vanished=vanished)
        return Observation(host, facts=facts)
    at, report = found.moment, found.report
    try:
        last_seen = datetime.datetime.fromtimestamp(report.at, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        last_seen = None
    outage = None
    if report.away is not None:
        since, until = report.away
        outage = at - (report.at - since), at - (report.at - until)
    return Observation(
        host,
        numbers.number(host, found),
        at,
        last_seen,
        facts=Facts(
            binary=report.binary,
            left=report.kind == values.LEFT,
            crashed=report.kind == values.CRASHED,
            draining=report.kind == values.DRAINING,
            forced_down=forced_down,
            outage=outage,
        ),
    )
