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

"""Mass silence: most of a group, or of a part of it, falls silent at once.

It is unlikely that so many members die within one service_down_time. More
likely something that they share has failed: a switch, a firewall, or a part
of the backend. If they were all called down, they would all be evacuated. So
they are held as up for a while.

A group and each of its parts are judged by the same rule, each by itself. The
parts are the failure domains, and the members that are connected to the same
server of the backend. A switch that cuts off one rack of ten is noticed by its
domain. A server that is cut off from the backend's other servers keeps its
members connected for a while, and the others end their sessions.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from nova_sg.liveness.model import NEVER, Limits, MassRule, Member
from nova_sg.liveness.outages import Outages, without

#: What a hold is for, if not for a part of the group.
GROUP = None


class Server(str):
    """A hold is for the members connected to a server of the backend.

    Other strings are failure domains.
    """


def parts(member: Member, limits: Limits) -> list[str]:
    """Return the parts of the group that a member belongs to."""
    found = []
    domain = limits.domains.of(member)
    if domain is not None:
        found.append(domain)
    for known in member.histories:
        if known is not None and known.observation.attributes.server:
            found.append(Server(known.observation.attributes.server))
    return found


def name(part: str) -> str:
    """Return what a part of the group is, with its name."""
    kind = "server" if isinstance(part, Server) else "failure domain"
    return f"{kind} {part}"


class Hold(NamedTuple):
    """A mass silence whose members are held as up."""

    #: When the first of them would have been down.
    since: float
    #: How many members had fallen silent then.
    silent: int
    #: How many members were up before.
    members: int


class Mass(NamedTuple):
    """The mass silences of a group."""

    #: The holds by part of the group, and by GROUP.
    holds: Mapping[str | None, Hold] = {}
    #: By host: the hold, of `holds`, by which the member is held.
    held: Mapping[str, str | None] = {}
    #: By part of the group, and by GROUP: until when no new hold begins, as
    #: the last one has just ended.
    resting: Mapping[str | None, float] = {}

    def hold_of(self, host: str) -> Hold | None:
        """Return the hold of a member; None: it is not held."""
        return self.holds.get(self.held[host]) if host in self.held else None


NO_MASS = Mass()


def find(
    rule: MassRule,
    falls: Sequence[float],
    candidates: Iterable[float],
    limit: float,
    ahead: float,
) -> Hold | None:
    """Return the mass silence, if there is one.

    A member *falls* at its deadline, which is known in advance. When the
    first member of a mass silence falls, the others have been silent for a
    shorter time. So all members count that fall around the same moment: from
    limit - ahead seconds before it to ahead seconds after it.

    :param falls: when each member that was up falls unless it reports; sorted
    :param candidates: when the members fall that would be down now
    :param limit: seconds that a member may be silent
    :param ahead: seconds before its fall from which a member counts as silent
    """
    if not rule.fraction:
        return None
    for moment in sorted(candidates):
        if moment == NEVER:
            continue
        first = bisect.bisect_left(falls, moment - (limit - ahead))
        last = bisect.bisect_right(falls, moment + ahead)
        members, silent = len(falls) - first, last - first
        # 55 of 100 are a fraction of 0.55, in spite of rounding errors.
        enough = rule.fraction * members - 1e-6
        if members >= rule.min_members and silent >= enough:
            return Hold(moment, silent, members)
    return None


def hold(
    mass: Mass,
    limits: Limits,
    outages: Outages,
    now: float,
    candidates: Collection[str],
    falls: Callable[[], Mapping[str, float]],
    parts_of: Callable[[str], Collection[str]],
) -> Mass:
    """Return the mass silences; its `held` names the members that are held.

    A member is held once: by one hold, until that ends.

    :param outages: their time does not count as time of a hold
    :param candidates: the names of the members that were up and would be down
        now
    :param falls: returns the deadline of each member, by name
    :param parts_of: returns the parts of the group that a member belongs to
    """
    if not candidates:
        return mass._replace(holds={}, held={}) if mass.holds else mass
    return _Holds(mass, limits, outages, now, parts_of).take(candidates, falls)


class _Holds:
    """The mass silences of a group, while one refresh is taken in."""

    def __init__(
        self,
        mass: Mass,
        limits: Limits,
        outages: Outages,
        now: float,
        parts_of: Callable[[str], Collection[str]],
    ) -> None:
        self.rule, self.limit = limits.mass, limits.service_down_time
        # A member that has missed only one or two reports is not silent yet.
        silent_for = min(
            self.limit, max(self.limit / 2, 1.5 * limits.report_interval)
        )
        self.ahead = self.limit - silent_for
        self.outages = outages
        self.now = now
        self.parts_of = parts_of
        self.before = mass
        self.resting = {
            scope: until
            for scope, until in mass.resting.items()
            if until > now
        }
        self.holds: dict[str | None, Hold] = {}
        self.held: dict[str, str | None] = {}

    def take(
        self,
        candidates: Collection[str],
        falls: Callable[[], Mapping[str, float]],
    ) -> Mass:
        """Return the mass silences with these candidates."""
        self._keep(candidates)
        # Those whose hold has just ended are down.
        before = self.before.held
        new = self._join([one for one in candidates if one not in before])
        if new and self.rule.fraction:
            moments = falls()
            new = self._find(GROUP, new, moments, list(moments.values()))
            self._find_by_part(new, moments)
        return Mass(self.holds, self.held, self.resting)

    def _keep(self, candidates: Collection[str]) -> None:
        """Keep those holds that have members, and are not over."""
        before = self.before
        members: dict[str | None, list[str]] = defaultdict(list)
        for host in candidates:
            if host in before.held:
                members[before.held[host]].append(host)
        for scope, hosts in members.items():
            held = before.holds[scope]
            if not self._is_over(held):
                self.holds[scope] = held
                self.held.update(dict.fromkeys(hosts, scope))
                continue
            # These members are down, and not held again.
            scopes = {scope}
            if scope is GROUP:
                scopes.update(*map(self.parts_of, hosts))
            until = self.now + 1.5 * self.limit
            self.resting.update(dict.fromkeys(scopes, until))

    def _join(self, candidates: list[str]) -> list[str]:
        """Add candidates to the holds of their parts, or of the group.

        :returns: the candidates that are in no hold
        """
        if not self.holds:
            return candidates
        rest = []
        for host in candidates:
            scopes = {GROUP, *self.parts_of(host)} & self.holds.keys()
            if scopes:
                # The one that ends last.
                self.held[host] = max(
                    scopes, key=lambda scope: self.holds[scope].since
                )
            else:
                rest.append(host)
        return rest

    def _find(
        self,
        scope: str | None,
        candidates: list[str],
        moments: Mapping[str, float],
        falls: list[float],
    ) -> list[str]:
        """Begin a hold, if these candidates are part of a mass silence.

        :param falls: when each member of the group or of the part falls
        :returns: the candidates that are not part of it
        """
        if scope in self.resting:
            return candidates
        found = find(
            self.rule,
            sorted(falls),
            [moments[host] for host in candidates],
            self.limit,
            self.ahead,
        )
        if found is None:
            return candidates
        # A member that fell silent before this moment is not part of it.
        first, last = found.since - (self.limit - self.ahead), float("inf")
        if self._is_over(found):
            # Nor is one that fell silent after its end.
            last = found.since + self.rule.hold
            self.resting[scope] = last + 1.5 * self.limit
        else:
            self.holds[scope] = found
        rest = []
        for host in candidates:
            if not first <= moments[host] <= last:
                rest.append(host)
            elif scope in self.holds:
                self.held[host] = scope
        return rest

    def _find_by_part(
        self, candidates: list[str], moments: Mapping[str, float]
    ) -> None:
        silent: dict[str, list[str]] = defaultdict(list)
        for host in candidates:
            for part in self.parts_of(host):
                silent[part].append(host)
        if not silent:
            return
        falls: dict[str, list[float]] = {part: [] for part in silent}
        for host, moment in moments.items():
            for part in self.parts_of(host):
                if part in falls:
                    falls[part].append(moment)
        for part, hosts in silent.items():
            # A member may be part of several, and is held once.
            rest = [host for host in hosts if host not in self.held]
            if rest:
                self._find(part, rest, moments, falls[part])

    def _is_over(self, held: Hold) -> bool:
        return without(self.outages, held.since, self.now) > self.rule.hold
