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

"""The judgement of members by the records of who asks, and excuses for them.

A record says when its member reported last, and nothing of the backend. But
this process may report to that backend itself: while it cannot, the others
could not either, and their records have grown old for no fault of theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable

from nova_sg.servicegroup import facts, stalls


def judge_alone(
    reference: facts.Reference, service_down_time: float
) -> facts.Verdict:
    """Judge a member by the asker's own record alone, as Nova does.

    A record from the future is as old as it is far.
    """
    age, reported, left, crashed = reference
    if left:
        return facts.LEFT
    if crashed:
        return facts.CRASHED
    if abs(age) <= service_down_time:
        return facts.REPORTED if reported else facts.REGISTERED
    return facts.SILENT if reported else facts.NEVER_REPORTED


class Records:
    """What one process knows in favour of the members of one backend."""

    def __init__(self) -> None:
        self._stalls = stalls.Stalls()
        self._lock = threading.Lock()
        # While there is trouble: the last report of everybody who has been
        # asked for since, and was up when it began.
        self._reports: dict[Hashable, float] = {}
        #: Whether reports of this process do not get through, by whosever
        #: fault.
        self.trouble = False

    def stall(
        self, source: Hashable, begin: float, end: float, over: bool
    ) -> None:
        """Take in that source's reports did not get through.

        :param end: up to when that is certain
        :param over: whether they do again
        """
        with self._lock:
            if over:
                self._stalls.end(source, end)
            else:
                self._stalls.begin(source, begin, end)
            self._note_trouble()

    def _note_trouble(self) -> None:
        self.trouble = self._stalls.going_on
        if not self.trouble:
            self._reports = {}

    def heed(
        self,
        who: Hashable,
        age: float,
        now: float,
        limit: float,
        interval: float,
        enough: int = 0,
    ) -> None:
        """Take in, while there is trouble, how old a member's report is.

        If those of most get through, the trouble is ours alone. The
        arguments are those of judge().

        :param enough: the silence of so many bears us out
        """
        with self._lock:
            if age <= limit + now - self._stalls.began(now):
                self._reports[who] = now - age
            self._stalls.refute(
                list(self._reports.values()),
                now,
                min(1.5 * interval, limit),
                2 * limit,
                enough,
            )
            self._note_trouble()

    def judge(
        self,
        verdict: facts.Verdict,
        age: float,
        now: float,
        limit: float,
        interval: float,
    ) -> facts.Verdict:
        """Judge once more whoever has been silent for too long.

        :param verdict: by the record alone
        :param age: seconds since the last report
        :param now: a monotonic moment
        :param limit: seconds of silence that are allowed
        :param interval: seconds between two reports of a member
        """
        if verdict is not facts.SILENT or not self._stalls:
            return verdict
        with self._lock:
            self._stalls.forget(now, limit)
            how = self._stalls.until(now).silence(
                now - age, now, limit, min(interval, limit / 2)
            )
        return facts.REPORTED if how.healthy <= how.allowed else verdict
