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

"""The service's side of the guard: starting it, and giving it orders.

A process has one guard for all its members and all its drivers. The first
order starts it. If a service forks, each of its processes has its own guard.
Below ``nova-sg-exec --guard`` no guard is started: that process takes the
orders.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import itertools
import marshal
import os
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Hashable
from typing import Any

from oslo_log import log as logging

from nova_sg.backends import base
from nova_sg.conf import CONF
from nova_sg.guard import main, registry

LOG = logging.getLogger(__name__)

_PROGRAM = os.path.join(os.path.dirname(__file__), "main.py")
# The environment variables that the guard gets: never a secret.
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")
# The end of a guard that lived for this many seconds is logged again.
LONG = 60.0
# How often, and with which pause in seconds, this process tries to lock a
# member's file. The guard of an earlier process holds it while it withdraws
# that process's member.
_ATTEMPTS, _PAUSE = 5, 0.02

# Seconds that a guard may take to read: on a busy host, with many members, the
# socket may be full for a moment.
_TAKES = 1.0

# The beginning of the names of members' files.
_PREFIX = "nova-sg-guard-"

_numbers = itertools.count()


class Orders:
    """The orders of one driver: what the guard does if this process ends.

    There are none unless [servicegroup] crash_guard is set.

    :param backend: the backend whose guard.py executes them: a key of
        main.MODULES
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._keys: dict[Hashable, int] = {}
        self._locks: dict[Hashable, _Lock] = {}
        self._warned = False

    @staticmethod
    def wanted() -> bool:
        """Whether the configuration, or nova-sg-exec, asks for a guard."""
        return CONF.servicegroup.crash_guard or registry.was_there()

    def impossible(self, why: str) -> None:
        """Warn, once, that the guard cannot help, if it is wanted."""
        if self.wanted() and not self._warned:
            self._warned = True
            LOG.warning(
                "[servicegroup] crash_guard has no effect with the driver "
                "%(backend)s: %(why)s. A crash is detected by silence only, "
                "after service_down_time",
                {"backend": self._backend, "why": why},
            )

    def give(
        self, member: base.Membership, *, apart: bool, **order: Any
    ) -> None:
        """Order the guard to withdraw a member if this process ends.

        It replaces an earlier order for the same member.

        :param apart: whether each process that reports for a member is a
            member of its own to the backend, see Driver.apart
        :param order: what the backend's guard.py needs
        """
        self._give(
            member,
            order,
            lock=None if apart else self._hold(member),
            members={_name(member): None},
        )

    def give_together(self, subject: Hashable, **order: Any) -> None:
        """Order the guard to withdraw members together, as by a session.

        It has none until add(). The order replaces an earlier one for the
        same subject, which keeps its members.

        :param subject: what they have in common
        :param order: what the backend's guard.py needs
        """
        self._give(subject, order, lock=None, members={})

    def _give(
        self, subject: Hashable, order: dict[str, Any], **more: Any
    ) -> None:
        key = self._keys.get(subject)
        if key is None:
            key = self._keys.setdefault(subject, next(_numbers))
        order.update(
            more,
            backend=self._backend,
            within=CONF.service_down_time,
            before=None,
        )
        _supervisor().tell(key, order)

    def add(
        self, subject: Hashable, member: base.Membership, part: Any
    ) -> None:
        """Add a member to what give_together() ordered.

        :param part: what the backend's guard.py needs for it
        """
        _supervisor().tell_part(self._keys[subject], _name(member), part)

    def drop(self, subject: Hashable, member: base.Membership) -> None:
        """Take a member out of what give_together() ordered."""
        key = self._keys.get(subject)
        if key is not None:
            _supervisor().tell_part(key, _name(member), None)

    def renew(self) -> None:
        """Start the guard again if it ended and there are orders for it."""
        if self._keys:
            _supervisor().ensure_running()

    def cancel(self, subject: Hashable) -> None:
        """Cancel the order for a member, or for what several have in common.

        It may be that there is none.
        """
        key = self._keys.pop(subject, None)
        if key is not None:
            _supervisor().tell(key, None)
        lock = self._locks.pop(subject, None)
        if lock is not None:
            lock.release()

    def cancel_all(self) -> None:
        """Cancel all orders of this driver."""
        for subject in list(self._keys):
            self.cancel(subject)

    def _hold(self, member: base.Membership) -> str:
        """Lock the member's file; return its path."""
        name = "\0".join((member.group, member.host, self._backend))
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
        path = os.path.join(CONF.state_path, f"{_PREFIX}{digest[:16]}")
        if member not in self._locks:
            _supervisor().remove_stale_files()
            self._locks[member] = _Lock(path)
        return path


