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

"""The hosts of a group, as the names of its znodes show them. No I/O.

Only names that came or went since the last poll are read. So a poll of a group
of any size takes as long as its changes, and two set differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Any, NamedTuple

from nova_sg import threads
from nova_sg.backends.zookeeper import names

# Kinds of entries of which a host has one; a later one overrides an earlier
# one.
_KINDS = ("", names.LEFT, names.CRASHED)
# So many different values are shared between hosts.
SHARED = 4096


class Shown(NamedTuple):
    """What the znodes of one host show. Hosts share equal ones."""

    #: How many znodes of live members it has.
    live: int = 0
    #: Its entries, without the host: binary, kind, text. Sorted.
    entries: tuple[tuple[str, str, str], ...] = ()

    @property
    def entry(self) -> tuple[str, str] | None:
        """The binary and the kind of the entry that counts; None: none."""
        found = None
        for binary, kind, _ in self.entries:
            # A host may have several: one of its processes left, and another
            # died later.
            if kind in _KINDS and (
                found is None or _KINDS.index(kind) > _KINDS.index(found[1])
            ):
                found = binary, kind
        return found

    @property
    def said(self) -> dict[str, str]:
        """What its members say of themselves: a text by kind of entry."""
        return {
            kind: text for _, kind, text in self.entries if kind not in _KINDS
        }

    @property
    def is_member(self) -> bool:
        return self.live > 0 or self.entry is not None


NOTHING = Shown()


class Roster:
    """The hosts of one group.

    :param warn: called with a name that nova_sg did not write
    :ivar hosts: what each host's znodes show
    :ivar touched: by host what it showed at the last poll, if its znodes have
        changed since then
    :ivar absent: the hosts without a live member
    :ivar unchecked: the znodes of live members of which it is not known
        whether they end with a session
    :ivar copied: those that do not end with a session
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self.hosts: dict[str, Shown] = {}
        self.touched: dict[str, Shown] = {}
        self.absent: set[str] = set()
        self.unchecked: dict[str, None] = {}
        self.copied: set[str] = set()
        # The names that are taken in.
        self._members: Set[str] = frozenset()
        self._entries: Set[str] = frozenset()
        # Whether names are only in part taken in.
        self._partial = False
        # Equal values are one object.
        self._shared: dict[Shown, Shown] = {}

    def shown(self, host: str) -> Shown:
        return self.hosts.get(host, NOTHING)

    def before(self) -> Iterator[tuple[str, Shown]]:
        """Yield what each host showed at the last poll."""
        yield from self.touched.items()
        for host, shown in self.hosts.items():
            if host not in self.touched:
                yield host, shown

    def take_in(self, members: Set[str], entries: Set[str]) -> None:
        """Take in the names of the znodes; other threads run meanwhile.

        :param members: those of live members
        :param entries: those of entries
        """
        if self._partial:
            # It was interrupted by an exception.
            self._forget()
        self._partial = True
        went, came = _differences(self._members, members)
        for name in threads.in_slices(list(went)):
            self._member(name, -1)
        for name in threads.in_slices(list(came)):
            self._member(name, 1)
        self._members = members
        went, came = _differences(self._entries, entries)
        for name in threads.in_slices(list(went)):
            self._entry(name, False)
        for name in threads.in_slices(list(came)):
            self._entry(name, True)
        self._entries = entries
        self._partial = False

    def _forget(self) -> None:
        for host in list(self.hosts):
            self._show(host, NOTHING)
        self._members = self._entries = frozenset()
        self.unchecked.clear()
        self.copied.clear()

    def _member(self, name: str, more: int) -> None:
        host = self._read(names.read_member, name)
        if host is None:
            return
        if more > 0:
            self.unchecked[name] = None
        else:
            self.unchecked.pop(name, None)
            if name in self.copied:
                self.copied.discard(name)
                return
        self._count(host, more)

    def _count(self, host: str, more: int) -> None:
        shown = self.shown(host)
        self._show(host, Shown(shown.live + more, shown.entries))

    def _entry(self, name: str, there: bool) -> None:
        entry = self._read(names.read_entry, name)
        if entry is None:
            return
        shown = self.shown(entry.host)
        entries = [one for one in shown.entries if one != entry[1:]]
        if there:
            entries = sorted([*entries, entry[1:]])
        self._show(entry.host, Shown(shown.live, tuple(entries)))

    def _read(self, reader: Callable[[str], Any], name: str) -> Any:
        try:
            return reader(name)
        except ValueError:
            self._warn(name)
            return None

    def _show(self, host: str, shown: Shown) -> None:
        self.touched.setdefault(host, self.shown(host))
        if shown.live:
            self.absent.discard(host)
        else:
            self.absent.add(host)
        if shown == NOTHING:
            self.hosts.pop(host, None)
            self.absent.discard(host)
            return
        if len(self._shared) > SHARED:
            self._shared.clear()
        self.hosts[host] = self._shared.setdefault(shown, shown)

    # -- sessions

    def check_again(self) -> None:
        """Forget which znodes end with a session, as servers may be others."""
        first, self.copied = self.copied, set()
        for name in first:
            self._count(names.read_member(name), 1)
        readable = (
            name
            for name in self._members
            if name not in first
            and self._read(names.read_member, name) is not None
        )
        self.unchecked = {**dict.fromkeys(first), **dict.fromkeys(readable)}

    def checked(self, name: str, ends: bool) -> None:
        """Note whether a znode ends with a session."""
        if name in self.unchecked:
            del self.unchecked[name]
            if not ends:
                self.copied.add(name)
                self._count(names.read_member(name), -1)


def _differences(
    before: Set[str], now: Set[str]
) -> tuple[Set[str], Set[str]]:
    """Return the names that went, and those that came."""
    if before is now:
        return frozenset(), frozenset()
    went = before - now
    if len(now) == len(before) - len(went):
        return went, frozenset()
    return went, now - before
