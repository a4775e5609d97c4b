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


"""Bad times of a backend: what is known of them, and whom they excuse.

A stall is a span of time in which the backend demonstrably gave no answer or
took no report. Nobody could have reported in it, so it counts against
nobody. What is evidence of one is the detector's business; here it is kept
and weighed. No I/O, no clock, no thread, as in the detector.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from nova_sg.servicegroup import facts

# A report is later than a stall's beginning if it is later by so many
# seconds: clocks are compared with some error.
MARGIN = 2.0


class Silence(NamedTuple):
    """How long a member has been silent, and how long it may be."""

    #: Seconds without a report, stalls not counted.
    healthy: float
    #: How many of them are allowed.
    allowed: float
    #: Seconds of stalls meanwhile.
    excused: float


class Span(NamedTuple):
    """A stall that is over."""

    begin: float
    end: float
    #: Whether a report is known not to have got through in it: then others
    #: have missed one, too, however short it was for all that is known.
    missed: bool = False


def began(
    observed: Iterable[facts.Fact], last: float, failed: float
) -> float:
    """Return since when nobody was heard, while looks failed.

    Who looks rarely only knows of the time since it asked in vain; but a
    report that was taken later than its last look tells it more.

    :param observed: what the first look says that is answered again
    :param last: the last look that was answered before
    :param failed: the first that was not
    """
    return max(
        (
            fact.last_report
            for fact in observed
            if fact.last_report is not None
            and last < fact.last_report <= failed
        ),
        default=last,
    )


class Stalls:
    """The stalls of one backend, as far as they still matter."""

    def __init__(self) -> None:
        # Disjoint, in order.
        self._spans: list[Span] = []
        # Those that are not over, by whom they are known from.
        self._open: dict[Hashable, float] = {}
        # Up to when the trouble of each source is certain.
        self._certain: dict[Hashable, float] = {}
        # Sources whose trouble turned out to be their own, and until when
        # that was certain.
        self._doubted: dict[Hashable, float] = {}
        # Those of them that are heeded again, as nobody else reports either.
        self._again: set[Hashable] = set()
        # Those of them whom that has not helped: too few are left to say.
        self._alone: set[Hashable] = set()

    def __bool__(self) -> bool:
        return bool(self._spans or self._open)

    def add(self, begin: float, end: float, missed: bool = False) -> None:
        """Take in a stall that is over.

        :param missed: whether a report is known not to have got through
        """
        if end <= begin:
            return
        spans = []
        for other in self._spans:
            if other.end < begin or end < other.begin:
                spans.append(other)
            else:
                begin, end = min(begin, other.begin), max(end, other.end)
                missed = missed or other.missed
        bisect.insort(spans, Span(begin, end, missed))
        self._spans = spans

    def begin(self, source: Hashable, at: float, certain: float) -> None:
        """Take in that reports of source have not got through since.

        :param certain: when the last of them ended, or was seen to hang
        """
        self._certain[source] = certain
        if source not in self._doubted and source not in self._alone:
            self._open.setdefault(source, at)

    def end(self, source: Hashable, certain: float) -> None:
        """Take in that source's reports get through, or are over.

        What lies between the last one that did not and that is no evidence.

        :param certain: when the last one ended that did not, or took too long
        """
        self._certain.pop(source, None)
        self._doubted.pop(source, None)
        self._again.discard(source)
        self._alone.discard(source)
        begun = self._open.pop(source, None)
        if begun is not None:
            self.add(begun, certain, missed=True)

    def refute(
        self,
        reports: Sequence[float],
        now: float,
        due: float,
        patience: float,
        enough: int,
    ) -> None:
        """Tell trouble of the backend from that of the sources.

        Where at least half of all members have reported since a stall began,
        or, if it lasts, still anybody does, the backend works. Its source is
        not heeded then until its own trouble is over, or nobody else reports
        any more either: for as long as it lasts where enough have fallen
        silent, and no longer than patience where one may just have died.

        :param reports: the last report of each member that is up
        :param due: seconds within which a member that lives reports
        :param patience: seconds after which anybody's report will do
        :param enough: the silence of so many members bears a source out
        """
        heard = any(at > now - due for at in reports)
        if heard:
            self._doubted.update(dict.fromkeys(self._alone, now))
            self._alone.clear()
        for source in list(self._doubted):
            if heard:
                self._doubted[source] = now
            else:
                self._open[source] = self._doubted.pop(source)
                self._again.add(source)
        for source, begun in list(self._open.items()):
            through = sum(at > begun + MARGIN for at in reports)
            most = through and 2 * through >= len(reports)
            late = now - begun > patience
            few = source in self._again and len(reports) < enough
            if most or (late and (heard or few)):
                self._again.discard(source)
                del self._open[source]
                self.add(begun, self._certain[source])
                if most or heard:
                    self._doubted[source] = now
                else:
                    self._alone.add(source)

    @property
    def going_on(self) -> bool:
        """Whether a source has not said yet that its trouble is over."""
        return bool(self._open or self._doubted or self._alone)

    def began(self, now: float) -> float:
        """Return when the first stall began that is not over; now: none."""
        return min(self._open.values(), default=now)

    def until(self, moment: float) -> Stalls:
        """Return the same with all that goes on counted up to moment."""
        if not self._open:
            return self
        closed = Stalls()
        closed._spans = self._spans
        for begun in self._open.values():
            closed.add(begun, moment, missed=True)
        return closed

    def healthy(self, since: float, now: float) -> float:
        """Return the seconds from since to now that were not stalls."""
        seconds = now - since
        for begin, end, _ in self._after(since):
            overlap = min(end, now) - max(begin, since)
            if overlap > 0:
                seconds -= overlap
        return seconds

    def silence(
        self, since: float, now: float, limit: float, long: float
    ) -> Silence:
        """Judge a silence.

        A stall is taken off. One that lasted at least long, or in which a
        report is known to be missed, made everybody miss a report: whoever
        was up when it began has the whole limit from its end. Stalls in a
        row never allow more than two limits together: a backend that flaps
        does not keep the dead alive.

        :param since: the member's last report
        :param now: up to when
        :param limit: seconds of silence that are allowed
        :param long: how long a stall has to be to count as long, in seconds
        """
        healthy, allowed, at = 0.0, limit, since
        for begin, end, missed in self._after(since):
            begin, end = max(begin, since), min(end, now)
            if end <= begin:
                continue
            healthy += begin - at
            at = end
            if healthy <= allowed and (missed or end - begin >= long):
                allowed = min(healthy + limit, 2 * limit)
        healthy += now - at
        return Silence(healthy, allowed, now - since - healthy)

    def forget(self, now: float, limit: float) -> None:
        """Drop what can no longer make a difference to anybody."""
        spans = self._spans
        while spans and self.healthy(spans[0].end, now) > 2 * limit:
            spans = spans[1:]
            self._spans = spans

    def _after(self, since: float) -> list[Span]:
        """Return the spans that end after since."""
        spans = self._spans
        if not spans or spans[0].end > since:
            return spans
        return spans[bisect.bisect(spans, since, key=lambda s: s.end) :]