def _name(member: base.Membership) -> tuple[str, str, str]:
    return member.host, member.group, member.binary


def remove_stale_files() -> None:
    """Remove the files of members for which no process reports any more.

    They are left behind if a process and its guard are killed together, such
    as by a power failure.
    """
    pattern = os.path.join(glob.escape(CONF.state_path), f"{_PREFIX}*")
    for path in glob.glob(pattern):
        try:
            _remove_unless_locked(path)
        except OSError as error:
            LOG.debug("The file %s is not removed: %s", path, error)


def _remove_unless_locked(path: str) -> None:
    """Remove a member's file.

    :raises OSError: another process holds a lock on it, or it cannot be
        removed
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It stays locked until it is closed. A process that gets the lock
        # then sees that the file is gone, and makes another.
        if _is_at(path, descriptor):
            os.unlink(path)
    finally:
        os.close(descriptor)


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class _Lock:
    """A member's file, with a shared lock: this process reports for it.

    The last process to hold it removes it: this process if the member
    leaves, its guard if this process crashes. If there is no file, the guard
    decides by what it finds in the backend.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            for _ in range(_ATTEMPTS):
                self._descriptor = os.open(
                    path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660
                )
                if self._take(self._descriptor) and _is_at(
                    path, self._descriptor
                ):
                    break
                # Another process is removing the file, or has removed it.
                os.close(self._descriptor)
                self._descriptor = None
                time.sleep(_PAUSE)
        except OSError as error:
            LOG.debug("Cannot open or lock the file %s: %s", path, error)
        if self._descriptor is None:
            LOG.debug(
                "The crash guard does not know of other processes of the "
                "same member: there is no lock on %s",
                path,
            )
        else:
            _supervisor().locks.add(self._descriptor)

    @staticmethod
    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Unlock the file; remove it unless another process holds it."""
        if self._descriptor is None:
            return
        _supervisor().locks.discard(self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It stays locked until it is closed. A process that gets the
            # lock then sees that the file is gone, and makes another.
            if _is_at(self._path, self._descriptor):
                os.unlink(self._path)
        except OSError as error:
            LOG.debug("The file %s is not removed: %s", self._path, error)
        os.close(self._descriptor)
        self._descriptor = None


class Supervisor:
    """Keeps the guard of this process running, and its orders up to date."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        #: The descriptors of the members' files that this process locks.
        self.locks: set[int] = set()
        self._lock = threading.Lock()
        self._orders: dict[int, dict] = {}
        # The members of the orders that give_together() gave.
        self._parts: dict[int, dict[tuple, Any]] = {}
        self._process: subprocess.Popen | None = None
        self._link: socket.socket | None = None
        self._started = 0.0
        self._has_cleaned = False
        # Whether a guard that ended, or cannot be started, has been logged.
        self._warned = False

    def remove_stale_files(self) -> None:
        """Remove what processes that were killed left, once."""
        if not self._has_cleaned:
            self._has_cleaned = True
            remove_stale_files()

    def tell(self, key: int, order: dict | None) -> None:
        """Keep an order and send it to the guard; None: cancel it."""
        with self._lock:
            if order is None:
                self._parts.pop(key, None)
                if self._orders.pop(key, None) is None:
                    return
            else:
                self._orders[key] = order
            self._pass_on(key, order)

    def tell_part(self, key: int, name: tuple, part: Any) -> None:
        """Keep a member of an order and send it; None: it is none any more."""
        with self._lock:
            parts = self._parts.setdefault(key, {})
            if part is None:
                if parts.pop(name, None) is None:
                    return
            else:
                parts[name] = part
            self._pass_on(key, name, part)

    def _pass_on(self, *message: Any) -> None:
        """Send the guard what has changed; start one if there is none."""
        if self._is_there():
            if self._send(*message):
                return
            # The guard does not read. It must not execute old orders; those
            # that nova-sg-exec has do no harm.
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        if self._orders:
            self._start()

    def ensure_running(self) -> None:
        """Start another guard if the last one has ended."""
        with self._lock:
            if self._orders and not self._is_there():
                self._start()

    def _is_there(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._link is not None and not registry.has_ended(self._link)

    def _send(self, *message: Any) -> bool:
        assert self._link is not None
        data = marshal.dumps(message)
        try:
            try:
                self._link.send(data)
            except BlockingIOError:
                self._link.settimeout(_TAKES)
                self._link.send(data)
                self._link.setblocking(False)
        except OSError:
            return False
        return True

    def _send_all(self) -> None:
        """Send a new guard all that it has to know.

        As a file, as the socket holds only some hundred messages that are
        not read yet.
        """
        assert self._link is not None
        messages: list[tuple] = list(self._orders.items())
        for key, parts in self._parts.items():
            messages += [(key, *one) for one in parts.items()]
        with open(os.memfd_create("nova-sg-guard"), "wb") as file:
            file.write(marshal.dumps(messages))
            file.flush()
            with contextlib.suppress(OSError):
                socket.send_fds(self._link, [main.ALL], [file.fileno()])

    def _start(self) -> None:
        lived = time.monotonic() - self._started
        if self._link is not None and (not self._warned or lived > LONG):
            self._warned = True
            LOG.warning(
                "The crash guard of this process (pid %(pid)s) has ended; "
                "starting another",
                {
                    "pid": "of nova-sg-exec"
                    if self._process is None
                    else self._process.pid
                },
            )
        if self._link is not None:
            self._link.close()
            self._link = None
        self._started = time.monotonic()
        try:
            self._process, self._link = None, registry.register()
            if self._link is None:
                self._process, self._link = _spawn()
            self._link.setblocking(False)
        except OSError as error:
            if not self._warned:
                self._warned = True
                LOG.warning(
                    "The crash guard cannot be started: %s. A crash of this "
                    "process is detected by silence only, after "
                    "service_down_time",
                    error,
                )
            return
        self._send_all()

    def abandon(self) -> None:
        """Close what belongs to the parent: after a fork, in the child.

        A child that outlives its parent is not the member.
        """
        if self._link is not None:
            os.close(self._link.detach())
        for descriptor in self.locks:
            os.close(descriptor)


def _spawn() -> tuple[subprocess.Popen, socket.socket]:
    """Start a guard of this process.

    :raises OSError: it cannot be started
    """
    ourselves = registry.open_pidfd()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = subprocess.Popen(
            [_python(), "-I", "-S", _PROGRAM]
            + [str(far.fileno()), str(ourselves)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(far.fileno(), ourselves),
            cwd="/",
            env={
                name: os.environ[name]
                for name in _ENVIRONMENT
                if name in os.environ
            },
            # A signal to the service's process group must not end the guard.
            start_new_session=True,
        )
    except BaseException:
        near.close()
        raise
    finally:
        far.close()
        os.close(ourselves)
    return process, near


def _python() -> str:
    """Return the interpreter's path: in uWSGI sys.executable is uWSGI."""
    name = os.path.basename(sys.executable or "")
    if name.startswith("python"):
        return sys.executable
    return os.path.join(
        sysconfig.get_path("scripts"),
        f"python{sys.version_info[0]}.{sys.version_info[1]}",
    )


_the_supervisor = Supervisor()


def _supervisor() -> Supervisor:
    """Return the supervisor of this process."""
    # uWSGI forks without calling the functions of os.register_at_fork().
    if _the_supervisor.pid != os.getpid():
        _after_fork()
    return _the_supervisor


def _after_fork() -> None:
    global _the_supervisor
    parents, _the_supervisor = _the_supervisor, Supervisor()
    parents.abandon()


os.register_at_fork(after_in_child=_after_fork)
