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

"""An engine with the limits, the pause and the lock of [events]."""

from __future__ import annotations

import functools
import os
import secrets
import socket
from collections.abc import Callable, Collection, Sequence

from nova_sg import exception, servicegroup
from nova_sg.actions import engine, gate, limits, permission, schedule
from nova_sg.conf import CONF
from nova_sg.servicegroup import events, process


def make_engine(
    group: str,
    acting: Sequence[engine.Handler],
    api: servicegroup.API,
    tell: Callable[[events.Event], None],
    *,
    only: Collection[str],
    down_for: float | None = None,
    parallel: int | None = None,
) -> engine.Engine:
    """Return what acts upon the events of a group, as the options say.

    :param acting: the handlers
    :param tell: called, by any thread, with an event of no member
    :param only: the types of events to act upon
    :param down_for: seconds for which a member has to have been down; None:
        [events] down_for
    :param parallel: actions of one handler at one time; None: [events]
        parallel
    :raises ConfigError: an option is wrong
    """
    rules = _rules()
    if down_for is None:
        down_for = CONF.events.down_for
    gather_for = _gather_for() if rules.counts else 0.0
    guard = gate.Gate(
        limits.Limits(rules, settle=max(down_for, gather_for)),
        functools.partial(engine.known, api, group),
        tell,
    )
    guard.permission = permission.Permission(
        process.shared().driver,
        group,
        _holder() if CONF.events.lock else None,
        max(handler.longest for handler in acting),
        # No call of a driver takes longer than half of service_down_time.
        min(
            permission.MARGIN,
            2 * permission.INTERVAL + CONF.service_down_time / 2,
        ),
        guard.review,
    )
    made = engine.Engine(
        acting,
        lambda: schedule.Schedule(
            only,
            down_for,
            CONF.events.retry_for,
            gather_for=gather_for,
            confirm=guard.confirms,
        ),
        parallel or CONF.events.parallel,
        functools.partial(engine.still_down, api),
        guard,
    )
    guard.permission.start()
    return made


def _rules() -> limits.Rules:
    """Return the limits that the options set.

    :raises ConfigError: an option is wrong
    """
    return limits.Rules(
        _limit("max_down", CONF.events.max_down),
        _limit("max_down_per_domain", CONF.events.max_down_per_domain),
        CONF.events.max_per_hour,
        CONF.events.skip_disabled,
    )


def _limit(name: str, text: str | None) -> limits.Limit | None:
    if not text:
        return None
    try:
        return limits.read_limit(text)
    except ValueError as error:
        raise exception.ConfigError(f"[events] {name}: {error}") from None


def _gather_for() -> float:
    """Return how long it takes until all that died at once are known."""
    if CONF.events.gather_for is not None:
        return CONF.events.gather_for
    # Their last reports were sent within an interval, which varies by a
    # tenth, and are judged at the refresh after their limit.
    return (
        1.25 * CONF.report_interval
        + 2 * CONF.servicegroup.view_refresh_interval
    )


def _holder() -> str:
    """Return what a lock shows if this process holds it."""
    # Not CONF.host: in masakari-hostmonitor that is a section of its own.
    host = socket.gethostname()[:150]
    return f"{host}/{os.getpid()}/{secrets.token_hex(8)}"
