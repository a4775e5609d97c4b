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

"""The spellings of a memcached server's address; no I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

PORT = 11211

#: What an address may be, for messages.
SPELLINGS = '"host:port", "[IPv6 address]:port" or "unix:path"'

_UNIX = re.compile(r"(?:unix:)?(/.*)|unix:(.+)")
_NETWORK = re.compile(
    r"(?:(?P<family>inet6?):)?"
    r"(?:\[(?P<quoted>[^\s\[\]/]+)\]|(?P<host>[^\s\[\]/:]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


class Address(NamedTuple):
    """Where a server listens."""

    #: "unix", or the family that its name has to have: "inet", "inet6" or
    #: "" for either.
    family: str
    #: A name or an address; of a UNIX socket the path.
    host: str
    #: 0 of a UNIX socket.
    port: int

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.host}"
        prefix = f"{self.family}:" if self.family else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{prefix}{host}:{self.port}"


def parse(text: str) -> Address:
    """Read an address.

    These name the same server: "::1" in brackets, with "inet6:" or without;
    a name in brackets or without; a path with "unix:" or without. The port
    is 11211 if there is none.

    :raises ValueError: it is no address
    """
    found = _UNIX.fullmatch(text)
    if found is not None:
        return Address("unix", found[1] or found[2], 0)
    found = _NETWORK.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an address")
    host = found["quoted"] or found["host"]
    port = int(found["port"] or PORT)
    if not 0 < port < 65536:
        raise ValueError(f"{port} is not a port")
    family = found["family"] or ""
    # An address says its family itself.
    return Address("" if ":" in host else family, host, port)
