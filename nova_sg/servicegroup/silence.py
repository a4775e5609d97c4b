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


"""Mass silence: when most of a group falls silent at once.

So many members hardly die within one service_down_time; a switch, a
firewall or a part of the backend that they share does. To call them all down
would have them all evacuated, so the verdicts are held for a while. Here is
whether a silence is one of a mass, and since when. No I/O, no clock, no
thread, as in the detector.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from nova_sg.servicegroup import stalls


class Rule(NamedTuple):
    """What counts as mass silence, and what is done."""

    #: How great a part of the group has to fall silent; 0: no rule.
    fraction: float
    #: Smaller groups are not meant.
    min_members: int
    #: Seconds for which verdicts are held at most.
    hold: float


#: Nothing is held.
OFF = Rule(0.0, 0, 0.0)


class Hold(NamedTuple):
    """Verdicts that are being held."""

    #: When the first of them was due, and the verdicts are held since.
    since: float
    #: So many members had fallen silent then,
    silent: int
    #: of so many that were up before.
    members: int


def find(
    rule: Rule,
    falls: Sequence[float],
    candidates: Iterable[float],
    limit: float,
    ahead: float,
) -> Hold | None:
    """Return the mass silence that there is, if there is any.

    A member *falls* when its silence becomes longer than it may be; the
    moment is known before, from its last report. When the first of a mass
    falls, the others are silent, too, but not for so long. So those are
    counted that fall around the same moment: from limit - ahead before it
    to ahead after it, one limit all in all.

    :param falls: when each member falls that was up, or will, unless it
        reports; sorted
    :param candidates: those of them at which a verdict is due
    :param limit: how long a member may be silent, in seconds
    :param ahead: how long before its fall a member counts as silent
    """
    if not rule.fraction:
        return None
    for moment in sorted(candidates):
        if moment == float("-inf"):
            continue
        first = bisect.bisect_left(falls, moment - (limit - ahead))
        last = bisect.bisect_right(falls, moment + ahead)
        members, silent = len(falls) - first, last - first
        # 55 of 100 are 0.55 of them, whatever floats say.
        enough = rule.fraction * members - 1e-6
        if members >= rule.min_members and silent >= enough:
            return Hold(moment, silent, members)
    return None


class Keeper:
    """Keeps the verdicts of one group that are being held."""

    def __init__(self) -> None:
        #: None: none are.
        self.hold: Hold | None = None
        # Until when no new hold begins.
        self._told = float("-inf")

    def heed(
        self,
        rule: Rule,
        bad: stalls.Stalls,
        now: float,
        candidates: Mapping[str, bool],
        falls: Callable[[], Mapping[str, float]],
        limit: float,
        ahead: float,
    ) -> list[str]:
        """Return over which candidates the verdict is held.

        :param bad: stalls: they do not count as time of the hold
        :param candidates: those who were up and would be down now; true: it
            was held before
        :param falls: gives when everybody falls, as find() wants to know
        """
        if not candidates:
            self.hold = None
            return []
        moments: Mapping[str, float] = {}
        hold = self.hold
        if hold is None and rule.fraction and now >= self._told:
            moments = falls()
            hold = find(
                rule,
                sorted(moments.values()),
                [moments[host] for host in candidates],
                limit,
                ahead,
            )
        if hold is None:
            return []
        if bad.healthy(hold.since, now) > rule.hold:
            # The truth is told, and not held once more.
            self._told = 1.5 * limit + (
                now if self.hold else hold.since + rule.hold
            )
            self.hold = None
            return []
        # Who fell before that is no part of it.
        first = hold.since - (limit - ahead)
        held = [
            host
            for host, before in candidates.items()
            if before or moments.get(host, now) >= first
        ]
        self.hold = hold
        return held
