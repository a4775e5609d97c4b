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


class SessionOrder:
    """The order for one session, kept up to date with its members."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._orders = orders.Orders("zk")
        self._lock = threading.Lock()
        self._members: tuple[base.Membership, ...] = ()
        self._session: tuple[int, bytes] | None = None

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
            others = [one for one in self._members if one is not membership]
            self._session = number, convert.to_bytes(password)
            self._change(*others, membership)

    def renew(self) -> None:
        """Start the guard again if it has ended."""
        self._orders.renew()

    def remove(self, membership: base.Membership) -> None:
        """Take a member that leaves out of the order."""
        with self._lock:
            if membership in self._members:
                self._change(
                    *(one for one in self._members if one is not membership)
                )

    def _change(self, *members: base.Membership) -> None:
        before, self._members = self._members, members
        if members:
            assert self._session is not None
            number, password = self._session
            security = self._link.security
            self._orders.give(
                *members,
                apart=True,
                servers=[tuple(one) for one in self._link.address.servers],
                timeout=CONF.zookeeper.recv_timeout,
                session=number,
                password=password.ljust(16, b"\0"),
                tls=security.tls,
                sasl=security.sasl,
                folder=_library_folder() if security.sasl else None,
                auths=[
                    (scheme, secret.encode())
                    for scheme, secret in security.auths
                ],
                marks=[(self._mark(one), self._acl()) for one in members],
            )
        if before and before != members:
            self._orders.cancel(*before)

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
        self._orders.cancel_all()


def _library_folder() -> str | None:
    """Return the folder with the library for SASL."""
    found = importlib.util.find_spec("puresasl")
    if found is None or found.origin is None:
        return None
    return os.path.dirname(os.path.dirname(found.origin))
