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

"""Connecting to a memcached server: TLS, and a password.

The crash guard uses it as well: it needs the standard library alone.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl


class Tls(NamedTuple):
    """The options [cache] tls_*, as oslo.cache has them."""

    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    ciphers: str | None = None


class Login(NamedTuple):
    """A user name and a password: memcached's -Y."""

    user: str
    password: str


def make_context(tls: Tls) -> ssl.SSLContext:
    """Return what makes TLS connections, as oslo.cache makes it.

    It verifies the server's certificate and host name. The files are read
    anew each time, as certificates are renewed.

    :raises OSError: the text names the option, the file and what is wrong
    """
    # Few need it, and a guard has to be small.
    import ssl

    for option, path in (
        ("tls_cafile", tls.cafile),
        ("tls_certfile", tls.certfile),
        ("tls_keyfile", tls.keyfile),
    ):
        if path:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise OSError(
                    f"[cache] {option}: {path}: {error.strerror}"
                ) from None
    try:
        made = ssl.create_default_context(cafile=tls.cafile or None)
    except (OSError, ValueError):
        raise OSError(
            f"[cache] tls_cafile: {tls.cafile} has no certificate in PEM"
        ) from None
    if tls.certfile:
        try:
            # A key with a password would have it asked for at a terminal.
            made.load_cert_chain(
                tls.certfile, tls.keyfile or None, lambda: b""
            )
        except (OSError, ValueError) as error:
            raise OSError(
                f"[cache] tls_certfile, tls_keyfile: {tls.certfile}"
                f"{f', {tls.keyfile}' if tls.keyfile else ''}: "
                f"{_reason(error)}. They have to be a certificate and its "
                "key in PEM, without a password"
            ) from None
    if tls.ciphers:
        try:
            made.set_ciphers(tls.ciphers)
        except (OSError, ValueError):
            raise OSError(
                f"[cache] tls_allowed_ciphers: {tls.ciphers!r} names no "
                "cipher that OpenSSL has here"
            ) from None
    return made


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(
        error, "strerror", None
    ) or str(error)


def connect(
    target: tuple[int, tuple | str],
    host: str,
    timeout: float,
    tls: Tls | None = None,
    login: Login | None = None,
) -> socket.socket:
    """Connect to a server.

    :param target: the family, and the address for a socket of that family
    :param host: the server's name, for TLS; "" of a UNIX socket, which has
        no TLS
    :param timeout: seconds for all of it, and of the socket that is returned
    :raises OSError: the text says why there is no connection
    """
    family, place = target
    deadline = time.monotonic() + timeout
    link = socket.socket(family, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        if family != socket.AF_UNIX:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.connect(place)
        if tls is not None and host:
            link = _begin_tls(link, host, deadline, tls)
        if login is not None:
            _log_in(link, deadline, login)
        link.settimeout(timeout)
    except BaseException:
        link.close()
        raise
    return link


def _begin_tls(
    link: socket.socket, host: str, deadline: float, tls: Tls
) -> socket.socket:
    context = make_context(tls)
    link.settimeout(max(0.01, deadline - time.monotonic()))
    wrapped = context.wrap_socket(
        link,
        do_handshake_on_connect=False,
        # Without the interface of a link-local address.
        server_hostname=host.partition("%")[0],
    )
    try:
        _shake_hands(wrapped, host)
    except BaseException:
        # The plain one has been taken apart.
        wrapped.close()
        raise
    return wrapped


def _shake_hands(link: ssl.SSLSocket, host: str) -> None:
    import ssl

    try:
        link.do_handshake()
    except TimeoutError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise OSError(
            f"TLS: the certificate of {host} is refused: "
            f"{error.verify_message}. Check [cache] tls_cafile, and the "
            "names in the certificate"
        ) from None
    except ssl.SSLError as error:
        raise OSError(
            f"TLS: {_reason(error)}. [cache] tls_enabled is set: does this "
            "server speak TLS (memcached -Z), and does it take the "
            "certificate and the ciphers of this side?"
        ) from None
    except ConnectionError as error:
        raise OSError(
            f"TLS: {error.strerror or 'the connection was closed'}. [cache] "
            "tls_enabled is set: does this server speak TLS (memcached -Z)?"
        ) from None


def _log_in(link: socket.socket, deadline: float, login: Login) -> None:
    text = f"{login.user} {login.password}".encode()
    # The key means nothing. A server without passwords stores the value,
    # which has expired already.
    link.sendall(b"set nova_sg:login 0 -1 %d\r\n%b\r\n" % (len(text), text))
    answer = b""
    while not answer.endswith(b"\n"):
        link.settimeout(max(0.01, deadline - time.monotonic()))
        more = link.recv(1)
        if not more:
            raise OSError("the server closed the connection at the login")
        answer += more
    if answer.strip() != b"STORED":
        raise OSError(
            "the server refused the user name and the password of [cache] "
            f"username: {answer.strip()[:100].decode('ascii', 'replace')}"
        )


def explain(error: OSError, timeout: float) -> str:
    """Return in words why there is no connection, or no answer."""
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return f"no answer within {timeout:g} s"
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(error, ssl.SSLError):
        return (
            f"TLS: {_reason(error)}. Does the server want a certificate of "
            "this host ([cache] tls_certfile)?"
        )
    return str(error)
