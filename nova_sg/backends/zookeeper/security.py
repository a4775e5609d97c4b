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

_FILES = ("ca_file", "cert_file", "key_file", "key_password")


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
    """Read the options.

    :raises ConfigError: they contradict each other, or a file cannot be used
    """
    options = CONF.zookeeper
    if bool(options.sasl_username) != bool(options.sasl_password):
        raise exception.ConfigError(
            "[zookeeper] sasl_username, sasl_password: one is set and the "
            "other is not. Set both, or neither"
        )
    sasl = None
    if options.sasl_username:
        sasl = options.sasl_username, options.sasl_password
    if options.acl == "creator" and not (options.digest or sasl):
        raise exception.ConfigError(
            "[zookeeper] digest: acl = creator needs the user:password "
            "of the creator, or sasl_username and sasl_password"
        )
    auths = [("digest", options.digest)] if options.digest else []
    return Security(_read_tls(), sasl, auths)


def _read_tls() -> dict[str, str | None] | None:
    options = CONF.zookeeper
    names = "ca_file, cert_file, key_file"
    found: dict[str, str | None]
    if options.cert:
        if options.use_ssl:
            raise exception.ConfigError(
                "[zookeeper] cert: use_ssl is set as well. Set ca_file, "
                "cert_file and key_file, and remove cert"
            )
        names = "cert"
        ca, cert, key, password = [*options.cert.split(","), "", "", ""][:4]
        found = {"ca": ca, "cert": cert, "key": key, "password": password}
    elif options.use_ssl:
        if options.key_file and not options.cert_file:
            raise exception.ConfigError(
                "[zookeeper] key_file is set and cert_file is not: set both, "
                "or neither"
            )
        found = {
            "ca": options.ca_file,
            "cert": options.cert_file,
            "key": options.key_file,
            "password": options.key_password,
        }
    else:
        for name in _FILES:
            if options[name]:
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
