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
from collections.abc import Callable, Mapping
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg import exception, metrics, threads
from nova_sg.conf import CONF
from nova_sg.servicegroup import detector, events
from nova_sg.servicegroup.drivers import base

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


class Member(NamedTuple):
    """A member as observers see it."""

    group: str
    host: str
    topic: str
    binary: str | None
    #: up, down or unknown.
    state: str
    #: The last report, UTC; None: no report is known.
    last_seen: datetime.datetime | None
    #: Seconds since the last report; None: no report is known.
    age: float | None
    #: The driver that knows it.
    driver: str
    forced_down: bool
    disabled: bool
    disabled_reason: str | None
    #: The verdict in words.
    reason: str
    #: The rule that gave it, in one word: see nova_sg.servicegroup.detector.
    cause: str = ""


class GroupView:
    """The members of one group, as known to this process."""

    def __init__(self, group: str, driver: base.Driver) -> None:
        self.group = group
        self._driver = driver
        self._detector = detector.Detector(CONF.service_down_time)
        #: How the looks go.
        self.looking = metrics.Looking(group, driver.name)
        self.looking.show(self.census)
        # What the last look brought, by name. Replaced as a whole, never
        # changed, so that readers need no lock.
        self._verdicts: dict[str, detector.Verdict] = {}
        self._watches: list[events.Watch] = []
        # Guards the detector and the looks.
        self._lock = threading.RLock()
        # Why the last look failed; empty: it did not.
        self._trouble = ""
        # Whether somebody knows that the last look is out of date.
        self._expired = False
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        # By when that thread should have looked again.
        self._due = float("inf")
        self._following = False
        self._closed = False
        self._used = 0.0

    # -- questions

    def is_up(self, host: str) -> bool:
        """Whether host is up, from memory, kept fresh in the background.

        :raises ServiceGroupUnavailable: the backend could not be asked for
            service_down_time
        """
        self._keep_fresh()
        if time.monotonic() > self._due:
            self._catch_up()
        elif self._expired:
            self.refresh()
        if self._detector.unavailable(time.monotonic()):
            raise exception.ServiceGroupUnavailable(
                f"The state of {host} in the group {self.group} is not "
                f"known: {self._trouble}"
            )
        verdict = self._verdicts.get(host)
        return verdict is not None and verdict.state == detector.UP

    def knows(self, host: str) -> bool:
        """Whether host was a member at the last look, up or not."""
        return host in self._verdicts

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
            return [
                self._member(host, now)
                for host in sorted(self._detector.hosts())
            ]

    def member(self, host: str) -> Member:
        """Return one member, not older than one refresh.

        :raises MemberNotFound: the group has no such member
        :raises ServiceGroupUnavailable: as members
        """
        with self._lock:
            now = self._answered("asked about")
            if self._detector.known(host) is None:
                raise exception.MemberNotFound(
                    f"The group {self.group} has no member {host}"
                )
            return self._member(host, now)

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

    def size(self) -> int:
        """Return how many members the last look brought."""
        return len(self._verdicts)

    def expire(self) -> None:
        """Have the next question answered by a new look."""
        self._expired = True

    def _answered(self, what: str) -> float:
        """Look if need be; return the present moment."""
        if self._stale():
            self._look()
        now = time.monotonic()
        if self._detector.unavailable(now):
            raise exception.ServiceGroupUnavailable(
                f"The group {self.group} cannot be {what}: {self._trouble}"
            )
        return now

    def _member(self, host: str, now: float) -> Member:
        known = self._detector.known(host)
        fact = known.fact
        age = None
        if known.last_report is not None:
            age = max(0.0, now - known.last_report)
        elif known.last_seen is not None:
            # Before our time; by two clocks, for people only.
            passed = datetime.datetime.now(datetime.UTC) - known.last_seen
            age = max(0.0, passed.total_seconds())
        verdict = self._detector.judge(host, now)
        return Member(
            group=self.group,
            host=host,
            topic=fact.topic or self.group,
            binary=fact.binary,
            state=verdict.state,
            last_seen=known.last_seen,
            age=age,
            driver=self._driver.name,
            forced_down=fact.forced_down,
            disabled=fact.disabled,
            disabled_reason=fact.disabled_reason,
            reason=self._detector.explain(host, verdict, now),
            cause=verdict.cause,
        )

    # -- from memory: no look, and no waiting for one that hangs

    def verdicts(self) -> Mapping[str, detector.Verdict]:
        """Return the verdicts of the last look by name, not to be changed.

        They are another object after every look. All are unknown while the
        backend has been silent for too long.
        """
        verdicts = self._verdicts
        if self._detector.unavailable(time.monotonic()):
            return dict.fromkeys(verdicts, detector.UNAVAILABLE)
        return verdicts

    def recall(self, host: str) -> Member | None:
        """Return one member as the last look left it; None: no member."""
        if self._detector.known(host) is None:
            return None
        return self._member(host, time.monotonic())

    def census(self) -> metrics.Census:
        """Count the members by state."""
        states: collections.Counter[str] = collections.Counter()
        oldest = None
        for host, verdict in self.verdicts().items():
            states[verdict.state] += 1
            known = self._detector.known(host)
            if (
                verdict.state == detector.UP
                and known is not None
                and known.last_report is not None
                and (oldest is None or known.last_report < oldest)
            ):
                oldest = known.last_report
        if oldest is not None:
            oldest = max(0.0, time.monotonic() - oldest)
        return metrics.Census(states, oldest)

    # -- watching

    def watch(self, callback: Callable[[events.Event], None]) -> events.Watch:
        """Have callback called for every change from now on."""
        watch = events.Watch(self.group, callback, self._unwatch)
        # What is there already is no news; without this first look every
        # member would be.
        self._keep_fresh()
        with self._lock:
            self._watches.append(watch)
        return watch

    def _unwatch(self, watch: events.Watch) -> None:
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    # -- looking

    def refresh(self) -> list[events.Event]:
        """Look at the backend now.

        :returns: what changed since the last look
        """
        with self._lock:
            return self._look()

    def _stale(self) -> bool:
        if self._detector.last_look is None or self._expired:
            return True
        if self._thread is not None:
            # It looks as often as is good, also when there is trouble.
            return False
        age = time.monotonic() - self._detector.last_look
        return (
            self._detector.failing
            or age > CONF.servicegroup.view_refresh_interval
        )

    def _look(self) -> list[events.Event]:
        judge = self._detector
        judge.service_down_time = CONF.service_down_time
        first = judge.last_look is None
        self._expired = False
        snapshot, trouble = None, ""
        begun = time.monotonic()
        try:
            snapshot = self._driver.observe(self.group)
        except exception.BackendError as error:
            # Logged outside: inside, oslo.log adds the error once more.
            trouble = str(error)
        ended = time.monotonic()
        if snapshot is None:
            judge.look_failed()
            self.looking.failed(begun, ended, trouble)
            if not self._trouble:
                LOG.warning(
                    "Cannot ask who is up in the group %(group)s: %(error)s. "
                    "The last verdicts stand for %(limit)g s",
                    {
                        "group": self.group,
                        "error": trouble,
                        "limit": judge.service_down_time,
                    },
                )
            self._trouble = trouble
            return []
        if self._trouble:
            self._trouble = ""
            LOG.info(
                "The backend says again who is up in the group %s", self.group
            )
        self.looking.answered(begun, ended, snapshot.interrupted)
        before = {host: judge.known(host) for host in judge.hosts()}
        gone = judge.look(
            snapshot.asked,
            snapshot.facts,
            complete=snapshot.complete,
            interrupted=snapshot.interrupted,
            rejoin=snapshot.rejoin,
        )
        now = time.monotonic()
        verdicts = {host: judge.judge(host, now) for host in judge.hosts()}
        old, self._verdicts = self._verdicts, verdicts
        if first:
            return []
        return self._tell(old, verdicts, gone, before, now)

    def _tell(self, old, new, gone, before, now) -> list[events.Event]:
        changes = [
            self._event(events.LEFT, host, before[host], "removed")
            for host in gone
        ]
        for host, verdict in new.items():
            was = old.get(host)
            if was is verdict:
                continue
            if was is None:
                kind = events.JOINED
            elif was.state == verdict.state:
                continue
            elif verdict.state == detector.UP:
                kind = events.JOINED if was is detector.LEFT else events.UP
            elif verdict is detector.LEFT:
                kind = events.LEFT
            else:
                kind = events.DOWN
            changes.append(
                self._event(
                    kind,
                    host,
                    self._detector.known(host),
                    self._detector.explain(host, verdict, now),
                )
            )
        self.looking.happened(change.type for change in changes)
        for watch in self._watches:
            for change in changes:
                watch.put(change)
        return changes

    def _event(self, kind, host, known, reason) -> events.Event:
        return events.Event(
            type=kind,
            group=self.group,
            host=host,
            topic=known.fact.topic or self.group,
            binary=known.fact.binary,
            at=datetime.datetime.now(datetime.UTC),
            last_seen=known.last_seen,
            reason=reason,
        )

    # -- the thread that keeps looking

    def _keep_fresh(self) -> None:
        self._used = time.monotonic()
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None or self._closed:
                return
            # The first asker waits for the answer: there is no last verdict
            # to give.
            if self._stale():
                self._look()
            if not self._following:
                self._following = True
                self._driver.follow(self.group, self._wake.set)
            self._look_due(0.0)
            self._thread = threading.Thread(
                target=self._run, name=f"nova-sg-view-{self.group}"
            )
            self._thread.daemon = True
            self._thread.start()

    def _run(self) -> None:
        pause = CONF.servicegroup.view_refresh_interval
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
                except Exception:
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
        pause = max(pause, CONF.servicegroup.view_refresh_interval)
        self._due = time.monotonic() + pause + LATE

    def _pause(self, took: float) -> float:
        """Return the seconds until the next look, after one that took."""
        pause = CONF.servicegroup.view_refresh_interval
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
        self._wake.set()
        for watch in list(self._watches):
            watch.cancel()
        thread = self._thread
        if thread is not None:
            threads.join(thread, 5)
