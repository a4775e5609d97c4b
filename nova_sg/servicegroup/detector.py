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

"""The judgement: observations and times in, verdicts out.

Nothing here does I/O, reads a clock or starts a thread. Every moment is in
seconds on the observer's monotonic clock and comes in as an argument; the
drivers translate what a backend says into that clock.

The rule is Nova's own: a member is up if its last report is at most
service_down_time old, the moment of its registration standing in before the
first report, and forced_down always wins. Time in which the backend could
not be asked is not held against anybody: nobody could have reported in it.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable
from typing import NamedTuple

UP = "up"
DOWN = "down"
UNKNOWN = "unknown"


class Fact(NamedTuple):
    """What a backend said of one member at one moment."""

    #: The member's name.
    host: str
    #: When the backend was asked.
    asked: float
    #: When the member's last report was taken; None: no report is known.
    last_report: float | None = None
    #: When the member was registered; None: the backend does not say.
    registered: float | None = None
    #: The last report as the backend wrote it down, UTC; for people only.
    last_seen: datetime.datetime | None = None
    topic: str | None = None
    binary: str | None = None
    #: The member left by itself and has not reported since.
    left: bool = False
    #: The backend itself has found the member to be dead.
    lost: bool = False
    #: An operator declared the member down.
    forced_down: bool = False
    #: No new work is to be placed there; says nothing about life.
    disabled: bool = False
    disabled_reason: str | None = None


class Reference(NamedTuple):
    """What a services record says that the asker brought along."""

    #: Seconds since the last report or, without one, the registration.
    age: float
    #: Whether that was a report.
    reported: bool
    #: The member left by itself and has not reported since.
    left: bool


class Verdict(NamedTuple):
    """A member's state, and the rule that gave it (one of the causes)."""

    state: str
    cause: str


#: Every verdict there is; the cause is the key of the words in explain().
REPORTED = Verdict(UP, "reported")
REGISTERED = Verdict(UP, "registered")
SILENT = Verdict(DOWN, "silent")
NEVER_REPORTED = Verdict(DOWN, "never-reported")
FORCED_DOWN = Verdict(DOWN, "forced-down")
LEFT = Verdict(DOWN, "left")
LOST = Verdict(DOWN, "lost")
NOT_A_MEMBER = Verdict(UNKNOWN, "not-a-member")
UNAVAILABLE = Verdict(UNKNOWN, "unavailable")


def judge_reference(
    reference: Reference, service_down_time: float
) -> Verdict:
    """Judge a member by the asker's own record alone, as Nova does.

    A record from the future is as old as it is far.
    """
    age, reported, left = reference
    if left:
        return LEFT
    if abs(age) <= service_down_time:
        return REPORTED if reported else REGISTERED
    return SILENT if reported else NEVER_REPORTED


@dataclasses.dataclass(slots=True)
class Known:
    """What is known of one member, over all observations."""

    #: The newest observation.
    fact: Fact
    #: The latest believable report of all observations.
    last_report: float | None
    #: The same report as the backend wrote it down.
    last_seen: datetime.datetime | None


