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
"""[zookeeper] address: its spellings, and what the C client makes of it.

No I/O. The C client takes "host:port" with commas between them, IPv6
addresses without brackets, and a path after the last one. Of all else it says
"Invalid argument" each time it is asked to connect.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

#: The port of a server that is named without one.
PORT = 2181

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_CHROOT = re.compile(r"(/[^/,:\0]+)*")
_RIGHT = (
    "Write host:port with commas between them, [ADDRESS]:port for IPv6, and "
    "perhaps a path after the last one"
)


class Server(NamedTuple):
    """A server of the ensemble."""

    #: A name, or an address without brackets.
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Address(NamedTuple):
    """The servers, and the path below which all is kept."""

    servers: tuple[Server, ...]
    #: Begins with a slash; empty: there is none.
    chroot: str

    def __str__(self) -> str:
        return ",".join(map(str, self.servers)) + self.chroot

    @property
    def for_client(self) -> str:
        """The same for the C client."""
        return self.without_chroot + self.chroot

    @property
    def without_chroot(self) -> str:
        """The servers for the C client."""
        return ",".join(f"{one.host}:{one.port}" for one in self.servers)


def read(text: str) -> Address:
    """Read the option.

    Blanks, a comma at the end and a slash at the end do not matter, and a
    server without a port has the usual one.

    :raises ValueError: it is something else; the text says what is wrong, and
        what is right
    """
    if "://" in text:
        raise ValueError(f"{text!r} is a URL. {_RIGHT}")
    servers, slash, path = text.strip().partition("/")
    chroot = (slash + path).rstrip("/").rstrip()
    if not _CHROOT.fullmatch(chroot):
        raise ValueError(f"the path {chroot!r} is not valid. {_RIGHT}")
    names = [one.strip() for one in servers.split(",")]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ValueError(f"it names no server. {_RIGHT}")
    return Address(tuple(map(_server, names)), chroot)


def _server(text: str) -> Server:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else rest and "?"
        if not bracket:
            raise ValueError(f"{text!r} has no closing bracket. {_RIGHT}")
    elif text.count(":") > 1:
        # As the C client has it; what follows the last colon is the port.
        host, _, port = text.rpartition(":")
    else:
        host, colon, port = text.partition(":")
        if colon and not port:
            port = "?"
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(
                f"{host!r} is no IPv6 address. {_RIGHT}"
            ) from None
    elif not _NAME.fullmatch(host):
        raise ValueError(f"{text!r} is no server. {_RIGHT}")
    if port and not (port.isascii() and port.isdigit()):
        raise ValueError(f"the port in {text!r} is no number. {_RIGHT}")
    number = int(port) if port else PORT
    if not 0 < number < 65536:
        raise ValueError(f"the port in {text!r} is not 1 to 65535. {_RIGHT}")
    return Server(host, number)
