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

"""What an observer knows of one backend: its answers and its outages."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from nova_sg.liveness import outages as _outages
from nova_sg.liveness import reported_outages
from nova_sg.liveness.model import NEVER, Limits, Observation, Outage, Refresh


class Backend(NamedTuple):
    """One backend. Whatever is taken in makes another."""

    name: str
    #: When it was asked last with an answer; NEVER: it has never answered.
    refreshed: float = NEVER
    #: When it was asked first without an answer since then; None: it answers.
    failed: float | None = None
    #: The newest report of any member that it has shown; NEVER: none.
    heard: float = NEVER
    #: The newest observation of each member.
    observed: Mapping[str, Observation] = {}
    #: Disjoint, the earliest first.
    outages: _outages.Outages = ()
    #: Reports of this process that do not get through, by member.
    troubles: Mapping[Hashable, _outages.Trouble] = {}
    #: What members say that could not report, by member,
    claims: Mapping[str, reported_outages.Claim] = {}
    #: and what most of them agree on.
    agreed: tuple[reported_outages.Agreement, ...] = ()
    #: The outages by which its members were judged last.
    excused: _outages.Outages = ()

    def outages_until(self, now: float) -> _outages.Outages:
        """Return all outages, those that go on up to now."""
        known = self.outages
        for trouble in self.troubles.values():
            going_on = trouble.until(now)
            if going_on is not None:
                known = _outages.add(known, going_on)
        return known

    def with_outage(self, outage: Outage | None) -> Backend:
        """Take in an outage; None: there was none."""
        if outage is None:
            return self
        return self._replace(outages=_outages.add(self.outages, outage))

    # -- refreshes

    def failed_at(self, asked: float) -> Backend:
        """Take in that it gave no answer."""
        return self if self.failed is not None else self._replace(failed=asked)

    def answered(self, refresh: Refresh) -> Backend:
        """Take in that it answers; this ends an outage, if there was one."""
        before = self.refreshed
        if before == NEVER:
            return self._replace(refreshed=refresh.asked, failed=None)
        outage = None
        if self.failed is not None or refresh.interrupted:
            failed = before if self.failed is None else self.failed
            begin = _outages.began(refresh.observations, before, failed)
            outage = Outage(begin, refresh.asked + refresh.rejoin)
        return self.with_outage(outage)._replace(
            refreshed=max(refresh.asked, before), failed=None
        )

    def answered_late(self, refresh: Refresh, limits: Limits) -> Backend:
        """Take in that it took longer to answer than members to report."""
        asked, answered = refresh.asked, refresh.answered
        if answered is None or answered - asked <= limits.report_interval:
            return self
        return self.with_outage(Outage(asked, answered))

    # -- reports of this process

    def reports_fail(
        self, source: Hashable, begin: float, certain: float
    ) -> Backend:
        """Take in that reports of this process do not get through.

        :param source: the member that reports
        :param begin: when the first of them began
        :param certain: when the last one failed, or was seen to hang
        """
        trouble = self.troubles.get(source)
        if trouble is None:
            trouble = _outages.Trouble(certain, begin)
        trouble = trouble._replace(certain=certain)
        return self._replace(troubles={**self.troubles, source: trouble})

    def reports_work(self, source: Hashable, certain: float) -> Backend:
        """Take in that they get through again, or that there are no more."""
        if source not in self.troubles:
            return self
        troubles = dict(self.troubles)
        outage = troubles.pop(source).until(certain)
        return self.with_outage(outage)._replace(troubles=troubles)

    def weigh_troubles(
        self, reports: Sequence[float], now: float, limits: Limits
    ) -> Backend:
        """Tell outages of the backend from trouble of this process.

        :param reports: the last report of each member that is up
        """
        backend, troubles = self, {}
        for source, trouble in self.troubles.items():
            troubles[source], over = _outages.weigh(
                trouble, reports, now, limits
            )
            backend = backend.with_outage(over)
        return backend._replace(troubles=troubles)

    # -- what members say

    def hear(
        self,
        observation: Observation,
        report: float,
        before: float,
        due: float,
    ) -> Backend:
        """Take in what a member says of the time when it could not report.

        :param report: its last report; NEVER: it has none
        :param before: the one that was known before, likewise
        :param due: seconds within which a member that is alive reports
        """
        said, claim = (
            observation.facts.outage,
            self.claims.get(observation.host),
        )
        if said is None:
            return self.hear_no_more(observation.host)
        if claim is not None and claim.repeats(said):
            return self
        claim = reported_outages.believable(
            said, self.refreshed, report, before, due
        )
        backend = self.hear_no_more(observation.host)
        if claim is None:
            return backend
        claims = {**backend.claims, observation.host: claim}
        return backend._replace(claims=claims)

    def hear_no_more(self, host: str) -> Backend:
        """Take in that a member says nothing of the kind."""
        if host not in self.claims:
            return self
        claims = dict(self.claims)
        del claims[host]
        return self._replace(claims=claims)

    def agree(self, reports: Iterable[float], due: float) -> Backend:
        """Take in what most members say.

        :param reports: the last report of each that has not left, or NEVER
        """
        if not self.claims:
            return self._replace(agreed=()) if self.agreed else self
        agreed = reported_outages.agree(
            self.claims, reports, self.refreshed - due
        )
        backend = self
        for begin, end, _, _ in agreed:
            if _outages.without(backend.outages, begin, end) > 0:
                backend = backend.with_outage(Outage(begin, end, missed=True))
        return backend._replace(agreed=tuple(agreed))

    # -- memory

    def forget_outages(self, service_down_time: float) -> Backend:
        """Forget outages that make no difference any more."""
        now = self.refreshed
        excused = _outages.recent(
            self.outages_until(now), now, service_down_time
        )
        first = excused[0].begin if excused else now
        kept = tuple(one for one in self.outages if one.end > first)
        return self._replace(excused=excused, outages=kept)
