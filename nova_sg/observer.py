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

"""One group, as this process sees it.

For each backend a poller asks, on a thread of its own, and hands the answer
to the rules of nova_sg.liveness. What comes out, one immutable Group, takes
the place of the one before; a question reads it and waits for nothing. So a
backend that hangs delays neither a question nor another backend's refresh.

A poller begins with the first question, which waits for it as there is
nothing to answer by, and ends when there has been no question for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg.liveness import detector
from nova_sg.liveness import group as liveness
from nova_sg.liveness.model import (
    DOWN,
    FORCED_DOWN,
    LEFT,
    NEVER,
    NOT_A_MEMBER,
    REPORTED,
    UNAVAILABLE,
    Change,
    Limits,
    Outage,
    Refresh,
    Verdict,
)
from nova_sg.poller import LATE, PAUSE, Poller, Settings, Source, await_all

LOG = logging.getLogger(__name__)

# Seconds without a question after which an observer stops to ask.
IDLE = 120.0
# At most this part of the time is spent on asking a backend.
DUTY = 0.1
# Seconds that a question waits where there is nothing to answer by: for any
# backend, and for the others once one has answered.
FIRST_WAIT, OTHERS_WAIT = 10.0, 5.0
# Seconds that a question gives a poller which is late; and one that asks,
# which may wait for a backend that hangs.
TURN, SHORT_TURN = 0.5, 0.03


class Listener:
    """What an observer tells; a subclass has the methods that it needs.

    Called by the thread of a poller, which goes on when it returns.
    """

    def answered(
        self, backend: str, begun: float, ended: float, interrupted: bool
    ) -> None:
        """Take in that a backend has answered."""

    def failed(
        self, backend: str, begun: float, ended: float, error: str
    ) -> None:
        """Take in that a backend has not answered."""

    def changed(self, group: liveness.Group, changes: list[Change]) -> None:
        """Take in the changes of one refresh. They come in order.

        Those of the first refresh are not told: what was there before is no
        news.
        """


class Own(NamedTuple):
    """What this process itself did to a member."""

    #: REPORTED where it joined, LEFT, FORCED_DOWN, NOT_A_MEMBER where it was
    #: removed; None: it is no longer forced down.
    verdict: Verdict | None
    #: When; a refresh that was asked for later knows it.
    at: float

    def over(self, verdict: Verdict, life: Verdict) -> Verdict:
        """Return the verdict with this taken in.

        :param verdict: what the backends say
        :param life: the same, an operator's word left out
        """
        if self.verdict is None:
            return life if verdict is FORCED_DOWN else verdict
        if verdict is FORCED_DOWN and self.verdict in (REPORTED, LEFT):
            return verdict
        return self.verdict


class Observer:
    """Observes one group.

    :param group: its name
    :param sources: the backends, the primary first
    :param settings: called for each refresh
    :param listener: told of answers and of changes
    """

    def __init__(
        self,
        group: str,
        sources: Sequence[Source],
        settings: Callable[[], Settings],
        listener: Listener | None = None,
    ) -> None:
        self.name = group
        self._read_settings = settings
        self._listener = listener or Listener()
        #: What it works by now.
        self.settings = settings()
        self._group = liveness.new(*(source.name for source in sources))
        self._pollers = [Poller(self, source) for source in sources]
        # Guards the replacement of the group, which takes no I/O.
        self._lock = threading.Lock()
        # Replaced as a whole, like the group.
        self._own: dict[str, Own] = {}
        self._used = NEVER
        # From then on a question has to see to the pollers.
        self._attend = NEVER
        # Until then each backend's last answer is good enough.
        self._stands = NEVER
        #: Whether there are subscriptions: then it never stops to ask.
        self.watched = False

    # -- questions

    @property
    def group(self) -> liveness.Group:
        """What is known now. It never changes: the next one is another."""
        return self._group

    @property
    def own(self) -> dict[str, Own]:
        """What this process did itself and no refresh knows yet, by host."""
        return self._own

    def verdict(self, host: str) -> Verdict:
        """Return the verdict over a member, from memory."""
        now = time.monotonic()
        if now > self._attend:
            self.keep_fresh()
        self._used = now
        if now > self._stands or self._own:
            return self.judge(host)
        member = self._group.members.get(host)
        return NOT_A_MEMBER if member is None else member.verdict

    def judge(self, host: str) -> Verdict:
        """Return the verdict over a member, and begin nothing for it."""
        limit = self.settings.limits.service_down_time
        group = self._group
        verdict = group.verdict(host, time.monotonic(), limit)
        if verdict is UNAVAILABLE and self._give_turn():
            group = self._group
            verdict = group.verdict(host, time.monotonic(), limit)
        own = self._own.get(host)
        if own is None:
            return verdict
        member = group.members.get(host)
        return own.over(verdict, verdict if member is None else member.life)

    def _give_turn(self) -> bool:
        """Give a moment to a poller which asks, and may just get no turn.

        :returns: whether there was one
        """
        asking = [one for one in self._pollers if one.is_asking]
        if asking and not any(one.trouble for one in self._pollers):
            await_all(asking, time.monotonic() - SHORT_TURN, SHORT_TURN)
            return True
        return False

    def keep_fresh(self) -> None:
        """Have the backends asked from now on, while there are questions.

        Waits for an answer where there is nothing to answer by, and shortly
        where pollers are late.
        """
        now = time.monotonic()
        quiet, self._used = now - self._used > LATE, now
        begun = [one for one in self._pollers if one.begin()]
        late = [one for one in self._pollers if one.is_late(now)]
        if quiet:
            late += self._stopped(now)
        for poller in late:
            poller.wake()
        if begun or (late and self.unavailable()):
            self._await_answers()
        elif late:
            await_all(late, now, TURN)
        self._attend = min((one.due for one in self._pollers), default=now)

    def _stopped(self, now: float) -> list[Poller]:
        """Return the pollers that stood still while they asked.

        As the process did, or as no thread ran between two requests. What
        they were asking for is as old as that. The others wait for a backend
        that hangs.
        """
        asking = [
            one for one in self._pollers if one.is_asking and now > one.due
        ]
        give_up = time.monotonic() + SHORT_TURN
        while any(one.is_asking for one in asking):
            if time.monotonic() > give_up:
                break
            time.sleep(PAUSE)
        return [one for one in asking if not one.is_asking]

    def _await_answers(self) -> None:
        """Wait until there is something to answer by, if that may come."""
        # A backend that has failed is not waited for again.
        unasked = [one for one in self._pollers if not one.trouble]
        since = time.monotonic()
        while unasked and self.unavailable():
            if time.monotonic() > since + FIRST_WAIT:
                return
            time.sleep(PAUSE)
            unasked = [one for one in unasked if not one.trouble]
        # What one backend does not know, another may.
        await_all(unasked, NEVER, OTHERS_WAIT)

    def refresh(self, wait: float) -> bool:
        """Have each backend asked now, once.

        :param wait: seconds to wait for it at most
        :returns: whether all of them have been, answered or not
        """
        now = time.monotonic()
        for poller in self._pollers:
            poller.ask_once()
        return await_all(self._pollers, now, wait)

    def trouble(self) -> str:
        """Return why backends do not answer; empty: they do."""
        troubled = [one for one in self._pollers if one.trouble]
        if len(self._pollers) == 1:
            return "".join(one.trouble for one in troubled)
        return "; ".join(
            f"{one.source.name}: {one.trouble}" for one in troubled
        )

    def trouble_of(self, backend: str) -> str:
        """Return why a backend does not answer; empty: it does."""
        return next(
            one.trouble for one in self._pollers if one.source.name == backend
        )

    def stands(self) -> bool:
        """Whether no answer is too old, of any backend."""
        return time.monotonic() <= self._stands

    def unavailable(self) -> bool:
        """Whether no backend has answered for service_down_time."""
        limit = self.settings.limits.service_down_time
        return self._group.unavailable(time.monotonic(), limit)

    def is_idle(self) -> bool:
        """Whether nothing needs it to ask."""
        idle = time.monotonic() - self._used > IDLE
        return idle and not self.watched

    # -- what this process knows by itself

    def note_own(self, host: str, verdict: Verdict | None) -> None:
        """Take in what this process did to a member, before it is observed.

        :param verdict: see Own
        """
        own = Own(verdict, time.monotonic())
        with self._lock:
            self._own = {**self._own, host: own}
        for poller in self._pollers:
            poller.wake()

    def await_own(self, wait: float) -> None:
        """Wait until the backends tell what this process did.

        :param wait: seconds to wait at most
        """
        give_up = time.monotonic() + wait
        while self._own and time.monotonic() < give_up:
            time.sleep(PAUSE)

    def reports_fail(
        self, backend: str, source: Hashable, begin: float, certain: float
    ) -> None:
        """Take in that reports of this process do not get through."""
        with self._lock:
            self._group = self._group.reports_fail(
                backend, source, begin, certain
            )

    def reports_work(
        self, backend: str, source: Hashable, certain: float
    ) -> None:
        """Take in that they get through again, or that there are no more."""
        with self._lock:
            self._group = self._group.reports_work(backend, source, certain)

    def backend_out(self, backend: str, outage: Outage) -> None:
        """Take in an outage that a backend's server tells of."""
        with self._lock:
            self._group = self._group.backend_out(backend, outage)

    def silent_since(self, backend: str, asked: float) -> float | None:
        """Return the last report to a backend, if it is too long ago.

        :param asked: when it was refreshed
        :returns: None: a member has reported since members have to, none
            ever has, or there are not two that might
        """
        group, limits = self._group, self.settings.limits
        heard = group.backends[group.place(backend)].heard
        if heard == NEVER or heard >= asked - limits.due:
            return None
        index, there = group.place(backend), 0
        for member in group.members.values():
            seen = member.seen[index]
            if seen is not None and not seen.observation.facts.gone:
                there += 1
                if there == 2:
                    return heard
        return None

    # -- for the pollers

    def configure(self) -> None:
        """Work by the settings as they are now."""
        self.settings = self._read_settings()

    def answered(self, refresh: Refresh, ended: float) -> None:
        """Take in an answer of a backend.

        :param ended: when it was there
        """
        limits = self.settings.limits
        with self._lock:
            before = self._group
            after, changes = detector.step(before, refresh, limits)
            self._group = after
            if self._own:
                self._forget_own(after)
            self._stands = after.refreshed_by_all + limits.service_down_time
            self._tell(before, after, refresh.backend, changes)
        self._log_hold(before, after, limits)
        self._listener.answered(
            refresh.backend, refresh.asked, ended, refresh.interrupted
        )

    def _forget_own(self, group: liveness.Group) -> None:
        """Forget what all backends know that answer."""
        known = min(
            backend.refreshed
            for backend in group.backends
            if backend.failed is None
        )
        self._own = {
            host: own for host, own in self._own.items() if own.at >= known
        }

    def _tell(
        self,
        before: liveness.Group,
        after: liveness.Group,
        backend: str,
        changes: list[Change],
    ) -> None:
        if before.refreshed == NEVER:
            return
        if before.backends[before.place(backend)].refreshed == NEVER:
            # Members that were there before this backend answered.
            changes = [change for change in changes if change.was is not None]
        if changes:
            self._listener.changed(after, changes)

    def failed(
        self, backend: str, asked: float, ended: float, error: str
    ) -> None:
        """Take in that a backend gave no answer."""
        with self._lock:
            self._group = self._group.refresh_failed(backend, asked)
        self._listener.failed(backend, asked, ended, error)

    def pause(self, took: float, trouble: bool) -> float:
        """Return the seconds until the next refresh, after one that took."""
        limit = self.settings.limits.service_down_time
        # Verdicts must not grow too old only because no refresh comes.
        interval = min(self.settings.refresh_interval, limit / 2)
        if trouble:
            # A failure took long by waiting, which is no load; and the
            # sooner the backend is found to be back, the better.
            return interval
        # However large the group, or slow the backend: death is noticed.
        return max(interval, min(took * (1 - DUTY) / DUTY, limit / 4))

    def attend(self) -> None:
        """Have the next question see to the pollers."""
        self._attend = NEVER

    def _log_hold(
        self, before: liveness.Group, after: liveness.Group, limits: Limits
    ) -> None:
        was, now = before.mass.hold, after.mass.hold
        if was is None and now is not None:
            LOG.warning(
                "%(silent)d of %(members)d members of the group %(group)s "
                "fell silent within %(limit)g s: they are held as up for "
                "%(hold)g s at most. Is the network between them and the "
                "backend in trouble?",
                {
                    "silent": now.silent,
                    "members": now.members,
                    "group": self.name,
                    "limit": limits.service_down_time,
                    "hold": limits.mass.hold,
                },
            )
        elif was is not None and now is None:
            down = sum(
                member.verdict.state == DOWN
                for member in after.members.values()
            )
            LOG.warning(
                "Verdicts in the group %(group)s are no longer held; "
                "%(down)d of its members are down",
                {"group": self.name, "down": down},
            )

    def close(self) -> None:
        """Stop asking."""
        for poller in self._pollers:
            poller.close()
