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
from typing import NamedTuple, Protocol

from oslo_log import log as logging

from nova_sg import threads
from nova_sg.liveness import detector
from nova_sg.liveness import group as liveness
from nova_sg.liveness.model import (
    DOWN,
    NEVER,
    Change,
    Limits,
    Outage,
    Refresh,
    Verdict,
)

LOG = logging.getLogger(__name__)

# Seconds without a question after which an observer stops to ask.
IDLE = 120.0
# At most this part of the time is spent on asking a backend.
DUTY = 0.1
# Seconds by which a poller may be late. Where no thread runs between two
# requests, as in uWSGI, it stands still meanwhile.
LATE = 1.0
# Seconds that a question gives a poller which is late.
TURN = 0.03
# Seconds that the first question waits for an answer.
FIRST_WAIT = 10.0


class Source(Protocol):
    """What an observer needs of a driver."""

    #: The backend's name.
    name: str

    def observe(self, group: str) -> Refresh:
        """Ask about all members of a group. It may raise anything."""

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        """Have wake() called, from any thread, for each change.

        For backends that can tell; others do nothing.
        """


class Settings(NamedTuple):
    """What an observer works by; read anew for each refresh."""

    limits: Limits
    #: Seconds between two refreshes.
    refresh_interval: float


class Own(NamedTuple):
    """What this process itself did to a member."""

    verdict: Verdict
    #: When; a refresh that was asked for later knows it.
    at: float


class Observer:
    """Observes one group.

    :param group: its name
    :param sources: the backends, the primary first
    :param settings: called for each refresh
    :param on_changes: called with the changes of each refresh, in order; not
        for those of the first, as what was there before is no news
    """

    def __init__(
        self,
        group: str,
        sources: Sequence[Source],
        settings: Callable[[], Settings],
        on_changes: Callable[[list[Change]], None] = lambda changes: None,
    ) -> None:
        self.name = group
        self._settings = settings
        self._on_changes = on_changes
        self._group = liveness.new(*(source.name for source in sources))
        self._pollers = [_Poller(self, source) for source in sources]
        # Guards the replacement of the group, which takes no I/O.
        self._lock = threading.Lock()
        self._own: dict[str, Own] = {}
        self._used = NEVER
        #: Whether there are subscriptions: then it never stops to ask.
        self.watched = False

    # -- questions

    @property
    def group(self) -> liveness.Group:
        """What is known now. It never changes: the next one is another."""
        return self._group

    def verdict(self, host: str) -> Verdict:
        """Return the verdict over a member, from memory."""
        self.keep_fresh()
        return self.judge(host)

    def judge(self, host: str) -> Verdict:
        """Return the verdict over a member, and begin nothing for it."""
        group, now = self._group, time.monotonic()
        own = self._own.get(host)
        if own is not None and own.at >= group.refreshed:
            return own.verdict
        limit = self._settings().limits.service_down_time
        return group.verdict(host, now, limit)

    def keep_fresh(self) -> None:
        """Have the backends asked from now on, while there are questions.

        Waits for a first answer where there is none.
        """
        self._used = time.monotonic()
        begun = [poller.begin() for poller in self._pollers]
        if any(begun) and self._group_is_old():
            deadline = self._used + FIRST_WAIT
            while self._group_is_old() and not all(
                poller.has_asked_since(self._used) for poller in self._pollers
            ):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.002)
        for poller in self._pollers:
            poller.catch_up()

    def refresh(self, wait: float) -> bool:
        """Have each backend asked now.

        :param wait: seconds to wait for it at most
        :returns: whether all of them have been, answered or not
        """
        now = time.monotonic()
        self._used = now
        for poller in self._pollers:
            poller.begin()
            poller.wake()
        deadline = now + wait
        while not all(one.has_asked_since(now) for one in self._pollers):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def trouble(self) -> str:
        """Return why backends do not answer; empty: they do."""
        return "; ".join(
            f"{poller.source.name}: {poller.trouble}"
            for poller in self._pollers
            if poller.trouble
        )

    def is_idle(self) -> bool:
        """Whether nothing needs it to ask."""
        idle = time.monotonic() - self._used > IDLE
        return idle and not self.watched

    def _group_is_old(self) -> bool:
        limit = self._settings().limits.service_down_time
        return self._group.unavailable(time.monotonic(), limit)

    # -- what this process knows by itself

    def note_own(self, host: str, verdict: Verdict) -> None:
        """Take in what this process did to a member, before it is observed.

        :param verdict: REPORTED where it joined, LEFT, FORCED_DOWN
        """
        self._own = {**self._own, host: Own(verdict, time.monotonic())}
        for poller in self._pollers:
            poller.wake()

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

    # -- for the pollers

    def answered(self, refresh: Refresh) -> None:
        """Take in an answer of a backend."""
        limits = self._settings().limits
        with self._lock:
            before = self._group
            after, changes = detector.step(before, refresh, limits)
            self._group = after
            self._own = {
                host: own
                for host, own in self._own.items()
                if own.at >= refresh.asked
            }
            if before.refreshed > NEVER:
                self._on_changes(changes)
        self._log_hold(before, after, limits)

    def failed(self, backend: str, asked: float) -> None:
        """Take in that a backend gave no answer."""
        with self._lock:
            self._group = self._group.refresh_failed(backend, asked)

    def pause(self, took: float, trouble: bool) -> float:
        """Return the seconds until the next refresh, after one that took."""
        settings = self._settings()
        interval = settings.refresh_interval
        if trouble:
            # A failure took long by waiting, which is no load; and the
            # sooner the backend is found to be back, the better.
            return interval
        # However large the group, or slow the backend: death is noticed.
        rest = took * (1 - DUTY) / DUTY
        return max(interval, min(rest, settings.limits.service_down_time / 4))

    def limit(self) -> float:
        """Return service_down_time, in seconds."""
        return self._settings().limits.service_down_time

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
                "Mass-silence hold ended for group %(group)s: %(down)d "
                "members are now down",
                {"group": self.name, "down": down},
            )

    def close(self) -> None:
        """Stop asking."""
        for poller in self._pollers:
            poller.close()


