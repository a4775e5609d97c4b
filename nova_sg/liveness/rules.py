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

"""Whether one member is alive: the rules.

A verdict is the first of these that fits:

==============  ======================================================
FORCED_DOWN     an operator says so, in any backend
LEFT, CRASHED   it left, or its guard saw it end, and it has not
                reported since; STOPPED, RESTARTING at first, for
                as long as it may take to start again
NEVER_REPORTED  it is known to have neither reported nor registered
as before       it was down by silence, and has not reported since
REPORTED        it has a session, or its deadline has not passed;
                DRAINING if it says that it is about to stop
REGISTERED      the same, by its registration: it has not reported yet
UNWATCHED       its reports were old at the first refresh, those of all
                others, too, and this observer has not watched for
                service_down_time yet
VANISHED        the backend lost its report; the next one is not due
HELD            it is silent together with most of the group
LOST            the backend ended its session, and no other backend has had
                a report since, which was due
SILENT          (NEVER_REPORTED for one that has only registered)
==============  ======================================================

Mass silence, which holds verdicts of silence for a while, takes the whole
group: see mass_silence.py. And a question adds one rule, as it depends on the
moment: a member is UNAVAILABLE where no backend that knows it has answered
for service_down_time (group.py). What counts as a report is in seen.py, what
excuses a silence in outages.py.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from nova_sg.liveness.deadline import deadline
from nova_sg.liveness.group import Basis, Group
from nova_sg.liveness.model import (
    CRASHED,
    DOWN,
    DRAINING,
    GONE,
    HELD,
    LEFT,
    LOST,
    NEVER,
    NEVER_REPORTED,
    REGISTERED,
    REPORTED,
    RESTARTING,
    SILENT,
    STOPPED,
    UNWATCHED,
    UP,
    VANISHED,
    Limits,
    Member,
    Verdict,
)

ALWAYS = float("inf")


class Evidence(NamedTuple):
    """What speaks for a member, over all backends."""

    #: The newest report; NEVER: none is known.
    report: float
    #: The last moment at which its silence is not too long.
    deadline: float
    #: Since when it counts as left or crashed, or NEVER; and as which.
    gone: float
    cause: Verdict
    #: Until when it may be starting again.
    back: float
    #: Whether it says that it is about to stop.
    draining: bool
    #: Whether each backend has ended its session, or one has and the others
    #: have had no report since.
    lost: bool
    #: Until when a report may come though the backend lost the last one.
    grace: float
    forced_down: bool


def gather(member: Member, basis: Basis, limits: Limits) -> Evidence:
    """Return what speaks for a member."""
    limit, long = limits.service_down_time, limits.long
    report = registered = gone = grace = until = ended = back = NEVER
    drained = NEVER
    forced = vanished = False
    lost, cause = True, LEFT
    # When those that have not ended its session were asked, the first first.
    asked = ALWAYS
    for known, refreshed in zip(member.seen, basis.refreshed, strict=True):
        if known is None:
            continue
        facts, last = known.observation.facts, known.report
        forced = forced or facts.forced_down
        vanished = vanished or facts.vanished
        lost = lost and facts.lost
        if facts.lost:
            ended = max(ended, known.ended)
        else:
            asked = min(asked, refreshed)
        if facts.present:
            last = max(last, refreshed)
        report = max(report, last)
        if facts.draining:
            drained = max(drained, last)
        registered = max(registered, known.registered)
        grace = max(grace, known.grace)
        if known.gone > gone:
            gone, cause = known.gone, CRASHED if facts.crashed else LEFT
            back = gone + (
                limits.crash_grace if facts.crashed else limits.restart_grace
            )
        if last > NEVER:
            allowed = 0.0 if facts.lost else limit
            until = max(until, deadline(basis.outages, last, allowed, long))
    if not lost and ended > NEVER and report <= ended:
        # Its session ended. If it is alive, its next report to another
        # backend is due.
        due = deadline(basis.outages, ended, limits.due, long)
        lost = asked > due
        # The other is asked now and then: it may have one already.
        until = min(until, due if lost else max(due, basis.now))
    if report == NEVER and registered > NEVER:
        until = deadline(basis.outages, registered, limit, long)
    if not vanished:
        until = max(until, grace)
    # One backend may have no room for it. Once the member has begun anew, the
    # others have newer reports.
    draining = drained > NEVER and drained >= report - limits.due
    return Evidence(
        *(report, until, gone, cause, back, draining, lost, grace, forced)
    )


def judge(
    member: Member,
    before: Member | None,
    reported: bool,
    basis: Basis,
    limits: Limits,
) -> Member:
    """Apply the rules, but for mass silence, to one member.

    :param before: the same before this step; None: it was not a member
    :param reported: whether it has reported since then
    """
    now = basis.now
    evidence = gather(member, basis, limits)
    report = evidence.report
    fell_at = NEVER
    if evidence.gone > NEVER and evidence.gone >= report:
        life = evidence.cause
        # One that was down before it left stays down.
        if now < evidence.back and (
            before is None or before.life.state != DOWN
        ):
            life = STOPPED if life is LEFT else RESTARTING
    elif (
        before is not None
        and before.fell > NEVER
        and report <= before.fell
        and not reported
    ):
        life, fell_at = before.life, before.fell
    elif now <= evidence.deadline:
        life = REGISTERED if report == NEVER else REPORTED
        if evidence.draining:
            life = DRAINING
    elif _is_watched(member, basis, limits):
        life = UNWATCHED
    elif now <= evidence.grace:
        life = VANISHED
    else:
        life, fell_at = SILENT, now
        if before is None and report > NEVER:
            # It may have fallen at any time since. Another backend, which has
            # not been asked yet, may know of a later report.
            fell_at = report
        if evidence.lost:
            life = LOST
        elif report == NEVER:
            life = NEVER_REPORTED
    return Member(
        member.host,
        member.seen,
        report,
        evidence.deadline,
        life,
        evidence.forced_down,
        fell_at,
        member.watched,
    )


def _is_watched(member: Member, basis: Basis, limits: Limits) -> bool:
    """Whether too little time has passed to tell a frozen backend."""
    return member.watched > NEVER and basis.now <= deadline(
        basis.outages, member.watched, limits.service_down_time, limits.long
    )


def doubt(
    members: Collection[Member], asked: float, limits: Limits
) -> list[Member]:
    """Return those whose verdict a frozen backend explains, in doubt.

    At the first refresh there are only the stamps. Where the newest of all is
    old, the backend may be frozen, or a replica that lags. Smaller groups are
    judged as ever: a single dead member would never be found by a command.

    :param members: all of the group
    :param asked: when the backend was asked for the first time
    """
    limit = limits.service_down_time
    reports = [
        member.report
        for member in members
        if member.report > NEVER
        and not member.forced_down
        and member.life not in GONE
    ]
    if len(reports) < max(2, limits.mass.min_members):
        return []
    newest = max(reports)
    if newest >= asked - limits.due:
        return []
    # Where at least one has reported in time, those are down that were silent
    # for too long when it did. Others fall silent soon: in doubt, too.
    oldest = newest - limit if newest >= asked - limit else NEVER
    doubted = []
    for member in members:
        if member.life is SILENT and member.report >= oldest:
            doubted.append(
                member._replace(life=UNWATCHED, fell=NEVER, watched=asked)
            )
        elif member.life is REPORTED:
            doubted.append(member._replace(watched=asked))
    return doubted


def alone(group: Group, index: int, limits: Limits) -> Group:
    """Return a group as one of its backends alone knows it."""
    backend = group.backends[index]
    result = Group((backend,), mass=group.mass)
    basis = result.basis((True,))
    members = {}
    for host, member in group.members.items():
        known = member.seen[index]
        if known is None:
            continue
        one = judge(
            Member(host, (known,), NEVER, NEVER, REPORTED, False),
            None,
            False,
            basis,
            limits,
        )
        if member.life is HELD and one.life in (SILENT, LOST):
            one = one._replace(life=HELD)
        elif one.life.state == UP and member.fell >= one.report:
            # No excuse that became known later raises it.
            one = one._replace(life=member.life)
        members[host] = one
    return result._replace(members=members)
