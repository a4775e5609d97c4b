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

"""When a backend was at fault, and not its members.

An outage is a time in which a backend demonstrably gave no answer or took no
reports. No member could report in it, so its time counts against no member.
It takes evidence: a refresh that failed or took too long, a report of this
process that failed or hung, what the server itself shows, what most members
report. All evidence ends up in one list of outages for each backend, sorted
and disjoint. deadline() applies it.

One kind of evidence may be wrong: if reports of this process fail, this
process may be at fault. weigh() decides that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nova_sg.liveness.model import Limits, Observation, Outage

# Seconds by which moments of two clocks have to differ before one counts as
# later than the other.
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
    """Return the outages that several backends had at the same time."""
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
    """Return the seconds between two moments, those of outages left out."""
    seconds = until - since
    for begin, end, _ in outages:
        seconds -= max(0.0, min(end, until) - max(begin, since))
    return seconds


def recent(outages: Outages, now: float, limit: float) -> Outages:
    """Return the outages that can still change a verdict.

    A silence of two limits, the time of outages left out, is always too long.

    :param limit: seconds that a member may be silent
    """
    for number, outage in enumerate(outages):
        if without(outages, outage.end, now) <= 2 * limit:
            return outages[number:]
    return ()


def began(
    observations: Iterable[Observation], refreshed: float, failed: float
) -> float:
    """Return since when no report succeeded, while refreshes failed.

    That is the time of the last refresh that succeeded, unless a report was
    written after it.

    :param observations: of the first refresh that succeeds again
    :param refreshed: the last refresh that succeeded before
    :param failed: the first refresh that failed
    """
    return max(
        (
            one.reported
            for one in observations
            if one.reported is not None and refreshed < one.reported <= failed
        ),
        default=refreshed,
    )


class FailingReports(NamedTuple):
    """Reports of one member of this process that fail."""

    #: When the last attempt failed, or was seen to hang.
    certain: float
    #: Since when they count as an outage; None: they do not count, as the
    #: reports of other members succeed.
    since: float | None
    #: If they do not count: when other members were last known to report.
    others_reported: float = 0.0
    #: Whether they count again after they did not, as no other member
    #: reports any more.
    again: bool = False
    #: Whether they do not count until another member reports: the group is
    #: too small to tell dead members from an outage.
    alone: bool = False

    def until(self, now: float) -> Outage | None:
        """Return the outage that they are evidence of, up to now."""
        if self.since is None or self.since >= now:
            return None
        return Outage(self.since, now, missed=True)


def weigh(
    failing: FailingReports,
    reports: Sequence[float],
    now: float,
    limits: Limits,
) -> tuple[FailingReports, Outage | None]:
    """Decide whether the backend or this process is at fault.

    This process is at fault if at least half of the members have reported
    since its reports began to fail or, after two service_down_times, if any
    member still reports. Then the failing reports do not count.

    They count again once no member has reported for the time within which a
    member that is alive reports. In a small group that may be the death of
    its last other members, so there they count for two service_down_times
    only.

    :param reports: the last report of each member that is up
    :returns: the failing reports as they are now; and the outage that has
        ended, if they counted until now and no longer do
    """
    others_report = any(at > now - limits.due for at in reports)
    since, again = failing.since, failing.again
    if since is None:
        if others_report:
            return failing._replace(others_reported=now, alone=False), None
        if failing.alone:
            return failing, None
        since, again = failing.others_reported, True
    through = sum(at > since + MARGIN for at in reports)
    most = through > 0 and 2 * through >= len(reports)
    late = now - since > 2 * limits.service_down_time
    few = again and len(reports) < limits.mass.min_members
    if most or (late and (others_report or few)):
        alone = not (most or others_report)
        own = FailingReports(failing.certain, None, now, alone=alone)
        return own, Outage(since, failing.certain)
    return failing._replace(since=since, again=again), None
