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

"""A group as the API shows it: members with reasons, events, metrics.

All answers come from what the observer has in memory.
"""

from __future__ import annotations

import collections
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nova_sg import exception, grace, metrics
from nova_sg import observer as observers
from nova_sg.backends import base
from nova_sg.conf import CONF
from nova_sg.liveness import explain, model, rules
from nova_sg.liveness import group as liveness
from nova_sg.servicegroup import disagreements, domain_map, events

# Seconds that refresh() waits at most.
REFRESH_WAIT = 30.0
# Seconds that a question waits until refreshes show what this process did.
ECHO_WAIT = 0.03


class Member(NamedTuple):
    """A member as this observer knows it."""

    group: str
    host: str
    topic: str
    binary: str | None
    #: up, down or unknown.
    state: str
    #: The last report, UTC; None: no report is known.
    last_seen: datetime.datetime | None
    #: Seconds since the last report; None: no report is known.
    age: float | None
    #: The driver whose backend has its newest report.
    driver: str
    forced_down: bool
    disabled: bool
    disabled_reason: str | None
    #: The verdict in a sentence.
    reason: str
    #: The rule that gave it, in one word: see nova_sg.liveness.model.
    cause: str = ""
    #: Its failure domain, such as its rack; None: it is not known.
    domain: str | None = None


class BackendState(NamedTuple):
    """A member as one backend alone shows it."""

    driver: str
    #: The member; None: the backend does not know it.
    member: Member | None
    #: The error of the backend's last refresh; empty: it succeeded.
    trouble: str


