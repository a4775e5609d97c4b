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

"""How `nova-sg watch` acts upon events, by its arguments and [events]."""

from __future__ import annotations

import argparse
import functools
import os
import secrets
from collections.abc import Callable

from nova_sg import exception, servicegroup
from nova_sg.actions import (
    engine,
    gate,
    handlers,
    limits,
    notifications,
    permission,
    schedule,
)
from nova_sg.conf import CONF
from nova_sg.servicegroup import description, events, process

TYPES = (
    *(events.JOINED, events.UP, events.DOWN, events.LEFT, events.HELD),
    *(events.DRAINING, events.UNWELL, events.STOPPED),
    events.SUSPENDED,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that set how to act upon events."""
    parser.add_argument(
        "--exec",
        dest="command",
        metavar="CMD",
        help="Run a command for each event; it gets the event as JSON on its "
        "standard input (default: [events] exec).",
    )
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help="Post each event to a URL, as JSON (default: [events] webhook).",
    )
    parser.add_argument(
        "--notify",
        action="store_true",
        help="Send each event to a message queue, in the form of Nova's "
        "versioned notifications (default: [events] notifications).",
    )
    parser.add_argument(
        "--only",
        metavar="TYPE",
        action="append",
        choices=TYPES,
        help=f"Act only upon events of this type: {', '.join(TYPES)}; may be "
        "given several times (default: [events] only).",
    )
    parser.add_argument(
        "--for",
        dest="down_for",
        metavar="S",
        type=seconds,
        help="Act upon a down event only after the member has been down for S "
        "seconds (default: [events] down_for).",
    )


def make_engine(
    parsed_args: argparse.Namespace,
    api: servicegroup.API,
    tell: Callable[[events.Event], None],
) -> engine.Engine | None:
    """Return what acts upon events; None: no action is configured.

    :param tell: called, by any thread, with an event of no member
    :raises ConfigError: an argument or option is wrong
    """
    group = parsed_args.group or CONF.topic
    command = parsed_args.command or CONF.events.exec
    webhook = parsed_args.webhook or CONF.events.webhook
    found: list[engine.Handler] = []
    if command:
        found.append(handlers.Command(command, CONF.events.time_limit))
    if webhook:
        found.append(
            handlers.Webhook(
                webhook, CONF.events.time_limit, CONF.events.webhook_token
            )
        )
    if parsed_args.notify or CONF.events.notifications:
        found.append(
            notifications.Notifications(
                _files(),
                CONF.events.time_limit,
                CONF.events.parallel,
                CONF.host,
                functools.partial(_about, api),
            )
        )
    if not found:
        return None
    rules = _rules()
    down_for = parsed_args.down_for
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
        max(handler.longest for handler in found),
        # No call of a driver takes longer than half of service_down_time.
        min(
            permission.MARGIN,
            2 * permission.INTERVAL + CONF.service_down_time / 2,
        ),
        guard.review,
    )
    only = parsed_args.only or CONF.events.only
    made = engine.Engine(
        found,
        lambda: schedule.Schedule(
            only,
            down_for,
            CONF.events.retry_for,
            gather_for=gather_for,
            confirm=guard.confirms,
        ),
        CONF.events.parallel,
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
    return f"{CONF.host[:150]}/{os.getpid()}/{secrets.token_hex(8)}"


def _files() -> list[str]:
    """Return the arguments that name the files this process has read."""
    files = [f"--config-file={name}" for name in CONF.config_file]
    return files + [f"--config-dir={name}" for name in CONF.config_dir]


def _about(
    api: servicegroup.API, group: str, host: str
) -> description.Member | None:
    try:
        return api.member(group, host)
    except exception.NovaSGError:
        return None


def seconds(text: str) -> float:
    """Read a number of seconds, 0 or more.

    :raises ArgumentTypeError: the text is something else
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds, 0 or more"
        )
    return value
