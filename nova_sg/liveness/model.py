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

"""The values that the rules work with.

Moments are seconds on the observer's monotonic clock; durations are seconds.
"""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

from nova_sg.liveness.domains import NO_DOMAINS, Domains

UP = "up"
DOWN = "down"
UNKNOWN = "unknown"

NEVER = float("-inf")


_NOT_ACCEPTING = ("draining", "unwell", "stopped", "restarting")


class Verdict(NamedTuple):
    """A member's state, and the rule that gave it."""

    state: str
    #: One word. explain.py makes a sentence of it.
    cause: str

    @property
    def accepting(self) -> bool:
        """Whether the scheduler may place new work there.

        A member may be alive and accept no new work.
        """
        return self.state == UP and self.cause not in _NOT_ACCEPTING


# All verdicts. The rules are in rules.py.

#: It reported within service_down_time.
REPORTED = Verdict(UP, "reported")
#: It registered within service_down_time, and has not reported yet.
REGISTERED = Verdict(UP, "registered")
#: It is silent together with most of the group, and held as up.
HELD = Verdict(UP, "held")
#: The backend has lost its last report; its next one is not due yet.
VANISHED = Verdict(UP, "vanished")
#: It reports, and is about to stop: it finishes the work that it has begun.
DRAINING = Verdict(UP, "draining")
#: It reports, and that it cannot do its work: see Attributes.unwell.
UNWELL = Verdict(UP, "unwell")
#: It left the group a moment ago, and may be starting again.
STOPPED = Verdict(UP, "stopped")
#: Its process ended without leaving a moment ago, and may be starting again.
RESTARTING = Verdict(UP, "restarting")
#: It has not reported for longer than service_down_time.
SILENT = Verdict(DOWN, "silent")
#: It registered longer ago than that, and has never reported.
NEVER_REPORTED = Verdict(DOWN, "never-reported")
#: An operator's command declares it down.
FORCED_DOWN = Verdict(DOWN, "forced-down")
#: It left the group.
LEFT = Verdict(DOWN, "left")
#: Its session with the backend ended.
LOST = Verdict(DOWN, "lost")
#: Its process ended without leaving, as its crash guard saw.
CRASHED = Verdict(DOWN, "crashed")
#: Its reports are old, and so are those of all other members. The backend
#: may be frozen, or be a replica that lags; this observer has not watched
#: for long enough to know.
UNWATCHED = Verdict(UNKNOWN, "unwatched")
#: The group has no such member.
NOT_A_MEMBER = Verdict(UNKNOWN, "not-a-member")
#: No backend that knows it has answered for service_down_time.
UNAVAILABLE = Verdict(UNKNOWN, "unavailable")

#: The verdicts of a member that left, or whose process ended, and that has
#: not reported since.
GONE = (LEFT, CRASHED, STOPPED, RESTARTING)

#: The verdicts that a member of a group may have.
VERDICTS = (
    *(REPORTED, REGISTERED, HELD, VANISHED),
    *(DRAINING, UNWELL, STOPPED, RESTARTING),
    *(SILENT, NEVER_REPORTED, FORCED_DOWN, LEFT, LOST, CRASHED),
    *(UNWATCHED, UNAVAILABLE),
)


class MassRule(NamedTuple):
    """What counts as mass silence, and how long members are held as up."""

    #: The fraction of the group that has to fall silent; 0: there is no hold.
    fraction: float
    #: In a group with fewer members there is no mass silence.
    min_members: int
    #: Seconds for which members are held as up at most.
    hold: float

    def may_hold(self, members: int) -> bool:
        """Whether there is mass silence in a group of so many members."""
        return self.fraction > 0 and members >= self.min_members


#: No member is held.
NO_MASS_RULE = MassRule(0.0, 0, 0.0)


class Limits(NamedTuple):
    """The times that a group is judged by."""

    #: Seconds that a member may be silent.
    service_down_time: float
    #: Seconds between two reports of a member.
    report_interval: float
    mass: MassRule = NO_MASS_RULE
    #: Seconds for which a member that left may be starting again.
    restart_grace: float = 0.0
    #: The same for a member whose process ended without leaving.
    crash_grace: float = 0.0
    #: The failure domains of members that report none.
    domains: Domains = NO_DOMAINS

    @property
    def due(self) -> float:
        """Seconds within which a member that is alive reports."""
        return min(1.5 * self.report_interval, self.service_down_time)

    @property
    def long(self) -> float:
        """Seconds of an outage in which every member misses a report."""
        return min(self.report_interval, self.service_down_time / 2)


class Attributes(NamedTuple):
    """What a backend's record of a member says, apart from its reports."""

    topic: str | None = None
    binary: str | None = None
    #: The member left and has not reported since.
    left: bool = False
    #: Its process ended without leaving, as its crash guard noted.
    crashed: bool = False
    #: The member reports that it is about to stop: the scheduler places no new
    #: work there.
    draining: bool = False
    #: Why the member cannot do its work, as it reports itself, as a clause;
    #: empty: it can. The scheduler places no new work there.
    unwell: str = ""
    #: The failure domain that the member reports, such as its rack; None: it
    #: reports none.
    domain: str | None = None
    #: The member has a session with the backend, so it is alive. If this may
    #: be out of date, neither this nor `lost` is set.
    present: bool = False
    #: The member's session with the backend ended.
    lost: bool = False
    #: The backend has lost the last report before it expired.
    vanished: bool = False
    #: An operator declared the member down.
    forced_down: bool = False
    #: The scheduler places no new work there; says nothing about life.
    disabled: bool = False
    disabled_reason: str | None = None
    #: The outage that the member reports: from when to when.
    outage: tuple[float, float] | None = None
    #: The address of the backend's server that the member is connected to;
    #: None: not known, or of no importance.
    server: str | None = None

    @property
    def gone(self) -> bool:
        """Whether the member left, or its process ended without leaving."""
        return self.left or self.crashed


