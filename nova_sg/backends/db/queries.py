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

"""The statements on the services table. Each function executes one.

A statement that reports or leaves has a deadline, by the clock of the server
behind the connection. If it is executed later, it changes nothing. None: it
has no deadline. See reports.py.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception
from oslo_utils import uuidutils

from nova_sg.backends.db.engine import utcnow
from nova_sg.backends.db.models import CRASHED, services


class _AsStored(sa.types.UserDefinedType):
    """A column as the DBAPI returns it, whatever value it has.

    A value that is not a valid time must not make the other rows unreadable.
    """

    cache_ok = True


def _as_stored(column: sa.Column) -> sa.ColumnElement:
    return sa.type_coerce(column, _AsStored()).label(column.name)


_alive = services.c.deleted == 0

_number = sa.bindparam("number", type_=sa.Integer)
_this = services.c.id == sa.bindparam("service_id")
# A report with a smaller number; not "left", and not "crashed".
_smaller = services.c.report_count.between(1, _number - 1)
_count_as_found = services.c.report_count == sa.bindparam("count")
_as_found = sa.and_(
    _count_as_found,
    sa.type_coerce(services.c.last_seen_up, _AsStored()).is_not_distinct_from(
        sa.bindparam("last_seen", type_=_AsStored())
    ),
)
_in_time = utcnow() <= sa.bindparam("deadline", type_=sa.DateTime())


def _reported(number: Any) -> dict:
    return {
        "last_seen_up": utcnow(),
        "updated_at": utcnow(),
        "report_count": number,
    }


# A member that has left, see models.py.
_left = {
    "report_count": 0,
    "last_seen_up": sa.func.coalesce(
        services.c.last_seen_up, services.c.created_at
    ),
}


class _Changes:
    """An update of one record, which depends on what the record contains."""

    def __init__(self, values: Mapping, smaller: Any) -> None:
        made = sa.update(services).where(_this, _alive).values(values)
        # Each without a deadline, and with one.
        self._smaller = made.where(smaller), made.where(smaller, _in_time)
        self._as_found = made.where(_as_found), made.where(_as_found, _in_time)
        self._count = (
            made.where(_count_as_found),
            made.where(_count_as_found, _in_time),
        )

    def execute(
        self,
        connection: sa.Connection,
        service_id: int,
        number: int,
        found: tuple[int, Any] | None,
        deadline: datetime.datetime | None,
    ) -> bool:
        statements = self._smaller
        parameters: dict[str, int | datetime.datetime] = {
            "service_id": service_id,
            "number": number,
        }
        if found is not None:
            parameters["count"], last_seen = found
            if isinstance(last_seen, str) and deadline is not None:
                # A zero date, which the server cannot compare with a time.
                statements = self._count
            else:
                statements = self._as_found
                parameters["last_seen"] = last_seen
        if deadline is not None:
            parameters["deadline"] = deadline
        statement = statements[deadline is not None]
        return connection.execute(statement, parameters).rowcount > 0


_report = _Changes(_reported(_number), _smaller)
_withdraw = _Changes(_left, services.c.report_count.between(1, _number))

# Without this hint all of the table would be read and locked if a statement
# names most of its records.
_BY_ID = "FORCE INDEX (PRIMARY)"

_claim = (
    sa.select(services.c.id, services.c.report_count, utcnow().label("now"))
    .where(
        services.c.id.in_(sa.bindparam("service_ids", expanding=True)), _alive
    )
    .with_for_update(skip_locked=True)
    .with_hint(services, _BY_ID, "mysql")
)

_record = sa.select(
    services.c.id,
    services.c.report_count,
    _as_stored(services.c.last_seen_up),
    utcnow().label("now"),
    services.c.host,
    services.c.topic,
).where(_alive)

_observe = sa.select(
    sa.type_coerce(utcnow(), _AsStored()).label("now"),
    services.c.id,
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

#: In the answer of observe_together(): what follows each value, what stands
#: between two records, and what stands for NULL. Characters that no value has,
#: and that no reader of a log takes for the end of a line.
VALUE_END, RECORD_END, NULL = "\x1f", "\x17", "\x15"


def _as_text() -> str:
    """Return the SQL of a record as a text, in the order of together.py."""
    values = [f"services.{services.c.id.name}"]
    for column, is_text in (
        (services.c.report_count, False),
        (services.c.host, True),
        (services.c.last_seen_up, False),
        (services.c.created_at, False),
        (services.c.forced_down, False),
        (services.c.disabled, False),
        (services.c.topic, True),
        (services.c.binary, True),
        (services.c.disabled_reason, True),
    ):
        value = f"services.`{column.name}`"
        if is_text:
            # The columns may have character sets that cannot be mixed.
            value = f"CONVERT({value} USING utf8mb4)"
        values.append(f"IFNULL({value}, '{NULL}')")
    return f"CONCAT_WS('{VALUE_END}', {', '.join(values)}, '')"


# One row. It says nothing of the order of the records.
_observe_together = (
    sa.select(
        sa.type_coerce(utcnow(), _AsStored()).label("now"),
        sa.func.count().label("number"),
        sa.type_coerce(
            sa.literal_column(
                f"GROUP_CONCAT({_as_text()} SEPARATOR '{RECORD_END}')"
            ),
            _AsStored(),
        ).label("text"),
    )
    .select_from(services)
    .where(services.c.topic == sa.bindparam("group"), _alive)
)


def report(
    connection: sa.Connection,
    service_id: int,
    number: int,
    found: tuple[int, Any] | None,
    deadline: datetime.datetime | None,
) -> bool:
    """Report that a service is alive, now, by the database's clock.

    :param number: the new report_count
    :param found: report_count and last_seen_up that the record must have;
        None: any report with a smaller number
    :returns: whether there is such a record
    """
    return _report.execute(connection, service_id, number, found, deadline)


def withdraw(
    connection: sa.Connection,
    service_id: int,
    number: int,
    found: tuple[int, Any] | None,
    deadline: datetime.datetime | None,
) -> bool:
    """Report that a service has left.

    :param number: its last report must not have a greater number
    :param found: report_count and last_seen_up that the record must have;
        None: any report with no greater number
    :returns: whether there is such a record
    """
    return _withdraw.execute(connection, service_id, number, found, deadline)


def claim(
    connection: sa.Connection, service_ids: Sequence[int]
) -> tuple[dict[int, int], datetime.datetime | None]:
    """Return report_count of records that no other process has locked.

    :returns: these by id; and the database's time, None: there is no record
    """
    rows = connection.execute(_claim, {"service_ids": service_ids}).all()
    counts = {row.id: row.report_count for row in rows}
    return counts, rows[0].now if rows else None


def report_many(
    connection: sa.Connection,
    numbers: Mapping[int, int],
    deadline: datetime.datetime | None,
) -> int:
    """Report that services are alive, as report() does, in one statement.

    :param numbers: the new report_count, by id
    :returns: how many records have been written
    """
    # Written into the statement, as so many parameters would double its time.
    # They are numbers, so nothing has to be quoted.
    ids = ", ".join(f"{service_id:d}" for service_id in numbers)
    cases = " ".join(f"WHEN {i:d} THEN {n:d}" for i, n in numbers.items())
    number = sa.literal_column(f"CASE id {cases} END", sa.Integer)
    statement = (
        sa.update(services)
        .where(
            sa.text(f"id IN ({ids})"),
            _alive,
            services.c.report_count.between(1, number - 1),
        )
        .values(_reported(number))
        .with_hint(_BY_ID, services, "mysql")
    )
    parameters = {}
    if deadline is not None:
        statement = statement.where(_in_time)
        parameters["deadline"] = deadline
    return connection.execute(
        statement,
        parameters,
        # Each statement is different: to keep it would be useless.
        execution_options={"compiled_cache": None},
    ).rowcount


def observe(connection: sa.Connection, group: str) -> Sequence[Any]:
    """Return all records of a group, each with the database's time."""
    return connection.execute(_observe, {"group": group}).all()


