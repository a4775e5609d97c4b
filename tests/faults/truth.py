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

"""Who was alive when, and how wrong the answers of an observer were.

Pure logic: moments are seconds on the monotonic clock, answers are letters.
"""

import dataclasses
from typing import NamedTuple

ALIVE = "alive"
DEAD = "dead"

UP = "U"
DOWN = "D"


class Span(NamedTuple):
    """What a member is from a moment on."""

    begin: float
    state: str
    #: When its observers have to know, at the latest.
    due: float


class Answers(NamedTuple):
    """What an observer said at one moment."""

    begun: float
    at: float
    #: A letter a member.
    letters: str


class Truth:
    """What the harness did to each member of a group."""

    def __init__(self, hosts):
        self.hosts = list(hosts)
        self.spans = {host: [] for host in self.hosts}

    def alive(self, hosts, at, within=0.0):
        """Say that members are alive, and seen to be, within seconds."""
        self._add(hosts, Span(at, ALIVE, at + within))

    def dead(self, hosts, at, within):
        """Say that members are dead, or cut off, and seen to be, within.

        :param within: seconds: the driver's stated bound
        """
        self._add(hosts, Span(at, DEAD, at + within))

    def backend_back(self, at, within):
        """Count the bound of who died meanwhile from this moment on.

        :param within: seconds: the driver's stated bound in that case
        """
        for spans in self.spans.values():
            last = spans[-1]
            if last.state == DEAD:
                # Until then nobody can know: whatever is said is no error.
                spans[-1] = Span(last.begin, DEAD, float("inf"))
                spans.append(Span(at, DEAD, at + within))

    def letters(self):
        """Return what an observer should be saying by now."""
        return "".join(
            UP if self.spans[host][-1].state == ALIVE else DOWN
            for host in self.hosts
        )

    def _add(self, hosts, span):
        for host in hosts:
            self.spans[host].append(span)


@dataclasses.dataclass
class Score:
    """How an observer did."""

    answers: int = 0
    #: "Down" of who was alive, and should have been known to be.
    wrong_down: int = 0
    #: The members of whom that was said.
    wronged: set = dataclasses.field(default_factory=set)
    #: The moments of the first and the last time.
    wrong_at: list = dataclasses.field(default_factory=list)
    #: Seconds that a dead member was called up past the bound; the worst.
    wrong_up: float = 0.0
    #: Seconds without an answer about somebody alive.
    unanswered: float = 0.0
    #: Seconds from death to the first "down", the slowest; None: nobody
    #: died, infinity: never.
    detected: float | None = None
    #: Seconds from the end of the fault until all who live are up for good;
    #: None: never.
    recovered: float | None = None

    def add_wrong_down(self, host, at):
        self.wrong_down += 1
        self.wronged.add(host)
        self.wrong_at[1:] = [at]


def score(truth, polls, begin, healed, end):
    """Compare what an observer said with the truth.

    :param polls: Answers, in order
    :param begin: moments: of the fault's beginning,
    :param healed: of its end,
    :param end: and of the last answer that counts
    """
    result = Score()
    plain = [
        number
        for number, host in enumerate(truth.hosts)
        if len(truth.spans[host]) == 1
        and truth.spans[host][0].state == ALIVE
        and truth.spans[host][0].due <= begin
    ]
    others = sorted(set(range(len(truth.hosts))) - set(plain))
    detected = {}
    # Who was called up once must not be called down any more.
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
            for number in plain:
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
                # Known to be alive by then, and still when the answer came.
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
    """Read what the program observer wrote.

    :returns: a list of Answers
    """
    polls = []
    with open(path) as lines:
        for line in lines:
            # The last one may be cut short.
            if line.endswith("\n"):
                begun, at, letters = line.split()
                polls.append(Answers(float(begun), float(at), letters))
    return polls
