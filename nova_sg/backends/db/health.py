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

"""Whether a MariaDB or MySQL server takes reports, by its own status.

A server may answer every question and execute no report: it is read-only, a
donor of its cluster, blocked by a lock on all tables, or out of space.

read() asks it for its status, and needs no additional privilege. judge()
decides whether the status shows an outage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import exc as sa_exception

from nova_sg.backends.db import errors
from nova_sg.liveness.model import Limits, ServerOutage

# wsrep_local_state of a node that has all data of its cluster.
SYNCED = 4
# The fraction of the time between two questions for which a cluster has to
# hold back writes before that counts as an outage.
PAUSED = 0.5
# How many service_down_times an outage with weak evidence lasts at most.
WEAK = 2.0
# Seconds: a replica shows its lag in whole seconds.
LAG_RESOLUTION = 1.0

# What makes a server, or the sessions that begin now, read-only. MySQL has
# renamed one of them, and not every server has all.
_READ_ONLY = sa.text(
    "SHOW GLOBAL VARIABLES WHERE variable_name IN ('read_only', "
    "'innodb_read_only', 'tx_read_only', 'transaction_read_only')"
)
_WSREP = sa.text("SHOW GLOBAL STATUS LIKE 'wsrep\\_%'")
# A replica may have several sources.
_REPLICA_MARIADB = (sa.text("SHOW ALL SLAVES STATUS"),)
_REPLICA_MYSQL = (
    sa.text("SHOW REPLICA STATUS"),
    # Before 8.0.22.
    sa.text("SHOW SLAVE STATUS"),
)


def _waiting(seconds: str) -> sa.TextClause:
    # A user sees its own statements only. Reports of several members of a
    # process begin with a SELECT, see reports.py.
    return sa.text(
        f"SELECT MAX({seconds}) FROM information_schema.processlist "
        "WHERE db = DATABASE() AND command <> 'Sleep' "
        "AND id <> CONNECTION_ID() AND (info LIKE 'UPDATE services %' "
        "OR info LIKE 'SELECT services.%FOR UPDATE%')"
    )


_WAITING_MARIADB = _waiting("time_ms / 1000")
_WAITING_MYSQL = _waiting("time")


class Replica(NamedTuple):
    """A server's replication, by its own status."""

    running: bool
    #: Seconds by which it is behind; None: not known.
    lag: float | None


class Cluster(NamedTuple):
    """A node of a Galera cluster, by its own status."""

    ready: bool
    #: Its wsrep_local_state, see SYNCED.
    state: int
    #: The name of that state.
    called: str
    #: How many changes of other nodes it has received and not executed.
    waiting: int
    #: Nanoseconds for which flow control has paused it since it started.
    paused: int
    #: Identifies the node; changes each time it is started.
    node: str = ""


class Health(NamedTuple):
    """A server's status."""

    read_only: bool
    #: Its replication; None: it is no replica, or replica_known is false.
    replica: Replica | None
    #: Whether this user may ask about replication.
    replica_known: bool
    #: Its Galera cluster; None: it is not in one.
    cluster: Cluster | None
    #: Seconds for which the oldest report waits; 0: no report waits.
    waiting: float


def read(connection: sa.Connection) -> Health:
    """Ask a server for its status."""
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    replica, known = _read_replica(
        connection, _REPLICA_MARIADB if is_mariadb else _REPLICA_MYSQL
    )
    waiting = _WAITING_MARIADB if is_mariadb else _WAITING_MYSQL
    return Health(
        read_only=any(
            _is_on(value) for _, value in connection.execute(_READ_ONLY)
        ),
        replica=replica,
        replica_known=known,
        cluster=_cluster(connection),
        waiting=float(connection.execute(waiting).scalar() or 0.0),
    )


def _read_replica(
    connection: sa.Connection, statements: tuple[sa.TextClause, ...]
) -> tuple[Replica | None, bool]:
    """Return a server's replication, and whether it could be asked."""
    for statement in statements:
        try:
            rows = connection.execute(statement).mappings().all()
        except db_exception.DBConnectionError:
            raise
        except (db_exception.DBError, sa_exception.SQLAlchemyError) as error:
            if errors.number(error) == errors.NO_SUCH_STATEMENT:
                continue
            # It takes a privilege that few users have.
            return None, False
        return replica_of([dict(row) for row in rows]), True
    return None, False


def replica_of(rows: list[dict[str, Any]]) -> Replica | None:
    """Return the replication of a server; None: it has no sources.

    Its lag is the greatest one of all its sources.

    :param rows: the answer to SHOW REPLICA STATUS, a row for each source
    """
    if not rows:
        return None
    running, lags = True, []
    for row in rows:
        fields = {
            # MySQL has renamed these.
            name.lower().replace("replica", "slave"): value
            for name, value in row.items()
        }
        running = running and (
            fields.get("slave_io_running") == "Yes"
            and fields.get("slave_sql_running") == "Yes"
        )
        lags.append(
            fields.get(
                "seconds_behind_source", fields.get("seconds_behind_master")
            )
        )
    known = [lag for lag in lags if lag is not None]
    if len(known) < len(lags):
        return Replica(running, None)
    return Replica(running, float(max(known)))


