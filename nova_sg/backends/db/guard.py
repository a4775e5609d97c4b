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

"""Withdrawing a member of the services table whose process is gone.

A will has the record's id, the number of the process's last report, when the
process last began to report and had its answer (sent, answered; monotonic,
None while there is none), for how many seconds after it was sent a report may
still be executed (late), and how to connect: library, pymysql or sqlite3,
arguments, keywords and, where the library is, folder.

The record is marked only while its last report is none that came after the
process's own: it has no greater number; and, as a service of stock Nova may
count on from there, the same statement compares the age that the report has
by the database's clock with the time that has passed here. So a service that
was started again, and has reported, is left alone, however late the statement
is executed.

A report that was under way when the process ended is the process's own, too,
if the database executes it afterwards. What a service of stock Nova counts on
to within that time cannot be told from it; that service's next report can.
"""

from __future__ import annotations

import importlib
import sys
import time

#: What report_count is in the record of a member whose process has ended
#: without leaving. So far from 0 that the reports of a service of stock
#: Nova, which count up, never come to 0, which is the mark of having left.
CRASHED = -1_000_000_000

# Two clocks measure the age: this is how they may differ, in seconds and as
# a part of what they measure.
SLACK, DRIFT = 0.005, 0.0005

# What most of the time to import PyMySQL goes into. It needs that for one way
# to prove a password, where neither TLS nor the server's memory helps.
_HEAVY = "cryptography"

# Nova's own column knows whole seconds, to which times are rounded.
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


def withdraw(will: dict) -> bool:
    """Mark the member's record; return whether it was still the process's.

    :raises Exception: whatever the database library raises
    """
    connection = _connect(will)
    try:
        last = will["answered"]
        if last is None:
            last = will["died"] + will["late"]
        passed = time.monotonic() - last
        age = max(0.0, passed * (1 - DRIFT) - SLACK)
        cursor = connection.cursor()
        cursor.execute(
            _SQLITE if will["library"] == "sqlite3" else _MYSQL,
            (CRASHED, will["id"], will["number"], int(age * 1e6)),
        )
        return cursor.rowcount > 0
    finally:
        connection.close()


def _connect(will: dict):
    name = will["library"]
    keywords = dict(will["keywords"])
    if name == "sqlite3":
        # Shown as a file that is locked, and tried again by whoever calls.
        keywords.update(timeout=1.0, isolation_level=None)
    else:
        if will["folder"] not in sys.path:
            sys.path.append(will["folder"])
        patience = max(1, min(10, int(will["patience"])))
        keywords.update(
            autocommit=True,
            connect_timeout=patience,
            read_timeout=patience,
            write_timeout=patience,
        )
    try:
        return _library(name).connect(*will["arguments"], **keywords)
    except RuntimeError:
        # This way of proving a password takes more.
        for module in list(sys.modules):
            if module.partition(".")[0] in (name, _HEAVY):
                del sys.modules[module]
        return importlib.import_module(name).connect(
            *will["arguments"], **keywords
        )


def _library(name: str):
    """Import a library, but not what it can nearly always do without."""
    if name not in sys.modules:
        # typeshed does not know that None keeps a module from being imported.
        sys.modules.setdefault(_HEAVY, None)  # type: ignore[arg-type]
    return importlib.import_module(name)
