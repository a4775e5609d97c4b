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

"""Members as callers and operators see them: described, and counted."""

from __future__ import annotations

import collections
import datetime
import time
from collections.abc import Mapping
from typing import NamedTuple

from nova_sg import metrics
from nova_sg import observer as observers
from nova_sg.liveness import explain, mass_silence, model
from nova_sg.liveness import group as liveness
from nova_sg.servicegroup import events


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


class Describer:
    """Describes the members of one group.

    :param observer: the group's observer
    :param primary: the primary driver's name
    """

    def __init__(self, observer: observers.Observer, primary: str) -> None:
        self._group = observer.name
        self._observer = observer
        self._primary = primary
        # When each backend answered last, UTC.
        self._answered_at: dict[str, datetime.datetime] = {}

    def answered(self, backend: str) -> None:
        """Note that a backend has answered now."""
        self._answered_at[backend] = datetime.datetime.now(datetime.UTC)

    def joined(self, host: str) -> Member:
        """Return a member that this process has just joined."""
        return Member(
            group=self._group,
            host=host,
            topic=self._group,
            binary=None,
            state=model.UP,
            last_seen=datetime.datetime.now(datetime.UTC),
            age=0.0,
            driver=self._primary,
            forced_down=False,
            disabled=False,
            disabled_reason=None,
            reason="it has just joined in this process",
            cause=model.REPORTED.cause,
        )

    def member(
        self,
        group: liveness.Group,
        host: str,
        verdict: model.Verdict | None = None,
    ) -> Member:
        """Return a member of the group as it is known.

        :param verdict: its verdict; None: that of the group
        """
        now = time.monotonic()
        limits = self._observer.settings.limits
        if verdict is None:
            verdict = group.verdict(host, now, limits.service_down_time)
        member = group.members[host]
        number = _shown(group, member, limits)
        seen = member.histories[number]
        assert seen is not None
        attributes = seen.observation.attributes
        last_seen = self.last_seen(group, member, number)
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
            group=self._group,
            host=host,
            topic=attributes.topic or self._group,
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

    def event(
        self, group: liveness.Group, change: model.Change, now: float
    ) -> events.Event | None:
        """Return the event that a change makes; None: it makes no event.

        :param group: the group after the change
        :param now: the time, by time.monotonic()
        """
        limits = self._observer.settings.limits
        number = _shown(group, change.member, limits)
        if change.now is None:
            kind, (reason, cause) = events.LEFT, events.REMOVED
        else:
            found = events.change(change.was, change.now)
            if found is None:
                return None
            kind, cause = found, change.now.cause
            reason = self._explain(group, change.host, change.now, now, number)
        seen = change.member.histories[number]
        assert seen is not None
        attributes = seen.observation.attributes
        return events.Event(
            type=kind,
            group=self._group,
            host=change.host,
            topic=attributes.topic or self._group,
            binary=attributes.binary,
            at=datetime.datetime.now(datetime.UTC),
            last_seen=self.last_seen(group, change.member, number),
            reason=reason,
            cause=cause,
            domain=limits.domains.of(change.member),
            disabled=attributes.disabled,
        )

    def last_seen(
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
        limits = self._observer.settings.limits
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


def census(
    group: liveness.Group,
    verdicts: Mapping[str, model.Verdict],
    domain_of: Mapping[str, str],
) -> metrics.Census:
    """Count the members of a group by verdict, and by failure domain.

    :param verdicts: the verdicts by host
    :param domain_of: the failure domains by host
    """
    numbers: dict[tuple[str, str], int]
    numbers = dict.fromkeys(model.VERDICTS, 0)
    oldest = model.NEVER
    domains: collections.Counter[tuple[str, str]] = collections.Counter()
    for domain in set(domain_of.values()):
        for state in (model.UP, model.DOWN, model.UNKNOWN):
            domains[domain, state] = 0
    for host, verdict in verdicts.items():
        numbers[verdict] += 1
        if host in domain_of:
            domains[domain_of[host], verdict.state] += 1
        if verdict.state != model.UP or host not in group.members:
            continue
        report = group.last_report(group.members[host])
        if report > model.NEVER and not model.NEVER < oldest <= report:
            oldest = report
    age = None
    if oldest > model.NEVER:
        age = max(0.0, time.monotonic() - oldest)
    held = collections.Counter(
        _label(part) for part in group.mass.held.values()
    )
    return metrics.Census(numbers, age, domains, held)


def _label(part: str | None) -> str:
    """Return the label of a hold: a failure domain, or "server ADDRESS"."""
    if isinstance(part, mass_silence.Server):
        return mass_silence.name(part)
    return part or ""


def unusual(
    verdicts: Mapping[str, model.Verdict],
) -> list[tuple[str, str, str]]:
    """Return the members that are not plainly up, the worst first.

    Those that left are last: they are down on purpose.

    :param verdicts: the verdicts by host
    """
    found = [
        (host, verdict.state, verdict.cause)
        for host, verdict in verdicts.items()
        if verdict not in (model.REPORTED, model.REGISTERED)
    ]
    order = {model.DOWN: 0, model.UNKNOWN: 1, model.UP: 2}

    def importance(member: tuple[str, str, str]) -> tuple[int, str]:
        host, state, cause = member
        left = cause == model.LEFT.cause
        return 3 if left else order.get(state, 0), host

    return sorted(found, key=importance)


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
