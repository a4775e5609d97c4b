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

"""Outages that members report.

An observer that began after an outage, or polls rarely, has no evidence of
its own. Members have: with a report, a member may say from when to when its
reports failed. What a single member reports is not enough, as a broken node
could excuse the death of all others. An outage counts if most of the members
report it that have reported since. If this observer saw a report of a member,
that member is not believed to have been unable to report at that time.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nova_sg.liveness.model import NEVER
from nova_sg.liveness.outages import MARGIN

# How many members have to report an outage at least; in a group of two the
# other one is enough.
WITNESSES = 2


class ReportedOutage(NamedTuple):
    """The outage that one member reports, and the part that can be true."""

    #: From when to when, as the member reports it.
    span: tuple[float, float]
    #: The part that can be true; empty if begin is end.
    begin: float
    end: float

    def is_same(self, span: tuple[float, float]) -> bool:
        """Whether span is the same outage; two clocks differ a little."""
        return all(
            abs(one - other) <= MARGIN
            for one, other in zip(self.span, span, strict=True)
        )


class AgreedOutage(NamedTuple):
    """An outage that most members report."""

    begin: float
    end: float
    #: How many members report it.
    witnesses: int
    #: How many members have reported since.
    members: int


def believable(
    span: tuple[float, float],
    asked: float,
    report: float,
    before: float,
    due: float,
) -> ReportedOutage | None:
    """Return the outage that a member reports; None: it cannot be true.

    :param span: from when to when
    :param asked: when the backend was asked
    :param report: the member's last report, or NEVER
    :param before: its last report at the refresh before, or NEVER
    :param due: seconds within which a member that is alive reports
    """
    begin, end = span
    # In this order: NaN fails every comparison.
    if not NEVER < begin < end <= report + MARGIN:
        return None
    if end > asked + MARGIN:
        return None
    if before > NEVER:
        # It could report then. If its next report was not late, it could
        # report all the time.
        begin = max(begin, before)
        if report - before <= due:
            begin = end
    return ReportedOutage(span, begin, end)


def agree(
    reported: Mapping[str, ReportedOutage],
    reports: Iterable[float],
    late: float,
) -> list[AgreedOutage]:
    """Return the outages that most members report, sorted and disjoint.

    :param reported: the outages that members report, by member
    :param reports: the last report of each member that has not left; NEVER:
        it has not reported
    :param late: a member whose last report is later than this is not late
        with its next one, so it cannot have reported an outage yet
    """
    members = list(reports)
    known = sorted(at for at in members if at > NEVER)
    enough = max(1, min(WITNESSES, len(members) - 1))
    edges: dict[float, int] = {}
    for _, begin, end in reported.values():
        if begin < end:
            edges[begin] = edges.get(begin, 0) + 1
            edges[end] = edges.get(end, 0) - 1
    moments = sorted(edges)
    agreed: list[AgreedOutage] = []
    witnesses = 0
    for begin, end in zip(moments, moments[1:], strict=False):
        witnesses += edges[begin]
        silent = bisect.bisect_right(known, min(begin, late))
        since = len(known) - silent
        if witnesses >= enough and 2 * witnesses >= since:
            _extend(agreed, AgreedOutage(begin, end, witnesses, since))
    return agreed


def _extend(agreed: list[AgreedOutage], by: AgreedOutage) -> None:
    if agreed and agreed[-1].end >= by.begin:
        most = max(agreed[-1], by, key=lambda one: one.witnesses)
        agreed[-1] = most._replace(begin=agreed[-1].begin, end=by.end)
    else:
        agreed.append(by)
