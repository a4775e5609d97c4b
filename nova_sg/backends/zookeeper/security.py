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

"""The options of [zookeeper] for TLS, SASL and digest authentication."""

from __future__ import annotations

import socket
from typing import NamedTuple

from nova_sg import exception
from nova_sg.backends.zookeeper import wire
from nova_sg.conf import CONF


class Security(NamedTuple):
    """How connections are encrypted and authenticated."""

    #: The files and the password that wire.tls_context() takes; None: no TLS.
    tls: dict[str, str | None] | None
    #: The user and the password; None: no SASL.
    sasl: tuple[str, str] | None
    #: Pairs of scheme and secret.
    auths: list[tuple[str, str]]

    def encrypt(self, link: socket.socket, host: str) -> socket.socket:
        """As wire.encrypt()."""
        assert self.tls is not None
        return wire.encrypt(link, host, self.tls)


def read() -> Security:
    """Read the CONF.zookeeper.

    :raises ConfigError: they contradict each other, or a file cannot be used
    """
    user, password = CONF.zookeeper.sasl_username, CONF.zookeeper.sasl_password
    if bool(user) != bool(password):
        raise exception.ConfigError(
            "[zookeeper] sasl_username, sasl_password: one is set and the "
            "other is not. Set both, or neither"
        )
    sasl = (user, password) if user else None
    digest = CONF.zookeeper.digest
    if CONF.zookeeper.acl == "creator" and not (digest or sasl):
        raise exception.ConfigError(
            "[zookeeper] digest: acl = creator needs the user:password "
            "of the creator, or sasl_username and sasl_password"
        )
    auths = [("digest", digest)] if digest else []
    return Security(_read_tls(), sasl, auths)


def _read_tls() -> dict[str, str | None] | None:
    names = "ca_file, cert_file, key_file"
    found: dict[str, str | None]
    if CONF.zookeeper.cert:
        if CONF.zookeeper.use_ssl:
            raise exception.ConfigError(
                "[zookeeper] cert: use_ssl is set as well. Set ca_file, "
                "cert_file and key_file, and remove cert"
            )
        names = "cert"
        listed = [*CONF.zookeeper.cert.split(","), "", "", ""]
        ca, cert, key, password = listed[:4]
        found = {"ca": ca, "cert": cert, "key": key, "password": password}
    elif CONF.zookeeper.use_ssl:
        if CONF.zookeeper.key_file and not CONF.zookeeper.cert_file:
            raise exception.ConfigError(
                "[zookeeper] key_file is set and cert_file is not: set both, "
                "or neither"
            )
        found = {
            "ca": CONF.zookeeper.ca_file,
            "cert": CONF.zookeeper.cert_file,
            "key": CONF.zookeeper.key_file,
            "password": CONF.zookeeper.key_password,
        }
    else:
        for name, value in (
            ("ca_file", CONF.zookeeper.ca_file),
            ("cert_file", CONF.zookeeper.cert_file),
            ("key_file", CONF.zookeeper.key_file),
            ("key_password", CONF.zookeeper.key_password),
        ):
            if value:
                raise exception.ConfigError(
                    f"[zookeeper] {name} is set and use_ssl is not, so there "
                    "would be no TLS. Set use_ssl = true, or remove "
                    f"{name}"
                )
        return None
    tls = {name: value or None for name, value in found.items()}
    try:
        for name in ("ca", "cert", "key"):
            file = tls[name]
            if file:
                # The errors of the ssl module do not name the file.
                with open(file, "rb"):
                    pass
        wire.tls_context(tls)
    except OSError as error:
        raise exception.ConfigError(
            f"[zookeeper] {names}: {error}. Name files in PEM that this "
            "process may read: the certificate of the servers' authority, "
            "and this host's certificate with its key and the key's password"
        ) from None
    return tls
