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

"""The methods of a client of ZooKeeper.

If a client has no such operation, the method returns None, or False, and the
rows are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: The session timeout, in seconds, long enough for a busy machine.
SESSION = 30
#: The znode that is read and written, and its value.
PATH = "/znode"
VALUE = b"v" * 100


class Client:
    """A library, with one session.

    :param where: the server, host:port
    """

    #: Remarks about figures, by name.
    notes: dict[str, str] = {}

    def __init__(self, where: str) -> None:
        self.where = where

    def one(self, name: str) -> Callable[[], Any] | None:
        """Get or set, and wait for the answer."""
        return None

    def pipelined(self, name: str, count: int) -> Callable[[], Any] | None:
        """Get or set so many times, and then wait for all answers."""
        return None

    def joins(self, count: int) -> list[Callable[[], Any]] | None:
        """Join a group, one member a call."""
        return None

    def follow(self, path: str, changed: Callable) -> bool:
        """Make a path; have changed(names) called for its children."""
        return False

    def hold(self, path: str, session: float) -> bool:
        """Make an ephemeral znode, in a session of such a timeout."""
        return False

    def sessions(
        self, where: str, count: int, session: float
    ) -> list[Callable[[], int | None]] | None:
        """Begin so many sessions, of such a timeout.

        :returns: for each a function: its id, or None without a connection.
        """
        return None

    def exists(self, path: str) -> bool:
        """Whether a znode exists, asked in the long session."""
        raise NotImplementedError