def _cluster(connection: sa.Connection) -> Cluster | None:
    rows = connection.execute(_WSREP).all()
    return cluster({name.lower(): value for name, value in rows})


def cluster(status: dict[str, str]) -> Cluster | None:
    """Return the cluster by the status variables; None: it is in none."""
    state = status.get("wsrep_local_state")
    if state is None:
        # Without a cluster MariaDB has wsrep_ready and others nevertheless.
        return None
    return Cluster(
        _is_on(status.get("wsrep_ready", "ON")),
        int(state),
        status.get("wsrep_local_state_comment", ""),
        int(status.get("wsrep_local_recv_queue", 0)),
        int(status.get("wsrep_flow_control_paused_ns", 0)),
        status.get("wsrep_gcomm_uuid", ""),
    )


def _is_on(value: Any) -> bool:
    return str(value).upper() not in ("0", "OFF", "NONE")


def replication(health: Health) -> str:
    """Return how far behind a server is, as text; empty: it is no replica."""
    replica = health.replica
    if replica is None:
        return ""
    if replica.lag is None or not replica.running:
        return "its replication does not run"
    return f"{replica.lag:.0f} s behind"


def trouble(health: Health, limits: Limits) -> str:
    """Return why a server takes no reports, or is behind; empty: it is well.

    By its present status, whether members report or not.
    """
    parts = []
    replica, node = health.replica, health.cluster
    if health.read_only:
        parts.append("read-only")
        if replica is not None:
            parts.append(replication(health))
    elif replica is not None and (replica.lag or 0.0) > limits.due:
        parts.append(replication(health))
    if node is not None and not node.ready:
        parts.append(f"not ready ({node.called})")
    elif node is not None and node.state != SYNCED:
        parts.append(f"not synced with its cluster ({node.called})")
    if health.waiting >= 1.0:
        parts.append(f"reports wait in it for {health.waiting:.1f} s")
    return " and ".join(parts)


class Asked(NamedTuple):
    """A server's status, and when it was asked."""

    #: When, monotonic.
    at: float
    health: Health


def judge(
    now: Asked,
    before: Asked | None,
    since: float,
    patience: float,
    limits: Limits,
) -> ServerOutage | None:
    """Return the outage that a server's status shows; None: no outage.

    :param before: its status at the question before
    :param since: the last report of any member; the next one is overdue
    :param patience: seconds for which members wait for an answer
    """
    asked, health = now
    if health.waiting >= patience / 2:
        return ServerOutage(
            since,
            asked,
            f"reports wait in the server, for {health.waiting:.1f} s so far",
        )
    behind, replica = replication(health), health.replica
    if replica is not None:
        if replica.running and replica.lag is not None:
            lag = replica.lag
            if lag > limits.due:
                # It has all reports that are older than its lag.
                begin = max(since, asked - lag - LAG_RESOLUTION)
                what = "read-only and " if health.read_only else ""
                return ServerOutage(begin, asked, f"it is {what}{behind}")
        elif health.read_only:
            return ServerOutage(since, asked, f"it is read-only, and {behind}")
    node = health.cluster
    if node is not None:
        found = _judge_cluster(now, node, before, since, limits)
        if found is not None:
            return found
    if health.read_only and replica is None:
        if health.replica_known:
            return ServerOutage(since, asked, "it is read-only")
        # It may be a replica that is not behind.
        return _weak(since, asked, "it is read-only", limits)
    return None


def _judge_cluster(
    now: Asked,
    node: Cluster,
    before: Asked | None,
    since: float,
    limits: Limits,
) -> ServerOutage | None:
    asked = now.at
    if not node.ready:
        return ServerOutage(
            since, asked, f"its cluster node is not ready ({node.called})"
        )
    past = None if before is None else before.health.cluster
    if (
        before is not None
        # Behind a load balancer it may be another node.
        and past is not None
        and past.node == node.node
        # A pause before the last report does not count.
        and before.at >= since
    ):
        paused = (node.paused - past.paused) / 1e9
        if before.at < asked and paused >= PAUSED * (asked - before.at):
            return ServerOutage(
                before.at,
                asked,
                "the flow control of its cluster has held writes back for "
                f"{paused:.1f} s of {asked - before.at:.1f} s",
            )
    if node.state != SYNCED:
        reason = f"its cluster node is not synced ({node.called})"
        if node.waiting:
            return ServerOutage(since, asked, reason)
        # Many donors take reports all the time.
        return _weak(since, asked, reason, limits)
    return None


def _weak(
    since: float, asked: float, reason: str, limits: Limits
) -> ServerOutage | None:
    """Return an outage that is uncertain; None: it has lasted too long.

    The limit is there so that dead members are found.
    """
    if asked > since + WEAK * limits.service_down_time:
        return None
    return ServerOutage(since, asked, reason)
