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
import functools
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg import evzookeeper, exception, zookeeper
from nova_sg.conf import CONF
from nova_sg.evzookeeper import membership as ev_membership
from nova_sg.evzookeeper import session as ev_session
from nova_sg.servicegroup import detector, watchdog
from nova_sg.servicegroup.drivers import base

LOG = logging.getLogger(__name__)

# A member's entry is written again after so many seconds: what a new
# observer takes for the last sign of life of a member that has died.
ENTRY_LIFE = 300.0
# A look waits so many seconds for the watches to bring what this process has
# written itself.
ECHO_WAIT = 1.0
# So many foreign znodes are warned of, one by one.
MAX_WARNINGS = 1000

_LEFT = "left"
_MEMBER = re.compile(r"(.+)@[0-9a-f]+")


class Entry(NamedTuple):
    """A member's entry below .members."""

    binary: str
    left: bool


class _Group:
    """What this process knows of one group.

    Followed, by a watch on each of the three paths, once somebody asks for
    that; until then every look lists them.
    """

    def __init__(self, session: evzookeeper.ZKSession, group: str) -> None:
        self._session = session
        self._paths = (
            group_path(group),
            entries_path(group),
            forced_path(group),
        )
        self._monitors: list[ev_membership.MembershipMonitor] = []
        self._wakes: list[Callable[[], None]] = []
        self._changes = threading.Condition()
        # What this process wrote since the last look: path, name, and
        # whether it is there now.
        self._echoes: list[tuple[str, str, bool]] = []
        # The hosts that were alive at the last look, and when each that is
        # not was seen last.
        self.alive: set[str] = set()
        self.last_seen: dict[str, datetime.datetime] = {}
        # Whether the servers were away since the last look.
        self.interrupted = False

    def follow(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)
        if not self._monitors:
            self._monitors = [
                ev_membership.MembershipMonitor(
                    self._session, path, cb_func=self._changed
                )
                for path in self._paths
            ]

    def _changed(self, names: set[str] | None) -> None:
        with self._changes:
            self._changes.notify_all()
        for wake in self._wakes:
            wake()

    def wrote(self, path: str, name: str, there: bool) -> None:
        """Have the next look wait until the watches know this, too."""
        if self._monitors:
            self._echoes.append((path, name, there))

    def names(self, timeout: float) -> list[set[str]] | None:
        """Return the names below the three paths; None: not in time."""
        if not self._monitors:
            return [self._list(path) for path in self._paths]
        with self._changes:
            self._changes.wait_for(lambda: None not in self._sets(), timeout)
            echoes, self._echoes = self._echoes, []
            self._changes.wait_for(lambda: self._came(echoes), ECHO_WAIT)
            sets = self._sets()
        return None if None in sets else sets

    def _sets(self) -> list[set[str] | None]:
        return [monitor.get_all() for monitor in self._monitors]

    def _came(self, echoes: list[tuple[str, str, bool]]) -> bool:
        known = dict(zip(self._paths, self._sets(), strict=True))
        return None in known.values() or all(
            (name in known[path]) is there for path, name, there in echoes
        )

    def _list(self, path: str) -> set[str]:
        try:
            return set(self._session.get_children(path))
        except zookeeper.NoNodeException:
            return set()

    def entries(self) -> set[str]:
        """Ask for the entries: watches of two paths keep no order."""
        return self._list(self._paths[1])


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
        self._address = CONF.zookeeper.address
        # How long a call may take, in seconds: reports have to go on.
        self._timeout = min(
            CONF.zookeeper.recv_timeout / 1000, CONF.service_down_time / 2
        )
        self._acl = _acl()
        self._lock = threading.Lock()
        self._session_made: evzookeeper.ZKSession | None = None
        self._watchdog_made: watchdog.Watchdog | None = None
        self._groups: dict[str, _Group] = {}
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
                    group_path(membership.group),
                    functools.partial(self._name, membership),
                    acl=self._acl,
                    async_mode=True,
                )
            # Who has joined waits for nobody: the next report comes soon.
            self._connected(session, wait=not joined.joined)
            self._make_sure(session, membership, joined)

    def _name(self, membership: base.Membership, session_id: int) -> str:
        """Name the znode that a member is about to create."""
        name = f"{quote(membership.host)}@{session_id:x}"
        path = f"{group_path(membership.group)}/{name}"
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
                    group_path(membership.group), state["name"], True
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
        path = f"{group_path(membership.group)}/{membership.state['name']}"
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
            session.ensure_path(entries_path(membership.group), self._acl)
            with contextlib.suppress(zookeeper.NodeExistsException):
                session.create(path, "", self._acl)
        with contextlib.suppress(zookeeper.NoNodeException):
            session.delete(f"{path}@{_LEFT}")

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
                    group_path(membership.group),
                    membership.state.get("name", ""),
                    False,
                )

    def _mark_left(
        self, session: evzookeeper.ZKSession, membership: base.Membership
    ) -> None:
        path = f"{_entry_path(membership)}@{_LEFT}"
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
        path = group_path(membership.group)
        for name in self._children(session, path):
            if name.rpartition("@")[0] == quote(membership.host):
                self._delete(session, f"{path}/{name}")
                self._group(membership.group).wrote(path, name, False)

    # -- what others are

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        with self._asking():
            self._group(group).follow(wake)

    def _group(self, group: str) -> _Group:
        found = self._groups.get(group)
        if found is None:
            found = self._groups.setdefault(
                group, _Group(self._session, group)
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
            alive = set(filter(None, map(self._read_member, names[0])))
            gone = followed.alive - alive
            if gone:
                followed.last_seen.update(dict.fromkeys(gone, now))
                names[1] = followed.entries()
            followed.alive = alive
            entries = self._read_entries(names[1])
            self._find_last_seen(session, group, followed, entries)
        forced = {self._read_name(name) for name in names[2]}
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

    def _read_member(self, name: str) -> str | None:
        """Return whose znode this is; None: nobody's."""
        found = _MEMBER.fullmatch(name)
        return self._read_name(found[1] if found else "", name)

    def _read_name(self, quoted: str, znode: str = "") -> str | None:
        try:
            return unquote(quoted)
        except ValueError:
            self._warn(znode or quoted)
            return None

    def _warn(self, name: str) -> None:
        if name not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(name)
            LOG.warning(
                "Ignored the znode %.200r: not the name of a member", name
            )

    def _read_entries(self, names: set[str]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name in names:
            entered = name.removesuffix(f"@{_LEFT}")
            try:
                host, binary = map(unquote, entered.split("@"))
            except ValueError:
                self._warn(name)
                continue
            left = entered != name
            if left or host not in entries:
                entries[host] = Entry(binary, left)
        return entries

    def _find_last_seen(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        followed: _Group,
        entries: dict[str, Entry],
    ) -> None:
        """Find out when those were seen last whom we have never seen."""
        for host, entry in entries.items():
            if host in followed.alive or host in followed.last_seen:
                continue
            path = f"{entries_path(group)}/{quote(host)}@{quote(entry.binary)}"
            if entry.left:
                path += f"@{_LEFT}"
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
                for path in (_prefix(), f"{_prefix()}/.members")
                for name in self._children(session, path)
                if not name.startswith(".")
            }
        return list(filter(None, map(self._read_name, found)))

    # -- what operators say

    def force_down(self, group: str, host: str, forced: bool) -> None:
        with self._asking() as session:
            self._connected(session)
            self._require(session, group, host)
            path = f"{forced_path(group)}/{quote(host)}"
            if forced:
                session.ensure_path(path, self._acl)
            else:
                self._delete(session, path)
        self._group(group).wrote(forced_path(group), quote(host), forced)

    def forget(self, group: str, host: str) -> None:
        with self._asking() as session:
            self._connected(session)
            for name in self._require(session, group, host):
                self._delete(session, f"{entries_path(group)}/{name}")
                self._group(group).wrote(entries_path(group), name, False)
            self._delete(session, f"{forced_path(group)}/{quote(host)}")
        self._group(group).last_seen.pop(host, None)

    def _require(
        self, session: evzookeeper.ZKSession, group: str, host: str
    ) -> list[str]:
        """Return the names of host's entries.

        :raises MemberNotFound: it has none and is not alive
        """
        mine = quote(host)
        alive = self._children(session, group_path(group))
        entries = [
            name
            for name in self._children(session, entries_path(group))
            if name.partition("@")[0] == mine
        ]
        if not entries and all(n.rpartition("@")[0] != mine for n in alive):
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
                    session.exists(_prefix())
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
        for server in self._address.partition("/")[0].split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                words = _ask_server(host.strip("[]"), int(port))
            except (OSError, ValueError) as error:
                finding = base.Finding(
                    False,
                    f"ZooKeeper server {server}",
                    f"no answer: {error}",
                    "Start it, or correct [zookeeper] address",
                )
            else:
                serving = "not currently serving" not in words
                version = re.search(r"version: ([\w.]+)", words)
                mode = re.search(r"^Mode: (\w+)", words, re.M)
                finding = base.Finding(
                    serving,
                    f"ZooKeeper server {server}",
                    f"{mode[1]}, version {version[1]}"
                    if mode and version
                    else "it answers"
                    if serving
                    else "it runs and serves nobody",
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


def _ask_server(host: str, port: int) -> str:
    """Return what a server says of itself (its four-letter word srvr)."""
    with socket.create_connection((host, port), 3) as link:
        link.sendall(b"srvr")
        answer = b""
        while chunk := link.recv(65536):
            answer += chunk
    return answer.decode(errors="replace")


def quote(name: str) -> str:
    """Write a name so that it can be a part of a znode's name."""
    quoted = urllib.parse.quote(name, safe="")
    # "." and ".." are no names, and names that begin so are our own.
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


@functools.lru_cache(maxsize=65536)
def unquote(text: str) -> str:
    """Read what quote() wrote.

    :raises ValueError: it did not write that, or nobody is called so
    """
    name = urllib.parse.unquote(text, errors="strict")
    if not name or not name.isprintable() or quote(name) != text:
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
