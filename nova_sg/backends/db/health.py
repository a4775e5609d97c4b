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

"""Whether a database server takes reports, by its own account.

A server may answer every question and execute no report: it is read-only, a
donor of its cluster, held by a lock on all tables, or out of space. Here it
is asked, and what it says is weighed. For MariaDB and MySQL.

read() asks, and takes no privilege but the user's own; judge() weighs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy import exc as sa_exception

from nova_sg.liveness.model import Limits, ServerOutage

# wsrep_local_state of a node that has all that the others have.
SYNCED = 4
# Of so much of the time between two asks a cluster holds writes back before
# that counts.
PAUSED = 0.5
# So many service_down_times weak evidence excuses at most.
WEAK = 2.0
# A replica shows its lag in whole seconds.
LAG_RESOLUTION = 1.0

# "You have an error in your SQL syntax": the statement is of later versions.
_NO_SUCH_STATEMENT = 1064

_READ_ONLY = sa.text("SELECT @@global.read_only")
_WSREP = sa.text("SHOW GLOBAL STATUS LIKE 'wsrep\\_%'")
# A replica may have several sources.
_REPLICA_MARIADB = (sa.text("SHOW ALL SLAVES STATUS"),)
_REPLICA_MYSQL = (
    sa.text("SHOW REPLICA STATUS"),
    # Before 8.0.22.
    sa.text("SHOW SLAVE STATUS"),
)


def _waiting(seconds: str) -> sa.TextClause:
    # A user sees its own statements. Reports of several members of a process
    # begin with a SELECT, see reports.py.
    return sa.text(
        f"SELECT MAX({seconds}) FROM information_schema.processlist "
        "WHERE db = DATABASE() AND command <> 'Sleep' "
        "AND id <> CONNECTION_ID() AND (info LIKE 'UPDATE services %' "
        "OR info LIKE 'SELECT services.%FOR UPDATE%')"
    )


_WAITING_MARIADB = _waiting("time_ms / 1000")
_WAITING_MYSQL = _waiting("time")


class Replica(NamedTuple):
    """What a server says of its replication."""

    running: bool
    #: Seconds by which it is behind; None: it does not say.
    lag: float | None


class Cluster(NamedTuple):
    """What a node says of its Galera cluster."""

    ready: bool
    #: See SYNCED.
    state: int
    #: What the state is called.
    called: str
    #: Changes of other nodes that it has received and not executed.
    waiting: int
    #: Nanoseconds for which flow control has paused it, since it started.
    paused: int
    #: Another one for each start of each node.
    node: str = ""


class Health(NamedTuple):
    """What a server says of itself."""

    read_only: bool
    #: The replication; None: it is no replica, or see below.
    replica: Replica | None
    #: Whether this user may ask about replication.
    replica_known: bool
    #: The Galera cluster; None: it is in none.
    cluster: Cluster | None
    #: Seconds for which the oldest report waits; 0: none does.
    waiting: float


def read(connection: sa.Connection) -> Health:
    """Ask a server."""
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    replica, known = _read_replica(
        connection, _REPLICA_MARIADB if is_mariadb else _REPLICA_MYSQL
    )
    waiting = _WAITING_MARIADB if is_mariadb else _WAITING_MYSQL
    return Health(
        read_only=_is_on(connection.execute(_READ_ONLY).scalar()),
        replica=replica,
        replica_known=known,
        cluster=_cluster(connection),
        waiting=float(connection.execute(waiting).scalar() or 0.0),
    )


def _read_replica(
    connection: sa.Connection, statements: tuple[sa.TextClause, ...]
) -> tuple[Replica | None, bool]:
    """Return what the server says of its replication, and whether it does."""
    for statement in statements:
        try:
            rows = connection.execute(statement).mappings().all()
        except db_exception.DBConnectionError:
            raise
        except (db_exception.DBError, sa_exception.SQLAlchemyError) as error:
            if _number(error) == _NO_SUCH_STATEMENT:
                continue
            # A privilege that few users have.
            return None, False
        return replica_of([dict(row) for row in rows]), True
    return None, False


def _number(error: Exception) -> int | None:
    cause = getattr(error, "inner_exception", None) or error
    arguments = getattr(getattr(cause, "orig", cause), "args", ())
    return arguments[0] if arguments else None


def replica_of(rows: list[dict[str, Any]]) -> Replica | None:
    """Return what is said of a server's sources; None: it has none.

    It is as far behind as it is behind any of them.
    """
    if not rows:
        return None
    running, lags = True, []
    for row in rows:
        said = {
            # MySQL's new names.
            name.lower().replace("replica", "slave"): value
            for name, value in row.items()
        }
        running = running and (
            said.get("slave_io_running") == "Yes"
            and said.get("slave_sql_running") == "Yes"
        )
        lags.append(
            said.get(
                "seconds_behind_source", said.get("seconds_behind_master")
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
    """Return what status variables say of a cluster; None: it is in none."""
    state = status.get("wsrep_local_state")
    if state is None:
        # MariaDB has wsrep_ready and others without any cluster.
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
    """Say how far behind a server is; empty: it is no replica."""
    replica = health.replica
    if replica is None:
        return ""
    if replica.lag is None or not replica.running:
        return "its replication does not run"
    return f"{replica.lag:.0f} s behind"


def trouble(health: Health, limits: Limits) -> str:
    """Say why a server takes no reports, or is behind; empty: all is well.

    As it is now, whether members report or not.
    """
    words = []
    replica, node = health.replica, health.cluster
    if health.read_only:
        words.append("read-only")
        if replica is not None:
            words.append(replication(health))
    elif replica is not None and (replica.lag or 0.0) > limits.due:
        words.append(replication(health))
    if node is not None and not node.ready:
        words.append(f"not ready ({node.called})")
    elif node is not None and node.state != SYNCED:
        words.append(f"not synced with its cluster ({node.called})")
    if health.waiting >= 1.0:
        words.append(f"reports wait in it for {health.waiting:.1f} s")
    return " and ".join(words)


class Asked(NamedTuple):
    """What a server said, and when it was asked."""

    #: Monotonic.
    at: float
    health: Health


def judge(
    now: Asked,
    before: Asked | None,
    since: float,
    patience: float,
    limits: Limits,
) -> ServerOutage | None:
    """Return the outage that a server tells of.

    :param before: what it said when it was asked before
    :param since: the last report of any member; there should be later ones
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
                # What was written before that, it has.
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
        # It may be a replica that has all there is.
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
        # Before the last report it may have been paused, too.
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
        # Many a donor takes reports all the time.
        return _weak(since, asked, reason, limits)
    return None


def _weak(
    since: float, asked: float, reason: str, limits: Limits
) -> ServerOutage | None:
    """Return an outage that may be none: dead members have to be found."""
    if asked > since + WEAK * limits.service_down_time:
        return None
    return ServerOutage(since, asked, reason)
