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

"""The service's side of the guard: starting it, and telling it.

A process has one guard, for all that it joins by any driver, started by its
first will. Each process of a service that forks has its own.
"""

from __future__ import annotations

import fcntl
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
from typing import Any

from oslo_log import log as logging

from nova_sg.backends import base
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

_PROGRAM = os.path.join(os.path.dirname(__file__), "main.py")
# What the guard needs of our environment: never a secret.
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")
# A guard that lived for so many seconds is missed once more, in the log.
LONG = 60.0
# How often, and how many seconds apart, the file of a member is tried that
# the guard of the process before holds while it withdraws that one.
_ATTEMPTS, _PAUSE = 5, 0.02

_numbers = itertools.count()


class Wills:
    """What one driver has the guard do, should this process end.

    Nothing, unless [servicegroup] crash_guard is set.

    :param backend: the guard's module that does it
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._keys: dict[tuple, int] = {}
        self._locks: dict[tuple, _Lock] = {}
        self._told = False

    @staticmethod
    def wanted() -> bool:
        """Whether there is a guard to be told anything."""
        return CONF.servicegroup.crash_guard

    def impossible(self, why: str) -> None:
        """Say, once, that the guard cannot do anything, if it is wanted."""
        if self.wanted() and not self._told:
            self._told = True
            LOG.warning(
                "[servicegroup] crash_guard: a crash is not seen at once by "
                "%(backend)s: %(why)s",
                {"backend": self._backend, "why": why},
            )

    def entrust(
        self, *members: base.Membership, apart: bool, **will: Any
    ) -> None:
        """Have members withdrawn when this process ends from now on.

        :param members: they are withdrawn together
        :param apart: whether other processes that are the same member
            leave by themselves
        :param will: what the guard's module needs; replaces an earlier one
        """
        key = self._keys.get(members)
        if key is None:
            key = self._keys.setdefault(members, next(_numbers))
        will.update(
            backend=self._backend,
            who=", ".join(
                f"{one.host} in the group {one.group}" for one in members
            ),
            within=CONF.service_down_time,
            lock=None if apart else self._hold(members),
            before=None,
        )
        _keeper().tell(key, will)

    def renew(self) -> None:
        """See to it that the guard is there, if it has to be."""
        if self._keys:
            _keeper().look_after()

    def revoke(self, *members: base.Membership) -> None:
        """Have the guard do nothing about members that were named so."""
        key = self._keys.pop(members, None)
        if key is not None:
            _keeper().tell(key, None)
        lock = self._locks.pop(members, None)
        if lock is not None:
            lock.release()

    def revoke_all(self) -> None:
        """Have the guard do nothing for this driver any more."""
        for members in list(self._keys):
            self.revoke(*members)

    def _hold(self, members: tuple) -> str:
        """Hold the file that says that this process is the member."""
        (member,) = members
        name = "\0".join((member.group, member.host, self._backend))
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
        path = os.path.join(CONF.state_path, f"nova-sg-guard-{digest[:16]}")
        if members not in self._locks:
            self._locks[members] = _Lock(path)
        return path


class _Lock:
    """The file that says that this process is the member, held shared.

    Who holds it last removes it: this process where the member leaves, and
    its guard where it crashes. Without it, what the backend has tells enough.
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
                if self._take(self._descriptor) and self._is_there(
                    self._descriptor
                ):
                    break
                # Another process is about to remove it, or just has.
                os.close(self._descriptor)
                self._descriptor = None
                time.sleep(_PAUSE)
        except OSError as error:
            LOG.debug(
                "Other processes of this member are not known: %s", error
            )
        if self._descriptor is None:
            LOG.debug("%s is not held", path)
        else:
            _keeper().locks.add(self._descriptor)

    @staticmethod
    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_there(self, descriptor: int) -> bool:
        """Say whether the file that is held is the one at its path."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Hold it no more; remove it unless another process holds it."""
        if self._descriptor is None:
            return
        _keeper().locks.discard(self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It stays ours until it is closed: whoever holds it by then sees
            # that it is gone, and makes another.
            if self._is_there(self._descriptor):
                os.unlink(self._path)
        except OSError as error:
            LOG.debug("%s stays: %s", self._path, error)
        os.close(self._descriptor)
        self._descriptor = None


class Keeper:
    """Keeps a guard running, and up to date."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        #: The descriptors of the files that it holds for its members.
        self.locks: set[int] = set()
        self._lock = threading.Lock()
        self._wills: dict[int, dict] = {}
        self._process: subprocess.Popen | None = None
        self._link: socket.socket | None = None
        self._started = 0.0
        # Whether it is in the log that there is none.
        self._told = False

    def tell(self, key: int, will: dict | None) -> None:
        """Note a will, or None for none, and have the guard know it."""
        with self._lock:
            if will is None:
                if self._wills.pop(key, None) is None:
                    return
            else:
                self._wills[key] = will
            if self._is_there():
                if self._send(key, will):
                    return
                # It does not read. It must not act on what is no longer so.
                assert self._process is not None
                self._process.kill()
                self._process.wait()
            if self._wills:
                self._start()

    def look_after(self) -> None:
        """Start another guard where the one there was is gone."""
        with self._lock:
            if self._wills and not self._is_there():
                self._start()

    def _is_there(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _send(self, key: int, will: dict | None) -> bool:
        assert self._link is not None
        try:
            self._link.send(marshal.dumps((key, will)), socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _start(self) -> None:
        lived = time.monotonic() - self._started
        if self._process is not None and (not self._told or lived > LONG):
            self._told = True
            LOG.warning(
                "The crash guard of this process, process %(pid)d, is gone; "
                "starting another",
                {"pid": self._process.pid},
            )
        if self._link is not None:
            self._link.close()
            self._link = None
        self._started = time.monotonic()
        try:
            self._process, self._link = _spawn()
        except OSError as error:
            if not self._told:
                self._told = True
                LOG.warning(
                    "The crash guard cannot be started, a crash will be seen "
                    "by silence alone: %s",
                    error,
                )
            return
        for key, will in self._wills.items():
            self._send(key, will)

    def abandon(self) -> None:
        """Let go of what is the parent's: after a fork, in the child.

        A child that lives on is not the member.
        """
        if self._link is not None:
            os.close(self._link.detach())
        for descriptor in self.locks:
            os.close(descriptor)


def _spawn() -> tuple[subprocess.Popen, socket.socket]:
    """Start a guard of this process.

    :raises OSError: it cannot be started
    """
    # Ours by its descriptor: whatever happens, it can mean nobody else.
    try:
        ourselves = os.pidfd_open(os.getpid())
    except (AttributeError, OSError) as error:
        raise OSError(f"no pidfd, which takes Linux 5.3: {error}") from error
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
            # What ends us by a signal to our group must not end it, too.
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
    """Return the interpreter: in uWSGI sys.executable is another program."""
    name = os.path.basename(sys.executable or "")
    if name.startswith("python"):
        return sys.executable
    return os.path.join(
        sysconfig.get_path("scripts"),
        f"python{sys.version_info[0]}.{sys.version_info[1]}",
    )


_the_keeper = Keeper()


def _keeper() -> Keeper:
    """Return this process's own."""
    # uWSGI tells nobody of its forks.
    if _the_keeper.pid != os.getpid():
        _after_fork()
    return _the_keeper


def _after_fork() -> None:
    global _the_keeper
    parents, _the_keeper = _the_keeper, Keeper()
    parents.abandon()


os.register_at_fork(after_in_child=_after_fork)
