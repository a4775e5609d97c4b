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
from nova_sg.actions import schedule
from nova_sg.liveness import model
from nova_sg.servicegroup import events

LOG = logging.getLogger(__name__)


class Failed(Exception):
    """An attempt to act did not succeed; the text is the reason."""


class Handler(Protocol):
    """A way to act upon an event."""

    #: Its name in messages.
    name: str

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
    """

    def __init__(
        self,
        handlers: Sequence[Handler],
        make_schedule: Callable[[], schedule.Schedule],
        parallel: int,
        confirm: Callable[[str, str], bool | None],
    ) -> None:
        self._lanes = [
            _Lane(handler, make_schedule(), parallel, confirm)
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
        for lane in self._lanes:
            lane.wait(give_up)


class _Lane:
    """One handler, with its jobs and threads."""

    def __init__(
        self,
        handler: Handler,
        jobs: schedule.Schedule,
        parallel: int,
        confirm: Callable[[str, str], bool | None],
    ) -> None:
        self._handler = handler
        self._jobs = jobs
        self._confirm = confirm
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

    def wait(self, give_up: float) -> None:
        for thread in self._threads:
            threads.join(thread, max(0.0, give_up - time.monotonic()))
        self._handler.close()
        if len(self._jobs):
            LOG.warning(
                "Ending with %(count)d events that %(name)s has not acted "
                "upon",
                {"count": len(self._jobs), "name": self._handler.name},
            )

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._do(job)
            except Exception:
                LOG.exception("Unexpected error while acting upon an event")
                with self._changed:
                    self._jobs.failed(job, time.monotonic())
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
