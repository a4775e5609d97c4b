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


"""A group, its backend and one observer, by a simulated clock.

Each member attempts to report at an interval of its own. An attempt succeeds
unless the member is dead or cut off, or the backend takes no reports. The
observer is a member, too. It refreshes, and tells the detector how its
refreshes and its own reports went. Nothing here knows the detector's rules.
"""

import random
from typing import NamedTuple

from nova_sg.liveness.model import Attributes, MassRule, Observation, Refresh
from tests.unit.simulation import judges

LIMIT = 60.0
INTERVAL = 10.0
# The longest time between two attempts of a member.
LONGEST = 1.1 * INTERVAL
# Seconds after which an attempt that does not succeed has failed.
FAILS = 0.01
# The longest time for which a mass silence is held.
HOLD = 2 * LIMIT
RULE = MassRule(0.55, 4, HOLD)
# The member that is the observer itself.
ME = 0


class Span(NamedTuple):
    """A time, from begin up to end."""

    begin: float
    end: float

    def overlap(self, begin, end):
        """Return how many seconds of a time are within this one."""
        return max(0.0, min(self.end, end) - max(self.begin, begin))


class Outage(NamedTuple):
    """The backend takes no reports; if not readable, it answers nothing."""

    span: Span
    readable: bool = False


class Cut(NamedTuple):
    """Members that cannot reach the backend for a while."""

    span: Span
    members: frozenset


class Script(NamedTuple):
    """What happens to a world."""

    outages: tuple[Outage, ...] = ()
    cuts: tuple[Cut, ...] = ()
    #: By member: when it is dead; not the observer.
    dead: dict[int, Span] = {}
    #: By member: its failure domain; the others have none.
    domains: dict[int, str] = {}
    #: By member: when it reports that it is about to stop.
    draining: dict[int, Span] = {}
    #: By member: when it reports that it cannot do its work.
    unwell: dict[int, Span] = {}


