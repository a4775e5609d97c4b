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

"""The keys and values in memcached, and their strict parsing.

No I/O here. Any program that reaches a memcached server can write to it, so
no value is trusted: short ASCII is parsed by a strict grammar and everything
else is refused. With a secret every value carries a message authentication
code over its key and its text.

==================  =====================================================
key                 value
==================  =====================================================
TOPIC:HOST          the last report; expires. The legacy driver's key. Fields
                    at its end: since and until when the member could not
                    report, why it is unwell, its failure domain
nova_sg:m:HASH      the same, for a name that memcached refuses in a key
nova_sg:r:HASH      the record: a copy of the report, written now and then;
                    stays when the member falls silent
nova_sg:i:HASH:N    a part of the group's index: a line for each member
nova_sg:f:HASH      members that are forced down: a line for each mark, see
                    forced_down.py
nova_sg:c:HASH      the refresh signal: replaced after a crash that a guard
                    has seen, for example; see refresh_signals.py
nova_sg:w:RANDOM    an observer's own: see canaries.py
nova_sg:l:HASH      the group's lock, and its note: see locks.py
nova_sg:n:HASH
nova_sg:g           the groups, a line each
==================  =====================================================
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import urllib.parse
import zlib
from collections.abc import Iterable
from typing import NamedTuple

UP = "up"
#: The member is up, and about to stop.
DRAINING = "draining"
LEFT = "left"
#: The member's process ended without leaving: written by its crash guard.
CRASHED = "crashed"
#: An operator removed the member: for observers that have seen it.
GONE = "gone"

# memcached's limit, in bytes.
MAX_KEY_LENGTH = 250
# Parts of a group's index: a member reads its own now and then, an observer
# all of them.
INDEX_PARTS = 128
# A longer list, in bytes, is written anew when a name is added: memcached
# takes a megabyte, and another program may have filled it.
MAX_LIST_LENGTH = 256 * 1024
# Of a name in a list, quoted, in bytes.
MAX_NAME_LENGTH = 64 * 1024

_MOMENT = rb"0|[1-9]\d{0,14}"
_REPORT = re.compile(
    rb"1 (up|draining|left|crashed|gone) (%b) ([!-~]+)"
    rb"((?: [a-z]+=[!-~]*)*)" % _MOMENT
)
_OUTAGE = re.compile(rb"(%b)-(%b)" % (_MOMENT, _MOMENT))
# Seconds. A member cannot have been without reports for longer: its record
# would have expired.
MAX_OUTAGE = 7 * 24 * 3600.0
# Names that _quote() does not change.
_UNQUOTED = re.compile(r"[A-Za-z0-9_.~-]+")
_MAC_LENGTH = 32
# Different reports, apart from their time, that are remembered.
MOST_TEMPLATES = 1000


class StoredReport(NamedTuple):
    """The value of a member: its last report, or what replaced it."""

    #: UP, DRAINING, LEFT, CRASHED or GONE.
    kind: str
    #: When it was written, by the server's clock: seconds since 1970.
    at: float
    binary: str
    #: Since and until when the member could not report, by the same clock.
    outage: tuple[float, float] | None = None
    #: Why the member cannot do its work; empty: it can.
    unwell: str = ""
    #: The member's failure domain; None: it reports none.
    domain: str | None = None

    @property
    def outage_is_possible(self) -> bool:
        """Whether the outage, if there is one, may be true."""
        if self.outage is None:
            return True
        since, until = self.outage
        return since < until <= self.at and until - since <= MAX_OUTAGE


def member_key(group: str, host: str) -> str:
    """Return the key of a member's report.

    A name that memcached refuses in a key is replaced by its hash, and so is
    an ambiguous one.
    """
    key = f"{group}:{host}"
    # All of it is from "!" to "~".
    plain = key.isascii() and key.isprintable() and " " not in key
    plain = plain and len(key) <= MAX_KEY_LENGTH
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


def lock_key(group: str) -> str:
    """Return the key of a group's lock."""
    return "nova_sg:l:" + _hash(group)


def note_key(group: str) -> str:
    """Return the key of a group's note."""
    return "nova_sg:n:" + _hash(group)


def forced_key(group: str) -> str:
    """Return the key of the marks of members that are forced down."""
    return "nova_sg:f:" + _hash(group)


def refresh_signal_key(group: str) -> str:
    """Return the key of a group's refresh signal."""
    return "nova_sg:c:" + _hash(group)


GROUPS_KEY = "nova_sg:g"


def _hash(*names: str) -> str:
    text = " ".join(_quote(name) for name in names)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:40]


