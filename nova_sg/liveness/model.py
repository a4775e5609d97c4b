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

"""The values that the rules work on.

Moments are seconds on the observer's monotonic clock; durations are seconds.
"""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

UP = "up"
DOWN = "down"
UNKNOWN = "unknown"

NEVER = float("-inf")


_NOT_ACCEPTING = ("draining", "stopped", "restarting")


class Verdict(NamedTuple):
    """A member's state, and the rule that gave it."""

    state: str
    #: One word; explain.py has a sentence for each.
    cause: str

    @property
    def accepting(self) -> bool:
        """Whether new work may be placed there.

        A member may be alive and accept none.
        """
        return self.state == UP and self.cause not in _NOT_ACCEPTING


# Every verdict there is. The rules are in rules.py.

#: Reported within the time allowed.
REPORTED = Verdict(UP, "reported")
#: Registered within the time allowed, and has not reported yet.
REGISTERED = Verdict(UP, "registered")
#: Silent together with most of the group: still told as up.
HELD = Verdict(UP, "held")
#: The backend has lost its last report; its next one is not due yet.
VANISHED = Verdict(UP, "vanished")
#: Reports, and is about to stop: it finishes what it has begun.
DRAINING = Verdict(UP, "draining")
#: Left the group a moment ago, and may be starting again.
STOPPED = Verdict(UP, "stopped")
#: Its process ended without leaving a moment ago, and may be starting again.
RESTARTING = Verdict(UP, "restarting")
#: Silent for longer than allowed.
SILENT = Verdict(DOWN, "silent")
#: Registered longer ago than allowed, without a report.
NEVER_REPORTED = Verdict(DOWN, "never-reported")
#: An operator says that it is down.
FORCED_DOWN = Verdict(DOWN, "forced-down")
#: It left the group.
LEFT = Verdict(DOWN, "left")
#: The backend itself found it dead: its session ended.
LOST = Verdict(DOWN, "lost")
#: Its process ended without leaving, as its crash guard saw.
CRASHED = Verdict(DOWN, "crashed")
#: Its reports are old, and so are those of all others: the backend may be
#: frozen or a replica that lags, and this observer has not watched for long
#: enough to know.
UNWATCHED = Verdict(UNKNOWN, "unwatched")
#: The group has no such member.
NOT_A_MEMBER = Verdict(UNKNOWN, "not-a-member")
#: No backend that knows it has answered for service_down_time.
UNAVAILABLE = Verdict(UNKNOWN, "unavailable")

#: Those of a member that left, or whose process ended, and that has not
#: reported since.
GONE = (LEFT, CRASHED, STOPPED, RESTARTING)

#: All that a member may have.
VERDICTS = (
    *(REPORTED, REGISTERED, HELD, VANISHED),
    *(DRAINING, STOPPED, RESTARTING),
    *(SILENT, NEVER_REPORTED, FORCED_DOWN, LEFT, LOST, CRASHED),
    *(UNWATCHED, UNAVAILABLE),
)


class MassRule(NamedTuple):
    """What counts as mass silence, and for how long verdicts are held."""

    #: The part of the group that has to fall silent; 0: no such rule.
    fraction: float
    #: Smaller groups have no mass silence.
    min_members: int
    #: Seconds for which verdicts are held at most.
    hold: float


#: Nothing is held.
NO_MASS_RULE = MassRule(0.0, 0, 0.0)


class Limits(NamedTuple):
    """The times that a group is judged by."""

    #: Seconds that a member may be silent.
    service_down_time: float
    #: Seconds between two reports of a member.
    report_interval: float
    mass: MassRule = NO_MASS_RULE
    #: Seconds in which a member that left may be starting again, and one
    #: whose process ended without leaving.
    restart_grace: float = 0.0
    crash_grace: float = 0.0

    @property
    def due(self) -> float:
        """Seconds within which a member that is alive reports."""
        return min(1.5 * self.report_interval, self.service_down_time)

    @property
    def long(self) -> float:
        """Seconds of an outage in which every member misses a report."""
        return min(self.report_interval, self.service_down_time / 2)


