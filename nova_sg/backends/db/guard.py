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

"""Withdrawing a member of the services table whose process has ended.

An order has the record's id, the number of the process's last report, when
that report was sent and answered (sent, answered: monotonic; answered is
None while there is no answer), for how many seconds after it was sent the
database may still execute it (late), and how to connect: library (pymysql or
sqlite3), its folder, and the arguments and keywords of its connect().

The record is marked as crashed only if its last report is one of this
process. Two conditions of the same statement check that. The report's number
must not be greater than the process's last one. And its age by the database's
clock must not be smaller than the time that has passed here since that
report, as a service of stock Nova may count up from a smaller number. So a
service that was started again and has reported is never marked, however late
the database executes the statement.

The database may execute a report of the process after the process has ended.
A report that a service of stock Nova writes within that time cannot be told
from it; the next report of that service can.
"""

from __future__ import annotations

import importlib
import sys
import time

#: report_count of a member whose process ended without leaving. It is far
#: below 0: reports of a service of stock Nova count up from it and must never
#: reach 0, which means that the member left.
CRASHED = -1_000_000_000

# Two clocks measure the age of a report. They may differ by SLACK seconds,
# and by DRIFT seconds in each second.
SLACK, DRIFT = 0.005, 0.0005

# Most of the time to import PyMySQL goes into this module. PyMySQL needs it
# for one method of authentication only, without TLS, when the server does not
# have the password in its cache.
_HEAVY = "cryptography"

# Nova's own column has whole seconds: times in it are rounded.
_MYSQL = """
UPDATE services SET report_count = %s WHERE id = %s AND deleted = 0
AND report_count BETWEEN 1 AND %s AND last_seen_up <=
UTC_TIMESTAMP(6) - INTERVAL %s MICROSECOND
+ INTERVAL IF(MICROSECOND(last_seen_up) = 0, 500000, 0) MICROSECOND
"""
_SQLITE = """
UPDATE services SET report_count = ? WHERE id = ? AND deleted = 0
AND report_count BETWEEN 1 AND ? AND julianday(last_seen_up) <=
julianday('now') - ? / 86400e6
"""


def withdraw(order: dict) -> bool:
    """Mark the member's record as crashed.

    :returns: whether its last report was still one of the process
    :raises Exception: whatever the database library raises
    """
    connection = _connect(order)
    try:
        last = order["answered"]
        if last is None:
            last = order["died"] + order["late"]
        passed = time.monotonic() - last
        age = max(0.0, passed * (1 - DRIFT) - SLACK)
        cursor = connection.cursor()
        cursor.execute(
            _SQLITE if order["library"] == "sqlite3" else _MYSQL,
            (CRASHED, order["id"], order["number"], int(age * 1e6)),
        )
        return cursor.rowcount > 0
    finally:
        connection.close()


def _connect(order: dict):
    name = order["library"]
    keywords = dict(order["keywords"])
    if name == "sqlite3":
        # A locked file is an error after one second; the guard tries again.
        keywords.update(timeout=1.0, isolation_level=None)
    else:
        if order["folder"] not in sys.path:
            sys.path.append(order["folder"])
        patience = max(1, min(10, int(order["patience"])))
        keywords.update(
            autocommit=True,
            connect_timeout=patience,
            read_timeout=patience,
            write_timeout=patience,
        )
    try:
        return _library(name).connect(*order["arguments"], **keywords)
    except RuntimeError:
        # This method of authentication needs the module that was left out.
        for module in list(sys.modules):
            if module.partition(".")[0] in (name, _HEAVY):
                del sys.modules[module]
        return importlib.import_module(name).connect(
            *order["arguments"], **keywords
        )


def _library(name: str):
    """Import a library without the heavy module that it rarely needs."""
    if name not in sys.modules:
        # typeshed does not know that None keeps a module from being imported.
        sys.modules.setdefault(_HEAVY, None)  # type: ignore[arg-type]
    return importlib.import_module(name)
