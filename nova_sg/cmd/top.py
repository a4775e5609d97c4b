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

"""nova-sg top: the members on a terminal, those in trouble first."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from typing import Any

import rich.table
from rich import console, live
from rich.text import Text

from nova_sg import exception
from nova_sg.cmd import commands, members
from nova_sg.monitor import overview
from nova_sg.servicegroup import events, process

# What each kind of member looks like; the first kinds come first.
STYLES = {
    "down": "bold red",
    "forced": "bold red",
    "held": "yellow",
    "unwell": "yellow",
    "unknown": "yellow",
    "draining": "cyan",
    "stopped": "cyan",
    "left": "dim",
    "up": "",
}
# What is before the name of a member that is not in trouble; "!" if it is.
MARKS = {"up": "", "left": ".", "draining": "-", "stopped": "-"}
ORDER = {kind: place for place, kind in enumerate(STYLES)}
# Seconds between two pictures.
INTERVAL = 1.0
# The columns that a terminal needs for Group and Binary to be shown, too.
WIDE = 80


class Top(commands.Command):
    """Show a live table on the terminal; members in trouble come first.

    q or Ctrl-C ends it. The arrow keys, Page Up, Page Down and Home scroll.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        members.add_group(parser, "all groups")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise exception.NovaSGError(
                "nova-sg top needs a terminal. For files and other programs "
                "use nova-sg list or nova-sg watch"
            )
        terminal = os.environ.get("TERM", "")
        if terminal in ("", "dumb", "unknown"):
            raise exception.NovaSGError(
                f"this terminal ({terminal or 'TERM is not set'}) cannot "
                "show a table. Set TERM, or use nova-sg list"
            )
        api = self.app.api
        only = [parsed_args.group] if parsed_args.group else None
        table = Table(lambda: only or api.groups())
        try:
            table.run()
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
        self._watches: list[events.Subscription] = []
        self._trouble = ""
        self._stopped = threading.Event()
        self._first = 0

    # -- the members; on a thread of its own, as a backend may hang

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
        """Stop following the groups."""
        self._stopped.set()
        for watch in self._watches:
            watch.cancel()

    def heads(self) -> Iterator[str]:
        """Yield the lines above the table: groups, backends, trouble."""
        for group, view in sorted(self._views.items()):
            kinds = [overview.kind(*one) for one in view.verdicts().values()]
            numbers = ", ".join(
                f"{kinds.count(kind)} {kind}"
                for kind in ORDER
                if kind in kinds
            )
            yield f"{group}: {numbers or 'no members'}"
            for status in view.refresh_statuses():
                if status.answering:
                    yield (
                        f"  {status.driver} answers in "
                        f"{(status.seconds or 0) * 1000:.1f} ms"
                    )
                else:
                    why = status.trouble or "no answer yet"
                    yield f"  {status.driver} does not answer: {why}"
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

    # -- the terminal

    def run(self) -> None:
        """Show the table until q is pressed."""
        threading.Thread(target=self._follow, daemon=True).start()
        # A resize and Ctrl-Z are noticed at once, as a key is.
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        # A name may have characters that the terminal has not.
        out = open(
            os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace"
        )
        with out:
            screen = console.Console(
                file=out, force_terminal=True, force_interactive=True
            )
            signal.signal(signal.SIGTSTP, lambda *_: None)
            while self._show(screen, woken):
                # The terminal is as it was before.
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTSTP)
                signal.signal(signal.SIGTSTP, lambda *_: None)

    def _show(self, screen: console.Console, woken: int) -> bool:
        """Show the table; return whether it is to be suspended."""
        with (
            _unbuffered(),
            live.Live(
                console=screen,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            ) as picture,
        ):
            while True:
                picture.update(self.picture(*screen.size), refresh=True)
                ready = select.select([0, woken], [], [], INTERVAL)[0]
                if woken in ready and signal.SIGTSTP in os.read(woken, 64):
                    return True
                if 0 in ready and self._ends(os.read(0, 1024), screen.height):
                    return False

    def _ends(self, typed: bytes, height: int) -> bool:
        """Scroll as the keys demand; return whether one of them ends it."""
        page = max(1, height - 6)
        # The arrows and Page Up, Page Down: what follows Escape.
        keys = {b"[A": -1, b"[B": 1, b"[5~": -page, b"[6~": page}
        for key, lines in keys.items():
            self._first += typed.count(key) * lines
        if b"[H" in typed or b"[1~" in typed:
            self._first = 0
        # Nothing is read once the terminal is closed.
        return b"q" in typed.lower() or not typed

    def picture(self, width: int, height: int) -> console.Group:
        """Return what is shown on so many columns and lines."""
        rows = self.rows()
        lines = [
            _text(f"nova_sg  {time.strftime('%H:%M:%S')}  q ends", "bold")
        ]
        heads = list(self.heads()) or ["Looking for groups ..."]
        lines += [_text(line) for line in heads[: max(1, height // 3)]]
        room = max(0, height - len(lines) - 1)
        self._first = max(0, min(self._first, len(rows) - room))
        table = rich.table.Table(
            box=None,
            expand=True,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            header_style="reverse",
        )
        table.add_column("", width=1)
        table.add_column("Host", max_width=max(16, width // 3))
        wide = width >= WIDE
        for name in ("Group", "Binary") if wide else ():
            table.add_column(name, max_width=width // 6)
        # As wide as the widest, or the columns move with each picture.
        table.add_column("State", no_wrap=True, min_width=8)
        table.add_column("Age", no_wrap=True, min_width=9, justify="right")
        table.add_column("Reason", ratio=1)
        for kind, host, view in rows[self._first : self._first + room]:
            cells = _row(kind, host, view, wide)
            table.add_row(*map(_text, cells), style=STYLES[kind])
        return console.Group(*lines, table)


@contextlib.contextmanager
def _unbuffered() -> Iterator[None]:
    """Have each key arrive at once, and not shown."""
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _row(kind: str, host: str, view: Any, wide: bool) -> tuple[str, ...]:
    member = view.recall(host)
    if member is None:
        return "", host
    mark = MARKS.get(kind, "!")
    age = "-" if member.age is None else f"{member.age:.1f} s"
    more = (view.group, member.binary or "-") if wide else ()
    reason = member.reason if kind != "up" else ""
    return (mark, host, *more, kind, age, reason)


def _text(text: str, style: str = "") -> Text:
    """Return one line, without characters that control a terminal."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return Text(plain, style, no_wrap=True, overflow="ellipsis")
