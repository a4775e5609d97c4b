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

"""Keys and values: what stands in memcached, and reading it with suspicion.

No I/O here. Anybody who reaches a memcached server can write to it, so
nothing that is read is trusted: short ASCII is parsed by a strict grammar and
everything else is refused. With a secret every value carries a message
authentication code over its key and its text.

==================  =====================================================
key                 value
==================  =====================================================
TOPIC:HOST          the last report; expires. The legacy driver's key. With
                    it, after a bad time, since and until when the member
                    could not report
nova_sg:r:HASH      the record: the report once more, now and then; stays
                    when the member falls silent
nova_sg:i:HASH:N    a part of the group's index: a line a member
nova_sg:f:HASH      who of the group is forced down, and since when: a line
                    a mark, see marks.py
nova_sg:c:HASH      a word that is another after each crash that a guard has
                    told of, see changes.py
nova_sg:g           the groups, a line each
==================  =====================================================
"""

from __future__ import annotations

import hashlib
import hmac
import re
import urllib.parse
import zlib
from collections.abc import Iterable
from typing import NamedTuple

UP = "up"
#: It is up, and about to stop.
DRAINING = "draining"
LEFT = "left"
#: Its process ended without leaving: written by its guard.
CRASHED = "crashed"
#: Removed by an operator; seen by observers that knew the member.
GONE = "gone"

# memcached's limit.
KEY_LENGTH = 250
# Into how many parts a group's index is cut: each member reads its part now
# and then, each observer all of them.
INDEX_PARTS = 128
# A list that is longer, in bytes, is written anew before a line is added:
# memcached takes a megabyte, and what is no name may fill it.
LIST_LENGTH = 256 * 1024
# What a name may be long at most, quoted: a list has to take it.
NAME_LENGTH = 64 * 1024

_PLAIN_KEY = re.compile(r"[!-~]+")
_MOMENT = rb"0|[1-9]\d{0,14}"
_REPORT = re.compile(
    rb"1 (up|draining|left|crashed|gone) (%b) ([!-~]+)"
    rb"(?: away=([!-~]*))?" % _MOMENT
)
_AWAY = re.compile(rb"(%b)-(%b)" % (_MOMENT, _MOMENT))
# A member that says it could not report for longer is not believed: nothing
# of it would be left. A record stays for so many seconds, a week.
LONGEST_AWAY = 7 * 24 * 3600.0
# What _quote() leaves as it is.
_UNQUOTED = re.compile(r"[A-Za-z0-9_.~-]+")
_MAC_LENGTH = 32


class Report(NamedTuple):
    """A report, or what took its place."""

    #: UP, DRAINING, LEFT, CRASHED or GONE.
    kind: str
    #: When, by the server's clock: seconds since 1970.
    at: float
    binary: str
    #: Since and until when it could not report, by the same clock.
    away: tuple[float, float] | None = None

    @property
    def is_credible(self) -> bool:
        """Whether what it says of a time without reports may be true."""
        if self.away is None:
            return True
        since, until = self.away
        return (
            since < until <= self.at and until - since <= LONGEST_AWAY
        )


def member_key(group: str, host: str) -> str:
    """Return the key of a member's report.

    A name that is too long for memcached, or holds what it does not allow,
    is replaced by its hash; so is one that could be read in two ways.
    """
    key = f"{group}:{host}"
    plain = len(key) <= KEY_LENGTH and _PLAIN_KEY.fullmatch(key)
    if plain and ":" not in group and group != "nova_sg":
        return key
    return "nova_sg:m:" + _hash(group, host)


def record_key(group: str, host: str) -> str:
    """Return the key of a member's record."""
    return "nova_sg:r:" + _hash(group, host)


def index_key(group: str, host: str) -> str:
    """Return the key of the part of the index that lists host."""
    part = zlib.crc32(_quote(host).encode("ascii")) % INDEX_PARTS
    return f"nova_sg:i:{_hash(group)}:{part}"


