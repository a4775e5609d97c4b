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

"""Withdraws members whose process runs but no longer reports.

The ZooKeeper client has threads of its own. They keep the session alive while
the rest of the process hangs, even if it hangs for ever. The watchdog notices
that a member's timer has not run for longer than service_down_time, and
deletes the member's znode.

It cannot be a green thread, as the hub may be what hangs. It is a thread of
the operating system that Python's threading does not know. It takes no lock
and logs nothing; it reads numbers and calls C. An error does not end it. If
it ends nevertheless, the next report starts another.

It needs Python's interpreter lock. So it cannot notice a process in which one
C function holds that lock all the time.
"""

from __future__ import annotations

import os
import time
from typing import Any

from oslo_log import log as logging

from nova_sg import exception
from nova_sg import trouble as trouble_log
from nova_sg.backends import base
from nova_sg.zookeeper import clib, offhub

LOG = logging.getLogger(__name__)

# Seconds between two checks.
PACE = 0.1
# Seconds until the next check after an error.
REST = 1.0
# Seconds that withdrawing may take; also the timeout of its session.
PATIENCE = 10.0

_OK, _NONODE = 0, -101


class _Fed:
    """What the watchdog knows of one member.

    The thread that reports writes it; the watchdog's thread reads it.
    """

    __slots__ = ("at", "limit", "path", "withdrawn")

    def __init__(self) -> None:
        #: When the member reported last.
        self.at = time.monotonic()
        #: Seconds of silence after which it is withdrawn.
        self.limit = float("inf")
        #: The path of its znode; None: it has none yet.
        self.path: bytes | None = None
        self.withdrawn = False

    def is_late(self) -> bool:
        return time.monotonic() - self.at > self.limit


class Watchdog:
    """One thread that checks all members of this process.

    :param address: the ZooKeeper servers
    :param digest: user:password to authenticate with; None: no authentication
    :param cert: the files for TLS; None: no TLS
    """

    def __init__(
        self, address: str, digest: str | None, cert: str | None
    ) -> None:
        self._address = address.encode()
        self._digest = digest.encode() if digest else None
        self._cert = cert.encode() if cert else None
        self._members: dict[base.Membership, _Fed] = {}
        self._stopping = False
        # The error of the last check; None: it succeeded.
        self._error: Exception | None = None
        self._log = trouble_log.TroubleLog()
        self._start()

    def _start(self) -> None:
        self._job = offhub.run(self._run, lambda result: None)

    def feed(self, membership: base.Membership, limit: float) -> bool:
        """Note that a member reports, now.

        :param limit: seconds of silence after which it is withdrawn
        :returns: whether it has been withdrawn since the last call
        """
        self._ensure_running()
        fed = self._members.get(membership)
        if fed is None:
            fed = self._members[membership] = _Fed()
        fed.at = time.monotonic()
        fed.limit = limit
        withdrawn, fed.withdrawn = fed.withdrawn, False
        return withdrawn

    def _ensure_running(self) -> None:
        """Log the thread's errors, and start it again if it has ended."""
        error = self._error
        if error is None:
            if self._log.ends():
                LOG.info("The ZooKeeper watchdog works again")
        elif self._log.begins():
            LOG.warning(
                "The ZooKeeper watchdog has failed: %s. It tries again every "
                "%g s. Until then a member whose process hangs may stay up",
                exception.describe(error),
                REST,
            )
        if self._job.done and not self._stopping:
            self._start()

    def watch(self, membership: base.Membership, path: str) -> bool:
        """Note the znode that a member is about to create.

        :returns: whether it may: False for one that does not report
        """
        fed = self._members.get(membership)
        if fed is None or fed.is_late():
            return False
        fed.path = path.encode()
        return True

    def forget(self, membership: base.Membership) -> None:
        """Stop checking a member."""
        self._members.pop(membership, None)

    def close(self) -> None:
        """End the thread, soon."""
        self._stopping = True

    # On the watchdog's own thread:

    def _run(self) -> None:
        library = clib.load()
        pid = os.getpid()
        while not self._stopping and os.getpid() == pid:
            pause = PACE if self._error is None else REST
            library.libc.usleep(int(pause * 1e6))
            try:
                self._check(library)
                self._error = None
            except Exception as error:
                # The next report logs it: this thread must not.
                self._error = error

    def _check(self, library: Any) -> None:
        late = [
            fed
            for fed in list(self._members.values())
            if fed.path is not None and not fed.withdrawn and fed.is_late()
        ]
        if late:
            self._withdraw(library, late)

    def _withdraw(self, library: Any, late: list[_Fed]) -> None:
        # A session of its own: another thread may hang in the middle of a
        # call of the process's session.
        zk, null = library.zk, library.ffi.NULL
        options = (null, int(PATIENCE * 1000), null, 0, clib.NO_LOG_CLIENTENV)
        if self._cert is None:
            handle = zk.zookeeper_init(self._address, *options)
        else:
            handle = zk.zookeeper_init_ssl(
                self._address, self._cert, *options
            )
        if handle == null:
            return
        try:
            give_up = time.monotonic() + PATIENCE
            while zk.zoo_state(handle) != zk.ZOO_CONNECTED_STATE:
                if self._stopping or time.monotonic() > give_up:
                    return
                library.libc.usleep(10_000)
            if self._digest is not None:
                zk.zoo_add_auth(
                    handle,
                    b"digest",
                    self._digest,
                    len(self._digest),
                    null,
                    0,
                )
            for fed in late:
                # It may have reported meanwhile.
                if fed.is_late():
                    code = zk.zoo_delete(handle, fed.path, -1)
                    fed.withdrawn = code in (_OK, _NONODE)
        finally:
            zk.zookeeper_close(handle)
