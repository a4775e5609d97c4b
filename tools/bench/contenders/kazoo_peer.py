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

"""kazoo, with the handler for the mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kazoo import client as kazoo_client
from kazoo.recipe import watchers

from bench.contenders import base, client


def connect(where: str, session: float) -> kazoo_client.KazooClient:
    """Return a client that is connected."""
    made = _client(where, session)
    made.start(60)
    return made


def _client(where: str, session: float) -> kazoo_client.KazooClient:
    if base.is_green():
        from kazoo.handlers import eventlet as handlers

        handler = handlers.SequentialEventletHandler()
    else:
        from kazoo.handlers import threading as handlers

        handler = handlers.SequentialThreadingHandler()
    return kazoo_client.KazooClient(where, timeout=session, handler=handler)


class Kazoo(client.Client):
    """kazoo itself."""

    notes = {"join": "kazoo: an ephemeral znode, without a recipe"}

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._client = connect(where, client.SESSION)
        self._client.create(client.PATH, client.VALUE)

    def one(self, name: str) -> Callable[[], Any]:
        made = self._client
        if name == "get":
            return lambda: made.get(client.PATH)
        return lambda: made.set(client.PATH, client.VALUE)

    def pipelined(self, name: str, count: int) -> Callable[[], Any]:
        made = self._client
        if name == "get":

            def start() -> Any:
                return made.get_async(client.PATH)
        else:

            def start() -> Any:
                return made.set_async(client.PATH, client.VALUE)

        def run() -> None:
            for answer in [start() for _ in range(count)]:
                answer.get()

        return run

    def joins(self, count: int) -> list[Callable[[], Any]]:
        self._client.ensure_path("/joined")
        return [
            lambda n=number: self._client.create(
                f"/joined/node-{n}", b"", ephemeral=True
            )
            for number in range(count)
        ]

    def follow(self, path: str, changed: Callable) -> bool:
        self._client.ensure_path(path)
        watchers.ChildrenWatch(self._client, path, changed)
        return True

    def hold(self, path: str, session: float) -> bool:
        self._held = connect(self.where, session)
        self._held.create(path, b"", ephemeral=True)
        return True

    def sessions(
        self, where: str, count: int, session: float
    ) -> list[Callable[[], int | None]]:
        made = [_client(where, session) for _ in range(count)]
        for one in made:
            one.start_async()
        return [
            lambda one=one: one.client_id[0] if one.connected else None
            for one in made
        ]

    def exists(self, path: str) -> bool:
        return self._client.exists(path) is not None
