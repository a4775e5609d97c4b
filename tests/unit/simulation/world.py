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

Members try to report at fixed intervals of their own. An attempt is taken
unless the member is dead or cut off, or the backend takes nothing. The
observer is a member, too; it looks, and tells the detector what its looks
and its reports came to. Nothing here knows the detector's rules.
"""

import random
from typing import NamedTuple

from nova_sg.liveness.model import Facts, MassRule, Observation, Refresh
from tests.unit.simulation import judges

LIMIT = 60.0
INTERVAL = 10.0
# The longest time between two attempts of a member.
LONGEST = 1.1 * INTERVAL
# Seconds after which an attempt that is not taken has failed.
FAILS = 0.01
HOLD = 2 * LIMIT
RULE = MassRule(0.55, 4, HOLD)
# The member that is the observer itself.
ME = 0


class Span(NamedTuple):
    """A time, from begin up to end."""

    begin: float
    end: float

    def overlap(self, begin, end):
        return max(0.0, min(self.end, end) - max(self.begin, begin))


class Outage(NamedTuple):
    """The backend takes no reports, and gives no answers if not readable."""

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


class World:
    """What is true, and what the observer makes of it.

    :param step: seconds between two looks
    :param begin: when the observer begins
    :param says: whether members say since and until when they could not
        report
    :param liars: what some say instead: by member, a function of the moment
        and of its last report
    """

    def __init__(
        self,
        members,
        script,
        step,
        seed=0,
        rule=RULE,
        begin=0.0,
        says=False,
        liars=None,
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
        self.says = says
        self.liars = liars or {}
        self.judge = judges.Judge(LIMIT, INTERVAL, rule)
        #: By member: the last attempt that was taken.
        self.last = [
            phase - period
            for phase, period in zip(self.phases, self.periods, strict=True)
        ]
        self.downs: set[int] = set()
        self._mine = begin
        # When the last own attempt was known to have failed.
        self._failed = 0.0
        # Up to when each member's attempts are in `last`.
        self._tried = list(self.last)
        # By member: when it cannot report by its own fault.
        self._away: dict[int, list[Span]] = {}
        for span, cut in script.cuts:
            for number in cut:
                self._away.setdefault(number, []).append(span)
        for number, span in script.dead.items():
            self._away.setdefault(number, []).append(span)

    # -- the truth

    def away(self, number):
        """Return when a member cannot report by its own fault."""
        return self._away.get(number, ())

    def _taken(self, number, at):
        return not any(
            o.span.begin <= at < o.span.end for o in self.script.outages
        ) and not any(s.begin <= at < s.end for s in self.away(number))

    def _word(self, number):
        """Return what a member says with its last report; None: nothing."""
        last, period = self.last[number], self.periods[number]
        if number in self.liars:
            return self.liars[number](self.now, last)
        at = last - period
        while at > max(0.0, last - LIMIT - period):
            if self._is_dead(number, at):
                # A new process knows nothing of it.
                return None
            if not self._taken(number, at):
                until = at + FAILS
                while not (
                    at - period < 0
                    or self._is_dead(number, at - period)
                    or self._taken(number, at - period)
                ):
                    at -= period
                return at, until
            at -= period
        return None

    def _is_dead(self, number, at):
        span = self.script.dead.get(number)
        return span is not None and span.begin <= at < span.end

    def _answers(self, at):
        return not any(
            o.span.begin <= at < o.span.end and not o.readable
            for o in self.script.outages
        ) and not any(s.begin <= at < s.end for s in self.away(ME))

    def _report(self, number):
        """Bring up to date when a member reported last."""
        phase, period = self.phases[number], self.periods[number]
        at = latest = self.now - (self.now - phase) % period
        # Floats: the same attempt is found with another last digit.
        while at > self._tried[number] + 0.001:
            if self._taken(number, at):
                self.last[number] = at
                break
            at -= period
        self._tried[number] = latest

    # -- the observer

    def run(self, until, check=lambda world, changes: None):
        """Look until a moment; call check(self, changes) after each look."""
        while self.now < until:
            self.now += self.step
            self._report_mine()
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
                self.downs.add(number)
            else:
                self.downs.discard(number)

    def _report_mine(self):
        phase, period = self.phases[ME], self.periods[ME]
        at = self._mine - (self._mine - phase) % period + period
        while at <= self.now:
            if self._taken(ME, at):
                self.judge.reports_work("me", self._failed)
            else:
                self._failed = at + FAILS
                self.judge.reports_fail("me", at, self._failed)
            at += period
        self._mine = self.now

    def _observations(self):
        now, begin = self.now, self.now - self.step - 2 * LONGEST
        if self.says or any(
            o.span.begin <= now and o.span.end > begin
            for o in self.script.outages
        ):
            slow = range(len(self.names))
        else:
            slow = [
                number
                for number, spans in self._away.items()
                if any(s.begin <= now and s.end > begin for s in spans)
            ]
            known = [(self.last[n], self._tried[n]) for n in slow]
            # Nobody else is in trouble: as quickly as can be.
            self.last = [
                now - (now - phase) % period
                for phase, period in zip(
                    self.phases, self.periods, strict=True
                )
            ]
            self._tried = self.last.copy()
            for number, (last, tried) in zip(slow, known, strict=True):
                self.last[number], self._tried[number] = last, tried
        for number in slow:
            self._report(number)
        new, rest = tuple.__new__, Observation("")[3:]
        found = [
            new(Observation, (name, last, last, *rest))
            for name, last in zip(self.names, self.last, strict=True)
        ]
        if self.says:
            found = [
                one._replace(facts=Facts(outage=self._word(number)))
                for number, one in enumerate(found)
            ]
        return found
