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

"""The statements on the services table. Each function is one statement,
create() and report_many() aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from oslo_utils import uuidutils

from nova_sg.db.engine import utcnow
from nova_sg.db.models import services


class _AsStored(sa.types.UserDefinedType):
    """A column as the DBAPI gives it: whatever stands in it can be read.

    A moment that is none must not spoil the rows around it.
    """

    cache_ok = True


def _as_stored(column: sa.Column) -> sa.ColumnElement:
    return sa.type_coerce(column, _AsStored()).label(column.name)


_alive = services.c.deleted == 0

_reported = {
    "last_seen_up": utcnow(),
    "updated_at": utcnow(),
    "report_count": services.c.report_count + 1,
}

_report = (
    sa.update(services)
    .where(services.c.id == sa.bindparam("service_id"), _alive)
    .values(_reported)
)

# Without it, where the better part of a table is named, all of it would be
# read and locked. MariaDB has one name or the other.
_BY_ID = "FORCE INDEX (PRIMARY)"
_these = services.c.id.in_(sa.bindparam("service_ids", expanding=True))

_claim = (
    sa.select(services.c.id)
    .where(_these, _alive)
    .with_for_update(skip_locked=True)
    .with_hint(services, _BY_ID, "mysql")
    .with_hint(services, _BY_ID, "mariadb")
)

_report_many = (
    sa.update(services)
    .where(_these, _alive)
    .values(_reported)
    .with_hint(_BY_ID, services, "mysql")
    .with_hint(_BY_ID, services, "mariadb")
)

# See models.py: no reports since this one.
_withdraw = (
    sa.update(services)
    .where(services.c.id == sa.bindparam("service_id"), _alive)
    .values(
        report_count=0,
        last_seen_up=sa.func.coalesce(
            services.c.last_seen_up, services.c.created_at
        ),
    )
)

_observe = sa.select(
    sa.type_coerce(utcnow(), _AsStored()).label("now"),
    services.c.host,
    services.c.topic,
    services.c.binary,
    services.c.report_count,
    _as_stored(services.c.last_seen_up),
    _as_stored(services.c.created_at),
    services.c.forced_down,
    services.c.disabled,
    services.c.disabled_reason,
).where(services.c.topic == sa.bindparam("group"), _alive)


def report(connection: sa.Connection, service_id: int) -> bool:
    """Note that a service is alive, now, by the database's clock.

    :returns: whether there is such a record
    """
    return (
        connection.execute(_report, {"service_id": service_id}).rowcount > 0
    )


def report_many(
    connection: sa.Connection, service_ids: Sequence[int]
) -> list[int]:
    """Note that services are alive, as report() does, all at once.

    A row that somebody else has locked is left aside: it would keep the
    others waiting.

    :returns: whose record has been written
    """
    # Statements are transactions of their own here.
    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
    try:
        claimed = list(
            connection.execute(_claim, {"service_ids": service_ids}).scalars()
        )
        if claimed:
            connection.execute(_report_many, {"service_ids": claimed})
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        # Whatever it has begun ends with it.
        connection.invalidate()
        raise
    return claimed


def withdraw(connection: sa.Connection, service_id: int) -> None:
    """Note that a service has left."""
    connection.execute(_withdraw, {"service_id": service_id})


def observe(connection: sa.Connection, group: str) -> Sequence[Any]:
    """Return all records of a group, each with the database's clock."""
    return connection.execute(_observe, {"group": group}).all()


def groups(connection: sa.Connection) -> list[str]:
    """Return the topics that there are records of."""
    topic = services.c.topic
    query = sa.select(topic).where(_alive, topic.is_not(None)).distinct()
    return list(connection.execute(query).scalars())


def now(connection: sa.Connection) -> Any:
    """Return the database's clock: UTC."""
    return connection.execute(sa.select(utcnow())).scalar_one()


def find(
    connection: sa.Connection, host: str, group: str, binary: str
) -> int | None:
    """Return the id of a service's record: by its topic, or its binary."""
    query = (
        sa.select(services.c.id)
        .where(
            services.c.host == host,
            sa.or_(services.c.topic == group, services.c.binary == binary),
            _alive,
        )
        .order_by(sa.case((services.c.topic == group, 0), else_=1))
        .limit(1)
    )
    return connection.execute(query).scalar()


def create(
    connection: sa.Connection, host: str, group: str, binary: str
) -> int:
    """Make a record for a service, or find the one just made by another."""
    try:
        return connection.execute(
            sa.insert(services).values(
                host=host,
                topic=group,
                binary=binary,
                uuid=uuidutils.generate_uuid(),
                created_at=utcnow(),
            )
        ).inserted_primary_key[0]
    except db_exception.DBDuplicateEntry:
        return find(connection, host, group, binary)


def force_down(
    connection: sa.Connection, group: str, host: str, forced: bool
) -> bool:
    """Set or unset forced_down.

    :returns: whether there is such a record
    """
    statement = (
        sa.update(services)
        .where(services.c.topic == group, services.c.host == host, _alive)
        .values(forced_down=forced, updated_at=utcnow())
    )
    return connection.execute(statement).rowcount > 0


def forget(connection: sa.Connection, group: str, host: str) -> bool:
    """Delete a record, as Nova does: it stays, marked as deleted.

    :returns: whether there was such a record
    """
    statement = (
        sa.update(services)
        .where(services.c.topic == group, services.c.host == host, _alive)
        .values(deleted=services.c.id, deleted_at=utcnow())
    )
    return connection.execute(statement).rowcount > 0
