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

"""What one process shares: its drivers, reporters and views of groups.

However many API objects a process makes, they all work with the same
connections, caches and threads, made when they are first needed and in the
process that needs them: a child starts afresh after a fork.

Where there are secondary drivers, a process reports to all of them, and one
verdict is made of what all backends say.
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
    records,
    reporter,
    secondaries,
    view,
)

LOG = logging.getLogger(__name__)

# So much trouble with reports is kept for views that are not there yet.
TROUBLES = 100
# Seconds that a secondary's answer to an order is waited for.
ORDER_WAIT = 5.0

NAMESPACE = "nova_sg.servicegroup.drivers"


class _Order(threading.Thread):
    """Something that one secondary is told, on a thread."""

    def __init__(
        self, driver: base.Driver, give: Callable[[base.Driver], Any]
    ) -> None:
        super().__init__(name="nova-sg-secondary", daemon=True)
        self.driver = driver
        self._give = give
        self.answer: Any = None
        #: What went wrong; None: nothing did.
        self.error: Exception | None = exception.BackendError(
            f"no answer for {ORDER_WAIT:g} s"
        )
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._give(self.driver)
            self.error = None
        except exception.NovaSGError as error:
            self.error = error
        except Exception as error:
            LOG.exception("Unexpected error of a secondary driver")
            self.error = error


class _Trouble(NamedTuple):
    """Reports of this process that do not get through."""

    driver: base.Driver
    #: The group that they are for.
    group: str
    #: The member that reports.
    source: Hashable
    #: Since when.
    begin: float
    #: Up to when that is certain.
    end: float
    #: Whether they get through again.
    over: bool

    def pass_on(self, to: view.GroupView) -> None:
        """Tell an observer, if it observes the backend in question."""
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
    """Drivers with what works on them.

    :param primary: what members report to first
    :param others: the secondaries
    """

    def __init__(self, primary: base.Driver, *others: base.Driver) -> None:
        #: The primary.
        self.driver = primary
        self._secondaries = others
        self._drivers = (primary, *others)
        #: Whether no backend can be asked but the one that records are from.
        self.only_records = all(
            driver.name == "db" or not driver.observes
            for driver in self._drivers
        )
        # Whether members report by the driver that records are of.
        self._by_record = any(driver.name == "db" for driver in self._drivers)
        #: The drivers' names, the primary's first.
        self.names = [driver.name for driver in self._drivers]
        self._reporters = {
            driver.name: reporter.Reporter(
                driver, functools.partial(self._reports_fail, driver)
            )
            for driver in self._drivers
        }
        #: The primary's.
        self.reporter = self._reporters[primary.name]
        #: The members that the process was asked about with a record.
        self.records = records.Records()
        self._leads: dict[int, secondaries.Lead] = {}
        self._views: dict[str, view.GroupView] = {}
        self._lock = threading.Lock()
        # For views that are made later.
        self._troubles: collections.deque[_Trouble] = collections.deque(
            maxlen=TROUBLES
        )

    def _observed(self) -> list[base.Driver]:
        """Return the drivers that can be asked about a group."""
        return [driver for driver in self._drivers if driver.observes]

    def view(self, group: str) -> view.GroupView:
        """Return the view of a group, made on first use."""
        found = self._views.get(group)
        if found is None:
            with self._lock:
                found = self._views.get(group)
                if found is None:
                    # One that cannot be asked says so.
                    drivers = self._observed() or [self.driver]
                    found = view.GroupView(group, drivers)
                    for trouble in self._troubles:
                        trouble.pass_on(found)
                    self._views[group] = found
        return found

    def _reports_fail(self, driver: base.Driver, *told: Any) -> None:
        """Take in what a reporter tells: see _Trouble."""
        trouble = _Trouble(driver, *told)
        if driver.name == "db":
            source, end = trouble.source, trouble.end
            self.records.reports_fail(source, trouble.begin, end)
            if trouble.over:
                self.records.reports_work(source, end)
        with self._lock:
            for old in list(self._troubles):
                if (old.driver, old.source, old.begin) == (
                    driver,
                    trouble.source,
                    trouble.begin,
                ):
                    self._troubles.remove(old)
            self._troubles.append(trouble)
            views = list(self._views.values())
        for one in views:
            trouble.pass_on(one)

    # -- reports

    def join(
        self,
        host: str,
        group: str,
        service: Any,
        report: Callable[[Any], None],
    ) -> None:
        """Join a group by all drivers: see Reporter.join()."""
        orders = []
        give_up = time.monotonic() + reporter.JOIN_WAIT
        if self._secondaries:
            lead = secondaries.Lead(host, group, service)
            with self._lock:
                self._leads[id(service)] = lead
            orders = [
                _Order(
                    driver, lambda one: lead.follow(self._reporters[one.name])
                )
                for driver in self._secondaries
            ]
        if self.reporter.join(host, group, service, report):
            self._note(group, host, REPORTED)
        for order in orders:
            threads.join(order, max(0.0, give_up - time.monotonic()))

    def report_state(self, service: Any) -> None:
        """Report for a service that joined: what its timer calls."""
        lead = self._leads.get(id(service))
        if lead is None:
            self.reporter.report_state(service)
            return
        with lead.report():
            self.reporter.report_state(service)

    def drain(self, host: str, group: str) -> None:
        """Report by all drivers that a member is about to stop."""
        for one in self._reporters.values():
            # On a thread of each: one that hangs delays no other.
            threading.Thread(
                target=one.drain, args=[host, group], daemon=True
            ).start()

    def leave(self, host: str, group: str, last: bool = True) -> None:
        """Leave a group, by all drivers.

        :param last: whether no other process is left that has joined as the
            same member; one that is not the last says nothing, where the
            backend takes what any of them says for all
        :raises BackendError: the primary's backend was not told
        """
        if last:
            with self._lock:
                for key, lead in list(self._leads.items()):
                    if (lead.host, lead.group) == (host, group):
                        lead.left = True
                        del self._leads[key]

        def leave(driver: base.Driver) -> None:
            if last or driver.apart:
                self._reporters[driver.name].leave(host, group)

        orders = [_Order(driver, leave) for driver in self._secondaries]
        try:
            leave(self.driver)
            if last:
                self._note(group, host, STOPPED if grace.restart() else LEFT)
        finally:
            for order in _done(orders):
                if order.error is not None:
                    LOG.warning(
                        "Could not leave the group %(group)s by the "
                        "secondary driver %(driver)s, %(host)s will be seen "
                        "down there later: %(error)s",
                        {
                            "group": group,
                            "driver": order.driver.name,
                            "host": host,
                            "error": order.error,
                        },
                    )

    def stop_reports(self) -> None:
        """Stop all timers; no member is withdrawn."""
        for lead in list(self._leads.values()):
            lead.left = True
        for one in self._reporters.values():
            one.close()

    # -- what operators say

    def force_down(self, host: str, group: str, forced: bool) -> None:
        """Declare a member down whatever it reports, or take that back.

        :raises MemberNotFound: no backend knows such a member
        :raises BackendError: the primary's backend was not told
        """
        self._tell(
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
        # What operators say does not count; what does is whether it reports.
        if group_view.is_alive(host):
            raise exception.MemberIsUp(
                f"{host} still reports to the group {group}; stop it first"
            )
        self._tell(host, group, lambda one: one.forget(group, host))
        self._note(group, host, NOT_A_MEMBER)

    def _tell(
        self, host: str, group: str, give: Callable[[base.Driver], None]
    ) -> None:
        """Give an order about a member to all backends."""
        orders = [
            _Order(one, give) for one in self._secondaries if one.observes
        ]
        unknown = None
        try:
            give(self.driver)
        except exception.MemberNotFound as error:
            unknown = error
        finally:
            for order in _done(orders):
                if order.error is None:
                    unknown = None
                elif not isinstance(order.error, exception.MemberNotFound):
                    LOG.warning(
                        "The secondary driver %(driver)s does not know what "
                        "was said of %(host)s in the group %(group)s: "
                        "%(error)s. Say it again when it answers",
                        {
                            "driver": order.driver.name,
                            "host": host,
                            "group": group,
                            "error": order.error,
                        },
                    )
        if unknown is not None:
            raise unknown

    def _note(self, group: str, host: str, verdict: Any) -> None:
        """Have this process know at once what it has done itself."""
        if self._observed():
            self.view(group).observer.note_own(host, verdict)

    # -- questions

    def is_up(
        self,
        group: str,
        host: str,
        record: base.Record | None,
        limits: Limits,
    ) -> bool:
        """Whether a member is up.

        :param record: what the asker's record says of it; None: it has none
        :raises ServiceGroupUnavailable: no backend that knows it has answered
            for service_down_time
        """
        if record is None:
            return self.view(group).is_up(host)
        return self.verdict(group, host, record, limits).state == UP

    def accepts(
        self,
        group: str,
        host: str,
        record: base.Record | None,
        limits: Limits,
    ) -> bool:
        """Whether new work may be placed on a member.

        The arguments, and what is raised, are those of is_up().
        """
        return self.verdict(group, host, record, limits).accepting

    def verdict(
        self,
        group: str,
        host: str,
        record: base.Record | None,
        limits: Limits,
    ) -> Verdict:
        """Return the verdict over a member.

        The arguments, and what is raised, are those of is_up().
        """
        if record is None:
            return self.view(group).verdict(host)
        others, left, now = None, NEVER, time.monotonic()
        if not self.only_records:
            observer = self.view(group).observer
            verdict = observer.verdict(host)
            if verdict is FORCED_DOWN:
                return verdict
            others, own = observer.group, observer.own.get(host)
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
                # The record can say nothing newer.
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
        """Return the names of the groups that a backend knows, sorted.

        :raises BackendError: none can be asked
        """
        orders = [
            _Order(one, lambda one: one.groups())
            for one in self._secondaries
            if one.observes
        ]
        trouble, found = None, set()
        try:
            found.update(self.driver.groups())
        except exception.BackendError as error:
            trouble = error
        for order in _done(orders):
            if order.error is None:
                trouble = None
                found.update(order.answer)
        if trouble is not None:
            raise trouble
        return sorted(found)

    def disagreements(self) -> Iterable[disagreements.Disagreement]:
        """Return every kind, for each secondary and group that is viewed."""
        for one in list(self._views.values()):
            for of_secondary in one.disagreements:
                yield from of_secondary

    def close(self) -> None:
        """Stop all threads and close all connections."""
        self.stop_reports()
        for one in list(self._views.values()):
            one.close()
        orders = [_Order(one, _close) for one in self._secondaries]
        _close(self.driver)
        _done(orders)


def _done(orders: list[_Order]) -> list[_Order]:
    """Wait for the answers, for a while."""
    give_up = time.monotonic() + ORDER_WAIT
    for order in orders:
        threads.join(order, max(0.0, give_up - time.monotonic()))
    return orders


def _close(driver: base.Driver) -> None:
    try:
        driver.close()
    except Exception as error:
        # There is no way on from here, and the caller has more to do.
        LOG.warning(
            "Could not close the driver %(driver)s in order: %(error)s",
            {"driver": driver.name, "error": exception.describe(error)},
        )


_shared: dict[str, Shared] = {}
_lock = threading.Lock()
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
    """Return this process's own for a driver, or for several.

    :param name: what configured() says, which is the default
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
                "The secondary driver %(driver)s is not used: %(error)s",
                {"driver": other, "error": error},
            )
    return Shared(*drivers)


