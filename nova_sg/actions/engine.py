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

"""The threads that act upon events, and what a handler is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from oslo_log import log as logging

from nova_sg import exception, servicegroup, threads
from nova_sg.actions import gate, schedule
from nova_sg.liveness import model
from nova_sg.servicegroup import description, events

LOG = logging.getLogger(__name__)

# Seconds after which it is asked again whether an action may begin.
WAIT_PAUSE = 1.0


class Failed(Exception):
    """An attempt to act did not succeed; the text is the reason."""


class Handler(Protocol):
    """A way to act upon an event."""

    #: Its name in messages.
    name: str
    #: Seconds that one call of act() takes at most.
    longest: float

    def act(self, job: schedule.Job) -> None:
        """Act upon an event, within the time limit.

        :raises Failed: it did not work
        """

    def close(self) -> None:
        """Release its resources; no further job comes."""
        return


class Engine:
    """Acts upon events, by all of its handlers.

    :param handlers: each has a schedule of its own: none waits for another
    :param make_schedule: makes a schedule
    :param parallel: jobs of one handler at the same time
    :param confirm: returns whether a member is still down, by its group and
        name; None: that is not known now
    :param guard: whether an action may begin; None: any may
    """

    def __init__(
        self,
        handlers: Sequence[Handler],
        make_schedule: Callable[[], schedule.Schedule],
        parallel: int,
        confirm: Callable[[str, str], bool | None],
        guard: gate.Gate | None = None,
    ) -> None:
        self._gate = guard
        self._lanes = [
            _Lane(handler, make_schedule(), parallel, confirm, guard)
            for handler in handlers
        ]

    def put(self, event: events.Event) -> None:
        """Take in an event to act upon."""
        for lane in self._lanes:
            lane.put(event)

    def close(self, patience: float) -> None:
        """Begin no further job, and wait for those under way.

        :param patience: seconds to wait at most
        """
        give_up = time.monotonic() + patience
        for lane in self._lanes:
            lane.stop()
        ended = [lane.wait(give_up) for lane in self._lanes]
        if self._gate is not None and self._gate.permission is not None:
            self._gate.permission.close(release=all(ended))


class _Lane:
    """One handler, with its jobs and threads."""

    def __init__(
        self,
        handler: Handler,
        jobs: schedule.Schedule,
        parallel: int,
        confirm: Callable[[str, str], bool | None],
        guard: gate.Gate | None,
    ) -> None:
        self._handler = handler
        self._jobs = jobs
        self._confirm = confirm
        self._gate = guard
        self._changed = threading.Condition()
        self._stopped = False
        # Whether the log has that events were dropped.
        self._logged_drop = False
        self._threads = [
            threading.Thread(
                target=self._run, name="nova-sg-action", daemon=True
            )
            for _ in range(parallel)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, event: events.Event) -> None:
        with self._changed:
            dropped = self._jobs.put(event, time.monotonic())
            is_news = dropped and not self._logged_drop
            self._logged_drop |= dropped
            self._changed.notify_all()
        if is_news:
            LOG.error(
                "%(name)s is behind: %(count)d events wait, and the oldest "
                "are dropped without being acted upon. Repair the command, "
                "webhook or broker, or lower [events] retry_for",
                {"name": self._handler.name, "count": len(self._jobs)},
            )

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, give_up: float) -> bool:
        """Wait for the jobs under way; return whether they have ended."""
        for thread in self._threads:
            threads.join(thread, max(0.0, give_up - time.monotonic()))
        self._handler.close()
        others_act = self._gate is not None and self._gate.others_act
        if len(self._jobs) and not others_act:
            LOG.warning(
                "Ending with %(count)d events that %(name)s has not acted "
                "upon",
                {"count": len(self._jobs), "name": self._handler.name},
            )
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except Exception:
                LOG.exception("Unexpected error while acting upon an event")
                with self._changed:
                    now = time.monotonic()
                    if job.attempts:
                        self._jobs.failed(job, now)
                    else:
                        self._jobs.wait(job, now, schedule.LONGEST_PAUSE)
                    self._changed.notify_all()

    def _next(self) -> schedule.Job | None:
        with self._changed:
            while not self._stopped:
                job = self._jobs.take(time.monotonic())
                if job is not None:
                    if len(self._jobs) == 1:
                        # It has caught up: the next drop is logged.
                        self._logged_drop = False
                    return job
                due = self._jobs.due()
                if due is not None:
                    due = max(0.0, due - time.monotonic())
                self._changed.wait(due)
        return None

    def _do(self, job: schedule.Job) -> None:
        event = job.event
        if not self._may(job):
            return
        if job.to_confirm:
            still = self._confirm(event.group, event.host)
            if not still:
                with self._changed:
                    if still is None:
                        self._jobs.later(job, time.monotonic())
                    else:
                        self._jobs.done(job)
                    self._changed.notify_all()
                return
            if self._gate is not None:
                answer = self._gate.admit(event, again=job.attempts > 0)
                # The refresh may have taken long.
                if not self._obeys(job, answer) or not self._may(job):
                    return
        with self._changed:
            self._jobs.begin(job, time.monotonic())
        problem = None
        try:
            self._handler.act(job)
        except Failed as error:
            # Logged outside: inside, oslo.log adds the error once more.
            problem = str(error)
        with self._changed:
            again = True
            if problem is None:
                self._jobs.done(job)
            else:
                again = self._jobs.failed(job, time.monotonic())
            self._changed.notify_all()
        self._log(job, problem, again)

    def _may(self, job: schedule.Job) -> bool:
        """Whether an action may begin, by what is known in this moment."""
        if self._gate is None:
            return True
        return self._obeys(job, self._gate.ask(job.event, job.attempts > 0))

    def _obeys(self, job: schedule.Job, answer: str) -> bool:
        """Put a job off, or drop it, unless the answer is to act."""
        if answer == gate.ACT:
            return True
        # A process that does not act takes over later what is down then.
        leaves = answer == gate.LEAVE
        if answer == gate.SKIP or (leaves and job.event.type != events.DOWN):
            with self._changed:
                self._jobs.done(job)
                self._changed.notify_all()
            return False
        with self._changed:
            kept = self._jobs.wait(job, time.monotonic(), WAIT_PAUSE)
            self._changed.notify_all()
        if not kept and not leaves:
            assert self._gate is not None
            LOG.error(
                "Nothing is done by %(name)s upon %(type)s of %(host)s: it "
                "was not permitted within [events] retry_for (%(reason)s). "
                "See with nova-sg show",
                {
                    "name": self._handler.name,
                    "type": job.event.type,
                    "host": job.event.host,
                    "reason": self._gate.reason(job.event, job.attempts > 0)
                    or "paused, or without the lock",
                },
            )
        return False

    def _log(
        self, job: schedule.Job, problem: str | None, again: bool
    ) -> None:
        about = {
            "name": self._handler.name,
            "type": job.event.type,
            "host": job.event.host,
            "error": problem,
            "attempts": job.attempts,
        }
        if not again:
            LOG.error(
                "Given up after %(attempts)d attempts: %(name)s for "
                "%(type)s of %(host)s: %(error)s",
                about,
            )
        elif problem is not None and job.attempts == 1:
            LOG.warning(
                "%(name)s failed for %(type)s of %(host)s: %(error)s. Trying "
                "again",
                about,
            )
        elif problem is None and job.attempts > 1:
            LOG.info(
                "%(name)s has succeeded for %(type)s of %(host)s, after "
                "%(attempts)d attempts",
                about,
            )


def still_down(api: servicegroup.API, group: str, host: str) -> bool | None:
    """Return whether a member is down by a refresh; None: not known."""
    api.refresh(group)
    try:
        member = api.member(group, host)
        states = api.backend_states(group, host)
    except exception.MemberNotFound:
        return False
    except exception.ServiceGroupUnavailable:
        return None
    if member.state == model.UP:
        return False
    if all(state.trouble for state in states):
        # The verdict is from before the refresh.
        return None
    return True if member.state == model.DOWN else None


def known(
    api: servicegroup.API, group: str
) -> list[description.Member] | None:
    """Return the members of a group as they are known; None: not known."""
    try:
        return api.members(group)
    except exception.ServiceGroupUnavailable:
        return None
