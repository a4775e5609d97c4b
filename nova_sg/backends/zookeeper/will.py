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

"""What the crash guard is to do for the members of one session: end it."""

from __future__ import annotations

import threading

from nova_sg import evzookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import connection, names, servers
from nova_sg.conf import CONF
from nova_sg.guard import keeper
from nova_sg.zookeeper import convert


class Will:
    """Kept up to date with the session, and with who joined in it."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._wills = keeper.Wills("zk")
        self._lock = threading.Lock()
        self._members: tuple[base.Membership, ...] = ()
        self._session: tuple[int, bytes] | None = None

    def add(self, membership: base.Membership, session_id: int) -> None:
        """Have the session ended that a member is about to join in.

        :raises ZooKeeperException: it is gone already
        """
        if not self._wills.wanted():
            return
        if CONF.zookeeper.cert:
            self._wills.impossible(
                "its guard has no TLS, which [zookeeper] cert asks for"
            )
            return
        number, password = self._link.session.client_id()
        if number & (1 << 64) - 1 != session_id:
            # Replaced meanwhile; the member joins in the next one.
            return
        with self._lock:
            others = [one for one in self._members if one is not membership]
            self._session = number, convert.to_bytes(password)
            self._change(*others, membership)

    def renew(self) -> None:
        """See to it that there is somebody to do it."""
        self._wills.renew()

    def remove(self, membership: base.Membership) -> None:
        """Do nothing about a member that leaves."""
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
            digest = CONF.zookeeper.digest
            self._wills.entrust(
                *members,
                apart=True,
                servers=_addresses(self._link.address),
                timeout=CONF.zookeeper.recv_timeout,
                session=number,
                password=password.ljust(16, b"\0"),
                auths=[("digest", digest.encode())] if digest else [],
                marks=[(self._mark(one), self._acl()) for one in members],
            )
        if before and before != members:
            self._wills.revoke(*before)

    def _mark(self, one: base.Membership) -> str:
        """Return the path of a member's mark, from the very root."""
        _, slash, chroot = self._link.address.partition("/")
        path = names.entry_path(
            one.group, one.host, one.binary, names.CRASHED
        )
        return (slash + chroot).rstrip("/") + path

    def _acl(self) -> list[tuple[int, str, str]]:
        return [
            (one["perms"], one["scheme"], one["id"])
            for one in self._link.acl or [evzookeeper.ZOO_OPEN_ACL_UNSAFE]
        ]

    def close(self) -> None:
        self._wills.revoke_all()


def _addresses(address: str) -> list[tuple[str, int]]:
    found = []
    for server in servers.addresses(address):
        host, _, port = server.rpartition(":")
        found.append((host.strip("[]"), int(port)))
    return found
