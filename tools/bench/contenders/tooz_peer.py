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

"""tooz: a coordinator for each member, heartbeats and groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tooz import coordination

from bench.contenders import base, client


class _Tooz(base.Contender):
    scheme: str

    notes = {
        "API()": "tooz: a coordinator made, connected and stopped",
        "report": "tooz does not wait for memcached's answer",
    }

    def __init__(self, where: str) -> None:
        self._url = self.url(where)
        self._own = self._coordinator("observer")

    def url(self, where: str) -> str:
        return (
            f"{self.scheme}://{where}?timeout=10"
            f"&membership_timeout={base.DOWN_TIME}"
        )

    def _coordinator(self, name: str) -> Any:
        made = coordination.get_coordinator(self._url, name.encode())
        made.start()
        return made

    def make_api(self) -> Any:
        made = coordination.get_coordinator(self._url, b"another")
        made.start()
        made.stop()

    def reporters(self, group: str, count: int) -> list[Callable]:
        made = []
        for host in base.names(group, count):
            coordinator = self._coordinator(host)
            coordinator.join_group_create(group.encode())
            made.append(lambda c=coordinator: c.heartbeat() is not None)
        return made

    def is_up_by_name(self, group: str, host: str) -> Callable[[], bool]:
        name = host.encode()
        members = self._members(group)
        return lambda: name in members()

    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        members = self._members(group)
        return lambda: len(members())

    def _members(self, group: str) -> Callable[[], set[bytes]]:
        return lambda: self._own.get_members(group.encode()).get()

    def observer(self, group: str, hosts: Sequence[str]) -> Callable[[], Any]:
        return self._members(group)


class Memcached(_Tooz):
    scheme = "memcached"

    def seed(self, group: str, count: int) -> list[str]:
        # Write the values of so many coordinators. To start them, each with
        # its connection, would take minutes.
        hosts = base.names(group, count)
        self._own.create_group(group.encode()).get()
        members = {host.encode(): {b"capabilities": b""} for host in hosts}
        client = self._own.client
        client.set(self._own._encode_group_id(group.encode()), members)
        for name in members:
            client.set(
                self._own._encode_member_id(name),
                self._own.STILL_ALIVE,
                expire=base.DOWN_TIME,
            )
        return hosts


def _zookeeper_url(where: str) -> str:
    url = f"zookeeper://{where}?timeout={client.SESSION}"
    return f"{url}&handler=eventlet" if base.is_green() else url


class ZooKeeper(_Tooz):
    scheme = "zookeeper"

    notes = {
        "API()": "tooz: a coordinator made, connected and stopped",
        "service_is_up, by name": "tooz asks ZooKeeper, each time",
    }

    def url(self, where: str) -> str:
        return _zookeeper_url(where)

    def seed(self, group: str, count: int) -> list[str]:
        # Without a connection for each, as with memcached.
        hosts = base.names(group, count)
        self._own.create_group(group.encode()).get()
        made = [
            self._own._coord.create_async(
                self._own._path_member(group.encode(), host.encode()),
                value=b"\xc4\x00",
                ephemeral=True,
            )
            for host in hosts
        ]
        for answer in made:
            answer.get()
        return hosts


class ZooKeeperJoins(client.Client):
    """One coordinator that joins group after group."""

    notes = {
        "join": (
            "tooz: one member joins as many groups; a second member would "
            "need a connection of its own"
        )
    }

    def joins(self, count: int) -> list[Callable[[], Any]]:
        own = coordination.get_coordinator(
            _zookeeper_url(self.where), b"member"
        )
        own.start()
        groups = [f"group{number}".encode() for number in range(count)]
        for group in groups:
            own.create_group(group).get()
        return [lambda g=group: own.join_group(g).get() for group in groups]
