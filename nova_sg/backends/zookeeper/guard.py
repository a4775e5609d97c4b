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

"""Ending a ZooKeeper session of a process that is gone, as that process.

The few messages of ZooKeeper's protocol that it takes. Who knows the id and
the password of a session may go on with it from anywhere; closing it deletes
its ephemeral znodes, exactly those, at once. So this can do no harm to a
service that was started again: that has a session of its own.

A will has servers, [(host, port)], session, password, timeout (ms), auths,
[(scheme, bytes)], and marks, [(path, [(permissions, scheme, id)])]: znodes
that say what has happened, created just before.
"""

from __future__ import annotations

import random
import socket
import struct

# Seconds for one server to answer.
TIMEOUT = 2.0

_CREATE, _AUTH, _CLOSE = 1, 100, -11
_AUTH_XID = -4


def withdraw(will: dict) -> bool:
    """End the session; return whether it was still there.

    :raises OSError: no server does it
    """
    servers = list(will["servers"])
    random.shuffle(servers)
    problem: OSError | None = None
    for server in servers:
        timeout = min(TIMEOUT, will["patience"])
        try:
            with socket.create_connection(server, timeout) as link:
                link.settimeout(timeout)
                return _end(link, will)
        except OSError as error:
            problem = error
    raise problem or OSError("no servers")


def _end(link: socket.socket, will: dict) -> bool:
    link.sendall(
        _frame(
            struct.pack(
                ">iqiq", 0, 0, will["timeout"], _signed(will["session"])
            )
            + _buffer(will["password"])
            # Not to a server that can only read.
            + b"\0"
        )
    )
    answer = _receive(link)
    # protocol version, timeout, session: no timeout is no session.
    if struct.unpack_from(">i", answer, 4)[0] <= 0:
        return False
    requests = [
        _frame(
            struct.pack(">iii", _AUTH_XID, _AUTH, 0)
            + _buffer(scheme.encode())
            + _buffer(secret)
        )
        for scheme, secret in will["auths"]
    ]
    xid = 0
    for xid, (path, acl) in enumerate(will["marks"], 1):
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
        # What became of the marks is no matter: they only explain.
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
