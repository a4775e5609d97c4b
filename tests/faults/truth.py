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

"""Which members were alive when, and how wrong an observer's answers were.

Moments are seconds on the monotonic clock. An answer is a letter for each
member: U is up, D is down, anything else is no answer.
"""

import dataclasses
from typing import NamedTuple

ALIVE = "alive"
DEAD = "dead"

UP = "U"
DOWN = "D"


class Span(NamedTuple):
    """A member's state from a moment on, until its next span."""

    begin: float
    state: str
    #: When observers have to know of it, at the latest.
    due: float


class Answers(NamedTuple):
    """An observer's answers about all members at one moment."""

    #: When it was asked.
    begun: float
    #: When it had answered.
    at: float
    #: A letter for each member.
    letters: str


class Truth:
    """Which members of a group are alive or dead, and since when."""

    def __init__(self, hosts):
        self.hosts = list(hosts)
        self.spans = {host: [] for host in self.hosts}

    def alive(self, hosts, at, within=0.0):
        """Record that members are alive from a moment on.

        :param within: seconds until observers have to call them up
        """
        self._add(hosts, Span(at, ALIVE, at + within))

    def dead(self, hosts, at, within):
        """Record that members are dead, or cut off, from a moment on.

        :param within: seconds until observers have to call them down: the
            driver's stated bound
        """
        self._add(hosts, Span(at, DEAD, at + within))

    def backend_returned(self, at, within):
        """Record the end of an outage.

        For members that died during the outage the bound begins now.

        :param within: seconds: the driver's stated bound after an outage
        """
        for spans in self.spans.values():
            last = spans[-1]
            if last.state == DEAD:
                # No observer can know before. No answer until then is wrong.
                spans[-1] = Span(last.begin, DEAD, float("inf"))
                spans.append(Span(at, DEAD, at + within))

    def letters(self):
        """Return the answers that an observer should give by now."""
        return "".join(
            UP if self.spans[host][-1].state == ALIVE else DOWN
            for host in self.hosts
        )

    def _add(self, hosts, span):
        for host in hosts:
            self.spans[host].append(span)


@dataclasses.dataclass
class Score:
    """How right an observer was."""

    #: How many answers it gave.
    answers: int = 0
    #: How many answers "down" were about a living member that the observer
    #: had to know, or had known.
    wrong_down: int = 0
    #: These members.
    called_down: set = dataclasses.field(default_factory=set)
    #: The moments of the first and the last such answer.
    wrong_at: list = dataclasses.field(default_factory=list)
    #: For how many seconds a dead member was up past the bound; the longest.
    wrong_up: float = 0.0
    #: For how many seconds a living member had no answer.
    unanswered: float = 0.0
    #: Seconds from a death to the first answer "down"; the longest. None: no
    #: member died; infinity: one was never found.
    detected: float | None = None
    #: Seconds from the end of the fault until all living members are up for
    #: good. None: never.
    recovered: float | None = None

    def add_wrong_down(self, host, at):
        self.wrong_down += 1
        self.called_down.add(host)
        self.wrong_at[1:] = [at]


def score(truth, polls, begin, healed, end):
    """Compare an observer's answers with the truth; return a Score.

    :param polls: Answers, in order
    :param begin: the moment at which the fault began
    :param healed: the moment at which it ended
    :param end: later answers do not count
    """
    result = Score()
    # Members that were always alive. There may be very many of them.
    always_alive = [
        number
        for number, host in enumerate(truth.hosts)
        if len(truth.spans[host]) == 1
        and truth.spans[host][0].state == ALIVE
        and truth.spans[host][0].due <= begin
    ]
    others = sorted(set(range(len(truth.hosts))) - set(always_alive))
    detected = {}
    # Living members that were called up. From then on "down" is wrong.
    seen = set()
    wrong_up = dict.fromkeys(others, 0.0)
    before = begin
    not_up = None
    last = None
    for poll in polls:
        if poll.at < begin or poll.begun > end:
            continue
        passed, before = poll.at - before, poll.at
        letters = poll.letters
        result.answers += len(letters)
        unanswered = trouble = False
        if letters != UP * len(letters):
            for number in always_alive:
                if letters[number] != UP:
                    trouble = True
                    if letters[number] == DOWN:
                        result.add_wrong_down(truth.hosts[number], poll.at)
                    else:
                        unanswered = True
        for number in others:
            span = _at(truth.spans[truth.hosts[number]], poll.begun)
            if span is None:
                continue
            letter = letters[number]
            if span.state == ALIVE:
                if letter == UP:
                    seen.add((number, span))
                    continue
                trouble = True
                # Whether it was alive from the question to the answer.
                sure = _at(truth.spans[truth.hosts[number]], poll.at) is span
                if letter != DOWN:
                    unanswered = True
                elif sure and (
                    poll.begun > span.due or (number, span) in seen
                ):
                    result.add_wrong_down(truth.hosts[number], poll.at)
            elif letter == DOWN:
                detected.setdefault((number, span), poll.at)
            elif letter == UP and poll.at > span.due:
                wrong_up[number] += min(passed, poll.at - span.due)
        if unanswered or passed > 1.0:
            result.unanswered += passed
        if poll.begun >= healed:
            last = poll.at
            if trouble:
                not_up = poll.at
    result.wrong_up = max(wrong_up.values(), default=0.0)
    _score_deaths(result, truth, detected, begin, end)
    if last is not None and not_up != last:
        result.recovered = max(0.0, (not_up or healed) - healed)
    return result


def _score_deaths(result, truth, detected, begin, end):
    for number, host in enumerate(truth.hosts):
        for span in truth.spans[host]:
            if span.state != DEAD or span.due == float("inf"):
                continue
            if span.begin > end:
                continue
            found = detected.get((number, span), float("inf"))
            result.detected = max(
                result.detected or 0.0, found - max(span.begin, begin)
            )


def _at(spans, moment):
    found = None
    for span in spans:
        if span.begin > moment:
            break
        found = span
    return found


def read(path):
    """Read the answers that programs/observer.py wrote.

    :returns: a list of Answers
    """
    polls = []
    with open(path) as lines:
        for line in lines:
            # The last line may be incomplete.
            if line.endswith("\n"):
                begun, at, letters = line.split()
                polls.append(Answers(float(begun), float(at), letters))
    return polls
