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


"""What is observed, what is known, and what can be said of a member."""

from __future__ import annotations

import dataclasses
import datetime
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
    #: The backend has lost what it kept of the member, before its time.
    vanished: bool = False
    #: Its process ended without leaving, says the guard that saw it end.
    crashed: bool = False
    #: Since and until when it could not report, as it says itself.
    away: tuple[float, float] | None = None


class Reference(NamedTuple):
    """What a services record says that the asker brought along."""

    #: Seconds since the last report or, without one, the registration.
    age: float
    #: Whether that was a report.
    reported: bool
    #: The member left by itself and has not reported since.
    left: bool
    #: Its process ended without leaving, says the guard that saw it end.
    crashed: bool = False


class Verdict(NamedTuple):
    """A member's state, and the rule that gave it (one of the causes)."""

    state: str
    cause: str


#: Every verdict there is; the cause is the key of the words in explain().
REPORTED = Verdict(UP, "reported")
REGISTERED = Verdict(UP, "registered")
#: Silent together with most of the group: not told yet.
HELD = Verdict(UP, "held")
#: Silent, as far as anybody knows: the backend forgot its report.
VANISHED = Verdict(UP, "vanished")
SILENT = Verdict(DOWN, "silent")
NEVER_REPORTED = Verdict(DOWN, "never-reported")
FORCED_DOWN = Verdict(DOWN, "forced-down")
LEFT = Verdict(DOWN, "left")
LOST = Verdict(DOWN, "lost")
CRASHED = Verdict(DOWN, "crashed")
NOT_A_MEMBER = Verdict(UNKNOWN, "not-a-member")
UNAVAILABLE = Verdict(UNKNOWN, "unavailable")


@dataclasses.dataclass(slots=True)
class Known:
    """What is known of one member, over all observations."""

    #: The newest observation.
    fact: Fact
    #: The latest believable report of all observations.
    last_report: float | None
    #: The same report as the backend wrote it down.
    last_seen: datetime.datetime | None
    #: When the backend was found to have forgotten it, up as it was.
    vanished: float | None = None


class Change(NamedTuple):
    """What a look has changed."""

    host: str
    #: None: it was not known.
    was: Verdict | None
    #: None: it is no longer a member.
    now: Verdict | None
    known: Known


def order(fact: Fact) -> tuple:
    """Return a key to sort by: newer facts are greater.

    Those of the same moment are told apart by what they say.
    """
    return (
        fact.asked,
        fact.last_report is not None,
        fact.last_report or 0.0,
        fact.registered is not None,
        fact.registered or 0.0,
        not fact.left,
        not fact.lost,
        not fact.crashed,
        fact.forced_down,
        fact.disabled,
        fact.disabled_reason or "",
        fact.topic or "",
        fact.binary or "",
    )
