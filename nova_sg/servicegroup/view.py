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

"""One group as this process sees it: looks at the backend, kept and judged.

A view asks its driver, hands the answer to its detector, and tells watchers
what changed. It looks when somebody needs it, and by itself, on a thread,
while somebody keeps asking or watches.
"""

from __future__ import annotations

import collections
import datetime
import threading
import time
from collections.abc import Callable, Hashable

from oslo_log import log as logging

from nova_sg import exception, metrics, threads
from nova_sg import trouble as trouble_log
from nova_sg.conf import CONF
from nova_sg.servicegroup import detector, events, memory, silence
from nova_sg.servicegroup.drivers import base
from nova_sg.servicegroup.memory import Member, Opinion

LOG = logging.getLogger(__name__)

# A view that nobody has asked for this many seconds stops looking.
IDLE = 120.0
# At most this part of the time is spent on looking.
DUTY = 0.1
# Seconds by which the view's thread may be late. Where nothing runs green
# threads between two requests, as in uWSGI, it stands still meanwhile.
LATE = 1.0
# Seconds that whoever has news for the driver gets then, before a look.
TURN = 0.05
# Seconds that a question waits for a look that is under way.
PATIENCE = 0.5
# What a view that does not look keeps in mind of stalls.
STALLS = 1000


