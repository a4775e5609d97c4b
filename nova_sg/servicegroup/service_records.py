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

"""Members whose service record the caller brings along.

Nova asks about a Service object that it has just read. Such a record is one
more observation, remembered by host. A member has reported if its record has
changed since the question before. The age of the report is measured on this
process's own clock. The stamp in the record is used at the first question;
later it only tells when the report was written between two questions.
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
    DOWN,
    HELD,
    LEFT,
    LOST,
    NEVER,
    NOT_A_MEMBER,
    REPORTED,
    SILENT,
    STOPPED,
    UP,
    Attributes,
    History,
    Limits,
    Member,
    Observation,
    Verdict,
)
from nova_sg.liveness.outages import MARGIN

# How many records are remembered; with more, all are forgotten.
MOST = 100_000
# Seconds between two decisions about failing reports, see outages.weigh().
WEIGH_EVERY = 0.25


class _Known(NamedTuple):
    """What is remembered of a member."""

    stamp: Any
    count: Any
    #: When its last report was written, monotonic; NEVER: there is none.
    report: float
    #: When a caller last asked about it.
    asked: float
    #: Since when it counts as left or crashed, or NEVER.
    gone: float = NEVER
    crashed: bool = False
    #: The count that it had before; None: this process has not seen it.
    count_before: Any = None
    #: The member as it was last judged; None: it was simply up.
    member: Member | None = None


class ServiceRecords:
    """What this process knows from the records that callers bring along.

    :param name: the name of the driver to which the records belong
    """

    def __init__(self, name: str = "db") -> None:
        self._known: dict[Hashable, _Known] = {}
        # The database, as reports of this process show it.
        self._backend = backend.Backend(name)
        self._lock = threading.Lock()
        self._weighed = NEVER

    def reports_fail(
        self, source: Hashable, begin: float, certain: float
    ) -> None:
        """Note that reports of this process fail."""
        with self._lock:
            self._backend = self._backend.reports_fail(source, begin, certain)

    def reports_work(self, source: Hashable, certain: float) -> None:
        """Note that they succeed again, or that there are no more of them."""
        with self._lock:
            self._backend = self._backend.reports_work(source, certain)

    def is_plainly_up(
        self, key: tuple[str, str], stamp: Any, count: Any, limit: float
    ) -> bool:
        """Whether a member is up by a record that has not changed.

        A short cut for the most frequent case.

        :param limit: seconds that a member may be silent
        """
        known = self._known.get(key)
        return (
            known is not None
            and known.stamp == stamp
            and known.count == count
            and known.member is None
            and time.monotonic() - known.report <= limit
            and not self._backend.failing_reports
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
        """Return the verdict on a member by its record and all else.

        :param key: its group and its host
        :param now: the present, monotonic: when the record was read
        :param others: the group as other backends show it; None: there are
            none
        :param configured: whether members report through this driver. If not,
            a record may show that a member still does, but not that it left
            or is down: it may have moved to another backend
        :param left_at: when this process took it out of the group, if no
            refresh shows that yet; or NEVER
        """
        stamp, count, age, left, crashed = record
        # Without a count a record cannot be told from an earlier one.
        known = None if count is None else self._known.get(key)
        limit = limits.service_down_time
        new = known is None or (
            (stamp != known.stamp or count != known.count)
            and not _is_older(record, known)
        )
        if not new:
            assert known is not None
            # It may be an older copy: what is remembered counts.
            stamp, count, report = known.stamp, known.count, known.report
            crashed = known.crashed
            left = known.gone > NEVER and not crashed
        else:
            report = now - age
            if stamp is None:
                report = NEVER
            elif known is not None:
                earliest = known.asked
                if (left or crashed) and stamp == known.stamp:
                    # It is no report.
                    earliest = known.report
                report = min(max(report, earliest), now)
                age = now - report
            elif age < -limit:
                # A stamp from the future is not believed, as in Nova.
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
            # The usual case.
            self._remember(key, _Known(stamp, count, min(report, now), now))
            return REPORTED
        if not configured and (gone or report < now - limit):
            # The member may report to another backend.
            if others is None:
                return NOT_A_MEMBER
            return others.verdict(key[1], now, limit)
        since = NEVER
        if gone:
            if known is None:
                # As in history.first().
                since = min(report + min(MARGIN, limits.due), now)
            elif known.gone > NEVER and not new:
                since = known.gone
            else:
                # It was there at the question before; its next report would
                # have been due.
                since = min(max(known.asked, report + limits.due), now)
        registered = now - age if stamp is None else NEVER
        history = History(
            Observation(
                key[1],
                None if report == NEVER else 0,
                report,
                attributes=Attributes(left=left and gone, crashed=crashed),
            ),
            report=report,
            registered=registered,
            gone=since,
        )
        before = None
        if known is not None:
            before = known.member or Member(
                key[1], (history,), known.report, NEVER, REPORTED, False
            )
        member, verdict = self._judge(
            key[1], history, before, new, now, limits, others
        )
        plain = member.unforced is REPORTED and not gone and others is None
        count_before = None
        if known is not None and gone:
            count_before = known.count
            if known.gone > NEVER:
                count_before = known.count_before
        self._remember(
            key,
            _Known(
                stamp,
                count,
                report,
                now,
                since,
                crashed,
                count_before,
                None if plain else member,
            ),
        )
        return verdict

    def _judge(
        self,
        host: str,
        history: History,
        before: Member | None,
        reported: bool,
        now: float,
        limits: Limits,
        others: liveness.Group | None,
    ) -> tuple[Member, Verdict]:
        """Apply the rules for one member to all that is known of it.

        :param before: the member as it was last judged
        :param reported: whether its record has changed since
        """
        record = self._weigh(now, limits)
        backends: tuple[backend.Backend, ...] = (record,)
        everywhere: tuple[History | None, ...] = (history,)
        watched, held = NEVER, False
        if others is not None and host in others.members:
            theirs = others.members[host]
            backends = (*others.backends, record)
            everywhere = (*theirs.histories, history)
            # But not their verdict, which is without the record; except that
            # a mass silence is known to them alone.
            watched = theirs.watched
            held = theirs.unforced is HELD and (
                before is None or before.unforced.state != DOWN
            )
        group = liveness.Group(backends)
        counts = group.counts(everywhere, limits.service_down_time)
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
        if held and member.unforced in (SILENT, LOST):
            member = member._replace(unforced=HELD, silent_since=NEVER)
        group = group._replace(members={host: member})
        return member, group.verdict(host, now, limits.service_down_time)

    def _weigh(self, now: float, limits: Limits) -> backend.Backend:
        """Return the database as it is known now."""
        with self._lock:
            database = self._backend
            if database.failing_reports and now - self._weighed > WEIGH_EVERY:
                self._weighed = now
                database = database.weigh_failing_reports(
                    self._reports(database), now, limits
                )
            database = database._replace(refreshed=now).forget_outages(
                limits.service_down_time
            )
            self._backend = database
        return database

    def _reports(self, database: backend.Backend) -> list[float]:
        """Return the last report of each member that counts as evidence.

        These are the members that callers asked about since reports began to
        fail, and that are up: that a dead member is silent proves nothing.
        """
        begun = min(
            one.others_reported if one.since is None else one.since
            for one in database.failing_reports.values()
        )
        return [
            known.report
            for known in list(self._known.values())
            if known.asked >= begun
            and known.gone == NEVER
            and (known.member is None or known.member.unforced.state == UP)
        ]

    def _remember(self, key: tuple[str, str], known: _Known) -> None:
        if len(self._known) >= MOST:
            self._known = {}
        self._known[key] = known


def _is_older(record: Record, known: _Known) -> bool:
    """Whether a record was read before the one that is remembered."""
    if (record.stamp, record.count) == (known.stamp, known.count_before):
        # It has left, or crashed, since.
        return True
    try:
        return record.stamp < known.stamp and record.count <= known.count
    except TypeError:
        # A record that was created again has no report; or its values cannot
        # be compared.
        return False
