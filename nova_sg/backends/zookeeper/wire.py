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

"""The few messages of ZooKeeper's protocol that need no client.

For the crash guard, whose process has no client, and for kazoo's watchdog,
which must not share one. It imports little, as the guard does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

_CREATE, _DELETE, _AUTH, _SASL, _CLOSE = 1, 2, 100, 102, -11
_AUTH_XID = -4
# Bytes of the largest answer to a request that is made here.
_LARGEST = 1 << 20


def tls_context(tls: Mapping[str, str | None]) -> Any:
    """Return the ssl.SSLContext for the options of TLS.

    It checks the names of hosts.

    :param tls: the files "ca", "cert" and "key", and the key's "password",
        each of which may be None
    :raises OSError: a file cannot be read, or is not what it should be
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls["ca"]:
        context.load_verify_locations(tls["ca"])
    else:
        context.load_default_certs()
    if tls["cert"]:
        # A function, as Python otherwise asks the terminal for a password.
        password = (tls["password"] or "").encode()
        context.load_cert_chain(tls["cert"], tls["key"], lambda: password)
    return context


def connect(
    server: tuple[str, int],
    timeout: float,
    tls: Mapping[str, str | None] | None,
) -> socket.socket:
    """Connect to a server.

    :param timeout: seconds that connecting, and then each message, may take
    :raises OSError: there is no connection
    """
    link = socket.create_connection(server, timeout)
    link.settimeout(timeout)
    return link if tls is None else encrypt(link, server[0], tls)


def encrypt(
    link: socket.socket, host: str, tls: Mapping[str, str | None]
) -> socket.socket:
    """Return a connection on which TLS has begun; close the other.

    :param host: the name that the server's certificate has to have
    :raises OSError: it has another, or something else is wrong with TLS
    """
    timeout = link.gettimeout()
    try:
        # The files are read each time: certificates are renewed.
        encrypted = tls_context(tls).wrap_socket(
            link, server_hostname=host, do_handshake_on_connect=False
        )
    except BaseException:
        link.close()
        raise
    try:
        # eventlet's sockets would stay open if the handshake failed before.
        encrypted.settimeout(timeout)
        encrypted.do_handshake()
    except BaseException:
        encrypted.close()
        raise
    return encrypted


def begin(
    link: socket.socket,
    timeout: int,
    session: int = 0,
    password: bytes = b"",
) -> bool:
    """Begin a session, or continue one; return False if it has ended.

    :param timeout: the session timeout in ms
    """
    link.sendall(
        buffer(
            struct.pack(">iqiq", 0, 0, timeout, _signed(session))
            + buffer(password.ljust(16, b"\0"))
            # A read-only server does not do.
            + b"\0"
        )
    )
    # The answer: protocol version, timeout, session. Timeout 0: there is no
    # such session.
    return struct.unpack_from(">i", receive(link, 8), 4)[0] > 0


def authenticate(link: socket.socket, sasl: tuple[str, str] | None) -> None:
    """Authenticate by SASL, mechanism DIGEST-MD5.

    :param sasl: the user and the password; None: not at all
    :raises OSError: the server refuses, or there is no library for it
    """
    if sasl is None:
        return
    try:
        from puresasl import client
    except ImportError as error:
        raise OSError(f"SASL needs pure-sasl: {error}") from error
    user, password = sasl
    dialogue = client.SASLClient(
        # Servers have this name, whatever their host.
        "zk-sasl-md5",
        "zookeeper",
        "DIGEST-MD5",
        username=user,
        password=password,
    )
    challenge, xid = None, 0
    while True:
        try:
            token = dialogue.process(challenge)
        except Exception as error:
            # Not SASLError alone: the challenge may be of any form.
            text = str(error) or type(error).__name__
            raise OSError(f"SASL: {text}") from error
        if dialogue.complete and not token:
            return
        xid += 1
        link.sendall(
            buffer(struct.pack(">ii", xid, _SASL) + buffer(token or b""))
        )
        answer = receive(link, 16)
        code = struct.unpack_from(">i", answer, 12)[0]
        if code:
            raise OSError(f"the server refuses the authentication ({code})")
        (length,) = struct.unpack_from(">i", answer.ljust(20, b"\0"), 16)
        challenge = answer[20 : 20 + max(0, length)]


def auth_request(scheme: str, secret: bytes) -> bytes:
    return buffer(
        struct.pack(">iii", _AUTH_XID, _AUTH, 0)
        + buffer(scheme.encode())
        + buffer(secret)
    )


def create_request(xid: int, path: str, acl: list) -> bytes:
    """Create a znode that stays, without data.

    :param acl: triples of permissions, scheme and id
    """
    return buffer(
        struct.pack(">ii", xid, _CREATE)
        + buffer(path.encode())
        + buffer(b"")
        + struct.pack(">i", len(acl))
        + b"".join(
            struct.pack(">i", permissions)
            + buffer(scheme.encode())
            + buffer(name.encode())
            for permissions, scheme, name in acl
        )
        + struct.pack(">i", 0)
    )


def delete_request(xid: int, path: str) -> bytes:
    """Delete a znode, whatever its version."""
    return buffer(
        struct.pack(">ii", xid, _DELETE)
        + buffer(path.encode())
        + struct.pack(">i", -1)
    )


def close_request(xid: int) -> bytes:
    """End the session."""
    return buffer(struct.pack(">ii", xid, _CLOSE))


def answers(link: socket.socket, last: int) -> Iterator[tuple[int, int]]:
    """Yield the number and the return code of each answer.

    :param last: the number of the last request
    :raises OSError: the connection broke before its answer
    """
    xid = None
    while xid != last:
        xid, _, code = struct.unpack_from(">iqi", receive(link, 16))
        yield xid, code


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def buffer(content: bytes) -> bytes:
    """Return bytes with their length before them."""
    return struct.pack(">i", len(content)) + content


def receive(link: socket.socket, least: int) -> bytes:
    """Receive one message.

    :param least: the bytes that it has at least
    :raises OSError: the connection broke, or this is not a ZooKeeper server
    """
    (length,) = struct.unpack(">i", _exactly(link, 4))
    if not least <= length <= _LARGEST:
        raise OSError("it does not speak ZooKeeper's protocol")
    return _exactly(link, length)


def _exactly(link: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        piece = link.recv(length - len(content))
        if not piece:
            raise OSError("the server closed the connection")
        content += piece
    return content
