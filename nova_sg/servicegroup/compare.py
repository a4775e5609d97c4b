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

"""On which members two backends disagree, and since when.

Pure: no I/O, no clock, no thread. Verdicts and times go in, disagreements
come out.
"""

from __future__ import annotations

from collections.abc import Mapping

from nova_sg.liveness import model

UP_DOWN = "up-down"
DOWN_UP = "down-up"
UP_UNKNOWN = "up-unknown"
UNKNOWN_UP = "unknown-up"
FORCED_NOT = "forced-not"
NOT_FORCED = "not-forced"

#: Every kind of disagreement, as text.
KINDS = {
    UP_DOWN: "up by {primary}, down by {secondary}",
    DOWN_UP: "down by {primary}, up by {secondary}",
    UP_UNKNOWN: "up by {primary}, not known to {secondary}",
    UNKNOWN_UP: "not known to {primary}, up by {secondary}",
    FORCED_NOT: "forced down in {primary}, not in {secondary}",
    NOT_FORCED: "forced down in {secondary}, not in {primary}",
}

Verdicts = Mapping[str, model.Verdict]


def kind(
    primary: model.Verdict | None, secondary: model.Verdict | None
) -> str | None:
    """Return how two verdicts on one member disagree; None: they agree.

    They agree if by both the member is not up, for whatever reason: also if
    it is down by one and not known to the other.

    :param primary: its verdict; None: it does not know the member
    :param secondary: likewise
    """
    if primary is secondary:
        return None
    if primary is None or secondary is None:
        known = primary or secondary
        if known is None or known.state != model.UP:
            return None
        return UNKNOWN_UP if primary is None else UP_UNKNOWN
    if primary is model.FORCED_DOWN:
        return FORCED_NOT
    if secondary is model.FORCED_DOWN:
        return NOT_FORCED
    up = primary.state == model.UP
    if up == (secondary.state == model.UP):
        return None
    return UP_DOWN if up else DOWN_UP


class Comparer:
    """The disagreements between the primary and one secondary on a group."""

    def __init__(self) -> None:
        #: How many disagreements there were so far, by kind.
        self.totals = dict.fromkeys(KINDS, 0)
        #: The kind of each present disagreement, by member. Replaced as a
        #: whole, never changed.
        self.settled: dict[str, str] = {}
        # By member: a difference, and when it was first seen.
        self._since: dict[str, tuple[str, float]] = {}

    def compare(
        self,
        now: float,
        settling: float,
        primary: Verdicts,
        secondary: Verdicts,
    ) -> None:
        """Take in the verdicts of both.

        :param now: a monotonic moment
        :param settling: seconds that a difference has to last until it is a
            disagreement
        """
        since, settled = {}, {}
        for host in primary.keys() | secondary.keys():
            what = kind(primary.get(host), secondary.get(host))
            if what is None:
                continue
            before = self._since.get(host)
            if before is None or before[0] != what:
                before = what, now
            since[host] = before
            if now - before[1] >= settling:
                settled[host] = what
        for host, what in settled.items():
            if self.settled.get(host) != what:
                self.totals[what] += 1
        self._since, self.settled = since, settled

    def interrupt(self) -> None:
        """Note that one of them does not answer now.

        The time of differences that are not yet disagreements starts again.
        """
        self._since = {
            host: self._since[host]
            for host in self.settled
            if host in self._since
        }
