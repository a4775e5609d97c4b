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

"""Converting between values of Python and of C.

Text is UTF-8 with surrogateescape: any bytes that another client wrote can
be read, and written back, without loss. Bytes are accepted wherever str is.

The from_* functions take the copies that callbacks.py made, and run on
Python's own threads.
"""

import struct
from typing import Any

from nova_sg.zookeeper import clib, exceptions

# struct Stat, natively aligned. As in python-zookeeper the 64-bit fields are
# unsigned; also ephemeralOwner, although client_id() is signed.
_STAT = struct.Struct("@QQQQiiiQiiQ")
_STAT_FIELDS = (
    "czxid", "mzxid", "ctime", "mtime", "version", "cversion", "aversion",
    "ephemeralOwner", "dataLength", "numChildren", "pzxid")

Text = str | bytes | bytearray
Stat = dict[str, int]


def to_bytes(value: Text) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(f"str or bytes expected, not {type(value).__name__}")


def to_cstring(value: Text, what: str) -> bytes:
    """Return a C string: these end at the first NUL byte."""
    encoded = to_bytes(value)
    if b"\0" in encoded:
        raise exceptions.BadArgumentsException(f"NUL byte in the {what}")
    return encoded


def to_path(value: Text) -> bytes:
    """Return the path of a znode for C.

    The C client checks paths, except for one case: it would put the chroot
    before a relative path, which could then lead outside the chroot.
    """
    path = to_cstring(value, "path")
    if not path.startswith(b"/"):
        raise exceptions.BadArgumentsException(
            f"not an absolute path: {value!r}")
    return path


def from_bytes(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")


def from_stat(value: bytes | None) -> Stat | None:
    if value is None:
        return None
    return dict(zip(_STAT_FIELDS, _STAT.unpack(value), strict=True))


def from_strings(values: list[bytes]) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in values]


def from_acl(entries: list[tuple]) -> list[dict[str, Any]]:
    return [
        {"perms": perms, "scheme": from_bytes(scheme), "id": from_bytes(name)}
        for perms, scheme, name in entries]


class ACLVector:
    """A struct ACL_vector, and the strings that it points to."""

    def __init__(self, acl: Any) -> None:
        """
        :param acl: a list of dicts with the keys perms, scheme and id.
        :raises InvalidACLException: when it is anything else.
        """
        ffi = clib.load().ffi
        if not isinstance(acl, (list, tuple)):
            raise exceptions.InvalidACLException("a list of ACLs is expected")
        self._keep = []
        entries = ffi.new("struct ACL[]", len(acl))
        for target, entry in zip(entries, acl, strict=True):
            try:
                target.perms = entry["perms"]
                target.id.scheme = self._string(entry["scheme"])
                target.id.id = self._string(entry["id"])
            except (TypeError, KeyError, IndexError, OverflowError) as exc:
                raise exceptions.InvalidACLException(
                    f"invalid acl: {entry!r}") from exc
        self._keep.append(entries)
        self.pointer = ffi.new("struct ACL_vector *")
        self.pointer.count = len(acl)
        self.pointer.data = entries

    def _string(self, value: Text) -> Any:
        string = clib.load().ffi.new("char[]", to_cstring(value, "ACL"))
        self._keep.append(string)
        return string
