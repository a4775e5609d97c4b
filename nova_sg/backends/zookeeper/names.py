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

"""Znodes: what stands where, and reading names with suspicion. No I/O here.

Below [zookeeper] sg_prefix there are, for each group:

===================  ====================================================
GROUP/HOST@SESSION   a live member; ephemeral, so it goes with its session
.members/GROUP/      HOST@BINARY: who has joined once;
                     HOST@BINARY@draining: and is about to stop;
                     HOST@BINARY@left: and has left on purpose since;
                     HOST@BINARY@crashed: its process ended without leaving
.forced/GROUP/HOST   who is forced down
===================  ====================================================

SESSION is the session's id in hex: a process that is started again never
collides with its own dead session, several processes of one host are side by
side, and a create that is repeated after a lost connection is recognised.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from typing import NamedTuple

from nova_sg.conf import CONF

DRAINING, LEFT, CRASHED = "draining", "left", "crashed"
_MEMBER = re.compile(r"(.+)@[0-9a-f]+")


class Entry(NamedTuple):
    """A member's entry below .members."""

    host: str
    binary: str
    #: DRAINING, LEFT, CRASHED or, where there is nothing to say, empty.
    mark: str


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


def prefix() -> str:
    """Return the path that everything is below."""
    return CONF.zookeeper.sg_prefix


def group_path(group: str) -> str:
    """Return the path of a group: what `ls` shows the live members of."""
    return f"{prefix()}/{quote(group)}"


def members_path() -> str:
    """Return the path below which all groups have their entries."""
    return f"{prefix()}/.members"


def entries_path(group: str) -> str:
    """Return the path below which all members of a group have an entry."""
    return f"{members_path()}/{quote(group)}"


def forced_path(group: str) -> str:
    """Return the path below which those are that are forced down."""
    return f"{prefix()}/.forced/{quote(group)}"


def member_name(host: str, session_id: int) -> str:
    """Return the name of a live member's znode."""
    return f"{quote(host)}@{session_id:x}"


def read_member(name: str) -> str:
    """Return whose znode this is.

    :raises ValueError: nobody's
    """
    found = _MEMBER.fullmatch(name)
    return unquote(found[1] if found else "")


def is_of(name: str, host: str) -> bool:
    """Whether a live member's znode, or an entry, is host's."""
    return name.partition("@")[0] == quote(host)


def entry_path(group: str, host: str, binary: str, mark: str = "") -> str:
    """Return the path of a member's entry."""
    path = f"{entries_path(group)}/{quote(host)}@{quote(binary)}"
    return f"{path}@{mark}" if mark else path


def read_entry(name: str) -> Entry:
    """Read the name of an entry.

    :raises ValueError: it is none
    """
    host, binary, *marks = name.split("@")
    if marks not in ([], [DRAINING], [LEFT], [CRASHED]):
        raise ValueError("not an entry")
    return Entry(unquote(host), unquote(binary), "".join(marks))