class Facts(NamedTuple):
    """What a backend's record of a member says, its reports left out."""

    topic: str | None = None
    binary: str | None = None
    #: The member left and has not reported since.
    left: bool = False
    #: Its process ended without leaving, says the guard that saw it end.
    crashed: bool = False
    #: It is about to stop, says the member itself: no new work is to be
    #: placed there.
    draining: bool = False
    #: The backend itself knows that the member is alive: it has a session.
    #: Where this may be out of date, neither this nor `lost` is set.
    present: bool = False
    #: The backend itself found the member dead: its session ended.
    lost: bool = False
    #: The backend has lost the last report before its time.
    vanished: bool = False
    #: An operator declared the member down.
    forced_down: bool = False
    #: No new work is to be placed there; says nothing about life.
    disabled: bool = False
    disabled_reason: str | None = None
    #: From when to when the member could not report, as it says itself.
    outage: tuple[float, float] | None = None

    @property
    def gone(self) -> bool:
        """Whether the member left, or its process ended without leaving."""
        return self.left or self.crashed


class Observation(NamedTuple):
    """What one backend said of one member at one refresh."""

    host: str
    #: Greater after each report, and never smaller; any values that can be
    #: compared. None: the backend knows no report.
    mark: Any = None
    #: When the last report was written, by the backend's stamp; None: the
    #: backend keeps none. Trusted at the first refresh only, see seen.py.
    reported: float | None = None
    #: The last report as the backend wrote it down, UTC; shown to people.
    last_seen: datetime.datetime | None = None
    #: When the member was registered; None: the backend does not say.
    registered: float | None = None
    facts: Facts = Facts()


class Refresh(NamedTuple):
    """A backend's answer about a group."""

    #: The name of the backend.
    backend: str
    #: When it was asked.
    asked: float
    observations: list[Observation]
    #: When it answered; None: at once.
    answered: float | None = None
    #: Whether a member that is not named is no longer a member.
    complete: bool = True
    #: Whether the backend was unreachable since the last refresh, though it
    #: was not asked then.
    interrupted: bool = False
    #: Seconds within which members whose session ended during an outage
    #: come back by themselves.
    rejoin: float = 0.0
    #: Whether the backend keeps the time of each report.
    stamped: bool = True
    #: Whether these times are known to within a few seconds: each is by a
    #: clock that the driver has compared. Then a report is as old as its time
    #: says, however late it came.
    exact: bool = False


class Outage(NamedTuple):
    """A time in which a backend took no reports."""

    begin: float
    end: float
    #: Whether a report is known to have failed in it. Then every member has
    #: missed one, however short the outage was.
    missed: bool = False


class ServerOutage(NamedTuple):
    """An outage that a backend's server itself tells of."""

    begin: float
    end: float
    #: What the server says, as a clause for people: "it is read-only".
    reason: str


class Change(NamedTuple):
    """What a step has changed."""

    host: str
    #: None: it was not a member before.
    was: Verdict | None
    #: None: it is no longer a member.
    now: Verdict | None
    member: Member


class Seen(NamedTuple):
    """What one backend has said of one member, over all refreshes."""

    #: The newest observation.
    observation: Observation
    #: The greatest mark so far; None: no report is known.
    mark: Any = None
    #: When the last report was taken, or the member was seen to have a
    #: session; NEVER: no report is known.
    report: float = NEVER
    #: When it was registered; NEVER: the backend does not say.
    registered: float = NEVER
    #: The last report as the backend wrote it down, UTC.
    last_seen: datetime.datetime | None = None
    #: Since when it counts as left or crashed; NEVER: it does not.
    gone: float = NEVER
    #: Until when it is up, however old its report is, or NEVER: its next
    #: report is due. Where the backend lost its report; and after the first
    #: refresh, as its stamp may come from a clock that is behind.
    grace: float = NEVER
    #: When the backend was first seen to have ended its session; NEVER: it
    #: has not, or the member has another.
    ended: float = NEVER


class Member(NamedTuple):
    """What is known of a member over all backends, and the verdict."""

    host: str
    #: By backend, in the order of the detector's; None: not known there.
    seen: tuple[Seen | None, ...]
    #: The newest report in any backend; NEVER: no report is known.
    report: float
    #: The last moment at which its silence is not too long.
    deadline: float
    #: The verdict, an operator's word left out.
    life: Verdict
    forced_down: bool
    #: Since when `life` is a verdict of silence, or NEVER. It takes a report
    #: after that to be up again.
    fell: float = NEVER
    #: Since when this observer watches a member whose reports were old from
    #: the beginning, and so were those of all others; or NEVER.
    watched: float = NEVER

    @property
    def verdict(self) -> Verdict:
        """The verdict: an operator's word counts above all."""
        return FORCED_DOWN if self.forced_down else self.life
