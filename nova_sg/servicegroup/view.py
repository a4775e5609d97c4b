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

"""A group as the API shows it: its members, events and metrics.

All answers come from what the observer has in memory.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence

from nova_sg import exception, metrics, threads
from nova_sg import observer as observers
from nova_sg.backends import base
from nova_sg.liveness import explain, model, rules
from nova_sg.liveness import group as liveness
from nova_sg.servicegroup import description, disagreements, events, settings
from nova_sg.servicegroup.description import BackendState, Member

# Seconds that refresh() waits at most.
REFRESH_WAIT = 30.0
# Seconds that a question waits until refreshes show what this process did.
ECHO_WAIT = 0.03


class GroupView(observers.Listener):
    """One group as this process knows it.

    :param group: its name
    :param drivers: the backends, the primary first
    """

    def __init__(self, group: str, drivers: Sequence[base.Driver]) -> None:
        self.group = group
        self._names = [driver.name for driver in drivers]
        self.observer = observers.Observer(
            group, drivers, settings.current, self
        )
        #: How the refreshes of each backend go.
        self._refreshes = {
            name: metrics.RefreshStatus(group, name) for name in self._names
        }
        self.disagreements = [
            disagreements.Disagreements(group, self._names[0], name)
            for name in self._names[1:]
        ]
        self._describer = description.Describer(self.observer, self._names[0])
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
                status.show(
                    self._census,
                    lambda: description.unusual(self.verdicts()),
                )

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
                found = self._describer.member(alone, host)
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
            self._describer.last_seen(group, member, number)
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
        # In this order, see Observer.judge().
        own_actions = self.observer.own_actions
        hosts = set(self.observer.group.members)
        for host, own in own_actions.items():
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
            return self._describer.joined(host) if joined else None
        if own is not None and own.verdict is model.NOT_A_MEMBER:
            return None
        return self._known(host)

    def _known(self, host: str) -> Member:
        group = self.observer.group
        if host not in group.members:
            return self._describer.joined(host)
        return self._describer.member(group, host, self.observer.judge(host))

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

    def _census(self) -> metrics.Census:
        return description.census(
            self.observer.group, self.verdicts(), self.domains()
        )

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
        self._describer.answered(backend)
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
        for change in threads.in_slices(changes):
            event = self._describer.event(group, change, now)
            if event is not None:
                told.append(event)
        # Counted for the primary, as the members are.
        primary = self._refreshes[self._names[0]]
        primary.happened(event.type for event in told)
        for gathered in self._gathering:
            gathered += told
        self._subscriptions.tell(told)

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
