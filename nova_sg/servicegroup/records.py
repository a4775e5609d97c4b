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

"""Members whose services record the asker brings along.

Nova asks about a Service object that it has just read. Such a record is one
more observation, remembered by host: that a member has reported is known
because its record is another than at the question before, and ages on this
process's own monotonic clock. The stamp in the record counts at the first
question only, and says when the report was taken between two questions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Any, NamedTuple

from nova_sg.backends.base import Record
from nova_sg.liveness import backend, rules
from nova_sg.liveness import group as liveness
from nova_sg.liveness.model import (
    LEFT,
    NEVER,
    NOT_A_MEMBER,
    REPORTED,
    STOPPED,
    UP,
    Facts,
    Limits,
    Member,
    Observation,
    Seen,
    Verdict,
)
from nova_sg.liveness.outages import MARGIN

# So many records are remembered; then all are forgotten.
MOST = 100_000
# While there is trouble, reports are counted once in so many seconds.
WEIGH_EVERY = 0.25


class _Known(NamedTuple):
    """What is remembered of a member."""

    stamp: Any
    count: Any
    #: When its last report was taken, monotonic; NEVER: there is none.
    report: float
    #: When it was asked about last.
    asked: float
    #: Since when it counts as left or crashed, or NEVER; and as which.
    gone: float = NEVER
    crashed: bool = False
    #: What was said of it last, where it was not plainly up.
    member: Member | None = None


class Records:
    """What this process knows by the records that it was asked about.

    :param name: the driver of those records
    """

    def __init__(self, name: str = "db") -> None:
        self._known: dict[Hashable, _Known] = {}
        # What reports of this process tell of the database.
        self._backend = backend.Backend(name)
        self._lock = threading.Lock()
        self._weighed = NEVER

    def reports_fail(
        self, source: Hashable, begin: float, certain: float
    ) -> None:
        """Take in that reports of this process do not get through."""
        with self._lock:
            self._backend = self._backend.reports_fail(source, begin, certain)

    def reports_work(self, source: Hashable, certain: float) -> None:
        """Take in that they get through again, or that there are no more."""
        with self._lock:
            self._backend = self._backend.reports_work(source, certain)

    def is_plainly_up(
        self, key: tuple[str, str], stamp: Any, count: Any, limit: float
    ) -> bool:
        """Whether a member is up by a record that is the same as before.

        :param limit: seconds that a member may be silent
        """
        known = self._known.get(key)
        return (
            known is not None
            and known.stamp == stamp
            and known.count == count
            and known.member is None
            and time.monotonic() - known.report <= limit
            and not self._backend.troubles
            and count is not None
        )

    def judge(
        self,
        key: tuple[str, str],
        record: Record,
        now: float,
        limits: Limits,
        others: liveness.Group | None = None,
        configured: bool = True,
        left_at: float = NEVER,
    ) -> Verdict:
        """Return the verdict over a member by its record, and all else.

        :param key: its group and its host
        :param now: the present, monotonic: when the record was read
        :param others: what is known by other backends; None: there are none
        :param configured: whether members report by this driver. Otherwise a
            record can only show that one still does: on its way to another,
            which it leaves this one for
        :param left_at: when it left by this process, which others do not know
            yet; or NEVER
        """
        stamp, count, age, left, crashed = record
        # What has no count is no record that can be told from another one.
        known = None if count is None else self._known.get(key)
        limit = limits.service_down_time
        new = known is None or (
            (stamp != known.stamp or count != known.count)
            and not _is_older(record, known)
        )
        if not new:
            assert known is not None
            # It may be an older copy, which says what was so then.
            stamp, count, report = known.stamp, known.count, known.report
            crashed = known.crashed
            left = known.gone > NEVER and not crashed
        else:
            report = now - age
            if stamp is None:
                report = NEVER
            elif known is not None:
                report = min(max(report, known.asked), now)
                age = now - report
            elif age < -limit:
                # One from the future is not believed, nor by Nova.
                report = NEVER
        if left_at > report:
            return STOPPED if now < left_at + limits.restart_grace else LEFT
        gone = crashed or (left and configured)
        if (
            (age if new else now - report) <= limit
            and report > NEVER
            and not gone
            and others is None
            and (known is None or known.member is None)
        ):
            # Nearly always.
            self._remember(key, _Known(stamp, count, min(report, now), now))
            return REPORTED
        if not configured and (gone or report < now - limit):
            # It says nothing of a member that reports elsewhere.
            if others is None:
                return NOT_A_MEMBER
            return others.verdict(key[1], now, limit)
        since = NEVER
        if gone:
            since = now
            if known is None:
                # As for what a backend says first, see seen.first().
                since = min(report + min(MARGIN, limits.due), now)
            elif known.gone > NEVER and not new:
                since = known.gone
        registered = now - age if stamp is None else NEVER
        seen = Seen(
            Observation(
                key[1],
                None if report == NEVER else 0,
                report,
                facts=Facts(left=left and gone, crashed=crashed),
            ),
            report=report,
            registered=registered,
            gone=since,
        )
        before = None
        if known is not None:
            before = known.member or Member(
                key[1], (seen,), known.report, NEVER, REPORTED, False
            )
        member, verdict = self._judge(
            key[1], seen, before, new, now, limits, others
        )
        plain = member.life is REPORTED and not gone and others is None
        self._remember(
            key,
            _Known(
                stamp,
                count,
                report,
                now,
                since,
                crashed,
                None if plain else member,
            ),
        )
        return verdict

    def _judge(
        self,
        host: str,
        seen: Seen,
        before: Member | None,
        reported: bool,
        now: float,
        limits: Limits,
        others: liveness.Group | None,
    ) -> tuple[Member, Verdict]:
        """Apply the rules for one member to all that is known of it.

        :param before: what was said of it before
        :param reported: whether its record is another than before
        """
        record = self._weigh(now, limits)
        backends: tuple[backend.Backend, ...] = (record,)
        everywhere: tuple[Seen | None, ...] = (seen,)
        if others is not None and host in others.members:
            theirs = others.members[host]
            backends = (*others.backends, record)
            everywhere = (*theirs.seen, seen)
            if before is None or theirs.fell > before.fell:
                before = theirs
        group = liveness.Group(backends)
        counts = group.counts(everywhere, limits.service_down_time)
        watched = NEVER if before is None else before.watched
        member = rules.judge(
            Member(
                host,
                everywhere,
                *(NEVER, NEVER, REPORTED, False),
                watched=watched,
            ),
            before,
            reported,
            group.basis(counts),
            limits,
        )
        group = group._replace(members={host: member})
        return member, group.verdict(host, now, limits.service_down_time)

    def _weigh(self, now: float, limits: Limits) -> backend.Backend:
        """Return what is known of the database now."""
        with self._lock:
            database = self._backend
            if database.troubles and now - self._weighed > WEIGH_EVERY:
                self._weighed = now
                database = database.weigh_troubles(
                    self._reports(database), now, limits
                )
            database = database._replace(refreshed=now).forget_outages(
                limits.service_down_time
            )
            self._backend = database
        return database

    def _reports(self, database: backend.Backend) -> list[float]:
        """Return the last reports of those asked about since trouble began.

        Only of those that are up: that the dead are silent proves nothing.
        """
        begun = min(
            one.heard if one.since is None else one.since
            for one in database.troubles.values()
        )
        return [
            known.report
            for known in list(self._known.values())
            if known.asked >= begun
            and known.gone == NEVER
            and (known.member is None or known.member.life.state == UP)
        ]

    def _remember(self, key: tuple[str, str], known: _Known) -> None:
        if len(self._known) >= MOST:
            self._known = {}
        self._known[key] = known


def _is_older(record: Record, known: _Known) -> bool:
    """Whether a record was read before the one that is remembered."""
    try:
        return record.stamp < known.stamp and record.count <= known.count
    except TypeError:
        # A record that was made anew has no report; or what stands there is
        # no number.
        return False
