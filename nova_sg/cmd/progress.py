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

"""The line on a terminal that shows how far a long task is.

Where the output goes to a file or a pipe there is no such line.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from rich import console, live
from rich import text as rich_text

# Pictures a second: the time that has passed is in them.
RATE = 2


class Progress:
    """One line that is drawn again and again, and wiped at the end.

    A context manager. Outside of a terminal only say() writes.

    :param stream: where the line is shown; standard error if None
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = sys.stderr if stream is None else stream
        self._step = ("", 0, 0)
        self._begun = time.monotonic()
        # FORCE_COLOR and its like make no terminal of a file.
        self._shown = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._console = console.Console(
            file=stream,
            force_terminal=self._shown,
            force_interactive=self._shown,
        )
        self._live = live.Live(
            get_renderable=self._picture,
            console=self._console,
            refresh_per_second=RATE,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Progress:
        self._begun = time.monotonic()
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._live.stop()

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show what is going on now.

        :param done: how many of the steps are done
        :param total: how many steps there are; 0: not known
        """
        self._step = text, done, total
        if self._live.is_started:
            self._live.refresh()

    def note(self, text: str) -> None:
        """Print a text above the line, on a terminal only."""
        if self._shown:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a text above the line, also where there is no terminal."""
        self._console.print(rich_text.Text(text), soft_wrap=True)

    def line(self, seconds: float) -> str:
        """Return the line as it is that many seconds after the beginning."""
        text, done, total = self._step
        # The text comes last: where there is no room it is cut.
        parts = [clock(seconds)]
        if total:
            parts.insert(0, f"[{done}/{total}]")
        if done:
            parts.append(f"({clock(seconds / done * (total - done))} left)")
        return " ".join([*parts, text])

    def _picture(self) -> rich_text.Text:
        line = self._step[0] and self.line(time.monotonic() - self._begun)
        return rich_text.Text(line, no_wrap=True, overflow="crop")


def clock(seconds: float) -> str:
    """Write a time as people do: minutes and seconds, or with hours."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
