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

"""The order to the crash guard: close the session of these members."""

from __future__ import annotations

import importlib.util
import os
import threading

from nova_sg import evzookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import connection, names
from nova_sg.conf import CONF
from nova_sg.guard import orders
from nova_sg.zookeeper import convert

# What the members of the one order have in common.
_SESSION = "session"


class SessionOrder:
    """The order for one session, kept up to date with its members."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._orders = orders.Orders("zk")
        self._lock = threading.Lock()
        self._members: set[base.Membership] = set()
        self._session: int | None = None

    def add(self, membership: base.Membership, session_id: int) -> None:
        """Order that the session in which a member is joining is closed.

        :raises ZooKeeperException: the session has already ended
        """
        if not self._orders.wanted():
            return
        number, password = self._link.session.client_id()
        if number & (1 << 64) - 1 != session_id:
            # Another session has replaced it; the member joins in that one.
            return
        with self._lock:
            if number != self._session:
                self._session = number
                self._give(number, convert.to_bytes(password))
            self._members.add(membership)
            self._orders.add(_SESSION, membership, self._mark(membership))

    def _give(self, number: int, password: bytes) -> None:
        security = self._link.security
        self._orders.give_together(
            _SESSION,
            servers=[tuple(one) for one in self._link.address.servers],
            timeout=CONF.zookeeper.recv_timeout,
            session=number,
            password=password.ljust(16, b"\0"),
            tls=security.tls,
            sasl=security.sasl,
            folder=_library_folder() if security.sasl else None,
            auths=[
                (scheme, secret.encode()) for scheme, secret in security.auths
            ],
            acl=self._acl(),
        )

    def renew(self) -> None:
        """Start the guard again if it has ended."""
        self._orders.renew()

    def remove(self, membership: base.Membership) -> None:
        """Take a member that leaves out of the order."""
        with self._lock:
            if membership not in self._members:
                return
            self._members.discard(membership)
            if self._members:
                self._orders.drop(_SESSION, membership)
            else:
                self._session = None
                self._orders.cancel(_SESSION)

    def _mark(self, one: base.Membership) -> str:
        """Return the path of a member's mark, with the chroot."""
        path = names.entry_path(
            one.group, one.host, one.binary, names.CRASHED
        )
        return self._link.address.chroot + path

    def _acl(self) -> list[tuple[int, str, str]]:
        return [
            (one["perms"], one["scheme"], one["id"])
            for one in self._link.acl or [evzookeeper.ZOO_OPEN_ACL_UNSAFE]
        ]

    def close(self) -> None:
        with self._lock:
            self._members.clear()
            self._session = None
            self._orders.cancel_all()


def _library_folder() -> str | None:
    """Return the folder with the library for SASL."""
    found = importlib.util.find_spec("puresasl")
    if found is None or found.origin is None:
        return None
    return os.path.dirname(os.path.dirname(found.origin))
