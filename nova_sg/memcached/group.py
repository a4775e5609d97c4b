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
from collections.abc import Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import once
from nova_sg.memcached import changes, marks, values
from nova_sg.memcached import replicas as mc_replicas
from nova_sg.memcached.replicas import Server
from nova_sg.servicegroup import detector
from nova_sg.servicegroup.drivers import base

LOG = logging.getLogger(__name__)

# A report from so many seconds ahead says that we do not know what time the
# server has: a server shows whole seconds.
AHEAD = 3.0


class Reader:
    """Reads groups, and remembers whom it has seen."""

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
        self._warned = once.Once("memcached keys")
        # When clocks were read because of a report from the future.
        self._doubted = float("-inf")

    def observe(self, group: str) -> base.Snapshot:
        """Ask about all members of a group.

        :raises BackendError: no server answers
        """
        asked = time.monotonic()
        replicas = self._replicas.of(group)
        self._replicas.read_clocks(replicas)
        forced_key = values.forced_key(group)
        changes_key = values.changes_key(group)
        keys = [*values.index_keys(group), forced_key, changes_key]
        lists = self._replicas.gather({s: s.get(keys) for s in replicas})
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
        gone = {h for h, (_, r) in best.items() if r.kind == values.GONE}
        hosts -= gone
        with self._lock:
            self._seen[group] = hosts
        forced = {host for host, mark in marked.items() if mark.forced}
        facts = [
            self._fact(asked, host, best.get(host), host in forced)
            for host in hosts
        ]
        # A record stays for a week: where there is none, memcached was
        # restarted, or had no room for it.
        lost = seen - best.keys() - unread
        if lost:
            facts = [
                fact._replace(vanished=True) if fact.host in lost else fact
                for fact in facts
            ]
        self._changes.looked(
            group, asked, {s: got.get(changes_key) for s, got in lists.items()}
        )
        return base.Snapshot(asked, facts, complete=True)

    def _doubts(
        self, best: Mapping[str, tuple[float, values.Report]]
    ) -> bool:
        """Whether reports say that we have a wrong idea of the time."""
        now = time.monotonic()
        if all(at <= now + AHEAD for at, _ in best.values()):
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
    ) -> dict[str, tuple[float, values.Report]]:
        """Return the latest report of each host, and its monotonic moment.

        :param keys: the host that each key belongs to
        :param ignored: takes what is wrong with the value of a key
        """
        if not keys:
            return {}
        best: dict[str, tuple[float, values.Report]] = {}
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
                if host not in best or at > best[host][0]:
                    best[host] = at, report
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
        away = None
        if report.away is not None:
            since, until = report.away
            away = at - (report.at - since), at - (report.at - until)
        return detector.Fact(
            host=host,
            asked=asked,
            last_report=at,
            last_seen=seen,
            binary=report.binary,
            left=report.kind == values.LEFT,
            crashed=report.kind == values.CRASHED,
            forced_down=forced,
            away=away,
        )

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