def observe_together(connection: sa.Connection, group: str) -> Any:
    """Return all records of a group as one text. MariaDB and MySQL only.

    :returns: a row: the database's time; how many records there are; and
        their text, see together.py
    """
    return connection.execute(_observe_together, {"group": group}).one()


def groups(connection: sa.Connection) -> list[str]:
    """Return the topics of all records."""
    topic = services.c.topic
    query = sa.select(topic).where(_alive, topic.is_not(None)).distinct()
    return list(connection.execute(query).scalars())


def now(connection: sa.Connection) -> Any:
    """Return the database's time, UTC."""
    return connection.execute(sa.select(utcnow())).scalar_one()


def read(connection: sa.Connection, service_id: int) -> Any:
    """Return the columns of a record that reports change, and the time.

    :returns: a row with id, report_count, last_seen_up, now, host and topic;
        None: there is no such record
    """
    query = _record.where(services.c.id == service_id)
    return connection.execute(query).first()


def find(
    connection: sa.Connection, host: str, group: str, binary: str
) -> Any:
    """Return a service's record, as read(): by its topic, or its binary.

    The record may be of another group. In Nova's table its host may differ in
    case.
    """
    query = (
        _record.where(
            services.c.host == host,
            sa.or_(services.c.topic == group, services.c.binary == binary),
        )
        .order_by(sa.case((services.c.topic == group, 0), else_=1))
        .limit(1)
    )
    return connection.execute(query).first()


def create(
    connection: sa.Connection, host: str, group: str, binary: str
) -> int | None:
    """Create the record of a service; return its id.

    None: another process has just created it, or the table takes it for
    another record.
    """
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
        return None


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


def note_crash(connection: sa.Connection, group: str, host: str) -> bool:
    """Mark a record as guard.py does, if the member has not left.

    :returns: whether there is such a record
    """
    statement = (
        sa.update(services)
        .where(
            *(services.c.topic == group, services.c.host == host, _alive),
            services.c.report_count > 0,
        )
        .values(report_count=CRASHED)
    )
    return connection.execute(statement).rowcount > 0


def forget(connection: sa.Connection, group: str, host: str) -> bool:
    """Delete a record as Nova does: it stays, but is marked as deleted.

    :returns: whether there was such a record
    """
    statement = (
        sa.update(services)
        .where(services.c.topic == group, services.c.host == host, _alive)
        .values(deleted=services.c.id, deleted_at=utcnow())
    )
    return connection.execute(statement).rowcount > 0
