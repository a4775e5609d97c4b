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
from collections.abc import Callable

from nova_sg import exception, servicegroup
from nova_sg.actions import engine, factory, handlers, notifications
from nova_sg.conf import CONF
from nova_sg.servicegroup import description, events

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
    return factory.make_engine(
        group,
        found,
        api,
        tell,
        only=parsed_args.only or CONF.events.only,
        down_for=parsed_args.down_for,
    )


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
