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

"""The members that this process has joined: a znode, an entry, a watchdog.

What stands where in ZooKeeper is in nova_sg.backends.zookeeper.names.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time

from oslo_log import log as logging

from nova_sg import evzookeeper, zookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import connection, names, watchdog, will
from nova_sg.backends.zookeeper import group as znode_group
from nova_sg.conf import CONF
from nova_sg.evzookeeper import membership as ev_membership

LOG = logging.getLogger(__name__)

# A member's entry is written again after service_down_time, and after so many
# seconds at most: a new observer takes that for the last time at which a
# member that has died was there. It is a write of the whole ensemble.
ENTRY_LIFE = 300.0


class Joined:
    """What this process says of its own members."""

    def __init__(
        self, link: connection.Connection, groups: znode_group.Groups
    ) -> None:
        self._link = link
        self._groups = groups
        self._lock = threading.Lock()
        self._watchdog_made: watchdog.Watchdog | None = None
        self._will = will.Will(link)

    @property
    def _watchdog(self) -> watchdog.Watchdog:
        if self._watchdog_made is None:
            with self._lock:
                if self._watchdog_made is None:
                    self._watchdog_made = watchdog.Watchdog(
                        self._link.address,
                        CONF.zookeeper.digest,
                        CONF.zookeeper.cert,
                    )
        return self._watchdog_made

    def report(self, membership: base.Membership) -> None:
        state = membership.state
        self._will.renew()
        if self._feed_watchdog(membership):
            state["checked"] = None
            LOG.warning(
                "%(host)s had not reported to the group %(group)s for longer "
                "than service_down_time and was withdrawn; it joins again",
                {"host": membership.host, "group": membership.group},
            )
        try:
            self._report(membership)
        finally:
            # Waiting for ZooKeeper is not standing still.
            state["withdrawn"] = self._feed_watchdog(membership)

    def _feed_watchdog(self, membership: base.Membership) -> bool:
        """Return whether the member was withdrawn."""
        before = membership.state.pop("withdrawn", False)
        now = self._watchdog.feed(membership, CONF.service_down_time)
        return before or now

    def _report(self, membership: base.Membership) -> None:
        state = membership.state
        with self._link.translated() as session:
            joined = state.get("joined")
            if joined is None:
                # In the background: it goes on when the servers come.
                state["joined"] = joined = ev_membership.Membership(
                    session,
                    names.group_path(membership.group),
                    functools.partial(self._name, membership),
                    acl=self._link.acl,
                    async_mode=True,
                )
            # Who has joined waits for nobody: the next report comes soon.
            self._link.require(wait=not joined.joined)
            self._make_sure(session, membership, joined)
            if membership.draining and not state.get("draining"):
                self._mark_draining(session, membership)

    def _name(self, membership: base.Membership, session_id: int) -> str:
        """Name the znode that a member is about to create."""
        name = names.member_name(membership.host, session_id)
        path = f"{names.group_path(membership.group)}/{name}"
        if not self._watchdog.watch(membership, path):
            # A new session does not bring back whose timer stands still.
            raise zookeeper.ZooKeeperException("it does not report")
        membership.state["name"] = name
        self._will.add(membership, session_id)
        return name

    def _make_sure(
        self,
        session: evzookeeper.ZKSession,
        membership: base.Membership,
        joined: ev_membership.Membership,
    ) -> None:
        """See to it that znode and entry are there: once in a while."""
        state, now = membership.state, time.monotonic()
        checked = state.get("checked")
        every = CONF.zookeeper.sg_retry_interval
        if joined.joined:
            every = max(every, CONF.service_down_time / 2)
        if checked is None or now - checked >= every:
            state["checked"] = now
            if not self._is_there(session, membership, checked, joined):
                joined.refresh(quiet=False, timeout=self._link.timeout)
                state["written"] = None
                self._groups[membership.group].wrote(
                    names.group_path(membership.group), state["name"], True
                )
        elif not joined.joined:
            raise self._link.error("not joined yet")
        written = state.get("written")
        life = min(ENTRY_LIFE, CONF.service_down_time)
        if written is None or now - written >= life:
            self._write_entry(session, membership)
            state["written"] = now

    def _is_there(
        self,
        session: evzookeeper.ZKSession,
        membership: base.Membership,
        checked: float | None,
        joined: ev_membership.Membership,
    ) -> bool:
        if checked is None or not joined.joined:
            return False
        name = membership.state["name"]
        path = f"{names.group_path(membership.group)}/{name}"
        # A read, which the server that is connected answers by itself:
        # creating what exists would be work for the whole ensemble.
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
    ) -> None:
        path = _entry_path(membership)
        try:
            session.set(path, "")
        except zookeeper.NoNodeException:
            above = names.entries_path(membership.group)
            session.ensure_path(above, self._link.acl)
            with contextlib.suppress(zookeeper.NodeExistsException):
                session.create(path, "", self._link.acl)
        marks = [names.LEFT, names.CRASHED]
        if not membership.draining:
            marks.append(names.DRAINING)
        for mark in marks:
            self._link.delete(_entry_path(membership, mark))

    def withdraw(self, membership: base.Membership) -> None:
        joined = membership.state.pop("joined", None)
        self._will.remove(membership)
        if self._watchdog_made is not None:
            self._watchdog.forget(membership)
        marked = False
        try:
            with self._link.asking() as session:
                # Before the znode goes: who sees it go finds the reason.
                self._mark_left(session, membership)
                marked = True
                if joined is None:
                    self._take_out(membership)
        finally:
            if joined is not None:
                # It is draining for as long as its znode is there; the next
                # process of that name does away with the mark.
                joined.leave(timeout=self._link.timeout if marked else 0)
                self._groups[membership.group].wrote(
                    names.group_path(membership.group),
                    membership.state.get("name", ""),
                    False,
                )

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
        """Remove a member that another process has joined.

        If that is alive, the member is back at its next look.
        """
        path = names.group_path(membership.group)
        for name in self._link.children(path):
            if names.is_of(name, membership.host):
                self._link.delete(f"{path}/{name}")
                self._groups[membership.group].wrote(path, name, False)

    def close(self) -> None:
        self._will.close()
        if self._watchdog_made is not None:
            self._watchdog_made.close()


def _entry_path(membership: base.Membership, mark: str = "") -> str:
    return names.entry_path(
        membership.group, membership.host, membership.binary, mark
    )
