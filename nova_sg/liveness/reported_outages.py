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

"""What members themselves say of the time in which they could not report.

An observer that began after an outage, or polls rarely, has no evidence of
its own. Members have: with each report, a member may say from when to when
its reports did not get through. One member's word is not enough, as a broken
node could excuse the death of all others: what counts is what most members
say that have reported since. No member is believed to have been unable to
report at a time when this observer saw a report of it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nova_sg.liveness.model import NEVER
from nova_sg.liveness.outages import MARGIN

# So many members have to say the same; in a group of two the other one.
WITNESSES = 2


class Claim(NamedTuple):
    """What one member says, and the part of it that can be true."""

    said: tuple[float, float]
    begin: float
    end: float

    def repeats(self, said: tuple[float, float]) -> bool:
        """Whether said is the same claim; clocks are compared."""
        return all(
            abs(one - other) <= MARGIN
            for one, other in zip(self.said, said, strict=True)
        )


class Agreement(NamedTuple):
    """A time in which members could not report, as most of them say."""

    begin: float
    end: float
    #: So many members say so,
    witnesses: int
    #: of so many that have reported since.
    members: int


def believable(
    said: tuple[float, float],
    asked: float,
    report: float,
    before: float,
    due: float,
) -> Claim | None:
    """Return what may be true of a member's new claim; None: nothing.

    :param asked: when the backend was asked
    :param report: the member's last report, or NEVER
    :param before: its last report at the refresh before, or NEVER
    :param due: seconds within which a member that is alive reports
    """
    begin, end = said
    # In this order: a value that is no number passes no comparison.
    if not NEVER < begin < end <= report + MARGIN:
        return None
    if end > asked + MARGIN:
        return None
    if before > NEVER:
        # It could report then; and where its next report was not late, it
        # could report all the time.
        begin = max(begin, before)
        if report - before <= due:
            begin = end
    return Claim(said, begin, end)


def agree(
    claims: Mapping[str, Claim],
    reports: Iterable[float],
    late: float,
) -> list[Agreement]:
    """Return what most members say, sorted and disjoint.

    :param claims: by member
    :param reports: the last report of each member that has not left; NEVER:
        it has not reported
    :param late: a member whose last report is later than that is not late
        with its next one: it had no time to say anything
    """
    members = list(reports)
    known = sorted(at for at in members if at > NEVER)
    enough = max(1, min(WITNESSES, len(members) - 1))
    edges: dict[float, int] = {}
    for _, begin, end in claims.values():
        if begin < end:
            edges[begin] = edges.get(begin, 0) + 1
            edges[end] = edges.get(end, 0) - 1
    moments = sorted(edges)
    agreed: list[Agreement] = []
    witnesses = 0
    for begin, end in zip(moments, moments[1:], strict=False):
        witnesses += edges[begin]
        silent = bisect.bisect_right(known, min(begin, late))
        since = len(known) - silent
        if witnesses >= enough and 2 * witnesses >= since:
            _extend(agreed, Agreement(begin, end, witnesses, since))
    return agreed


def _extend(agreed: list[Agreement], by: Agreement) -> None:
    if agreed and agreed[-1].end >= by.begin:
        most = max(agreed[-1], by, key=lambda one: one.witnesses)
        agreed[-1] = most._replace(begin=agreed[-1].begin, end=by.end)
    else:
        agreed.append(by)
