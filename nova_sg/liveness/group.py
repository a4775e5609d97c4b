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

"""What one observer knows of a group, and the verdicts of its members."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from nova_sg.liveness import outages
from nova_sg.liveness.backend import Backend
from nova_sg.liveness.mass_silence import NO_MASS, Mass
from nova_sg.liveness.model import (
    FORCED_DOWN,
    NEVER,
    NOT_A_MEMBER,
    UNAVAILABLE,
    History,
    Member,
    Outage,
    Verdict,
)

# What counts() returns if there is one backend only.
_ONE = (True,)


class Basis(NamedTuple):
    """By what members that report to the same backends are judged."""

    #: When the last refresh of any of these backends began: nothing is known
    #: of the time since.
    now: float
    #: The outages that all of them had at the same time.
    outages: outages.Outages
    #: When the last refresh of each backend of the group began.
    refreshed: tuple[float, ...]
    #: See Refresh.spread, for each backend of the group.
    spreads: tuple[float, ...]
    #: How many members the group has.
    size: int


class Group(NamedTuple):
    """A group. Immutable: detector.step() makes the next one."""

    #: The primary first.
    backends: tuple[Backend, ...]
    members: Mapping[str, Member] = {}
    mass: Mass = NO_MASS
    #: The members whose verdict is not plainly REPORTED: judged at each step.
    doubtful: frozenset[str] = frozenset()
    #: The first deadline of the other members: until then none of them can
    #: fall silent.
    next_deadline: float = NEVER

    # -- questions

    def verdict(
        self, host: str, now: float, service_down_time: float
    ) -> Verdict:
        """Return the verdict on a member for the moment now."""
        member = self.members.get(host)
        if member is None:
            if self.unavailable(now, service_down_time):
                return UNAVAILABLE
            return NOT_A_MEMBER
        if member.forced_down:
            return FORCED_DOWN
        counts = self.counts(member.histories, service_down_time)
        if now - self.refreshed_for(counts) > service_down_time:
            return UNAVAILABLE
        return member.unforced

    def unavailable(self, now: float, service_down_time: float) -> bool:
        """Whether no backend has answered for service_down_time."""
        return now - self.refreshed > service_down_time

    @property
    def refreshed(self) -> float:
        """When the last answered refresh began; NEVER: there was none."""
        return max(backend.refreshed for backend in self.backends)

    @property
    def refreshed_by_all(self) -> float:
        """When the oldest of the backends' last refreshes began, or NEVER."""
        return min(backend.refreshed for backend in self.backends)

    # -- what members are judged by

    def counts(
        self, seen: tuple[History | None, ...], service_down_time: float
    ) -> tuple[bool, ...]:
        """Return whether each backend counts for a member.

        A member may move from one backend to another. Then its last report to
        the old one is far older, or it has left the old one. That the old
        backend works says nothing about such a member, so it does not count.
        """
        if len(seen) == 1:
            return _ONE
        reports = [
            self.report_to(number, known) for number, known in enumerate(seen)
        ]
        newest = max(reports)
        late = newest - service_down_time
        counts = tuple(
            [
                known is not None
                and report >= late
                and (known.gone == NEVER or known.gone >= newest)
                for known, report in zip(seen, reports, strict=True)
            ]
        )
        if any(counts):
            return counts
        return tuple([known is not None for known in seen])

    def refreshed_for(self, counts: tuple[bool, ...]) -> float:
        """Return when a backend that counts for a member last answered."""
        if counts == _ONE:
            return self.backends[0].refreshed
        return max(
            backend.refreshed
            for backend, counting in zip(self.backends, counts, strict=True)
            if counting
        )

    def basis(self, counts: tuple[bool, ...]) -> Basis:
        """Return by what a member is judged.

        :param counts: the backends that count for it
        """
        now = self.refreshed_for(counts)
        # A backend that has not answered since may be out: it is taken to be.
        return Basis(
            now,
            outages.common(
                [
                    outages.add(
                        backend.outages_until(now),
                        Outage(backend.refreshed, now),
                    )
                    for backend, counting in zip(
                        self.backends, counts, strict=True
                    )
                    if counting
                ]
            ),
            tuple([backend.refreshed for backend in self.backends]),
            tuple([backend.spread for backend in self.backends]),
            len(self.members),
        )

    def last_report(self, member: Member) -> float:
        """Return a member's last report; NEVER: none is known."""
        return max(
            member.report,
            *[
                self.report_to(number, known)
                for number, known in enumerate(member.histories)
            ],
        )

    def has_session(self, member: Member) -> bool:
        """Whether a reachable backend shows a session of a member."""
        return any(
            known is not None
            and known.observation.attributes.present
            and backend.failed is None
            for backend, known in zip(
                self.backends, member.histories, strict=True
            )
        )

    def report_to(self, number: int, known: History | None) -> float:
        """Return a member's last report to a backend; NEVER: none is known.

        :param number: the backend's index
        :param known: what it has shown of the member
        """
        if known is None:
            return NEVER
        # A member that has a session reports all the time.
        if known.observation.attributes.present:
            return self.backends[number].refreshed
        return known.report

    # -- backends

    def place(self, name: str) -> int:
        """Return the index of a backend.

        :raises ValueError: there is none of that name
        """
        return [backend.name for backend in self.backends].index(name)

    def with_backend(self, backend: Backend) -> Group:
        """Replace the backend of the same name."""
        index = self.place(backend.name)
        before, after = self.backends[:index], self.backends[index + 1 :]
        return self._replace(backends=(*before, backend, *after))

    def refresh_failed(self, name: str, asked: float) -> Group:
        """Note that a refresh of a backend failed, whatever the reason."""
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.failed_at(asked))

    def reports_fail(
        self, name: str, source: Hashable, begin: float, certain: float
    ) -> Group:
        """Note that reports of this process to a backend fail.

        The arguments are those of Backend.reports_fail().
        """
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.reports_fail(source, begin, certain))

    def reports_work(
        self, name: str, source: Hashable, certain: float
    ) -> Group:
        """Note that they succeed again, or that there are no more of them."""
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.reports_work(source, certain))

    def backend_out(self, name: str, outage: Outage) -> Group:
        """Add an outage that the backend's server itself shows."""
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.with_outage(outage))


def new(*backends: str) -> Group:
    """Return a group of which nothing is known yet.

    :param backends: the names of its backends, the primary's first
    """
    return Group(tuple(Backend(name) for name in backends))
