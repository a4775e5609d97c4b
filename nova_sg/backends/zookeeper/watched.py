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

"""A group as this process watches it: three sets of names in memory."""

from __future__ import annotations

import collections
import datetime
import itertools
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from nova_sg import evzookeeper, zookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import connection, names, roster
from nova_sg.evzookeeper import membership
from nova_sg.liveness.model import Attributes, Observation

# How many znodes of live members are checked for their session in a second,
# and by one poll.
CHECKED = 50
# Seconds that a poll waits until the watches show what this process wrote.
ECHO_WAIT = 1.0


class Names(NamedTuple):
    """The names below the three paths."""

    members: set[str]
    entries: set[str]
    forced: set[str]
    #: Whether members, and then entries, were listed just now; otherwise the
    #: watches have brought them.
    asked: bool
    #: When they were read: before they were listed, monotonic.
    at: float


class WatchedGroup:
    """What this process knows of one group.

    After follow() there is a watch on each of its three paths. Until then
    every poll lists the names below them.
    """

    def __init__(
        self,
        session: evzookeeper.ZKSession,
        group: str,
        warn: Callable[[str], object],
    ) -> None:
        """:param warn: called with a name that nova_sg did not write"""
        self._session = session
        #: The path below which the live members are.
        self.path = names.group_path(group)
        self._paths = (
            self.path,
            names.entries_path(group),
            names.forced_path(group),
        )
        self._monitors: list[membership.MembershipMonitor] = []
        self._wakes: list[Callable[[], None]] = []
        self._changes = threading.Condition()
        # What this process wrote since the last poll: by path and name,
        # whether it exists now. Guarded by _changes.
        self._echoes: dict[tuple[str, str], bool] = {}
        # Held while what the names show is taken in.
        self.lock = threading.Lock()
        # What the names of znodes show.
        self.roster = roster.Roster(warn)
        # What the last poll observed, by host.
        self.observations: dict[str, Observation] = {}
        # Changes with the observations: see model.Changes.
        self.mark: object = object()
        # The hosts that were forced down at the last poll.
        self.forced: set[str] = set()
        # Observations with the same attributes have one object.
        self._shared: dict[tuple, Attributes] = {}
        # How many znodes may be checked now, and since when (monotonic).
        self._checks, self._checks_at = float(CHECKED), 0.0
        # When each host that is not alive was last seen, UTC; None: not
        # known.
        self.last_seen: dict[str, datetime.datetime | None] = {}
        # The hosts that the last observation left out as too old, with the
        # seconds since they were last seen.
        self.unlisted: dict[str, float] = {}
        # When the hosts that this process saw alive were found gone,
        # monotonic.
        self.gone: dict[str, float] = {}
        # By path: the names that were listed last, while the watches may
        # have brought others.
        self._asked: dict[str, set[str]] = {}
        # The hosts that were alive before the servers became unreachable.
        # Until unsure_until (monotonic) a session does not show that they
        # are alive.
        self.unsure: set[str] = set()
        self.unsure_until = float("-inf")
        # When these hosts were last seen, UTC.
        self.unsure_seen: datetime.datetime | None = None
        # When the last poll was answered, UTC.
        self.polled: datetime.datetime | None = None
        # Not empty if the servers were unreachable since the last poll. A
        # deque needs no lock: the session's thread appends while a poll
        # removes.
        self._interruptions: collections.deque = collections.deque(maxlen=1)
        session.add_listener(self._session_event)

    def _session_event(self, event: str) -> None:
        if event != evzookeeper.CONNECTED:
            self.interrupt()

    def interrupt(self) -> None:
        """Note, for the next poll, that the servers were unreachable."""
        self._interruptions.append(True)

    def take_interruption(self) -> bool:
        """Whether the servers were unreachable since the last call."""
        try:
            return self._interruptions.popleft()
        except IndexError:
            return False

    def age(self, host: str, now: float) -> float:
        """Return the seconds since a host that is not alive was last seen.

        0: that is not known. Or the clock of this host may have been set:
        this process has seen the host alive a while ago.

        :param now: monotonic
        """
        seen = self.last_seen.get(host)
        watched = now - self.gone.get(host, float("-inf"))
        if seen is None or self.polled is None or watched < base.UNCHANGED:
            return 0.0
        return (self.polled - seen).total_seconds()

    def share(
        self,
        shown: roster.Shown,
        forced: bool,
        unsure: bool,
        make: Callable[[], Attributes],
    ) -> Attributes:
        """Return the one object for these attributes."""
        key = shown, forced, unsure
        found = self._shared.get(key)
        if found is None:
            if len(self._shared) >= roster.SHARED:
                self._shared.clear()
            found = self._shared[key] = make()
        return found

    def to_check(self) -> list[str]:
        """Return znodes of live members to check for their session.

        A znode is checked once, and again after an interruption.
        """
        if not self.roster.unchecked:
            return []
        now = time.monotonic()
        self._checks = min(
            CHECKED, self._checks + (now - self._checks_at) * CHECKED
        )
        self._checks_at = now
        found = list(
            itertools.islice(self.roster.unchecked, int(self._checks))
        )
        self._checks -= len(found)
        return found

    def follow(self, wake: Callable[[], None]) -> None:
        """Watch the paths; call wake for each change."""
        # First, as the rest may fail and is then called again.
        if wake not in self._wakes:
            self._wakes.append(wake)
        if not self._monitors:
            self._monitors = [
                membership.MembershipMonitor(
                    self._session, path, cb_func=self._changed
                )
                for path in self._paths
            ]

    def unfollow(self, wake: Callable[[], None]) -> None:
        if wake in self._wakes:
            self._wakes.remove(wake)

    def _changed(self, names: set[str] | None) -> None:
        with self._changes:
            self._changes.notify_all()
        for wake in list(self._wakes):
            wake()

    def wrote(self, path: str, name: str, there: bool) -> None:
        """Have the next poll wait until the watches show this.

        :param there: whether the znode was written or deleted
        """
        if self._monitors:
            with self._changes:
                self._echoes[path, name] = there

    def names(self, timeout: float) -> Names | None:
        """Return the names below the three paths; None: not in time."""
        if not self._monitors:
            return self.ask()
        with self._changes:
            self._changes.wait_for(lambda: None not in self._sets(), timeout)
            # Includes what is written while it waits.
            came = self._changes.wait_for(
                lambda: self._came(self._echoes), ECHO_WAIT
            )
            at = time.monotonic()
            sets = [one for one in self._sets() if one is not None]
            if len(sets) == len(self._paths):
                self._echoes.clear()
        if len(sets) < len(self._paths):
            return None
        if not came:
            # The watches are late. A listing shows what was written before it
            # in the same session.
            return self.ask()
        if all(
            self._asked.get(path, brought) == brought
            for path, brought in zip(self._paths, sets, strict=True)
        ):
            self._asked = {}
            members, entries, forced = sets
            return Names(members, entries, forced, asked=False, at=at)
        # The watches and the last listing differ. Either may be the older
        # one: only another listing tells.
        return self.ask()

    def ask(self) -> Names:
        """List the members, and then the entries.

        In this order, which the watches of two paths do not keep.
        """
        at = time.monotonic()
        found = [self._list(path) for path in self._paths]
        self._asked = dict(zip(self._paths, found, strict=True))
        members, entries, forced = found
        return Names(members, entries, forced, asked=True, at=at)

    def _sets(self) -> list[set[str] | None]:
        return [monitor.get_all() for monitor in self._monitors]

    def _came(self, echoes: dict[tuple[str, str], bool]) -> bool:
        known = {
            path: brought
            for path, brought in zip(self._paths, self._sets(), strict=True)
            if brought is not None
        }
        return len(known) < len(self._paths) or all(
            (name in known[path]) is there
            for (path, name), there in echoes.items()
        )

    def _list(self, path: str) -> set[str]:
        try:
            return set(self._session.get_children(path))
        except zookeeper.NoNodeException:
            return set()


class WatchedGroups:
    """The groups of this process, each made on first use."""

    def __init__(
        self, link: connection.Connection, warn: Callable[[str], object]
    ) -> None:
        """:param warn: called with a name that nova_sg did not write"""
        self._link = link
        self._warn = warn
        self._lock = threading.Lock()
        self._groups: dict[str, WatchedGroup] = {}

    def __getitem__(self, group: str) -> WatchedGroup:
        with self._lock:
            found = self._groups.get(group)
            if found is None:
                found = WatchedGroup(self._link.session, group, self._warn)
                self._groups[group] = found
            return found

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        found = self._groups.get(group)
        if found is not None:
            found.unfollow(wake)
