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


class Basis(NamedTuple):
    """What the members that the same backends know are judged by."""

    #: When one of these backends was refreshed last: what happened since is
    #: not known.
    now: float
    #: When all of them were out.
    outages: outages.Outages


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
        if now - self.basis_moment(member.seen) > service_down_time:
            return UNAVAILABLE
        return member.life

    def unavailable(self, now: float, service_down_time: float) -> bool:
        """Whether no backend has answered for service_down_time."""
        return now - self.refreshed > service_down_time

    @property
    def refreshed(self) -> float:
        """When a backend answered last; NEVER: none ever did."""
        return max(backend.refreshed for backend in self.backends)

    # -- what members are judged by

    def knowing(self, seen: tuple[Seen | None, ...]) -> list[Backend]:
        """Return the backends that know a member."""
        return [
            backend
            for backend, known in zip(self.backends, seen, strict=True)
            if known is not None
        ]

    def basis_moment(self, seen: tuple[Seen | None, ...]) -> float:
        """Return when a backend that knows a member answered last."""
        return max(backend.refreshed for backend in self.knowing(seen))

    def basis(self, seen: tuple[Seen | None, ...]) -> Basis:
        """Return what a member is judged by, from where it is known."""
        now = self.basis_moment(seen)
        # A backend that has not answered since is out for all that is known.
        return Basis(
            now,
            outages.common(
                [
                    outages.add(
                        backend.outages_until(now),
                        Outage(backend.refreshed, now),
                    )
                    for backend in self.knowing(seen)
                ]
            ),
        )

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