class GroupView(observers.Listener):
    """One group as this process knows it.

    :param group: its name
    :param drivers: the backends, the primary first
    """

    def __init__(self, group: str, drivers: Sequence[base.Driver]) -> None:
        self.group = group
        self._names = [driver.name for driver in drivers]
        self.observer = observers.Observer(group, drivers, _settings, self)
        #: How the refreshes of each backend go.
        self._refreshes = {
            name: metrics.RefreshStatus(group, name) for name in self._names
        }
        self.disagreements = [
            disagreements.Disagreements(group, self._names[0], name)
            for name in self._names[1:]
        ]
        # When each backend answered last, UTC.
        self._answered_at: dict[str, datetime.datetime] = {}
        # The verdicts by host, and the group that they belong to.
        self._verdicts: dict[str, model.Verdict] = {}
        self._of: liveness.Group | None = None
        self._subscriptions = events.Subscriptions(group)
        # The lists in which calls of refresh() collect events.
        self._gathering: list[list[events.Event]] = []
        for number, status in enumerate(self._refreshes.values()):
            # A member has one verdict, by all backends: it is counted once.
            if number:
                status.show(metrics.no_census)
            else:
                status.show(self._census, self._unusual)

    # -- questions

    def is_up(self, host: str) -> bool:
        """Whether a member is up.

        :raises ServiceGroupUnavailable: no backend that knows it has answered
            for service_down_time; or it may be frozen, see model.UNWATCHED
        """
        verdict = self.observer.verdict(host)
        if verdict.state == model.UP:
            return True
        if verdict is model.UNAVAILABLE or verdict is model.UNWATCHED:
            raise self.not_known(host, verdict)
        return False

    def verdict(self, host: str) -> model.Verdict:
        """Return the verdict on a member.

        :raises ServiceGroupUnavailable: as is_up()
        """
        verdict = self.observer.verdict(host)
        if verdict is model.UNAVAILABLE or verdict is model.UNWATCHED:
            raise self.not_known(host, verdict)
        return verdict

    def not_known(
        self, host: str, verdict: model.Verdict
    ) -> exception.ServiceGroupUnavailable:
        """Return the error for a member whose state is not known."""
        why = self._trouble()
        if verdict is model.UNWATCHED:
            group = self.observer.group
            limits = self.observer.settings.limits
            now = time.monotonic()
            name = self.observer.name_of(host)
            why = explain.explain(group, name, verdict, now, limits)
        return exception.ServiceGroupUnavailable(
            f"The state of {host} in the group {self.group} is not known: "
            f"{why}"
        )

    def hosts_up(self) -> list[str]:
        """Return the names of the members that are up, sorted.

        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        """
        self._require_answer("listed")
        if self.observer.is_fresh() and not self.observer.own_actions:
            verdicts = self.verdicts()
        else:
            judge = self.observer.judge
            verdicts = {host: judge(host) for host in self._hosts()}
        return sorted(
            host
            for host, verdict in verdicts.items()
            if verdict.state == model.UP
        )

    def members(self) -> list[Member]:
        """Return all members, sorted by name.

        :raises ServiceGroupUnavailable: as hosts_up()
        """
        self._require_answer("listed")
        return [self._known(host) for host in sorted(self._hosts())]

    def stale(self, age: float) -> list[str]:
        """Return the names of members that are down for good, sorted.

        :param age: seconds for which each of them has shown no life
        :raises ServiceGroupUnavailable: as hosts_up()
        """
        found = []
        for one in self.members():
            member = self.observer.group.members.get(one.host)
            if member is None or member.forced_down or one.state != model.DOWN:
                continue
            silent = one.age
            if silent is None:
                # It never reported: then since it was registered.
                silent = time.monotonic() - max(
                    known.registered
                    for known in member.histories
                    if known is not None
                )
            if age <= silent < float("inf"):
                found.append(one.host)
        return found

    def member(self, host: str) -> Member:
        """Return one member.

        :raises MemberNotFound: the group has no such member
        :raises ServiceGroupUnavailable: as hosts_up()
        """
        self._require_answer("asked about")
        member = self.recall(self.observer.name_of(host))
        if member is None:
            raise exception.MemberNotFound(
                f"The group {self.group} has no member {host}"
            )
        return member

    def backend_states(self, host: str) -> list[BackendState]:
        """Return a member as each backend alone shows it.

        :raises ServiceGroupUnavailable: as hosts_up()
        """
        self._require_answer("asked about")
        host = self.observer.name_of(host)
        group, states = self.observer.group, []
        for index, name in enumerate(self._names):
            alone = rules.alone(group, index, self.observer.settings.limits)
            found = None
            if host in alone.members:
                found = self._member(alone, host)
            trouble = self.observer.trouble_of(name)
            states.append(BackendState(name, found, trouble))
        return states

    def is_alive(self, host: str) -> bool:
        """Whether a member is up, apart from an operator's command.

        :raises MemberNotFound: the group has no such member
        :raises ServiceGroupUnavailable: as hosts_up()
        """
        host = self.member(host).host
        member = self.observer.group.members.get(host)
        if member is None:
            return self.observer.judge(host).state == model.UP
        return member.unforced.state == model.UP

    def last_seen(self, host: str) -> datetime.datetime | None:
        """Return a member's last report, UTC, from memory."""
        self.observer.keep_fresh()
        group = self.observer.group
        member = group.members.get(self.observer.name_of(host))
        if member is None:
            return None
        seen = [
            self._last_seen(group, member, number)
            for number, known in enumerate(member.histories)
            if known is not None
        ]
        return max(filter(None, seen), default=None)

    def knows(self, host: str) -> bool:
        """Whether a backend knows a member of that name."""
        return host in self.observer.group.members

    def size(self) -> int:
        """Return how many members are known."""
        return len(self.observer.group.members)

    def _last_seen(
        self, group: liveness.Group, member: model.Member, number: int
    ) -> datetime.datetime | None:
        """Return a member's last report to one backend, UTC.

        :param number: the backend's index
        """
        seen = member.histories[number]
        assert seen is not None
        if seen.observation.attributes.present:
            # It has a session, which stands for a report at any time.
            return self._answered_at.get(group.backends[number].name)
        if seen.observation.report_number is None:
            return seen.observation.last_seen
        return seen.last_seen

    def _require_answer(self, what: str) -> None:
        self.observer.keep_fresh()
        if self.observer.own_actions:
            # The verdict takes this process's own actions into account at
            # once; all else about the member takes a refresh.
            self.observer.await_own_actions(ECHO_WAIT)
        if self.observer.unavailable():
            raise exception.ServiceGroupUnavailable(
                f"The group {self.group} cannot be {what}: {self._trouble()}"
            )

    def _trouble(self) -> str:
        return self.observer.trouble() or "no answer yet"

    # -- from memory; starts no poller

    def _hosts(self) -> set[str]:
        hosts = set(self.observer.group.members)
        for host, own in self.observer.own_actions.items():
            if own.verdict is model.REPORTED:
                hosts.add(host)
            elif own.verdict is model.NOT_A_MEMBER:
                hosts.discard(host)
        return hosts

    def recall(self, host: str) -> Member | None:
        """Return one member as it is known now; None: it is no member."""
        own = self.observer.own_actions.get(host)
        if host not in self.observer.group.members:
            joined = own is not None and own.verdict is model.REPORTED
            return self._joined(host) if joined else None
        if own is not None and own.verdict is model.NOT_A_MEMBER:
            return None
        return self._known(host)

    def _known(self, host: str) -> Member:
        group = self.observer.group
        if host not in group.members:
            return self._joined(host)
        return self._member(group, host, self.observer.judge(host))

    def verdicts(self) -> Mapping[str, model.Verdict]:
        """Return the verdicts by host, not to be changed by the caller.

        Another object is returned when verdicts may have changed.
        """
        group = self.observer.group
        if self.observer.is_fresh():
            if group is not self._of:
                self._verdicts = {
                    host: member.verdict
                    for host, member in group.members.items()
                }
                self._of = group
            return self._verdicts
        # Some may be unknown now, as their backend does not answer.
        judge = self.observer.judge
        verdicts = {host: judge(host) for host in group.members}
        if verdicts != self._verdicts:
            self._verdicts = verdicts
        self._of = None
        return self._verdicts

    def domains(self) -> dict[str, str]:
        """Return the failure domains of the members that have one, by host."""
        domains = self.observer.settings.limits.domains
        found = {}
        for host, member in self.observer.group.members.items():
            domain = domains.of(member)
            if domain is not None:
                found[host] = domain
        return found

    def refresh_statuses(self) -> list[metrics.RefreshStatus]:
        """Return how the refreshes of each backend go, the primary's first."""
        return list(self._refreshes.values())

    def answering(self) -> bool:
        """Whether each backend has answered its last refresh."""
        return all(one.answering for one in self._refreshes.values())

    @property
    def trouble(self) -> str:
        """Why backends do not answer; empty: they do."""
        return self.observer.trouble()

    @property
    def name(self) -> str:
        """The primary driver's name."""
        return self._names[0]

    def _joined(self, host: str) -> Member:
        """Return a member that this process has just joined."""
        return Member(
            group=self.group,
            host=host,
            topic=self.group,
            binary=None,
            state=model.UP,
            last_seen=datetime.datetime.now(datetime.UTC),
            age=0.0,
            driver=self._names[0],
            forced_down=False,
            disabled=False,
            disabled_reason=None,
            reason="it has just joined in this process",
            cause=model.REPORTED.cause,
        )

    def _member(
        self,
        group: liveness.Group,
        host: str,
        verdict: model.Verdict | None = None,
    ) -> Member:
        """Return a member of the group as it is known.

        :param verdict: its verdict; None: that of the group
        """
        now = time.monotonic()
        limits = self.observer.settings.limits
        if verdict is None:
            verdict = group.verdict(host, now, limits.service_down_time)
        member = group.members[host]
        number = _shown(group, member, limits)
        seen = member.histories[number]
        assert seen is not None
        attributes = seen.observation.attributes
        last_seen = self._last_seen(group, member, number)
        report = group.last_report(member)
        age = None
        if report > model.NEVER:
            age = max(0.0, now - report)
        elif last_seen is not None:
            # It reported before this observer began. By the clocks of two
            # hosts, so only shown to people.
            passed = datetime.datetime.now(datetime.UTC) - last_seen
            age = max(0.0, passed.total_seconds())
        return Member(
            group=self.group,
            host=host,
            topic=attributes.topic or self.group,
            binary=attributes.binary,
            state=verdict.state,
            last_seen=last_seen,
            age=age,
            driver=group.backends[number].name,
            forced_down=verdict is model.FORCED_DOWN,
            disabled=attributes.disabled,
            disabled_reason=attributes.disabled_reason,
            reason=self._explain(group, host, verdict, now, number),
            cause=verdict.cause,
            domain=limits.domains.of(member),
        )

    def _explain(
        self,
        group: liveness.Group,
        host: str,
        verdict: model.Verdict,
        now: float,
        number: int,
    ) -> str:
        """Return a verdict as a sentence.

        :param number: the index of the backend by which the member is shown
        """
        limits = self.observer.settings.limits
        reason = explain.explain(group, host, verdict, now, limits)
        member = group.members[host]
        if not number or verdict in (model.FORCED_DOWN, model.UNAVAILABLE):
            return reason
        primary, other = group.backends[0].name, group.backends[number].name
        if group.backends[0].failed is not None:
            why = f"{primary} cannot be asked"
        elif member.histories[0] is None:
            why = f"{primary} does not know it yet"
        else:
            why = f"{primary} has no later report"
        return f"{reason}; by {other}, as {why}"

    def _census(self) -> metrics.Census:
        """Count the members by verdict, and by failure domain."""
        numbers: dict[tuple[str, str], int]
        numbers = dict.fromkeys(model.VERDICTS, 0)
        oldest, group = model.NEVER, self.observer.group
        domains: collections.Counter[tuple[str, str]] = collections.Counter()
        of = self.domains()
        verdicts = self.verdicts()
        for domain in set(of.values()):
            for state in (model.UP, model.DOWN, model.UNKNOWN):
                domains[domain, state] = 0
        for host, verdict in verdicts.items():
            numbers[verdict] += 1
            if host in of:
                domains[of[host], verdict.state] += 1
            if verdict.state != model.UP or host not in group.members:
                continue
            report = group.last_report(group.members[host])
            if report > model.NEVER and not model.NEVER < oldest <= report:
                oldest = report
        age = None
        if oldest > model.NEVER:
            age = max(0.0, time.monotonic() - oldest)
        held = collections.Counter(
            domain or "" for domain in group.mass.held.values()
        )
        return metrics.Census(numbers, age, domains, held)

    def _unusual(self) -> list[tuple[str, str, str]]:
        """Return the members that are not plainly up, the worst first.

        Those that left are last: they are down on purpose.
        """
        found = [
            (host, verdict.state, verdict.cause)
            for host, verdict in self.verdicts().items()
            if verdict not in (model.REPORTED, model.REGISTERED)
        ]
        order = {model.DOWN: 0, model.UNKNOWN: 1, model.UP: 2}

        def importance(member: tuple[str, str, str]) -> tuple[int, str]:
            host, state, cause = member
            left = cause == model.LEFT.cause
            return 3 if left else order.get(state, 0), host

        return sorted(found, key=importance)

    # -- events

    def watch(
        self, callback: Callable[[events.Event], None]
    ) -> events.Subscription:
        """Call callback(event) for each event from now on.

        Members that are known already make no event.
        """
        self.observer.watched = True
        self.observer.keep_fresh()
        return self._subscriptions.add(callback, self._unwatched)

    def _unwatched(self) -> None:
        self.observer.watched = bool(len(self._subscriptions))

    def refresh(self) -> list[events.Event]:
        """Refresh from each backend now.

        :returns: the events of these refreshes; none at the first time, or
            if no backend answers
        """
        gathered: list[events.Event] = []
        self._gathering.append(gathered)
        try:
            self.observer.refresh(REFRESH_WAIT)
        finally:
            self._gathering = [
                one for one in self._gathering if one is not gathered
            ]
        return gathered

    # -- called by the observer

    def answered(
        self, backend: str, begun: float, ended: float, interrupted: bool
    ) -> None:
        self._answered_at[backend] = datetime.datetime.now(datetime.UTC)
        self._refreshes[backend].answered(begun, ended, interrupted)
        self._compare()

    def failed(
        self, backend: str, begun: float, ended: float, error: str
    ) -> None:
        self._refreshes[backend].failed(begun, ended, error)
        self._compare()

    def changed(
        self, group: liveness.Group, changes: list[model.Change]
    ) -> None:
        now, told = time.monotonic(), []
        for change in changes:
            event = self._event(group, change, now)
            if event is not None:
                told.append(event)
        # Counted for the primary, as the members are.
        primary = self._refreshes[self._names[0]]
        primary.happened(event.type for event in told)
        for gathered in self._gathering:
            gathered += told
        self._subscriptions.tell(told)

    def _event(
        self, group: liveness.Group, change: model.Change, now: float
    ) -> events.Event | None:
        limits = self.observer.settings.limits
        number = _shown(group, change.member, limits)
        if change.now is None:
            kind, (reason, cause) = events.LEFT, events.REMOVED
        else:
            found = events.change(change.was, change.now)
            if found is None:
                return None
            kind, cause = found, change.now.cause
            reason = self._explain(
                group, change.host, change.now, now, number
            )
        seen = change.member.histories[number]
        assert seen is not None
        attributes = seen.observation.attributes
        return events.Event(
            type=kind,
            group=self.group,
            host=change.host,
            topic=attributes.topic or self.group,
            binary=attributes.binary,
            at=datetime.datetime.now(datetime.UTC),
            last_seen=self._last_seen(group, change.member, number),
            reason=reason,
            cause=cause,
            domain=limits.domains.of(change.member),
            disabled=attributes.disabled,
        )

    def _compare(self) -> None:
        if not self.disagreements:
            return
        limits, group = self.observer.settings.limits, self.observer.group
        verdicts = [
            None
            if backend.failed is not None or backend.refreshed == model.NEVER
            else {
                host: member.verdict
                for host, member in rules.alone(
                    group, index, limits
                ).members.items()
            }
            for index, backend in enumerate(group.backends)
        ]
        for one, found in zip(self.disagreements, verdicts[1:], strict=True):
            one.compare(time.monotonic(), verdicts[0], found)

    def close(self) -> None:
        """Stop polling, and end all subscriptions."""
        for refreshes in self._refreshes.values():
            refreshes.hide()
        self._subscriptions.cancel()
        self.observer.close()


