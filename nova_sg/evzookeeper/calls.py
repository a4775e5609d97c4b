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

"""The calls of a session to the servers, each with a timeout.

Here: Calls, the part of ZKSession that makes them. Not here: on which handle
they are made, and whether it is connected (session.py).
"""

import abc
import threading
from collections.abc import Callable
from typing import Any

from nova_sg import zookeeper
from nova_sg.evzookeeper.deadlines import after, remaining

ZOO_OPEN_ACL_UNSAFE = {
    "perms": zookeeper.PERM_ALL, "scheme": "world", "id": "anyone"}


class Calls(abc.ABC):
    """Calls on the present handle.

    Without a `timeout`, in seconds, the operation_timeout applies, and without
    that they wait as long as it takes.
    """

    _operation_timeout: float | None
    # The module nova_sg.zookeeper, or a transport with the same functions.
    _client: Any

    @abc.abstractmethod
    def _handle(self, timeout: float | None) -> int:
        """The present handle, connected or not; waits until there is one."""

    @abc.abstractmethod
    def _found_invalid(self, handle: int) -> None:
        """A call has found that the handle's session has ended."""

    def create(
            self, path: str, value: Any, acl: list | None = None,
            flags: int = 0, timeout: float | None = None) -> str:
        """Create a znode and return its path.

        :param acl: None for [ZOO_OPEN_ACL_UNSAFE].
        :param flags: zookeeper.EPHEMERAL, SEQUENCE, both or 0.
        """
        return self._call(
            timeout, self._client.create, path, value, _acl(acl), flags)

    def ensure_path(
            self, path: str, acl: list | None = None,
            timeout: float | None = None) -> None:
        """Create a znode, and those above it, unless they exist.

        With a chroot, also the chroot's own znode, but not those above it,
        which this session cannot reach.
        """
        deadline = after(self._timeout(timeout))
        # Not simply create(): without the permission to create it, that does
        # not show that a znode exists.
        if self._call(remaining(deadline), self._client.exists, path):
            return
        if path != "/":
            above = path.rpartition("/")[0] or "/"
            self.ensure_path(above, acl, remaining(deadline))
        try:
            self.create(path, "", acl, timeout=remaining(deadline))
        except zookeeper.NodeExistsException:
            pass  # another client has created it meanwhile

    def delete(
            self, path: str, version: int = -1,
            timeout: float | None = None) -> int:
        """Delete a znode, provided that it has this version; -1: any."""
        return self._call(timeout, self._client.delete, path, version)

    def exists(
            self, path: str, watch: Any = None,
            timeout: float | None = None) -> dict[str, int]:
        """The znode's stat.

        :param watch: called once with (handle, type, state, path) when the
            znode is created, changed or deleted. When the session is
            replaced, it is called with the expiry, and is not set again.
        :raises zookeeper.NoNodeException: when there is no znode; the watch
            is set nevertheless.
        """
        stat = self._call(timeout, self._client.exists, path, watch)
        if stat is None:
            raise zookeeper.NoNodeException("no node")
        return stat

    def get(
            self, path: str, watcher: Any = None,
            timeout: float | None = None) -> tuple[str, dict[str, int]]:
        """The znode's (data, stat)."""
        return self._call(timeout, self._client.get, path, watcher)

    def get_children(
            self, path: str, watcher: Any = None,
            timeout: float | None = None) -> list[str]:
        """The names of the znode's children."""
        return self._call(timeout, self._client.get_children, path, watcher)

    def set(
            self, path: str, data: Any, version: int = -1,
            timeout: float | None = None) -> int:
        """Write a znode's data, provided that it has this version."""
        return self._call(timeout, self._client.set, path, data, version)

    def set2(
            self, path: str, data: Any, version: int = -1,
            timeout: float | None = None) -> dict[str, int]:
        """As set(); returns the new stat."""
        return self._call(timeout, self._client.set2, path, data, version)

    def get_acl(
            self, path: str,
            timeout: float | None = None) -> tuple[list, dict[str, int]]:
        """The znode's (ACL, stat)."""
        stat, acl = self._call(timeout, self._client.get_acl, path)
        return acl, stat

    def set_acl(
            self, path: str, version: int, acl: list,
            timeout: float | None = None) -> int:
        """Write a znode's ACL, provided that the ACL has this version."""
        return self._call(timeout, self._client.set_acl, path, version, acl)

    def sync(self, path: str, timeout: float | None = None) -> int:
        """Make this session's server catch up with the leader."""
        return self._check(self._answer(
            timeout, "sync",
            lambda handle, done: self._client.async_(handle, path, done)))

    def _timeout(self, timeout: float | None) -> float | None:
        return self._operation_timeout if timeout is None else timeout

    def _call(
            self, timeout: float | None, function: Callable[..., Any],
            *args: Any) -> Any:
        deadline = after(self._timeout(timeout))
        handle = self._handle(remaining(deadline))
        try:
            return function(
                handle, *args, timeout=remaining(deadline))
        except zookeeper.InvalidStateException:
            self._found_invalid(handle)
            raise

    def _answer(
            self, timeout: float | None, what: str,
            send: Callable[[int, Any], object]) -> int:
        """Send a request by send(handle, completion); return its code."""
        answered = threading.Event()
        codes: list[int] = []

        def completion(_handle: int, code: int, *_path: str | None) -> None:
            codes.append(code)
            answered.set()

        deadline = after(self._timeout(timeout))
        send(
            self._handle(remaining(deadline)),
            zookeeper.Immediate(completion))
        if not answered.wait(remaining(deadline)):
            raise zookeeper.OperationTimeoutException(f"no answer to {what}")
        return codes[0]

    def _check(self, code: int) -> int:
        """:raises zookeeper.ZooKeeperException: for any code but OK."""
        if code != zookeeper.OK:
            raise zookeeper.exceptions.for_code(
                code, self._client.zerror(code))
        return code


def _acl(acl: list | None) -> list:
    return [ZOO_OPEN_ACL_UNSAFE] if acl is None else acl
