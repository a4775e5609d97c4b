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

"""Asks one backend about one group, again and again, on a thread.

What to make of the answers is the observer's: see observer.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from oslo_log import log as logging

from nova_sg import exception, threads
from nova_sg import trouble as trouble_log
from nova_sg.liveness.model import NEVER, Limits, Outage, Refresh, ServerOutage

LOG = logging.getLogger(__name__)

# Seconds by which a poller may be late. Where no thread runs between two
# requests, as in uWSGI, it stands still meanwhile.
LATE = 1.0
# Seconds that the news for a driver has to come in, where no thread has run
# for a while, before it is asked.
NEWS = 0.05
# Seconds between two looks whether what is waited for is there.
PAUSE = 0.002


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

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        """Have wake() called no longer."""

    def outage(self, group: str, since: float) -> ServerOutage | None:
        """Return an outage that the server itself tells of.

        Asked while no member has reported for longer than members take,
        again after each refresh.

        :param since: the last report of any member
        """


class Settings(NamedTuple):
    """What a group is observed by; read anew for each refresh."""

    limits: Limits
    #: Seconds between two refreshes.
    refresh_interval: float


class Observes(Protocol):
    """What a poller needs of its observer."""

    #: The name of the group.
    name: str
    #: What it works by now.
    settings: Settings

    def configure(self) -> None:
        """Work by the settings as they are now."""

    def is_idle(self) -> bool:
        """Whether nothing needs it to ask."""

    def answered(self, refresh: Refresh, ended: float) -> None:
        """Take in an answer of a backend, which was there at a moment."""

    def failed(
        self, backend: str, asked: float, ended: float, error: str
    ) -> None:
        """Take in that a backend gave no answer."""

    def pause(self, took: float, trouble: bool) -> float:
        """Return the seconds until the next refresh, after one that took."""

    def attend(self) -> None:
        """Have the next question see to the pollers."""

    def silent_since(self, backend: str, asked: float) -> float | None:
        """Return the last report to a backend, if it is too long ago."""

    def backend_out(self, backend: str, outage: Outage) -> None:
        """Take in an outage that a backend's server tells of."""


