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

"""The drivers, reporters and views that the API objects of a process share.

With secondary drivers a process reports to all backends, and what they all
show makes one verdict.
"""

from __future__ import annotations

import collections
import functools
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg import exception, grace, threads
from nova_sg.backends import base
from nova_sg.liveness.model import (
    FORCED_DOWN,
    LEFT,
    NEVER,
    REPORTED,
    STOPPED,
    UNAVAILABLE,
    UNWATCHED,
    UP,
    Limits,
    Verdict,
)
from nova_sg.servicegroup import (
    disagreements,
    driver_calls,
    health,
    reporter,
    secondaries,
    service_records,
    view,
)

LOG = logging.getLogger(__name__)

# How many failing reports are kept for views that are made later.
MOST_FAILING = 100


class _FailingReports(NamedTuple):
    """Reports of a member of this process that fail."""

    driver: base.Driver
    #: The group that the member reports to.
    group: str
    #: The member.
    source: Hashable
    #: Since when they fail.
    begin: float
    #: Up to when that is certain.
    end: float
    #: Whether they succeed again.
    over: bool

    def pass_on(self, to: view.GroupView) -> None:
        """Tell the observer of a view, if it observes the same backend."""
        driver = self.driver
        if not driver.observes or driver.backend_of(
            to.group
        ) != driver.backend_of(self.group):
            return
        observer, source = to.observer, self.source
        observer.reports_fail(driver.name, source, self.begin, self.end)
        if self.over:
            observer.reports_work(driver.name, source, self.end)


