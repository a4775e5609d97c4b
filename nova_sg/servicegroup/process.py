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

"""What the API objects of one process share: drivers, reporters and views.

All API objects of a process use the same connections, caches and threads.
They are made on first use, in the process that uses them: after a fork the
child makes its own.

With secondary drivers a process reports to all backends, and what they all
show makes one verdict.
"""

from __future__ import annotations

import collections
import functools
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from oslo_log import log as logging
from stevedore import driver as stevedore_driver

from nova_sg import config, exception, grace, metrics, threads
from nova_sg.backends import base
from nova_sg.conf import CONF
from nova_sg.liveness.model import (
    FORCED_DOWN,
    LEFT,
    NEVER,
    NOT_A_MEMBER,
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
    domain_map,
    health,
    health_server,
    reporter,
    secondaries,
    service_records,
    view,
)

LOG = logging.getLogger(__name__)

# How many failing reports are kept for views that are made later.
MOST_FAILING = 100
# Seconds to wait for the answer of a secondary.
SECONDARY_WAIT = 5.0

NAMESPACE = "nova_sg.servicegroup.drivers"


class _SecondaryCall(threading.Thread):
    """A call of one secondary driver, on a thread of its own."""

    def __init__(
        self, driver: base.Driver, function: Callable[[base.Driver], Any]
    ) -> None:
        super().__init__(name="nova-sg-secondary", daemon=True)
        self.driver = driver
        self._function = function
        self.answer: Any = None
        #: The error; None: the call succeeded.
        self.error: Exception | None = exception.BackendError(
            f"no answer for {SECONDARY_WAIT:g} s"
        )
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._function(self.driver)
            self.error = None
        except exception.NovaSGError as error:
            self.error = error
        except Exception as error:
            LOG.exception(
                "Unexpected error of the secondary driver %s", self.driver.name
            )
            self.error = error


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
    """

    def __init__(self, primary: base.Driver, *others: base.Driver) -> None:
        #: The primary.
        self.driver = primary
        self._secondaries = others
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

    def _observed(self) -> list[base.Driver]:
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
                    drivers = self._observed() or [self.driver]
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
        calls = []
        give_up = time.monotonic() + reporter.JOIN_WAIT
        if self._secondaries:
            timer = secondaries.ServiceTimer(host, group, service)
            with self._lock:
                self._timers[id(service)] = timer
            calls = [
                _SecondaryCall(
                    driver, lambda one: timer.follow(self._reporters[one.name])
                )
                for driver in self._secondaries
            ]
        unwell = health.last_reason(host, group)
        if self.reporter.join(host, group, service, report, unwell):
            self._note(group, host, REPORTED)
        if service.report_interval:
            self.health.begin(host, group, service, self.only_records)
            _show_health()
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

        calls = [_SecondaryCall(driver, leave) for driver in self._secondaries]
        try:
            leave(self.driver)
            if last:
                self._note(group, host, STOPPED if grace.restart() else LEFT)
        finally:
            for call in _done(calls):
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

    # -- commands of operators

    def force_down(self, host: str, group: str, forced: bool) -> None:
        """Declare a member down whatever it reports, or take that back.

        :raises MemberNotFound: no backend knows such a member
        :raises BackendError: the primary's backend was not told
        """
        self._command(
            host, group, lambda one: one.force_down(group, host, forced)
        )
        self._note(group, host, FORCED_DOWN if forced else None)

    def forget(self, host: str, group: str) -> None:
        """Remove a member that is not up.

        :raises MemberNotFound: no backend knows such a member
        :raises MemberIsUp: it is up
        :raises ServiceGroupUnavailable: it is not known whether it is up
        :raises BackendError: the primary's backend was not told
        """
        group_view = self.view(group)
        group_view.refresh()
        host = group_view.observer.name_of(host)
        try:
            # Whether it reports, not whether it is forced down.
            alive = group_view.is_alive(host)
        except exception.MemberNotFound:
            # It may be there, and be too old to be listed.
            alive = False
        if alive:
            raise exception.MemberIsUp(
                f"{host} still reports to the group {group}; stop it first"
            )
        self._command(host, group, lambda one: one.forget(group, host))
        self._note(group, host, NOT_A_MEMBER)

    def stale(self, group: str, age: float) -> list[str]:
        """Return the names of members that are down for good, sorted.

        Also those that are not listed any more.

        :param age: seconds for which each of them has shown no life
        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        :raises BackendError: a backend does not answer
        """
        group_view = self.view(group)
        found = set(group_view.stale(age))
        for driver in self._observed():
            for host, silent in driver.unlisted(group).items():
                if silent >= age and not group_view.knows(host):
                    found.add(host)
        return sorted(found)

    def record_deleted(self, host: str, group: str) -> None:
        """Remove a member whose record Nova has deleted.

        Also a member that is up: if its service runs, it reports again.

        :raises BackendError: a backend was not told; all others were
        """
        if not self._observed():
            # The record was all that there was.
            return
        observer = self.view(group).observer
        observer.keep_fresh()
        host = observer.name_of(host)
        calls = [
            _SecondaryCall(one, lambda driver: driver.forget(group, host))
            for one in self._observed()
        ]
        failed = [
            f"{call.driver.name}: {call.error}"
            for call in _done(calls)
            if call.error is not None
            and not isinstance(call.error, exception.MemberNotFound)
        ]
        if len(failed) < len(calls):
            self._note(group, host, NOT_A_MEMBER)
        if failed:
            raise exception.BackendError("; ".join(failed))

    def _command(
        self, host: str, group: str, command: Callable[[base.Driver], None]
    ) -> None:
        """Execute an operator's command about a member in all backends."""
        calls = [
            _SecondaryCall(one, command)
            for one in self._secondaries
            if one.observes
        ]
        unknown = None
        try:
            command(self.driver)
        except exception.MemberNotFound as error:
            unknown = error
        finally:
            for call in _done(calls):
                if call.error is None:
                    unknown = None
                elif not isinstance(call.error, exception.MemberNotFound):
                    LOG.warning(
                        "Backend %(driver)s missed the command for member "
                        "%(host)s of group %(group)s: %(error)s. Repeat the "
                        "command when %(driver)s is reachable",
                        {
                            "driver": call.driver.name,
                            "host": host,
                            "group": group,
                            "error": call.error,
                        },
                    )
        if unknown is not None:
            raise unknown

    def _note(self, group: str, host: str, verdict: Any) -> None:
        """Note what this process did, before a refresh shows it."""
        if self._observed():
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
            others, own = observer.group, observer.own_actions.get(host)
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
        calls = [
            _SecondaryCall(one, lambda one: one.groups())
            for one in self._secondaries
            if one.observes
        ]
        trouble, found = None, set()
        try:
            found.update(self.driver.groups())
        except exception.BackendError as error:
            trouble = error
        for call in _done(calls):
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
        calls = [_SecondaryCall(one, _close) for one in self._secondaries]
        _close(self.driver)
        _done(calls)


