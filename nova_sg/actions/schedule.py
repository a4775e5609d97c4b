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

"""Which event is acted upon next, and when: events and times in, jobs out.

Nothing here does I/O, reads a clock or starts a thread. Times are seconds of
any monotonic clock.

A job is an event to act upon, and ends with an attempt that succeeds. Failed
attempts are repeated, after longer and longer pauses, until the time for them
is over. The jobs of one member are done one after the other, in the order of
its events. Jobs of different members do not wait for each other.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Collection

from nova_sg.liveness import model
from nova_sg.servicegroup import events

#: Jobs of one handler that wait, at most.
JOBS = 20_000
# Seconds after the first failed attempt, and after any, at most.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
# The events by which a member is not down, or no longer.
_BACK = (
    *(events.UP, events.JOINED, events.LEFT),
    *(events.DRAINING, events.UNWELL),
)


@dataclasses.dataclass(eq=False)
class Job:
    """An event to act upon."""

    event: events.Event
    #: Unique; the same in all attempts. See _id().
    id: str
    #: The time of the next attempt.
    ready: float
    #: The time until which it waits for the permission to act.
    expires: float = float("inf")
    #: The time after which no attempt begins; None: there was no attempt.
    give_up: float | None = None
    #: Attempts that have begun.
    attempts: int = 0
    #: Whether a refresh has to confirm first that the member is still down.
    to_confirm: bool = False
    #: Whether an attempt is under way.
    busy: bool = False

    @property
    def waits(self) -> bool:
        """Whether no attempt has begun."""
        return not self.attempts and not self.busy


class Schedule:
    """The jobs of all members.

    :param only: the types of events that become jobs
    :param down_for: seconds for which a member has to have been down
    :param retry_for: seconds in which failed attempts are repeated
    :param gather_for: seconds in which other members that are down have to
        become known before a down event is acted upon
    :param confirm: whether a refresh has to confirm each down event
    :param most: jobs that are kept; for each further one the oldest job of
        the member with most jobs is dropped, unless an attempt is under way
    """

    def __init__(
        self,
        only: Collection[str],
        down_for: float,
        retry_for: float,
        most: int = JOBS,
        *,
        gather_for: float = 0.0,
        confirm: bool = False,
    ) -> None:
        self._most = most
        self._number = 0
        self._only = frozenset(only)
        self._delay = max(down_for, gather_for)
        self._confirm = confirm or self._delay > 0
        self._retry_for = retry_for
        self._jobs: dict[tuple[str, str], collections.deque[Job]] = {}

    def __len__(self) -> int:
        return self._number

    def put(self, event: events.Event, now: float) -> bool:
        """Take in an event.

        :returns: whether a job was dropped for it
        """
        member = event.group, event.host
        jobs = self._jobs.setdefault(member, collections.deque())
        if event.type in _BACK and jobs:
            last = jobs[-1]
            if last.to_confirm and last.waits and now < last.ready:
                # It was down for too short a time to act, and so its being
                # up again is no news. Joining or leaving is.
                jobs.pop()
                self._number -= 1
                if event.type == events.UP:
                    self._tidy(member)
                    return False
        if event.type in self._only:
            is_down = event.type == events.DOWN
            ready = now + (self._delay if is_down else 0.0)
            jobs.append(
                Job(
                    event,
                    id=_id(event),
                    ready=ready,
                    expires=ready + self._retry_for,
                    to_confirm=is_down and self._confirm,
                )
            )
            self._number += 1
        self._tidy(member)
        return self._number > self._most and self._make_room()

    def _make_room(self) -> bool:
        """Drop a job: the newest events of each member matter most."""
        for member in sorted(
            self._jobs, key=lambda one: len(self._jobs[one]), reverse=True
        ):
            jobs = self._jobs[member]
            # An attempt under way is one of the first job.
            oldest = 1 if jobs[0].busy else 0
            if oldest < len(jobs):
                del jobs[oldest]
                self._number -= 1
                self._tidy(member)
                return True
        return False

    def take(self, now: float) -> Job | None:
        """Return a job to do now; None: there is none.

        No other caller gets it until this one calls done, later or failed.
        """
        for jobs in self._jobs.values():
            job = jobs[0]
            if not job.busy and job.ready <= now:
                job.busy = True
                return job
        return None

    def due(self) -> float | None:
        """Return the time of the next attempt; None: no job waits."""
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
        """Note that a job succeeded, or became superfluous."""
        member = job.event.group, job.event.host
        self._jobs[member].popleft()
        self._number -= 1
        self._tidy(member)

    def later(self, job: Job, now: float) -> None:
        """Note that it is not known yet whether the member is still down."""
        job.busy = False
        job.ready = now + PAUSE

    def wait(self, job: Job, now: float, pause: float) -> bool:
        """Note that a job may not be done now; return whether it is kept.

        It becomes due again after `pause` seconds. By then a member that was
        down may be up.
        """
        if now >= job.expires:
            self.done(job)
            return False
        job.busy = False
        job.ready = min(now + pause, job.expires)
        job.to_confirm |= job.event.type == events.DOWN
        return True

    def failed(self, job: Job, now: float) -> bool:
        """Note that an attempt failed; return whether another follows."""
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


# For uuid5: the ids of nova_sg's down events.
_DOWN = uuid.UUID("0b6c4f5e-6f0a-4c53-9b61-2d3c7f0b8d11")


def _id(event: events.Event) -> str:
    """Return an id: for the same down the same in each observer, if possible.

    A member that is down becomes up by a report only. So its last report tells
    one silence from another, if the backend keeps the time of it. A command
    may come and go without a report.
    """
    if (
        event.type != events.DOWN
        or event.last_seen is None
        or event.cause == model.FORCED_DOWN.cause
    ):
        return str(uuid.uuid4())
    about = event.group, event.host, event.last_seen.isoformat()
    return str(uuid.uuid5(_DOWN, "\0".join(about)))
