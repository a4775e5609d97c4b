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

"""Whether a server was wiped between two refreshes of an observer.

If other programs wipe a server again and again (flush_all), an observer may
see no report of a member that is alive. So it keeps a value of its own on each
server. If that is gone with the next refresh, reports may be gone as well, and
silence in that time says nothing about members.
"""

from __future__ import annotations

import concurrent.futures
import math
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nova_sg.backends.memcached.replicas import Server
from nova_sg.conf import CONF
from nova_sg.liveness.model import Outage, ServerOutage

REASON = "another program wipes it (flush_all), which loses reports"


class _Written(NamedTuple):
    """A canary on one server."""

    request: concurrent.futures.Future
    #: Monotonic.
    at: float

    @property
    def is_there(self) -> bool:
        """Whether the server has stored it."""
        request = self.request
        return (
            request.done()
            and not request.cancelled()
            and request.exception() is None
        )


class _Group:
    """The canaries of one group."""

    def __init__(self) -> None:
        self.key = f"nova_sg:w:{secrets.token_hex(8)}"
        self.written: dict[Server, _Written] = {}
        #: When the last refresh began, monotonic.
        self.asked: float | None = None
        #: From when to when all servers were wiped, without a refresh in
        #: between that found a canary.
        self.wiped: tuple[float, float] | None = None


class Canaries:
    """The canaries of all groups that this process observes."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def key(self, group: str) -> str:
        """Return the key of the canary of this process for a group."""
        return self._groups.setdefault(group, _Group()).key

    def refreshed(
        self,
        group: str,
        asked: float,
        replicas: Iterable[Server],
        found: Mapping[Server, bool],
    ) -> Outage | None:
        """Take in which servers had the canary in a refresh.

        :param asked: when the refresh began, monotonic
        :param replicas: the servers of the group
        :param found: whether those that answered have it
        :returns: the time since the refresh before, if all servers were wiped
            in it
        """
        mine = self._groups[group]
        last, mine.asked = mine.asked, asked
        if last is None:
            # A process that refreshes once needs none.
            return None
        lifetime = 2 * math.ceil(CONF.service_down_time) + 60
        young = time.monotonic() - lifetime / 2
        all_wiped = True
        for server in replicas:
            if server not in found:
                # It may have all reports.
                all_wiped = False
                continue
            written = mine.written.get(server)
            # A younger one cannot have expired.
            if written is not None and written.at > young:
                if found[server]:
                    all_wiped = False
                    continue
                all_wiped &= written.is_there
            else:
                all_wiped = False
            mine.written[server] = _Written(
                server.set(mine.key, b"1", lifetime), time.monotonic()
            )
        if not all_wiped:
            return None
        begin = last
        if mine.wiped is not None and mine.wiped[1] >= last:
            begin = mine.wiped[0]
        mine.wiped = begin, asked
        return Outage(last, asked)

    def wiped(self, group: str, since: float) -> ServerOutage | None:
        """Return the last time in which all servers of a group were wiped.

        :param since: it has to last longer than until then, monotonic
        """
        mine = self._groups.get(group)
        if mine is None or mine.wiped is None or mine.wiped[1] <= since:
            return None
        return ServerOutage(*mine.wiped, REASON)