def all_disagreements() -> list[disagreements.Disagreement]:
    """Return what the drivers of this process disagree about.

    One entry for each group that is observed, secondary and kind, also
    where there is no disagreement; none without secondaries.
    """
    return [
        found
        for one in list(_shared.values())
        for found in one.disagreements()
    ]


metrics.count_disagreements(all_disagreements)


def on_first_use(call: Callable[[], None]) -> None:
    """Have call() called before a driver is made: again after each fork.

    It may be called more than once in a process.
    """
    global _on_first_use
    _on_first_use = call


def use(name: str, make: Callable[[], base.Driver]) -> None:
    """Have the driver of that name made by make, in this process."""
    _makers[name] = make


def load(name: str) -> base.Driver:
    """Make a driver by its name.

    :raises ConfigError: there is none of that name, or its options are wrong
    """
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
    """Close what this process shares; the next use makes it anew."""
    for one in detach():
        one.close()


def detach() -> list[Shared]:
    """Return what this process shares, to be closed by the caller.

    The next use makes it anew, whether that is before or after.
    """
    with _lock:
        detached = list(_shared.values())
        _shared.clear()
    return detached


def after_fork_in_child() -> None:
    """Start afresh: what the parent shares is not ours.

    Python calls this, where it is Python that forks.
    """
    # The parent's threads do not exist here and its connections are not
    # ours: they are left alone, and kept from being collected, which would
    # close them politely, over the parent's sockets.
    global _shared, _lock
    _parents.append(_shared)
    _shared = {}
    _lock = threading.Lock()
    metrics.start_afresh()


_parents: list[dict[str, Shared]] = []
os.register_at_fork(after_in_child=after_fork_in_child)
