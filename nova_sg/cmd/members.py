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

"""nova-sg list, show, is-up, force-down, forget."""

from __future__ import annotations

import argparse
import os
import re

from cliff import columns, lister, show

from nova_sg import exception
from nova_sg.cmd import commands
from nova_sg.conf import CONF
from nova_sg.liveness import model
from nova_sg.servicegroup import description, events

# Causes of up that List shows no reason for.
PLAIN = (model.REPORTED.cause, model.REGISTERED.cause)


class LastSeen(columns.FormattableColumn):
    """A moment in UTC; in ISO 8601 for programs."""

    def human_readable(self) -> str:
        if self._value is None:
            return "-"
        return f"{self._value:%Y-%m-%d %H:%M:%S} UTC"

    def machine_readable(self) -> str | None:
        return events.iso(self._value)


class Age(columns.FormattableColumn):
    """An age in seconds; in a suitable unit for people."""

    def human_readable(self) -> str:
        if self._value is None:
            return "-"
        for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
            if self._value >= 2 * seconds:
                return f"{self._value / seconds:.0f} {unit}"
        return f"{self._value:.1f} s"

    def machine_readable(self) -> float | None:
        return None if self._value is None else round(self._value, 3)


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Return the seconds of a duration such as 90s, 30m, 12h or 7d.

    :raises ArgumentTypeError: it is none
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration; write 90s, 30m, 12h or 7d"
        )
    return float(found[1]) * UNITS[found[2]]


