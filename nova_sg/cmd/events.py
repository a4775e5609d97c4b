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

"""nova-sg watch and wait."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import queue
import signal
import sys
import threading
import time

from oslo_service import systemd

from nova_sg import exception, observer, poller
from nova_sg.actions import pause
from nova_sg.cmd import actions, commands, members
from nova_sg.conf import CONF
from nova_sg.liveness import model
from nova_sg.servicegroup import events, process

# Events that wait to be printed, at most.
WAITING = 1000


class Watch(commands.Command):
    """Print a line for each event of a group, until interrupted.

    With --exec, --webhook or --notify, or the options of [events], also act
    upon each event.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_group(parser, "the option topic, compute")
        parser.add_argument(
            "-f",
            "--format",
            choices=("text", "json"),
            default="text",
            help="Print each event as a line of text or as a JSON object.",
        )
        actions.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        # The log is all that reports a backend that does not answer.
        for module in (observer, poller):
            logging.getLogger(module.__name__).setLevel(logging.NOTSET)
        # A signal handler may put() while get() runs.
        received: queue.SimpleQueue = queue.SimpleQueue()
        ending = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            # The terminal is gone. nohup has SIGHUP ignored.
            ending.append(signal.SIGHUP)
        for signo in ending:
            signal.signal(signo, lambda *_: received.put(None))
        room = threading.Semaphore(WAITING)

        def receive(event: events.Event) -> None:
            # While this waits, the subscription logs that it is slow.
            room.acquire()
            received.put(event)

        acting = actions.make_engine(parsed_args, self.app.api, receive)
        watch = self.app.api.watch(parsed_args.group or CONF.topic, receive)
        write = _json if parsed_args.format == "json" else _text
        # For a unit with Type=notify.
        systemd.notify_once()
        try:
            while (event := received.get()) is not None:
                room.release()
                if acting is not None:
                    acting.put(event)
                print(write(event), file=self.app.stdout, flush=True)
        finally:
            watch.cancel()
            if acting is not None:
                acting.close(CONF.events.time_limit)
        return 0


def _text(event: events.Event) -> str:
    # Some are about the group.
    what = f"{event.type} {event.host}".rstrip()
    return f"{events.iso(event.at)} {what} ({event.reason})"


def _json(event: events.Event) -> str:
    return json.dumps(events.as_dict(event))


class Pause(commands.Command):
    """Have no nova-sg watch act upon events of a group, until nova-sg resume.

    Events are printed all the same. Actions that are under way go on.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_group(parser, "the option topic, compute")
        parser.add_argument(
            "--for",
            dest="seconds",
            metavar="S",
            type=actions.seconds,
            help="Resume by itself after S seconds (default: never).",
        )
        parser.add_argument(
            "--reason",
            metavar="TEXT",
            default="",
            help="Why, for others.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        now, until = datetime.datetime.now(datetime.UTC), None
        if parsed_args.seconds is not None:
            try:
                until = now + datetime.timedelta(seconds=parsed_args.seconds)
            except OverflowError:
                until = None
        reason = " ".join(parsed_args.reason.split())[: pause.LONGEST]
        made = pause.Pause(CONF.host, now, until, reason)
        process.shared().driver.write_note(
            parsed_args.group or CONF.topic, pause.write(made)
        )


class Resume(commands.Command):
    """End nova-sg pause: what is down then is acted upon."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_group(parser, "the option topic, compute")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        process.shared().driver.write_note(
            parsed_args.group or CONF.topic, ""
        )


class Wait(members.OfMember):
    """Wait until a member is up, or down.

    The exit status is 0 if it is, and 1 if the time is over before.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--for",
            dest="state",
            choices=(model.UP, model.DOWN),
            required=True,
            help="The state to wait for.",
        )
        parser.add_argument(
            "--timeout",
            metavar="S",
            type=actions.seconds,
            help="Give up after S seconds (default: never).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        group = parsed_args.group or CONF.topic
        give_up = time.monotonic() + (
            parsed_args.timeout
            if parsed_args.timeout is not None
            else float("inf")
        )
        pause = min(0.5, CONF.servicegroup.view_refresh_interval)
        while True:
            problem = ""
            self.app.api.refresh(group)
            try:
                member = self.app.api.member(group, parsed_args.host)
                if member.state == parsed_args.state:
                    return 0
                problem = f"it is {member.state}: {member.reason}"
            except (
                exception.MemberNotFound,
                exception.ServiceGroupUnavailable,
            ) as error:
                # The member may join, and the backend may answer again.
                problem = str(error)
            left = give_up - time.monotonic()
            if left <= 0:
                print(
                    f"{parsed_args.host} is not {parsed_args.state} after "
                    f"{parsed_args.timeout:g} s: {problem}",
                    file=sys.stderr,
                )
                return 1
            time.sleep(min(pause, left))
