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

"""nova-sg top: who is in trouble, on a terminal, as it changes."""

from __future__ import annotations

import argparse
import curses
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from cliff import command

from nova_sg import exception
from nova_sg.cmd import members
from nova_sg.monitor import overview
from nova_sg.servicegroup import events, process

# Who needs a look first comes first.
ORDER = {
    kind: place
    for place, kind in enumerate(
        ("down", "forced", "held", "unknown", "left", "up")
    )
}
COLUMNS = "{:1} {:<28} {:<16} {:<18} {:<8} {:>9}  {}"
# Seconds between two pictures.
INTERVAL = 1.0


class Top(command.Command):
    """Show a live table on the terminal, those in trouble first.

    q or Ctrl-C ends it; arrows and Page Up, Page Down scroll.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_group(parser, "all groups")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise exception.NovaSGError(
                "nova-sg top needs a terminal; nova-sg list and nova-sg "
                "watch are for files and other programs"
            )
        api = self.app.api
        only = [parsed_args.group] if parsed_args.group else None
        table = Table(lambda: only or api.groups())
        # Otherwise curses waits a second after Escape.
        os.environ.setdefault("ESCDELAY", "25")
        try:
            curses.wrapper(table.run)
        except curses.error as error:
            raise exception.NovaSGError(
                f"this terminal ({os.environ.get('TERM', 'no TERM is set')}) "
                f"cannot show the table: {error}"
            ) from None
        except KeyboardInterrupt:
            pass
        finally:
            table.stop()
        return 0


class Table:
    """The members of some groups as rows, from memory.

    :param groups: returns the groups' names; may take long, or raise
    """

    def __init__(self, groups) -> None:
        self._groups = groups
        self._views: dict[str, Any] = {}
        self._watches: list[events.Watch] = []
        self._trouble = ""
        self._stopped = threading.Event()
        self._top = 0

    # -- what there is; on a thread of its own, as a backend may hang

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                for group in self._groups():
                    if group not in self._views:
                        view = process.shared().view(group)
                        self._watches.append(view.watch(lambda event: None))
                        self._views[group] = view
                self._trouble = ""
            except Exception as error:
                # It would end the thread, and the table would stand still.
                self._trouble = exception.describe(error)
            self._stopped.wait(5)

    def stop(self) -> None:
        """Follow nobody any longer."""
        self._stopped.set()
        for watch in self._watches:
            watch.cancel()

    def heads(self) -> Iterator[str]:
        """Yield a line a group."""
        for group, view in sorted(self._views.items()):
            kinds = [overview.kind(*one) for one in view.verdicts().values()]
            numbers = ", ".join(
                f"{kinds.count(kind)} {kind}"
                for kind in ORDER
                if kind in kinds
            )
            yield f"{group}: {numbers or 'no members'}"
            for looking in view.lookings():
                if looking.answering:
                    yield (
                        f"  {looking.driver} answers in "
                        f"{(looking.seconds or 0) * 1000:.1f} ms"
                    )
                else:
                    why = looking.trouble or "no answer yet"
                    yield f"  {looking.driver} does not answer: {why}"
        if self._trouble:
            yield f"The groups cannot be listed: {self._trouble}"

    def rows(self) -> list[tuple[str, str, Any]]:
        """Return (kind, host, view) of all members, trouble first."""
        found = [
            (overview.kind(*verdict), host, view)
            for _, view in sorted(self._views.items())
            for host, verdict in view.verdicts().items()
        ]
        return sorted(
            found, key=lambda row: (ORDER[row[0]], row[2].group, row[1])
        )

    # -- how it looks

    def run(self, screen: Any) -> None:
        """Show it until q is pressed."""
        threading.Thread(target=self._follow, daemon=True).start()
        _begin(screen)
        while True:
            self._draw(screen)
            key = screen.getch()
            if key in (ord("q"), ord("Q")):
                return
            page = max(1, screen.getmaxyx()[0] - 6)
            self._top += {
                curses.KEY_DOWN: 1,
                curses.KEY_UP: -1,
                curses.KEY_NPAGE: page,
                curses.KEY_PPAGE: -page,
            }.get(key, 0)
            if key == curses.KEY_HOME:
                self._top = 0

    def _draw(self, screen: Any) -> None:
        height, width = screen.getmaxyx()
        rows = self.rows()
        lines: list[tuple[str, int]] = [
            (f"nova_sg  {time.strftime('%H:%M:%S')}  q ends", curses.A_BOLD)
        ]
        heads = list(self.heads()) or ["Looking ..."]
        lines += [(line, 0) for line in heads[: max(1, height // 3)]]
        head = COLUMNS.format(
            "", "Host", "Group", "Binary", "State", "Age", "Reason"
        )
        lines.append((head.ljust(width), curses.A_REVERSE))
        room = max(0, height - len(lines))
        self._top = max(0, min(self._top, len(rows) - room))
        for kind, host, view in rows[self._top : self._top + room]:
            lines.append((_row(kind, host, view), _attribute(kind)))
        screen.erase()
        for y, (text, attribute) in enumerate(lines[:height]):
            # The last column of the last line cannot be written.
            screen.insnstr(y, 0, plain(text), width, attribute)
        screen.refresh()


def _begin(screen: Any) -> None:
    screen.timeout(int(INTERVAL * 1000))
    try:
        curses.curs_set(0)
        curses.use_default_colors()
        curses.init_pair(1, curses.COLOR_RED, -1)
        curses.init_pair(2, curses.COLOR_YELLOW, -1)
    except curses.error:
        # A terminal without colours, or without a cursor to hide.
        pass


def _attribute(kind: str) -> int:
    if kind in ("down", "forced"):
        return curses.color_pair(1) | curses.A_BOLD
    if kind in ("held", "unknown"):
        return curses.color_pair(2)
    return curses.A_DIM if kind == "left" else curses.A_NORMAL


def _row(kind: str, host: str, view: Any) -> str:
    member = view.recall(host)
    if member is None:
        return f"  {host}"
    mark = {"up": "", "left": "."}.get(kind, "!")
    age = "-" if member.age is None else f"{member.age:.1f} s"
    return COLUMNS.format(
        *(mark, host, view.group, member.binary or "-", kind, age),
        member.reason if kind != "up" else "",
    )


def plain(text: str) -> str:
    """Return a text that does nothing to a terminal but to be there."""
    return "".join(c if c.isprintable() else "?" for c in text)