class _Poller:
    """Asks one backend about one group, again and again."""

    def __init__(self, observer: Observer, source: Source) -> None:
        self.source = source
        #: Why the last refresh failed; empty: it did not.
        self.trouble = ""
        self._observer = observer
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._following = False
        self._closed = False
        # When the last refresh that has ended was begun.
        self._asked = NEVER
        # By when the next one should have begun.
        self._due = float("inf")

    def begin(self) -> bool:
        """Ask from now on; return whether it did not before."""
        if self._thread is not None or self._closed:
            return False
        with self._starting:
            if self._thread is not None or self._closed:
                return False
            self._set_due(0.0)
            self._thread = threading.Thread(
                target=self._run,
                name=f"nova-sg-observe-{self._observer.name}",
                daemon=True,
            )
            self._thread.start()
        return True

    def wake(self) -> None:
        """Have it ask now."""
        self._wake.set()

    def has_asked_since(self, moment: float) -> bool:
        """Whether a refresh that was begun later has ended."""
        return self._asked >= moment

    def catch_up(self) -> None:
        """Give a turn to a thread that gets none otherwise, for a moment."""
        now = time.monotonic()
        if now <= self._due:
            return
        # To ask in its place would be to wait for a backend that hangs.
        self.wake()
        while not self.has_asked_since(now) and time.monotonic() < now + TURN:
            time.sleep(0.002)

    def close(self) -> None:
        """End, soon."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            threads.join(thread, 5)

    def _run(self) -> None:
        while True:
            # Before it looks whether it is closed: close() sets both.
            self._wake.clear()
            if self._closed:
                return
            with self._starting:
                if self._observer.is_idle():
                    self._thread = None
                    self._due = float("inf")
                    return
            pause = self._ask()
            self._wake.wait(pause)

    def _ask(self) -> float:
        """Ask once; return the seconds until the next time."""
        observer, name = self._observer, self.source.name
        begun = time.monotonic()
        self._set_due(float("inf"))
        trouble: Exception | None = None
        try:
            refresh = self.source.observe(observer.name)
            observer.answered(refresh)
            self._follow()
        except Exception as error:
            # Whatever it is, there is no answer.
            trouble = error
            observer.failed(name, begun)
        took = time.monotonic() - begun
        self._log(trouble)
        self._asked = begun
        pause = observer.pause(took, trouble is not None)
        self._set_due(pause)
        return pause

    def _follow(self) -> None:
        if not self._following:
            self.source.follow(self._observer.name, self._wake.set)
            self._following = True

    def _set_due(self, pause: float) -> None:
        self._due = time.monotonic() + pause + LATE

    def _log(self, trouble: Exception | None) -> None:
        before, self.trouble = self.trouble, _text(trouble)
        group = self._observer.name
        if self.trouble and not before:
            LOG.warning(
                "Cannot refresh group %(group)s from %(backend)s: %(error)s. "
                "Keeping the last known states for %(limit)g s",
                {
                    "group": group,
                    "backend": self.source.name,
                    "error": self.trouble,
                    "limit": self._observer.limit(),
                },
            )
        elif before and not self.trouble:
            LOG.info(
                "Backend %(backend)s reachable again; monitoring group "
                "%(group)s",
                {"backend": self.source.name, "group": group},
            )


def _text(error: Exception | None) -> str:
    if error is None:
        return ""
    return str(error) or type(error).__name__
