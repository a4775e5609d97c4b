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

"""The paths and names of znodes, and checking names that are read. No I/O.

Below [zookeeper] sg_prefix there are, for each group:

===================  ====================================================
GROUP/HOST@SESSION   a live member; ephemeral, so it goes with its session
.members/GROUP/      HOST@BINARY: a member that joined at some time;
                     HOST@BINARY@draining: it is about to stop;
                     HOST@BINARY@left: it has left on purpose since;
                     HOST@BINARY@crashed: its process ended without leaving
                     HOST@BINARY@unwell@TEXT: it cannot do its work, and why
                     HOST@BINARY@domain@TEXT: its failure domain
                     HOST@BINARY@server@TEXT: the server it is connected to
.forced/GROUP/HOST   a member that is forced down
.locks/GROUP         "free", if the last holder of the lock has released it
.locks/GROUP/holder  the holder of the lock; ephemeral
.notes/GROUP         the note
===================  ====================================================

SESSION is the session's id in hex. So the znode of a process that is started
again never collides with the one of its dead session, several processes on
one host have a znode each, and a create that is repeated after a lost
connection finds its own znode.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import NamedTuple

from nova_sg.conf import CONF

DRAINING, LEFT, CRASHED = "draining", "left", "crashed"
UNWELL, DOMAIN, SERVER = "unwell", "domain", "server"
_WITHOUT_TEXT = (DRAINING, LEFT, CRASHED)
_WITH_TEXT = (UNWELL, DOMAIN, SERVER)
# What quote() leaves as it is.
_PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9_.~-]*")
_MEMBER = re.compile(r"(.+)@[0-9a-f]+")


class Entry(NamedTuple):
    """A member's entry below .members."""

    host: str
    binary: str
    #: One of the words above; empty: it joined.
    kind: str
    #: What UNWELL, DOMAIN and SERVER say.
    text: str = ""


def quote(name: str) -> str:
    """Write a name so that it can be a part of a znode's name."""
    quoted = urllib.parse.quote(name, safe="")
    # "." and ".." are not valid, and names with a dot first are nova_sg's own.
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def unquote(text: str) -> str:
    """Read what quote() wrote.

    :raises ValueError: quote() did not write that, or it is not a valid name
    """
    if _PLAIN.fullmatch(text):
        return text
    name = urllib.parse.unquote(text, errors="strict")
    if not name or not name.isprintable() or quote(name) != text:
        raise ValueError("not a name")
    return name


def prefix() -> str:
    """Return the path below which nova_sg has all its znodes."""
    return CONF.zookeeper.sg_prefix


def group_path(group: str) -> str:
    """Return the path below which the live members of a group are."""
    return f"{prefix()}/{quote(group)}"


def members_path() -> str:
    """Return the path below which the entries of all groups are."""
    return f"{prefix()}/.members"


def entries_path(group: str) -> str:
    """Return the path below which the entries of a group's members are."""
    return f"{members_path()}/{quote(group)}"


def forced_path(group: str) -> str:
    """Return the path below which members are marked as forced down."""
    return f"{prefix()}/.forced/{quote(group)}"


def lock_path(group: str) -> str:
    """Return the path below which the holder of a group's lock is."""
    return f"{prefix()}/.locks/{quote(group)}"


def note_path(group: str) -> str:
    """Return the path of a group's note."""
    return f"{prefix()}/.notes/{quote(group)}"


def member_name(host: str, session_id: int) -> str:
    """Return the name of a live member's znode."""
    return f"{quote(host)}@{session_id:x}"


def read_member(name: str) -> str:
    """Return the host of a live member's znode.

    :raises ValueError: it is not the name of a member
    """
    found = _MEMBER.fullmatch(name)
    return unquote(found[1] if found else "")


def is_of(name: str, host: str) -> bool:
    """Whether the name of a znode, or of an entry, is that of a host."""
    return name.partition("@")[0] == quote(host)


def entry_path(group: str, host: str, binary: str, kind: str = "") -> str:
    """Return the path of a member's entry."""
    path = f"{entries_path(group)}/{quote(host)}@{quote(binary)}"
    return f"{path}@{kind}" if kind else path


def said(kind: str, text: str) -> str:
    """Return the end of the name of an entry of a kind with a text."""
    return f"{kind}@{quote(text)}"


def read_said(data: str) -> list[str]:
    """Read the data of a member's entry: what said() returned, by blanks."""
    return [
        one
        for one in data.split()
        if one.partition("@")[0] in _WITH_TEXT and "/" not in one
    ]


def read_entry(name: str) -> Entry:
    """Read the name of an entry.

    :raises ValueError: it is not the name of an entry
    """
    host, binary, *more = name.split("@")
    kind, text = "", ""
    if len(more) == 1 and more[0] in _WITHOUT_TEXT:
        kind = more[0]
    elif len(more) == 2 and more[0] in _WITH_TEXT:
        kind, text = more[0], unquote(more[1])
    elif more:
        raise ValueError("not an entry")
    return Entry(unquote(host), unquote(binary), kind, text)
