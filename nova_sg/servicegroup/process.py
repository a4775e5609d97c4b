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

import os
import threading
from collections.abc import Callable

from stevedore import driver as stevedore_driver

from nova_sg import exception, metrics
from nova_sg.conf import CONF
from nova_sg.servicegroup import reporter, view
from nova_sg.servicegroup.drivers import base

NAMESPACE = "nova_sg.servicegroup.drivers"


class Shared:
    """A driver with what works on it."""

    def __init__(self, driver: base.Driver) -> None:
        self.driver = driver
        self.reporter = reporter.Reporter(driver)
        self._views: dict[str, view.GroupView] = {}
        self._lock = threading.Lock()

    def view(self, group: str) -> view.GroupView:
        """Return the view of a group, made on first use."""
        found = self._views.get(group)
        if found is None:
            with self._lock:
                found = self._views.setdefault(
                    group, view.GroupView(group, self.driver)
                )
        return found

    def close(self) -> None:
        """Stop all threads and close all connections."""
        self.reporter.close()
        for one in self._views.values():
            one.close()
        self.driver.close()


_shared: dict[str, Shared] = {}
_lock = threading.Lock()
_makers: dict[str, Callable[[], base.Driver]] = {}


def shared(name: str | None = None) -> Shared:
    """Return this process's own for a driver.

    :param name: the driver; by default the one that is configured
    :raises ConfigError: the driver cannot be loaded
    """
    if name is None:
        name = CONF.servicegroup_driver
    found = _shared.get(name)
    if found is None:
        with _lock:
            found = _shared.get(name)
            if found is None:
                found = _shared[name] = Shared(load(name))
    return found


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
