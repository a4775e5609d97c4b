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

"""Polls one backend for one group, on a thread of its own.

The observer decides what follows from the answers: see observer.py.
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
# requests, as in uWSGI, pollers are suspended meanwhile.
LATE = 1.0
# Seconds that a driver's threads get to receive changes before a refresh,
# after no thread has run for a while.
CATCH_UP = 0.05
# Seconds between two checks of a condition that is waited for.
PAUSE = 0.002


class Source(Protocol):
    """What an observer needs of a driver."""

    #: The backend's name.
    name: str

    def observe(self, group: str) -> Refresh:
        """Return all members of a group. It may raise anything."""

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        """Call wake(), from any thread, for each change from now on.

        A backend that cannot notify of changes does nothing.
        """

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        """Stop calling wake()."""

    def outage(self, group: str, since: float) -> ServerOutage | None:
        """Return an outage that the server itself shows.

        Called after each refresh while the next report of a member is
        overdue.

        :param since: the last report of any member
        """


class Settings(NamedTuple):
    """The settings of an observer; read again for each refresh."""

    limits: Limits
    #: Seconds between two refreshes.
    refresh_interval: float


class Observes(Protocol):
    """What a poller needs of its observer."""

    #: The name of the group.
    name: str
    #: The settings of the last refresh.
    settings: Settings

    def configure(self) -> None:
        """Read the settings."""

    def is_idle(self) -> bool:
        """Whether there are no questions and no subscriptions."""

    def answered(self, refresh: Refresh, ended: float) -> None:
        """Take in a refresh that succeeded, and when it ended."""

    def failed(
        self, backend: str, asked: float, ended: float, error: str
    ) -> None:
        """Take in that a refresh has failed."""

    def pause(self, took: float, trouble: bool) -> float:
        """Return the seconds until the next refresh."""

    def request_check(self) -> None:
        """Make the next question check the pollers."""

    def silent_since(self, backend: str, asked: float) -> float | None:
        """Return the last report to a backend, if the next one is overdue."""

    def backend_out(self, backend: str, outage: Outage) -> None:
        """Add an outage that a backend's server shows."""


