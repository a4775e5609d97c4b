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

"""Who is alive: the rules. Nothing else makes a verdict.

step() takes in one refresh of one backend and returns the group as it is
known then. A verdict is the first of these that fits:

==============  ======================================================
FORCED_DOWN     an operator says so, in any backend
LEFT, CRASHED   it left, or its guard saw it end, and it has not
                reported since
NEVER_REPORTED  it is known to have neither reported nor registered
as before       it was down by silence, and has not reported since
REPORTED        it has a session, or its deadline has not passed
REGISTERED      the same, by its registration: it has not reported yet
UNWATCHED       its reports were old at the first refresh, those of all
                others, too, and this observer has not watched for
                service_down_time yet
VANISHED        the backend lost its report; the next one is not due
HELD            it is silent together with most of the group
LOST            the backend ended its session
SILENT          (NEVER_REPORTED for one that has only registered)
==============  ======================================================

A report is seen by what has changed between two refreshes, and is as old as
this observer's clock says; the stamp that the backend keeps of it is used at
the first refresh, and later between two refreshes only. So the clocks of the
backend's servers may differ by any amount.

A question adds one rule, as it depends on the moment: a member is
UNAVAILABLE where no backend that knows it has answered for
service_down_time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from nova_sg.liveness import mass_silence, outages, reported_outages
from nova_sg.liveness.deadline import deadline
from nova_sg.liveness.model import (
    CRASHED,
    FORCED_DOWN,
    HELD,
    LEFT,
    LOST,
    NEVER,
    NEVER_REPORTED,
    NOT_A_MEMBER,
    REGISTERED,
    REPORTED,
    SILENT,
    UNAVAILABLE,
    UNWATCHED,
    UP,
    VANISHED,
    Change,
    Limits,
    Member,
    Observation,
    Outage,
    Refresh,
    Seen,
    Verdict,
)

ALWAYS = float("inf")

#: Verdicts that only a report ends.
_OF_SILENCE = (SILENT, LOST, NEVER_REPORTED)


class Backend(NamedTuple):
    """What an observer knows of one backend."""

    name: str
    #: When it was asked last with an answer; None: it has never answered.
    refreshed: float | None = None
    #: When it was asked first without an answer since then; None: it answers.
    failed: float | None = None
    #: Disjoint, the earliest first.
    outages: outages.Outages = ()
    #: Reports of this process that do not get through, by member.
    troubles: Mapping[Hashable, outages.Trouble] = {}
    #: What members say that could not report, by member,
    claims: Mapping[str, reported_outages.Claim] = {}
    #: and what most of them agree on.
    agreed: tuple[reported_outages.Agreement, ...] = ()
    #: The newest observation of each member.
    observed: Mapping[str, Observation] = {}
    #: The outages by which its members were judged last.
    excused: outages.Outages = ()

    def outages_until(self, now: float) -> outages.Outages:
        """Return all outages, those that go on up to now."""
        known = self.outages
        for trouble in self.troubles.values():
            going_on = trouble.until(now)
            if going_on is not None:
                known = outages.add(known, going_on)
        return known


class Group(NamedTuple):
    """A group as one observer knows it. Each step makes another."""

    #: The primary first.
    backends: tuple[Backend, ...]
    members: Mapping[str, Member] = {}
    mass: mass_silence.Mass = mass_silence.Mass()
    #: The members that are not plainly up.
    doubtful: frozenset[str] = frozenset()
    #: Until then no deadline of the others passes.
    next_deadline: float = NEVER

    def index(self, backend: str) -> int:
        """Return the place of a backend.

        :raises ValueError: there is none of that name
        """
        return [one.name for one in self.backends].index(backend)

    @property
    def refreshed(self) -> float | None:
        """When a backend answered last; None: none ever did."""
        return max(
            (
                one.refreshed
                for one in self.backends
                if one.refreshed is not None
            ),
            default=None,
        )

    def basis(self, seen: tuple[Seen | None, ...]) -> Basis:
        """Return what a member is judged by, from where it is known."""
        knowing = [
            backend
            for backend, known in zip(self.backends, seen, strict=True)
            if known is not None and backend.refreshed is not None
        ]
        now = max(backend.refreshed for backend in knowing)
        # While a backend does not answer it is out for all that is known.
        return Basis(
            now,
            outages.common(
                [
                    outages.add(
                        one.outages_until(now),
                        Outage(one.refreshed, now),
                    )
                    for one in knowing
                ]
            ),
        )

    def verdict(
        self, host: str, now: float, service_down_time: float
    ) -> Verdict:
        """Return the verdict over a member, for a question asked now."""
        member = self.members.get(host)
        if member is None:
            if self.unavailable(now, service_down_time):
                return UNAVAILABLE
            return NOT_A_MEMBER
        if member.forced_down:
            return FORCED_DOWN
        answered = max(
            backend.refreshed
            for backend, seen in zip(self.backends, member.seen, strict=True)
            if seen is not None
        )
        if now - answered > service_down_time:
            return UNAVAILABLE
        return member.life

    def unavailable(self, now: float, service_down_time: float) -> bool:
        """Whether no backend has answered for service_down_time."""
        refreshed = self.refreshed
        return refreshed is None or now - refreshed > service_down_time


class Basis(NamedTuple):
    """What the members that the same backends know are judged by."""

    #: When one of these backends was refreshed last: what happened since is
    #: not known.
    now: float
    #: When all of them were out.
    outages: outages.Outages


def new_group(*backends: str) -> Group:
    """Return a group of which nothing is known.

    :param backends: their names, the primary's first
    """
    return Group(tuple(Backend(name) for name in backends))


def refresh_failed(group: Group, backend: str, asked: float) -> Group:
    """Take in that a backend gave no answer, whatever the reason."""
    index = group.index(backend)
    known = group.backends[index]
    if known.failed is None:
        group = _with_backend(group, index, known._replace(failed=asked))
    return group


def reports_fail(
    group: Group, backend: str, source: Hashable, begin: float, certain: float
) -> Group:
    """Take in that reports of this process do not get through.

    :param source: the member that reports
    :param begin: when the first of them began
    :param certain: when the last one failed, or was seen to hang
    """
    index = group.index(backend)
    known = group.backends[index]
    trouble = known.troubles.get(source)
    if trouble is None:
        trouble = outages.Trouble(certain, begin)
    else:
        trouble = trouble._replace(certain=certain)
    troubles = {**known.troubles, source: trouble}
    return _with_backend(group, index, known._replace(troubles=troubles))


def reports_work(
    group: Group, backend: str, source: Hashable, certain: float
) -> Group:
    """Take in that reports get through again, or that there are no more.

    :param certain: when the last one failed, or was seen to hang
    """
    index = group.index(backend)
    known = group.backends[index]
    if source not in known.troubles:
        return group
    troubles = dict(known.troubles)
    trouble = troubles.pop(source)
    outage = trouble.until(certain)
    spans = known.outages
    if outage is not None:
        spans = outages.add(spans, outage)
    known = known._replace(troubles=troubles, outages=spans)
    return _with_backend(group, index, known)


def backend_out(group: Group, backend: str, outage: Outage) -> Group:
    """Take in an outage that the backend's server itself tells of."""
    index = group.index(backend)
    known = group.backends[index]
    spans = outages.add(known.outages, outage)
    return _with_backend(group, index, known._replace(outages=spans))


