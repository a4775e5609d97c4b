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

"""The locks and notes of groups: a small table of nova_sg's own.

The table is made when it is needed first, also in Nova's database, where it
concerns no table of Nova's. A lock ends by the clock of the database.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from oslo_db import exception as db_exception
from sqlalchemy.dialects import mysql
from sqlalchemy.ext import compiler
from sqlalchemy.sql import functions

from nova_sg import exception
from nova_sg.backends.base import Lock
from nova_sg.backends.db.engine import utcnow
from nova_sg.backends.db.models import locks

T = TypeVar("T")

_LOCK, _NOTE = "lock", "note"


class _later(functions.FunctionElement):
    """The database's time, and seconds more: UTC."""

    type = sa.DateTime()
    inherit_cache = True


@compiler.compiles(_later)
def _later_mysql(element, compiler, **kwargs):
    seconds = compiler.process(element.clauses, **kwargs)
    return f"UTC_TIMESTAMP(6) + INTERVAL {seconds} SECOND"


@compiler.compiles(_later, "sqlite")
def _later_sqlite(element, compiler, **kwargs):
    seconds = compiler.process(element.clauses, **kwargs)
    return (
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', "
        f"{seconds} || ' seconds')"
    )


class Locks:
    """The locks and notes of one database.

    :param name: the database, for people
    :param run: calls a function with a connection, as engine.Database.run
    """

    def __init__(
        self, name: str, run: Callable[[Callable[[sa.Connection], Any]], Any]
    ) -> None:
        self._name = name
        self._run = run
        self._there = False

    def acquire(self, group: str, holder: str, seconds: float) -> Lock:
        """As Driver.acquire()."""
        return self._in_table(lambda c: _acquire(c, group, holder, seconds))

    def release(self, group: str, holder: str) -> None:
        """As Driver.release()."""
        statement = (
            sa.update(locks)
            .where(*_is(_LOCK, group), locks.c.holder == holder)
            .values(holder="", expires=utcnow())
        )
        self._in_table(lambda c: c.execute(statement))

    def read_note(self, group: str) -> str:
        """As Driver.read_note(); makes no table."""
        if not self._exists():
            return ""
        query = sa.select(locks.c.note).where(*_is(_NOTE, group))
        return self._in_table(lambda c: c.execute(query).scalar()) or ""

    def write_note(self, group: str, text: str) -> None:
        """As Driver.write_note()."""
        self._in_table(lambda c: _write_note(c, group, text))

    def _exists(self) -> bool:
        if not self._there:
            self._there = self._run(
                lambda c: sa.inspect(c).has_table(locks.name)
            )
        return self._there

    def _in_table(self, work: Callable[[sa.Connection], T]) -> T:
        if not self._exists():
            self._create()
        try:
            return self._run(work)
        except exception.BackendError:
            # It may have been dropped.
            self._there = False
            raise

    def _create(self) -> None:
        statement = sa.schema.CreateTable(locks, if_not_exists=True)
        try:
            self._run(lambda c: c.execute(statement))
        except exception.BackendError as error:
            text = str(statement.compile(dialect=mysql.dialect()))
            raise exception.BackendError(
                f"{error}. The table {locks.name} is needed for locks and "
                f"pauses of actions, and cannot be made in {self._name}. "
                "Have an administrator make it once, and grant SELECT, "
                f"INSERT and UPDATE on it: {' '.join(text.split())}"
            ) from error
        self._there = True


def _is(kind: str, group: str) -> tuple:
    return locks.c.kind == kind, locks.c.topic == group


def _acquire(
    connection: sa.Connection, group: str, holder: str, seconds: float
) -> Lock:
    this = _is(_LOCK, group)
    change = (
        sa.update(locks)
        .where(*this)
        .values(holder=holder, expires=_later(sa.literal(seconds, sa.Float)))
    )
    renewed = connection.execute(change.where(locks.c.holder == holder))
    if renewed.rowcount:
        return Lock(holder, renewed=True)
    over = locks.c.expires <= utcnow()
    query = sa.select(locks.c.holder, over.label("over")).where(*this)
    found = connection.execute(query).first()
    if found is None:
        try:
            connection.execute(
                sa.insert(locks).values(
                    kind=_LOCK,
                    topic=group,
                    holder=holder,
                    expires=_later(sa.literal(seconds, sa.Float)),
                )
            )
        except db_exception.DBDuplicateEntry:
            # Another process was faster.
            return Lock(connection.execute(query).first().holder)
        # The first one ever, or the row was lost.
        return Lock(holder)
    if found.holder and not found.over:
        return Lock(found.holder)
    # Only if no other process has taken it meanwhile.
    change = change.where(locks.c.holder == found.holder)
    if found.holder:
        change = change.where(over)
    if connection.execute(change).rowcount:
        return Lock(holder, clean=not found.holder)
    return Lock(connection.execute(query).first().holder)


def _write_note(connection: sa.Connection, group: str, text: str) -> None:
    change = sa.update(locks).where(*_is(_NOTE, group)).values(note=text)
    if connection.execute(change).rowcount:
        return
    try:
        connection.execute(
            sa.insert(locks).values(
                kind=_NOTE, topic=group, holder="", note=text
            )
        )
    except db_exception.DBDuplicateEntry:
        connection.execute(change)
