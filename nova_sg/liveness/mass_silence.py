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

"""Mass silence: most of a group falls silent at the same time.

It is unlikely that so many members die within one service_down_time. More
likely something that they share has failed: a switch, a firewall, or a part
of the backend. If they were all called down, they would all be evacuated. So
they are held as up for a while.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from nova_sg.liveness.model import NEVER, Limits, MassRule
from nova_sg.liveness.outages import Outages, without


class Hold(NamedTuple):
    """A mass silence whose members are held as up."""

    #: When the first of them would have been down.
    since: float
    #: How many members had fallen silent then.
    silent: int
    #: How many members were up before.
    members: int


class Mass(NamedTuple):
    """The mass silence of a group."""

    #: None: no member is held.
    hold: Hold | None = None
    #: No new hold begins before this moment, as the last one has just ended.
    resting: float = NEVER


def find(
    rule: MassRule,
    falls: Sequence[float],
    candidates: Iterable[float],
    limit: float,
    ahead: float,
) -> Hold | None:
    """Return the mass silence, if there is one.

    A member *falls* at its deadline, which is known in advance. When the
    first member of a mass silence falls, the others have been silent for a
    shorter time. So all members count that fall around the same moment: from
    limit - ahead seconds before it to ahead seconds after it.

    :param falls: when each member that was up falls unless it reports; sorted
    :param candidates: when the members fall that would be down now
    :param limit: seconds that a member may be silent
    :param ahead: seconds before its fall from which a member counts as silent
    """
    if not rule.fraction:
        return None
    for moment in sorted(candidates):
        if moment == NEVER:
            continue
        first = bisect.bisect_left(falls, moment - (limit - ahead))
        last = bisect.bisect_right(falls, moment + ahead)
        members, silent = len(falls) - first, last - first
        # 55 of 100 are a fraction of 0.55, in spite of rounding errors.
        enough = rule.fraction * members - 1e-6
        if members >= rule.min_members and silent >= enough:
            return Hold(moment, silent, members)
    return None


def hold(
    mass: Mass,
    limits: Limits,
    outages: Outages,
    now: float,
    candidates: Mapping[str, bool],
    falls: Callable[[], Mapping[str, float]],
) -> tuple[Mass, list[str]]:
    """Return the mass silence, and the names of the candidates that are held.

    :param outages: their time does not count as time of the hold
    :param candidates: by name, the members that were up and would be down
        now, and whether each was held before
    :param falls: returns the deadline of each member, by name
    """
    if not candidates:
        return mass._replace(hold=None), []
    rule, limit = limits.mass, limits.service_down_time
    # A member that has missed only one or two reports is not silent yet.
    silent_for = min(limit, max(limit / 2, 1.5 * limits.report_interval))
    ahead = limit - silent_for
    held = mass.hold
    moments: Mapping[str, float] = {}
    if held is None and rule.fraction and now >= mass.resting:
        moments = falls()
        held = find(
            rule,
            sorted(moments.values()),
            [moments[host] for host in candidates],
            limit,
            ahead,
        )
    if held is None:
        return mass, []
    if without(outages, held.since, now) > rule.hold:
        # The hold is over: these members are down, and not held again.
        over = now if mass.hold else held.since + rule.hold
        return Mass(None, over + 1.5 * limit), []
    # A member that fell silent before this moment is not part of it.
    first = held.since - (limit - ahead)
    return mass._replace(hold=held), [
        host
        for host, before in candidates.items()
        if before or moments.get(host, now) >= first
    ]