def step(
    group: Group, refresh: Refresh, limits: Limits
) -> tuple[Group, list[Change]]:
    """Take in one refresh of one backend; judge every member by it.

    :returns: the group as it is known then, and what is different
    """
    return _Step(group, refresh, limits).run()


class _Step:
    """One step: what its parts share."""

    def __init__(self, group: Group, refresh: Refresh, limits: Limits) -> None:
        self.before = group
        self.refresh = refresh
        self.limits = limits
        self.index = group.index(refresh.backend)
        self.backend = group.backends[self.index]
        self.first = self.backend.refreshed is None
        self.members = dict(group.members)
        self.observed = dict(self.backend.observed)
        # Members with a report since the last refresh.
        self.reported: set[str] = set()
        # Members of which something is different.
        self.news: set[str] = set()

    def run(self) -> tuple[Group, list[Change]]:
        """Take the refresh in; return what is known then."""
        self._end_outage()
        gone = self._observe()
        self._weigh_troubles()
        self._hear_claims()
        excused = self.backend.outages_until(self.refresh.asked)
        self._forget_outages(excused)
        self.backend = self.backend._replace(observed=self.observed)
        group = _with_backend(self.before, self.index, self.backend)
        judged = self._judge(group)
        if self.first:
            self._doubt(judged)
        mass = self._hold(group, judged)
        changes = [self._removed(member) for member in gone]
        for host, member in judged.items():
            before = self.before.members.get(host)
            was = None if before is None else before.verdict
            if was is not member.verdict:
                changes.append(Change(host, was, member.verdict, member))
        self.members.update(judged)
        self._late_answer()
        group = _with_backend(group, self.index, self.backend)
        group = group._replace(
            members=self.members, mass=mass, **self._summary(judged)
        )
        return group, changes

    # -- the backend

    def _end_outage(self) -> None:
        """Take in that the backend answers, and that it did not before."""
        refresh, backend = self.refresh, self.backend
        spans = backend.outages
        if backend.refreshed is not None and (
            backend.failed is not None or refresh.interrupted
        ):
            failed = backend.failed
            if failed is None:
                failed = backend.refreshed
            begin = outages.began(
                refresh.observations, backend.refreshed, failed
            )
            end = refresh.asked + refresh.rejoin
            spans = outages.add(spans, Outage(begin, end))
        self.since = NEVER if backend.refreshed is None else backend.refreshed
        self.backend = backend._replace(
            refreshed=max(refresh.asked, self.since),
            failed=None,
            outages=spans,
        )

    def _forget_outages(self, excused: outages.Outages) -> None:
        """Forget the outages that make no difference any more.

        :param excused: all of them, those that go on up to now
        """
        now, limit = self.refresh.asked, self.limits.service_down_time
        recent = outages.recent(excused, now, limit)
        oldest = recent[0].begin if recent else now
        self.backend = self.backend._replace(
            excused=recent,
            outages=tuple(
                one for one in self.backend.outages if one.end > oldest
            ),
        )

    def _late_answer(self) -> None:
        """Take in that the backend took long to answer."""
        asked, answered = self.refresh.asked, self.refresh.answered
        if answered is None or answered - asked <= self.limits.report_interval:
            return
        spans = outages.add(self.backend.outages, Outage(asked, answered))
        self.backend = self.backend._replace(outages=spans)

    def _weigh_troubles(self) -> None:
        """Tell outages of the backend from trouble of this process."""
        backend = self.backend
        if not backend.troubles:
            return
        now = self.refresh.asked
        reports = [
            self._last_report(member)
            for member in self.members.values()
            if member.life.state == UP
        ]
        spans, troubles = backend.outages, {}
        for source, trouble in backend.troubles.items():
            weighed, over = outages.weigh(trouble, reports, now, self.limits)
            troubles[source] = weighed
            if over is not None:
                spans = outages.add(spans, over)
        self.backend = backend._replace(outages=spans, troubles=troubles)

    def _last_report(self, member: Member) -> float:
        seen = member.seen[self.index]
        if seen is None:
            return NEVER
        if seen.observation.facts.present:
            return self.refresh.asked
        return seen.report

    def _hear_claims(self) -> None:
        """Take in what most members say of the time without the backend."""
        backend = self.backend
        if not backend.claims:
            if backend.agreed:
                self.backend = backend._replace(agreed=())
            return
        reports = (
            None if seen.report == NEVER else seen.report
            for member in self.members.values()
            for seen in [member.seen[self.index]]
            if seen is not None
            and not (
                seen.observation.facts.left or seen.observation.facts.crashed
            )
        )
        late = self.refresh.asked - self.limits.due
        agreed = reported_outages.agree(backend.claims, reports, late)
        spans = backend.outages
        for begin, end, _, _ in agreed:
            if outages.without(spans, begin, end) > 0:
                spans = outages.add(spans, Outage(begin, end, missed=True))
        self.backend = backend._replace(outages=spans, agreed=tuple(agreed))

    # -- observations

    def _observe(self) -> list[Member]:
        """Take in what the backend says of each member.

        :returns: those that are no longer members
        """
        observed, members, index = self.observed, self.members, self.index
        for observation in self.refresh.observations:
            # By number: by name it would take twice as long, and this runs
            # for each member of a large group.
            host = observation[0]
            before = observed.get(host)
            if before is None:
                self._take(observation, members.get(host), None)
                continue
            same = observation[5] is before[5] or observation[5] == before[5]
            if same and observation[1] == before[1]:
                # Nearly always: nothing is new.
                continue
            member = members[host]
            if same and member.life is REPORTED:
                self._take_report(observation, member, member.seen[index])
            else:
                self._take(observation, member, member.seen[index])
        if not self.refresh.complete:
            return []
        if len(observed) == len(self.refresh.observations):
            return []
        named = {one.host for one in self.refresh.observations}
        return self._remove([host for host in observed if host not in named])

    def _take_report(
        self, observation: Observation, member: Member, before: Seen
    ) -> None:
        """Take in a report of a member that is up, and nothing else.

        As _take() and _judge_one() would, for the most frequent case.
        """
        host, mark, reported, last_seen, _, _ = observation
        asked, limit = self.refresh.asked, self.limits.service_down_time
        if (
            mark is None
            or before.mark is None
            or mark < before.mark
            or self.backend.excused
        ):
            self._take(observation, member, before)
            return
        report = asked
        if reported is not None and reported < asked:
            report = reported if reported > self.since else self.since
        # Made as tuples: by name it would take three times as long.
        make = tuple.__new__
        seen = make(
            Seen,
            (
                observation,
                mark,
                report,
                before.registered,
                last_seen,
                NEVER,
                NEVER,
            ),
        )
        everywhere = (seen,)
        if len(member.seen) > 1:
            index = self.index
            everywhere = (
                *member.seen[:index],
                seen,
                *member.seen[index + 1 :],
            )
        newest, until = report, report + limit
        if until < member.deadline:
            newest, until = member.report, member.deadline
        self.observed[host] = observation
        self.members[host] = make(
            Member,
            (
                host,
                everywhere,
                newest,
                until,
                REPORTED,
                member.forced_down,
                NEVER,
                NEVER,
            ),
        )
        if asked > until:
            self.news.add(host)

    def _remove(self, hosts: Iterable[str]) -> list[Member]:
        """Take in that a backend does not know members any more."""
        removed = []
        for host in hosts:
            del self.observed[host]
            member = self.members[host]
            seen = list(member.seen)
            seen[self.index] = None
            self._set_claim(host, None)
            if any(one is not None for one in seen):
                self.members[host] = member._replace(seen=tuple(seen))
                self.news.add(host)
            else:
                del self.members[host]
                removed.append(member)
        return removed

    def _take(
        self,
        observation: Observation,
        member: Member | None,
        before: Seen | None,
    ) -> None:
        """Take in an observation that is not the same as the last one."""
        host, asked = observation.host, self.refresh.asked
        limit = self.limits.service_down_time
        reported, registered = observation.reported, observation.registered
        if registered is None or registered > asked + limit:
            registered = NEVER
        if before is None:
            seen = self._first_seen(observation, reported, registered)
        elif _is_older(observation, before):
            # Another server of the backend, which is behind.
            return
        else:
            report, last_seen = before.report, before.last_seen
            mark = before.mark
            if observation.mark not in (None, before.mark):
                self.reported.add(host)
                mark, last_seen = observation.mark, observation.last_seen
                report = asked
                if reported is not None:
                    report = min(max(reported, self.since), asked)
            seen = Seen(
                observation,
                mark,
                report,
                max(registered, before.registered),
                last_seen,
            )
            if before.observation.facts.present:
                seen = seen._replace(report=max(seen.report, self.since))
        if observation.facts.present:
            self.reported.add(host)
            seen = seen._replace(report=asked)
        if observation.facts.left or observation.facts.crashed:
            seen = seen._replace(gone=self._gone(observation, before, seen))
        if observation.facts.vanished:
            if before is not None and before.observation.facts.vanished:
                seen = seen._replace(grace=before.grace)
            elif member is not None and member.life.state == UP:
                seen = seen._replace(grace=asked + self.limits.due)
        self._hear(observation, seen, before)
        everywhere = [None] * len(self.before.backends)
        if member is not None:
            everywhere = list(member.seen)
        everywhere[self.index] = seen
        self.observed[host] = observation
        if member is None:
            member = Member(host, (), NEVER, NEVER, REPORTED, False)
        self.members[host] = member._replace(seen=tuple(everywhere))
        self.news.add(host)

    def _first_seen(
        self,
        observation: Observation,
        reported: float | None,
        registered: float,
    ) -> Seen:
        report = NEVER
        asked, limit = self.refresh.asked, self.limits.service_down_time
        # A stamp from the future is not believed. Nova takes such a member
        # to be down, too.
        believable = reported is None or reported <= asked + limit
        if observation.mark is not None and believable:
            report = asked
            if reported is not None:
                # One that was not there at the last refresh is newer.
                report = min(max(reported, self.since), asked)
        grace = NEVER
        if asked <= report + limit:
            grace = asked + self.limits.due
        mark, last_seen = observation.mark, observation.last_seen
        return Seen(
            observation, mark, report, registered, last_seen, grace=grace
        )

    def _gone(
        self, observation: Observation, before: Seen | None, seen: Seen
    ) -> float:
        """Return since when a member counts as left or crashed."""
        if before is None:
            # It may be long ago. Where it reports to another backend later
            # than it would have reported here, it is there again.
            return min(seen.report + self.limits.due, self.refresh.asked)
        if before.gone > NEVER and before.mark == seen.mark:
            return before.gone
        return self.refresh.asked

    def _hear(
        self, observation: Observation, seen: Seen, before: Seen | None
    ) -> None:
        """Take in what a member says of the time when it could not report."""
        host = observation.host
        claim = self.backend.claims.get(host)
        if observation.facts.outage is None:
            if claim is not None:
                self._set_claim(host, None)
            return
        if claim is not None and claim.repeats(observation.facts.outage):
            return
        self._set_claim(
            host,
            reported_outages.believable(
                observation,
                self.refresh.asked,
                None if seen.report == NEVER else seen.report,
                None
                if before is None or before.report == NEVER
                else before.report,
                self.limits.due,
            ),
        )

    def _set_claim(
        self, host: str, claim: reported_outages.Claim | None
    ) -> None:
        claims = dict(self.backend.claims)
        claims.pop(host, None)
        if claim is not None:
            claims[host] = claim
        self.backend = self.backend._replace(claims=claims)

    # -- verdicts

    def _judge(self, group: Group) -> dict[str, Member]:
        """Judge the members that are not plainly up, as they were."""
        judged = {}
        bases: dict[tuple[bool, ...], Basis] = {}
        for host in self._to_judge():
            member = self.members[host]
            knowing = tuple([seen is not None for seen in member.seen])
            basis = bases.get(knowing)
            if basis is None:
                basis = bases[knowing] = group.basis(member.seen)
            judged[host] = self._judge_one(member, basis)
        return judged

    def _to_judge(self) -> Iterable[str]:
        excused = self.before.backends[self.index].excused
        if self.backend.excused != excused:
            return [*self.observed, *(self.news - self.observed.keys())]
        hosts = self.news | (self.before.doubtful & self.members.keys())
        if self.refresh.asked > self.before.next_deadline:
            asked = self.refresh.asked
            hosts.update(
                host
                for host, member in self.members.items()
                if asked > member.deadline
            )
        return hosts

    def _summary(self, judged: dict[str, Member]) -> dict[str, Any]:
        """Return the fields of the group that say what to judge next."""
        doubtful = {*self.before.doubtful, *judged} & self.members.keys()
        doubtful = frozenset(
            host
            for host in doubtful
            if self.members[host].life is not REPORTED
        )
        asked, first = self.refresh.asked, self.before.next_deadline
        deadlines: Iterable[Member] = judged.values()
        if asked > first or len(judged) >= len(self.members):
            first, deadlines = ALWAYS, self.members.values()
        for member in deadlines:
            if member.deadline < first and member.life is REPORTED:
                first = member.deadline
        return {"doubtful": doubtful, "next_deadline": first}

    def _judge_one(self, member: Member, basis: Basis) -> Member:
        """Apply the rules, but for mass silence, to one member."""
        limit, long = self.limits.service_down_time, self.limits.long
        now = basis.now
        report = registered = gone = grace = until = NEVER
        forced = present = vanished = False
        lost = True
        cause = LEFT
        for seen in member.seen:
            if seen is None:
                continue
            observation = seen.observation
            forced = forced or observation.facts.forced_down
            present = present or observation.facts.present
            lost = lost and observation.facts.lost
            report = max(report, seen.report)
            registered = max(registered, seen.registered)
            vanished = vanished or observation.facts.vanished
            grace = max(grace, seen.grace)
            if seen.gone > gone:
                gone = seen.gone
                cause = CRASHED if observation.facts.crashed else LEFT
            if seen.report > NEVER:
                allowed = 0.0 if observation.facts.lost else limit
                last = deadline(basis.outages, seen.report, allowed, long)
                until = max(until, last)
        if present:
            report, until = now, ALWAYS
        elif report == NEVER and registered > NEVER:
            until = deadline(basis.outages, registered, limit, long)
        if not vanished:
            until = max(until, grace)
        before = self.before.members.get(member.host)
        fell = NEVER if before is None else before.fell
        if gone > NEVER and gone >= report:
            life, fell = cause, NEVER
        elif (
            fell > NEVER
            and report <= fell
            and member.host not in self.reported
        ):
            life = before.life
        elif now <= until:
            life, fell = (REGISTERED if report == NEVER else REPORTED), NEVER
        elif member.watched > NEVER and now <= deadline(
            basis.outages, member.watched, limit, long
        ):
            life, fell = UNWATCHED, NEVER
        elif now <= grace:
            life, fell = VANISHED, NEVER
        else:
            fell = now
            if report == NEVER and not lost:
                life = NEVER_REPORTED
            else:
                life = LOST if lost else SILENT
        return Member(
            member.host,
            member.seen,
            report,
            until,
            life,
            forced,
            fell,
            member.watched,
        )

    def _doubt(self, judged: dict[str, Member]) -> None:
        """Take back verdicts of silence that a frozen backend explains.

        At the first refresh there are only the stamps. Where the newest of
        all is old, the backend may be frozen, or a replica that lags.
        """
        limits, asked = self.limits, self.refresh.asked
        reports = [
            member.report
            for member in judged.values()
            if member.report > NEVER
            and not member.forced_down
            and member.life not in (LEFT, CRASHED)
        ]
        if not self.refresh.stamped:
            return
        if len(reports) < max(2, limits.mass.min_members):
            return
        newest = max(reports)
        if newest >= asked - limits.due:
            return
        # Where at least one has reported in time, those are down that were
        # silent for too long when it did.
        oldest = newest - limits.service_down_time
        if newest < asked - limits.service_down_time:
            oldest = NEVER
        for host, member in judged.items():
            if member.life is SILENT and member.report >= oldest:
                judged[host] = member._replace(
                    life=UNWATCHED, fell=NEVER, watched=asked
                )

    def _hold(
        self, group: Group, judged: dict[str, Member]
    ) -> mass_silence.Mass:
        """Hold verdicts of silence that are part of a mass."""
        candidates = {}
        for host, member in judged.items():
            if member.forced_down or member.life not in (SILENT, LOST):
                continue
            before = self.before.members.get(host)
            if before is None:
                if self.first:
                    candidates[host] = False
            elif before.life.state == UP:
                candidates[host] = before.life is HELD

        def falls() -> dict[str, float]:
            return {
                host: member.deadline
                for host, member in {**self.members, **judged}.items()
                if not member.forced_down
                and member.life not in (LEFT, CRASHED)
            }

        now = self.refresh.asked
        mass, held = mass_silence.hold(
            group.mass,
            self.limits,
            self.backend.outages_until(now),
            now,
            candidates,
            falls,
        )
        for host in held:
            judged[host] = judged[host]._replace(life=HELD, fell=NEVER)
        return mass

    @staticmethod
    def _removed(member: Member) -> Change:
        return Change(member.host, member.verdict, None, member)


def _is_older(observation: Observation, before: Seen) -> bool:
    """Whether an observation comes from a server that is behind.

    A smaller mark with a newer stamp is no older one: the numbers began
    anew, as after a backup was restored.
    """
    mark, than = observation.mark, before.mark
    if than is None or mark is None or mark >= than:
        return False
    reported = observation.reported
    return reported is None or reported <= before.report + outages.MARGIN


def _with_backend(group: Group, index: int, backend: Backend) -> Group:
    backends = list(group.backends)
    backends[index] = backend
    return group._replace(backends=tuple(backends))
