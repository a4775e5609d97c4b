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

"""A group as one observer knows it, and what it answers to questions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from nova_sg.liveness import outages
from nova_sg.liveness.backend import Backend
from nova_sg.liveness.mass_silence import Mass
from nova_sg.liveness.model import (
    FORCED_DOWN,
    NEVER,
    NOT_A_MEMBER,
    UNAVAILABLE,
    Member,
    Outage,
    Seen,
    Verdict,
)

# What counts() says where there is one backend.
_ONE = (True,)


class Basis(NamedTuple):
    """What the members that report to the same backends are judged by."""

    #: When one of these backends was refreshed last: what happened since is
    #: not known.
    now: float
    #: When all of them were out.
    outages: outages.Outages
    #: When each backend of the group was refreshed last.
    refreshed: tuple[float, ...]


class Group(NamedTuple):
    """A group. Whatever is taken in makes another, see detector.step()."""

    #: The primary first.
    backends: tuple[Backend, ...]
    members: Mapping[str, Member] = {}
    mass: Mass = Mass()
    #: The members that are not plainly up.
    doubtful: frozenset[str] = frozenset()
    #: Until then no deadline of the others passes.
    next_deadline: float = NEVER

    # -- questions

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
        counts = self.counts(member.seen, service_down_time)
        if now - self.refreshed_for(counts) > service_down_time:
            return UNAVAILABLE
        return member.life

    def unavailable(self, now: float, service_down_time: float) -> bool:
        """Whether no backend has answered for service_down_time."""
        return now - self.refreshed > service_down_time

    @property
    def refreshed(self) -> float:
        """When a backend answered last; NEVER: none ever did."""
        return max(backend.refreshed for backend in self.backends)

    @property
    def refreshed_by_all(self) -> float:
        """Since when each backend has answered; NEVER: one never did."""
        return min(backend.refreshed for backend in self.backends)

    # -- what members are judged by

    def counts(
        self, seen: tuple[Seen | None, ...], service_down_time: float
    ) -> tuple[bool, ...]:
        """Return whether each backend counts for a member.

        Where a member's last report is far older than in another backend, or
        where it left before it reported to another, it does not report any
        longer, as on its way from one backend to another: that this backend
        works says nothing of the member.
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
        """Return when a backend that counts for a member answered last."""
        if counts == _ONE:
            return self.backends[0].refreshed
        return max(
            backend.refreshed
            for backend, counting in zip(self.backends, counts, strict=True)
            if counting
        )

    def basis(self, counts: tuple[bool, ...]) -> Basis:
        """Return what a member is judged by, from where it reports."""
        now = self.refreshed_for(counts)
        # A backend that has not answered since is out for all that is known.
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
        )

    def last_report(self, member: Member) -> float:
        """Return a member's last report; NEVER: none is known."""
        return max(
            member.report,
            *[
                self.report_to(number, known)
                for number, known in enumerate(member.seen)
            ],
        )

    def has_session(self, member: Member) -> bool:
        """Whether a backend that answers says that a member has a session."""
        return any(
            known is not None
            and known.observation.facts.present
            and backend.failed is None
            for backend, known in zip(self.backends, member.seen, strict=True)
        )

    def report_to(self, number: int, known: Seen | None) -> float:
        """Return a member's last report to a backend; NEVER: none is known.

        :param number: the backend's place
        :param known: what it has said of the member
        """
        if known is None:
            return NEVER
        # A member that has a session reports all the time.
        if known.observation.facts.present:
            return self.backends[number].refreshed
        return known.report

    # -- what else is known of a backend

    def place(self, name: str) -> int:
        """Return the place of a backend.

        :raises ValueError: there is none of that name
        """
        return [backend.name for backend in self.backends].index(name)

    def with_backend(self, backend: Backend) -> Group:
        """Put a backend in the place of the one of its name."""
        index = self.place(backend.name)
        before, after = self.backends[:index], self.backends[index + 1 :]
        return self._replace(backends=(*before, backend, *after))

    def refresh_failed(self, name: str, asked: float) -> Group:
        """Take in that a backend gave no answer, whatever the reason."""
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.failed_at(asked))

    def reports_fail(
        self, name: str, source: Hashable, begin: float, certain: float
    ) -> Group:
        """Take in that reports of this process to a backend fail.

        The arguments are those of Backend.reports_fail().
        """
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.reports_fail(source, begin, certain))

    def reports_work(
        self, name: str, source: Hashable, certain: float
    ) -> Group:
        """Take in that they get through again, or that there are no more."""
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.reports_work(source, certain))

    def backend_out(self, name: str, outage: Outage) -> Group:
        """Take in an outage that the backend's server itself tells of."""
        backend = self.backends[self.place(name)]
        return self.with_backend(backend.with_outage(outage))


def new(*backends: str) -> Group:
    """Return a group of which nothing is known.

    :param backends: their names, the primary's first
    """
    return Group(tuple(Backend(name) for name in backends))