def limits() -> model.Limits:
    """Return the limits by which groups are judged: the current options.

    They have no failure domains: only an observer needs these.
    """
    limit = CONF.service_down_time
    hold = CONF.servicegroup.mass_silence_hold
    return model.Limits(
        limit,
        CONF.report_interval,
        model.MassRule(
            CONF.servicegroup.mass_silence_fraction,
            CONF.servicegroup.mass_silence_min_members,
            2 * limit if hold is None else hold,
        ),
        grace.restart(),
        grace.crash(),
    )


def _settings() -> observers.Settings:
    return observers.Settings(
        limits()._replace(domains=domain_map.current()),
        CONF.servicegroup.view_refresh_interval,
    )


def _shown(
    group: liveness.Group, member: model.Member, limits: model.Limits
) -> int:
    """Return the index of the backend by which a member is shown.

    That is the first backend that has the member's newest report. A backend
    that does not answer is used only if no other one knows the member.
    """
    if len(member.histories) == 1:
        return 0
    if member.forced_down:
        for number, seen in enumerate(member.histories):
            if seen is not None and seen.observation.attributes.forced_down:
                return number
    known = {
        number: max(seen.gone, group.report_to(number, seen))
        for number, seen in enumerate(member.histories)
        if seen is not None
    }
    answering = {
        number: newest
        for number, newest in known.items()
        if group.backends[number].failed is None
    }
    known = answering or known
    # Reports to several backends are not sent in the same moment.
    late = max(known.values()) - limits.due
    return min(number for number, newest in known.items() if newest >= late)
