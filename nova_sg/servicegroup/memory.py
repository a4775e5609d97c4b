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

"""What a view remembers of one group: no look, and no waiting for one.

Nothing here asks the backend, or takes a lock that a look may hold while the
backend hangs.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import NamedTuple

from nova_sg import metrics
from nova_sg.conf import CONF
from nova_sg.servicegroup import detector, events, facts, silence
from nova_sg.servicegroup.drivers import base

# Every verdict there can be over a member.
_VERDICTS = tuple(
    value
    for value in vars(facts).values()
    if isinstance(value, facts.Verdict)
    and value is not facts.NOT_A_MEMBER
)


class Member(NamedTuple):
    """A member as observers see it."""

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
    #: The driver that knows it.
    driver: str
    forced_down: bool
    disabled: bool
    disabled_reason: str | None
    #: The verdict in words.
    reason: str
    #: The rule that gave it, in one word: see nova_sg.servicegroup.detector.
    cause: str = ""


class Opinion(NamedTuple):
    """What one driver says of a member."""

    driver: str
    #: The member; None: it does not know it.
    member: Member | None
    #: Why its backend could not be asked; empty: it could.
    trouble: str


class Memory:
    """The members of one group as the last look left them."""

    def __init__(self, group: str, driver: base.Driver) -> None:
        self.group = group
        self._driver = driver
        self._detector = detector.Detector(CONF.service_down_time)
        # What the last look brought, by name. Replaced as a whole, never
        # changed, so that readers need no lock.
        self._verdicts: dict[str, detector.Verdict] = {}
        # Why the last look failed; empty: it did not.
        self._trouble = ""

    @property
    def name(self) -> str:
        """The name of the driver."""
        return self._driver.name

    def knows(self, host: str) -> bool:
        """Whether host was a member at the last look, up or not."""
        return host in self._verdicts

    def size(self) -> int:
        """Return how many members the last look brought."""
        return len(self._verdicts)

    @property
    def last_verdicts(self) -> Mapping[str, detector.Verdict]:
        """What the last look brought, by name; not to be changed."""
        return self._verdicts

    @property
    def trouble(self) -> str:
        """Why the last look failed; empty: it did not."""
        return self._trouble

    def answering(self) -> bool:
        """Whether the backend answered the last look, and that of late."""
        late = max(
            CONF.service_down_time / 2,
            2 * CONF.servicegroup.view_refresh_interval,
        )
        return not self._detector.failing and self.silence() <= late

    def available(self) -> bool:
        """Whether the last verdicts stand: they are not too old."""
        return not self._detector.unavailable(time.monotonic())

    def silence(self) -> float:
        """Return the seconds since the last answer; infinity: none yet."""
        last = self._detector.last_look
        return float("inf") if last is None else time.monotonic() - last

    def reported_since(self, host: str, moment: float) -> bool:
        """Whether host's last report came later than a monotonic moment.

        Who is just there, in a backend that was away and does not know yet
        whom it has lost, has not reported.
        """
        if self._detector.rejoining():
            return False
        known = self._detector.known(host)
        last = known and known.last_report
        return last is not None and last > moment

    def known(self, host: str) -> detector.Known | None:
        """Return what is known of a member; None: no member."""
        return self._detector.known(host)

    def held(self) -> silence.Hold | None:
        """Return the hold on verdicts that there was at the last look."""
        return self._detector.hold

    def verdicts(self) -> Mapping[str, detector.Verdict]:
        """Return the verdicts of the last look by name, not to be changed.

        They are another object after every look. All are unknown while the
        backend has been silent for too long.
        """
        verdicts = self._verdicts
        if self._detector.unavailable(time.monotonic()):
            return dict.fromkeys(verdicts, detector.UNAVAILABLE)
        return verdicts

    def recall(self, host: str) -> Member | None:
        """Return one member as the last look left it; None: no member."""
        known = self._detector.known(host)
        if known is None:
            return None
        return self._member(host, known, time.monotonic())

    def census(self) -> metrics.Census:
        """Count the members by verdict."""
        numbers = dict.fromkeys(_VERDICTS, 0)
        oldest = None
        for host, verdict in self.verdicts().items():
            numbers[verdict] += 1
            known = self._detector.known(host)
            if (
                verdict.state == detector.UP
                and known is not None
                and known.last_report is not None
                and (oldest is None or known.last_report < oldest)
            ):
                oldest = known.last_report
        if oldest is not None:
            oldest = max(0.0, time.monotonic() - oldest)
        return metrics.Census(numbers, oldest)

    def _member(
        self, host: str, known: detector.Known, now: float
    ) -> Member:
        fact = known.fact
        age = None
        if known.last_report is not None:
            age = max(0.0, now - known.last_report)
        elif known.last_seen is not None:
            # Before our time; by two clocks, for people only.
            passed = datetime.datetime.now(datetime.UTC) - known.last_seen
            age = max(0.0, passed.total_seconds())
        verdict = self._detector.judge(host, now)
        return Member(
            group=self.group,
            host=host,
            topic=fact.topic or self.group,
            binary=fact.binary,
            state=verdict.state,
            last_seen=known.last_seen,
            age=age,
            driver=self._driver.name,
            forced_down=fact.forced_down,
            disabled=fact.disabled,
            disabled_reason=fact.disabled_reason,
            reason=self._detector.explain(host, verdict, now),
            cause=verdict.cause,
        )

    def explain(self, host: str, verdict: detector.Verdict) -> str:
        """Return the verdict over a member, now, in words."""
        return self._detector.explain(host, verdict, time.monotonic())

    def event(
        self,
        kind: str,
        host: str,
        known: detector.Known,
        reason: str,
        cause: str,
    ) -> events.Event:
        """Make an event of a member of this group."""
        return events.Event(
            type=kind,
            group=self.group,
            host=host,
            topic=known.fact.topic or self.group,
            binary=known.fact.binary,
            at=datetime.datetime.now(datetime.UTC),
            last_seen=known.last_seen,
            reason=reason,
            cause=cause,
        )
