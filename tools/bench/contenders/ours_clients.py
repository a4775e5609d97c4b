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

"""nova_sg's clients of ZooKeeper."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bench.contenders import client
from nova_sg import evzookeeper, zookeeper
from nova_sg.evzookeeper import membership


class _Ours(client.Client):
    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._session = evzookeeper.ZKSession(
            where, 60, client.SESSION * 1000, operation_timeout=60
        )
        self._session.create(client.PATH, client.VALUE)


class EvZooKeeper(_Ours):
    """nova_sg.evzookeeper."""

    def one(self, name: str) -> Callable[[], Any]:
        session = self._session
        if name == "get":
            return lambda: session.get(client.PATH)
        return lambda: session.set(client.PATH, client.VALUE)

    def joins(self, count: int) -> list[Callable[[], Any]]:
        session = self._session
        session.ensure_path("/joined")
        return [
            lambda n=number: membership.Membership(
                session, "/joined", f"node-{n}"
            )
            for number in range(count)
        ]

    def follow(self, path: str, changed: Callable) -> bool:
        self._session.create(path, "")
        self._monitor = membership.MembershipMonitor(
            self._session, path, cb_func=changed
        )
        return True

    def hold(self, path: str, session: float) -> bool:
        self._held = evzookeeper.ZKSession(self.where, 60, int(session * 1000))
        self._held.create(path, "", flags=zookeeper.EPHEMERAL)
        return True

    def sessions(
        self, where: str, count: int, session: float
    ) -> list[Callable[[], int | None]]:
        made = [
            evzookeeper.ZKSession(where, None, int(session * 1000))
            for _ in range(count)
        ]
        return [
            lambda one=one: one.session_id if one.is_connected() else None
            for one in made
        ]

    def exists(self, path: str) -> bool:
        try:
            self._session.exists(path)
        except zookeeper.NoNodeException:
            return False
        return True


class ZooKeeper(_Ours):
    """nova_sg.zookeeper, on which nova_sg.evzookeeper is built."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._handle, _ = self._session.connected_handle(60)

    def one(self, name: str) -> Callable[[], Any]:
        handle = self._handle
        if name == "get":
            return lambda: zookeeper.get(handle, client.PATH)
        return lambda: zookeeper.set(handle, client.PATH, client.VALUE)

    def pipelined(self, name: str, count: int) -> Callable[[], Any]:
        handle = self._handle
        if name == "get":
            return lambda: _all(
                count,
                lambda done: zookeeper.aget(handle, client.PATH, None, done),
            )
        return lambda: _all(
            count,
            lambda done: zookeeper.aset(
                handle, client.PATH, client.VALUE, -1, done
            ),
        )


def _all(count: int, start: Callable) -> bool:
    done = threading.Event()
    codes: list[int] = []

    def answered(handle: int, rc: int, *value: object) -> None:
        codes.append(rc)
        if len(codes) == count:
            done.set()

    completion = zookeeper.Immediate(answered)
    for _ in range(count):
        start(completion)
    return done.wait(60) and not any(codes)
