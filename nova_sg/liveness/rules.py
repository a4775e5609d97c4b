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

The first line that applies gives the verdict:

==============  ======================================================
FORCED_DOWN     an operator's command, in any backend
LEFT, CRASHED   it left, or its guard saw its process end, and it has
                not reported since; instead STOPPED, RESTARTING for the
                time in which it may be starting again
NEVER_REPORTED  it is known to have neither reported nor registered
as before       it was down by silence, and has not reported since
REPORTED        it has a session, or its deadline has not passed;
                DRAINING if it reports that it is about to stop, UNWELL
                if it reports that it cannot do its work
REGISTERED      it has not reported yet, and the deadline since its
                registration has not passed
UNWATCHED       its report, or registration, was old at the first
                refresh, and so were the reports of all others; this
                observer has not watched for service_down_time yet
VANISHED        the backend lost its report; the next one is not due
HELD            it is silent together with most of the group
LOST            its session ended, and no other backend has a later
                report, though one was due
SILENT          none of these; NEVER_REPORTED if it has only registered
==============  ======================================================

Two rules are elsewhere. Mass silence (HELD) depends on the whole group: see
mass_silence.py. UNAVAILABLE depends on the moment of a question: no backend
that knows the member has answered for service_down_time, see group.py.

What counts as a report is in history.py; what excuses a silence is in
outages.py.
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
    UNWELL,
    UP,
    VANISHED,
    Limits,
    Member,
    Verdict,
)

ALWAYS = float("inf")


class Evidence(NamedTuple):
    """What all backends together show of a member."""

    #: The newest report; NEVER: none is known.
    report: float
    #: The last moment at which its silence is not too long.
    deadline: float
    #: Since when it counts as left or crashed, or NEVER.
    gone: float
    #: LEFT or CRASHED.
    cause: Verdict
    #: Until when it may be starting again.
    back: float
    #: Whether it reports that it is about to stop.
    draining: bool
    #: Why it cannot do its work, as it reports; empty: it can.
    unwell: str
    #: Whether its session ended in each backend, or in one of them while the
    #: others have no later report.
    lost: bool
    #: See History.grace.
    grace: float
    forced_down: bool


def gather(
    member: Member, basis: Basis, limits: Limits, up: bool = False
) -> Evidence:
    """Return the evidence about a member.

    :param up: whether it was up
    """
    limit, long = limits.service_down_time, limits.long
    report = registered = gone = grace = until = ended = back = NEVER
    drained = ill = NEVER
    unwell = ""
    forced = vanished = False
    lost, cause = True, LEFT
    # The oldest refresh of the backends in which its session has not ended.
    asked = ALWAYS
    # The sessions of a rack that is cut off end one after the other. Until it
    # is known whether this is a mass silence, the first of them are not down.
    waits = up and limits.mass.may_hold(basis.size)
    for known, refreshed, spread in zip(
        member.histories, basis.refreshed, basis.spreads, strict=True
    ):
        if known is None:
            continue
        attributes, last = known.observation.attributes, known.report
        forced = forced or attributes.forced_down
        vanished = vanished or attributes.vanished
        lost = lost and attributes.lost
        if attributes.lost:
            ended = max(ended, known.ended)
            if waits and spread:
                until = max(until, known.ended + spread)
        else:
            asked = min(asked, refreshed)
        if attributes.present:
            last = max(last, refreshed)
        report = max(report, last)
        if attributes.draining:
            drained = max(drained, last)
        if attributes.unwell and last > ill:
            ill, unwell = last, attributes.unwell
        registered = max(registered, known.registered)
        grace = max(grace, known.grace)
        if known.gone > gone:
            gone, cause = known.gone, CRASHED if attributes.crashed else LEFT
            back = gone + (
                limits.crash_grace
                if attributes.crashed
                else limits.restart_grace
            )
        if last > NEVER:
            allowed = 0.0 if attributes.lost else limit
            until = max(until, deadline(basis.outages, last, allowed, long))
    if not lost and ended > NEVER and report <= ended:
        # Its session ended. If it is alive, its next report to another
        # backend is due.
        due = deadline(basis.outages, ended, limits.due, long)
        lost = asked > due
        # The other backend may already have a report that this observer has
        # not seen.
        until = min(until, due if lost else max(due, basis.now))
    if report == NEVER and registered > NEVER:
        until = deadline(basis.outages, registered, limit, long)
    if not vanished:
        until = max(until, grace)
    # A backend may not be able to store that a member drains, or is unwell.
    # But if another backend has newer reports, that is over.
    draining = drained > NEVER and drained >= report - limits.due
    if draining:
        # It may have been killed because its work took too long, and be
        # starting again.
        until = max(until, report + limits.restart_grace)
    if ill < report - limits.due:
        unwell = ""
    return Evidence(
        *(report, until, gone, cause, back, draining, unwell),
        *(lost, grace, forced),
    )


