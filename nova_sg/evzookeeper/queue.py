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

"""A queue in ZooKeeper that many processes use."""

import threading
from typing import Any

from nova_sg import zookeeper
from nova_sg.evzookeeper.deadlines import after, remaining
from nova_sg.evzookeeper.session import ZKSession

_LOST = (
    zookeeper.ConnectionLossException, zookeeper.SessionExpiredException,
    zookeeper.InvalidStateException, zookeeper.ClosingException,
    zookeeper.OperationTimeoutException)


class ZKQueue:
    """First in, first out, as sequential znodes below one path."""

    def __init__(
            self, session: ZKSession, basepath: str,
            acl: list[dict[str, Any]] | None = None, *,
            timeout: float | None = None) -> None:
        """
        :param basepath: the path of the queue; created unless it exists.
        :param acl: the ACL of new znodes; None: open.
        """
        self._session = session
        self.basepath = basepath
        self.acl = acl
        try:
            session.create(basepath, "ZKQueue", acl, timeout=timeout)
        except zookeeper.NodeExistsException:
            pass

    def enqueue(self, val: Any, timeout: float | None = None) -> str:
        """Put a value at the end; return the path of its znode."""
        return self._session.create(
            f"{self.basepath}/item-", val, self.acl, zookeeper.SEQUENCE,
            timeout=timeout)

    def dequeue(self, timeout: float | None = None) -> str:
        """Take the first value.

        :param timeout: seconds to wait for a value. None: as long as it
            takes; 0: do not wait.
        :raises zookeeper.OperationTimeoutException: when there is no value.
        :raises zookeeper.ConnectionLossException: when the connection broke
            while a value was being taken; the value may be lost.
        """
        deadline = after(timeout)
        while True:
            changed = threading.Event()
            try:
                names = self._session.get_children(
                    self.basepath, zookeeper.Immediate(
                        lambda *_, event=changed: event.set()))
            except _LOST:
                # No value was taken, so it can be tried again.
                if not self._session.wait_connected(remaining(deadline)):
                    raise
                continue
            for name in sorted(names):
                value = self._take(f"{self.basepath}/{name}")
                if value is not None:
                    return value
            if not changed.wait(remaining(deadline)):
                raise zookeeper.OperationTimeoutException(
                    f"nothing in {self.basepath} within {timeout} s")

    def _take(self, path: str) -> str | None:
        """Read and delete a value; None: another process has taken it."""
        try:
            value, stat = self._session.get(path)
            self._session.delete(path, stat["version"])
            return value
        except (zookeeper.NoNodeException, zookeeper.BadVersionException):
            return None
