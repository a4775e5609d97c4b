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

"""Members that report to several backends, of several servers each.

Each server has a clock of its own, which may be wrong by any amount and may
be set. Some servers lag. A report goes to one of the servers, which stamps
it, and a refresh reads from one of them. Both are chosen at random, as by a
load balancer. A report that was written late, or again, is a ghost: its number
is not newer than that of the record, although its stamp may be.
"""

import bisect
import random
from typing import NamedTuple

from nova_sg.liveness.model import (
    DOWN,
    NO_MASS_RULE,
    UP,
    Observation,
    Refresh,
)
from tests.unit.simulation import judges
from tests.unit.simulation.world import INTERVAL, LIMIT, Span

#: No report is later than this.
END = 1000.0


class Server(NamedTuple):
    """A server of a backend."""

    #: Seconds that its clock is wrong.
    skew: float = 0.0
    #: When its clock is set, and by how many seconds.
    steps: tuple[tuple[float, float], ...] = ()
    #: Seconds by which its answers are out of date.
    lag: float = 0.0

    def clock(self, moment):
        """Return what its clock shows."""
        steps = sum(by for at, by in self.steps if at <= moment)
        return moment + self.skew + steps


class Backend(NamedTuple):
    """One backend."""

    servers: tuple[Server, ...] = (Server(),)
    #: When it takes no reports and gives no answers.
    outages: tuple[Span, ...] = ()
    #: When it takes no reports, but gives answers.
    read_only: tuple[Span, ...] = ()
    #: By member: when it answers with a ghost of an earlier report.
    ghosts: dict[int, tuple[Span, ...]] = {}

    def takes(self, moment):
        return not _within(moment, (*self.outages, *self.read_only))

    def answers(self, moment):
        return not _within(moment, self.outages)


class Report(NamedTuple):
    at: float
    number: int
    stamp: float


class Cluster:
    """What is true, and what one observer concludes.

    The observer is the member 0.

    :param backends: the Backends, the primary first
    :param dead: by member: when it is dead; never the observer
    :param begin: when the observer begins
    :param step: seconds between two refreshes
    """

    def __init__(
        self, members, backends, dead, step, seed, begin=0.0, rule=NO_MASS_RULE
    ):
        self.backends = dict(enumerate(backends))
        self.dead = dead
        self.step = step
        self.now = begin
        rng = self.rng = random.Random(seed)
        names = tuple(str(number) for number in self.backends)
        self.judge = judges.Judge(LIMIT, INTERVAL, rule, names)
        self._own = dict.fromkeys(self.backends, begin)
        #: By backend and member: its reports, the oldest first.
        self.reports = {}
        for index, backend in self.backends.items():
            for number in range(members):
                rng_one = random.Random(seed * 1000 + number)
                at, attempt = rng_one.uniform(-110.0, -100.0), 1
                taken = []
                while at < END:
                    if not self.is_dead(number, at) and backend.takes(at):
                        server = rng.choice(backend.servers)
                        taken.append(Report(at, attempt, server.clock(at)))
                    at += rng_one.uniform(0.9, 1.1) * INTERVAL
                    attempt += 1
                self.reports[index, number] = taken
        self.members = range(members)
        #: By member: its state, and since when it has it.
        self.states = {}

    def is_dead(self, number, moment):
        span = self.dead.get(number)
        return span is not None and span.begin <= moment < span.end

    def last_report(self, number, until, index=None):
        """Return a member's last Report up to a moment; None: it has none."""
        indices = self.backends if index is None else [index]
        found = []
        for index in indices:
            reports = self.reports[index, number]
            taken = bisect.bisect_right(reports, until, key=lambda r: r.at)
            found += reports[taken - 1 : taken] if taken else []
        return max(found, default=None)

    def run(self, until, check):
        """Refresh until a moment; call check(number, was, now) for changes."""
        while self.now < until:
            self.now += self.step
            for index, backend in self.backends.items():
                self._tell_of_own_reports(index, backend)
                if not backend.answers(self.now):
                    self.judge.refresh_failed(self.now, str(index))
                    continue
                changes = self.judge.step(self._refresh(index, backend))
                for change in changes:
                    was = change.was and change.was.state
                    check(int(change.host), was, change.now.state)
                    self.states[int(change.host)] = change.now.state, self.now

    def _tell_of_own_reports(self, index, backend):
        """Tell whether the observer's own reports get through."""
        at = self._own[index]
        while at + INTERVAL <= self.now:
            at += INTERVAL
            if backend.takes(at):
                self.judge.reports_work("own", at, str(index))
            else:
                self.judge.reports_fail("own", at, at + 0.01, str(index))
        self._own[index] = at

    def _refresh(self, index, backend):
        server = self.rng.choice(backend.servers)
        observations = []
        for number in self.members:
            last = self.last_report(number, self.now - server.lag, index)
            if last is None:
                continue
            if _within(self.now, backend.ghosts.get(number, ())):
                last = self._ghost(index, number, server)
            # A driver compares the stamp with the clock of the same server.
            ago = server.clock(self.now) - last.stamp
            observations.append(
                Observation(str(number), last.number, self.now - ago)
            )
        return Refresh(str(index), self.now, observations)

    def _ghost(self, index, number, server):
        """Return a report that is not new, of one of two kinds."""
        last = self.last_report(number, self.now, index)
        if self.rng.random() < 0.5:
            # The last report, written again.
            return last._replace(stamp=server.clock(self.now))
        # An older report, unchanged.
        earlier = last.at - self.rng.uniform(0.0, LIMIT)
        return self.last_report(number, earlier, index) or last