class Codec:
    """Writes and reads values.

    :param secret: of the message authentication codes; None: without them
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode("utf-8") if secret else None
        # Reports without their time, by what stands before and after it: a
        # group has few different ones.
        self._templates: dict[tuple[bytes, bytes], StoredReport] = {}

    def write_report(self, key: str, report: StoredReport) -> bytes:
        """Write a report.

        :raises ValueError: a name in it is too long
        """
        kind, at, binary, outage, unwell, domain = report
        text = b"1 %b %.0f %b" % (
            kind.encode("ascii"),
            at * 1000,
            _write_known_name(binary),
        )
        if outage is not None:
            since, until = outage
            text += b" away=%.0f-%.0f" % (since * 1000, until * 1000)
        if unwell:
            text += b" unwell=" + _write_name(unwell)
        if domain:
            text += b" domain=" + _write_known_name(domain)
        return self._seal(key, text)

    def read_report(self, key: str, value: bytes) -> StoredReport:
        """Read a report.

        An impossible outage does not make the report invalid: see
        outage_is_possible. Fields of later versions are ignored.

        :raises ValueError: it is no report, or not authentic
        """
        text = self._open(key, value)
        parts = text.split(b" ", 3)
        if len(parts) == 4:
            version, state, at, rest = parts
            known = self._templates.get((state, rest))
            if known is not None and version == b"1" and _is_moment(at):
                return StoredReport(
                    known.kind,
                    int(at) / 1000,
                    known.binary,
                    None,
                    known.unwell,
                    known.domain,
                )
        report = self._parse_report(text)
        if report.outage is None:
            if len(self._templates) >= MOST_TEMPLATES:
                self._templates = {}
            self._templates[state, rest] = report
        return report

    def _parse_report(self, text: bytes) -> StoredReport:
        match = _REPORT.fullmatch(text)
        if match is None:
            raise ValueError("not a report")
        kind, at, binary, more = match.groups()
        report = StoredReport(
            kind.decode(), int(at) / 1000, _read_name(binary)
        )
        parts = [one.split(b"=", 1) for one in more.split()]
        fields = dict(parts)
        if len(fields) < len(parts):
            raise ValueError("a field is there twice")
        return report._replace(
            outage=_read_outage(fields.get(b"away")),
            unwell=_read_optional(fields.get(b"unwell")) or "",
            domain=_read_optional(fields.get(b"domain")),
        )

    def line(self, key: str, name: str) -> bytes:
        """Write a name as a line of a list, with the line's end.

        :raises ValueError: the name is too long
        """
        return self._seal(key, _write_name(name)) + b"\n"

    def read_lines(self, key: str, value: bytes) -> tuple[set[str], int]:
        """Read a list.

        :returns: the names, and how many different lines are no names
        """
        names, refused = set(), 0
        for line in set(value.split(b"\n")) - {b""}:
            try:
                names.add(_read_name(self._open(key, line)))
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


def _is_moment(text: bytes) -> bool:
    """Whether a text is a time, as _MOMENT."""
    if not text.isdigit() or len(text) > 15:
        return False
    return text[0] != ord("0") or text == b"0"


def _mac(secret: bytes, key: str, text: bytes) -> bytes:
    mac = hmac.new(secret, key.encode() + b"\0" + text, hashlib.sha256)
    return mac.hexdigest()[:_MAC_LENGTH].encode("ascii")


def _read_outage(text: bytes | None) -> tuple[float, float] | None:
    if text is None:
        return None
    match = _OUTAGE.fullmatch(text)
    if match is None:
        # Not possible, either.
        return 0.0, 0.0
    return int(match[1]) / 1000, int(match[2]) / 1000


def _read_optional(text: bytes | None) -> str | None:
    """Read a quoted name that a report may lack.

    :raises ValueError: as _read_name()
    """
    return None if text is None else _read_name(text)


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="", errors="surrogatepass")


def _write_name(name: str) -> bytes:
    """Quote a name.

    :raises ValueError: the name is too long
    """
    quoted = _quote(name).encode("ascii")
    if len(quoted) > MAX_NAME_LENGTH:
        raise ValueError(f"a name of {len(name)} characters is too long")
    return quoted


#: The same, for names of which a process has few.
_write_known_name = functools.lru_cache(64)(_write_name)


def _read_name(text: bytes) -> str:
    """Read a quoted name.

    :raises ValueError: _write_name() would not have written it so
    """
    if not 0 < len(text) <= MAX_NAME_LENGTH:
        raise ValueError("not a name")
    quoted = text.decode("ascii")
    if _UNQUOTED.fullmatch(quoted):
        # A fast path: nearly all names, and an observer reads thousands.
        return quoted
    name = urllib.parse.unquote(quoted, errors="surrogatepass")
    if _quote(name) != quoted:
        raise ValueError("not a name")
    return name
