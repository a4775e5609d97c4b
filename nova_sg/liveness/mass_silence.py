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

"""Mass silence: most of a group falls silent at once.

So many members hardly die within one service_down_time; a switch, a firewall
or a part of the backend that they share does. To call them all down would
have them all evacuated, so their verdicts are held for a while.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from nova_sg.liveness.model import NEVER, Limits, MassRule
from nova_sg.liveness.outages import Outages, without


class Hold(NamedTuple):
    """Verdicts that are being held."""

    #: When the first of them was due.
    since: float
    #: So many members had fallen silent then,
    silent: int
    #: of so many that were up before.
    members: int


class Mass(NamedTuple):
    """What is held, and what may be held."""

    #: None: nothing is held.
    hold: Hold | None = None
    #: Until when no new hold begins: the last one has just ended.
    resting: float = NEVER


def find(
    rule: MassRule,
    falls: Sequence[float],
    candidates: Iterable[float],
    limit: float,
    ahead: float,
) -> Hold | None:
    """Return the mass silence that there is, if there is one.

    A member *falls* at its deadline, which is known before. When the first
    member of a mass falls, the others are silent, too, but not for so long.
    So those are counted that fall around the same moment: from limit - ahead
    before it to ahead after it.

    :param falls: when each member falls that was up, or will fall unless it
        reports; sorted
    :param candidates: when those fall that have a new verdict of silence
    :param limit: seconds that a member may be silent
    :param ahead: how long before its fall a member counts as silent
    """
    if not rule.fraction:
        return None
    for moment in sorted(candidates):
        if moment == NEVER:
            continue
        first = bisect.bisect_left(falls, moment - (limit - ahead))
        last = bisect.bisect_right(falls, moment + ahead)
        members, silent = len(falls) - first, last - first
        # 55 of 100 are 0.55 of them, whatever floats say.
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
    """Return the names of the candidates whose verdict is held.

    :param outages: they do not count as time of the hold
    :param candidates: by name, the members that were up and would be down
        now; true: its verdict was held before
    :param falls: gives the deadline of each member, by name
    """
    if not candidates:
        return mass._replace(hold=None), []
    rule, limit = limits.mass, limits.service_down_time
    # A member that has just missed a report or two is not silent yet.
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
        # The verdicts are told now, and not held once more.
        over = now if mass.hold else held.since + rule.hold
        return Mass(None, over + 1.5 * limit), []
    # A member that fell before that is no part of the mass.
    first = held.since - (limit - ahead)
    return mass._replace(hold=held), [
        host
        for host, before in candidates.items()
        if before or moments.get(host, now) >= first
    ]