class Poller:
    """Polls one backend for one group."""

    def __init__(self, observer: Observes, source: Source) -> None:
        self.source = source
        #: Why the last refresh failed; empty: it succeeded.
        self.trouble = ""
        #: From this moment on a question has to check it: the next refresh
        #: should have begun, or the one under way should have ended.
        self.due = float("inf")
        #: Whether a refresh is under way.
        self.is_refreshing = False
        self._observer = observer
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._following = False
        self._closed = False
        # Whether refresh_once() has requested a refresh.
        self._requested = False
        # When the last refresh that has ended began.
        self._asked = NEVER
        # Decides when failed refreshes are logged.
        self._log = trouble_log.TroubleLog()
        # When the server last showed an outage, or NEVER.
        self._outage_shown = NEVER
        # The same for such outages, and for errors of the call outage().
        self._log_outage = trouble_log.TroubleLog()
        self._log_outage_errors = trouble_log.TroubleLog()

    def begin(self) -> bool:
        """Start polling; return False if it was polling already."""
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

    def refresh_once(self) -> None:
        """Refresh once now; does not keep polling if there are no questions.
        """
        with self._starting:
            self._requested = True
            if self._thread is None and not self._closed:
                # The new thread refreshes at once.
                self._begin()
                return
        self.wake()

    def wake(self) -> None:
        """Refresh now instead of waiting for the interval."""
        self._wake.set()

    def has_refreshed_since(self, moment: float) -> bool:
        """Whether a refresh that began after a moment has ended."""
        return self._asked >= moment and self._asked > NEVER

    def is_late(self, now: float) -> bool:
        """Whether a refresh should have begun and has not."""
        # A refresh under way is not late: the backend takes its time.
        return now > self.due and not self.is_refreshing

    def close(self) -> None:
        """End the thread, soon."""
        self._closed = True
        self._wake.set()
        if self._following:
            self.source.unfollow(self._observer.name, self._wake.set)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            threads.join(thread, 5)

    def _run(self) -> None:
        while True:
            # First clear the event, then read _closed: close() sets _closed
            # first.
            self._wake.clear()
            if self._closed:
                return
            with self._starting:
                requested, self._requested = self._requested, False
                if not requested and self._observer.is_idle():
                    self._thread = None
                    self.due = float("inf")
                    self._observer.request_check()
                    return
            begun = time.monotonic()
            pause = self._refresh()
            stopped = time.monotonic() - begun > LATE
            self._wake.wait(pause)
            if stopped or self.is_late(time.monotonic()):
                time.sleep(CATCH_UP)

    def _refresh(self) -> float:
        """Refresh once; return the seconds until the next refresh."""
        observer, name = self._observer, self.source.name
        begun = ended = time.monotonic()
        self.due, self.is_refreshing = begun + LATE, True
        observer.request_check()
        trouble: exception.BackendError | None = None
        try:
            observer.configure()
            try:
                refresh = self.source.observe(observer.name)
            finally:
                ended = time.monotonic()
            observer.answered(refresh._replace(answered=ended), ended)
        except Exception as error:
            # Of whatever type: the refresh has failed.
            trouble = exception.as_backend_error(error, f"the driver {name}")
            observer.failed(name, begun, ended, str(trouble))
        self._tell(trouble)
        # A question that waits for this refresh goes on from here; what
        # follows does not delay it.
        self._asked = begun
        if trouble is None:
            self._follow()
            self._ask_server(begun)
        pause = observer.pause(time.monotonic() - begun, trouble is not None)
        self._set_due(pause)
        self.is_refreshing = False
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
            # It was closed meanwhile.
            self.source.unfollow(self._observer.name, self._wake.set)

    def _ask_server(self, asked: float) -> None:
        """Ask the server why no member reports, if no member does.

        :param asked: when the last refresh began
        """
        observer, told = self._observer, None
        since = observer.silent_since(self.source.name, asked)
        if since is not None and not self._closed:
            try:
                told = self.source.outage(observer.name, since)
            except Exception as error:
                # Evidence neither of an outage nor that the server works.
                if self._log_outage_errors.begins():
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
            self._log_outage_errors.ends()
        if told is not None and since is not None:
            outage = Outage(
                max(since, told.begin), min(told.end, time.monotonic())
            )
            observer.backend_out(self.source.name, outage)
        self._tell_outage(asked, told, since is None)

    def _tell_outage(
        self, asked: float, told: ServerOutage | None, reports: bool
    ) -> None:
        """Log when an outage of the server begins, and when it is over.

        :param told: what the server shows; None: no outage
        :param reports: whether members report
        """
        group, backend = self._observer.name, self.source.name
        if told is not None:
            self._outage_shown = asked
            if self._log_outage.begins():
                LOG.warning(
                    "The backend %(backend)s takes no reports of the group "
                    "%(group)s: %(reason)s. Silence in this time does not "
                    "count against its members",
                    {
                        "backend": backend,
                        "group": group,
                        "reason": told.reason,
                    },
                )
            return
        limits = self._observer.settings.limits
        # For a moment it may show no outage, as between two reports that wait
        # in it: the next one comes up to report_interval after the end of
        # one, and does not show as a sign of trouble at once.
        calm = limits.due + limits.service_down_time / 4
        if (
            reports or asked > self._outage_shown + calm
        ) and self._log_outage.ends():
            LOG.info(
                "The backend %(backend)s no longer shows an outage for the "
                "group %(group)s. Members that are silent for %(limit)g s "
                "more go down",
                {
                    "backend": backend,
                    "group": group,
                    "limit": limits.service_down_time,
                },
            )

    def _set_due(self, pause: float) -> None:
        limit = self._observer.settings.limits.service_down_time
        # Well before the last answer is too old.
        self.due = time.monotonic() + min(pause + LATE, 0.75 * limit)
        self._observer.request_check()

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
            LOG.debug("Traceback of this error:", exc_info=trouble)


def await_all(pollers: Iterable[Poller], since: float, wait: float) -> bool:
    """Wait until each poller has refreshed since a moment.

    :param wait: seconds to wait at most
    :returns: whether all of them have
    """
    give_up = time.monotonic() + wait
    while not all(one.has_refreshed_since(since) for one in pollers):
        if time.monotonic() > give_up:
            return False
        time.sleep(PAUSE)
    return True
