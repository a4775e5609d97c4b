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
import datetime
import importlib.util
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from oslo_db import exception as db_exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import exc as sa_exception
from sqlalchemy.engine import default
from sqlalchemy.ext import compiler
from sqlalchemy.sql import functions

from nova_sg import exception
from nova_sg.backends.db import forking
from nova_sg.conf import CONF

T = TypeVar("T")

# Seconds that a statement waits for another process's lock on SQLite.
SQLITE_PATIENCE = 5.0
# How many connections a process has to a database server at most. They are
# made on demand and kept: a new one takes 15 ms of CPU time, as PyMySQL reads
# all certificates of the system.
POOL_SIZE = 10
# Whether SQLAlchemy can leave ROLLBACK out in autocommit mode: since 2.0.43.
SKIPS_ROLLBACK = hasattr(default.DefaultDialect, "detect_autocommit_setting")
# Error number of MySQL and MariaDB.
NO_SUCH_TABLE = 1146
# "running with the --read-only option", "running in read-only mode".
READ_ONLY = (1290, 1836)


class utcnow(functions.FunctionElement):
    """The database's own clock: UTC, with microseconds where it has them."""

    type = sa.DateTime()
    inherit_cache = True


@compiler.compiles(utcnow)
def _utcnow(element, compiler, **kwargs):
    return "timezone('utc', clock_timestamp())"


@compiler.compiles(utcnow, "mysql")
@compiler.compiles(utcnow, "mariadb")
def _utcnow_mysql(element, compiler, **kwargs):
    return "UTC_TIMESTAMP(6)"


@compiler.compiles(utcnow, "sqlite")
def _utcnow_sqlite(element, compiler, **kwargs):
    # SQLite has milliseconds; SQLAlchemy expects six digits.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def url() -> sa.URL:
    """Return the URL of the configured database.

    :raises ConfigError: it is wrong, or its Python driver is not installed
    """
    connection = CONF.database.connection
    if not connection:
        return sa.URL.create(
            "sqlite",
            database=os.path.join(CONF.state_path, "nova-sg.sqlite"),
        )
    try:
        made = sa.make_url(connection)
        made.get_dialect().import_dbapi()
    except ImportError as error:
        raise exception.ConfigError(
            f"[database] connection: {made.drivername} needs the Python "
            f"module {error.name}, which is not installed. For MariaDB and "
            "MySQL, write mysql+pymysql://USER:PASSWORD@HOST/NAME"
        ) from None
    except (sa_exception.ArgumentError, ValueError):
        # Not with the text of the error: it may contain the password.
        raise exception.ConfigError(
            "[database] connection: not the URL of a database. It should "
            "look like mysql+pymysql://USER:PASSWORD@HOST/NAME"
        ) from None
    if "@" in (made.host or ""):
        # The text between them is a part of the password, and was taken for
        # a part of the host.
        raise exception.ConfigError(
            "[database] connection: there is an @ too many. In the password "
            "it is written %40"
        )
    return made


