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

"""``nova-sg-exec --guard``: the parent of a service, and its crash guard.

It starts the command, forwards signals to it, waits for its end, and ends with
its status. Before that it withdraws what the service had joined, if it ended
without leaving. So it may be the first process of a container, which ends with
it, and then it also takes the place of an init process: it waits for processes
that have lost their parents.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Sequence

from nova_sg.guard import main, registry

# Those of a terminal's keys reach the command anyway.
_FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGWINCH,
}
_ENDING = {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
# The si_code of signals that a process sent is at most this; the kernel's,
# such as for a terminal's keys, are greater.
_FROM_PROCESS = 0
# Bytes of a message; it has two descriptors.
_MESSAGE = 16
_LAST = b"last"
# Seconds between two looks at what is still to be withdrawn.
_TICK = 0.05


class Guarded:
    """A process that has members, and the guard of it."""

    def __init__(self, link: socket.socket, process: int) -> None:
        self.process = process
        self.guard = main.Guard(link, process)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.guard.wait()
        self.guard.carry_out()

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return bool(poll.poll(0))


class Parent:
    """Runs one command.

    :raises OSError: it cannot be started
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._guarded: list[Guarded] = []
        self._near, self._far = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        os.set_inheritable(self._far.fileno(), True)
        os.environ[registry.VARIABLE] = f"{self._far.fileno()}:{os.getpid()}"
        # Blocked in all threads: run() waits for them.
        self._signals = {*_FORWARDED, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._command: int | None = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            setsigmask=[],
            # Python ignores them, and so would the command.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        self._registering = threading.Thread(
            target=self._register, daemon=True
        )
        self._registering.start()

    def _register(self) -> None:
        """Begin to guard each process that asks for it."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(
                self._near, _MESSAGE, 2
            )
            if message == _LAST:
                return
            if len(descriptors) != 2:
                # Of a program that uses the socket for something else.
                for one in descriptors:
                    os.close(one)
                continue
            link, process = descriptors
            for old in list(self._guarded):
                if not old.thread.is_alive():
                    self._guarded.remove(old)
                    os.close(old.process)
            self._guarded.append(Guarded(socket.socket(fileno=link), process))

    def run(self) -> int:
        """Wait for the end of the command; return its status."""
        status = None
        while status is None:
            status = self._handle(signal.sigwaitinfo(self._signals))
        # Also processes that have registered just before.
        self._far.send(_LAST)
        self._registering.join()
        if os.getpid() == 1:
            self._end_others()
        while any(
            one.has_ended() and one.thread.is_alive() for one in self._guarded
        ):
            info = signal.sigtimedwait(self._signals, _TICK)
            if info is not None:
                self._handle(info)
        return status

    def _handle(self, info: signal.struct_siginfo) -> int | None:
        """Handle a signal; return the command's status if it has ended."""
        if info.si_signo == signal.SIGCHLD:
            return self._reap()
        if info.si_signo in _ENDING:
            for one in self._guarded:
                one.guard.ask_to_end()
        if self._command is not None and info.si_code <= _FROM_PROCESS:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._command, info.si_signo)
        return None

    def _reap(self) -> int | None:
        """Wait for all processes that have ended."""
        found = None
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                if pid == self._command:
                    found = os.waitstatus_to_exitcode(status)
        if found is None:
            return None
        # Its number may be another process's from now on.
        self._command = None
        return found if found >= 0 else 128 - found

    def _end_others(self) -> None:
        """End the other processes with members: they end with this one."""
        alive = [one for one in self._guarded if not one.has_ended()]
        for one in alive:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(one.process, signal.SIGTERM)
        give_up = time.monotonic() + main.HURRY
        while time.monotonic() < give_up and any(
            not one.has_ended() for one in alive
        ):
            info = signal.sigtimedwait(self._signals, _TICK)
            if info is not None:
                self._handle(info)


def run(command: Sequence[str]) -> int:
    """Run a command, and guard it; return its exit status.

    :returns: as in a shell 128 and its number if a signal ended it
    :raises OSError: it cannot be started
    """
    return Parent(command).run()
