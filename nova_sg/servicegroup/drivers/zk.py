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

Below [zookeeper] sg_prefix there are, for each group:

===================  ====================================================
GROUP/HOST@SESSION   a live member; ephemeral, so it goes with its session
.members/GROUP/      HOST@BINARY: who has joined once;
                     HOST@BINARY@left: and has left on purpose since
.forced/GROUP/HOST   who is forced down
===================  ====================================================

SESSION is the session's id in hex: a process that is started again never
collides with its own dead session, several processes of one host are side by
side, and a create that is repeated after a lost connection is recognised.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg import evzookeeper, exception, zookeeper
from nova_sg.conf import CONF
from nova_sg.evzookeeper import membership as ev_membership
from nova_sg.servicegroup import detector, watchdog
from nova_sg.servicegroup.drivers import base

LOG = logging.getLogger(__name__)

# A member's entry is written again after so many seconds: what a new
# observer takes for the last sign of life of a member that has died.
ENTRY_LIFE = 300.0

_LEFT = "left"


class Entry(NamedTuple):
    """A member's entry below .members."""

    binary: str
    left: bool


class _Group:
    """What this process follows of one group: three sets of names."""

    def __init__(self, session: evzookeeper.ZKSession, group: str) -> None:
        self._wakes: list[Callable[[], None]] = []
        self._known = threading.Condition()
        self._monitors = [
            ev_membership.MembershipMonitor(
                session, path, cb_func=self._changed
            )
            for path in (
                group_path(group),
                entries_path(group),
                forced_path(group),
            )
        ]
        # The hosts that were alive at the last look, and when each that is
        # not was seen last.
        self.alive: set[str] = set()
        self.last_seen: dict[str, datetime.datetime] = {}

    def follow(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    def _changed(self, names: set[str] | None) -> None:
        with self._known:
            self._known.notify_all()
        for wake in self._wakes:
            wake()

    def sets(self, timeout: float) -> list[set[str]] | None:
        """Return the three sets; None: not known in time."""

        def sets() -> list[set[str]] | None:
            found = [monitor.get_all() for monitor in self._monitors]
            return None if None in found else found

        with self._known:
            return self._known.wait_for(sets, timeout)


class ZkDriver(base.Driver):
    """Reports by being there, observes by watches."""

    name = "zk"
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
        self._address = CONF.zookeeper.address
        self._timeout = CONF.zookeeper.recv_timeout / 1000
        self._acl = _acl()
        self._lock = threading.Lock()
        self._session_made: evzookeeper.ZKSession | None = None
        self._groups: dict[str, _Group] = {}
        self._watchdog: watchdog.Watchdog | None = None
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
        return evzookeeper.ZKSession(
            self._address,
            recv_timeout=CONF.zookeeper.recv_timeout,
            operation_timeout=self._timeout,
            auths=auths,
            ssl_cert=CONF.zookeeper.cert,
        )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[evzookeeper.ZKSession]:
        """Give the session; what goes wrong becomes a BackendError."""
        try:
            yield self._session
        except zookeeper.ZooKeeperException as error:
            raise exception.BackendError(
                f"ZooKeeper at {self._address}: "
                f"{str(error) or type(error).__name__}"
            ) from error

    # -- what I am

    def report(self, membership: base.Membership) -> None:
        state = membership.state
        if self._watchdog is None:
            with self._lock:
                if self._watchdog is None:
                    self._watchdog = watchdog.Watchdog(
                        self._address, CONF.zookeeper.digest
                    )
        with self._asking() as session:
            joined = state.get("joined")
            if joined is None:
                state["joined"] = joined = ev_membership.Membership(
                    session,
                    group_path(membership.group),
                    lambda session_id: f"{quote(membership.host)}@"
                    f"{session_id:x}",
                    acl=self._acl,
                    async_mode=True,
                )
            withdrawn = self._watchdog.feed(membership)
            if withdrawn:
                LOG.warning(
                    "%(host)s had not reported to the group %(group)s for "
                    "longer than service_down_time and was withdrawn; it "
                    "joins again",
                    {"host": membership.host, "group": membership.group},
                )
            self._make_sure(membership, joined, anew=withdrawn)
            path = f"{group_path(membership.group)}/"
            self._watchdog.watch(
                membership,
                f"{path}{quote(membership.host)}@{session.session_id or 0:x}",
                CONF.service_down_time,
            )

    def _make_sure(
        self,
        membership: base.Membership,
        joined: ev_membership.Membership,
        anew: bool,
    ) -> None:
        """See to it that znode and entry are there: once in a while."""
        state, now = membership.state, time.monotonic()
        checked = state.get("checked")
        every = CONF.zookeeper.sg_retry_interval
        if joined.joined:
            every = max(every, CONF.service_down_time / 2)
        if anew or checked is None or now - checked >= every:
            state["checked"] = now
            joined.refresh(quiet=False, timeout=self._timeout)
        elif not joined.joined:
            raise exception.BackendError(
                f"ZooKeeper at {self._address}: not joined yet"
            )
        written = state.get("written")
        if written is None or now - written >= ENTRY_LIFE:
            self._write_entry(membership)
            state["written"] = now

    def _write_entry(self, membership: base.Membership) -> None:
        session = self._session
        path = _entry_path(membership)
        try:
            session.set(path, "")
        except zookeeper.NoNodeException:
            session.ensure_path(entries_path(membership.group), self._acl)
            with contextlib.suppress(zookeeper.NodeExistsException):
                session.create(path, "", self._acl)
        with contextlib.suppress(zookeeper.NoNodeException):
            session.delete(f"{path}@{_LEFT}")

    def withdraw(self, membership: base.Membership) -> None:
        if self._watchdog is not None:
            self._watchdog.forget(membership)
        joined = membership.state.pop("joined", None)
        with self._asking() as session:
            # Before the znode goes: who sees it go finds the reason.
            path = f"{_entry_path(membership)}@{_LEFT}"
            try:
                session.create(path, "", self._acl)
            except zookeeper.NodeExistsException:
                session.set(path, "")
            except zookeeper.NoNodeException:
                pass
            finally:
                if joined is not None:
                    joined.leave(timeout=self._timeout)

    # -- what others are

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        self._group(group).follow(wake)

    def _group(self, group: str) -> _Group:
        found = self._groups.get(group)
        if found is None:
            session = self._session
            with self._lock:
                found = self._groups.get(group)
                if found is None:
                    found = self._groups[group] = _Group(session, group)
        return found

    def observe(self, group: str) -> base.Snapshot:
        with self._asking() as session:
            followed = self._group(group)
            sets = followed.sets(self._timeout)
            if sets is None:
                raise exception.BackendError(
                    f"ZooKeeper at {self._address}: no server is connected"
                )
            asked = time.monotonic()
            now = datetime.datetime.now(datetime.UTC)
            alive_names, entry_names, forced_names = sets
            alive = set()
            for name in alive_names:
                host = self._read_name(name.rpartition("@")[0] or name)
                if host is not None:
                    alive.add(host)
            for host in followed.alive - alive:
                followed.last_seen[host] = now
            if followed.alive - alive:
                # The watches of two paths keep no order between them: did
                # those who went leave a word?
                entry_names = set(session.get_children(entries_path(group)))
            followed.alive = alive
            entries = self._read_entries(entry_names)
            self._find_last_seen(group, followed, entries, alive)
        forced = {self._read_name(name) for name in forced_names}
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
            asked, facts, complete=True, rejoin=2 * self._timeout
        )

    def _read_name(self, name: str) -> str | None:
        try:
            return unquote(name)
        except ValueError:
            if name not in self._warned:
                self._warned.add(name)
                LOG.warning(
                    "Ignored the znode %r: not the name of a member", name
                )
            return None

    def _read_entries(self, names: set[str]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name in names:
            host, *rest = map(self._read_name, name.split("@"))
            if host is None or not rest or None in rest:
                continue
            left = rest[1:] == [_LEFT]
            if left or host not in entries:
                entries[host] = Entry(rest[0], left)
        return entries

    def _find_last_seen(
        self,
        group: str,
        followed: _Group,
        entries: dict[str, Entry],
        alive: set[str],
    ) -> None:
        """Find out when those were seen last whom we have never seen."""
        for host, entry in entries.items():
            if host in alive or host in followed.last_seen:
                continue
            path = f"{entries_path(group)}/{quote(host)}@{quote(entry.binary)}"
            if entry.left:
                path += f"@{_LEFT}"
            with contextlib.suppress(zookeeper.NoNodeException):
                stat = self._session.exists(path)
                followed.last_seen[host] = datetime.datetime.fromtimestamp(
                    stat["mtime"] / 1000, datetime.UTC
                )

    def groups(self) -> list[str]:
        with self._asking() as session:
            found = set()
            for path in (_prefix(), f"{_prefix()}/.members"):
                with contextlib.suppress(zookeeper.NoNodeException):
                    found.update(session.get_children(path))
        names = (self._read_name(n) for n in found if not n.startswith("."))
        return [name for name in names if name is not None]

    # -- what operators say

    def force_down(self, group: str, host: str, forced: bool) -> None:
        self._require(group, host)
        path = f"{forced_path(group)}/{quote(host)}"
        with self._asking() as session:
            if forced:
                session.ensure_path(path, self._acl)
            else:
                with contextlib.suppress(zookeeper.NoNodeException):
                    session.delete(path)

    def forget(self, group: str, host: str) -> None:
        self._require(group, host)
        with self._asking() as session:
            paths = [f"{forced_path(group)}/{quote(host)}"]
            with contextlib.suppress(zookeeper.NoNodeException):
                paths += [
                    f"{entries_path(group)}/{name}"
                    for name in session.get_children(entries_path(group))
                    if name.split("@")[0] == quote(host)
                ]
            for path in paths:
                with contextlib.suppress(zookeeper.NoNodeException):
                    session.delete(path)

    def _require(self, group: str, host: str) -> None:
        if all(fact.host != host for fact in self.observe(group).facts):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )

    def check(self) -> list[base.Finding]:
        where = f"ZooKeeper {self._address}"
        begun = time.monotonic()
        try:
            with self._asking() as session:
                if not session.wait_connected(self._timeout):
                    raise exception.BackendError("no server is connected")
                connected = time.monotonic() - begun
                begun = time.monotonic()
                with contextlib.suppress(zookeeper.NoNodeException):
                    session.exists(_prefix())
                took = time.monotonic() - begun
                agreed = zookeeper.recv_timeout(session.connected_handle()[0])
        except exception.BackendError as error:
            return [
                base.Finding(
                    False,
                    where,
                    str(error),
                    "Start the servers, or correct [zookeeper] address",
                )
            ]
        asked = CONF.zookeeper.recv_timeout
        return [
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

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
        session = self._session_made
        if session is not None:
            session.close(timeout=self._timeout)


def quote(name: str) -> str:
    """Write a name so that it can be a part of a znode's name."""
    quoted = urllib.parse.quote(name, safe="", errors="surrogateescape")
    # "." and ".." are no names, and names that begin so are our own.
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def unquote(text: str) -> str:
    """Read what quote() wrote, or what others may have written.

    :raises ValueError: that is nobody's name
    """
    name = urllib.parse.unquote(text, errors="surrogateescape")
    if not name or "\0" in name:
        raise ValueError("not a name")
    return name


def _prefix() -> str:
    return CONF.zookeeper.sg_prefix


def group_path(group: str) -> str:
    """Return the path of a group: what `ls` shows the live members of."""
    return f"{_prefix()}/{quote(group)}"


def entries_path(group: str) -> str:
    """Return the path below which all members have an entry."""
    return f"{_prefix()}/.members/{quote(group)}"


def forced_path(group: str) -> str:
    """Return the path below which those are that are forced down."""
    return f"{_prefix()}/.forced/{quote(group)}"


def _entry_path(membership: base.Membership) -> str:
    return (
        f"{entries_path(membership.group)}/{quote(membership.host)}@"
        f"{quote(membership.binary)}"
    )


def _acl() -> list[dict] | None:
    if CONF.zookeeper.acl == "open":
        return None
    return [
        {"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""},
        {"perms": zookeeper.PERM_READ, "scheme": "world", "id": "anyone"},
    ]
