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

Here: observing groups, and the commands of operators. Beside it: the paths of
znodes (names), the session (connection), the members of this process
(own_members, watchdog, session_order, guard), the watches on a group
(watched), what its names show (roster), locks and notes (locks), and the
checks of `nova-sg doctor` (doctor, servers).
"""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from oslo_log import log as logging

from nova_sg import evzookeeper, exception, once, threads, zookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import (
    connection,
    doctor,
    locks,
    own_members,
    roster,
    watched,
)
from nova_sg.backends.zookeeper import names as znodes
from nova_sg.conf import CONF
from nova_sg.liveness.model import (
    Attributes,
    Changes,
    Observation,
    Refresh,
)

LOG = logging.getLogger(__name__)

T = TypeVar("T")



class ZkDriver(base.LockingDriver):
    """Reports by the presence of a znode, observes by watches."""

    name = "zk"
    apart = True
    characteristics = base.Characteristics(
        detects=(
            "a service whose process, host or network is gone: its session "
            "ends; a service whose timer has not run for "
            "service_down_time: its watchdog withdraws it"
        ),
        bound=(
            "recv_timeout, and 0.1 s to tell observers; two thirds of "
            "recv_timeout more where mass silence is possible"
        ),
        blind=(
            "a service whose timer runs while its work is stuck; a process "
            "that holds Python's interpreter lock for good"
        ),
    )

    def __init__(self) -> None:
        self._link = connection.Connection()
        self._groups = watched.WatchedGroups(
            self._link, self._warn_of_name
        )
        self._own_members = own_members.OwnMembers(self._link, self._groups)
        self._locks = locks.Locks(self._link)
        self._warned = once.Once("znodes")

    # -- members of this process

    def report(self, membership: base.Membership) -> None:
        self._own_members.report(membership)

    def withdraw(self, membership: base.Membership) -> None:
        self._own_members.withdraw(membership)

    # -- observing

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        with self._link.translated():
            self._groups[group].follow(wake)

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        self._groups.unfollow(group, wake)

    def observe(self, group: str) -> Refresh:
        followed = self._groups[group]
        with self._link.asking() as session, self._turn(followed):
            return self._observe(session, group, followed)

    @contextlib.contextmanager
    def _turn(self, followed: watched.WatchedGroup) -> Iterator[None]:
        """Wait until no other thread takes in what the group's znodes show.

        :raises BackendError: that takes too long
        """
        if not followed.lock.acquire(timeout=self._link.timeout):
            raise self._link.error("another refresh is still under way")
        try:
            yield
        finally:
            followed.lock.release()

    def _observe(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        followed: watched.WatchedGroup,
    ) -> Refresh:
        names = followed.names(self._link.timeout)
        if names is None:
            raise self._link.error("no server is connected")
        members = followed.roster
        interrupted = followed.take_interruption()
        if interrupted:
            # They may be other servers.
            members.check_again()
        before = followed.polled
        try:
            asked = self._poll(session, group, followed, names)
        except BaseException:
            # The next poll has to take it into account.
            if interrupted:
                followed.interrupt()
            raise
        # After an outage the servers keep the sessions of dead members for a
        # session timeout, too: a session is no proof of life until then.
        rejoin = 2 * CONF.zookeeper.recv_timeout / 1000
        unsure = followed.unsure
        if interrupted:
            followed.unsure = {
                host for host, shown in members.before() if shown.live
            }
            followed.unsure_seen = before
            followed.unsure_until = asked + rejoin
        elif asked > followed.unsure_until:
            followed.unsure = set()
        forced = set(self._read_all(znodes.unquote, names.forced))
        changes = self._look_at(
            group,
            followed,
            asked,
            {
                *members.touched,
                *members.absent,
                *unsure,
                *followed.unsure,
                *(forced ^ followed.forced),
            },
            forced,
        )
        followed.forced = forced
        members.touched = {}
        return Refresh(
            self.name,
            asked,
            list(followed.observations.values()),
            interrupted=interrupted,
            rejoin=rejoin,
            # Their last pings lie within a third of the timeout, and servers
            # end sessions at multiples of a tick, which is half the timeout
            # at most: together two thirds.
            spread=CONF.zookeeper.recv_timeout / 1500,
            stamped=False,
            changes=changes,
        )

    def _look_at(
        self,
        group: str,
        followed: watched.WatchedGroup,
        asked: float,
        hosts: Collection[str],
        forced: set[str],
    ) -> Changes:
        """Observe hosts about which something may have changed.

        :param forced: the hosts that are forced down
        """
        observations = followed.observations
        unlisted, new, gone = {}, [], []
        # At once: after an exception no observer may take the next changes
        # for all.
        before, followed.mark = followed.mark, object()
        for host in threads.in_slices(list(hosts)):
            shown, known = followed.roster.shown(host), observations.get(host)
            listed = shown.is_member
            if listed and not shown.live and host not in forced:
                age = followed.age(host, asked)
                if age > base.LISTED:
                    unlisted[host] = age
                    listed = False
            if not listed:
                if known is not None:
                    del observations[host]
                    gone.append(host)
                continue
            unsure = shown.live > 0 and host in followed.unsure
            attributes = followed.share(
                shown,
                host in forced,
                unsure,
                functools.partial(
                    _attributes, group, shown, host in forced, unsure
                ),
            )
            last_seen = followed.last_seen.get(host)
            if shown.live:
                last_seen = followed.unsure_seen if unsure else None
            if (
                known is not None
                and known.attributes is attributes
                and known.last_seen == last_seen
            ):
                continue
            reported = None
            if attributes.gone and last_seen is not None and followed.polled:
                # When it left: a new observer needs to know how long ago.
                reported = asked - max(
                    0.0, (followed.polled - last_seen).total_seconds()
                )
            observations[host] = one = Observation(
                host, None, reported, last_seen, attributes=attributes
            )
            new.append(one)
        followed.unlisted = unlisted
        if not new and not gone:
            followed.mark = before
        return Changes(before, followed.mark, new, gone)

    def unlisted(self, group: str) -> dict[str, float]:
        self.observe(group)
        return dict(self._groups[group].unlisted)

    def _poll(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        followed: watched.WatchedGroup,
        names: watched.Names,
    ) -> float:
        """Take in the names below the three paths.

        :returns: when that was, monotonic
        """
        # Not the present: this process may have written since they were
        # listed.
        asked = names.at
        now = datetime.datetime.now(datetime.UTC)
        members = followed.roster
        self._read_group(session, followed, names)
        if any(
            not (shown := members.shown(host)).live
            and (
                (before.live and not names.asked)
                or (shown.is_member and not before.is_member)
            )
            for host, before in members.touched.items()
        ):
            # A host's znode has gone, or a new entry has no znode. The
            # watches of two paths may be out of step: one more poll tells
            # whether the host left a mark, or has just joined.
            names = followed.ask()
            self._read_group(session, followed, names)
        # Last seen at the poll before, not now: the servers may have been
        # unreachable since then.
        for host, before in members.touched.items():
            if before.live and not members.shown(host).live:
                followed.last_seen[host] = followed.polled
                followed.gone[host] = asked
        for host in list(followed.last_seen):
            if not members.shown(host).is_member:
                del followed.last_seen[host]
                followed.gone.pop(host, None)
        self._find_last_seen(session, group, followed)
        followed.polled = now
        return asked

    def _read(self, reader: Callable[[str], T], name: str) -> T | None:
        """Read the name of a znode; None: nova_sg did not write it."""
        try:
            return reader(name)
        except ValueError:
            self._warn_of_name(name)
            return None

    def _warn_of_name(self, name: str) -> None:
        if self._warned.first(name):
            LOG.warning(
                "Ignored the znode %.200r: its name is not that of a member",
                name,
            )

    def _read_all(
        self, reader: Callable[[str], T], found: Iterable[str]
    ) -> Iterator[T]:
        for name in found:
            value = self._read(reader, name)
            if value is not None:
                yield value

    def _read_group(
        self,
        session: evzookeeper.ZKSession,
        followed: watched.WatchedGroup,
        names: watched.Names,
    ) -> None:
        followed.roster.take_in(names.members, names.entries)
        self._check_sessions(session, followed)

    def _check_sessions(
        self,
        session: evzookeeper.ZKSession,
        followed: watched.WatchedGroup,
    ) -> None:
        """Find znodes of live members that do not end with a session.

        Programs that copy or restore znodes make ephemeral ones persistent.
        Such a member would be up for ever.
        """
        members = followed.roster
        for name in followed.to_check():
            path = f"{followed.path}/{name}"
            with contextlib.suppress(zookeeper.NoNodeException):
                ends = bool(session.exists(path)["ephemeralOwner"])
                members.checked(name, ends)
                if not ends and self._warned.first(path):
                    LOG.warning(
                        "Ignored the znode %.200r: it does not end with a "
                        "session. A program that copies or restores znodes "
                        "has made it: delete it",
                        path,
                    )

    def _find_last_seen(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        followed: watched.WatchedGroup,
    ) -> None:
        """Read the last time of members that this process never saw alive."""
        for host in followed.roster.absent:
            entry = followed.roster.shown(host).entry
            if entry is None or host in followed.last_seen:
                continue
            path = znodes.entry_path(group, host, *entry)
            with contextlib.suppress(zookeeper.NoNodeException):
                stat = session.exists(path)
                followed.last_seen[host] = datetime.datetime.fromtimestamp(
                    stat["mtime"] / 1000, datetime.UTC
                )

    def groups(self) -> list[str]:
        with self._link.asking():
            found = {
                name
                for path in (znodes.prefix(), znodes.members_path())
                for name in self._link.children(path)
                if not name.startswith(".")
            }
        return list(self._read_all(znodes.unquote, found))

    # -- commands of operators

    def force_down(self, group: str, host: str, forced: bool) -> None:
        folder, name = znodes.forced_path(group), znodes.quote(host)
        with self._link.asking() as session:
            self._require(group, host)
            if forced:
                session.ensure_path(f"{folder}/{name}", self._link.acl)
            else:
                self._link.delete(f"{folder}/{name}")
        self._groups[group].wrote(folder, name, forced)

    def forget(self, group: str, host: str) -> None:
        forced = f"{znodes.forced_path(group)}/{znodes.quote(host)}"
        entries = znodes.entries_path(group)
        with self._link.asking():
            for name in self._require(group, host):
                self._link.delete(f"{entries}/{name}")
                self._groups[group].wrote(entries, name, False)
            self._link.delete(forced)
        self._groups[group].last_seen.pop(host, None)
        self._groups[group].gone.pop(host, None)

    def note_crash(self, group: str, host: str) -> bool:
        path = znodes.group_path(group)
        with self._link.asking() as session:
            found = [
                name
                for name in self._link.children(path)
                if znodes.is_of(name, host)
            ]
            if not found:
                return False
            # First the marks: an observer finds the reason.
            for name in self._link.children(znodes.entries_path(group)):
                entry = self._read(znodes.read_entry, name)
                if entry and entry.host == host and not entry.kind:
                    mark = znodes.entry_path(
                        group, host, entry.binary, znodes.CRASHED
                    )
                    with contextlib.suppress(zookeeper.NodeExistsException):
                        session.create(mark, "", self._link.acl)
            for name in found:
                self._link.delete(f"{path}/{name}")
                self._groups[group].wrote(path, name, False)
        return True

    def _require(self, group: str, host: str) -> list[str]:
        """Return the names of host's entries.

        :raises MemberNotFound: it has none and is not alive
        """
        alive = self._link.children(znodes.group_path(group))
        entries = [
            name
            for name in self._link.children(znodes.entries_path(group))
            if znodes.is_of(name, host)
        ]
        if not entries and not any(znodes.is_of(n, host) for n in alive):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )
        return entries

    def check(self) -> list[base.Finding]:
        return doctor.check(self._link)

    def close(self) -> None:
        self._own_members.close()
        self._link.close()


def _attributes(
    group: str, shown: roster.Shown, forced: bool, unsure: bool
) -> Attributes:
    """Return what the znodes of a host say.

    :param forced: whether it is forced down
    :param unsure: whether its session may be that of a dead member
    """
    said, entry = shown.said, shown.entry
    here = shown.live > 0
    # That it left once says nothing of a live member.
    kind = None if here or entry is None else entry[1]
    return Attributes(
        binary=entry[0] if entry else f"nova-{group}",
        left=kind == znodes.LEFT,
        crashed=kind == znodes.CRASHED,
        # Also of a member whose session has ended: see rules.py.
        draining=znodes.DRAINING in said,
        unwell=said.get(znodes.UNWELL, "") if here else "",
        domain=said.get(znodes.DOMAIN),
        server=said.get(znodes.SERVER),
        present=here and not unsure,
        lost=not here,
        forced_down=forced,
    )