def judge(
    member: Member,
    before: Member | None,
    reported: bool,
    basis: Basis,
    limits: Limits,
) -> Member:
    """Apply the rules to one member, except for mass silence.

    :param before: the member before this step; None: it was not a member
    :param reported: whether it has reported since then
    """
    now = basis.now
    was_up = before is not None and before.unforced.state == UP
    evidence = gather(member, basis, limits, was_up)
    report = evidence.report
    silent_since = NEVER
    if evidence.gone > NEVER and evidence.gone >= report:
        unforced = evidence.cause
        # A member that was down before it left stays down. It was not if it
        # had reported since it was judged.
        if now < evidence.back and (
            before is None
            or before.unforced.state != DOWN
            or report > max(before.silent_since, before.report)
        ):
            unforced = STOPPED if unforced is LEFT else RESTARTING
    elif (
        before is not None
        and before.silent_since > NEVER
        and report <= before.silent_since
        and not reported
    ):
        unforced, silent_since = before.unforced, before.silent_since
    elif now <= evidence.deadline:
        unforced = REGISTERED if report == NEVER else REPORTED
        if evidence.draining:
            unforced = DRAINING
        elif evidence.unwell:
            unforced = UNWELL
    elif _is_watched(member, basis, limits):
        unforced = UNWATCHED
    elif now <= evidence.grace:
        unforced = VANISHED
    else:
        unforced, silent_since = SILENT, now
        if before is None and report > NEVER:
            # It may have fallen silent at any time since its last report. A
            # backend that has not been asked yet may know a later report.
            silent_since = report
        if evidence.lost:
            unforced = LOST
        elif report == NEVER:
            unforced = NEVER_REPORTED
    return Member(
        member.host,
        member.histories,
        report,
        evidence.deadline,
        unforced,
        evidence.forced_down,
        silent_since,
        member.watched,
    )


def _is_watched(member: Member, basis: Basis, limits: Limits) -> bool:
    """Whether this observer still watches if the backend is frozen."""
    return member.watched > NEVER and basis.now <= deadline(
        basis.outages, member.watched, limits.service_down_time, limits.long
    )


def doubt(
    members: Collection[Member], asked: float, limits: Limits
) -> list[Member]:
    """Return the members whose silence a frozen backend would explain.

    At the first refresh there are only stamps. If the newest of all is old,
    the backend may be frozen, or be a replica that lags. So the verdict of
    these members becomes UNWATCHED. Small groups are exempt: a command that
    runs only for a moment could never find a single dead member.

    :param members: all members of the group
    :param asked: when the backend was asked for the first time
    """
    limit = limits.service_down_time
    reports = [
        member.report
        for member in members
        if member.report > NEVER
        and not member.forced_down
        and member.unforced not in GONE
    ]
    if len(reports) < max(2, limits.mass.min_members):
        return []
    newest = max(reports)
    if newest >= asked - limits.due:
        return []
    # If at least one member has reported in time, the members that had been
    # silent for too long at that moment are down. The others are in doubt.
    oldest = newest - limit if newest >= asked - limit else NEVER
    doubted = []
    for member in members:
        shown = max(member.report, _registered(member))
        if member.unforced in (SILENT, NEVER_REPORTED) and (
            shown > NEVER and shown >= oldest
        ):
            doubted.append(
                member._replace(
                    unforced=UNWATCHED, silent_since=NEVER, watched=asked
                )
            )
        elif member.unforced is REPORTED:
            doubted.append(member._replace(watched=asked))
    return doubted


def _registered(member: Member) -> float:
    """Return when a member has registered; NEVER: it is not known."""
    return max(
        known.registered for known in member.histories if known is not None
    )


def alone(group: Group, index: int, limits: Limits) -> Group:
    """Return a group as it is known by one of its backends alone."""
    backend = group.backends[index]
    result = Group((backend,), mass=group.mass)
    basis = result.basis((True,))
    members = {}
    for host, member in group.members.items():
        known = member.histories[index]
        if known is None:
            continue
        one = judge(
            Member(host, (known,), NEVER, NEVER, REPORTED, False),
            None,
            False,
            basis,
            limits,
        )
        if member.unforced is HELD and one.unforced in (SILENT, LOST):
            one = one._replace(unforced=HELD)
        elif one.unforced.state == UP and member.silent_since >= one.report:
            # An outage that became known later does not make it up again.
            one = one._replace(unforced=member.unforced)
        members[host] = one
    return result._replace(members=members)
