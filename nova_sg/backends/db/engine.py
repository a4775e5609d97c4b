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

"""Connections to the database, and error texts for operators.

Statements run in autocommit mode: each is one round trip. Every error becomes
a BackendError; PyMySQL also raises OSError, RuntimeError, AssertionError and
struct.error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc as sa_exception
from sqlalchemy.engine import default
from sqlalchemy.ext import compiler
from sqlalchemy.sql import functions

from nova_sg import exception
from nova_sg.backends.db import errors, files, forking
from nova_sg.conf import CONF

T = TypeVar("T")

# Seconds that a statement waits for another process's lock on SQLite.
SQLITE_PATIENCE = 5.0
# How many connections may be open at least: a report must not wait for the
# connection of a refresh, whatever the size of the pool.
LEAST_CONNECTIONS = 10
# Seconds within which a call is tried again, unless it is a report.
QUICK = 1.0
# Seconds from one attempt to the next: at first, and at most. A random part of
# them passes.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 4.0
# How many times longer each pause is. All processes try again while there is
# no server, so they do it seldom.
GROWTH, GROWTH_IF_LOST = 2, 4
# Connections to servers that refuse are kept open unused: how many at most,
# and for how many seconds.
ASIDE, ASIDE_FOR = 2, 30.0
# The longest text that a server makes of the records of one group. A server
# may have a lower limit (max_allowed_packet).
LONGEST_TEXT = 1 << 28
# Whether SQLAlchemy can leave ROLLBACK out in autocommit mode: since 2.0.43.
SKIPS_ROLLBACK = hasattr(default.DefaultDialect, "detect_autocommit_setting")


class utcnow(functions.FunctionElement):
    """The database's own clock: UTC, with microseconds where it has them."""

    type = sa.DateTime()
    inherit_cache = True


@compiler.compiles(utcnow)
def _utcnow(element, compiler, **kwargs):
    return "UTC_TIMESTAMP(6)"


@compiler.compiles(utcnow, "sqlite")
def _utcnow_sqlite(element, compiler, **kwargs):
    # SQLite has milliseconds; SQLAlchemy expects six digits.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


# What PyMySQL raises for parameters that it cannot use.
_OF_PARAMETERS = (
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)
# PyMySQL can be made green, and takes time-outs. Where a URL names no library
# SQLAlchemy would choose MySQLdb, whose C code stops all green threads of the
# process for as long as the server hangs.
_PYMYSQL = frozenset(
    {"mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"}
)
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})


def url() -> sa.URL:
    """Return the URL of the configured database, with its parameters.

    :raises ConfigError: it is wrong, or is that of another kind of database
        or library
    """
    connection = CONF.database.connection
    if not connection:
        return sa.URL.create(
            "sqlite",
            database=os.path.join(CONF.state_path, "nova-sg.sqlite"),
        )
    if CONF.database.backend != "sqlalchemy":
        raise exception.ConfigError(
            f"[database] backend: {CONF.database.backend} is not known. The "
            "only one is sqlalchemy, the default: leave the line out"
        )
    try:
        made = sa.make_url(connection)
        parameters = CONF.database.connection_parameters
        if parameters:
            made = made.update_query_string(parameters, append=True)
    except (sa_exception.ArgumentError, ValueError):
        # Not with the text of the error: it may contain the password.
        raise exception.ConfigError(
            "[database] connection: not the URL of a database. It should "
            "look like mysql+pymysql://USER:PASSWORD@HOST/NAME"
        ) from None
    if made.drivername not in _PYMYSQL | _SQLITE:
        raise exception.ConfigError(
            f"[database] connection: {made.drivername} is not supported. "
            "nova_sg keeps its members in MariaDB or MySQL, by PyMySQL, or "
            "in SQLite. Write mysql+pymysql://USER:PASSWORD@HOST/NAME"
        )
    for name, value in made.query.items():
        if not isinstance(value, str):
            raise exception.ConfigError(
                f"[database] connection, connection_parameters: {name} is "
                "given twice. Give it once"
            )
    if "@" in (made.host or ""):
        # The text between them is a part of the password, and was taken for
        # a part of the host.
        raise exception.ConfigError(
            "[database] connection: there is an @ too many. In the password "
            "it is written %40"
        )
    return made


class Conflict(exception.BackendError):
    """Other transactions were first; nothing was executed."""