class GroupView(memory.Memory):
    """The members of one group, as known to this process."""

    def __init__(self, group: str, driver: base.Driver) -> None:
        super().__init__(group, driver)
        #: How the looks go.
        self.looking = metrics.Looking(group, driver.name)
        self.looking.show(self.census)
        # What else is known of the backend's bad times, until the next look:
        # the arguments of stall().
        self._stalls: collections.deque = collections.deque(maxlen=STALLS)
        # Guards the detector and the looks.
        self._lock = threading.RLock()
        self._watches = events.Watches(group, self._lock)
        # When a look that fails is logged.
        self._log = trouble_log.Trouble()
        #: Whether somebody knows that the last look is out of date.
        self.expired = False
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        # By when that thread should have looked again.
        self._due = float("inf")
        self._following = False
        self._closed = False
        self._used = 0.0
        #: Called after every look, answered or not.
        self.on_look: Callable[[], None] = lambda: None

    # -- questions

    def is_up(self, host: str) -> bool:
        """Whether host is up, from memory, kept fresh in the background.

        :raises ServiceGroupUnavailable: the backend could not be asked for
            service_down_time
        """
        self.update()
        if self._detector.unavailable(time.monotonic()):
            raise exception.ServiceGroupUnavailable(
                f"The state of {host} in the group {self.group} is not "
                f"known: {self._trouble}"
            )
        verdict = self._verdicts.get(host)
        return verdict is not None and verdict.state == detector.UP

    def update(self) -> None:
        """Have what is known be as fresh as a question may expect."""
        self._keep_fresh()
        if time.monotonic() > self._due:
            self._catch_up()
        elif self.expired:
            self.refresh()

    def hosts_up(self) -> list[str]:
        """Return the names of the members that are up.

        :raises ServiceGroupUnavailable: as is_up
        """
        with self._lock:
            now = self._answered("listed")
            judge = self._detector.judge
            return sorted(
                host
                for host in self._detector.hosts()
                if judge(host, now).state == detector.UP
            )

    def last_seen(self, host: str) -> datetime.datetime | None:
        """Return host's last report, UTC, from memory."""
        self._keep_fresh()
        known = self._detector.known(host)
        return known.last_seen if known else None

    def members(self) -> list[Member]:
        """Return all members, sorted by name, not older than one refresh.

        :raises ServiceGroupUnavailable: the backend could not be asked for
            service_down_time, or never
        """
        with self._lock:
            now = self._answered("listed")
            known = self._detector.known
            return [
                self._member(host, known(host), now)
                for host in sorted(self._detector.hosts())
            ]

    def member(self, host: str) -> Member:
        """Return one member, not older than one refresh.

        :raises MemberNotFound: the group has no such member
        :raises ServiceGroupUnavailable: as members
        """
        with self._lock:
            now = self._answered("asked about")
            known = self._detector.known(host)
            if known is None:
                raise exception.MemberNotFound(
                    f"The group {self.group} has no member {host}"
                )
            return self._member(host, known, now)

    def opinions(self, host: str) -> list[Opinion]:
        """Return what the one driver says of a member.

        :raises ServiceGroupUnavailable: as members
        """
        with self._lock:
            self._answered("asked about")
            return [Opinion(self.name, self.recall(host), self._trouble)]

    def is_alive(self, host: str) -> bool:
        """Whether host is up by itself, whatever operators say of it.

        :raises MemberNotFound: as member
        :raises ServiceGroupUnavailable: as members
        """
        with self._lock:
            self.member(host)
            verdict = self._detector.judge(
                host, time.monotonic(), heed_force=False
            )
            return verdict.state == detector.UP

    def expire(self) -> None:
        """Have the next question answered by a new look."""
        self.expired = True

    def _answered(self, what: str) -> float:
        """Look if need be; return the present moment."""
        if self.stale():
            self._look()
        now = time.monotonic()
        if self._detector.unavailable(now):
            raise exception.ServiceGroupUnavailable(
                f"The group {self.group} cannot be {what}: {self._trouble}"
            )
        return now

    def stall(
        self, source: Hashable, begin: float, end: float, over: bool
    ) -> None:
        """Take in that source's reports do not, or did not, get through.

        Never waits, also while a look is under way.

        :param begin: since when, on the monotonic clock
        :param end: up to when that is certain
        :param over: whether they get through again
        """
        stall = source, begin, end, over
        if not self._stalls or self._stalls[-1] != stall:
            self._stalls.append(stall)

    def lookings(self) -> list[metrics.Looking]:
        """Return how the looks go."""
        return [self.looking]

    # -- watching

    def watch(self, callback: Callable[[events.Event], None]) -> events.Watch:
        """Have callback called for every change from now on."""
        # What is there already is no news; without this first look every
        # member would be.
        self._keep_fresh()
        with self._lock:
            return self._watches.add(callback)

    # -- looking

    def refresh(self) -> list[events.Event]:
        """Look at the backend now.

        :returns: what changed since the last look
        """
        with self._lock:
            return self._look()

    def stale(self) -> bool:
        """Whether the last look is too old to answer by."""
        if self._detector.last_look is None or self.expired:
            return True
        if self._thread is not None:
            # It looks as often as is good, also when there is trouble.
            return self._overslept()
        if self._overslept():
            return True
        age = time.monotonic() - self._detector.last_look
        return (
            self._detector.failing
            or age > CONF.servicegroup.view_refresh_interval
        )

    def _overslept(self) -> bool:
        """Whether the last look is too old, and none has failed since.

        That says nothing of the backend: this process stood still, or
        whatever should have looked did not.
        """
        return not self._detector.failing and self._detector.unavailable(
            time.monotonic()
        )

    def _look(self) -> list[events.Event]:
        """Look at the backend; whatever goes wrong there is a failed look.

        :returns: what changed
        """
        judge = self._detector
        before = judge.last_look
        self.expired = False
        changes, error = None, None
        begun = ended = time.monotonic()
        try:
            self._configure()
            try:
                snapshot = self._driver.observe(self.group)
            finally:
                ended = time.monotonic()
                self._heed_stalls()
            changes = self._take(snapshot, ended)
        except Exception as caught:
            # Logged outside: inside, oslo.log adds the error once more.
            where = f"the driver {self.name}"
            error = exception.as_backend_error(caught, where)
        if changes is None:
            # An answer that could not be taken in is none.
            judge.last_look = before
            judge.look_failed(begun)
            self.looking.failed(begun, ended, str(error))
            self._log_failure(error)
            self._trouble = str(error)
            self.on_look()
            return []
        self._trouble = ""
        self.looking.answered(begun, ended, snapshot.interrupted)
        if self._log.ends():
            LOG.info(
                "The backend says again who is up in the group %s", self.group
            )
        self.on_look()
        if before is None:
            return []
        return self._tell(changes, time.monotonic())

    def _log_failure(self, error: exception.BackendError) -> None:
        if not self._log.begins():
            return
        LOG.warning(
            "Cannot ask who is up in the group %(group)s: %(error)s. "
            "The last verdicts stand for %(limit)g s",
            {
                "group": self.group,
                "error": error,
                "limit": self._detector.service_down_time,
            },
        )
        if isinstance(error, exception.UnexpectedError):
            LOG.debug("That comes from here:", exc_info=error)

    def _heed_stalls(self) -> None:
        while self._stalls:
            source, begin, end, over = self._stalls.popleft()
            self._detector.reports_fail(source, begin, end)
            if over:
                self._detector.reports_work(source, end)

    def _take(
        self, snapshot: base.Snapshot, ended: float
    ) -> list[detector.Change]:
        """Have the detector take in an answer; return what changed.

        :param ended: when it came, monotonic
        """
        judge = self._detector
        hold = judge.hold
        changes = judge.look(
            snapshot.asked,
            snapshot.facts,
            answered=ended,
            complete=snapshot.complete,
            interrupted=snapshot.interrupted,
            rejoin=snapshot.rejoin,
        )
        self._verdicts = judge.verdicts()
        self._log_hold(hold)
        return changes

    def _configure(self) -> None:
        """Have the detector judge by the options as they are now."""
        judge = self._detector
        judge.service_down_time = CONF.service_down_time
        judge.report_interval = CONF.report_interval
        hold = CONF.servicegroup.mass_silence_hold
        judge.mass = silence.Rule(
            CONF.servicegroup.mass_silence_fraction,
            CONF.servicegroup.mass_silence_min_members,
            2 * CONF.service_down_time if hold is None else hold,
        )

    def _log_hold(self, before: silence.Hold | None) -> None:
        hold = self._detector.hold
        if before is None and hold is not None:
            LOG.warning(
                "%(silent)d of %(members)d members of the group %(group)s "
                "fell silent within %(limit)g s: they are held as up for "
                "%(hold)g s at most. Is the network between them and the "
                "backend in trouble?",
                {
                    "silent": hold.silent,
                    "members": hold.members,
                    "group": self.group,
                    "limit": self._detector.service_down_time,
                    "hold": self._detector.mass.hold,
                },
            )
        elif before is not None and hold is None:
            states = [verdict.state for verdict in self._verdicts.values()]
            LOG.warning(
                "Verdicts in the group %(group)s are no longer held; "
                "%(down)d of its members are down",
                {"group": self.group, "down": states.count(detector.DOWN)},
            )

    def _tell(
        self, changes: list[detector.Change], now: float
    ) -> list[events.Event]:
        told = []
        for host, was, verdict, known in changes:
            if verdict is None:
                gone = events.LEFT, host, known
                told.append(self.event(*gone, *events.REMOVED))
                continue
            kind = events.change(was, verdict)
            if kind is not None:
                reason = self._detector.explain(host, verdict, now)
                cause = verdict.cause
                told.append(self.event(kind, host, known, reason, cause))
        self.looking.happened(event.type for event in told)
        self._watches.tell(told)
        return told

    # -- the thread that keeps looking

    def keep(self) -> None:
        """Go on keeping fresh, where that is being done."""
        self._used = time.monotonic()

    def start(self) -> None:
        """Keep fresh while used, without waiting for a first look."""
        self._used = time.monotonic()
        if self._thread is None and self._lock.acquire(blocking=False):
            try:
                self._wake.set()
                self._keep_fresh(wait=False)
            finally:
                self._lock.release()

    def _keep_fresh(self, wait: bool = True) -> None:
        self._used = time.monotonic()
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None or self._closed:
                return
            # The first asker waits for the answer: there is no last verdict
            # to give.
            if wait:
                if self.stale():
                    self._look()
                self._follow()
            self._look_due(0.0)
            self._thread = threading.Thread(
                target=self._run, name=f"nova-sg-view-{self.group}"
            )
            self._thread.daemon = True
            self._thread.start()

    def _follow(self) -> None:
        if self._following:
            return
        try:
            self._driver.follow(self.group, self._wake.set)
        except Exception as error:
            # Where the look failed, too, that has said what is wrong.
            if not self._trouble:
                LOG.debug("Cannot follow the group %s: %s", self.group, error)
            return
        self._following = True

    def _run(self) -> None:
        failure = trouble_log.Trouble()
        pause = self._pause(0.0)
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if self._closed:
                return
            with self._lock:
                idle = time.monotonic() - self._used > IDLE
                if idle and not self._watches:
                    self._thread = None
                    self._due = float("inf")
                    return
                if time.monotonic() > self._due:
                    time.sleep(TURN)
                begun = time.monotonic()
                try:
                    self._look()
                    self._follow()
                    failure.ends()
                except Exception:
                    if failure.begins():
                        LOG.exception(
                            "Looking at the group %s failed", self.group
                        )
                took = time.monotonic() - begun
                pause = self._pause(took)
                self._look_due(pause)

    def _catch_up(self) -> None:
        """Look in the place of a thread that gets no turn."""
        # It may as well be in the middle of a look, at a backend that hangs;
        # one question waits for that, and not for long.
        self._look_due(0.0)
        if not self._lock.acquire(timeout=PATIENCE):
            return
        try:
            time.sleep(TURN)
            self._look()
        finally:
            self._lock.release()

    def _look_due(self, pause: float) -> None:
        now = time.monotonic()
        pause = max(pause, CONF.servicegroup.view_refresh_interval)
        self._due = now + pause + LATE
        last = self._detector.last_look
        if last is not None:
            # Before the answer is too old to be one.
            stale = last + 0.75 * CONF.service_down_time
            if stale > now:
                self._due = min(self._due, stale)

    def _pause(self, took: float) -> float:
        """Return the seconds until the next look, after one that took."""
        # Verdicts must not grow too old to stand only because no look comes.
        pause = min(
            CONF.servicegroup.view_refresh_interval,
            CONF.service_down_time / 2,
        )
        if self._trouble:
            # A failure took long by waiting, which is no load; and the
            # sooner the backend is found to be back, the better.
            return pause
        # However large the group, or slow the backend: death is noticed.
        rest = min(took * (1 - DUTY) / DUTY, CONF.service_down_time / 4)
        return max(pause, rest)

    def close(self) -> None:
        """Stop looking, and end all subscriptions."""
        self._closed = True
        self.looking.hide()
        if self._following:
            self._driver.unfollow(self.group, self._wake.set)
        self._wake.set()
        self._watches.cancel()
        thread = self._thread
        if thread is not None:
            threads.join(thread, 5)
