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
from nova_sg.liveness import reported_outages as _reported_outages
from nova_sg.liveness.model import NEVER, Limits, Observation, Outage, Refresh


class Backend(NamedTuple):
    """One backend. Immutable: each method returns a changed copy."""

    name: str
    #: When the last refresh that succeeded began; NEVER: none has.
    refreshed: float = NEVER
    #: When the first refresh that failed since then began; None: the last one
    #: succeeded.
    failed: float | None = None
    #: See Refresh.spread.
    spread: float = 0.0
    #: The newest report of any member; NEVER: there was none.
    last_report: float = NEVER
    #: The newest observation of each member.
    observed: Mapping[str, Observation] = {}
    #: The mark of the last refresh, see Changes; None: it had none.
    mark: object = None
    #: Disjoint, the earliest first.
    outages: _outages.Outages = ()
    #: Reports of this process that fail, by member.
    failing_reports: Mapping[Hashable, _outages.FailingReports] = {}
    #: The outages that members report, by member.
    reported_outages: Mapping[str, _reported_outages.ReportedOutage] = {}
    #: The outages that most of these members agree on.
    agreed: tuple[_reported_outages.AgreedOutage, ...] = ()
    #: The outages that counted when its members were judged last.
    excused: _outages.Outages = ()

    def outages_until(self, now: float) -> _outages.Outages:
        """Return all outages; those that have not ended last until now."""
        known = self.outages
        for failing in self.failing_reports.values():
            going_on = failing.until(now)
            if going_on is not None:
                known = _outages.add(known, going_on)
        return known

    def with_outage(self, outage: Outage | None) -> Backend:
        """Add an outage; None: there was none."""
        if outage is None:
            return self
        return self._replace(outages=_outages.add(self.outages, outage))

    # -- refreshes

    def failed_at(self, asked: float) -> Backend:
        """Note that a refresh failed."""
        return self if self.failed is not None else self._replace(failed=asked)

    def answered(self, refresh: Refresh) -> Backend:
        """Note that a refresh succeeded; this ends an outage, if any."""
        before = self.refreshed
        mark = None if refresh.changes is None else refresh.changes.mark
        if before == NEVER:
            return self._replace(
                refreshed=refresh.asked,
                failed=None,
                spread=refresh.spread,
                mark=mark,
            )
        outage = None
        if self.failed is not None or refresh.interrupted:
            failed = before if self.failed is None else self.failed
            begin = _outages.began(refresh.observations, before, failed)
            outage = Outage(begin, refresh.asked + refresh.rejoin)
        return (
            self.with_outage(outage)
            .with_outage(refresh.lost)
            ._replace(
                refreshed=max(refresh.asked, before), failed=None, mark=mark
            )
        )

    def answered_late(self, refresh: Refresh, limits: Limits) -> Backend:
        """Add an outage if the refresh took longer than report_interval."""
        asked, answered = refresh.asked, refresh.answered
        if answered is None or answered - asked <= limits.report_interval:
            return self
        return self.with_outage(Outage(asked, answered))

    # -- reports of this process

    def reports_fail(
        self, source: Hashable, begin: float, certain: float
    ) -> Backend:
        """Note that reports of this process fail.

        :param source: the member that reports
        :param begin: when the first of them began
        :param certain: when the last one failed, or was seen to hang
        """
        failing = self.failing_reports.get(source)
        if failing is None:
            failing = _outages.FailingReports(certain, begin)
        failing = failing._replace(certain=certain)
        return self._replace(
            failing_reports={**self.failing_reports, source: failing}
        )

    def reports_work(self, source: Hashable, certain: float) -> Backend:
        """Note that they succeed again, or that there are no more of them."""
        if source not in self.failing_reports:
            return self
        failing_reports = dict(self.failing_reports)
        outage = failing_reports.pop(source).until(certain)
        return self.with_outage(outage)._replace(
            failing_reports=failing_reports
        )

    def weigh_failing_reports(
        self, reports: Sequence[float], now: float, limits: Limits
    ) -> Backend:
        """Decide whether the backend or this process is at fault.

        :param reports: the last report of each member that is up
        """
        backend, failing_reports = self, {}
        for source, failing in self.failing_reports.items():
            failing_reports[source], over = _outages.weigh(
                failing, reports, now, limits
            )
            backend = backend.with_outage(over)
        return backend._replace(failing_reports=failing_reports)

    # -- outages that members report

    def take_reported_outage(
        self,
        observation: Observation,
        report: float,
        before: float,
        due: float,
    ) -> Backend:
        """Take in the outage that a member reports, if it reports one.

        :param report: its last report; NEVER: it has none
        :param before: its last report at the refresh before, or NEVER
        :param due: seconds within which a member that is alive reports
        """
        host, span = observation.host, observation.attributes.outage
        if span is None:
            return self.forget_reported_outage(host)
        known = self.reported_outages.get(host)
        if known is not None and known.is_same(span):
            return self
        backend = self.forget_reported_outage(host)
        new = _reported_outages.believable(
            span, self.refreshed, report, before, due
        )
        if new is None:
            return backend
        reported = {**backend.reported_outages, host: new}
        return backend._replace(reported_outages=reported)

    def forget_reported_outage(self, host: str) -> Backend:
        """Note that a member reports no outage, or no longer does."""
        if host not in self.reported_outages:
            return self
        reported = dict(self.reported_outages)
        del reported[host]
        return self._replace(reported_outages=reported)

    def agree(self, reports: Iterable[float], due: float) -> Backend:
        """Add the outages that most members agree on.

        :param reports: the last report of each member that has not left;
            NEVER: it has not reported
        """
        if not self.reported_outages:
            return self._replace(agreed=()) if self.agreed else self
        agreed = _reported_outages.agree(
            self.reported_outages, reports, self.refreshed - due
        )
        backend = self
        for begin, end, _, _ in agreed:
            if _outages.without(backend.outages, begin, end) > 0:
                backend = backend.with_outage(Outage(begin, end, missed=True))
        return backend._replace(agreed=tuple(agreed))

    # -- memory

    def forget_outages(self, service_down_time: float) -> Backend:
        """Forget outages that can no longer change a verdict."""
        now = self.refreshed
        excused = _outages.recent(
            self.outages_until(now), now, service_down_time
        )
        first = excused[0].begin if excused else now
        kept = tuple(one for one in self.outages if one.end > first)
        return self._replace(excused=excused, outages=kept)
