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

"""The contenders: a class for each, and a module for each project.

To add a contender, add a line to KNOWN and a class with the methods of
base.Contender or of client.Client.
"""

from __future__ import annotations

from typing import NamedTuple

MARIADB = "MariaDB"
MEMCACHED = "memcached"
SQLITE = "SQLite"
ZOOKEEPER = "ZooKeeper"
# The libraries below the drivers, which have measurements of their own.
ZOOKEEPER_CLIENTS = "ZooKeeper clients"


class Entry(NamedTuple):
    """A contender whose module need not be imported yet."""

    #: Its name in the tables. The first word is the project.
    name: str
    #: The server that it uses.
    backend: str
    #: The module and the class, below this package.
    module: str
    cls: str
    #: The modules without which it cannot be measured.
    needs: tuple[str, ...] = ()
    #: Whether it is a client.Client and not a base.Contender.
    is_client: bool = False

    @property
    def is_in_nova(self) -> bool:
        """Whether it runs in Nova, stock or with nova_sg."""
        return self.module == "nova_peer"

    @property
    def key(self) -> str:
        """Its name on the command line."""
        return f"{self.name}-{self.backend}".replace(" ", "-").lower()


KNOWN = (
    Entry("nova_sg db", SQLITE, "ours", "Db"),
    Entry("nova_sg db", MARIADB, "ours", "Db"),
    Entry(
        "nova_sg conductor", MARIADB, "nova_peer", "DbTogether", ("nova",)
    ),
    Entry("nova db", MARIADB, "nova_peer", "Db", ("nova",)),
    Entry("nova_sg mc", MEMCACHED, "ours", "Mc"),
    Entry("nova mc", MEMCACHED, "nova_peer", "Mc", ("nova",)),
    Entry("tooz", MEMCACHED, "tooz_peer", "Memcached", ("tooz", "pymemcache")),
    Entry("nova_sg zk", ZOOKEEPER, "ours", "Zk"),
    Entry("tooz", ZOOKEEPER, "tooz_peer", "ZooKeeper", ("tooz", "kazoo")),
    Entry(
        "nova_sg zookeeper",
        ZOOKEEPER_CLIENTS,
        "ours_clients",
        "ZooKeeper",
        is_client=True,
    ),
    Entry(
        "nova_sg evzookeeper",
        ZOOKEEPER_CLIENTS,
        "ours_clients",
        "EvZooKeeper",
        is_client=True,
    ),
    Entry(
        "kazoo",
        ZOOKEEPER_CLIENTS,
        "kazoo_peer",
        "Kazoo",
        ("kazoo",),
        is_client=True,
    ),
    Entry(
        "tooz",
        ZOOKEEPER_CLIENTS,
        "tooz_peer",
        "ZooKeeperJoins",
        ("tooz", "kazoo"),
        is_client=True,
    ),
)