class Observation(NamedTuple):
    """What one backend showed of one member at one refresh."""

    host: str
    #: Tells reports apart: it grows with each report. A number, or a tuple of
    #: whole numbers. None: the backend knows no report.
    report_number: Any = None
    #: When the last report was written, by the backend's stamp; None: the
    #: backend keeps none. Trusted at the first refresh only, see history.py.
    reported: float | None = None
    #: The last report by the backend's stamp, UTC; only shown to people.
    last_seen: datetime.datetime | None = None
    #: When the member was registered; None: the backend does not say.
    registered: float | None = None
    attributes: Attributes = Attributes()


class Changes(NamedTuple):
    """How a refresh differs from an earlier one of the same driver."""

    #: The mark of the earlier refresh. Marks are the same object, or differ.
    since: object
    #: The mark of this refresh.
    mark: object
    #: The observations that are new, or differ.
    observations: list[Observation]
    #: The hosts that are no longer observed.
    gone: list[str]


class Refresh(NamedTuple):
    """A backend's answer about a group."""

    #: The name of the backend.
    backend: str
    #: When it was asked.
    asked: float
    observations: list[Observation]
    #: When it answered; None: at once.
    answered: float | None = None
    #: Whether the answer has all members: a member without an observation is
    #: no longer a member.
    complete: bool = True
    #: Whether the backend was unreachable since the last refresh, though no
    #: refresh failed.
    interrupted: bool = False
    #: Seconds within which members whose session ended during an outage
    #: join again.
    rejoin: float = 0.0
    #: Seconds within which sessions end that were cut off in one moment.
    spread: float = 0.0
    #: Whether the backend keeps the time of each report.
    stamped: bool = True
    #: Whether these times are right to within a few seconds, as the driver
    #: has compared the clocks. Then a report is as old as its stamp shows,
    #: however late it arrived.
    exact: bool = False
    #: What has changed, so that an observer which has taken in the refresh
    #: before need not compare all observations; None: the driver does not
    #: say. Only in a complete refresh.
    changes: Changes | None = None
    #: When reports were lost, as the backend itself shows. Those of some
    #: members may have arrived nevertheless.
    lost: Outage | None = None


class Outage(NamedTuple):
    """A time in which a backend took no reports."""

    begin: float
    end: float
    #: Whether a report is known to have failed in it. Then every member is
    #: taken to have missed one, however short the outage was.
    missed: bool = False


class ServerOutage(NamedTuple):
    """An outage that a backend's server itself shows."""

    begin: float
    end: float
    #: The server's state, as a clause for people: "it is read-only".
    reason: str


class Change(NamedTuple):
    """A change of one member's verdict."""

    host: str
    #: The verdict before; None: it was not a member.
    was: Verdict | None
    #: The verdict now; None: it is no longer a member.
    now: Verdict | None
    member: Member


class History(NamedTuple):
    """What one backend has shown of one member, over all refreshes."""

    #: The newest observation.
    observation: Observation
    #: The number of the last report; None: no report is known.
    report_number: Any = None
    #: When the last report was written, or the member was last seen to have
    #: a session; NEVER: no report is known.
    report: float = NEVER
    #: When it was registered; NEVER: the backend does not say.
    registered: float = NEVER
    #: The last report by the backend's stamp, UTC.
    last_seen: datetime.datetime | None = None
    #: Since when it counts as left or crashed; NEVER: it does not.
    gone: float = NEVER
    #: Until when it is up however old its report is, as its next report is
    #: due by then; or NEVER. Used when the backend lost its report, and after
    #: the first refresh, as its stamp may come from a clock that is behind.
    grace: float = NEVER
    #: When its session was first seen to have ended; NEVER: it has not ended,
    #: or the member has another.
    ended: float = NEVER
    #: The failure domain that the member reports; None: it reports none.
    domain: str | None = None


class Member(NamedTuple):
    """What is known of a member over all backends, and the verdict."""

    host: str
    #: By backend, in the order of Group.backends; None: not known there.
    histories: tuple[History | None, ...]
    #: The newest report in any backend; NEVER: no report is known.
    report: float
    #: The last moment at which its silence is not too long.
    deadline: float
    #: The verdict without an operator's command.
    unforced: Verdict
    forced_down: bool
    #: When it fell silent, or NEVER: it has not, or has reported since. Only a
    #: report after that makes it up again.
    silent_since: float = NEVER
    #: If its reports, and those of all other members, were old at the first
    #: refresh: when this observer began to watch it. Otherwise NEVER.
    watched: float = NEVER

    @property
    def verdict(self) -> Verdict:
        """The verdict: an operator's command overrides all else."""
        return FORCED_DOWN if self.forced_down else self.unforced
