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

"""When a backend, and not its members, was at fault.

An outage is a time in which a backend demonstrably gave no answer or took no
reports. No member could report in it, so it counts against none. It takes
evidence: a refresh that failed or took too long, a report of this process
that failed or hung, what the server itself says, what most members say. All
of it ends up in one sorted list of disjoint outages a backend, which
deadline() weighs.

Reports of this process that fail are the one kind of evidence that may be
wrong: the fault may be this process's own. Trouble and weigh() tell the two
apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nova_sg.liveness.model import Limits, Observation, Outage

# A report is later than the begin of an outage if it is later by so many
# seconds: moments of two clocks are compared with some error.
MARGIN = 2.0

Outages = tuple[Outage, ...]


def add(outages: Outages, new: Outage) -> Outages:
    """Return outages, disjoint and sorted, with one more."""
    begin, end, missed = new
    if end <= begin:
        return outages
    kept = []
    for other in outages:
        if other.end < begin or end < other.begin:
            kept.append(other)
        else:
            begin, end = min(begin, other.begin), max(end, other.end)
            missed = missed or other.missed
    kept.append(Outage(begin, end, missed))
    return tuple(sorted(kept))


def common(of_each: Sequence[Outages]) -> Outages:
    """Return the time in which all of several backends were out."""
    result, *rest = of_each
    for others in rest:
        result = tuple(
            Outage(
                max(one.begin, other.begin),
                min(one.end, other.end),
                one.missed and other.missed,
            )
            for one in result
            for other in others
            if max(one.begin, other.begin) < min(one.end, other.end)
        )
    return result


def without(outages: Outages, since: float, until: float) -> float:
    """Return the seconds from one moment to another without an outage."""
    seconds = until - since
    for begin, end, _ in outages:
        seconds -= max(0.0, min(end, until) - max(begin, since))
    return seconds


def recent(outages: Outages, now: float, limit: float) -> Outages:
    """Return the outages that can still make a difference.

    No silence that has lasted for two limits without an outage is excused.

    :param limit: seconds that a member may be silent
    """
    for number, outage in enumerate(outages):
        if without(outages, outage.end, now) <= 2 * limit:
            return outages[number:]
    return ()


def began(
    observations: Iterable[Observation], refreshed: float, failed: float
) -> float:
    """Return since when no report got through, while refreshes failed.

    That is the last refresh that was answered, unless a report that was
    written after it says more.

    :param observations: of the first refresh that is answered again
    :param refreshed: the last refresh before that was answered
    :param failed: the first refresh that was not
    """
    return max(
        (
            one.reported
            for one in observations
            if one.reported is not None and refreshed < one.reported <= failed
        ),
        default=refreshed,
    )


class Trouble(NamedTuple):
    """Reports of one member of this process that do not get through."""

    #: When the last attempt failed, or was seen to hang.
    certain: float
    #: Since when it counts as an outage; None: it does not count, as the
    #: reports of other members get through.
    since: float | None
    #: Where it does not count: when other members were last known to report.
    heard: float = 0.0
    #: Whether it counts again after it did not, as no other member reports.
    again: bool = False
    #: Whether it does not count until another member reports: the group is
    #: too small to tell a dead member from an outage.
    alone: bool = False

    def until(self, now: float) -> Outage | None:
        """Return the outage that this is evidence of, up to now."""
        if self.since is None or self.since >= now:
            return None
        return Outage(self.since, now, missed=True)


def weigh(
    trouble: Trouble, reports: Sequence[float], now: float, limits: Limits
) -> tuple[Trouble, Outage | None]:
    """Tell an outage of the backend from trouble of this process.

    It is this process's own where at least half of the members have reported
    since it began or, after two service_down_times, where any member still
    reports. It may become the backend's again: once no member has reported
    for as long as a member that is alive takes at most. In a small group
    that may as well be the death of its last other members, so there it
    counts for two service_down_times only.

    :param reports: the last report of each member that is up
    :returns: the trouble as it is now; and an outage that is over, if it
        counted until now and does no longer
    """
    heard = any(at > now - limits.due for at in reports)
    since, again = trouble.since, trouble.again
    if since is None:
        if heard:
            return trouble._replace(heard=now, alone=False), None
        if trouble.alone:
            return trouble, None
        since, again = trouble.heard, True
    through = sum(at > since + MARGIN for at in reports)
    most = through > 0 and 2 * through >= len(reports)
    late = now - since > 2 * limits.service_down_time
    few = again and len(reports) < limits.mass.min_members
    if most or (late and (heard or few)):
        alone = not (most or heard)
        own = Trouble(trouble.certain, None, now, alone=alone)
        return own, Outage(since, trouble.certain)
    return trouble._replace(since=since, again=again), None
