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

"""python-memcached for one server: values are bytes, failures raise.

The library sends one command, waits for its answer, and turns every failure
into "not found". Here it does what takes several steps that depend on each
other, and is seldom: lists and marks that other processes change, too, and
statistics. Reports and refreshes, which many members share a round trip for,
are protocol.py's.
"""

from __future__ import annotations

import functools
import socket
from typing import Any, NoReturn

import memcache

from nova_sg.backends.memcached import protocol


class NoStatistics(Exception):
    """The server answers, but not with its statistics."""


class Client(memcache.Client):
    """The library on a connection that exists.

    It is for one thread, as the library is.
    """

    def __init__(self, link: socket.socket) -> None:
        # An address that is not used.
        super().__init__(["127.0.0.1"])
        (self.server,) = self.servers
        # The library calls it for every failure, which it then hides.
        self.server.mark_dead = functools.partial(_fail, self.server)
        self.server.connect = lambda: True
        self.server.socket = link
        self.server.buffer = b""

    def statistics(self) -> dict[str, str]:
        """Return the server's statistics.

        :raises NoStatistics: the server has none
        """
        found = {}
        self.server.send_cmd("stats")
        while (line := self.server.readline()) != b"END":
            words = line.decode("ascii", "replace").split(" ", 2)
            if words[0] == "ERROR":
                raise NoStatistics()
            if words[0] != "STAT" or len(words) < 3:
                protocol.refuse_answer(line)
            found[words[1]] = words[2]
        if "time" not in found:
            raise NoStatistics()
        return found

    def read(self, key: str, command: str = "get") -> bytes | None:
        """Return the bytes of a value; None: there is none.

        get() would unpickle or decompress a value whose flags say so, and
        fail on unknown flags; this ignores them.

        :param command: "gets" has a later cas() depend on this value
        """
        server, found = self.server, None
        server.send_cmd(f"{command} {key}")
        while (line := server.readline()) != b"END":
            words = line.split()
            if len(words) < 4 or words[0] != b"VALUE":
                protocol.refuse_answer(line)
            if command == "gets":
                self.cas_ids[words[1]] = int(words[4])
            found = server.recv(int(words[3]) + 2)[:-2]
        return found


def _fail(server: Any, reason: OSError | str) -> NoReturn:
    """Close the connection and raise what went wrong."""
    server.close_socket()
    if isinstance(reason, OSError):
        raise reason
    raise protocol.Closed("the server closed the connection")
