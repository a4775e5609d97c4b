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

"""Connections to the database, and errors that operators can read.

Statements run in autocommit mode: each is one round trip. Whatever goes wrong
becomes a BackendError: PyMySQL raises OSError, RuntimeError, AssertionError
and struct.error, too.
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
from sqlalchemy.ext import compiler
from sqlalchemy.sql import functions

from nova_sg import exception
from nova_sg.backends.db import forking
from nova_sg.conf import CONF

T = TypeVar("T")

# How long statements of this process wait for another's lock on SQLite.
SQLITE_PATIENCE = 5.0
# Connections of one process to a database server, at most; they are made when
# they are needed and kept. A new one takes 15 ms of CPU time: PyMySQL reads
# all certificates of the system, should the server speak TLS.
POOL_SIZE = 10
# MySQL's and MariaDB's error number.
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
    # SQLite knows milliseconds; SQLAlchemy reads six digits.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def url() -> sa.URL:
    """Return the URL of the database that is configured.

    :raises ConfigError: it is not a URL of a database that can be used
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
        # The text of the error may hold the URL, and so the password.
        raise exception.ConfigError(
            "[database] connection: not the URL of a database. It should "
            "look like mysql+pymysql://USER:PASSWORD@HOST/NAME"
        ) from None
    if "@" in (made.host or ""):
        # What is taken for the host begins with the end of the password.
        raise exception.ConfigError(
            "[database] connection: there is an @ too many. In the password "
            "it is written %40"
        )
    return made


class Database:
    """A database and the connections of this process to it."""

    def __init__(self, where: sa.URL) -> None:
        self.url = where
        #: The URL for people, without the password, which may be among the
        #: parameters.
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
        if self.is_sqlite:
            # The C library would wait for locks with the hub in its hands;
            # run() waits instead.
            arguments["timeout"] = 0
            arguments["check_same_thread"] = False
        else:
            # None is made for a moment only, as an overflow would be.
            pool["pool_size"] = POOL_SIZE
            pool["max_overflow"] = 0
            pool["pool_timeout"] = self.timeout
        if self.url.drivername.endswith("+pymysql"):
            # A server that hangs is a failure, not a reason to hang, too.
            arguments["connect_timeout"] = self.timeout
            arguments["read_timeout"] = self.timeout
            arguments["write_timeout"] = self.timeout
            arguments["conv"] = _pymysql_conversions()
            if "init_command" not in self.url.query:
                # A statement that waits for a lock is executed when its
                # sender may be dead: not much later than it is given up.
                arguments["init_command"] = (
                    "SET SESSION innodb_lock_wait_timeout = "
                    f"LEAST(@@innodb_lock_wait_timeout, {int(self.timeout)})"
                )
        engine = sa.create_engine(
            self.url,
            connect_args=arguments,
            isolation_level="AUTOCOMMIT",
            pool_recycle=3600,
            # The statement itself finds out whether the connection lives;
            # asking first would double the round trips.
            pool_pre_ping=False,
            skip_autocommit_rollback=True,
            **pool,
        )
        if self.is_sqlite:
            sa.event.listen(engine, "connect", _set_up_sqlite)
        elif self.url.drivername.endswith("+pymysql"):
            sa.event.listen(engine, "connect", self._forget_unsent)
        exc_filters.register_engine(engine)
        return engine

    def _forget_unsent(self, connection, record) -> None:
        """Have the kernel drop what it cannot deliver.

        After the time for which this process waits for an answer, no one
        is there to take it; and the kernel would go on sending it for a
        quarter of an hour, whether the process lives or not.
        """
        link = getattr(connection, "_sock", None)
        if link is not None and link.family != socket.AF_UNIX:
            # A help, and no reason to fail.
            with contextlib.suppress(OSError):
                link.setsockopt(
                    socket.IPPROTO_TCP,
                    socket.TCP_USER_TIMEOUT,
                    int(self.timeout * 1000),
                )

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Call work with a connection; it may be called again.

        A connection that the server has closed meanwhile, a deadlock and a
        locked SQLite file are no reason to fail at once.

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
                        # Behind a moving address a server that is read-only
                        # is the one that was in charge; connecting anew
                        # finds the one that is. And where the library
                        # stumbled, the rest of an answer may wait on the
                        # connection, to be taken for the next one.
                        if (
                            _number(error) in READ_ONLY
                            or not self._is_answer(error)
                        ):
                            connection.invalidate()
                        raise
                    finally:
                        if self._closed and not connection.invalidated:
                            # The pool would keep it.
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
        """Have whatever is asked next use a new connection."""
        self.engine.dispose()

    def outside(self) -> dict:
        """Return how another process connects: see guard.py.

        :raises ValueError: it cannot
        """
        dialect = self.engine.dialect
        assert dialect.dbapi is not None
        library = dialect.dbapi.__name__
        if self.is_sqlite:
            library = "sqlite3"
        elif library != "pymysql":
            raise ValueError(f"its guard cannot use {library}")
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
        """Be inside the database's library."""
        return forking.inside() if self.is_sqlite else contextlib.nullcontext()

    def _connect(self) -> sa.Connection:
        try:
            return self.engine.connect()
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # The driver takes the URL's parameters as they come.
            raise exception.BackendError(
                f"the database {self.name}: {error}; check the parameters in "
                "[database] connection"
            ) from error
        except OSError as error:
            # Files: trouble with the network is the library's own error.
            raise exception.BackendError(
                f"the database {self.name}: "
                f"{self._missing() or exception.describe(error)}; "
                "check the files that [database] connection names"
            ) from error

    def _missing(self) -> str:
        """Say which of the files in the URL cannot be read, if any."""
        return "; ".join(
            f"{name}: cannot read {path}"
            for name, path in self.url.query.items()
            if name.startswith("ssl_")
            and isinstance(path, str)
            and os.path.isabs(path)
            and not os.access(path, os.R_OK)
        )

    def _is_answer(self, error: Exception) -> bool:
        """Whether an error is the database's own word, and not a fault."""
        if isinstance(error, exception.NovaSGError):
            return True
        cause = getattr(error, "inner_exception", None) or error
        cause = getattr(cause, "orig", None) or cause
        known = self.engine.dialect.loaded_dbapi.Error
        return isinstance(cause, (known, sa_exception.SQLAlchemyError))

    def _unexpected(self, error: Exception) -> exception.BackendError:
        """Explain what neither the database nor SQLAlchemy has raised."""
        made = exception.as_backend_error(error, f"the database {self.name}")
        return type(made)(
            f"{made}; check [database] connection, and that the library of "
            "this host knows how the server authenticates the user"
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
        """Close all connections, for good; one in use follows after that."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            with self._library():
                engine.dispose()


def _pymysql_conversions() -> dict:
    """PyMySQL's own, with a fast one for times.

    Three times stand in each record that a look brings. PyMySQL takes them
    apart by a regular expression, which was a third of all the work.
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
    # Readers do not block writers with a write-ahead log, and a report does
    # not have to survive a power cut.
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
    # oslo.db does not know MySQL's and MariaDB's.
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
