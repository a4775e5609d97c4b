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

"""What one process shares where it uses several drivers.

Stands in the place of nova_sg.servicegroup.process.Shared: what this process
says goes to all backends, what it asks is answered by one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from oslo_log import log as logging

from nova_sg import exception, threads
from nova_sg.servicegroup import reporter
from nova_sg.servicegroup.several import reports, view

if TYPE_CHECKING:
    from nova_sg.servicegroup import process

LOG = logging.getLogger(__name__)

# Seconds that a word to a secondary is waited for.
WORD_WAIT = 5.0


class Disagreement(NamedTuple):
    """How a secondary disagrees with the primary over a group."""

    group: str
    primary: str
    secondary: str
    #: One of nova_sg.servicegroup.several.compare.KINDS.
    kind: str
    #: How many members there are now that it is about.
    members: int
    #: How many such disagreements there were since the process began.
    total: int


class _Word(threading.Thread):
    """Something said to one secondary, on a thread."""

    def __init__(
        self,
        shared: process.Shared,
        say: Callable[[process.Shared], Any],
    ) -> None:
        super().__init__(name="nova-sg-secondary", daemon=True)
        self.name_of_driver = shared.driver.name
        self._shared = shared
        self._say = say
        self.answer: Any = None
        #: What went wrong; None: nothing did.
        self.error: Exception | None = exception.BackendError(
            f"no answer for {WORD_WAIT:g} s"
        )
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._say(self._shared)
            self.error = None
        except exception.NovaSGError as error:
            self.error = error
        except Exception as error:
            LOG.exception("Unexpected error of a secondary driver")
            self.error = error


class Several:
    """A primary driver and secondaries, with what works on them."""

    def __init__(
        self, primary: process.Shared, secondaries: list[process.Shared]
    ) -> None:
        self.primary = primary
        self.secondaries = secondaries
        #: The primary's: what verdicts come from.
        self.driver = primary.driver
        self.reporter = primary.reporter
        #: The drivers, the primary first.
        self.names = [one.driver.name for one in (primary, *secondaries)]
        self.records = primary.records
        self._views: dict[str, view.SeveralView] = {}
        self._leads: dict[int, reports.Lead] = {}
        self._lock = threading.Lock()

    def view(self, group: str) -> view.SeveralView:
        """Return the view of a group, made on first use."""
        found = self._views.get(group)
        if found is None:
            with self._lock:
                found = self._views.get(group)
                if found is None:
                    found = self._views[group] = view.SeveralView(
                        group,
                        self.primary.view(group),
                        [
                            one.view(group)
                            for one in self.secondaries
                            if one.driver.observes
                        ],
                    )
        return found

    # -- reports

    def join(
        self,
        host: str,
        group: str,
        service: Any,
        report: Callable[[Any], None],
    ) -> None:
        """Join a group everywhere: see Reporter.join()."""
        lead = reports.Lead(host, group, service)
        with self._lock:
            self._leads[id(service)] = lead
        give_up = time.monotonic() + reporter.JOIN_WAIT
        words = [_Word(one, lead.follow) for one in self.secondaries]
        self.primary.join(host, group, service, report)
        for word in words:
            threads.join(word, max(0.0, give_up - time.monotonic()))

    def report_state(self, service: Any) -> None:
        """Report for a service that joined: what its timer calls."""
        lead = self._leads.get(id(service))
        if lead is None:
            self.primary.report_state(service)
            return
        with lead.report():
            self.primary.report_state(service)

    def leave(self, host: str, group: str, last: bool = True) -> None:
        """Leave a group everywhere: see process.Shared.leave().

        :raises BackendError: the word did not get through to the primary
        """
        if last:
            with self._lock:
                for key, lead in list(self._leads.items()):
                    if (lead.host, lead.group) == (host, group):
                        lead.left = True
                        del self._leads[key]
        words = [
            _Word(one, lambda one: one.leave(host, group, last))
            for one in self.secondaries
        ]
        try:
            self.primary.leave(host, group, last)
        finally:
            for word in _heard(words):
                if word.error is not None:
                    LOG.warning(
                        "Could not leave the group %(group)s by the "
                        "secondary driver %(driver)s, %(host)s will be seen "
                        "down there later: %(error)s",
                        {
                            "group": group,
                            "driver": word.name_of_driver,
                            "host": host,
                            "error": word.error,
                        },
                    )

    def stop_reports(self) -> None:
        """Stop all timers; nobody is withdrawn."""
        for lead in list(self._leads.values()):
            lead.left = True
        for one in (self.primary, *self.secondaries):
            one.stop_reports()

    # -- what operators say

    def force_down(self, host: str, group: str, forced: bool) -> None:
        """Declare a member down everywhere, or take that back.

        :raises MemberNotFound: no backend knows such a member
        :raises BackendError: the word did not get through to the primary
        """
        self._say(host, group, lambda one: one.force_down(host, group, forced))

    def forget(self, host: str, group: str) -> None:
        """Remove a member that is up nowhere from all backends.

        :raises MemberNotFound: no backend knows such a member
        :raises MemberIsUp: it is up somewhere
        :raises ServiceGroupUnavailable: nobody can say whether it is up
        :raises BackendError: the word did not get through to the primary
        """
        group_view = self.view(group)
        group_view.refresh()
        if group_view.is_alive(host):
            raise exception.MemberIsUp(
                f"{host} still reports to the group {group}; stop it first"
            )
        self._say(host, group, lambda one: one.remove(host, group))

    def _say(
        self, host: str, group: str, say: Callable[[process.Shared], None]
    ) -> None:
        words = [
            _Word(one, say) for one in self.secondaries if one.driver.observes
        ]
        unknown = None
        try:
            say(self.primary)
        except exception.MemberNotFound as error:
            unknown = error
        finally:
            for word in _heard(words):
                if word.error is None:
                    unknown = None
                elif not isinstance(word.error, exception.MemberNotFound):
                    LOG.warning(
                        "The secondary driver %(driver)s does not know what "
                        "was said of %(host)s in the group %(group)s: "
                        "%(error)s. Say it again when it answers",
                        {
                            "driver": word.name_of_driver,
                            "host": host,
                            "group": group,
                            "error": word.error,
                        },
                    )
        if unknown is not None:
            raise unknown

    # -- questions

    def groups(self) -> list[str]:
        """Return the names of the groups that a backend knows.

        :raises BackendError: none can be asked
        """
        words = [
            _Word(one, lambda one: one.groups())
            for one in self.secondaries
            if one.driver.observes
        ]
        trouble, found = None, set()
        try:
            found.update(self.primary.groups())
        except exception.BackendError as error:
            trouble = error
        for word in _heard(words):
            if word.error is None:
                trouble = None
                found.update(word.answer)
        if trouble is not None:
            raise trouble
        return sorted(found)

    def disagreements(self) -> list[Disagreement]:
        """Return every kind, for each secondary and group that is viewed."""
        return [
            Disagreement(
                group,
                self.driver.name,
                one.view.name,
                kind,
                list(one.comparer.settled.values()).count(kind),
                total,
            )
            for group, several in list(self._views.items())
            for one in several.secondaries
            for kind, total in one.comparer.totals.items()
        ]

    def close(self) -> None:
        """Stop all threads and close all connections."""
        for lead in list(self._leads.values()):
            lead.left = True
        for one in list(self._views.values()):
            one.close()
        words = [
            _Word(one, lambda one: one.close()) for one in self.secondaries
        ]
        self.primary.close()
        _heard(words)


def _heard(words: list[_Word]) -> list[_Word]:
    """Wait for the answers, for a while."""
    give_up = time.monotonic() + WORD_WAIT
    for word in words:
        threads.join(word, max(0.0, give_up - time.monotonic()))
    return words
