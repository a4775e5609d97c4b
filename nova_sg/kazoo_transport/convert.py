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

"""Converting between kazoo's values and those of nova_sg.zookeeper."""

from __future__ import annotations

import re
from typing import Any

from kazoo import exceptions as kazoo_exceptions
from kazoo import security

from nova_sg.zookeeper import constants, convert, exceptions

# kazoo 2.10 does not know all codes, and gives up a connection on which one of
# the others comes.
for _code, _exception in exceptions.BY_CODE.items():
    if _code not in kazoo_exceptions.EXCEPTIONS:
        kazoo_exceptions.EXCEPTIONS[_code] = type(
            _exception.__name__,
            (kazoo_exceptions.ZookeeperError,),
            {"code": _code},
        )

# These are unsigned in python-zookeeper, and signed in kazoo.
_UNSIGNED = ("czxid", "mzxid", "ctime", "mtime", "ephemeralOwner", "pzxid")


def to_path(path: convert.Text) -> str:
    """:raises BadArgumentsException: it is not an absolute path in UTF-8"""
    return to_text(convert.to_path(path))


def to_text(value: convert.Text) -> str:
    """Return a text for kazoo.

    It would end its thread, and so the session, at text that it cannot encode.

    :raises BadArgumentsException: it is not UTF-8
    """
    try:
        return convert.to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise exceptions.BadArgumentsException(
            f"not UTF-8: {value!r}"
        ) from error


def to_acl(acl: Any) -> list[security.ACL]:
    """:raises InvalidACLException: it is not a list of dicts"""
    if not isinstance(acl, (list, tuple)):
        raise exceptions.InvalidACLException("a list of ACLs is expected")
    try:
        return [
            security.ACL(
                int(one["perms"]),
                security.Id(to_text(one["scheme"]), to_text(one["id"])),
            )
            for one in acl
        ]
    except (
        TypeError,
        KeyError,
        IndexError,
        ValueError,
        exceptions.BadArgumentsException,
    ) as error:
        raise exceptions.InvalidACLException(
            f"invalid acl: {acl!r}"
        ) from error


def from_acl(acl: list[security.ACL]) -> list[dict[str, Any]]:
    return [
        {"perms": one.perms, "scheme": one.id.scheme, "id": one.id.id}
        for one in acl
    ]


def from_stat(stat: Any) -> dict[str, int] | None:
    if stat is None:
        return None
    fields = stat._asdict()
    for name in _UNSIGNED:
        fields[name] &= (1 << 64) - 1
    return fields


def from_data(value: bytes | None) -> str:
    return convert.from_bytes(value) or ""


def code(error: Exception) -> int:
    """Return the return code that the C client has for an error."""
    if isinstance(error, kazoo_exceptions.ConnectionClosedError):
        return constants.CONNECTIONLOSS
    if isinstance(error, kazoo_exceptions.ZookeeperError):
        return getattr(error, "code", constants.SYSTEMERROR)
    return constants.SYSTEMERROR


def text(rc: int) -> str:
    """Return the text for a return code: the exception's name as words."""
    if rc == constants.OK:
        return "ok"
    known = exceptions.BY_CODE.get(rc)
    if known is None:
        return "unknown error"
    name = known.__name__.removesuffix("Exception")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def exception(rc: int) -> exceptions.ZooKeeperException:
    """Return the exception for a return code."""
    return exceptions.for_code(rc, text(rc))
