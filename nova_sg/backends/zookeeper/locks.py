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

"""The locks and notes of groups, as znodes.

The holder of a lock has an ephemeral znode. Each renewal is a write, which the
ensemble orders: it fails once the znode has gone with the session. The session
of a process that hangs may live on, as the C client keeps it. So another
process deletes a znode that it has not seen renewed for long enough. The znode
above keeps whether the last holder released the lock.
"""

from __future__ import annotations

import contextlib
import math
import time

from nova_sg import evzookeeper, zookeeper
from nova_sg.backends.base import Lock
from nova_sg.backends.zookeeper import connection, names

_FREE, _TAKEN = "free", "taken"


class Locks:
    """The locks and notes of all groups."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        # The groups whose lock is known to show that it is not free.
        self._taken: set[str] = set()
        # By group: the znode of another holder, by its creation and version,
        # and since when it is unchanged (monotonic).
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def acquire(self, group: str, holder: str, seconds: float) -> Lock:
        """As Driver.acquire()."""
        with self._link.asking() as session:
            found = self._holder(session, group, holder, seconds)
            if found not in ("", holder):
                self._taken.discard(group)
                return Lock(found)
            path, clean = names.lock_path(group), False
            if not found:
                self._taken.discard(group)
                try:
                    self._create(session, path, holder)
                except zookeeper.NodeExistsException:
                    # Another process was faster.
                    return Lock(self._holder(session, group, holder, seconds))
            if group not in self._taken:
                shown = session.get(path)[0]
                clean = not found and shown == _FREE
                # Before this process relies on the lock: the next holder has
                # to see it if this one dies.
                session.set(path, _TAKEN)
                self._taken.add(group)
            return Lock(holder, clean, renewed=bool(found))

    def _create(
        self, session: evzookeeper.ZKSession, path: str, holder: str
    ) -> None:
        try:
            self._create_once(session, path, holder)
        except zookeeper.NoNodeException:
            session.ensure_path(path, self._link.acl)
            self._create_once(session, path, holder)

    def _create_once(
        self, session: evzookeeper.ZKSession, path: str, holder: str
    ) -> None:
        session.create(
            f"{path}/holder", holder, self._link.acl, zookeeper.EPHEMERAL
        )

    def _holder(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        holder: str,
        seconds: float,
    ) -> str:
        """Return the holder of a lock; if it is this process, renew it.

        :param seconds: after which another holder that does not renew it
            loses it
        """
        path = f"{names.lock_path(group)}/holder"
        with contextlib.suppress(
            zookeeper.NoNodeException, zookeeper.BadVersionException
        ):
            found, stat = session.get(path)
            if found != holder:
                if not self._is_stale(group, stat, seconds):
                    return found
                session.delete(path, stat["version"])
                return ""
            if stat["ephemeralOwner"] == session.session_id:
                session.set(path, holder)
                return holder
            # Of an earlier session: it will go with that.
            session.delete(path)
        return ""

    def _is_stale(
        self, group: str, stat: dict[str, int], seconds: float
    ) -> bool:
        """Whether another holder has not renewed its znode for long."""
        now, znode = time.monotonic(), (stat["czxid"], stat["version"])
        seen = self._seen.get(group)
        if seen is None or seen[0] != znode:
            self._seen[group] = znode, now
            return False
        return now > seen[1] + seconds

    def release(self, group: str, holder: str) -> None:
        """As Driver.release()."""
        path = names.lock_path(group)
        with self._link.asking() as session:
            if self._holder(session, group, holder, math.inf) == holder:
                self._taken.discard(group)
                session.set(path, _FREE)
                session.delete(f"{path}/holder")

    def read_note(self, group: str) -> str:
        """As Driver.read_note()."""
        with (
            self._link.asking() as session,
            contextlib.suppress(zookeeper.NoNodeException),
        ):
            return session.get(names.note_path(group))[0]
        return ""

    def write_note(self, group: str, text: str) -> None:
        """As Driver.write_note()."""
        path = names.note_path(group)
        with self._link.asking() as session:
            try:
                session.set(path, text)
            except zookeeper.NoNodeException:
                session.ensure_path(path, self._link.acl)
                session.set(path, text)
