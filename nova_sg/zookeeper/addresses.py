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

"""The servers' addresses: host names resolved without blocking the hub.

Here: the text that lists the servers, and resolving the names in it. Not here:
when names are resolved (nova_sg/evzookeeper/session.py).

The C client can resolve names itself, on its I/O thread. It does so before
each attempt to connect, and if no name can be resolved it tries again without
any pause: it then takes a whole core. Addresses have no such effect.
"""

import ipaddress
import random
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from nova_sg.zookeeper import clib, convert, dispatch, offhub

_AI_ADDRCONFIG = 0x20
_NI_NUMERICHOST, _NI_NUMERICSERV = 1, 2
_SOCK_STREAM = 1
_MAX_HOST = 1025


def from_sockaddr(raw: bytes) -> str | None:
    """Return the address and the port in a struct sockaddr, as text.

    :returns: None: it is that of no TCP connection
    """
    family = int.from_bytes(raw[:2], sys.byteorder)
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return host_and_port(socket.inet_ntop(family, raw[4:8]), port)
    if family == socket.AF_INET6:
        return host_and_port(socket.inet_ntop(family, raw[8:24]), port)
    return None


def host_and_port(host: str, port: int) -> str:
    """Return a server's address as text; an IPv6 address has brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Servers(NamedTuple):
    """What the C client takes as its host argument."""

    #: host:port, without brackets.
    servers: tuple[str, ...]
    #: Begins with a slash; empty: there is none.
    chroot: str

    def for_client(self, gate: str, filler: str) -> str:
        """The host argument, in random order, with one or two more servers.

        These come last: the first attempt, and the requests that wait for
        it, are for a server.

        The C client pauses after the last entry of its list. But after each
        failure it goes two entries further. If their number is even it may
        never come to the last one: two servers that end all connections get
        thousands a second from one session.

        :param gate: is always in the list.
        :param filler: is in the list if their number would be even.
        """
        listed = random.sample(self.servers, len(self.servers))
        listed.append(gate)
        if len(listed) % 2 == 0:
            listed.append(filler)
        return ",".join(listed) + self.chroot

    @property
    def are_addresses(self) -> bool:
        """Whether there is nothing to resolve."""
        return all(_is_address(server) for server in self.servers)


def split(host: str) -> Servers:
    """Take the C client's host argument apart."""
    servers, slash, path = host.partition("/")
    return Servers(tuple(servers.split(",")), slash + path)


def _is_address(server: str) -> bool:
    try:
        ipaddress.ip_address(server.rpartition(":")[0])
    except ValueError:
        return False
    return True


def resolve(
        servers: Servers, then: Callable[[Servers, str], object]) -> None:
    """Resolve the names, in a thread of the operating system.

    Names that cannot be resolved are left out.

    :param then: called on the dispatcher with the servers by address, and the
        resolver's last error. If no name can be resolved there are no
        servers.
    :raises OSError: when no thread can be created.
    """
    library = clib.load_libc()

    def work() -> tuple[Servers, str]:
        found: dict[str, None] = {}
        error = ""
        for server in servers.servers:
            host, _, port = server.rpartition(":")
            code = _look_up(library, host, port, found)
            if code:
                reason = convert.from_bytes(
                    library.ffi.string(library.libc.gai_strerror(code)))
                error = f"{host}: {reason}"
        return servers._replace(servers=tuple(found)), error

    dispatch.start()
    offhub.run(work, lambda result: then(*result))


def _look_up(
        library: Any, host: str, port: str, found: dict[str, None]) -> int:
    """Add the addresses of a host, in the resolver's order.

    :returns: the resolver's error code; 0: there is none.
    """
    ffi, libc = library.ffi, library.libc
    first = ffi.new("struct addrinfo **")
    hints = ffi.new("struct addrinfo *")
    hints.ai_socktype = _SOCK_STREAM
    name = convert.to_bytes(host)
    code = 0
    # Without the flag for a machine that has only the loopback interface.
    for flags in _AI_ADDRCONFIG, 0:
        hints.ai_flags = flags
        code = libc.getaddrinfo(name, convert.to_bytes(port), hints, first)
        if not code:
            break
    if code:
        return code
    text = ffi.new("char[]", _MAX_HOST)
    entry = first[0]
    while entry != ffi.NULL:
        if not libc.getnameinfo(
                entry.ai_addr, entry.ai_addrlen, text, _MAX_HOST, ffi.NULL, 0,
                _NI_NUMERICHOST | _NI_NUMERICSERV):
            address = convert.from_bytes(ffi.string(text))
            found[f"{address}:{port}"] = None
        entry = entry.ai_next
    libc.freeaddrinfo(first[0])
    return 0