class Database:
    """A database and the connections of this process to it."""

    def __init__(self, where: sa.URL) -> None:
        self.url = where
        #: The URL for people: without the password, and without parameters,
        #: which may contain it.
        self.name = where.set(query={}).render_as_string(hide_password=True)
        self.is_sqlite = where.get_backend_name() == "sqlite"
        self.is_mysql = where.get_backend_name() in ("mysql", "mariadb")
        #: Seconds to wait for a database server.
        self.timeout = max(1.0, min(10.0, CONF.service_down_time / 4))
        self._engine: sa.Engine | None = None
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
            # No connection beyond the pool's size, as it would not be kept.
            pool["pool_size"] = POOL_SIZE
            pool["max_overflow"] = 0
            pool["pool_timeout"] = self.timeout
        if self.url.drivername.endswith("+pymysql"):
            # If the server hangs, the statement fails.
            arguments["connect_timeout"] = self.timeout
            arguments["read_timeout"] = self.timeout
            arguments["write_timeout"] = self.timeout
            arguments["conv"] = _pymysql_conversions()
            if "init_command" not in self.url.query:
                # A statement that waits for a lock may be executed after its
                # sender has died. So it waits no longer than its sender.
                arguments["init_command"] = (
                    "SET SESSION innodb_lock_wait_timeout = "
                    f"LEAST(@@innodb_lock_wait_timeout, {int(self.timeout)})"
                )
        engine = sa.create_engine(
            self.url,
            connect_args=arguments,
            isolation_level="AUTOCOMMIT",
            pool_recycle=3600,
            # The statement itself shows whether the connection works; a ping
            # would double the round trips.
            pool_pre_ping=False,
            **pool,
        )
        if not SKIPS_ROLLBACK:
            # The engine has a dialect of its own.
            engine.dialect.do_rollback = lambda connection: None
        if self.is_sqlite:
            sa.event.listen(engine, "connect", _set_up_sqlite)
        elif self.url.drivername.endswith("+pymysql"):
            sa.event.listen(engine, "connect", self._forget_unsent)
        exc_filters.register_engine(engine)
        return engine

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

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Call a function with a connection, and return its result.

        It is called again if the server had closed the connection, after a
        deadlock, and while the SQLite file is locked.

        :raises BackendError: there was no answer, or an error
        """
        give_up = time.monotonic() + SQLITE_PATIENCE
        retried = False
        while True:
            begun = time.monotonic()
            try:
                with self._library(), self._connect() as connection:
                    try:
                        return work(connection)
                    except Exception as error:
                        # Behind a virtual address a read-only server may be
                        # the former primary; a new connection leads to the
                        # present one. And after an error of the library the
                        # connection may hold the rest of an answer, which
                        # would be taken for the next one.
                        if (
                            _number(error) in READ_ONLY
                            or not self._is_answer(error)
                        ):
                            connection.invalidate()
                        raise
                    finally:
                        if self._closed and not connection.invalidated:
                            # Otherwise it would go back to the pool.
                            connection.detach()
            except (
                db_exception.DBConnectionError,
                db_exception.DBDeadlock,
            ) as error:
                slow = time.monotonic() - begun > self.timeout / 2
                if retried or slow:
                    raise self._explained(error) from error
                retried = True
            except (db_exception.DBError, sa_exception.SQLAlchemyError) as e:
                if not self._is_answer(e):
                    cause = getattr(e, "inner_exception", None) or e
                    raise self._unexpected(cause) from e
                if not _is_locked(e) or time.monotonic() > give_up:
                    raise self._explained(e) from e
                time.sleep(random.uniform(0.005, 0.02))
            except exception.NovaSGError:
                raise
            except Exception as error:
                raise self._unexpected(error) from error

    def connect_anew(self) -> None:
        """Use new connections from now on."""
        self.engine.dispose()

    def outside(self) -> dict:
        """Return how the guard connects: see guard.py.

        :raises ValueError: it cannot connect
        """
        dialect = self.engine.dialect
        assert dialect.dbapi is not None
        library = dialect.dbapi.__name__
        if self.is_sqlite:
            library = "sqlite3"
        elif library != "pymysql":
            raise ValueError(f"the guard cannot use the library {library}")
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
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # The driver gets the parameters of the URL unchecked.
            raise exception.BackendError(
                f"the database {self.name}: {error}; check the parameters in "
                "[database] connection"
            ) from error
        except OSError as error:
            # It concerns files: network errors have the library's own type.
            raise exception.BackendError(
                f"the database {self.name}: "
                f"{self._missing() or exception.describe(error)}; "
                "check the files that [database] connection names"
            ) from error

    def _missing(self) -> str:
        """Return which of the files in the URL cannot be read, as text."""
        return "; ".join(
            f"{name}: cannot read {path}"
            for name, path in self.url.query.items()
            if name.startswith("ssl_")
            and isinstance(path, str)
            and os.path.isabs(path)
            and not os.access(path, os.R_OK)
        )

    def _is_answer(self, error: Exception) -> bool:
        """Whether an error comes from the database, and not from a library."""
        if isinstance(error, exception.NovaSGError):
            return True
        cause = getattr(error, "inner_exception", None) or error
        cause = getattr(cause, "orig", None) or cause
        known = self.engine.dialect.loaded_dbapi.Error
        return isinstance(cause, (known, sa_exception.SQLAlchemyError))

    def _unexpected(self, error: Exception) -> exception.BackendError:
        """Explain an error of neither the database nor SQLAlchemy."""
        made = exception.as_backend_error(error, f"the database {self.name}")
        return type(made)(
            f"{made}; check [database] connection, and whether the Python "
            "driver on this host supports the server's authentication method"
        )

    def _explained(self, error: Exception) -> exception.BackendError:
        if _is_missing_table(error):
            text = (
                f"the database {self.name} has no services table; "
                "create it with: nova-sg db sync"
            )
        else:
            orig = getattr(error, "orig", None)
            cause = getattr(error, "inner_exception", None) or orig or error
            cause = getattr(cause, "orig", None) or cause
            text = f"the database {self.name}: {_words(cause)}"
        if self.is_sqlite and "unable to open" in str(error):
            option = "[database] connection"
            if not CONF.database.connection:
                option = "[DEFAULT] state_path"
            text += (
                "; it has to be a file in a folder that exists and can be "
                f"written to, see {option}"
            )
        return exception.BackendError(text)

    def close(self) -> None:
        """Close all connections for good; those in use after their use."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            with self._library():
                engine.dispose()


def _pymysql_conversions() -> dict:
    """Return PyMySQL's conversions, with a faster one for times.

    A refresh reads three times in each record. PyMySQL parses them with a
    regular expression, which took a third of the time of a refresh.
    """
    from pymysql import converters
    from pymysql.constants import FIELD_TYPE

    def moment(text: str) -> datetime.datetime | str:
        try:
            return datetime.datetime.fromisoformat(text)
        except ValueError:
            return converters.convert_datetime(text)

    return {**converters.conversions, FIELD_TYPE.DATETIME: moment}


def _set_up_sqlite(connection, record) -> None:
    # With a write-ahead log readers do not block writers. Reports need not
    # survive a power failure.
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
        give_up = time.monotonic() + SQLITE_PATIENCE
        while True:
            try:
                connection.execute(f"PRAGMA {pragma}")
                break
            except Exception as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
                time.sleep(random.uniform(0.005, 0.02))


def _is_missing_table(error: Exception) -> bool:
    if isinstance(error, db_exception.DBNonExistentTable):
        return True
    # oslo.db does not recognise the error of MySQL and MariaDB.
    return _number(error) == NO_SUCH_TABLE


def _number(error: Exception) -> int | None:
    """Return the number that MySQL and MariaDB give an error."""
    arguments = getattr(getattr(error, "orig", None), "args", ())
    return arguments[0] if arguments else None


def _words(cause: Exception) -> str:
    # The drivers of MySQL raise (number, message).
    if len(cause.args) == 2 and isinstance(cause.args[0], int):
        return f"{cause.args[1]} (error {cause.args[0]})"
    return str(cause)


def _is_locked(error: Exception) -> bool:
    return "database is locked" in str(error)