class Database:
    """A database and the connections of this process to it."""

    def __init__(self, where: sa.URL) -> None:
        #: The URL for people: without the password, and without parameters,
        #: which may contain it.
        self.name = where.set(query={}).render_as_string(hide_password=True)
        self.is_sqlite = where.get_backend_name() == "sqlite"
        self.is_mysql = not self.is_sqlite
        if self.is_mysql:
            # SQLAlchemy has dialects of two names for the same protocol.
            # oslo.db knows the errors of one of them.
            where = where.set(drivername="mysql+pymysql")
        self.url = where
        #: Seconds to wait for a database server.
        self.timeout = max(1.0, min(10.0, CONF.service_down_time / 4))
        self._engine: sa.Engine | None = None
        # Connections to servers that refuse, and until when each is kept.
        self._aside: list[tuple[Any, float]] = []
        self._closed = False
        self._lock = threading.Lock()

    @property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, made on first use.

        :raises BackendError: it has been closed
        """
        if self._engine is None:
            with self._lock:
                if self._closed:
                    raise exception.BackendError(
                        f"the database {self.name} was closed by this process"
                    )
                if self._engine is None:
                    self._engine = self._make_engine()
        return self._engine

    def _make_engine(self) -> sa.Engine:
        arguments: dict = {}
        pool: dict = {}
        # In autocommit mode a ROLLBACK after each statement does nothing, and
        # would double the round trips.
        if SKIPS_ROLLBACK:
            pool["skip_autocommit_rollback"] = True
        if self.is_sqlite:
            # No waiting for locks inside the C library, which would block the
            # hub; run() waits instead.
            arguments["timeout"] = 0
            arguments["check_same_thread"] = False
        else:
            pool |= self._pool_options()
            # If the server hangs, the statement fails.
            arguments["connect_timeout"] = self.timeout
            arguments["read_timeout"] = self.timeout
            arguments["write_timeout"] = self.timeout
            # Only here: PyMySQL need not be there for SQLite.
            from nova_sg.backends.db import mysql

            arguments["conv"] = mysql.conversions()
        if CONF.database.connection_debug > 0:
            # As oslo.db does. The engine asks for it when it is made.
            level = logging.WARNING
            if CONF.database.connection_debug >= 50:
                level = logging.INFO
            if CONF.database.connection_debug == 100:
                level = logging.DEBUG
            logging.getLogger("sqlalchemy.engine").setLevel(level)
        # Not oslo.db's create_engine(), which takes no time-outs, and asks the
        # server before each statement whether it is there.
        engine = sa.create_engine(
            self.url,
            connect_args=arguments,
            isolation_level="AUTOCOMMIT",
            pool_recycle=CONF.database.connection_recycle_time,
            # The statement itself shows whether the connection works; a ping
            # would double the round trips.
            pool_pre_ping=False,
            **pool,
        )
        exc_filters.register_engine(engine)
        if not SKIPS_ROLLBACK:
            # The engine has a dialect of its own.
            engine.dialect.do_rollback = lambda connection: None
        if self.is_sqlite:
            sa.event.listen(engine, "connect", _set_up_sqlite)
        else:
            sa.event.listen(engine, "do_connect", self._check_files)
            sa.event.listen(engine, "do_connect", mysql.connect)
            sa.event.listen(engine, "connect", self._forget_unsent)
            sa.event.listen(engine, "connect", self._set_up_session)
            # After that of oslo.db.
            sa.event.listen(engine, "handle_error", _keep_connection)
        return engine

    def _pool_options(self) -> dict:
        """Return the size of the pool, and how long a thread waits for it."""
        size, more = CONF.database.max_pool_size, CONF.database.max_overflow
        if more is None:
            more = 0
        # 0 is no limit for one of them, and -1 for the other.
        if size > 0 and more >= 0:
            more = max(more, LEAST_CONNECTIONS - size)
        patience = self.timeout
        if CONF.database.pool_timeout is not None:
            patience = min(patience, CONF.database.pool_timeout)
        return {
            "pool_size": size,
            "max_overflow": more,
            "pool_timeout": patience,
        }

    def _check_files(self, dialect, record, arguments, keywords) -> None:
        """Raise an error before PyMySQL does something else instead."""
        found = files.unusable(self.url)
        if found:
            raise exception.BackendError(self._wrong_file(found))

    def _set_up_session(self, connection, record) -> None:
        values = [
            # A statement that waits for a lock may be executed after its
            # sender has died. So it waits no longer than its sender.
            "innodb_lock_wait_timeout = "
            f"LEAST(@@innodb_lock_wait_timeout, {int(self.timeout)})",
            # For queries.observe_together().
            "group_concat_max_len = "
            f"GREATEST(@@group_concat_max_len, {LONGEST_TEXT})",
        ]
        parameters = []
        if CONF.database.mysql_sql_mode:
            values.append("sql_mode = %s")
            parameters.append(CONF.database.mysql_sql_mode)
        if CONF.database.mysql_wsrep_sync_wait is not None:
            values.append("wsrep_sync_wait = %s")
            parameters.append(CONF.database.mysql_wsrep_sync_wait)
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION {', '.join(values)}", parameters)

    def _forget_unsent(self, connection, record) -> None:
        """Make the kernel drop data that it cannot deliver in time.

        This process waits for an answer for a limited time. Without this the
        kernel would go on sending for a quarter of an hour, also after the
        process has ended.
        """
        link = getattr(connection, "_sock", None)
        if link is not None and link.family != socket.AF_UNIX:
            # Useful, but not necessary: errors are ignored.
            with contextlib.suppress(OSError):
                link.setsockopt(
                    socket.IPPROTO_TCP,
                    socket.TCP_USER_TIMEOUT,
                    int(self.timeout * 1000),
                )

    def run(
        self,
        work: Callable[[sa.Connection], T],
        patience: float = QUICK,
    ) -> T:
        """Call a function with a connection, and return its result.

        It is called again if the connection is lost, if the server refuses or
        another transaction was first, and while the SQLite file is locked.

        :param patience: seconds within which it may be called again. The last
            attempt may take longer than that: as long as the database takes
            to answer, or `timeout`
        :raises Conflict: other transactions were first, each time
        :raises BackendError: there was no answer, or an error
        """
        begun = time.monotonic()
        # An attempt that begins later would end when the next report is due.
        patience = min(patience, self.timeout / 2)
        longest = FIRST_PAUSE
        self._close_aside(begun)
        while True:
            try:
                with self._library():
                    return self._attempt(work)
            except exception.NovaSGError:
                raise
            except Exception as error:
                pause = random.uniform(longest / 2, longest)
                until = begun + patience
                if errors.is_locked(error):
                    pause = random.uniform(0.005, 0.02)
                    until = begun + SQLITE_PATIENCE
                elif not errors.may_pass(error):
                    raise self._explained(error) from error
                if time.monotonic() + pause > until:
                    raise self._explained(error) from error
                time.sleep(pause)
                longest *= GROWTH_IF_LOST if errors.is_lost(error) else GROWTH
                longest = min(longest, LONGEST_PAUSE)

    def _attempt(self, work: Callable[[sa.Connection], T]) -> T:
        connection = self._connect()
        kept = False
        try:
            return work(connection)
        except exception.NovaSGError:
            raise
        except Exception as error:
            if self._is_answer(error) and errors.is_refusal(error):
                kept = self._set_aside(connection)
            elif not self._is_answer(error) or (
                self.is_mysql and not errors.is_about_statement(error)
            ):
                # The connection may hold the rest of an answer, which would
                # be taken for the next one. Or the error is one of this
                # server, or of the session: another may have none.
                connection.invalidate()
            raise
        finally:
            if not kept:
                if self._closed and not connection.invalidated:
                    # Otherwise it would go back to the pool.
                    connection.detach()
                connection.close()

    def _set_aside(self, connection: sa.Connection) -> bool:
        """Keep a connection to a server that refuses, for a while, unused.

        Some load balancers lead a new connection to the server with the
        fewest of them. If this one were closed, that would be this server.

        :returns: whether it is kept
        """
        if self._closed or connection.invalidated:
            return False
        # Of the driver: SQLAlchemy might ask the server before it closes it.
        link = connection.connection.dbapi_connection
        connection.detach()
        self._aside.append((link, time.monotonic() + ASIDE_FOR))
        return True

    def _close_aside(self, now: float, most: int = ASIDE) -> None:
        """Close connections to servers that refuse, of which few are kept."""
        while self._aside:
            with self._lock:
                if not self._aside or (
                    len(self._aside) <= most and self._aside[0][1] > now
                ):
                    return
                link, _ = self._aside.pop(0)
            with contextlib.suppress(Exception):
                link.close()

    def connect_anew(self) -> None:
        """Use new connections from now on."""
        self.engine.dispose()

    def outside(self) -> dict:
        """Return how the guard connects: see guard.py.

        :raises ValueError: a parameter of the URL has no valid value
        """
        dialect = self.engine.dialect
        library = "sqlite3" if self.is_sqlite else "pymysql"
        arguments, keywords = dialect.create_connect_args(self.url)
        for ours in ("check_same_thread",):
            keywords.pop(ours, None)
        spec = importlib.util.find_spec(library)
        assert spec is not None and spec.origin is not None
        return {
            "library": library,
            "folder": os.path.dirname(os.path.dirname(spec.origin)),
            "arguments": list(arguments),
            "keywords": dict(keywords),
        }

    def _library(self) -> contextlib.AbstractContextManager:
        """Return the context for calls of the database's library."""
        return forking.inside() if self.is_sqlite else contextlib.nullcontext()

    def _connect(self) -> sa.Connection:
        try:
            return self.engine.connect()
        except Exception as error:
            if self._is_answer(error):
                raise
            found = "" if self.is_sqlite else files.trouble(self.url)
            if found:
                raise exception.BackendError(
                    self._wrong_file(found)
                ) from error
            if not isinstance(error, _OF_PARAMETERS):
                raise self._unexpected(error) from error
            # PyMySQL gets the parameters of the URL unchecked.
            raise exception.BackendError(
                f"the database {self.name}: {error}; check the parameters in "
                "[database] connection"
            ) from error

    def _wrong_file(self, found: str) -> str:
        """Return the error of a file.

        :param found: the parameter, the file, and what is wrong
        """
        parameters = CONF.database.connection_parameters or ""
        option = "connection"
        if f"{found.partition(':')[0]}=" in parameters:
            option = "connection_parameters"
        return (
            f"the database {self.name}: {found}; check the files that "
            f"[database] {option} names"
        )

    def _is_answer(self, error: Exception) -> bool:
        """Whether an error comes from the database, and not from a library."""
        if isinstance(error, exception.NovaSGError):
            return True
        known = self.engine.dialect.loaded_dbapi.Error
        return isinstance(
            errors.cause(error), (known, sa_exception.SQLAlchemyError)
        )

    def _unexpected(self, error: Exception) -> exception.BackendError:
        """Explain an error of neither the database nor SQLAlchemy."""
        made = exception.as_backend_error(error, f"the database {self.name}")
        return type(made)(
            f"{made}; check [database] connection, and whether the Python "
            "driver on this host supports the server's authentication method"
        )

    def _explained(self, error: Exception) -> exception.BackendError:
        if not self._is_answer(error):
            inner = getattr(error, "inner_exception", None)
            return self._unexpected(inner or error)
        if errors.is_missing_table(error):
            text = (
                f"the database {self.name} has no services table; "
                "create it with: nova-sg db sync"
            )
        else:
            text = f"the database {self.name}: {errors.words(error)}"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            text += "; check ssl_ca in [database] connection"
        elif "wsrep_sync_wait" in text:
            text += "; check [database] mysql_wsrep_sync_wait"
        elif "sql_mode" in text:
            text += "; check [database] mysql_sql_mode"
        if self.is_sqlite and "unable to open" in str(error):
            option = "[database] connection"
            if not CONF.database.connection:
                option = "[DEFAULT] state_path"
            text += (
                "; it has to be a file in a folder that exists and can be "
                f"written to, see {option}"
            )
        if errors.is_conflict(error):
            return Conflict(text)
        return exception.BackendError(text)

    def close(self) -> None:
        """Close all connections for good; those in use after their use."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        self._close_aside(time.monotonic(), most=0)
        if engine is not None:
            with self._library():
                engine.dispose()


def _set_up_sqlite(connection, record) -> None:
    # With a write-ahead log readers do not block writers. Reports need not
    # survive a power failure.
    synchronous = "NORMAL" if CONF.database.sqlite_synchronous else "OFF"
    for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}"):
        give_up = time.monotonic() + SQLITE_PATIENCE
        while True:
            try:
                connection.execute(f"PRAGMA {pragma}")
                break
            except Exception as error:
                if not errors.is_locked(error) or time.monotonic() > give_up:
                    raise
                time.sleep(random.uniform(0.005, 0.02))


def _keep_connection(context) -> None:
    """Leave a connection open on which the server refuses: see run()."""
    if context.connection is not None and errors.is_refusal(
        context.original_exception
    ):
        context.is_disconnect = False