def _done(calls: list[_SecondaryCall]) -> list[_SecondaryCall]:
    """Wait until the calls have ended, SECONDARY_WAIT seconds at most."""
    give_up = time.monotonic() + SECONDARY_WAIT
    for call in calls:
        threads.join(call, max(0.0, give_up - time.monotonic()))
    return calls


def _close(driver: base.Driver) -> None:
    try:
        driver.close()
    except Exception as error:
        # The caller cannot do anything about it, and has more to close.
        LOG.warning(
            "Could not close the driver %(driver)s cleanly: %(error)s",
            {"driver": driver.name, "error": exception.describe(error)},
        )


_shared: dict[str, Shared] = {}
_lock = threading.Lock()
_health_server: health_server.Server | None = None
_on_first_use: Callable[[], None] | None = None
_makers: dict[str, Callable[[], base.Driver]] = {}


def configured() -> str:
    """Return the names of the drivers, joined by commas, the primary first.

    :raises ConfigError: [servicegroup] secondary_drivers is wrong
    """
    primary = CONF.servicegroup_driver
    with config.explained("[servicegroup] secondary_drivers"):
        secondaries = CONF.servicegroup.secondary_drivers
    if not secondaries:
        return primary
    return ",".join(dict.fromkeys([primary, *secondaries]))


def shared(name: str | None = None) -> Shared:
    """Return what this process shares for one driver, or for several.

    :param name: the drivers' names, joined by commas; None: configured()
    :raises ConfigError: the first driver cannot be loaded
    """
    if name is None:
        name = configured()
    found = _shared.get(name)
    if found is None:
        if _on_first_use is not None:
            _on_first_use()
        with _lock:
            found = _shared.get(name)
            if found is None:
                found = _shared[name] = _make(name)
    return found