class Wrong(AssertionError):
    """A verdict that the rules promise not to give."""


class Oracle:
    """Checks each change of a cluster, and that the dead are found.

    :param lag: seconds by which a server lags at most
    :param watches: since when the observer has watched
    """

    def __init__(self, cluster, lag=0.0, watches=0.0):
        self.cluster = cluster
        self.lag = lag
        self.watches = watches
        self.fell = {}

    def check(self, number, was, now):
        """Check a change.

        :raises Wrong: a member falls that could report, or rises without a
            newer report
        """
        cluster = self.cluster
        moment = cluster.now
        last = cluster.last_report(number, moment)
        if now == DOWN and was != DOWN:
            # The observer cannot know newer reports if a server lags.
            seen = cluster.last_report(number, moment - self.lag)
            self._check_down(number, moment, seen)
            self.fell[number] = moment
        if was == DOWN and now == UP:
            fell = self.fell[number]
            # An earlier report was known when the member fell.
            if last.at < fell - self.lag - cluster.step:
                raise Wrong(f"{number} rises at {moment}: last report {last}")

    def _check_down(self, number, moment, last):
        """Check that outages do not explain a member's silence.

        :param last: its last Report that the observer can know
        """
        cluster = self.cluster
        out = _common(
            [(*b.outages, *b.read_only) for b in cluster.backends.values()]
        )
        silent = moment - last.at
        excused = sum(
            max(0.0, min(span.end, moment) - max(span.begin, last.at))
            for span in out
        )
        # The observer learns of an outage's begin and end by its own next
        # report, and knows the time of a report to within two refreshes.
        slack = 2 * cluster.step + 2 * INTERVAL * len(out)
        if silent - excused < LIMIT - slack:
            raise Wrong(
                f"{number} down at {moment}: last report at {last.at}, "
                f"{excused} s excused"
            )

    def check_dead(self):
        """Check that every member is down that has been dead for long enough.

        :raises Wrong: one of them is up
        """
        cluster = self.cluster
        for number, span in cluster.dead.items():
            if not span.begin <= cluster.now < span.end:
                continue
            since = max(span.begin, self.watches)
            # The observer may take an outage to last until its own next
            # report.
            out = _common(
                [
                    [
                        span._replace(end=span.end + 1.1 * INTERVAL)
                        for span in (*backend.outages, *backend.read_only)
                    ]
                    for backend in cluster.backends.values()
                ]
            )
            bound = since + LIMIT + 2 * cluster.step + self.lag
            # It may have died before it could report after an outage.
            late = [one for one in out if one.end > since]
            if late:
                # The observer may take each of them for an interval longer.
                bound = late[-1].end + 2 * LIMIT + 3 * INTERVAL
                bound += 2 * cluster.step + self.lag
            # A report that an outage has kept back may have a wrong stamp.
            for backend in cluster.backends.values():
                if any(
                    server.skew or server.steps for server in backend.servers
                ):
                    bound = max(
                        bound,
                        *(
                            span.end + LIMIT + 2 * cluster.step + self.lag
                            for span in backend.outages
                            if since - INTERVAL <= span.end <= cluster.now
                        ),
                        # max() needs a second number if there is no outage.
                        0.0,
                    )
            if cluster.now > bound and cluster.states[number][0] != DOWN:
                raise Wrong(f"{number}, dead {span}, is up at {cluster.now}")


def _within(moment, spans):
    return any(span.begin <= moment < span.end for span in spans)


def _common(of_each):
    """Return the spans in which all of several backends are out."""
    result, *rest = [_disjoint(spans) for spans in of_each]
    for others in rest:
        result = [
            Span(max(one.begin, other.begin), min(one.end, other.end))
            for one in result
            for other in others
            if max(one.begin, other.begin) < min(one.end, other.end)
        ]
    return sorted(result)


def _disjoint(spans):
    """Return spans that cover the same time, the earliest first."""
    result = []
    for span in sorted(spans):
        if result and span.begin <= result[-1].end:
            end = max(result[-1].end, span.end)
            result[-1] = result[-1]._replace(end=end)
        else:
            result.append(span)
    return result
