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

"""Which event is acted upon next, and when. Events and times in, jobs out.

Nothing here does I/O, reads a clock or starts a thread. A job is done once it
has succeeded: at least once, and the jobs of one member one after the other,
in the order of its events. What fails is tried again, after longer and longer
pauses, until its time is over. The jobs of different members do not wait for
each other.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Collection

from nova_sg.servicegroup import events

#: So many jobs wait, of one outlet.
JOBS = 20_000
# Seconds after the first attempt that failed, and at most.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
# What says that a member is not, or no longer, down.
_BACK = (events.UP, events.JOINED, events.LEFT)


@dataclasses.dataclass(eq=False)
class Job:
    """Something to do about an event."""

    event: events.Event
    #: The same for all attempts, and no other job's.
    id: str
    #: The moment from which on it may be done.
    ready: float
    #: The moment from which on it is given up; None: not begun yet.
    give_up: float | None = None
    #: Attempts that have begun.
    attempts: int = 0
    #: Whether to make sure first that the member is still down.
    to_confirm: bool = False
    #: Whether an attempt is under way.
    busy: bool = False

    @property
    def waits(self) -> bool:
        """Whether nobody has begun to do it."""
        return not self.attempts and not self.busy


class Schedule:
    """Jobs, by member.

    :param only: the types of events that make jobs
    :param down_for: seconds for which a member has to have been down
    :param retry_for: seconds for which to try again what failed
    :param most: how many jobs are kept; beyond that the oldest one of the
        member that has most of them is dropped, unless it is under way
    """

    def __init__(
        self,
        only: Collection[str],
        down_for: float,
        retry_for: float,
        most: int = JOBS,
    ) -> None:
        self._most = most
        self._number = 0
        self._only = frozenset(only)
        self._down_for = down_for
        self._retry_for = retry_for
        self._jobs: dict[tuple[str, str], collections.deque[Job]] = {}

    def __len__(self) -> int:
        return self._number

    def put(self, event: events.Event, now: float) -> bool:
        """Take in what happened.

        :returns: whether a job was dropped for it
        """
        member = event.group, event.host
        jobs = self._jobs.setdefault(member, collections.deque())
        if event.type in _BACK and jobs:
            last = jobs[-1]
            if last.to_confirm and last.waits and now < last.ready:
                # Too short to be told of; and so is its end, unless that is
                # news by itself.
                jobs.pop()
                self._number -= 1
                if event.type == events.UP:
                    self._tidy(member)
                    return False
        if event.type in self._only:
            patient = event.type == events.DOWN and self._down_for > 0
            jobs.append(
                Job(
                    event,
                    id=str(uuid.uuid4()),
                    ready=now + (self._down_for if patient else 0.0),
                    to_confirm=patient,
                )
            )
            self._number += 1
        self._tidy(member)
        return self._number > self._most and self._make_room()

    def _make_room(self) -> bool:
        """Drop a job: of what is newest most is to be done."""
        for member in sorted(
            self._jobs, key=lambda one: len(self._jobs[one]), reverse=True
        ):
            jobs = self._jobs[member]
            # An attempt that is under way is of the first.
            oldest = 1 if jobs[0].busy else 0
            if oldest < len(jobs):
                del jobs[oldest]
                self._number -= 1
                self._tidy(member)
                return True
        return False

    def take(self, now: float) -> Job | None:
        """Return a job to do now; None: there is none.

        It is for one caller only, who says then what became of it.
        """
        for jobs in self._jobs.values():
            job = jobs[0]
            if not job.busy and job.ready <= now:
                job.busy = True
                return job
        return None

    def due(self) -> float | None:
        """Return the moment of the next job; None: none is waiting."""
        return min(
            (
                jobs[0].ready
                for jobs in self._jobs.values()
                if not jobs[0].busy
            ),
            default=None,
        )

    def begin(self, job: Job, now: float) -> None:
        """Note that an attempt begins."""
        job.attempts += 1
        if job.give_up is None:
            job.give_up = now + self._retry_for

    def done(self, job: Job) -> None:
        """Note that a job succeeded, or is no longer to be done."""
        member = job.event.group, job.event.host
        self._jobs[member].popleft()
        self._number -= 1
        self._tidy(member)

    def later(self, job: Job, now: float) -> None:
        """Note that nobody can say yet whether a job is to be done."""
        job.busy = False
        job.ready = now + PAUSE

    def failed(self, job: Job, now: float) -> bool:
        """Note that an attempt failed; return whether there is another."""
        pause = min(PAUSE * 2 ** min(job.attempts - 1, 30), LONGEST_PAUSE)
        if job.give_up is None or now + pause > job.give_up:
            self.done(job)
            return False
        job.busy = False
        job.ready = now + pause
        return True

    def _tidy(self, member: tuple[str, str]) -> None:
        if not self._jobs[member]:
            del self._jobs[member]
