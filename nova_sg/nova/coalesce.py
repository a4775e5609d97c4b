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

"""Writing the heartbeats that reach one Nova process together.

Stock Nova reads and writes a record for each heartbeat, in a transaction of
its own. Here all heartbeats that reach a nova-conductor within a fifth of a
second are read by one statement and written by another. What each caller gets
is the same, and so is what the table contains afterwards.

Unusual cases are left to Nova's own code, one by one: a record that is
missing or locked, a count that has not grown, a database that does not
answer.

This module is imported after Nova's database API.
"""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from nova.db.main import api as db_api
from nova.db.main import models
from oslo_db import exception as db_exception
from oslo_log import log as logging
from oslo_utils import timeutils

from nova_sg import exception
from nova_sg.backends.db import errors, writer
from nova_sg.nova import names

names.check_imported(names.COALESCING)

LOG = logging.getLogger(__name__)

# What a heartbeat changes. Nova may send the version along at any time.
_FIELDS = {"report_count", "version"}
# With this many heartbeats a write starts at once. It is a quarter of the
# threads that serve RPC in a process of Nova by default; these threads have
# other things to do, too.
ENOUGH = 16
# Seconds after which a heartbeat that still waits is left to Nova's own code.
PATIENCE = 5.0
# How often heartbeats are written together if other transactions are first,
# and the seconds from one attempt to the next. Then Nova's own code writes
# them one by one.
TRIES, PAUSE = 3, (0.02, 0.1)

_services = models.Service.__table__
_by_id = sa.bindparam("ids", expanding=True)
# Without this hint all of the table would be read and locked if a statement
# names most of its records. MariaDB's dialect may have either name.
_HINT = "FORCE INDEX (PRIMARY)"

_claim = (
    sa.select(_services)
    .where(_services.c.id.in_(_by_id), _services.c.deleted == 0)
    # A record that another process has locked would delay the others.
    .with_for_update(skip_locked=True)
    .with_hint(_services, _HINT, "mysql")
    .with_hint(_services, _HINT, "mariadb")
)


class _Heartbeat(NamedTuple):
    report_count: int
    #: None: not given.
    version: int | None


def install() -> None:
    """Write the heartbeats of this process together from now on.

    A second call changes nothing.
    """
    if not hasattr(db_api.service_update, "_nova_sg_replaced"):
        db_api.service_update = _coalescing(db_api.service_update)


def _coalescing(stock: Callable) -> Callable:
    @functools.wraps(stock)
    def service_update(context, service_id, values):
        if _is_heartbeat(context, values):
            found = _put(context, service_id, values)
            if found is not None:
                return found
        return stock(context, service_id, values)

    replacement: Any = service_update
    replacement._nova_sg_replaced = stock
    return replacement


def _is_heartbeat(context: Any, values: Mapping) -> bool:
    return (
        # 0 means that the member leaves.
        bool(values.get("report_count"))
        and values.keys() <= _FIELDS
        and not db_api.DISABLE_DB_ACCESS
        and context.read_deleted == "no"
        # Not within a transaction of the caller.
        and getattr(context, "transaction_ctx", None) is None
    )


def _put(context: Any, service_id: int, values: Mapping) -> Any:
    """Write a heartbeat with others.

    :returns: what service_update() returns; None: Nova's own has to be called
    """
    manager = db_api.get_context_manager(context)
    key = os.getpid(), manager
    table = _tables.get(key)
    if table is None:
        table = _tables.setdefault(key, _Table(manager))
    if table.is_too_old:
        return None
    heartbeat = _Heartbeat(values["report_count"], values.get("version"))
    try:
        return table.writer.put(service_id, heartbeat)
    except exception.BackendError:
        return None


class _Table:
    """The services table of one database."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        # Whether the last write failed.
        self._trouble = False
        #: Whether the server has no SKIP LOCKED.
        self.is_too_old = False
        self.writer = writer.Writer(
            self._write, PATIENCE, pace=writer.GATHER, enough=ENOUGH
        )

    def _write(
        self, heartbeats: Mapping[int, _Heartbeat]
    ) -> dict[int, models.Service]:
        try:
            written = self._write_again(heartbeats)
        except Exception as error:
            if errors.is_not_understood(error):
                if not self.is_too_old:
                    self.is_too_old = True
                    LOG.info(
                        "The database has no SKIP LOCKED, as MariaDB has from "
                        "10.6 on and MySQL from 8.0 on: Nova writes each "
                        "heartbeat by itself"
                    )
                raise
            if not self._trouble:
                self._trouble = True
                LOG.warning(
                    "Cannot write heartbeats together: %s. Nova writes each "
                    "of them by itself",
                    error,
                )
            raise
        if self._trouble:
            self._trouble = False
            LOG.info("Heartbeats are written together again")
        return written

    def _write_again(
        self, heartbeats: Mapping[int, _Heartbeat]
    ) -> dict[int, models.Service]:
        """Write heartbeats, again if other transactions were first."""
        for left in reversed(range(TRIES)):
            try:
                return self._write_once(heartbeats)
            except db_exception.DBError as error:
                if not left or not errors.is_conflict(error):
                    raise
                time.sleep(random.uniform(*PAUSE))
        raise AssertionError("not reached")

    def _write_once(
        self, heartbeats: Mapping[int, _Heartbeat]
    ) -> dict[int, models.Service]:
        # By this host's clock, as Nova does.
        now = timeutils.utcnow()
        engine = self._manager.writer.get_engine().execution_options(
            # No transaction around the two statements: if this host, or the
            # way to it, disappeared between them, the server would keep the
            # transaction open, with the locks of all these records.
            isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            claimed = connection.execute(_claim, {"ids": list(heartbeats)})
            rows = [
                dict(row)
                for row in claimed.mappings()
                if _is_usual(row, heartbeats[row["id"]])
            ]
            for row in rows:
                row["report_count"] = heartbeats[row["id"]].report_count
                row["last_seen_up"] = row["updated_at"] = now
            if rows:
                written = connection.execute(
                    _update(rows, now),
                    # Each statement is different: to keep it would be useless.
                    execution_options={"compiled_cache": None},
                ).rowcount
                if written < len(rows):
                    # Another process has just changed some of them. Nova's
                    # own code finds out which.
                    return {}
        return {row["id"]: models.Service(**row) for row in rows}


# By process, too: a parent's may be locked for good.
_tables: dict[tuple[int, Any], _Table] = {}


def _is_usual(row: Mapping, heartbeat: _Heartbeat) -> bool:
    """Whether a heartbeat only changes the count and the times."""
    return heartbeat.report_count > row["report_count"] and (
        heartbeat.version in (None, row["version"])
    )


def _update(rows: Sequence[Mapping], now: Any) -> sa.Update:
    cases = " ".join(
        f"WHEN {row['id']:d} THEN {row['report_count']:d}" for row in rows
    )
    ids = ", ".join(f"{row['id']:d}" for row in rows)
    return (
        sa.update(_services)
        # Written into the statement, as so many parameters would double its
        # time. They are numbers, so nothing has to be quoted.
        .where(
            sa.text(f"id IN ({ids})"),
            _services.c.deleted == 0,
            sa.text(f"report_count < CASE id {cases} END"),
        )
        .values(
            last_seen_up=now,
            updated_at=now,
            report_count=sa.literal_column(f"CASE id {cases} END"),
        )
        .with_hint(_HINT, _services, "mysql")
        .with_hint(_HINT, _services, "mariadb")
    )
