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

"""Group membership: the members of a group are ephemeral znodes below a path.

Here: Membership, a member of this process, and MembershipMonitor, which
watches all members. A member's znode exists as long as its session.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from nova_sg import zookeeper
from nova_sg.evzookeeper import service
from nova_sg.evzookeeper.deadlines import after, remaining
from nova_sg.evzookeeper.restorer import RETRY_INTERVAL
from nova_sg.evzookeeper.session import ZKSession

LOG = logging.getLogger(__name__)

# Seconds without a change after which a group is listed before min_interval
# has passed: no more changes seem to follow.
_QUIET = 0.003


class Membership(service.ZKServiceBase):
    """A member of a group, until leave() or the session's close().

    When the session is replaced, the member joins again automatically. After
    leave() it cannot join again: make another object.
    """

    def __init__(
            self, session: ZKSession, basepath: str,
            name: str | Callable[[int], str],
            acl: list[dict[str, Any]] | None = None,
            async_mode: bool = False, *,
            timeout: float | None = None, join_now: bool = True) -> None:
        """Join.

        :param basepath: the path of the group; created unless it exists.
        :param name: the name of the znode; or a function that returns it for
            the id of the session that creates it. The function is called
            again for each new session.
        :param acl: the ACL of new znodes; None: open.
        :param async_mode: join in the background, as soon as possible,
            instead of before this returns.
        :param timeout: seconds that joining may take, unless async_mode.
        :param join_now: with async_mode; False: join by the caller's next
            refresh(), or when a server is connected.
        :raises RuntimeError: when another session has a znode of that name.
            With async_mode joining is tried again until that znode is gone.
        """
        self._name = name
        self._session_token = str(random.random())
        self._lock = threading.Lock()
        self._left = False
        # The path that has been, or may have been, created.
        self._path: str | None = None
        # The id of the session in which it has been created.
        self._owner: int | None = None
        self._told_duplicate = False
        super().__init__(session, basepath, acl=acl)
        if async_mode:
            if join_now:
                session.restore_soon(self)
        else:
            try:
                self.refresh(quiet=False, timeout=timeout)
            except BaseException:
                # The caller gets an exception instead of a member. So a znode
                # that may have been created is deleted.
                self._left = True
                if self._path is None:
                    self.close()
                else:
                    session.restore_soon(self)
                raise

    @property
    def joined(self) -> bool:
        """Whether the znode was created in the present session."""
        return (not self._left and self._owner is not None
                and self._owner == self._session.session_id)

    def refresh(
            self, quiet: bool = True, timeout: float | None = None) -> bool:
        """Make sure that the znode exists: one round trip.

        :param quiet: return False instead of raising.
        :returns: whether it exists.
        """
        if timeout is None:
            timeout = self._session.operation_timeout
        deadline = after(timeout)
        try:
            with self._locked(timeout):
                if self._left:
                    return False
                self._join(
                    *self._session.connected_handle(remaining(deadline)),
                    deadline)
                return True
        except Exception:
            if not quiet:
                raise
            return False

    def leave(self, timeout: float | None = None) -> bool:
        """Leave the group.

        If the servers are unreachable, the znode is deleted as soon as they
        are reachable again.

        :returns: False when it has left before.
        """
        if timeout is None:
            timeout = self._session.recv_timeout / 1000
        deadline = time.monotonic() + timeout
        if self._left:
            return False
        self._left = True
        try:
            with self._locked(timeout):
                self._delete(remaining(deadline), deadline)
        except zookeeper.ClosingException:
            self.close()  # the znode was deleted with the session
        except zookeeper.ZooKeeperException as exc:
            LOG.warning(
                "Cannot leave %s now: %s. Trying again",
                self._path or self._basepath, exc)
            self._session.restore_soon(self)
        return True

    def restore(self) -> None:
        timeout = self._session.recv_timeout / 1000
        deadline = time.monotonic() + timeout
        with self._locked(timeout):
            # Without waiting for a connection: with a new one, the services
            # before this one have to be restored first.
            if self._left:
                self._delete(0, deadline)
            else:
                try:
                    self._join(*self._session.connected_handle(0), deadline)
                except RuntimeError as exc:
                    if not self._told_duplicate:
                        LOG.error(
                            "%s. Trying again until the other znode is gone",
                            exc)
                        self._told_duplicate = True
                    raise zookeeper.NodeExistsException(str(exc)) from exc

    def _locked(self, timeout: float | None) -> "_Locked":
        return _Locked(self._lock, timeout)

    def _join(
            self, handle: int, session_id: int,
            deadline: float | None) -> None:
        # All in one session: a name with the id of one session must not be
        # created in the next one.
        name = self._name(session_id) if callable(self._name) else self._name
        path = f"{self._basepath}/{name}"
        # Before the request: if its answer is lost, leave() has to know what
        # to delete.
        self._path = path
        while True:
            try:
                self._session.client.create(
                    handle, path, self._session_token, self.acl,
                    zookeeper.EPHEMERAL, timeout=remaining(deadline))
            except zookeeper.NoNodeException:
                self._session.ensure_path(
                    self._basepath, self.acl, timeout=remaining(deadline))
                continue
            except zookeeper.NodeExistsException:
                if not self._is_mine(handle, session_id, path, deadline):
                    continue
            self._owner = session_id
            self._told_duplicate = False
            return

    def _is_mine(
            self, handle: int, session_id: int, path: str,
            deadline: float | None) -> bool:
        """Check the znode that exists.

        :returns: False when it no longer exists.
        :raises RuntimeError: when it belongs to another member.
        """
        try:
            token, stat = self._session.client.get(
                handle, path, timeout=remaining(deadline))
            if stat["ephemeralOwner"] == session_id:
                return True
            if token != self._session_token:
                raise RuntimeError(f"Duplicated membership name {path}")
            # It was created by this object in an earlier session, and would
            # disappear when that session expires.
            self._session.client.delete(
                handle, path, stat["version"], timeout=remaining(deadline))
        except zookeeper.NoNodeException:
            pass
        return False

    def _delete(
            self, connect_timeout: float | None,
            deadline: float | None) -> None:
        if self._path is not None:
            handle, _ = self._session.connected_handle(connect_timeout)
            try:
                token, _stat = self._session.client.get(
                    handle, self._path, timeout=remaining(deadline))
                if token == self._session_token:
                    self._session.client.delete(
                        handle, self._path, timeout=remaining(deadline))
            except zookeeper.NoNodeException:
                pass
        self.close()


class _Locked:
    """`with lock`, with a timeout."""

    def __init__(self, lock: Any, timeout: float | None) -> None:
        self._lock = lock
        self._timeout = timeout

    def __enter__(self) -> None:
        if self._timeout is None:
            self._lock.acquire()
        elif not self._lock.acquire(timeout=self._timeout):
            raise zookeeper.OperationTimeoutException(
                f"another call was using the membership for {self._timeout} s")

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


class MembershipMonitor(service.ZKServiceBase):
    """The members of a group, kept up to date by a watch.

    A change is followed at once. After that the group is listed once every
    min_interval on average, however many members join and leave: one listing
    then has many changes. It is listed earlier, once in that time, if the
    changes seem to be over.
    """

    def __init__(
            self, session: ZKSession, basepath: str,
            acl: list[dict[str, Any]] | None = None,
            cb_func: Callable[[set[str] | None], object] | None = None, *,
            min_interval: float = 0.05) -> None:
        """
        :param basepath: the path of the group. It need not exist yet, and
            is not created.
        :param cb_func: called on the monitor's own thread with the set of
            the members' names, when it is first known and when it has
            changed; with None when the servers are unreachable, which does
            not mean that the members have left.
        :param min_interval: seconds between two listings.
        """
        self._session = session
        self._cb_func = cb_func or (lambda members: None)
        self._min_interval = min_interval
        self._members: set[str] | None = None
        self._condition = threading.Condition()
        self._published = False
        # Whether an error has been logged, and no list has come since.
        self._in_trouble = False
        self._stale = False
        self._hurry = False
        self._lost = False
        self._closed = False
        # The handle on which the watch is set. A watch survives a
        # reconnection; a second one would make a second event.
        self._watching: int | None = None
        session.add_listener(self._session_event)
        # Not before: the session may be lost between the two.
        self._lost = not session.is_connected()
        try:
            super().__init__(session, basepath, acl=acl)
        except BaseException:
            session.remove_listener(self._session_event)
            raise
        session.restore_soon(self)

    def get_all(self) -> set[str] | None:
        """The names of the members, as last listed: no round trip.

        None while the servers are unreachable. The set is never changed; the
        caller must not change it either.
        """
        return self._members

    def get_member_details(
            self, name: str,
            timeout: float | None = None) -> tuple[str, dict[str, int]]:
        """The (value, stat) of a member's znode."""
        return self._session.get(f"{self._basepath}/{name}", timeout=timeout)

    def close(self) -> None:
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
        self._session.remove_listener(self._session_event)
        super().close()

    def restore(self) -> None:
        with self._condition:
            self._stale = self._hurry = True
            self._condition.notify_all()

    def _session_event(self, event: str) -> None:
        if not self._session.is_connected():
            self._mark(lost=True)

    def _watch(
            self, _handle: int, kind: int, _state: int,
            _path: str | None) -> None:
        # Events of the session arrive by restore() and the listener.
        if kind != zookeeper.SESSION_EVENT:
            self._watching = None
            self._mark(stale=True)

    def _mark(self, stale: bool = False, lost: bool = False) -> None:
        with self._condition:
            self._stale = self._stale or stale
            self._lost = self._lost or lost
            self._condition.notify_all()

    def _session_callback(self) -> None:
        # When the group may be listed again; and when it may be listed before
        # that again.
        earliest = early = 0.0
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._closed or self._stale or self._lost)
                self._lost = False
                stale = self._stale
            if stale:
                self._await_turn(earliest, early)
            with self._condition:
                if self._closed:
                    return
                stale, self._stale, self._hurry = self._stale, False, False
            begun = time.monotonic()
            if begun < earliest:
                early = earliest
            members = None
            if self._session.is_connected():
                if not stale:
                    continue  # connected again; restore() follows
                members = self._list()
                if members is not None:
                    self._in_trouble = False
                pause = self._min_interval
                if members is None and self._session.is_connected():
                    pause = RETRY_INTERVAL
                    self._mark(stale=True)
                # After an early listing the next one comes later.
                earliest = max(earliest, time.monotonic()) + pause
                if members is None:
                    # After an error it is tried again at that time.
                    early = earliest
            self._publish(members)

    def _await_turn(self, earliest: float, early: float) -> None:
        """Wait until the group may be listed, or there is no need to wait."""
        seen: object = self
        while (left := earliest - time.monotonic()) > 0:
            pause = left
            if time.monotonic() >= early:
                pause = min(left, _QUIET)
                changed = self._last_change()
                if changed is not None and changed == seen:
                    return
                seen = changed
            with self._condition:
                if self._condition.wait_for(
                        lambda: self._closed or self._lost or self._hurry,
                        pause):
                    return

    def _last_change(self) -> tuple[int, int] | None:
        """Return the group's last change; None: it is not known."""
        try:
            handle, _ = self._session.connected_handle(0)
            stat = self._session.client.exists(
                handle, self._basepath,
                timeout=self._session.recv_timeout / 1000)
        except zookeeper.ZooKeeperException:
            return None
        return None if stat is None else (stat["czxid"], stat["pzxid"])

    def _list(self) -> set[str] | None:
        timeout = self._session.recv_timeout / 1000
        try:
            handle, _ = self._session.connected_handle(0)
            watch = None
            # Not "!=": another handle can have the same number.
            if self._watching is not handle:
                watch = zookeeper.Immediate(self._watch)
                # Before the request, as the watch may fire before its answer.
                self._watching = handle
            try:
                return set(self._session.client.get_children(
                    handle, self._basepath, watch, timeout=timeout))
            except zookeeper.NoNodeException:
                stat = self._session.client.exists(
                    handle, self._basepath, watch, timeout=timeout)
                if stat is not None:
                    # Created between the two calls.
                    self._watching = None
                    self._mark(stale=True)
                return set()
            except BaseException:
                self._watching = None
                raise
        except zookeeper.ZooKeeperException as exc:
            # It is no error if this process has closed the session.
            if not self._session.is_closed():
                LOG.log(
                    logging.DEBUG if self._in_trouble else logging.WARNING,
                    "Cannot list the members in %s: %s. Trying again",
                    self._basepath, exc)
                self._in_trouble = True
            return None

    def _publish(self, members: set[str] | None) -> None:
        if self._published and members == self._members:
            return
        self._published = True
        self._members = members
        try:
            self._cb_func(members)
        except Exception:
            LOG.exception(
                "The callback for members in %s failed", self._basepath)
