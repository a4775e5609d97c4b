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

"""What a process has: its drivers, by name, and what is shared through them.

All API objects of a process use the same connections, caches and threads.
They are made on first use, in the process that uses them: after a fork the
child makes its own.
"""

from __future__ import annotations

import atexit
import functools
import logging as python_logging
import os
import threading
from collections.abc import Callable

from oslo_log import log as logging
from stevedore import driver as stevedore_driver

from nova_sg import config, exception, metrics
from nova_sg.backends import base
from nova_sg.conf import CONF, servicegroup
from nova_sg.servicegroup import (
    disagreements,
    domain_map,
    health,
    health_server,
    health_state,
)
from nova_sg.servicegroup.shared import Shared

LOG = logging.getLogger(__name__)

_shared: dict[str, Shared] = {}
_lock = threading.Lock()
_health_server: health_server.Server | None = None
_on_first_use: Callable[[], None] | None = None
_makers: dict[str, Callable[[], base.Driver]] = {}


def driver_names() -> str:
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

    :param name: the drivers' names, joined by commas; None: driver_names()
    :raises ConfigError: the first driver cannot be loaded
    """
    if name is None:
        name = driver_names()
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
    _be_quiet_at_exit()
    for other in others:
        try:
            drivers.append(load(other))
        except exception.ConfigError as error:
            LOG.error(
                "The secondary driver %(driver)s is not used, as it cannot "
                "be loaded: %(error)s",
                {"driver": other, "error": error},
            )
    return Shared(*drivers, show_health=_show_health)


@functools.cache
def _be_quiet_at_exit() -> None:
    """Have threads not report that Python closes connections as it ends.

    A program may end without closing the API. Called after a driver is
    loaded, as the functions that its modules registered run later then.
    """
    nova_sgs = python_logging.getLogger("nova_sg")
    atexit.register(nova_sgs.setLevel, python_logging.CRITICAL)


def in_use() -> list[Shared]:
    """Return what this process shares: for all drivers used so far."""
    return list(_shared.values())


def all_disagreements() -> list[disagreements.Disagreement]:
    """Return how the drivers of this process disagree.

    There is one entry for each combination of observed group, secondary and
    kind, also if there is no such disagreement; without secondaries there is
    none.
    """
    return [found for one in in_use() for found in one.disagreements()]


metrics.count_disagreements(all_disagreements)


def health_results() -> list[health.Result]:
    """Return what the checks of this process's members have found last."""
    return [result for one in in_use() for result in one.health.results()]


metrics.show_health(health_results)


def _show_health() -> None:
    """Serve /health, once in a process, where that is configured."""
    global _health_server
    address = CONF.servicegroup.health_listen
    if address:
        with _lock:
            if _health_server is None:
                _health_server = health_server.Server(
                    address, lambda: health_state.read(in_use())
                )


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
        made = stevedore_driver.DriverManager(
            servicegroup.NAMESPACE, name, invoke_on_load=True
        ).driver
    except stevedore_driver.NoMatches as error:
        raise exception.ConfigError(
            f"[DEFAULT] servicegroup_driver: there is no driver {name!r}. "
            "Use db, mc or zk, or install the package that has it."
        ) from error
    except exception.NovaSGError:
        raise
    except Exception as error:
        # Of whatever type: it may be another package's.
        raise exception.ConfigError(
            f"[DEFAULT] servicegroup_driver: the driver {name!r} cannot be "
            f"loaded: {exception.describe(error)}. Use another one, or mend "
            "the package that has it"
        ) from error
    if not isinstance(made, base.Driver):
        raise exception.ConfigError(
            f"[DEFAULT] servicegroup_driver: the driver {name!r} is a "
            f"{type(made).__name__}, and no nova_sg.backends.base.Driver"
        )
    return made


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