class World:
    """What is true, and what the observer concludes.

    :param step: seconds between two refreshes
    :param begin: when the observer begins
    :param report_outages: whether members report since and until when they
        could not report
    :param false_outages: what some members report instead: by member, a
        function of the moment and of its last report
    :ivar called_down: the members that the observer calls down
    """

    def __init__(
        self,
        members,
        script,
        step,
        seed=0,
        rule=RULE,
        begin=0.0,
        report_outages=False,
        false_outages=None,
    ):
        rng = random.Random(seed)
        self.names = [f"host{number:06}" for number in range(members)]
        self.number = {name: n for n, name in enumerate(self.names)}
        self.phases = [rng.uniform(0, INTERVAL) for _ in range(members)]
        self.periods = [
            rng.uniform(0.9, 1.1) * INTERVAL for _ in range(members)
        ]
        self.script = script
        self.step = step
        self.now = begin
        self.report_outages = report_outages
        self.false_outages = false_outages or {}
        self.judge = judges.Judge(LIMIT, INTERVAL, rule)
        #: By member: its last attempt that succeeded.
        self.last_report = [
            phase - period
            for phase, period in zip(self.phases, self.periods, strict=True)
        ]
        self.called_down: set[int] = set()
        # Up to when the detector knows of the observer's own reports.
        self._own_reports_until = begin
        # When the last own attempt was known to have failed.
        self._own_report_failed = 0.0
        # Up to when each member's attempts are in `last_report`.
        self._attempted = list(self.last_report)
        self._own_faults: dict[int, list[Span]] = {}
        for span, cut in script.cuts:
            for number in cut:
                self._own_faults.setdefault(number, []).append(span)
        for number, span in script.dead.items():
            self._own_faults.setdefault(number, []).append(span)

    # -- the truth

    def own_faults(self, number):
        """Return when a member is dead or cut off."""
        return self._own_faults.get(number, ())

    def _succeeds(self, number, at):
        """Whether an attempt to report succeeds."""
        return not any(
            o.span.begin <= at < o.span.end for o in self.script.outages
        ) and not any(s.begin <= at < s.end for s in self.own_faults(number))

    def _reported_outage(self, number):
        """Return the outage in a member's last report; None: it has none."""
        last, period = self.last_report[number], self.periods[number]
        if number in self.false_outages:
            return self.false_outages[number](self.now, last)
        at = last - period
        while at > max(0.0, last - LIMIT - period):
            if self._is_dead(number, at):
                # A new process knows nothing of what was before it.
                return None
            if not self._succeeds(number, at):
                until = at + FAILS
                while not (
                    at - period < 0
                    or self._is_dead(number, at - period)
                    or self._succeeds(number, at - period)
                ):
                    at -= period
                return at, until
            at -= period
        return None

    def reports(self, number):
        """Return which verdict a member's last report asks for."""
        last = self.last_report[number]
        for cause, spans in (
            ("draining", self.script.draining),
            ("unwell", self.script.unwell),
        ):
            span = spans.get(number)
            if span is not None and span.begin <= last < span.end:
                return cause
        return "reported"

    def _attributes(self, number):
        """Return what a member's last report says besides its time."""
        cause, outage = self.reports(number), None
        if self.report_outages:
            outage = self._reported_outage(number)
        return Attributes(
            draining=cause == "draining",
            unwell="its disk is full" if cause == "unwell" else "",
            domain=self.script.domains.get(number),
            outage=outage,
        )

    def _is_dead(self, number, at):
        span = self.script.dead.get(number)
        return span is not None and span.begin <= at < span.end

    def _answers(self, at):
        """Whether the observer gets an answer to a refresh."""
        return not any(
            o.span.begin <= at < o.span.end and not o.readable
            for o in self.script.outages
        ) and not any(s.begin <= at < s.end for s in self.own_faults(ME))

    def _report(self, number):
        """Bring a member's last report up to date."""
        phase, period = self.phases[number], self.periods[number]
        at = latest = self.now - (self.now - phase) % period
        # The margin: rounding gives the same attempt another last digit.
        while at > self._attempted[number] + 0.001:
            if self._succeeds(number, at):
                self.last_report[number] = at
                break
            at -= period
        self._attempted[number] = latest

    # -- the observer

    def run(self, until, check=lambda world, changes: None):
        """Refresh until a moment; call check(self, changes) after each."""
        while self.now < until:
            self.now += self.step
            self._tell_of_own_reports()
            if self._answers(self.now):
                changes = self.judge.step(
                    Refresh(judges.BACKEND, self.now, self._observations())
                )
            else:
                self.judge.refresh_failed(self.now)
                changes = []
            self._note(changes)
            check(self, changes)

    def _note(self, changes):
        for change in changes:
            number = self.number[change.host]
            if change.now.state == "down":
                self.called_down.add(number)
            else:
                self.called_down.discard(number)

    def _tell_of_own_reports(self):
        """Tell the detector whether the observer's own reports succeed."""
        phase, period = self.phases[ME], self.periods[ME]
        begin = self._own_reports_until
        at = begin - (begin - phase) % period + period
        while at <= self.now:
            if self._succeeds(ME, at):
                self.judge.reports_work("me", self._own_report_failed)
            else:
                self._own_report_failed = at + FAILS
                self.judge.reports_fail("me", at, self._own_report_failed)
            at += period
        self._own_reports_until = self.now

    def _observations(self):
        """Return what a refresh brings now."""
        now, begin = self.now, self.now - self.step - 2 * LONGEST
        if self.report_outages or any(
            o.span.begin <= now and o.span.end > begin
            for o in self.script.outages
        ):
            one_by_one = range(len(self.names))
        else:
            one_by_one = [
                number
                for number, spans in self._own_faults.items()
                if any(s.begin <= now and s.end > begin for s in spans)
            ]
            known = [
                (self.last_report[n], self._attempted[n]) for n in one_by_one
            ]
            # All other members report as they should. For very many of them
            # this has to be quick.
            self.last_report = [
                now - (now - phase) % period
                for phase, period in zip(
                    self.phases, self.periods, strict=True
                )
            ]
            self._attempted = self.last_report.copy()
            for number, (last, until) in zip(one_by_one, known, strict=True):
                self.last_report[number] = last
                self._attempted[number] = until
        for number in one_by_one:
            self._report(number)
        new, rest = tuple.__new__, Observation("")[3:]
        found = [
            new(Observation, (name, last, last, *rest))
            for name, last in zip(self.names, self.last_report, strict=True)
        ]
        script = self.script
        if (
            self.report_outages
            or script.domains
            or script.draining
            or script.unwell
        ):
            found = [
                one._replace(attributes=self._attributes(number))
                for number, one in enumerate(found)
            ]
        return found
