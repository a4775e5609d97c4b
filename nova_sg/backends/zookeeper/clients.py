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

"""[zookeeper] client: which client library a process uses, and why."""

from __future__ import annotations

from typing import Any, NamedTuple

from nova_sg import exception, zookeeper
from nova_sg.backends.zookeeper import address as addresses
from nova_sg.backends.zookeeper import security
from nova_sg.conf import CONF
from nova_sg.zookeeper import clib

_OLDEST_KAZOO = 2, 10


class Client(NamedTuple):
    """A client library."""

    #: c or kazoo.
    name: str
    version: str
    #: Why it was chosen, as a clause; empty: the configuration names it.
    why: str
    #: What ZKSession takes as its client.
    transport: Any
    #: What zookeeper.init_ssl takes; None: the transport needs nothing.
    ssl_cert: str | None = None

    def __str__(self) -> str:
        library = "the C client" if self.name == "c" else "kazoo"
        why = f" ({self.why})" if self.why else ""
        return f"{library} {self.version}{why}"

    def spell(self, address: addresses.Address, chroot: bool = True) -> str:
        """Return the addresses of servers as this library reads them."""
        if self.name == "c":
            return address.for_client if chroot else address.without_chroot
        return str(address if chroot else address._replace(chroot=""))


def choose(secured: security.Security) -> Client:
    """Return the client that the options name, or one that does what they ask.

    The C client is preferred: its thread keeps the session while all of Python
    stands still.

    :raises ConfigError: the client is not installed, or cannot do it
    """
    named = CONF.zookeeper.client
    problem = _c_problem(secured)
    if named == "c" and problem:
        option, lacking = problem
        raise exception.ConfigError(
            f"[zookeeper] {option}: {lacking}. Or set [zookeeper] client = "
            "kazoo"
        )
    if named == "auto" and not problem and secured.tls:
        problem = "use_ssl", "the C client does not check the names of hosts"
    if named == "c" or (named == "auto" and not problem):
        cert = None
        if secured.tls:
            cert = ",".join(one for one in secured.tls.values() if one)
        return Client("c", clib.describe(), "", zookeeper, cert)
    why = problem[1] if problem and named == "auto" else ""
    try:
        return _kazoo(secured, why)
    except ImportError as error:
        if why:
            why = f"{why}; and "
        raise exception.ConfigError(
            f"[zookeeper] client = {named}: {why}kazoo cannot be used: "
            f"{error}. Install nova-sg[kazoo]"
        ) from None


def _c_problem(secured: security.Security) -> tuple[str, str] | None:
    """Return why the C client cannot be used, and the option that matters."""
    try:
        zookeeper.zerror(zookeeper.OK)
    except zookeeper.LibraryNotFound as error:
        return "client = c", str(error)
    if secured.sasl:
        return "sasl_username", "nova_sg has no SASL with the C client"
    if not secured.tls:
        return None
    if not hasattr(zookeeper, "init_ssl"):
        return "use_ssl", "the installed C client was built without TLS"
    for option in ("ca", "cert", "key"):
        if not secured.tls[option]:
            return (
                f"{option}_file",
                "the C client needs ca_file, cert_file and key_file",
            )
    return None


def _kazoo(secured: security.Security, why: str) -> Client:
    """:raises ImportError: it, or what SASL needs, is not installed"""
    from nova_sg.kazoo_transport import KazooTransport, Sasl

    version = KazooTransport.version
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_KAZOO:
        raise ImportError(f"kazoo {version} is older than 2.10")
    if secured.sasl:
        import puresasl  # noqa: F401
    transport = KazooTransport(
        secured.encrypt if secured.tls else None,
        Sasl(*secured.sasl) if secured.sasl else None,
    )
    return Client("kazoo", version, why, transport)
