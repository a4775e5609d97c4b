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

"""The members of this process: each has a znode, an entry and a watchdog.

The paths of znodes and entries are in nova_sg.backends.zookeeper.names.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time

from oslo_log import log as logging

from nova_sg import evzookeeper, exception, zookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import (
    connection,
    names,
    session_order,
    watchdog,
    watched,
)
from nova_sg.conf import CONF
from nova_sg.evzookeeper import membership as ev_membership

LOG = logging.getLogger(__name__)

# Seconds after which a member's entry is written again, or service_down_time
# if that is less. A new observer shows that time as a dead member's last
# report. Not more often, as the whole ensemble takes part in each write.
ENTRY_LIFE = 300.0


class OwnMembers:
    """Reports the members of this process, and withdraws them."""

    def __init__(
        self, link: connection.Connection, groups: watched.WatchedGroups
    ) -> None:
        self._link = link
        self._groups = groups
        self._lock = threading.Lock()
        self._watchdog_made: watchdog.Watchdog | None = None
        self._order = session_order.SessionOrder(link)

    @property
    def _watchdog(self) -> watchdog.Watchdog:
        if self._watchdog_made is None:
            with self._lock:
                if self._watchdog_made is None:
                    self._watchdog_made = watchdog.make(
                        self._link.client,
                        self._link.address,
                        self._link.security,
                    )
        return self._watchdog_made

    def report(self, membership: base.Membership) -> None:
        state = membership.state
        self._order.renew()
        if self._feed_watchdog(membership):
            state["checked"] = None
            LOG.warning(
                "%(host)s was withdrawn from the group %(group)s, as this "
                "process had not reported for longer than service_down_time. "
                "It reports again and joins again",
                {"host": membership.host, "group": membership.group},
            )
        try:
            self._report(membership)
        finally:
            # The time that the report took must not count as silence.
            state["withdrawn"] = self._feed_watchdog(membership)

    def _feed_watchdog(self, membership: base.Membership) -> bool:
        """Return whether the member was withdrawn."""
        before = membership.state.pop("withdrawn", False)
        now = self._watchdog.feed(membership, CONF.service_down_time)
        return before or now

    def _report(self, membership: base.Membership) -> None:
        state = membership.state
        with self._link.translated() as session:
            znode = state.get("znode")
            if znode is None:
                self._link.make_chroot()
                # It joins below, or in the background once a server is
                # reachable.
                state["znode"] = znode = ev_membership.Membership(
                    session,
                    names.group_path(membership.group),
                    functools.partial(self._name, membership),
                    acl=self._link.acl,
                    async_mode=True,
                    join_now=False,
                )
            try:
                # A member that has joined does not wait for the connection:
                # the next report comes soon.
                self._link.require(wait=not znode.joined)
                self._make_sure(session, membership, znode)
            except BaseException:
                if not znode.joined:
                    session.restore_soon(znode)
                raise
            if membership.draining and not state.get("draining"):
                self._mark_draining(session, membership)
            if state.get("said") != _said(session, membership):
                self._write_entry(session, membership)

    def _name(self, membership: base.Membership, session_id: int) -> str:
        """Name the znode that a member is about to create."""
        name = names.member_name(membership.host, session_id)
        path = f"{names.group_path(membership.group)}/{name}"
        if not self._watchdog.watch(membership, path):
            # A new session must not bring back a member whose timer has
            # stopped.
            raise zookeeper.ZooKeeperException("it does not report")
        membership.state["name"] = name
        self._order.add(membership, session_id)
        return name

    def _make_sure(
        self,
        session: evzookeeper.ZKSession,
        membership: base.Membership,
        znode: ev_membership.Membership,
    ) -> None:
        """Create the znode and the entry again if they are gone.

        Checked from time to time, not at each report.
        """
        state, now = membership.state, time.monotonic()
        checked = state.get("checked")
        every = CONF.zookeeper.sg_retry_interval
        if znode.joined:
            every = max(every, CONF.service_down_time / 2)
        if checked is None or now - checked >= every:
            state["checked"] = now
            if not self._is_there(session, membership, checked, znode):
                znode.refresh(quiet=False, timeout=self._link.timeout)
                state["written"] = None
                self._groups[membership.group].wrote(
                    names.group_path(membership.group), state["name"], True
                )
        elif not znode.joined:
            raise self._link.error(f"{membership.host} has not joined yet")
        written = state.get("written")
        life = min(ENTRY_LIFE, CONF.service_down_time)
        if written is None or now - written >= life:
            # If the entry is new, the next report deletes old marks: joins of
            # many members are not delayed.
            new = self._write_entry(session, membership)
            state["written"] = None if new else now

    def _is_there(
        self,
        session: evzookeeper.ZKSession,
        membership: base.Membership,
        checked: float | None,
        znode: ev_membership.Membership,
    ) -> bool:
        if checked is None or not znode.joined:
            return False
        name = membership.state["name"]
        path = f"{names.group_path(membership.group)}/{name}"
        # A read: one server answers it. To create the znode once more would
        # be work for the whole ensemble, also if it exists.
        with contextlib.suppress(zookeeper.NoNodeException):
            session.exists(path)
            return True
        return False

    def _mark_draining(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> None:
        """Report that a member is about to stop, once."""
        path = _entry_path(membership, names.DRAINING)
        with contextlib.suppress(zookeeper.NodeExistsException):
            session.create(path, "", self._link.acl)
        membership.state["draining"] = True

    def _write_entry(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> bool:
        """Write the member's entry, and what it says of itself.

        The entry's data names what it says, so that the next process of that
        name can delete it.

        :returns: whether it is the entry of a new member; then no marks are
            deleted, such as that it left
        """
        path = _entry_path(membership)
        said = _said(session, membership)
        before = membership.state.get("said")
        known = before
        new = False
        data = " ".join(said)
        if known is None:
            known = []
            try:
                known = names.read_said(session.get(path)[0])
            except zookeeper.NoNodeException:
                new = self._create_entry(session, membership, data)
        if not new:
            try:
                session.set(path, data)
            except zookeeper.NoNodeException:
                # It was removed while it runs, with all that it says.
                before = None
                self._create_entry(session, membership, data)
            kinds = [names.LEFT, names.CRASHED]
            if not membership.draining:
                kinds.append(names.DRAINING)
            for kind in kinds:
                self._link.delete(_entry_path(membership, kind))
        # The new ones first: a member that is unwell for another reason now is
        # not well in between.
        for name in said:
            if before is None or name not in before:
                with contextlib.suppress(zookeeper.NodeExistsException):
                    session.create(f"{path}@{name}", "", self._link.acl)
        for name in known:
            if name not in said:
                self._link.delete(f"{path}@{name}")
        membership.state["said"] = said
        return new

    def _create_entry(
        self,
        session: evzookeeper.ZKSession,
        membership: base.Membership,
        data: str,
    ) -> bool:
        """Create the member's entry; return whether there was none."""
        path = _entry_path(membership)
        try:
            try:
                session.create(path, data, self._link.acl)
            except zookeeper.NoNodeException:
                session.ensure_path(
                    names.entries_path(membership.group), self._link.acl
                )
                session.create(path, data, self._link.acl)
        except zookeeper.NodeExistsException:
            return False
        return True

    def withdraw(self, membership: base.Membership) -> None:
        znode = membership.state.pop("znode", None)
        self._order.remove(membership)
        if self._watchdog_made is not None:
            self._watchdog.forget(membership)
        marked = False
        try:
            with self._link.asking() as session:
                # Before the znode is deleted, so that an observer which sees
                # that finds the reason.
                self._mark_left(session, membership)
                marked = True
                if znode is None:
                    self._take_out(membership)
        finally:
            if znode is not None:
                znode.leave(timeout=self._link.timeout if marked else 0)
                self._groups[membership.group].wrote(
                    names.group_path(membership.group),
                    membership.state.get("name", ""),
                    False,
                )
                if membership.draining and marked:
                    self._end_draining(membership)

    def _end_draining(self, membership: base.Membership) -> None:
        """Delete the mark, once the member's znode is deleted.

        Where that fails, the next process of that name does it.
        """
        with (
            contextlib.suppress(exception.BackendError),
            self._link.asking(),
        ):
            self._link.delete(_entry_path(membership, names.DRAINING))

    def _mark_left(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> None:
        self._link.delete(_entry_path(membership, names.CRASHED))
        path = _entry_path(membership, names.LEFT)
        try:
            session.create(path, "", self._link.acl)
        except zookeeper.NodeExistsException:
            session.set(path, "")
        except zookeeper.NoNodeException:
            pass

    def _take_out(self, membership: base.Membership) -> None:
        """Delete the znodes of a member that another process has joined.

        If that process is alive, its next report creates the znode again.
        """
        path = names.group_path(membership.group)
        for name in self._link.children(path):
            if names.is_of(name, membership.host):
                self._link.delete(f"{path}/{name}")
                self._groups[membership.group].wrote(path, name, False)

    def close(self) -> None:
        self._order.close()
        if self._watchdog_made is not None:
            self._watchdog_made.close()


def _entry_path(membership: base.Membership, kind: str = "") -> str:
    return names.entry_path(
        membership.group, membership.host, membership.binary, kind
    )


def _said(
    session: evzookeeper.ZKSession, membership: base.Membership
) -> list[str]:
    """Return what a member says of itself, as ends of entries' names."""
    texts = (
        (names.SERVER, session.server),
        (names.UNWELL, membership.unwell),
        (names.DOMAIN, membership.domain),
    )
    return [names.said(kind, text) for kind, text in texts if text]
