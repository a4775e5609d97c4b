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

"""The guard: a process that outlives its service for a moment.

orders.py starts it as a script, with two open descriptors as its arguments:
a socket on which orders arrive, and a pidfd of the service. When the service
ends, the guard executes the orders that are not cancelled, each within its
time, and ends, too. After a clean stop there are no orders left.
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
from typing import Any, NoReturn

# The module that withdraws a member, by the name of the driver.
MODULES = {
    "db": "nova_sg.backends.db.guard",
    "mc": "nova_sg.backends.memcached.guard",
    "zk": "nova_sg.backends.zookeeper.guard",
}
# Seconds that the guard has left after a signal asks it to end. systemd sends
# one when the service has ended, and restarts the service only afterwards.
HURRY = 5.0
# Seconds between two attempts: the first pause, and the longest.
PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: The message that comes with a file: all orders until now.
ALL = b"all"
# How many members a line of the log names.
_NAMED = 3
# Seconds to wait for a lock that guards of other processes of the same member
# may hold: these processes may have ended in the same moment.
TURN = 1.0


class Guard:
    """Waits until its service has ended, then executes the orders."""

    def __init__(self, link: socket.socket, service: int) -> None:
        self._link = link
        link.setblocking(False)
        self._service = service
        self._orders: dict[int, dict] = {}
        self._locks: list[_Lock] = []
        # When the service ended, and when a signal last asked the guard to.
        self._died = float("inf")
        self._asked = float("-inf")

    def ask_to_end(self, *args: object) -> None:
        """Take only HURRY seconds once the service has ended.

        The signal handler.
        """
        self._asked = time.monotonic()

    def _limit(self) -> float:
        """Return when the guard ends, whatever is left to do."""
        # systemd may send its signal before the guard has noticed that the
        # service ended: hence the second. A signal while the service still
        # runs is ignored.
        if self._asked < self._died - 1.0:
            return float("inf")
        return self._asked + HURRY

    def wait(self) -> None:
        """Receive orders until the service has ended."""
        poll = select.poll()
        poll.register(self._service, select.POLLIN)
        poll.register(self._link, select.POLLIN)
        linked = True
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if linked and (
                self._service in ready or self._link.fileno() in ready
            ):
                # Also when the service has ended: its last orders count.
                link = self._link.fileno()
                if not self._read():
                    # The service has closed its side.
                    poll.unregister(link)
                    self._link.close()
                    linked = False
            if self._service in ready:
                return

    def _read(self) -> bool:
        """Receive the orders that have arrived; return whether more may."""
        while True:
            try:
                message, files, _, _ = socket.recv_fds(self._link, 1 << 20, 1)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            if message != ALL:
                self._take(*marshal.loads(message))
                continue
            with open(files[0], "rb") as file:
                file.seek(0)
                for one in marshal.load(file):
                    self._take(*one)

    def _take(self, key: int, what: Any, part: Any = None) -> None:
        """Take an order, what changes it, or its cancellation.

        :param what: the order; None: it is cancelled; or the name of a member
        :param part: what it needs for that member; None: it is none any more
        """
        if what is None:
            self._orders.pop(key, None)
        elif isinstance(what, dict):
            before = self._orders.get(key)
            if before is None:
                # Imported now: after a crash every millisecond counts.
                _module(what)
            else:
                # The new value may not have reached the backend.
                what["before"] = before.get("value")
                what["members"] = {**before["members"], **what["members"]}
            self._orders[key] = what
        elif key in self._orders:
            members = self._orders[key]["members"]
            if part is None:
                members.pop(what, None)
            else:
                members[what] = part

    def carry_out(self) -> None:
        """Execute all orders at the same time, each on its own thread."""
        self._died = time.monotonic()
        threads = [
            threading.Thread(target=self._withdraw, args=[order], daemon=True)
            for order in self._orders.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            # In short pieces, as signals are handled between them.
            while thread.is_alive() and time.monotonic() < self._limit():
                thread.join(0.1)
        for lock in self._locks:
            lock.remove()

    def _withdraw(self, order: dict) -> None:
        order["died"] = self._died
        give_up = self._died + order["within"]
        lock = _Lock(order["lock"])
        if not lock.take(min(give_up, self._died + TURN)):
            _log(
                f"{_names(order)} is not withdrawn: another process on "
                "this host reports for it"
            )
            return
        self._locks.append(lock)
        pause = PAUSE
        while True:
            order["patience"] = max(0.1, give_up - time.monotonic())
            try:
                done = _module(order).withdraw(order)
                break
            except Exception as error:
                problem = str(error) or type(error).__name__
            now = time.monotonic()
            if now + pause > min(give_up, self._limit()):
                _log(
                    f"{_names(order)} could not be withdrawn from "
                    f"{order['backend']}: {problem}. It goes down by "
                    "silence, after service_down_time"
                )
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        took = (time.monotonic() - self._died) * 1000
        if done:
            _log(
                f"the process of {_names(order)} ended without leaving; "
                f"withdrawn from {order['backend']} after {took:.0f} ms"
            )
        else:
            _log(
                f"{_names(order)} is not withdrawn: it was changed in "
                f"{order['backend']} since its process ended"
            )


class _Lock:
    """A member's file: the processes that report for it hold a lock on it."""

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
        """Lock the file; return False if another process reports for it.

        If there is no file, the guard decides by what the backend holds.
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
            # Another guard has removed it; a service that was started since
            # may have made another.
            self.close()
            self._open()
        return True

    def remove(self) -> None:
        """Remove the file if it is locked here: no process needs it."""
        if self._descriptor is not None and self._is_there():
            assert self._path is not None
            try:
                os.unlink(self._path)
            except OSError:
                pass

    def close(self) -> None:
        """Unlock the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_there(self) -> bool:
        """Whether the open file is still the one at its path."""
        assert self._path is not None and self._descriptor is not None
        try:
            return os.path.samestat(
                os.stat(self._path), os.fstat(self._descriptor)
            )
        except OSError:
            return False


def _names(order: dict) -> str:
    """Name the members of an order, or some of them."""
    names = [
        f"{host} in the group {group}" for host, group, _ in order["members"]
    ]
    more = len(names) - _NAMED
    if more > 1:
        names[_NAMED:] = [f"{more} more"]
    return ", ".join(names)


def _module(order: dict):
    return importlib.import_module(MODULES[order["backend"]])


def _log(message: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    line = (
        f"{stamp}.{now % 1 * 1000:03.0f} {os.getpid()} WARNING "
        f"nova-sg-guard [-] {message}\n"
    )
    try:
        os.write(2, line.encode(errors="replace"))
    except OSError:
        # The reader of stderr may have ended with the service.
        pass


def main(arguments: list[str]) -> NoReturn:
    """Run the guard.

    :param arguments: the descriptors of the socket and of the pidfd
    """
    link, service = map(int, arguments)
    guard = Guard(socket.socket(fileno=link), service)
    # The guard ends after its service, also if both are sent a signal.
    for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signo, guard.ask_to_end)
    try:
        with open("/proc/self/comm", "w") as name:
            name.write("nova-sg-guard")
    except OSError:
        pass
    guard.wait()
    guard.carry_out()
    # Without waiting for threads that still try.
    os._exit(0)


if __name__ == "__main__":
    # The folder of nova_sg and of the libraries installed with it. Last, so
    # that no module of the standard library is replaced.
    sys.path.append(
        os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    )
    main(sys.argv[1:])
