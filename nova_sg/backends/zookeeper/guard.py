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

"""Closing the ZooKeeper session of a process that has ended.

Any process that knows the id and the password of a session can continue it.
Closing it deletes its ephemeral znodes at once, and no others. So this does
no harm to a service that was started again: it has a session of its own.

Here are the few messages of ZooKeeper's protocol that this takes.

An order has servers, [(host, port)], session, password, timeout (ms), auths,
[(scheme, bytes)], and marks, [(path, [(permissions, scheme, id)])]: znodes
that are created before the session is closed and say that the member crashed.
"""

from __future__ import annotations

import random
import socket
import struct

# Seconds for one server to answer.
TIMEOUT = 2.0

_CREATE, _AUTH, _CLOSE = 1, 100, -11
_AUTH_XID = -4


def withdraw(order: dict) -> bool:
    """Close the session; return whether it still existed.

    :raises OSError: no server has closed it
    """
    servers = list(order["servers"])
    random.shuffle(servers)
    problem: OSError | None = None
    for server in servers:
        timeout = min(TIMEOUT, order["patience"])
        try:
            with socket.create_connection(server, timeout) as link:
                link.settimeout(timeout)
                return _end(link, order)
        except OSError as error:
            problem = error
    raise problem or OSError("no servers")


def _end(link: socket.socket, order: dict) -> bool:
    link.sendall(
        _frame(
            struct.pack(
                ">iqiq", 0, 0, order["timeout"], _signed(order["session"])
            )
            + _buffer(order["password"])
            # A read-only server does not do.
            + b"\0"
        )
    )
    answer = _receive(link)
    # The answer: protocol version, timeout, session. Timeout 0: there is no
    # such session.
    if struct.unpack_from(">i", answer, 4)[0] <= 0:
        return False
    requests = [
        _frame(
            struct.pack(">iii", _AUTH_XID, _AUTH, 0)
            + _buffer(scheme.encode())
            + _buffer(secret)
        )
        for scheme, secret in order["auths"]
    ]
    xid = 0
    for xid, (path, acl) in enumerate(order["marks"], 1):
        requests.append(
            _frame(
                struct.pack(">ii", xid, _CREATE)
                + _buffer(path.encode())
                + _buffer(b"")
                + _acl(acl)
                + struct.pack(">i", 0)
            )
        )
    last = xid + 1
    requests.append(_frame(struct.pack(">ii", last, _CLOSE)))
    link.sendall(b"".join(requests))
    while True:
        # Errors about marks are ignored: these only explain the verdict.
        if struct.unpack_from(">i", _receive(link))[0] == last:
            return True


def _acl(entries: list) -> bytes:
    return struct.pack(">i", len(entries)) + b"".join(
        struct.pack(">i", permissions)
        + _buffer(scheme.encode())
        + _buffer(name.encode())
        for permissions, scheme, name in entries
    )


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _buffer(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def _frame(content: bytes) -> bytes:
    return _buffer(content)


def _receive(link: socket.socket) -> bytes:
    (length,) = struct.unpack(">i", _exactly(link, 4))
    return _exactly(link, length)


def _exactly(link: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        piece = link.recv(length - len(content))
        if not piece:
            raise OSError("the server closed the connection")
        content += piece
    return content