def add_group(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --group."""
    parser.add_argument(
        "--group", metavar="G", help=f"The group (default: {default})."
    )


class OfMember(commands.Command):
    """A command for one member: it takes HOST and --group."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="The member's name.")
        add_group(parser, "the option topic, compute")
        return parser


# The columns of List and Show.
COLUMNS = (
    "Host",
    "Topic",
    "Binary",
    "State",
    "Last Seen",
    "Age",
    "Forced Down",
)


def _cells(member: description.Member) -> tuple:
    return (
        member.host,
        member.topic,
        member.binary or "",
        member.state,
        LastSeen(member.last_seen),
        Age(member.age),
        member.forced_down,
    )


class List(commands.Command, lister.Lister):
    """List the members of a group, or of all groups.

    Members that were removed (nova-sg forget) are not listed. With secondary
    drivers, a column shows the driver that each verdict is from.
    """

    COLUMNS = (*COLUMNS, "Reason")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group()
        add_group(which, "all groups")
        which.add_argument(
            "--all", action="store_true", help="List all groups (the default)."
        )
        parser.add_argument(
            "--long",
            action="store_true",
            help="Show the failure domain of each member, too.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        api = self.app.api
        groups = [parsed_args.group] if parsed_args.group else api.groups()
        members = [one for group in groups for one in api.members(group)]
        if not members and parsed_args.formatter == "table":
            where = "in any group"
            if parsed_args.group:
                where = f"in the group {parsed_args.group}"
            print(f"There are no members {where}", file=self.app.stderr)
        columns: tuple[str, ...] = self.COLUMNS
        rows = list(map(self._row, members))
        more: list[tuple[str, list[str]]] = []
        if parsed_args.long:
            domains = [member.domain or "" for member in members]
            more.append(("Failure Domain", domains))
        if CONF.servicegroup.secondary_drivers:
            more.append(("Driver", [member.driver for member in members]))
        for name, cells in more:
            columns = (*columns, name)
            rows = [
                (*row, cell) for row, cell in zip(rows, cells, strict=True)
            ]
        return columns, rows

    def _row(self, member: description.Member) -> tuple:
        reasons = [] if member.cause in PLAIN else [member.reason]
        if member.disabled:
            why = member.disabled_reason
            reasons.append(f"disabled: {why}" if why else "disabled")
        return (*_cells(member), "; ".join(reasons))


class Show(OfMember, show.ShowOne):
    """Show one member, and why it is up or down."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        group = parsed_args.group or CONF.topic
        api, host = self.app.api, parsed_args.host
        member = api.member(group, host)
        others = [
            (f"By {state.driver}", _describe_state(state))
            for state in api.backend_states(group, host)
            if CONF.servicegroup.secondary_drivers
        ]
        return (
            (
                *COLUMNS,
                "Disabled",
                "Disabled Reason",
                "Failure Domain",
                "Driver",
                "Reason",
                *(name for name, _ in others),
            ),
            (
                *_cells(member),
                member.disabled,
                member.disabled_reason or "",
                member.domain or "",
                member.driver,
                member.reason,
                *(text for _, text in others),
            ),
        )


def _describe_state(state: description.BackendState) -> str:
    if state.member is None:
        return state.trouble or "not a member"
    text = f"{state.member.state}: {state.member.reason}"
    return f"{text} ({state.trouble})" if state.trouble else text


class IsUp(OfMember):
    """Print up, down or unknown; the exit status is 0, 1 or 2."""

    STATUS = {model.UP: 0, model.DOWN: 1, model.UNKNOWN: 2}

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        group = parsed_args.group or CONF.topic
        state = model.UNKNOWN
        try:
            state = self.app.api.member(group, parsed_args.host).state
        except Exception as error:
            # Any error means that the state is not known.
            self.app.LOG.error("%s", exception.describe(error))
        print(state, file=self.app.stdout)
        return self.STATUS[state]


class ForceDown(OfMember):
    """Force a member down, whatever it reports."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--unset",
            action="store_true",
            help="End it: the member is up again if it reports.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.app.api.force_down(
            parsed_args.host,
            parsed_args.group or CONF.topic,
            forced=not parsed_args.unset,
        )


class Withdraw(commands.Command):
    """Note that a member's process has ended without leaving its group.

    As a crash guard does: the member is down at once, with the cause crashed,
    until it reports again. If it has left, or is no member, nothing changes.
    No process of the member may run.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "host",
            metavar="HOST",
            nargs="?",
            help="The member's name (default: the option host).",
        )
        add_group(parser, "the option topic, compute")
        parser.add_argument(
            "--if-crashed",
            action="store_true",
            help="Only if systemd says that the service has failed: for "
            "ExecStopPost= of its unit.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if parsed_args.if_crashed:
            result = os.environ.get("SERVICE_RESULT")
            if result is None:
                raise exception.ConfigError(
                    "--if-crashed needs the variable SERVICE_RESULT, which "
                    "systemd sets for ExecStopPost="
                )
            if result == "success":
                return
        self.app.api.note_crash(
            parsed_args.host or CONF.host, parsed_args.group or CONF.topic
        )


class Forget(commands.Command):
    """Remove a member that is down for good, or all that are stale.

    With --stale the members that are removed are printed, one a line. A
    member that is forced down stays: end that first, or name the member.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "host", metavar="HOST", nargs="?", help="The member's name."
        )
        which.add_argument(
            "--stale",
            metavar="AGE",
            type=duration,
            help="Remove all members that are down and whose last report is "
            "at least so old: 90s, 30m, 12h, 7d.",
        )
        add_group(parser, "the option topic, compute")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="With --stale: only print which members would be removed.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        group = parsed_args.group or CONF.topic
        api = self.app.api
        if parsed_args.stale is None:
            if parsed_args.dry_run:
                raise exception.ConfigError("--dry-run needs --stale")
            api.forget(parsed_args.host, group)
            return
        for host in api.stale(group, parsed_args.stale):
            if not parsed_args.dry_run:
                try:
                    api.forget(host, group)
                except (exception.MemberIsUp, exception.MemberNotFound):
                    # It reports again, or another process removed it.
                    continue
            print(host, file=self.app.stdout)
        unknown = sum(
            member.state == model.UNKNOWN for member in api.members(group)
        )
        if unknown:
            print(
                f"{unknown} members of the group {group} are unknown, and "
                "are not removed",
                file=self.app.stderr,
            )
