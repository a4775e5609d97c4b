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

"""Withdraws members whose process lives on but no longer reports.

The ZooKeeper client's own threads keep a session alive through any stall of
the process, also one that does not end. So somebody has to notice that the
looping call which should report has stood still for longer than
service_down_time, and that somebody cannot be a green thread: the hub is what
stands still. It is a thread of the operating system that Python's threading
knows nothing of. It touches no lock and logs nothing; it reads numbers and
calls C.

What it cannot notice is a process in which nothing but one C function runs,
holding Python's interpreter lock: it needs that lock itself.
"""

from __future__ import annotations

import os
import time
from typing import Any

from nova_sg.servicegroup.drivers import base
from nova_sg.zookeeper import clib, offhub

# Seconds between two looks.
PACE = 0.1
# Seconds that withdrawing may take, and the timeout of its session.
PATIENCE = 10.0


class _Fed:
    """What the watchdog knows of one member. Written by one, read by other."""

    __slots__ = ("at", "limit", "path", "withdrawn")

    def __init__(self) -> None:
        #: When the member reported last.
        self.at = time.monotonic()
        #: The znode to delete; None: there is none yet.
        self.path: bytes | None = None
        #: Seconds of silence after which that happens.
        self.limit = float("inf")
        self.withdrawn = False


class Watchdog:
    """One thread that looks after all members of this process."""

    def __init__(self, address: str, digest: str | None) -> None:
        self._address = address.encode()
        self._digest = digest.encode() if digest else None
        self._members: dict[base.Membership, _Fed] = {}
        self._stopping = False
        self._job = offhub.run(self._run, lambda result: None)

    def feed(self, membership: base.Membership) -> bool:
        """Note that a member reports, now.

        :returns: whether it had been withdrawn
        """
        fed = self._members.get(membership)
        if fed is None:
            self._members[membership] = _Fed()
            return False
        fed.at = time.monotonic()
        withdrawn, fed.withdrawn = fed.withdrawn, False
        return withdrawn

    def watch(
        self, membership: base.Membership, path: str, limit: float
    ) -> None:
        """Say what to delete after how many seconds of silence."""
        fed = self._members[membership]
        fed.limit = limit
        fed.path = path.encode("utf-8", "surrogateescape")

    def forget(self, membership: base.Membership) -> None:
        """Look after a member no more."""
        self._members.pop(membership, None)

    def close(self) -> None:
        """End the thread, soon."""
        self._stopping = True

    # On the thread.

    def _run(self) -> None:
        library = clib.load()
        pid = os.getpid()
        while not self._stopping and os.getpid() == pid:
            library.libc.usleep(int(PACE * 1e6))
            now = time.monotonic()
            late = [
                fed
                for fed in list(self._members.values())
                if fed.path is not None
                and not fed.withdrawn
                and now - fed.at > fed.limit
            ]
            if late:
                self._withdraw(library, late)

    def _withdraw(self, library: Any, late: list[_Fed]) -> None:
        # A session of its own: the process's belongs to threads that may
        # stand in the middle of using it.
        zk, null = library.zk, library.ffi.NULL
        handle = zk.zookeeper_init(
            self._address, null, int(PATIENCE * 1000), null, 0, 2
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
                # It may have come back meanwhile.
                if time.monotonic() - fed.at <= fed.limit:
                    continue
                code = zk.zoo_delete(handle, fed.path, -1)
                # ZNONODE: gone already.
                if code in (0, -101):
                    fed.withdrawn = True
        finally:
            zk.zookeeper_close(handle)
