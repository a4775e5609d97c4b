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

"""The ZooKeeper driver: a member is an ephemeral znode.

What stands where in ZooKeeper is in nova_sg.znodes.names.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from oslo_log import log as logging

from nova_sg import evzookeeper, exception, zookeeper
from nova_sg.conf import CONF
from nova_sg.evzookeeper import membership as ev_membership
from nova_sg.evzookeeper import session as ev_session
from nova_sg.servicegroup import detector, watchdog
from nova_sg.servicegroup.drivers import base
from nova_sg.znodes import group as znode_group
from nova_sg.znodes import names as znodes
from nova_sg.znodes import servers

LOG = logging.getLogger(__name__)

T = TypeVar("T")

# A member's entry is written again after so many seconds: what a new
# observer takes for the last sign of life of a member that has died.
ENTRY_LIFE = 300.0
# So many foreign znodes are warned of, one by one.
MAX_WARNINGS = 1000


class ZkDriver(base.Driver):
    """Reports by being there, observes by watches."""

    name = "zk"
    apart = True
    characteristics = base.Characteristics(
        detects=(
            "a service whose process, host or network is gone: its session "
            "ends; a service whose timer has stood still for "
            "service_down_time: its watchdog withdraws it"
        ),
        bound="recv_timeout, and 0.1 s to tell observers",
        blind=(
            "a service whose timer runs while its work is stuck; a process "
            "that holds Python's interpreter lock for good"
        ),
    )

    def __init__(self) -> None:
        if not CONF.zookeeper.address:
            raise exception.ConfigError(
                "[zookeeper] address: the zk driver needs the servers, as "
                "in 192.168.2.1:2181,192.168.2.2:2181,192.168.2.3:2181"
            )
        if CONF.zookeeper.acl == "creator" and not CONF.zookeeper.digest:
            raise exception.ConfigError(
                "[zookeeper] digest: acl = creator needs the user:password "
                "of the creator"
            )
        try:
            zookeeper.zerror(zookeeper.OK)
        except zookeeper.LibraryNotFound as error:
            raise exception.ConfigError(
                f"[DEFAULT] servicegroup_driver = zk: {error}"
            ) from None
        if CONF.zookeeper.cert and not hasattr(zookeeper, "init_ssl"):
            raise exception.ConfigError(
                "[zookeeper] cert: the ZooKeeper client library that is "
                "installed has no TLS"
            )
        # The C client wants IPv6 addresses without their brackets.
        self._address = re.sub(r"\[([^\]]*)\]", r"\1", CONF.zookeeper.address)
        # How long a call may take, in seconds: reports have to go on.
        self._timeout = min(
            CONF.zookeeper.recv_timeout / 1000, CONF.service_down_time / 2
        )
        self._acl = _acl()
        self._lock = threading.Lock()
        self._session_made: evzookeeper.ZKSession | None = None
        self._watchdog_made: watchdog.Watchdog | None = None
        self._groups: dict[str, znode_group.Group] = {}
        self._warned: set[str] = set()

    @property
    def _session(self) -> evzookeeper.ZKSession:
        """The process's session, begun by whoever needs it first."""
        if self._session_made is None:
            with self._lock:
                if self._session_made is None:
                    self._session_made = self._begin()
        return self._session_made

    def _begin(self) -> evzookeeper.ZKSession:
        auths = []
        if CONF.zookeeper.digest:
            auths.append(("digest", CONF.zookeeper.digest))
        session = evzookeeper.ZKSession(
            self._address,
            recv_timeout=CONF.zookeeper.recv_timeout,
            operation_timeout=self._timeout,
            auths=auths,
            ssl_cert=CONF.zookeeper.cert,
        )
        session.add_listener(self._session_event)
        return session

    def _session_event(self, event: str) -> None:
        if event != ev_session.CONNECTED:
            for group in list(self._groups.values()):
                group.interrupted = True

    @property
    def _watchdog(self) -> watchdog.Watchdog:
        if self._watchdog_made is None:
            with self._lock:
                if self._watchdog_made is None:
                    self._watchdog_made = watchdog.Watchdog(
                        self._address,
                        CONF.zookeeper.digest,
                        CONF.zookeeper.cert,
                    )
        return self._watchdog_made

    @contextlib.contextmanager
    def _asking(self) -> Iterator[evzookeeper.ZKSession]:
        """Give the session; what goes wrong becomes a BackendError."""
        try:
            yield self._session
        except zookeeper.ZooKeeperException as error:
            raise self._error(str(error) or type(error).__name__) from error

    def _connected(
        self, session: evzookeeper.ZKSession, wait: bool = True
    ) -> None:
        if not session.wait_connected(self._timeout if wait else 0):
            raise self._error("no server is connected")

    def _error(self, text: str) -> exception.BackendError:
        return exception.BackendError(f"ZooKeeper at {self._address}: {text}")

    # -- what I am

    def report(self, membership: base.Membership) -> None:
        state = membership.state
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
        with self._asking() as session:
            joined = state.get("joined")
            if joined is None:
                # In the background: it goes on when the servers come.
                state["joined"] = joined = ev_membership.Membership(
                    session,
                    znodes.group_path(membership.group),
                    functools.partial(self._name, membership),
                    acl=self._acl,
                    async_mode=True,
                )
            # Who has joined waits for nobody: the next report comes soon.
            self._connected(session, wait=not joined.joined)
            self._make_sure(session, membership, joined)

    def _name(self, membership: base.Membership, session_id: int) -> str:
        """Name the znode that a member is about to create."""
        name = znodes.member_name(membership.host, session_id)
        path = f"{znodes.group_path(membership.group)}/{name}"
        if not self._watchdog.watch(membership, path):
            # A new session does not bring back whose timer stands still.
            raise zookeeper.ZooKeeperException("it does not report")
        membership.state["name"] = name
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
                joined.refresh(quiet=False, timeout=self._timeout)
                state["written"] = None
                self._group(membership.group).wrote(
                    znodes.group_path(membership.group), state["name"], True
                )
        elif not joined.joined:
            raise self._error("not joined yet")
        written = state.get("written")
        if written is None or now - written >= ENTRY_LIFE:
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
        path = f"{znodes.group_path(membership.group)}/{name}"
        # A read, which the server that is connected answers by itself:
        # creating what exists would be work for the whole ensemble.
        with contextlib.suppress(zookeeper.NoNodeException):
            session.exists(path)
            return True
        return False

    def _write_entry(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> None:
        path = _entry_path(membership)
        try:
            session.set(path, "")
        except zookeeper.NoNodeException:
            above = znodes.entries_path(membership.group)
            session.ensure_path(above, self._acl)
            with contextlib.suppress(zookeeper.NodeExistsException):
                session.create(path, "", self._acl)
        with contextlib.suppress(zookeeper.NoNodeException):
            session.delete(_entry_path(membership, left=True))

    def withdraw(self, membership: base.Membership) -> None:
        joined = membership.state.pop("joined", None)
        if self._watchdog_made is not None:
            self._watchdog.forget(membership)
        marked = False
        try:
            with self._asking() as session:
                self._connected(session)
                # Before the znode goes: who sees it go finds the reason.
                self._mark_left(session, membership)
                marked = True
                if joined is None:
                    self._take_out(session, membership)
        finally:
            if joined is not None:
                joined.leave(timeout=self._timeout if marked else 0)
                self._group(membership.group).wrote(
                    znodes.group_path(membership.group),
                    membership.state.get("name", ""),
                    False,
                )

    def _mark_left(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> None:
        path = _entry_path(membership, left=True)
        try:
            session.create(path, "", self._acl)
        except zookeeper.NodeExistsException:
            session.set(path, "")
        except zookeeper.NoNodeException:
            pass

    def _take_out(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> None:
        """Remove a member that another process has joined.

        If that is alive, the member is back at its next look.
        """
        path = znodes.group_path(membership.group)
        for name in self._children(session, path):
            if znodes.is_of(name, membership.host):
                self._delete(session, f"{path}/{name}")
                self._group(membership.group).wrote(path, name, False)

    # -- what others are

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        with self._asking():
            self._group(group).follow(wake)

    def _group(self, group: str) -> znode_group.Group:
        found = self._groups.get(group)
        if found is None:
            found = self._groups.setdefault(
                group, znode_group.Group(self._session, group)
            )
        return found

    def observe(self, group: str) -> base.Snapshot:
        followed = self._group(group)
        with self._asking() as session:
            self._connected(session)
            names = followed.names(self._timeout)
            if names is None:
                raise self._error("no server is connected")
            interrupted, followed.interrupted = followed.interrupted, False
            asked = time.monotonic()
            now = datetime.datetime.now(datetime.UTC)
            alive = set(self._read_all(znodes.read_member, names[0]))
            entries = self._read_entries(names[1])
            new = entries.keys() - followed.known
            if (followed.alive | new) - alive:
                # The watches of two paths keep no order between them: has
                # who is gone left a word, and is who is new not alive yet?
                alive = set(
                    self._read_all(znodes.read_member, followed.members())
                )
                entries = self._read_entries(followed.entries())
            gone = followed.alive - alive
            followed.last_seen.update(dict.fromkeys(gone, now))
            followed.alive = alive
            followed.known = alive | entries.keys()
            self._find_last_seen(session, group, followed, entries)
        forced = set(self._read_all(znodes.unquote, names[2]))
        facts = []
        for host in alive | set(entries):
            entry = entries.get(host)
            here = host in alive
            facts.append(
                detector.Fact(
                    host=host,
                    asked=asked,
                    last_report=asked if here else None,
                    last_seen=now if here else followed.last_seen.get(host),
                    binary=entry.binary if entry else f"nova-{group}",
                    left=bool(entry and entry.left and not here),
                    lost=not here,
                    forced_down=host in forced,
                )
            )
        return base.Snapshot(
            asked,
            facts,
            complete=True,
            interrupted=interrupted,
            rejoin=2 * CONF.zookeeper.recv_timeout / 1000,
        )

    def _read(self, reader: Callable[[str], T], name: str) -> T | None:
        """Read the name of a znode; None: it is somebody else's."""
        try:
            return reader(name)
        except ValueError:
            if name not in self._warned and len(self._warned) < MAX_WARNINGS:
                self._warned.add(name)
                LOG.warning(
                    "Ignored the znode %.200r: not the name of a member", name
                )
            return None

    def _read_all(
        self, reader: Callable[[str], T], found: Iterable[str]
    ) -> Iterator[T]:
        for name in found:
            value = self._read(reader, name)
            if value is not None:
                yield value

    def _read_entries(self, found: set[str]) -> dict[str, znodes.Entry]:
        entries: dict[str, znodes.Entry] = {}
        for entry in self._read_all(znodes.read_entry, found):
            if entry.left or entry.host not in entries:
                entries[entry.host] = entry
        return entries

    def _find_last_seen(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        followed: znode_group.Group,
        entries: dict[str, znodes.Entry],
    ) -> None:
        """Find out when those were seen last whom we have never seen."""
        for host, entry in entries.items():
            if host in followed.alive or host in followed.last_seen:
                continue
            path = znodes.entry_path(group, host, entry.binary, entry.left)
            with contextlib.suppress(zookeeper.NoNodeException):
                stat = session.exists(path)
                followed.last_seen[host] = datetime.datetime.fromtimestamp(
                    stat["mtime"] / 1000, datetime.UTC
                )

    def groups(self) -> list[str]:
        with self._asking() as session:
            self._connected(session)
            found = {
                name
                for path in (znodes.prefix(), znodes.members_path())
                for name in self._children(session, path)
                if not name.startswith(".")
            }
        return list(self._read_all(znodes.unquote, found))

    # -- what operators say

    def force_down(self, group: str, host: str, forced: bool) -> None:
        folder, name = znodes.forced_path(group), znodes.quote(host)
        with self._asking() as session:
            self._connected(session)
            self._require(session, group, host)
            if forced:
                session.ensure_path(f"{folder}/{name}", self._acl)
            else:
                self._delete(session, f"{folder}/{name}")
        self._group(group).wrote(folder, name, forced)

    def forget(self, group: str, host: str) -> None:
        forced = f"{znodes.forced_path(group)}/{znodes.quote(host)}"
        entries = znodes.entries_path(group)
        with self._asking() as session:
            self._connected(session)
            for name in self._require(session, group, host):
                self._delete(session, f"{entries}/{name}")
                self._group(group).wrote(entries, name, False)
            self._delete(session, forced)
        self._group(group).last_seen.pop(host, None)

    def _require(
        self, session: evzookeeper.ZKSession, group: str, host: str
    ) -> list[str]:
        """Return the names of host's entries.

        :raises MemberNotFound: it has none and is not alive
        """
        alive = self._children(session, znodes.group_path(group))
        entries = [
            name
            for name in self._children(session, znodes.entries_path(group))
            if znodes.is_of(name, host)
        ]
        if not entries and not any(znodes.is_of(n, host) for n in alive):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )
        return entries

    @staticmethod
    def _children(session: evzookeeper.ZKSession, path: str) -> list[str]:
        with contextlib.suppress(zookeeper.NoNodeException):
            return session.get_children(path)
        return []

    @staticmethod
    def _delete(session: evzookeeper.ZKSession, path: str) -> None:
        with contextlib.suppress(zookeeper.NoNodeException):
            session.delete(path)

    def check(self) -> list[base.Finding]:
        findings = [] if CONF.zookeeper.cert else self._check_servers()
        where = f"ZooKeeper {self._address}"
        begun = time.monotonic()
        try:
            with self._asking() as session:
                self._connected(session)
                connected = time.monotonic() - begun
                begun = time.monotonic()
                with contextlib.suppress(zookeeper.NoNodeException):
                    session.exists(znodes.prefix())
                took = time.monotonic() - begun
                agreed = zookeeper.recv_timeout(session.connected_handle()[0])
        except exception.BackendError as error:
            findings.append(
                base.Finding(
                    False,
                    where,
                    str(error),
                    "Start the servers, or correct [zookeeper] address",
                )
            )
            return findings
        asked = CONF.zookeeper.recv_timeout
        return [
            *findings,
            base.Finding(
                True,
                where,
                f"connected in {connected * 1000:.0f} ms, an answer takes "
                f"{took * 1000:.1f} ms, client library "
                f"{zookeeper.__version__}",
            ),
            base.Finding(
                agreed == asked,
                where,
                f"the session timeout is {agreed} ms, recv_timeout asks for "
                f"{asked} ms",
                "Choose a recv_timeout between minSessionTimeout and "
                "maxSessionTimeout of the servers",
            ),
        ]

    def _check_servers(self) -> list[base.Finding]:
        """Ask every server by itself: one that is down is not noticed."""
        findings = []
        for server in servers.addresses(self._address):
            where = f"ZooKeeper server {server}"
            try:
                answer = servers.ask(server)
            except (OSError, ValueError) as error:
                finding = base.Finding(
                    False,
                    where,
                    f"no answer: {error}",
                    "Start it, or correct [zookeeper] address",
                )
            else:
                text = "it answers"
                if not answer.serving:
                    text = "it runs and serves nobody"
                elif answer.mode:
                    text = f"{answer.mode}, version {answer.version}"
                finding = base.Finding(
                    answer.serving,
                    where,
                    text,
                    "See its log: more than half of the servers have to "
                    "reach each other",
                )
            findings.append(finding)
        return findings

    def close(self) -> None:
        if self._watchdog_made is not None:
            self._watchdog_made.close()
        if self._session_made is not None:
            self._session_made.close(timeout=self._timeout)


def _entry_path(membership: base.Membership, left: bool = False) -> str:
    return znodes.entry_path(
        membership.group, membership.host, membership.binary, left
    )


def _acl() -> list[dict] | None:
    if CONF.zookeeper.acl == "open":
        return None
    return [
        {"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""},
        {"perms": zookeeper.PERM_READ, "scheme": "world", "id": "anyone"},
    ]