class Shared:
    """The drivers, reporters and views of this process.

    :param primary: the primary driver
    :param others: the secondary drivers
    :param show_health: called when there is a member that may be checked
    """

    def __init__(
        self,
        primary: base.Driver,
        *others: base.Driver,
        show_health: Callable[[], None] = lambda: None,
    ) -> None:
        #: The primary.
        self.driver = primary
        #: The secondaries.
        self.secondaries = others
        self._show_health = show_health
        self._drivers = (primary, *others)
        #: Whether every backend keeps records that callers bring along.
        self.only_records = all(
            driver.name == "db" or not driver.observes
            for driver in self._drivers
        )
        # Whether members report through the db driver, to which the records
        # of callers belong.
        self._by_record = any(driver.name == "db" for driver in self._drivers)
        #: The drivers' names, the primary's first.
        self.names = [driver.name for driver in self._drivers]
        self._reporters = {
            driver.name: reporter.Reporter(
                driver, functools.partial(self._reports_fail, driver)
            )
            for driver in self._drivers
        }
        #: The primary's reporter.
        self.reporter = self._reporters[primary.name]
        #: The members of this process that are checked.
        self.health = health.Members(self.unwell)
        #: The members that callers asked about with a record.
        self.records = service_records.ServiceRecords()
        self._timers: dict[int, secondaries.ServiceTimer] = {}
        self._views: dict[str, view.GroupView] = {}
        self._lock = threading.Lock()
        # For views that are made later.
        self._failing: collections.deque[_FailingReports] = collections.deque(
            maxlen=MOST_FAILING
        )

    def observing(self) -> list[base.Driver]:
        """Return the drivers that can observe groups."""
        return [driver for driver in self._drivers if driver.observes]

    def view(self, group: str) -> view.GroupView:
        """Return the view of a group, made on first use."""
        found = self._views.get(group)
        if found is None:
            with self._lock:
                found = self._views.get(group)
                if found is None:
                    # A driver that cannot observe raises an error that says
                    # so.
                    drivers = self.observing() or [self.driver]
                    found = view.GroupView(group, drivers)
                    for failing in self._failing:
                        failing.pass_on(found)
                    self._views[group] = found
        return found

    def _reports_fail(self, driver: base.Driver, *told: Any) -> None:
        """Pass on that reports fail, or succeed again: see _FailingReports."""
        failing = _FailingReports(driver, *told)
        if driver.name == "db":
            source, end = failing.source, failing.end
            self.records.reports_fail(source, failing.begin, end)
            if failing.over:
                self.records.reports_work(source, end)
        with self._lock:
            for old in list(self._failing):
                if (old.driver, old.source, old.begin) == (
                    driver,
                    failing.source,
                    failing.begin,
                ):
                    self._failing.remove(old)
            self._failing.append(failing)
            views = list(self._views.values())
        for one in views:
            failing.pass_on(one)

    # -- reports

    def join(
        self,
        host: str,
        group: str,
        service: Any,
        report: Callable[[Any], None],
    ) -> None:
        """Join a group through all drivers: see Reporter.join()."""
        calls: list[driver_calls.DriverCall] = []
        give_up = time.monotonic() + reporter.JOIN_WAIT
        if self.secondaries:
            timer = secondaries.ServiceTimer(host, group, service)
            with self._lock:
                self._timers[id(service)] = timer
            calls = driver_calls.start(
                self.secondaries,
                lambda one: timer.follow(self._reporters[one.name]),
            )
        unwell = health.last_reason(host, group)
        if self.reporter.join(host, group, service, report, unwell):
            self.note_own_action(group, host, REPORTED)
        if service.report_interval:
            self.health.begin(host, group, service, self.only_records)
            self._show_health()
        for call in calls:
            threads.join(call, max(0.0, give_up - time.monotonic()))

    def report_state(self, service: Any) -> None:
        """Report for a service that joined: its timer calls this."""
        timer = self._timers.get(id(service))
        if timer is None:
            self.reporter.report_state(service)
            return
        with timer.report():
            self.reporter.report_state(service)

    def drain(self, host: str, group: str) -> None:
        """Report through all drivers that a member is about to stop."""
        self.health.end(host, group)
        for one in self._reporters.values():
            # On a thread each: a backend that hangs delays no other.
            threading.Thread(
                target=one.drain, args=[host, group], daemon=True
            ).start()

    def unwell(self, host: str, group: str, reason: str) -> None:
        """Report through all drivers that a member cannot do its work.

        :param reason: why, as a clause; empty: it can again
        """
        for one in self._reporters.values():
            threading.Thread(
                target=one.unwell, args=[host, group, reason], daemon=True
            ).start()

    def leave(self, host: str, group: str, last: bool = True) -> None:
        """Leave a group through all drivers.

        :param last: whether this is the last process that joined as this
            member. If it is not, it leaves only those backends in which each
            process is a member of its own, see Driver.apart
        :raises BackendError: the primary's backend was not told
        """
        self.health.end(host, group)
        if last:
            with self._lock:
                for key, timer in list(self._timers.items()):
                    if (timer.host, timer.group) == (host, group):
                        timer.left = True
                        del self._timers[key]

        def leave(driver: base.Driver) -> None:
            if last or driver.apart:
                self._reporters[driver.name].leave(host, group)

        calls = driver_calls.start(self.secondaries, leave)
        try:
            leave(self.driver)
            if last:
                self.note_own_action(
                    group, host, STOPPED if grace.restart() else LEFT
                )
        finally:
            for call in driver_calls.wait(calls):
                if call.error is not None:
                    LOG.warning(
                        "Could not leave the group %(group)s through the "
                        "secondary driver %(driver)s: %(error)s. There "
                        "%(host)s goes down by silence, after "
                        "service_down_time",
                        {
                            "group": group,
                            "driver": call.driver.name,
                            "host": host,
                            "error": call.error,
                        },
                    )

    def stop_reports(self) -> None:
        """Stop all timers and checks; no member is withdrawn."""
        self.health.close()
        for timer in list(self._timers.values()):
            timer.left = True
        for one in self._reporters.values():
            one.close()

    def reported(self) -> dict[tuple[str, str], dict[str, reporter.Reported]]:
        """Return how the reports of each member go: by group and host, by
        the driver's name.
        """
        found: dict[tuple[str, str], dict[str, reporter.Reported]] = {}
        for name, one in self._reporters.items():
            for member in one.members():
                found.setdefault((member.group, member.host), {})[name] = (
                    member
                )
        return found

    def note_own_action(self, group: str, host: str, verdict: Any) -> None:
        """Note what this process did, before a refresh shows it."""
        if self.observing():
            self.view(group).observer.note_own_action(host, verdict)

    # -- questions

    def verdict(
        self,
        group: str,
        host: str,
        record: base.Record | None,
        limits: Limits,
    ) -> Verdict:
        """Return the verdict on a member.

        :param record: the caller's record of it; None: there is none
        :raises ServiceGroupUnavailable: no backend that knows it has answered
            for service_down_time; or the backend may be frozen
        """
        if record is None:
            return self.view(group).verdict(host)
        others, left, now = None, NEVER, time.monotonic()
        if not self.only_records:
            observer = self.view(group).observer
            verdict = observer.verdict(host)
            if verdict is FORCED_DOWN:
                return verdict
            host = observer.name_of(host)
            # In this order, see Observer.judge().
            own, others = observer.own_actions.get(host), observer.group
            member = others.members.get(host)
            if (
                verdict.state == UP
                and not (record.left or record.crashed)
                and (
                    not self._by_record
                    or member is None
                    or others.last_report(member) > now - limits.due
                )
            ):
                # The record cannot change this.
                return verdict
            if own is not None and own.verdict in (LEFT, STOPPED):
                left = own.at
        verdict = self.records.judge(
            (group, host),
            record,
            now,
            limits,
            others,
            self._by_record,
            left,
        )
        if verdict in (UNAVAILABLE, UNWATCHED):
            raise self.view(group).not_known(host, verdict)
        return verdict

    def groups(self) -> list[str]:
        """Return the names of the groups in all backends, sorted.

        :raises BackendError: no backend answers
        """
        calls = driver_calls.start(
            [one for one in self.secondaries if one.observes],
            lambda one: one.groups(),
        )
        trouble, found = None, set()
        try:
            found.update(self.driver.groups())
        except exception.BackendError as error:
            trouble = error
        for call in driver_calls.wait(calls):
            if call.error is None:
                trouble = None
                found.update(call.answer)
        if trouble is not None:
            raise trouble
        return sorted(found)

    def disagreements(self) -> Iterable[disagreements.Disagreement]:
        """Return all disagreements: see all_disagreements()."""
        for one in list(self._views.values()):
            for of_secondary in one.disagreements:
                yield from of_secondary

    def close(self) -> None:
        """Stop all threads and close all connections."""
        self.stop_reports()
        for one in list(self._views.values()):
            one.close()
        calls = driver_calls.start(self.secondaries, driver_calls.close)
        driver_calls.close(self.driver)
        driver_calls.wait(calls)
