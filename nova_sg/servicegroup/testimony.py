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

"""What members say of the time in which they could not report.

One member's word is hearsay: a broken node could excuse the death of all. So
it counts what most say who have reported since. Nobody is believed to have
been unable to report when this observer has seen a report. No I/O, no clock,
no thread, as in the detector.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from nova_sg.servicegroup import facts, stalls

# So many have to say the same; in a group of two the one other member.
WITNESSES = 2


class _Claim(NamedTuple):
    """What one member says, and what of it can be true."""

    said: tuple[float, float]
    begin: float
    end: float

    def repeated(self, said: tuple[float, float]) -> bool:
        """Whether said is this again, as clocks are compared."""
        return all(
            abs(one - other) <= stalls.MARGIN
            for one, other in zip(self.said, said, strict=True)
        )


class Agreement(NamedTuple):
    """A time in which members could not report, as most of them say."""

    begin: float
    end: float
    #: So many say so,
    witnesses: int
    #: of so many that have reported since.
    members: int


class Testimony:
    """What the members of one group say."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        #: What they agreed on when they said something last.
        self.agreed: list[Agreement] = []
        # The last reports of who was down at the last look, and of those who
        # were down before that was said: they stay down until they report.
        self._silent: dict[str, float | None] = {}
        self._down: dict[str, float | None] = {}

    def __bool__(self) -> bool:
        return bool(self._claims)

    def hear(
        self,
        speaking: Iterable[facts.Fact],
        known: Mapping[str, facts.Known],
        silent: Iterable[str],
        due: float,
    ) -> None:
        """Take in what members say at a look.

        :param known: what was known of them before it
        :param silent: who was down then
        :param due: seconds within which a member that lives reports
        """
        claims = {}
        for fact in speaking:
            claim = self._claims.get(fact.host)
            if claim is None or not claim.repeated(fact.away):
                claim = _believable(fact, known.get(fact.host), due)
            if claim is not None:
                claims[fact.host] = claim
        self._claims = claims
        self._silent = {}
        if claims:
            self._silent = {host: known[host].last_report for host in silent}

    def of(self, host: str) -> tuple[float, float] | None:
        """Return what can be true of what a member says; None: nothing."""
        claim = self._claims.get(host)
        if claim is None or claim.begin >= claim.end:
            return None
        return claim.begin, claim.end

    def agree(
        self, known: Collection[facts.Known], late: float
    ) -> list[Agreement]:
        """Return what most say, in order and disjoint.

        :param known: what is known of everybody, with the last look
        :param late: whose last report was later than that is not late with
            the next one: nothing kept it from reporting
        """
        members = [
            one.last_report
            for one in known
            if not (one.fact.left or one.fact.crashed)
        ]
        reports = sorted(at for at in members if at is not None)
        enough = max(1, min(WITNESSES, len(members) - 1))
        edges: dict[float, int] = {}
        for _, begin, end in self._claims.values():
            if begin < end:
                edges[begin] = edges.get(begin, 0) + 1
                edges[end] = edges.get(end, 0) - 1
        moments = sorted(edges)
        self.agreed = []
        witnesses = 0
        for begin, end in zip(moments, moments[1:], strict=False):
            witnesses += edges[begin]
            silent = bisect.bisect_right(reports, min(begin, late))
            since = len(reports) - silent
            if witnesses >= enough and 2 * witnesses >= since:
                self._extend(Agreement(begin, end, witnesses, since))
        return self.agreed

    def came_too_late(self) -> None:
        """Take in that who was down before this look is not excused."""
        self._down.update(self._silent)

    def is_too_late(self, known: facts.Known) -> bool:
        """Whether a member was down before, and has not reported since."""
        host = known.fact.host
        return host in self._down and self._down[host] == known.last_report

    def forget(self, host: str) -> None:
        """Take in that host is no longer a member."""
        self._claims.pop(host, None)
        self._down.pop(host, None)

    def _extend(self, to: Agreement) -> None:
        last = self.agreed[-1] if self.agreed else None
        if last is None or last.end < to.begin:
            self.agreed.append(to)
            return
        most = max(last, to, key=lambda one: one.witnesses)
        self.agreed[-1] = most._replace(begin=last.begin, end=to.end)


def _believable(
    fact: facts.Fact, known: facts.Known | None, due: float
) -> _Claim | None:
    """Return what may be true of what a member says for the first time."""
    begin, end = fact.away
    # In this order: nothing that is no number passes.
    if fact.last_report is None or not (
        float("-inf") < begin < end <= fact.last_report + stalls.MARGIN
    ):
        return None
    if end > fact.asked + stalls.MARGIN:
        return None
    if known is not None and known.last_report is not None:
        # It could report then, and where it was not late, all the time.
        begin = max(begin, known.last_report)
        if fact.last_report - known.last_report <= due:
            begin = end
    return _Claim(fact.away, begin, end)
