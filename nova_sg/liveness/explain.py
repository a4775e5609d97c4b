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

"""A verdict as a sentence for operators: what is known, and what follows."""

from __future__ import annotations

from nova_sg.liveness import mass_silence, outages
from nova_sg.liveness.deadline import deadline
from nova_sg.liveness.group import Group
from nova_sg.liveness.model import (
    CRASHED,
    DRAINING,
    FORCED_DOWN,
    HELD,
    LEFT,
    LOST,
    NEVER,
    NOT_A_MEMBER,
    RESTARTING,
    STOPPED,
    UNAVAILABLE,
    UNWATCHED,
    UNWELL,
    UP,
    VANISHED,
    Limits,
    Member,
    Verdict,
)

_PLAIN = {
    NOT_A_MEMBER: "not a member of the group",
    FORCED_DOWN: "forced down by an operator",
    LEFT: "left the group",
    CRASHED: "its process ended without leaving the group",
}
_SESSION_ENDED = "its session with the backend ended"


def explain(
    group: Group, host: str, verdict: Verdict, now: float, limits: Limits
) -> str:
    """Return a verdict over a member in a sentence.

    :param verdict: what group.verdict() returned for that moment
    """
    if verdict is UNAVAILABLE:
        return _unavailable(group, host, now, limits)
    if verdict in _PLAIN:
        return _PLAIN[verdict]
    member = group.members[host]
    if verdict in (STOPPED, RESTARTING):
        return _gone(member, verdict, now)
    if verdict is LOST and not _ended_all(member):
        return (
            f"{_SESSION_ENDED}, and it has not reported to another since, for "
            f"more than {limits.due:g} s"
        )
    if verdict is LOST:
        return _SESSION_ENDED
    sentence = _silence(group, member, verdict, now, limits)
    if verdict is DRAINING:
        sentence = f"draining; {sentence}"
    if verdict is UNWELL:
        sentence = f"unwell: {unwell(member)}; {sentence}"
    if verdict is HELD:
        sentence += _held(group, host, limits)
    return sentence + _failing(group, member, now, limits)


def _unavailable(group: Group, host: str, now: float, limits: Limits) -> str:
    refreshed = group.refreshed
    member = group.members.get(host)
    if member is not None:
        counts = group.counts(member.histories, limits.service_down_time)
        refreshed = group.refreshed_for(counts)
    if refreshed == NEVER:
        return "the backend has never answered"
    return (
        f"the backend has not answered for {now - refreshed:.1f} s, longer "
        f"than {limits.service_down_time:g} s"
    )


def _gone(member: Member, verdict: Verdict, now: float) -> str:
    gone = max(seen.gone for seen in member.histories if seen is not None)
    since = f"{max(0.0, now - gone):.0f} s ago"
    if verdict is STOPPED:
        return f"stopped {since}, may be restarting"
    return f"its process ended {since} without leaving, may be restarting"


def unwell(member: Member) -> str:
    """Return why a member cannot do its work, as it reports; empty: it can."""
    known = [one for one in member.histories if one is not None]
    newest = max(
        (one for one in known if one.observation.attributes.unwell),
        key=lambda one: one.report,
        default=None,
    )
    return newest.observation.attributes.unwell if newest else ""


def _ended_all(member: Member) -> bool:
    """Whether each backend that knows a member has ended its session."""
    return all(
        seen is None or seen.observation.attributes.lost
        for seen in member.histories
    )


def _silence(
    group: Group,
    member: Member,
    verdict: Verdict,
    now: float,
    limits: Limits,
) -> str:
    if verdict.state == UP and _ended_all(member):
        if verdict is HELD:
            return _SESSION_ENDED
        return (
            f"{_SESSION_ENDED}; down in {max(0.0, member.deadline - now):.1f} "
            "s, unless the sessions of most others end with it"
        )
    since = group.last_report(member)
    if since > NEVER:
        sentence = f"last report {max(0.0, now - since):.1f} s ago"
    else:
        since = max(
            seen.registered for seen in member.histories if seen is not None
        )
        if since == NEVER:
            return "never reported"
        sentence = f"registered {now - since:.1f} s ago, no report yet"
    if verdict is UNWATCHED:
        counts = group.counts(member.histories, limits.service_down_time)
        left = deadline(
            group.basis(counts).outages,
            member.watched,
            limits.service_down_time,
            limits.long,
        )
        left -= now
        return (
            f"{sentence}, and no other member reported later than "
            f"{limits.due:g} s before this observer began: the backend may "
            f"be behind; known in {max(0.0, left):.1f} s at the latest"
        )
    if verdict is VANISHED:
        until = max(
            seen.grace for seen in member.histories if seen is not None
        )
        return (
            f"{sentence}; the backend has lost its later reports, the next "
            f"one is due in {max(0.0, until - now):.1f} s at the latest"
        )
    basis = group.basis(
        group.counts(member.histories, limits.service_down_time)
    )
    out = 0.0
    if basis.outages:
        passed = basis.now - since
        out = passed - outages.without(basis.outages, since, basis.now)
    if verdict.state == UP:
        if out > 0 and verdict is not HELD:
            sentence += (
                f"; {out:.1f} s of that without the backend"
                f"{_agreed(group, since)}, so it may be silent for "
                f"{max(0.0, member.deadline - now):.1f} s more"
            )
        return sentence + _reported_outage(group, member, now)
    sentence += f", allowed are {limits.service_down_time:g} s"
    if basis.now <= member.deadline:
        sentence += "; it was down before the outage of the backend was known"
    elif out > 0:
        sentence += f", and {out:.1f} s without the backend do not count"
    return (
        sentence + _agreed(group, since) + _reported_outage(group, member, now)
    )


def _agreed(group: Group, since: float) -> str:
    """Return how many members report that the backend was out."""
    for backend in group.backends:
        for agreed in backend.agreed:
            if agreed.end > since:
                return (
                    f" ({agreed.witnesses} of {agreed.members} members that "
                    "report again say so)"
                )
    return ""


def _reported_outage(group: Group, member: Member, now: float) -> str:
    for backend in group.backends:
        outage = backend.reported_outages.get(member.host)
        if outage is not None and outage.begin < outage.end:
            return (
                f"; it says that it could not report for "
                f"{outage.end - outage.begin:.1f} s until "
                f"{max(0.0, now - outage.end):.1f} s ago"
            )
    return ""


def _held(group: Group, host: str, limits: Limits) -> str:
    hold = group.mass.hold_of(host)
    if hold is None:
        return ""
    part, of = group.mass.held[host], ""
    if part is not None:
        of = f" of the {mass_silence.name(part)}"
    held = max(0.0, group.refreshed - hold.since)
    return (
        f"; held as up for {held:.1f} s so far, and for "
        f"{max(0.0, limits.mass.hold - held):.1f} s more at most: "
        f"{hold.silent} of {hold.members} members{of} fell silent within "
        f"{limits.service_down_time:g} s"
    )


def _failing(group: Group, member: Member, now: float, limits: Limits) -> str:
    counts = group.counts(member.histories, limits.service_down_time)
    if any(
        counting and backend.failed is None
        for backend, counting in zip(group.backends, counts, strict=True)
    ):
        return ""
    refreshed = group.refreshed_for(counts)
    return (
        f"; the backend has not answered for {now - refreshed:.1f} s: this "
        "is the last known state"
    )
