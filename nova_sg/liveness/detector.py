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
known afterwards. The rules for a member are in rules.py. What is here makes
them fast for 10,000 members: a member is judged only if something about it is
new, if its deadline has passed, or if its verdict is not simply REPORTED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nova_sg.liveness import history, mass_silence, rules
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
    History,
    Limits,
    Member,
    Observation,
    Refresh,
)
from nova_sg.liveness.outages import MARGIN


def step(
    group: Group,
    refresh: Refresh,
    limits: Limits,
    in_slices: Callable[[list], Iterable[Any]] = iter,
) -> tuple[Group, list[Change]]:
    """Take in one refresh of one backend; judge every member by it.

    :param in_slices: yields the items of a list, which may be long; between
        two of them the caller may do something else
    :returns: the group as it is known afterwards, and the changes
    """
    return _Step(group, refresh, limits, in_slices).run()


class _Step:
    """The state of one step."""

    def __init__(
        self,
        group: Group,
        refresh: Refresh,
        limits: Limits,
        in_slices: Callable[[list], Iterable[Any]],
    ) -> None:
        self.before = group
        self.refresh = refresh
        self.limits = limits
        self.in_slices = in_slices
        self.index = group.place(refresh.backend)
        self.backend = group.backends[self.index]
        #: When the backend was refreshed before.
        self.since = self.backend.refreshed
        self.first = self.since == NEVER
        #: The newest report of any member to the backend.
        self.last_report = self.backend.last_report
        self.members = dict(group.members)
        self.observed = dict(self.backend.observed)
        #: Members that have reported since they fell silent.
        self.reported: set[str] = set()
        #: Members about which something has changed.
        self.changed: set[str] = set()

    def run(self) -> tuple[Group, list[Change]]:
        """Take the refresh in; return the group and the changes."""
        limits = self.limits
        self.backend = self.backend.answered(self.refresh)
        removed = self._observe()
        self._look_for_outages()
        self.backend = self.backend._replace(
            observed=self.observed, last_report=self.last_report
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
        """Take in the backend's observation of each member.

        :returns: those that are no longer members
        """
        observed, members, index = self.observed, self.members, self.index
        observations, changes = self.refresh.observations, self.refresh.changes
        known = self.before.backends[index].mark
        if known is None or (
            changes is not None and changes.since is not known
        ):
            changes = None
        if changes is not None:
            observations = changes.observations
        for observation in self.in_slices(observations):
            # Fields by index: by name it would take twice as long, and this
            # runs for each member of a large group.
            host = observation[0]
            before = observed.get(host)
            if before is observation:
                continue
            if before is None:
                self._take(observation, members.get(host))
                continue
            same = observation[5] is before[5] or observation[5] == before[5]
            if same and observation[1] == before[1]:
                # The usual case: nothing is new.
                continue
            member = members[host]
            seen_before = member.histories[index]
            if not (
                same
                and seen_before is not None
                and member.unforced is REPORTED
                and self._take_report(observation, member, seen_before)
            ):
                self._take(observation, member)
        if changes is not None:
            return self._remove(
                [host for host in changes.gone if host in observed]
            )
        if not self.refresh.complete:
            return []
        if len(observed) == len(self.refresh.observations):
            return []
        named = {one.host for one in self.refresh.observations}
        return self._remove([host for host in observed if host not in named])

    def _take(self, observation: Observation, member: Member | None) -> None:
        """Take in an observation that differs from the last one."""
        host, asked = observation.host, self.refresh.asked
        if member is None:
            nowhere = (None,) * len(self.before.backends)
            member = Member(host, nowhere, NEVER, NEVER, REPORTED, False)
        before = member.histories[self.index]
        if before is None:
            report = NEVER
            known = history.first(observation, asked, self.limits)
            if observation.attributes.present:
                self.reported.add(host)
        elif history.is_older(observation, before, self.limits):
            return
        else:
            report = before.report
            up = member.unforced.state == UP
            known = history.again(
                before,
                observation,
                self.since,
                asked,
                self.limits,
                up,
                self.refresh.exact,
            )
            if self.refresh.exact and not observation.attributes.present:
                if known.report > max(
                    before.report, member.silent_since - MARGIN
                ):
                    self.reported.add(host)
            elif (
                observation.attributes.present
                or self.since >= member.silent_since
            ):
                if history.has_reported(before, observation):
                    self.reported.add(host)
            elif known.report > member.silent_since:
                # It may have reported before it fell silent: only stamps tell
                # that, and they may be wrong. Its next report is certainly
                # later.
                known = known._replace(report=member.silent_since)
        self.backend = self.backend.take_reported_outage(
            observation, known.report, report, self.limits.due
        )
        self.last_report = max(self.last_report, known.report)
        self.observed[host] = observation
        self.members[host] = member._replace(
            histories=self._with(member.histories, known)
        )
        self.changed.add(host)

    def _take_report(
        self, observation: Observation, member: Member, before: History
    ) -> bool:
        """Take in a report of a member that is up, and nothing else.

        A short cut for the most frequent case: the result is that of _take()
        and rules.judge().

        :returns: whether it was that case
        """
        host, report_number, stamp, last_seen, _, attributes = observation
        if (
            report_number is None
            or attributes.draining
            or attributes.unwell
            or before.report_number is None
            or report_number < before.report_number
            or self.backend.excused
        ):
            return False
        report = asked = self.refresh.asked
        if stamp is not None and stamp < asked:
            since = before.report if self.refresh.exact else self.since
            report = stamp if stamp > since else since
        if report > self.last_report:
            self.last_report = report
        # tuple.__new__: the class itself would take three times as long.
        make = tuple.__new__
        registered = before.registered
        known = make(
            History,
            (
                observation,
                report_number,
                report,
                registered,
                last_seen,
                NEVER,
                NEVER,
                NEVER,
                before.domain,
            ),
        )
        everywhere: tuple[History | None, ...] = (known,)
        if len(member.histories) > 1:
            everywhere = self._with(member.histories, known)
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
            self.changed.add(host)
        return True

    def _with(
        self, everywhere: tuple[History | None, ...], known: History | None
    ) -> tuple[History | None, ...]:
        index = self.index
        return (*everywhere[:index], known, *everywhere[index + 1 :])

    def _remove(self, hosts: Iterable[str]) -> list[Member]:
        """Take in that the backend no longer knows some members."""
        removed = []
        for host in hosts:
            del self.observed[host]
            self.backend = self.backend.forget_reported_outage(host)
            member = self.members[host]
            elsewhere = self._with(member.histories, None)
            if any(elsewhere):
                self.members[host] = member._replace(histories=elsewhere)
                self.changed.add(host)
            else:
                del self.members[host]
                removed.append(member)
        return removed

    # -- outages

    def _look_for_outages(self) -> None:
        """Weigh the evidence for outages of the backend."""
        backend = self.backend
        if not (
            backend.failing_reports
            or backend.reported_outages
            or backend.agreed
        ):
            return
        now = self.refresh.asked
        up, there = [], []
        for member in self.members.values():
            known = member.histories[self.index]
            report = NEVER
            if known is not None:
                attributes = known.observation.attributes
                report = now if attributes.present else known.report
                if not attributes.gone:
                    there.append(report)
            if member.unforced.state == UP and member.unforced not in GONE:
                up.append(report)
        backend = backend.weigh_failing_reports(up, now, self.limits)
        self.backend = backend.agree(there, self.limits.due)

    # -- verdicts

    def _judge(self, group: Group) -> dict[str, Member]:
        """Judge the members whose verdict may have changed."""
        judged = {}
        bases: dict[tuple[bool, ...], Basis] = {}
        for host in self.in_slices(list(self._to_judge())):
            member = self.members[host]
            counts = group.counts(
                member.histories, self.limits.service_down_time
            )
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
            return self.changed | self.observed.keys()
        hosts = self.changed | (self.before.doubtful & self.members.keys())
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
            host
            for host in hosts
            if self.members[host].unforced is not REPORTED
        )

    def _next_deadline(self, judged: dict[str, Member]) -> float:
        members, first = judged.values(), self.before.next_deadline
        if self.refresh.asked > first or len(judged) == len(self.members):
            members, first = self.members.values(), rules.ALWAYS
        for member in members:
            if member.deadline < first and member.unforced is REPORTED:
                first = member.deadline
        return first

    def _hold(
        self, group: Group, judged: dict[str, Member]
    ) -> mass_silence.Mass:
        """Hold verdicts of silence that are part of a mass silence."""
        candidates = set()
        for host, member in judged.items():
            if member.forced_down or member.unforced not in (SILENT, LOST):
                continue
            before = self.before.members.get(host)
            if before is None:
                if self.first:
                    candidates.add(host)
            elif before.unforced.state == UP or before.unforced is UNWATCHED:
                candidates.add(host)

        now, held = self.refresh.asked, group.mass.held

        def fall(member: Member) -> float:
            if member.host in candidates and member.unforced is LOST:
                if member.host in self.before.members and (
                    member.host not in held
                ):
                    # It is not known when its session ended: it is taken to
                    # be now.
                    return now
            elif group.has_session(member):
                return rules.ALWAYS
            return member.deadline

        def falls() -> dict[str, float]:
            return {
                host: fall(member)
                for host, member in {**self.members, **judged}.items()
                if not member.forced_down and member.unforced not in GONE
            }

        mass = mass_silence.hold(
            group.mass,
            self.limits,
            self.backend.outages_until(now),
            now,
            candidates,
            falls,
            lambda host: mass_silence.parts(self.members[host], self.limits),
        )
        for host in mass.held:
            judged[host] = judged[host]._replace(
                unforced=HELD, silent_since=NEVER
            )
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