class Poller:
    """Asks one backend about one group, again and again."""

    def __init__(self, observer: Observes, source: Source) -> None:
        self.source = source
        #: Why the last refresh failed; empty: it did not.
        self.trouble = ""
        #: By when a question has to see to it: the next refresh should have
        #: begun, or the one under way should have ended.
        self.due = float("inf")
        #: Whether a refresh is under way.
        self.is_asking = False
        self._observer = observer
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._following = False
        self._closed = False
        # Whether it is to ask though there are no questions.
        self._ordered = False
        # When the last refresh that has ended was begun.
        self._asked = NEVER
        # When refreshes that fail are logged.
        self._log = trouble_log.Trouble()
        # When the server last told of an outage of its own, or NEVER.
        self._out = NEVER
        # When such outages are logged, and that the server cannot be asked.
        self._log_out = trouble_log.Trouble()
        self._log_unasked = trouble_log.Trouble()

    def begin(self) -> bool:
        """Ask from now on; return whether it did not before."""
        if self._thread is not None or self._closed:
            return False
        with self._starting:
            if self._thread is not None or self._closed:
                return False
            self._begin()
        return True

    def _begin(self) -> None:
        self._set_due(0.0)
        self._thread = threading.Thread(
            target=self._run,
            name=f"nova-sg-observe-{self._observer.name}",
            daemon=True,
        )
        self._thread.start()

    def ask_once(self) -> None:
        """Ask now, and no more than that where there are no questions."""
        with self._starting:
            self._ordered = True
            if self._thread is None and not self._closed:
                # It asks at once.
                self._begin()
                return
        self.wake()

    def wake(self) -> None:
        """Have it ask now."""
        self._wake.set()

    def has_asked_since(self, moment: float) -> bool:
        """Whether a refresh that was begun later has ended."""
        return self._asked >= moment and self._asked > NEVER

    def is_late(self, now: float) -> bool:
        """Whether it should have asked, as it gets no turn, and did not."""
        # While it asks it is not: the backend takes its time.
        return now > self.due and not self.is_asking

    def close(self) -> None:
        """End, soon."""
        self._closed = True
        self._wake.set()
        if self._following:
            self.source.unfollow(self._observer.name, self._wake.set)
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
                ordered, self._ordered = self._ordered, False
                if not ordered and self._observer.is_idle():
                    self._thread = None
                    self.due = float("inf")
                    self._observer.attend()
                    return
            begun = time.monotonic()
            pause = self._ask()
            stopped = time.monotonic() - begun > LATE
            self._wake.wait(pause)
            if stopped or self.is_late(time.monotonic()):
                time.sleep(NEWS)

    def _ask(self) -> float:
        """Ask once; return the seconds until the next time."""
        observer, name = self._observer, self.source.name
        begun = ended = time.monotonic()
        self.due, self.is_asking = begun + LATE, True
        observer.attend()
        trouble: exception.BackendError | None = None
        try:
            observer.configure()
            try:
                refresh = self.source.observe(observer.name)
            finally:
                ended = time.monotonic()
            observer.answered(refresh._replace(answered=ended), ended)
        except Exception as error:
            # Whatever it is, there is no answer.
            trouble = exception.as_backend_error(error, f"the driver {name}")
            observer.failed(name, begun, ended, str(trouble))
        self._tell(trouble)
        # What waits for the refresh has it: the rest delays no question.
        self._asked = begun
        if trouble is None:
            self._follow()
            self._ask_server(begun)
        pause = observer.pause(time.monotonic() - begun, trouble is not None)
        self._set_due(pause)
        self.is_asking = False
        return pause

    def _follow(self) -> None:
        if self._following or self._closed:
            return
        try:
            self.source.follow(self._observer.name, self._wake.set)
        except Exception as error:
            LOG.debug(
                "Cannot follow the group %s: %s", self._observer.name, error
            )
            return
        self._following = True
        if self._closed:
            # Meanwhile.
            self.source.unfollow(self._observer.name, self._wake.set)

    def _ask_server(self, asked: float) -> None:
        """Ask the server why no member reports, if none does.

        :param asked: when it was refreshed
        """
        observer, told = self._observer, None
        since = observer.silent_since(self.source.name, asked)
        if since is not None and not self._closed:
            try:
                told = self.source.outage(observer.name, since)
            except Exception as error:
                # No evidence; nor that the server works.
                if self._log_unasked.begins():
                    LOG.debug(
                        "Cannot ask %(backend)s why no member of the group "
                        "%(group)s reports: %(error)s",
                        {
                            "backend": self.source.name,
                            "group": observer.name,
                            "error": exception.describe(error),
                        },
                    )
                return
            self._log_unasked.ends()
        if told is not None and since is not None:
            outage = Outage(
                max(since, told.begin), min(told.end, time.monotonic())
            )
            observer.backend_out(self.source.name, outage)
        self._tell_outage(asked, told, since is None)

    def _tell_outage(
        self, asked: float, told: ServerOutage | None, reports: bool
    ) -> None:
        """Log when the server first tells of an outage, and when it is over.

        :param reports: whether members report
        """
        group, backend = self._observer.name, self.source.name
        if told is not None:
            self._out = asked
            if self._log_out.begins():
                LOG.warning(
                    "The backend %(backend)s takes no reports of the group "
                    "%(group)s: %(reason)s. Its members are not called down "
                    "for that",
                    {
                        "backend": backend,
                        "group": group,
                        "reason": told.reason,
                    },
                )
            return
        limits = self._observer.settings.limits
        # It may show no sign of it for a moment, as between two reports.
        if (reports or asked > self._out + limits.due) and (
            self._log_out.ends()
        ):
            LOG.info(
                "The backend %(backend)s no longer shows why it would take "
                "no reports of the group %(group)s: members that are silent "
                "for %(limit)g s more are called down",
                {
                    "backend": backend,
                    "group": group,
                    "limit": limits.service_down_time,
                },
            )

    def _set_due(self, pause: float) -> None:
        limit = self._observer.settings.limits.service_down_time
        # Before the answer is too old to be one.
        self.due = time.monotonic() + min(pause + LATE, 0.75 * limit)
        self._observer.attend()

    def _tell(self, trouble: exception.BackendError | None) -> None:
        self.trouble = "" if trouble is None else str(trouble)
        group, backend = self._observer.name, self.source.name
        if trouble is None:
            if self._log.ends():
                LOG.info(
                    "Backend %(backend)s reachable again; monitoring group "
                    "%(group)s",
                    {"backend": backend, "group": group},
                )
            return
        if not self._log.begins():
            return
        LOG.warning(
            "Cannot refresh group %(group)s from %(backend)s: %(error)s. "
            "Keeping the last known states for %(limit)g s",
            {
                "group": group,
                "backend": backend,
                "error": trouble,
                "limit": self._observer.settings.limits.service_down_time,
            },
        )
        if isinstance(trouble, exception.UnexpectedError):
            LOG.debug("That comes from here:", exc_info=trouble)


def await_all(pollers: Iterable[Poller], since: float, wait: float) -> bool:
    """Wait until each has asked since a moment; return whether they have.

    :param wait: seconds to wait at most
    """
    give_up = time.monotonic() + wait
    while not all(one.has_asked_since(since) for one in pollers):
        if time.monotonic() > give_up:
            return False
        time.sleep(PAUSE)
    return True
