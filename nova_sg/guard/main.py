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

"""The guard: a process that outlives the one it guards, for a moment.

Started by keeper.py as a script of its own, with two open descriptors as its
arguments: a socket that wills come by, and a pidfd of the service. When the
service ends, what is still in force is carried out, within its time, and the
guard ends, too. Nothing is left to do after a clean stop.
"""

from __future__ import annotations

import fcntl
import importlib
import marshal
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

# What withdraws a member, by the name of the driver.
MODULES = {
    "db": "nova_sg.backends.db.guard",
    "mc": "nova_sg.backends.memcached.guard",
    "zk": "nova_sg.backends.zookeeper.guard",
}
# Seconds that are left once somebody asks the guard to end: systemd does so
# as soon as the service has ended, and starts it anew only after that.
HURRY = 5.0
# Seconds between two attempts: the first pause, and the longest.
PAUSE, LONGEST_PAUSE = 0.05, 1.0
# Seconds for which to wait for the guards of other processes which are the
# same member and ended in the same moment.
TURN = 1.0


class Guard:
    """Waits for one process to end."""

    def __init__(self, link: socket.socket, service: int) -> None:
        self._link = link
        self._service = service
        self._wills: dict[int, dict] = {}
        self._locks: list[_Lock] = []
        # When the service ended, and when somebody last asked us to end.
        self._died = float("inf")
        self._asked = float("-inf")

    def ask_to_end(self, *args: object) -> None:
        """Be quick, once the service has ended: a signal handler."""
        self._asked = time.monotonic()

    def _limit(self) -> float:
        """Return when to end whatever is left to do."""
        # Who ends us because the service has ended may be quicker than our
        # own notice of that. Before that it is no reason to go.
        if self._asked < self._died - 1.0:
            return float("inf")
        return self._asked + HURRY

    def wait(self) -> None:
        """Note wills until the service has ended."""
        poll = select.poll()
        poll.register(self._service, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        linked = True
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if linked and (
                self._service in ready or self._link.fileno() in ready
            ):
                # Also at the end: what it said last came before that.
                link = self._link.fileno()
                if not self._read():
                    # Nobody has the other side any more: it ends, or has
                    # no use for us.
                    poll.unregister(link)
                    self._link.close()
                    linked = False
            if self._service in ready:
                return

    def _read(self) -> bool:
        """Note what has come; return whether more may."""
        while True:
            try:
                message = self._link.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            key, will = marshal.loads(message)
            if will is None:
                self._wills.pop(key, None)
                continue
            if key in self._wills:
                # What was on its way may not have arrived.
                will["before"] = self._wills[key].get("value")
            else:
                _module(will)
            self._wills[key] = will

    def carry_out(self) -> None:
        """Withdraw what was joined: each by itself, for as long as it may."""
        self._died = time.monotonic()
        threads = [
            threading.Thread(target=self._withdraw, args=[will], daemon=True)
            for will in self._wills.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            # In pieces: a signal is heard between two.
            while thread.is_alive() and time.monotonic() < self._limit():
                thread.join(0.1)
        for lock in self._locks:
            lock.remove()

    def _withdraw(self, will: dict) -> None:
        will["died"] = self._died
        give_up = self._died + will["within"]
        lock = _Lock(will["lock"])
        if not lock.take(min(give_up, self._died + TURN)):
            _say(f"{will['who']} lives on in another process of this host")
            return
        self._locks.append(lock)
        pause = PAUSE
        while True:
            will["patience"] = max(0.1, give_up - time.monotonic())
            try:
                done = _module(will).withdraw(will)
                break
            except Exception as error:
                problem = str(error) or type(error).__name__
            now = time.monotonic()
            if now + pause > min(give_up, self._limit()):
                _say(
                    f"{will['who']} could not be withdrawn from "
                    f"{will['backend']}: {problem}. It goes down by its "
                    "silence"
                )
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        took = (time.monotonic() - self._died) * 1000
        if done:
            _say(
                f"the process of {will['who']} ended without leaving; "
                f"withdrawn from {will['backend']} after {took:.0f} ms"
            )
        else:
            _say(
                f"{will['who']} is no longer what its process left in "
                f"{will['backend']}: nothing withdrawn"
            )


class _Lock:
    """The file that says whether another process is the same member."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._open()

    def _open(self) -> None:
        self._descriptor = None
        if self._path is not None:
            try:
                self._descriptor = os.open(
                    self._path, os.O_RDWR | os.O_CLOEXEC
                )
            except OSError:
                pass

    def take(self, give_up: float) -> bool:
        """Return whether nobody else is the member; keep others from it.

        Where that is not known, what the backend has tells enough.
        """
        while self._descriptor is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.02)
                continue
            if self._is_there():
                break
            # It was removed by another guard; a service that has been
            # started since then has made another.
            self.close()
            self._open()
        return True

    def remove(self) -> None:
        """Remove the file, once it was taken: nobody else needs it."""
        if self._descriptor is not None and self._is_there():
            assert self._path is not None
            try:
                os.unlink(self._path)
            except OSError:
                pass

    def close(self) -> None:
        """Let others take it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_there(self) -> bool:
        """Say whether the file that is open is the one at its path."""
        assert self._path is not None and self._descriptor is not None
        try:
            return os.path.samestat(
                os.stat(self._path), os.fstat(self._descriptor)
            )
        except OSError:
            return False


def _module(will: dict):
    return importlib.import_module(MODULES[will["backend"]])


def _say(words: str) -> None:
    # By then nobody may read it any more.
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    line = (
        f"{stamp}.{now % 1 * 1000:03.0f} {os.getpid()} WARNING "
        f"nova-sg-guard [-] {words}\n"
    )
    try:
        os.write(2, line.encode(errors="replace"))
    except OSError:
        pass


def main(arguments: list[str]) -> NoReturn:
    """Guard the process that the arguments tell of."""
    link, service = map(int, arguments)
    guard = Guard(socket.socket(fileno=link), service)
    # It ends when its service has; whoever ends both at once is told so.
    for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signo, guard.ask_to_end)
    try:
        with open("/proc/self/comm", "w") as name:
            name.write("nova-sg-guard")
    except OSError:
        pass
    guard.wait()
    guard.carry_out()
    # Threads that still try are not waited for.
    os._exit(0)


if __name__ == "__main__":
    # Where nova_sg is, and what it is installed with: behind the standard
    # library, which nobody shall stand in front of.
    sys.path.append(
        os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    )
    main(sys.argv[1:])
