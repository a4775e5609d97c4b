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


"""Running a command of the operator's, without a shell, for a limited time.

It works on native threads and on green ones, and blocks no other of them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from nova_sg import exception, threads

# Bytes of a command's output that are kept: the last ones. A command that
# prints without end fills no memory.
OUTPUT = 8192


class CannotRun(Exception):
    """The command could not be started; its text says why."""


class TimeIsOver(Exception):
    """The command was killed, as it had not ended in time."""


class Ended(NamedTuple):
    """How a command ended."""

    #: Its exit status; below zero: the signal that ended it.
    status: int
    #: The end of what it printed, to its standard output and error.
    output: str


def split(line: str, option: str) -> list[str]:
    """Return a command and its arguments, quoted as for a shell.

    :param option: the option that has the line, for errors
    :raises ConfigError: the line cannot be read
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise exception.ConfigError(f"{option}: {error} in {line!r}") from None
    if not words:
        raise exception.ConfigError(f"{option}: there is no program")
    return words


class Command:
    """A command that can be run again and again, one run at a time.

    :param words: the program and its arguments
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._killed = False
        # While it is certain that no other process has its id.
        self._process: subprocess.Popen | None = None

    def run(
        self,
        limit: float,
        given: bytes = b"",
        variables: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run it to its end, and to that of all that print for it.

        :param limit: seconds after which it is killed, with its process group
        :param given: its standard input
        :param variables: more environment variables
        :raises CannotRun: it cannot be started
        :raises TimeIsOver: it was killed
        """
        give_up = time.monotonic() + limit
        with self._lock:
            process = self._process = self._start(variables)
        reader = _Reader(process.stdout)
        threading.Thread(
            target=_write, args=[process.stdin, given], daemon=True
        ).start()
        threads.join(reader, limit)
        if reader.is_alive() or not self._ends(process, give_up):
            self._kill()
            process.wait()
            raise TimeIsOver(f"not done after {limit:g} s, killed")
        return Ended(process.returncode, reader.text())

    def kill(self) -> None:
        """Kill the run that there is, and let no other begin."""
        self._killed = True
        self._kill()

    def _start(self, variables: Mapping[str, str] | None) -> subprocess.Popen:
        if self._killed:
            raise CannotRun("it was stopped")
        try:
            return subprocess.Popen(
                self._words,
                # Its pipes are read and written at once.
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(variables or {})},
                # Its own processes are killed with it.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CannotRun(str(error)) from error

    def _ends(self, process: subprocess.Popen, give_up: float) -> bool:
        """Whether a command that has closed its output ends in time."""
        while True:
            with self._lock:
                if process.poll() is not None:
                    self._process = None
                    return True
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.005)

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process = None


class _Reader(threading.Thread):
    """Reads what a command prints; keeps the end of it."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(name="nova-sg-command", daemon=True)
        self._pipe = pipe
        self._kept = b""
        self.start()

    def run(self) -> None:
        assert self._pipe is not None
        with contextlib.suppress(OSError, ValueError), self._pipe as pipe:
            while some := pipe.read(OUTPUT):
                self._kept = (self._kept + some)[-OUTPUT:]

    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()


def _write(pipe: IO[bytes], given: bytes) -> None:
    # A command need not read it.
    with contextlib.suppress(OSError, ValueError), pipe:
        while given:
            given = given[pipe.write(given) :]
