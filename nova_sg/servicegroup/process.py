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

"""What one process shares: one driver, one reporter, one view a group.

However many API objects a process makes, they all work with the same
connections, caches and threads, made when they are first needed and in the
process that needs them: a child starts afresh after a fork.
"""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

from oslo_log import log as logging
from stevedore import driver as stevedore_driver

from nova_sg import config, exception, metrics
from nova_sg.conf import CONF
from nova_sg.servicegroup import records, reporter, view
from nova_sg.servicegroup.drivers import base
from nova_sg.servicegroup.several import shared as several

LOG = logging.getLogger(__name__)

# So many stalls are kept for views that are not there yet.
STALLS = 100

NAMESPACE = "nova_sg.servicegroup.drivers"


class Shared:
    """A driver with what works on it."""

    def __init__(self, driver: base.Driver) -> None:
        self.driver = driver
        #: The drivers, the primary first.
        self.names = [driver.name]
        self.reporter = reporter.Reporter(driver, self._stall)
        #: What excuses whose record has grown old.
        self.records = records.Records()
        self._views: dict[str, view.GroupView] = {}
        self._lock = threading.Lock()
        # When our own reports did not get through, for views that are made
        # later: by group and source, the arguments of GroupView.stall().
        self._stalls: collections.deque = collections.deque(maxlen=STALLS)

    def view(self, group: str) -> view.GroupView:
        """Return the view of a group, made on first use."""
        found = self._views.get(group)
        if found is None:
            with self._lock:
                found = self._views.get(group)
                if found is None:
                    found = view.GroupView(group, self.driver)
                    for theirs, *stall in self._stalls:
                        self._pass_on(found, theirs, stall)
                    self._views[group] = found
        return found

    def _stall(
        self,
        group: str,
        source: Hashable,
        begin: float,
        end: float,
        over: bool,
    ) -> None:
        """Tell the views that reports to a group did not get through."""
        stall = source, begin, end, over
        self.records.stall(*stall)
        with self._lock:
            for old in list(self._stalls):
                if old[1:3] == stall[:2]:
                    self._stalls.remove(old)
            self._stalls.append((group, *stall))
            for one in self._views.values():
                self._pass_on(one, group, stall)

    def _pass_on(self, to: view.GroupView, group: str, stall) -> None:
        if self.driver.backend_of(to.group) == self.driver.backend_of(group):
            to.stall(*stall)

    # -- reports

    def join(
        self,
        host: str,
        group: str,
        service: Any,
        report: Callable[[Any], None],
    ) -> None:
        """Join a group: see Reporter.join()."""
        self.reporter.join(host, group, service, report)
        self.view(group).expire()

    def report_state(self, service: Any) -> None:
        """Report for a service that joined: what its timer calls."""
        self.reporter.report_state(service)

    def leave(self, host: str, group: str, last: bool = True) -> None:
        """Leave a group.

        :param last: whether no other process is left that has joined as the
            same member; who is not the last one says nothing, where the
            backend takes the word of any of them for all
        :raises BackendError: the word did not get through
        """
        if last or self.driver.apart:
            self.reporter.leave(host, group)
            self.view(group).expire()

    def stop_reports(self) -> None:
        """Stop all timers; nobody is withdrawn."""
        self.reporter.close()

    # -- what operators say

    def force_down(self, host: str, group: str, forced: bool) -> None:
        """Declare a member down whatever it reports, or take that back.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the word did not get through
        """
        self.driver.force_down(group, host, forced)
        self.view(group).expire()

    def forget(self, host: str, group: str) -> None:
        """Remove a member that is not up from a group.

        :raises MemberNotFound: the group has no such member
        :raises MemberIsUp: it is up
        :raises ServiceGroupUnavailable: nobody can say whether it is up
        :raises BackendError: the word did not get through
        """
        group_view = self.view(group)
        group_view.refresh()
        # Forced down is a word of operators; what counts is whether it
        # reports.
        if group_view.is_alive(host):
            raise exception.MemberIsUp(
                f"{host} still reports to the group {group}; stop it first"
            )
        self.remove(host, group)

    def remove(self, host: str, group: str) -> None:
        """Remove a member, up or not.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the word did not get through
        """
        self.driver.forget(group, host)
        self.view(group).expire()

    # -- questions

    def groups(self) -> list[str]:
        """Return the names of all known groups, sorted.

        :raises BackendError: the backend cannot be asked
        """
        return sorted(self.driver.groups())

    def disagreements(self) -> list[several.Disagreement]:
        """Return what drivers disagree about: one agrees with itself."""
        return []

    def close(self) -> None:
        """Stop all threads and close all connections."""
        self.reporter.close()
        for one in self._views.values():
            one.close()
        try:
            self.driver.close()
        except Exception as error:
            # There is no way on from here, and whoever closes has more to do.
            LOG.warning(
                "Could not close the driver %(driver)s in order: %(error)s",
                {
                    "driver": self.driver.name,
                    "error": exception.describe(error),
                },
            )


_shared: dict[str, Shared | several.Several] = {}
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


def shared(name: str | None = None) -> Shared | several.Several:
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


def _make(name: str) -> Shared | several.Several:
    first, *others = name.split(",")
    primary = Shared(load(first))
    secondaries = []
    for other in others:
        try:
            secondaries.append(Shared(load(other)))
        except exception.ConfigError as error:
            LOG.error(
                "The secondary driver %(driver)s is not used: %(error)s",
                {"driver": other, "error": error},
            )
    if not secondaries:
        return primary
    return several.Several(primary, secondaries)


def disagreements() -> list[several.Disagreement]:
    """Return what the drivers of this process disagree about.

    One entry for each group that is looked at, secondary and kind, also
    where there is no disagreement; none without secondaries.
    """
    return [
        found
        for one in list(_shared.values())
        for found in one.disagreements()
    ]


metrics.count_disagreements(disagreements)


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


def detach() -> list[Shared | several.Several]:
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


_parents: list[dict[str, Shared | several.Several]] = []
os.register_at_fork(after_in_child=after_fork_in_child)
