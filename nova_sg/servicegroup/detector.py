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
first report, and forced_down always wins. Time in which the backend
demonstrably did not work is not held against anybody (see stalls.py), and
when most of a group falls silent at once the verdicts are held for a while
(see silence.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from nova_sg.servicegroup import facts as _facts
from nova_sg.servicegroup import silence, stalls, testimony, words
from nova_sg.servicegroup.facts import (
    CRASHED,
    FORCED_DOWN,
    HELD,
    LEFT,
    LOST,
    NEVER_REPORTED,
    NOT_A_MEMBER,
    REGISTERED,
    REPORTED,
    SILENT,
    UNAVAILABLE,
    UP,
    VANISHED,
    Change,
    Fact,
    Known,
    Verdict,
    order,
)

DOWN = _facts.DOWN
UNKNOWN = _facts.UNKNOWN


class Detector:
    """Judges the members of one group.

    All of these may be set anew at any time:

    :param service_down_time: seconds that a member may be silent
    :param report_interval: seconds between two reports of a member
    :param mass: what is done when most members fall silent at once
    """

    def __init__(
        self,
        service_down_time: float,
        report_interval: float | None = None,
        mass: silence.Rule = silence.OFF,
    ) -> None:
        self.service_down_time = service_down_time
        self.report_interval = report_interval or service_down_time / 6
        self.mass = mass
        #: When the backend answered last; None: it never did.
        self.last_look: float | None = None
        #: Whether the backend failed to answer since then.
        self.failing = False
        # When it was asked first without an answer.
        self._failed = 0.0
        # When it answered last before it was away, when it answered again,
        # and how long members may take to be there again then.
        self._away = float("-inf")
        self._back = float("-inf")
        self._rejoin = 0.0
        self._known: dict[str, Known] = {}
        self._stalls = stalls.Stalls()
        # The same, up to the last look.
        self._past = self._stalls
        # The verdicts by the last look, other than REPORTED; operators' word
        # is kept apart.
        self._special: dict[str, Verdict] = {}
        self._forced: set[str] = set()
        # When those were lost that the backend itself found dead.
        self._fell: dict[str, float] = {}
        self._holding = silence.Keeper()
        #: What members say themselves.
        self.testimony = testimony.Testimony()

    # -- observations

    def look(
        self,
        asked: float,
        facts: Iterable[Fact],
        *,
        answered: float | None = None,
        complete: bool = False,
        interrupted: bool = False,
        rejoin: float = 0.0,
    ) -> list[Change]:
        """Take in an answer of the backend, and judge everybody by it.

        :param asked: when it was asked
        :param facts: what it said
        :param answered: when it answered; by default at once
        :param complete: whether the answer names every member there is; who
            is not named then is no longer a member
        :param interrupted: whether the backend was away since the last
            answer, though nobody asked it then
        :param rejoin: seconds within which members that the backend lost
            while it was away come back by themselves
        :returns: what is different now
        """
        facts = list(facts)
        first = self.last_look is None
        if (self.failing or interrupted) and not first:
            # What was asked in vain; the last look, where nothing was.
            asked_first = self._failed if self.failing else self.last_look
            began = stalls.began(facts, self.last_look, asked_first)
            self._stalls.add(began, asked)
            if not self.rejoining():
                self._away = self.last_look
            self._back = asked
        self.failing = False
        self._rejoin = rejoin
        if first or asked > self.last_look:
            self.last_look = asked
        speaking = [fact for fact in facts if fact.away is not None]
        silent = (h for h, v in self._special.items() if v is SILENT)
        self.testimony.hear(speaking, self._known, silent, self.due())
        new, doubtful = self._take(facts)
        gone = []
        if not complete:
            doubtful = list(self._known)
        elif len(self._known) != len(facts):
            names = {fact.host for fact in facts}
            gone = [host for host in self._known if host not in names]
        changes = [self._forget(host) for host in gone]
        self._heed_reports()
        self._heed_testimony()
        self._stalls.forget(self.last_look, self.service_down_time)
        self._past = self._stalls.until(self.last_look)
        changes += self._settle(doubtful, new, first)
        if answered is not None and answered - asked > self.report_interval:
            self._stalls.add(asked, answered)
        return changes

    def look_failed(self, asked: float) -> None:
        """Take in that the backend did not answer."""
        if not self.failing:
            self._failed = asked
        self.failing = True

    def _take(self, facts: Iterable[Fact]) -> tuple[set[str], list[str]]:
        """Take in facts.

        :returns: who is new, and who is not plainly up: nearly nobody, and
            only they have to be judged
        """
        new: set[str] = set()
        doubtful: list[str] = []
        known, special, forced = self._known, self._special, self._forced
        limit = self.service_down_time
        fresh = self.last_look - limit
        for fact in facts:
            host, asked, report = fact.host, fact.asked, fact.last_report
            one = known.get(host)
            if (
                one is None
                or report is None
                or not fresh <= report <= asked + limit
                or asked <= one.fact.asked
                or (fact.registered or asked) > asked + limit
            ):
                if one is None:
                    new.add(host)
                self.observe(fact)
                doubtful.append(host)
                continue
            one.fact = fact
            if one.last_report is None or report > one.last_report:
                one.last_report = report
                one.last_seen = fact.last_seen
            if (
                fact.left
                or fact.lost
                or fact.crashed
                or fact.forced_down
                or host in special
                or host in forced
            ):
                doubtful.append(host)
        return new, doubtful

    def observe(self, fact: Fact) -> None:
        """Take in what the backend said of one member, unjudged.

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
        if order(fact) > order(known.fact):
            if fact.vanished and not known.fact.vanished:
                verdict = self._special.get(fact.host, REPORTED)
                known.vanished = fact.asked if verdict.state == UP else None
            known.fact = fact
        if report is not None and (
            known.last_report is None or report > known.last_report
        ):
            known.last_report = report
            known.last_seen = seen

    def forget(self, host: str) -> None:
        """Take in that host is no longer a member."""
        if host in self._known:
            self._forget(host)

    def _forget(self, host: str) -> Change:
        known = self._known.pop(host)
        was = self._verdict_so_far(host)
        self._special.pop(host, None)
        self._forced.discard(host)
        self._fell.pop(host, None)
        self.testimony.forget(host)
        return Change(host, was, None, known)

    # -- what else speaks against the backend

    def stalled(self, begin: float, end: float) -> None:
        """Take in that the backend did not work from begin to end."""
        self._stalls.add(begin, end)

    def reports_fail(
        self, source: Hashable, begin: float, certain: float
    ) -> None:
        """Take in that reports of this process have not got through.

        :param source: who reports
        :param begin: when the first of them began
        :param certain: when the last one ended, or was seen to hang
        """
        self._stalls.begin(source, begin, certain)

    def reports_work(self, source: Hashable, certain: float) -> None:
        """Take in that source's reports get through again, or are over.

        :param certain: when the last one ended that did not, or took too long
        """
        self._stalls.end(source, certain)

    def _heed_reports(self) -> None:
        """Tell trouble of the backend from that of our own reports.

        While those of most others get through, ours alone are in trouble.
        """
        if not self._stalls.going_on:
            return
        reports = [
            one.last_report or float("-inf")
            for host, one in self._known.items()
            if self._special.get(host, REPORTED).state == UP
        ]
        self._stalls.refute(
            reports,
            self.last_look,
            self.due(),
            2 * self.service_down_time,
            self.mass.min_members,
        )

    def _heed_testimony(self) -> None:
        """Take in what most members say of the backend."""
        if not self.testimony:
            return
        late = self.last_look - self.due()
        agreed = self.testimony.agree(self._known.values(), late)
        for begin, end, _, _ in agreed:
            if self._stalls.healthy(begin, end) > 0:
                self.testimony.came_too_late()
                self._stalls.add(begin, end, missed=True)

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
        return self._special.get(host, REPORTED)

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdicts over all members, by the last look."""
        verdicts = dict.fromkeys(self._known, REPORTED)
        verdicts.update(self._special)
        verdicts.update(dict.fromkeys(self._forced, FORCED_DOWN))
        return verdicts

    @property
    def hold(self) -> silence.Hold | None:
        """The verdicts that are being held; None: none are."""
        return self._holding.hold

    def unavailable(self, now: float) -> bool:
        """Whether the last answer is too old to tell, whatever the reason.

        By its age alone: whether somebody noticed that the backend fails
        does not matter.
        """
        if self.last_look is None:
            return True
        return now - self.last_look > self.service_down_time

    def silence_of(self, since: float) -> stalls.Silence:
        """Return what the silence since a moment is worth."""
        limit = self.service_down_time
        return self._past.silence(
            since, self.last_look, limit, min(self.report_interval, limit / 2)
        )

    def due(self) -> float:
        """Return the seconds within which a member that lives reports."""
        return min(1.5 * self.report_interval, self.service_down_time)

    def _settle(
        self, doubtful: Iterable[str], new: set[str], first: bool
    ) -> list[Change]:
        """Judge those who are not plainly up."""
        changes: list[Change] = []
        before: dict[str, Verdict | None] = {}
        candidates: dict[str, Verdict] = {}
        for host in doubtful:
            if host in before:
                continue
            before[host] = None if host in new else self._verdict_so_far(host)
            was = self._special.get(host, REPORTED)
            verdict = self._verdict(host)
            if verdict is LOST:
                if was.state == UP and host not in new:
                    self._fell.setdefault(host, self.last_look)
            else:
                self._fell.pop(host, None)
            if verdict is REPORTED:
                self._special.pop(host, None)
            else:
                if (
                    (verdict is SILENT or verdict is LOST)
                    and was.state == UP
                    and (first or host not in new)
                    and not self._known[host].fact.forced_down
                ):
                    candidates[host] = was
                self._special[host] = verdict
            if self._known[host].fact.forced_down:
                self._forced.add(host)
            else:
                self._forced.discard(host)
        self._hold_back(candidates)
        for host, was in before.items():
            now = self._verdict_so_far(host)
            if was is not now:
                changes.append(Change(host, was, now, self._known[host]))
        return changes

    def _verdict_so_far(self, host: str) -> Verdict:
        if host in self._forced:
            return FORCED_DOWN
        return self._special.get(host, REPORTED)

    def _verdict(self, host: str) -> Verdict:
        """Judge one member by itself."""
        known = self._known[host]
        fact, since = known.fact, known.last_report
        if fact.left:
            return LEFT
        if fact.crashed:
            return CRASHED
        if fact.lost and not (
            # Who had been lost before the backend went away does not rise.
            self.rejoining() and since is not None and since >= self._away
        ):
            return LOST
        if since is None:
            if fact.registered is None or self._too_long(fact.registered):
                return NEVER_REPORTED
            return REGISTERED
        if not (self._too_long(since) or self.testimony.is_too_late(known)):
            return REPORTED
        if (
            known.vanished is not None
            and fact.vanished
            and self.last_look - known.vanished <= self.due()
        ):
            return VANISHED
        return SILENT

    def _too_long(self, since: float) -> bool:
        if self.last_look - since <= self.service_down_time:
            return False
        if not self._past:
            return True
        how = self.silence_of(since)
        return how.healthy > how.allowed

    def rejoining(self) -> bool:
        """Whether the backend was away, and may not know all that is new."""
        if self.last_look is None:
            return True
        return self.last_look - self._back <= self._rejoin

    def _hold_back(self, candidates: dict[str, Verdict]) -> None:
        """Hold the verdicts over candidates, if they are part of a mass.

        :param candidates: those who were up and would be down now, and the
            verdicts that were told of them so far
        """
        limit = self.service_down_time
        held = self._holding.heed(
            self.mass,
            self._past,
            self.last_look,
            {host: was is HELD for host, was in candidates.items()},
            self._all_falls,
            limit,
            # Who has just missed a report or two is not silent yet.
            limit - min(limit, max(limit / 2, 1.5 * self.report_interval)),
        )
        self._special.update(dict.fromkeys(held, HELD))

    def _all_falls(self) -> dict[str, float]:
        return {
            host: self._falls(host)
            for host, one in self._known.items()
            if not (
                one.fact.forced_down or one.fact.left or one.fact.crashed
            )
        }

    def _falls(self, host: str) -> float:
        """Return when a member is silent for too long, or was.

        Minus infinity: it was never known to be up.
        """
        if self._special.get(host) is LOST:
            return self._fell.get(host, float("-inf"))
        known = self._known[host]
        since = known.last_report
        if since is None:
            return float("-inf")
        if not self._past or self.testimony.is_too_late(known):
            return since + self.service_down_time
        how = self.silence_of(since)
        return self.last_look + how.allowed - how.healthy

    def explain(self, host: str, verdict: Verdict, now: float) -> str:
        """Return the verdict over host in a sentence for people.

        :param verdict: what judge() said of host at that moment
        """
        return words.explain(self, host, verdict, now)