class Detector:
    """Judges the members of one group.

    :param service_down_time: seconds that a member may be silent; may be
        set anew at any time
    """

    def __init__(self, service_down_time: float) -> None:
        self.service_down_time = service_down_time
        #: When the backend answered last; None: it never did.
        self.last_look: float | None = None
        #: Whether the backend failed to answer since then.
        self.failing = False
        # When it answered last before it was away, when it answered again,
        # and how long members may take to be there again then.
        self._away = float("-inf")
        self._back = float("-inf")
        self._rejoin = 0.0
        self._known: dict[str, Known] = {}
        # Disjoint (begin, end), in order, in which the backend gave no
        # answer.
        self._stalls: list[tuple[float, float]] = []

    # -- observations

    def look(
        self,
        asked: float,
        facts: Iterable[Fact],
        *,
        complete: bool = False,
        interrupted: bool = False,
        rejoin: float = 0.0,
    ) -> list[str]:
        """Take in an answer of the backend.

        :param asked: when it was asked
        :param facts: what it said
        :param complete: whether the answer names every member there is; who
            is not named then is no longer a member
        :param interrupted: whether the backend was away since the last
            answer, though nobody asked it then
        :param rejoin: seconds within which members that the backend lost
            while it was away come back by themselves
        :returns: the names that are no longer members
        """
        if (self.failing or interrupted) and self.last_look is not None:
            self.stalled(self.last_look, asked)
            if not self._rejoining():
                self._away = self.last_look
            self._back = asked
        self.failing = False
        self._rejoin = rejoin
        if self.last_look is None or asked > self.last_look:
            self.last_look = asked
        # A stall that ended longer ago than a member may be silent excuses
        # nobody any more.
        horizon = self.last_look - self.service_down_time
        self._stalls = [s for s in self._stalls if s[1] >= horizon]
        names = set()
        for fact in facts:
            names.add(fact.host)
            self.observe(fact)
        if not complete:
            return []
        gone = [host for host in self._known if host not in names]
        for host in gone:
            del self._known[host]
        return gone

    def look_failed(self) -> None:
        """Take in that the backend did not answer."""
        self.failing = True

    def observe(self, fact: Fact) -> None:
        """Take in what the backend said of one member.

        Observations may come in any order: the newest one says what the
        member is, the latest report of all says when it was alive. A report
        or a registration that claims to come from more than
        service_down_time after it was read is not believed (Nova takes such
        a member to be down, too).
        """
        report, seen = fact.last_report, fact.last_seen
        believable = fact.asked + self.service_down_time
        if report is not None and report > believable:
            report = seen = None
        if fact.registered is not None and fact.registered > believable:
            fact = fact._replace(registered=None)
        known = self._known.get(fact.host)
        if known is None:
            self._known[fact.host] = Known(fact, report, seen)
            return
        if _order(fact) > _order(known.fact):
            known.fact = fact
        if report is not None and (
            known.last_report is None or report > known.last_report
        ):
            known.last_report = report
            known.last_seen = seen

    def forget(self, host: str) -> None:
        """Take in that host is no longer a member."""
        self._known.pop(host, None)

    def stalled(self, begin: float, end: float) -> None:
        """Take in that the backend gave no answer from begin to end."""
        if end <= begin:
            return
        stalls = []
        for other in self._stalls:
            if other[1] < begin or end < other[0]:
                stalls.append(other)
            else:
                begin, end = min(begin, other[0]), max(end, other[1])
        stalls.append((begin, end))
        self._stalls = sorted(stalls)

    # -- verdicts

    def hosts(self) -> list[str]:
        """Return the names of all members, up or not."""
        return list(self._known)

    def known(self, host: str) -> Known | None:
        """Return what is known of host."""
        return self._known.get(host)

    def judge(
        self, host: str, now: float, *, heed_force: bool = True
    ) -> Verdict:
        """Return the verdict over one member.

        Silence is measured up to the last answer of the backend: what
        happened since is not known yet.

        :param heed_force: whether an operator's word counts
        """
        known = self._known.get(host)
        if heed_force and known is not None and known.fact.forced_down:
            return FORCED_DOWN
        if self.unavailable(now):
            return UNAVAILABLE
        if known is None:
            return NOT_A_MEMBER
        fact = known.fact
        if fact.left:
            return LEFT
        since = known.last_report
        if fact.lost and not (
            # Who had been lost before the backend went away does not rise.
            self._rejoining() and since is not None and since >= self._away
        ):
            return LOST
        if since is None:
            since = fact.registered
            if since is None or self._silence(since) > self.service_down_time:
                return NEVER_REPORTED
            return REGISTERED
        if self._silence(since) > self.service_down_time:
            return SILENT
        return REPORTED

    def unavailable(self, now: float) -> bool:
        """Whether the backend has been silent for too long to tell."""
        if self.last_look is None:
            return True
        return self.failing and now - self.last_look > self.service_down_time

    def _rejoining(self) -> bool:
        return self.last_look - self._back <= self._rejoin

    def _silence(self, since: float) -> float:
        silence = self.last_look - since
        for begin, end in self._stalls:
            overlap = min(end, self.last_look) - max(begin, since)
            if overlap > 0:
                silence -= overlap
        return silence

    def explain(self, host: str, verdict: Verdict, now: float) -> str:
        """Return the verdict over host in a sentence for people.

        :param verdict: what judge() said of host at that moment
        """
        known = self._known.get(host)
        limit = f"{self.service_down_time:g} s"
        if verdict is UNAVAILABLE:
            if self.last_look is None:
                return "the backend has never answered"
            return (
                "the backend has not answered for "
                f"{now - self.last_look:.1f} s, longer than {limit}"
            )
        if verdict is NOT_A_MEMBER:
            return "not a member of the group"
        if verdict is FORCED_DOWN:
            return "forced down by an operator"
        if verdict is LEFT:
            return "left the group"
        if verdict is LOST:
            return "its session with the backend ended"
        if verdict in (REGISTERED, NEVER_REPORTED):
            since = known.fact.registered
            if since is None:
                return "never reported"
            words = f"registered {now - since:.1f} s ago, no report yet"
        else:
            since = known.last_report
            words = f"last report {max(0.0, now - since):.1f} s ago"
        if verdict.state == DOWN:
            words += f", allowed are {limit}"
        excused = self.last_look - since - self._silence(since)
        if excused > 0:
            words += f" and {excused:.1f} s without the backend"
        if self.failing:
            words += (
                "; the backend has not answered for "
                f"{now - self.last_look:.1f} s, the last verdict stands"
            )
        return words


def _order(fact: Fact) -> tuple:
    """Newer facts are greater; equal moments are told apart by content."""
    return (
        fact.asked,
        fact.last_report is not None,
        fact.last_report or 0.0,
        fact.registered is not None,
        fact.registered or 0.0,
        not fact.left,
        not fact.lost,
        fact.forced_down,
        fact.disabled,
        fact.disabled_reason or "",
        fact.topic or "",
        fact.binary or "",
    )