def index_keys(group: str) -> list[str]:
    """Return the keys of all parts of a group's index."""
    name = _hash(group)
    return [f"nova_sg:i:{name}:{part}" for part in range(INDEX_PARTS)]


def forced_key(group: str) -> str:
    """Return the key of the list of members that are forced down."""
    return "nova_sg:f:" + _hash(group)


def changes_key(group: str) -> str:
    """Return the key of the value that is another after each crash."""
    return "nova_sg:c:" + _hash(group)


GROUPS_KEY = "nova_sg:g"


def _hash(*names: str) -> str:
    text = " ".join(_quote(name) for name in names)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:40]


class Codec:
    """Writes and reads values, with a message authentication code or not."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode("utf-8") if secret else None

    def report(self, key: str, report: Report) -> bytes:
        """Write a report.

        :raises ValueError: the name in it is too long
        """
        text = f"1 {report.kind} {report.at * 1000:.0f} ".encode("ascii")
        text += _name(report.binary)
        if report.away is not None:
            since, until = report.away
            span = f" away={since * 1000:.0f}-{until * 1000:.0f}"
            text += span.encode("ascii")
        return self._seal(key, text)

    def read_report(self, key: str, value: bytes) -> Report:
        """Read a report.

        What it says of a time without reports is not worth losing it: see
        is_credible.

        :raises ValueError: it is none, or not by anybody with the secret
        """
        match = _REPORT.fullmatch(self._open(key, value))
        if match is None:
            raise ValueError("not a report")
        kind, at, binary, away = match.groups()
        return Report(
            kind.decode(), int(at) / 1000, _unquote(binary), _read_away(away)
        )

    def line(self, key: str, name: str) -> bytes:
        """Write a name as a line of a list, with the line's end.

        :raises ValueError: it is too long
        """
        return self._seal(key, _name(name)) + b"\n"

    def read_lines(self, key: str, value: bytes) -> tuple[set[str], int]:
        """Read a list.

        :returns: the names, and how many different lines are not any
        """
        names, refused = set(), 0
        for line in set(value.split(b"\n")) - {b""}:
            try:
                names.add(_unquote(self._open(key, line)))
            except ValueError:
                refused += 1
        return names, refused

    def lines(self, key: str, names: Iterable[str]) -> bytes:
        """Write a list."""
        return b"".join(self.line(key, name) for name in sorted(names))

    def _seal(self, key: str, text: bytes) -> bytes:
        if self._secret is None:
            return text
        return text + b" " + _mac(self._secret, key, text)

    def _open(self, key: str, value: bytes) -> bytes:
        if self._secret is None:
            return value
        text, _, mac = value.rpartition(b" ")
        if not hmac.compare_digest(mac, _mac(self._secret, key, text)):
            raise ValueError("not authentic")
        return text


def _mac(secret: bytes, key: str, text: bytes) -> bytes:
    mac = hmac.new(secret, key.encode() + b"\0" + text, hashlib.sha256)
    return mac.hexdigest()[:_MAC_LENGTH].encode("ascii")


def _read_away(text: bytes | None) -> tuple[float, float] | None:
    if text is None:
        return None
    match = _AWAY.fullmatch(text)
    if match is None:
        return 0.0, 0.0
    return int(match[1]) / 1000, int(match[2]) / 1000


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="", errors="surrogatepass")


def _name(name: str) -> bytes:
    """Write a name.

    :raises ValueError: it is too long
    """
    quoted = _quote(name).encode("ascii")
    if len(quoted) > NAME_LENGTH:
        raise ValueError(f"a name of {len(name)} characters is too long")
    return quoted


def _unquote(text: bytes) -> str:
    """Read a name.

    :raises ValueError: it is not written as _name() writes names
    """
    if not 0 < len(text) <= NAME_LENGTH:
        raise ValueError("not a name")
    quoted = text.decode("ascii")
    if _UNQUOTED.fullmatch(quoted):
        # Nearly all names, and an observer reads thousands.
        return quoted
    name = urllib.parse.unquote(quoted, errors="surrogatepass")
    if _quote(name) != quoted:
        raise ValueError("not a name")
    return name
