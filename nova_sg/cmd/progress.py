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


"""What takes long says what it is doing: one line, on a terminal alone.

Where the output goes to a file or a pipe there is none of it.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TextIO

from nova_sg import threads

# Seconds between two pictures: the time that has passed is in them.
PACE = 0.5


class Progress:
    """One line that is written over and over, and wiped at the end.

    A context manager. All of it does nothing but on a terminal.

    :param stream: where it is shown; standard error if None
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = (
            self._stream.isatty() and os.environ.get("TERM") != "dumb"
        )
        self._lock = threading.Lock()
        self._text = ""
        self._done = self._total = 0
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        self._begun = time.monotonic()
        if self._shown:
            self._thread = threading.Thread(
                target=self._run, name="nova-sg-progress", daemon=True
            )
            self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._stop.set()
        if self._thread is not None:
            threads.join(self._thread, 5)
            with self._lock:
                self._write("")

    def step(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say what is going on now.

        :param done: how many steps are done, of total; 0: nobody knows
        """
        with self._lock:
            self._text, self._done, self._total = text, done, total
            self._draw()

    def note(self, text: str) -> None:
        """Show what stays, above the line."""
        if self._shown:
            self.say(text)

    def say(self, text: str) -> None:
        """Write what stays, above the line; not on terminals alone."""
        with self._lock:
            self._write("")
            self._stream.write(f"{text}\n")
            self._draw()

    def line(self, seconds: float) -> str:
        """Return the line, so many seconds after the beginning."""
        # The text comes last: where there is no room it is cut.
        parts = [clock(seconds)]
        if self._total:
            parts.insert(0, f"[{self._done}/{self._total}]")
        if self._done:
            left = seconds / self._done * (self._total - self._done)
            parts.append(f"({clock(left)} left)")
        return " ".join([*parts, self._text])

    def _run(self) -> None:
        while not self._stop.wait(PACE):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._text and self._thread is not None:
            self._write(self.line(time.monotonic() - self._begun))

    def _write(self, text: str) -> None:
        # One that does not fit would be left behind when it is wiped.
        width = shutil.get_terminal_size().columns - 1
        if self._shown:
            self._stream.write(f"\r{text[:width]}\x1b[K")
        self._stream.flush()


def clock(seconds: float) -> str:
    """Write a time as people do: minutes and seconds, or with hours."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
