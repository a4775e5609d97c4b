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

"""One step of an observer: a refresh in, verdicts out.

step() takes in one refresh of one backend and returns the group as it is
known then. The rules for each member are in rules.py; here is what makes
10,000 of them quick: only those are judged of which something is new, whose
deadline has passed, or that are not plainly up.
"""

from __future__ import annotations

from collections.abc import Iterable

from nova_sg.liveness import mass_silence, rules, seen
from nova_sg.liveness.group import Basis, Group
from nova_sg.liveness.model import (
    GONE,
    HELD,
    LOST,
    NEVER,
    REPORTED,
    SILENT,
    UNWATCHED,
    UP,
    Change,
    Limits,
    Member,
    Observation,
    Refresh,
    Seen,
)
from nova_sg.liveness.outages import MARGIN


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
        self.index = group.place(refresh.backend)
        self.backend = group.backends[self.index]
        #: When the backend was refreshed before.
        self.since = self.backend.refreshed
        self.first = self.since == NEVER
        #: The newest report of any member to the backend.
        self.heard = self.backend.heard
        self.members = dict(group.members)
        self.observed = dict(self.backend.observed)
        #: Members that have reported since they fell.
        self.reported: set[str] = set()
        #: Members of which something is different.
        self.news: set[str] = set()

    def run(self) -> tuple[Group, list[Change]]:
        """Take the refresh in; return what is known then."""
        limits = self.limits
        self.backend = self.backend.answered(self.refresh)
        removed = self._observe()
        self._look_for_outages()
        self.backend = self.backend._replace(
            observed=self.observed, heard=self.heard
        ).forget_outages(limits.service_down_time)
        group = self.before.with_backend(self.backend)
        judged = self._judge(group)
        if self.first and self.refresh.stamped:
            doubted = rules.doubt(judged.values(), self.refresh.asked, limits)
            judged.update((member.host, member) for member in doubted)
        mass = self._hold(group, judged)
        self.members.update(judged)
        group = group.with_backend(
            self.backend.answered_late(self.refresh, limits)
        )
        group = group._replace(
            members=self.members,
            mass=mass,
            doubtful=self._doubtful(judged),
            next_deadline=self._next_deadline(judged),
        )
        return group, self._changes(removed, judged)

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
                self._take(observation, members.get(host))
                continue
            same = observation[5] is before[5] or observation[5] == before[5]
            if same and observation[1] == before[1]:
                # Nearly always: nothing is new.
                continue
            member = members[host]
            seen_before = member.seen[index]
            if not (
                same
                and seen_before is not None
                and member.life is REPORTED
                and self._take_report(observation, member, seen_before)
            ):
                self._take(observation, member)
        if not self.refresh.complete:
            return []
        if len(observed) == len(self.refresh.observations):
            return []
        named = {one.host for one in self.refresh.observations}
        return self._remove([host for host in observed if host not in named])

    def _take(self, observation: Observation, member: Member | None) -> None:
        """Take in an observation that is not the same as the last one."""
        host, asked = observation.host, self.refresh.asked
        if member is None:
            nowhere = (None,) * len(self.before.backends)
            member = Member(host, nowhere, NEVER, NEVER, REPORTED, False)
        before = member.seen[self.index]
        if before is None:
            report = NEVER
            known = seen.first(observation, asked, self.limits)
            if observation.facts.present:
                self.reported.add(host)
        elif seen.is_older(observation, before, self.limits):
            return
        else:
            report = before.report
            up = member.life.state == UP
            known = seen.again(
                before,
                observation,
                self.since,
                asked,
                self.limits,
                up,
                self.refresh.exact,
            )
            if self.refresh.exact and not observation.facts.present:
                if known.report > max(before.report, member.fell - MARGIN):
                    self.reported.add(host)
            elif observation.facts.present or self.since >= member.fell:
                if seen.has_reported(before, observation):
                    self.reported.add(host)
            elif known.report > member.fell:
                # It may have reported before it fell: only stamps tell, which
                # may be wrong. Its next report is later.
                known = known._replace(report=member.fell)
        self.backend = self.backend.hear(
            observation, known.report, report, self.limits.due
        )
        self.heard = max(self.heard, known.report)
        self.observed[host] = observation
        self.members[host] = member._replace(
            seen=self._with(member.seen, known)
        )
        self.news.add(host)

    def _take_report(
        self, observation: Observation, member: Member, before: Seen
    ) -> bool:
        """Take in a report of a member that is up, and nothing else.

        As _take() and rules.judge() would, for the most frequent case.

        :returns: whether it was that case
        """
        host, mark, stamp, last_seen, _, facts = observation
        if (
            mark is None
            or facts.draining
            or before.mark is None
            or mark < before.mark
            or self.backend.excused
        ):
            return False
        report = asked = self.refresh.asked
        if stamp is not None and stamp < asked:
            since = before.report if self.refresh.exact else self.since
            report = stamp if stamp > since else since
        if report > self.heard:
            self.heard = report
        # Made as tuples: by name it would take three times as long.
        make = tuple.__new__
        registered = before.registered
        known = make(
            Seen,
            (observation, mark, report, registered, last_seen, NEVER, NEVER),
        )
        everywhere: tuple[Seen | None, ...] = (known,)
        if len(member.seen) > 1:
            everywhere = self._with(member.seen, known)
        until = report + self.limits.service_down_time
        if until < member.deadline:
            report, until = max(report, member.report), member.deadline
        forced = member.forced_down
        self.observed[host] = observation
        self.members[host] = make(
            Member,
            (host, everywhere, report, until, REPORTED, forced, NEVER, NEVER),
        )
        if asked > until:
            self.news.add(host)
        return True

    def _with(
        self, everywhere: tuple[Seen | None, ...], known: Seen | None
    ) -> tuple[Seen | None, ...]:
        index = self.index
        return (*everywhere[:index], known, *everywhere[index + 1 :])

    def _remove(self, hosts: Iterable[str]) -> list[Member]:
        """Take in that a backend does not know members any more."""
        removed = []
        for host in hosts:
            del self.observed[host]
            self.backend = self.backend.hear_no_more(host)
            member = self.members[host]
            elsewhere = self._with(member.seen, None)
            if any(elsewhere):
                self.members[host] = member._replace(seen=elsewhere)
                self.news.add(host)
            else:
                del self.members[host]
                removed.append(member)
        return removed

    # -- outages

    def _look_for_outages(self) -> None:
        """Weigh what speaks for an outage of the backend."""
        if not (
            self.backend.troubles or self.backend.claims or self.backend.agreed
        ):
            return
        now = self.refresh.asked
        up, there = [], []
        for member in self.members.values():
            known = member.seen[self.index]
            report = NEVER
            if known is not None:
                facts = known.observation.facts
                report = now if facts.present else known.report
                if not facts.gone:
                    there.append(report)
            if member.life.state == UP and member.life not in GONE:
                up.append(report)
        self.backend = self.backend.weigh_troubles(up, now, self.limits).agree(
            there, self.limits.due
        )

    # -- verdicts

    def _judge(self, group: Group) -> dict[str, Member]:
        """Judge the members that are not plainly up, as they were."""
        judged = {}
        bases: dict[tuple[bool, ...], Basis] = {}
        for host in self._to_judge():
            member = self.members[host]
            counts = group.counts(member.seen, self.limits.service_down_time)
            basis = bases.get(counts)
            if basis is None:
                basis = bases[counts] = group.basis(counts)
            judged[host] = rules.judge(
                member,
                self.before.members.get(host),
                host in self.reported,
                basis,
                self.limits,
            )
        return judged

    def _to_judge(self) -> Iterable[str]:
        if self.backend.excused != self.before.backends[self.index].excused:
            return self.news | self.observed.keys()
        hosts = self.news | (self.before.doubtful & self.members.keys())
        asked = self.refresh.asked
        if asked > self.before.next_deadline:
            hosts.update(
                host
                for host, member in self.members.items()
                if asked > member.deadline
            )
        return hosts

    def _doubtful(self, judged: dict[str, Member]) -> frozenset[str]:
        hosts = {*self.before.doubtful, *judged} & self.members.keys()
        return frozenset(
            host for host in hosts if self.members[host].life is not REPORTED
        )

    def _next_deadline(self, judged: dict[str, Member]) -> float:
        members, first = judged.values(), self.before.next_deadline
        if self.refresh.asked > first or len(judged) == len(self.members):
            members, first = self.members.values(), rules.ALWAYS
        for member in members:
            if member.deadline < first and member.life is REPORTED:
                first = member.deadline
        return first

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
            elif before.life.state == UP or before.life is UNWATCHED:
                candidates[host] = before.life is HELD

        now = self.refresh.asked

        def fall(member: Member) -> float:
            if member.host in candidates and member.life is LOST:
                if member.host in self.before.members:
                    # Its session ended at a time that is not known: it is
                    # known now.
                    return now
            elif group.has_session(member):
                return rules.ALWAYS
            return member.deadline

        def falls() -> dict[str, float]:
            return {
                host: fall(member)
                for host, member in {**self.members, **judged}.items()
                if not member.forced_down
                and member.life not in GONE
            }

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

    def _changes(
        self, removed: list[Member], judged: dict[str, Member]
    ) -> list[Change]:
        changes = [
            Change(member.host, member.verdict, None, member)
            for member in removed
        ]
        for host, member in judged.items():
            before = self.before.members.get(host)
            was = None if before is None else before.verdict
            if was is not member.verdict:
                changes.append(Change(host, was, member.verdict, member))
        return changes
