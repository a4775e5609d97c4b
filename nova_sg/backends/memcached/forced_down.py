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

"""Marks of members that are forced down, kept by several servers.

A server may miss a mark, because it was unreachable, or lose it, because it
was restarted or wiped. So each mark has the time at which it was made, also
the one that takes another back, and of two the newer one counts. No I/O here;
marks.py remembers marks and writes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from nova_sg.backends.memcached import values

# Seconds for which a mark that takes another back is kept: a server may be
# unreachable for as long and come back with the other one.
LIFETIME = 7 * 24 * 3600


class Mark(NamedTuple):
    """Whether a member is forced down."""

    #: When it was made: milliseconds since 1970, by the clock of the process
    #: that made it.
    at: int
    forced: bool


def read(
    codec: values.Codec, key: str, value: bytes
) -> tuple[dict[str, Mark], int]:
    """Read marks.

    :returns: the newest mark of each host, and how many lines are no marks
    """
    lines, refused = codec.read_lines(key, value)
    found: dict[str, Mark] = {}
    for line in lines:
        at, _, rest = line.partition(" ")
        kind, _, host = rest.partition(" ")
        if not (at.isascii() and at.isdigit() and len(at) < 16 and host):
            refused += 1
        elif kind not in ("down", "unset"):
            refused += 1
        else:
            mark = Mark(int(at), kind == "down")
            found[host] = max(mark, found.get(host, mark))
    return found, refused


def write(codec: values.Codec, key: str, marks: Mapping[str, Mark]) -> bytes:
    """Write marks, without those that are no longer needed."""
    return codec.lines(
        key,
        [
            f"{mark.at} {'down' if mark.forced else 'unset'} {host}"
            for host, mark in pruned(marks).items()
        ],
    )


def pruned(marks: Mapping[str, Mark]) -> dict[str, Mark]:
    """Return the marks that are still needed."""
    oldest = newest_time(marks) - LIFETIME * 1000
    return {
        host: mark
        for host, mark in marks.items()
        if mark.forced or mark.at > oldest
    }


def newest_time(marks: Mapping[str, Mark]) -> int:
    """Return when the newest mark was made; 0: there is none."""
    return max((mark.at for mark in marks.values()), default=0)


def merge(
    one: Mapping[str, Mark], other: Mapping[str, Mark]
) -> dict[str, Mark]:
    """Return the newer mark of each host."""
    both = dict(one)
    for host, mark in other.items():
        both[host] = max(mark, both.get(host, mark))
    return both


def newer_mark(
    marks: Mapping[str, Mark], host: str, forced: bool, now: float
) -> Mark:
    """Return a mark that is newer than the one that host has."""
    known = marks.get(host)
    at = int(now * 1000)
    return Mark(max(at, known.at + 1) if known else at, forced)


def merging(
    codec: values.Codec, key: str, marks: Mapping[str, Mark]
) -> Callable[[bytes], bytes]:
    """Return a function that merges marks into the value of a server."""

    def change(old: bytes) -> bytes:
        return write(codec, key, merge(read(codec, key, old)[0], marks))

    return change
