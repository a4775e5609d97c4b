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

"""One verdict over a member, of several backends' verdicts.

The rules are on the page "The judgement" of the documentation, too. Nothing
here looks, waits or reads a clock: the views are taken as they are.
"""

from __future__ import annotations

from nova_sg.servicegroup import detector
from nova_sg.servicegroup.several import secondary as several_secondary
from nova_sg.servicegroup.view import GroupView


class Judgement:
    """Judges the members of one group.

    :param primary: the view whose verdicts count
    :param secondaries: who is asked when that cannot be, in order
    """

    def __init__(
        self,
        primary: GroupView,
        secondaries: list[several_secondary.Secondary],
    ) -> None:
        self._primary = primary
        self._secondaries = secondaries
        self._others = [secondary.view for secondary in secondaries]
        # Members that a secondary has seen going down while the primary was
        # away, and when: the primary's excuse for that time is not theirs.
        self._fallen: dict[str, float] = {}

    def fell(self, host: str) -> bool:
        """Whether a member fell while the primary was away."""
        return host in self._fallen

    def judge(self, host: str) -> tuple[GroupView, detector.Verdict]:
        """Return the verdict over a member, and whose it is."""
        primary, others = self._primary, self._others
        verdict = primary.last_verdicts.get(host)
        # An operator's word counts wherever it was heard.
        if verdict is detector.FORCED_DOWN:
            return primary, verdict
        for other in others:
            if (
                other.last_verdicts.get(host) is detector.FORCED_DOWN
                and other.answering()
            ):
                return other, detector.FORCED_DOWN
        if primary.answering():
            if verdict is None:
                return self._elsewhere(host)
            if verdict.state == detector.UP and host in self._fallen:
                return self._after_fall(host, verdict)
            return primary, verdict
        # It cannot be asked: who can, knows more than its last verdict.
        for secondary in self._secondaries:
            other = secondary.view
            if other.answering():
                found = other.last_verdicts.get(host)
                if found and secondary.comparer.is_news(host, found):
                    return other, found
        if verdict is not None and primary.available():
            return primary, verdict
        for secondary in self._secondaries:
            other = secondary.view
            if other.available() and not other.answering():
                found = other.last_verdicts.get(host)
                if found and secondary.comparer.is_news(host, found):
                    return other, found
        if primary.available():
            return primary, detector.NOT_A_MEMBER
        return primary, detector.UNAVAILABLE

    def _elsewhere(self, host: str) -> tuple[GroupView, detector.Verdict]:
        """Judge a member that the primary does not know.

        One that reports to a secondary has not come over yet.
        """
        best = None
        for other in self._others:
            verdict = other.last_verdicts.get(host)
            if verdict is None:
                continue
            if verdict.state == detector.UP:
                if other.available():
                    return other, verdict
                verdict = detector.UNAVAILABLE
            best = best or (other, verdict)
        return best or (self._primary, detector.NOT_A_MEMBER)

    def _after_fall(
        self, host: str, verdict: detector.Verdict
    ) -> tuple[GroupView, detector.Verdict]:
        """Judge a member that fell while the primary was away.

        It is up if it has reported since, to whomever.
        """
        since = self._fallen[host]
        if not self._primary.reported_since(host, since):
            found = [
                (other, other.last_verdicts[host])
                for other in self._others
                if other.answering() and host in other.last_verdicts
            ]
            if found and found[0][1].state != detector.UP:
                return found[0]
        return self._primary, verdict

    def hosts(self) -> set[str]:
        """Return the names of all members that any backend knows."""
        hosts = set(self._primary.last_verdicts)
        for other in self._others:
            hosts.update(other.last_verdicts)
        return hosts

    def note_the_fallen(self, now: float) -> None:
        """Note who fell while the primary is away, and who rose since."""
        primary = self._primary
        fallen = dict(self._fallen)
        if not primary.answering():
            for host, verdict in primary.last_verdicts.items():
                if verdict.state != detector.UP or host in fallen:
                    continue
                view, verdict = self.judge(host)
                if view is not primary and verdict.state == detector.DOWN:
                    fallen[host] = now
        else:
            for host in self._fallen:
                verdict = primary.last_verdicts.get(host)
                if (
                    verdict is None
                    or verdict.state != detector.UP
                    or self._after_fall(host, verdict)[0] is primary
                ):
                    del fallen[host]
        self._fallen = fallen
