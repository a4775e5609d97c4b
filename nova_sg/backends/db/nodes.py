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

"""The database servers behind one address, for `nova-sg doctor`.

Behind a load balancer each connection may lead to another node, with its own
clock. So several connections are opened, and each node is checked by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from oslo_utils import timeutils

from nova_sg import exception
from nova_sg.backends.db import engine, health, queries, records
from nova_sg.liveness.model import Limits

# How many connections are opened. They are open at the same time, as some load
# balancers choose the node that has the fewest.
CONNECTIONS = 8

_NAMES = sa.text("SELECT @@hostname, @@port, @@server_id")
_CLUSTER_NAME = sa.text("SHOW GLOBAL VARIABLES LIKE 'wsrep_node_name'")


class Node(NamedTuple):
    """One server."""

    #: Its name in the cluster, or that of its host.
    name: str
    port: int
    server_id: int
    #: Seconds by which its clock is ahead of this host's.
    offset: float
    health: health.Health

    def trouble(self, limits: Limits) -> str:
        """Return why it takes no reports, or is behind; empty: it is well."""
        return health.trouble(self.health, limits)

    def serves_observers(self, limits: Limits) -> bool:
        """Whether it is a replica that is not behind."""
        replica = self.health.replica
        return (
            replica is not None
            and replica.running
            and replica.lag is not None
            and replica.lag <= limits.due
        )


class Found(NamedTuple):
    """The nodes behind an address."""

    nodes: list[Node]
    #: A name for each node, all of them different.
    names: list[str]
    #: Why a connection failed; None: no connection failed.
    error: str | None


def find(url: sa.URL) -> Found:
    """Ask all nodes that several new connections lead to."""
    found: dict[tuple, Node] = {}
    errors: list[str] = []
    # Another Database, so that all connections are new.
    fresh = engine.Database(url)

    def ask(left: int) -> None:
        def work(connection: sa.Connection) -> None:
            node = _ask(connection)
            found.setdefault(node[:3], node)
            if left > 1:
                ask(left - 1)

        try:
            # Once: another attempt might lead to another node.
            fresh.run(work, patience=0)
        except exception.BackendError as error:
            errors.append(str(error))

    try:
        ask(CONNECTIONS)
    finally:
        fresh.close()
    nodes = sorted(found.values())
    return Found(nodes, _names(nodes), errors[0] if errors else None)


def _ask(connection: sa.Connection) -> Node:
    name, port, server_id = connection.execute(_NAMES).one()
    of_cluster: Any = connection.execute(_CLUSTER_NAME).first()
    begun = records.seconds(timeutils.utcnow())
    now = records.seconds(records.moment(queries.now(connection)))
    ended = records.seconds(timeutils.utcnow())
    status = health.read(connection)
    if status.cluster is not None and of_cluster is not None:
        name = of_cluster[1] or name
    return Node(name, port, server_id, now - (begun + ended) / 2, status)


def _names(nodes: list[Node]) -> list[str]:
    """Return a different name for each node."""
    names = [node.name for node in nodes]
    if len(set(names)) < len(names):
        names = [f"{node.name}:{node.port}" for node in nodes]
    if len(set(names)) < len(names):
        names = [f"{node.name} ({node.server_id})" for node in nodes]
    return names