def _make(name: str) -> Shared:
    first, *others = name.split(",")
    drivers = [load(first)]
    for other in others:
        try:
            drivers.append(load(other))
        except exception.ConfigError as error:
            LOG.error(
                "The secondary driver %(driver)s is not used, as it cannot "
                "be loaded: %(error)s",
                {"driver": other, "error": error},
            )
    return Shared(*drivers)


def all_disagreements() -> list[disagreements.Disagreement]:
    """Return how the drivers of this process disagree.

    There is one entry for each combination of observed group, secondary and
    kind, also if there is no such disagreement; without secondaries there is
    none.
    """
    return [
        found
        for one in list(_shared.values())
        for found in one.disagreements()
    ]


metrics.count_disagreements(all_disagreements)


def health_results() -> list[health.Result]:
    """Return what the checks of this process's members have found last."""
    return [
        result
        for one in list(_shared.values())
        for result in one.health.results()
    ]


metrics.show_health(health_results)


def health_state() -> dict[str, Any]:
    """Return the state of this process's members, as /health shows it.

    "healthy" is whether there are members, and each of them is well and has
    reported to a backend within service_down_time.
    """
    members = []
    for one in list(_shared.values()):
        checks = list(one.health.results())
        for (group, host), reports in one.reported().items():
            found = [
                check
                for check in checks
                if (check.group, check.host) == (group, host)
            ]
            ages = [
                report.age
                for report in reports.values()
                if report.age is not None
            ]
            reporting = bool(ages) and min(ages) <= CONF.service_down_time
            members.append(
                {
                    "group": group,
                    "host": host,
                    "healthy": reporting
                    and not any(check.reason for check in found),
                    "draining": any(
                        report.draining for report in reports.values()
                    ),
                    "reports": {
                        name: {
                            "last_success_seconds": _rounded(report.age),
                            "trouble": report.trouble,
                        }
                        for name, report in reports.items()
                    },
                    "checks": {
                        check.check: {
                            "healthy": not check.reason,
                            "reason": check.reason,
                            "seconds_ago": _rounded(check.age),
                        }
                        for check in found
                    },
                }
            )
    return {
        "healthy": bool(members) and all(one["healthy"] for one in members),
        "pid": os.getpid(),
        "members": members,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _show_health() -> None:
    """Serve /health, once in a process, where that is configured."""
    global _health_server
    address = CONF.servicegroup.health_listen
    if address:
        with _lock:
            if _health_server is None:
                _health_server = health_server.Server(address, health_state)


def on_first_use(call: Callable[[], None]) -> None:
    """Call a function before a driver is made; again after each fork.

    It may be called more than once in a process.
    """
    global _on_first_use
    _on_first_use = call


def use(name: str, make: Callable[[], base.Driver]) -> None:
    """In this process, make the driver of that name by calling make()."""
    _makers[name] = make


def load(name: str) -> base.Driver:
    """Make a driver by its name.

    :raises ConfigError: there is no such driver, or its options, or those of
        observers, are wrong
    """
    domain_map.check()
    if name in _makers:
        return _makers[name]()
    try:
        return stevedore_driver.DriverManager(
            NAMESPACE, name, invoke_on_load=True
        ).driver
    except stevedore_driver.NoMatches as error:
        raise exception.ConfigError(
            f"[DEFAULT] servicegroup_driver: there is no driver {name!r}. "
            "Use db, mc or zk, or install the package that has it."
        ) from error


def reset() -> None:
    """Close what this process shares; the next use makes it again."""
    global _health_server
    with _lock:
        served, _health_server = _health_server, None
    if served is not None:
        served.close()
    for one in detach():
        one.close()
    health.forget_reasons()


def detach() -> list[Shared]:
    """Return what this process shares; the caller has to close it.

    The next use makes it again, also before the caller has closed it.
    """
    with _lock:
        detached = list(_shared.values())
        _shared.clear()
    return detached


def after_fork_in_child() -> None:
    """Start with nothing: what is there belongs to the parent.

    Python calls this after a fork by Python.
    """
    # The parent's threads do not exist here, and its connections belong to
    # the parent. They are kept, as the garbage collector would close them
    # over the parent's sockets.
    global _shared, _lock, _health_server
    _parents.append(_shared)
    if _health_server is not None:
        _health_server.close_in_child()
        _health_server = None
    _shared = {}
    _lock = threading.Lock()
    metrics.start_afresh()
    health.forget_reasons()


_parents: list[dict[str, Shared]] = []
os.register_at_fork(after_in_child=after_fork_in_child)
