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

"""What an error of the database means: keep the connection, or try again.

The numbers are those of MariaDB and MySQL. SQLite's errors have none.
"""

from __future__ import annotations

from oslo_db import exception as db_exception
from sqlalchemy import exc as sa_exception

#: "Table '...' doesn't exist".
NO_SUCH_TABLE = 1146
#: "You have an error in your SQL syntax": later versions have the statement.
NO_SUCH_STATEMENT = 1064

# The server answers and executes nothing for now. Behind a virtual address or
# a load balancer another server may: that is found by a new connection.
_REFUSED = frozenset(
    {
        # "The table is read only": innodb_read_only, and Amazon Aurora.
        1036,
        # "WSREP has not yet prepared node for application use".
        1047,
        # "Server shutdown in progress".
        1053,
        # "running with the --read-only option".
        1290,
        # "Cannot execute statement in a READ ONLY transaction": the session
        # keeps the value that tx_read_only had when it began.
        1792,
        # "running in read-only mode", and its form for InnoDB.
        1836,
        1874,
        # "The server is currently in offline mode".
        3032,
        # Group replication: "Error on observer while running replication
        # hook", and "Plugin instructed the server to rollback".
        3100,
        3101,
    }
)
# The server takes no new connection for now: "Too many connections".
_FULL = frozenset({1040})
# Another transaction was first, here or on another node of the cluster.
_CONFLICT = frozenset(
    {
        # "Record has changed since last read".
        1020,
        # "Got error ... during COMMIT": the certification failed.
        1180,
        # "Deadlock found", "WSREP detected deadlock/conflict".
        1213,
    }
)
# They concern the statement, or the rights of the account. Another connection
# would bring the same answer.
_STATEMENT = frozenset(
    {
        # Access denied: to the database, for the account, to a table, to a
        # column, for want of a privilege.
        1044,
        1045,
        1142,
        1143,
        1227,
        # An unknown database, column, table or variable.
        1049,
        1054,
        NO_SUCH_TABLE,
        1193,
        NO_SUCH_STATEMENT,
        # "Lock wait timeout exceeded".
        1205,
    }
)


def number(error: BaseException) -> int | None:
    """Return the number that MariaDB or MySQL gives an error; None: none.

    :param error: of the driver, of SQLAlchemy or of oslo.db
    """
    arguments = getattr(cause(error), "args", ())
    found = arguments[0] if arguments else None
    return found if isinstance(found, int) else None


def cause(error: BaseException) -> BaseException:
    """Return the error of the driver that is inside an error."""
    # oslo.db's error has SQLAlchemy's in it, which has the driver's.
    found = getattr(error, "inner_exception", None) or error
    return getattr(found, "orig", None) or found


def is_refusal(error: BaseException) -> bool:
    """Whether the server is there, and executes no such statement for now."""
    return number(error) in _REFUSED


def is_lost(error: BaseException) -> bool:
    """Whether there is no connection, or no longer one that works."""
    return (
        isinstance(error, db_exception.DBConnectionError)
        and not is_refusal(error)
    ) or number(error) in _FULL


def is_conflict(error: BaseException) -> bool:
    """Whether another transaction was first, so that nothing was executed."""
    return number(error) in _CONFLICT or (
        isinstance(error, db_exception.DBDeadlock) and number(error) is None
    )


def is_about_statement(error: BaseException) -> bool:
    """Whether another connection would bring the same answer."""
    return (
        is_conflict(error)
        or number(error) in _STATEMENT
        or isinstance(
            error,
            (
                db_exception.DBDuplicateEntry,
                db_exception.DBDataError,
                # Of SQLAlchemy itself, not of the database.
                sa_exception.InvalidRequestError,
            ),
        )
    )


def may_pass(error: BaseException) -> bool:
    """Whether another attempt, soon, may succeed."""
    return (
        is_lost(error)
        or is_refusal(error)
        or is_conflict(error)
        or isinstance(error, db_exception.DBDeadlock)
    )


def is_locked(error: BaseException) -> bool:
    """Whether another process has locked the SQLite file."""
    return "database is locked" in str(error)


def is_not_understood(error: BaseException) -> bool:
    """Whether the server does not know the statement's syntax."""
    return number(error) == NO_SUCH_STATEMENT


def is_missing_table(error: BaseException) -> bool:
    """Whether there is no such table."""
    return (
        isinstance(error, db_exception.DBNonExistentTable)
        # oslo.db leaves the error of MariaDB and MySQL as it is.
        or number(error) == NO_SUCH_TABLE
    )


def words(error: BaseException) -> str:
    """Return the text of an error for operators."""
    found = cause(error)
    if number(error) is not None and len(found.args) == 2:
        return f"{found.args[1]} (error {found.args[0]})"
    return str(found)
