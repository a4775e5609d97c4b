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

"""Reports with a number and a deadline.

A statement may wait in a socket buffer, at a proxy or in the server while its
sender dies. If it is executed after that, it must not count. So:

* Each attempt to report has a number, which becomes report_count. It is
  executed only if report_count is a smaller number. 0 (left) and CRASHED are
  not numbers of reports, so a late report undoes neither. A member leaves only
  if report_count is not greater than the number of its own last report.
* Each statement has a deadline, by the clock of the server that the
  connection leads to: the time for which its sender waits for the answer.
  That clock is read once for a connection, and again every CLOCK_LIFE seconds.

A member knows its next number, so a report is one statement. If the statement
changes nothing, then another process wrote the record, the clock was set, or
the report came too late. The record and the clock are read, and the report is
tried again at once.

A process that joins reads the record, and continues with a number that is
greater than all before. A record that says "left" or "crashed" has no number,
but the time of its last report. Numbers start at the time, in seconds, and
grow by one with each attempt, so they are never ahead of the time. A record
without any report starts at 1.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from nova_sg import exception
from nova_sg.backends import clock
from nova_sg.backends.db import queries

# How often a statement is tried. A second try succeeds with what was read
# after the first, unless another process writes to the same record.
TRIES = 3
# Seconds after which the server's clock is read again.
CLOCK_LIFE = 600.0
# The greatest number: report_count is an INT.
GREATEST = 2**31 - 1
# Numbers that are times count the seconds from this moment.
ZERO = datetime.datetime(2020, 1, 1)
_EPOCH = datetime.datetime(1970, 1, 1)


class Stored(NamedTuple):
    """The columns of a record that reports change, as they are stored."""

    number: int
    #: Whatever value the database returns.
    last_seen: Any

    @property
    def left(self) -> bool:
        """Whether the member has left."""
        return self.number == 0 and self.last_seen is not None


class Record:
    """A member's record, as the member's process knows it."""

    def __init__(self, service_id: int) -> None:
        self.id = service_id
        #: The number of the last attempt.
        self.number = 0
        # What the record must contain for the next statement; None: any
        # report with a smaller number.
        self.found: Stored | None = Stored(0, None)

    def adopt(self, stored: Stored, now: datetime.datetime) -> None:
        """Continue from what the record contains.

        :param now: the database's time
        """
        if 0 < stored.number <= self.number:
            # The last report is one of this process.
            self.found = None
            return
        self.found = stored
        if stored == (0, None):
            self.number = 0
            return
        number = max(self.number, stored.number, _number(now) - 1)
        last_seen = _moment(stored.last_seen)
        if last_seen is not None:
            number = max(number, _number(last_seen))
        if number >= GREATEST // 2:
            # It was not written by nova_sg, or a clock was wrong by decades.
            number = max(0, _number(now) - 1)
        self.number = number


def record(row: Any) -> Record:
    """Return the Record for a row that was read.

    :param row: with the columns of queries.find()
    """
    made = Record(row.id)
    made.adopt(Stored(row.report_count, row.last_seen_up), row.now)
    return made


def report(
    connection: sa.Connection, member: Record, patience: float
) -> bool:
    """Report that a member is alive, now, by the database's clock.

    :param patience: seconds for which the caller waits for the answer
    :returns: whether there is such a record
    :raises BackendError: the database has executed no attempt
    """
    for _ in range(TRIES):
        member.number += 1
        if queries.report(
            connection,
            member.id,
            member.number,
            member.found,
            deadline(connection, patience),
        ):
            member.found = None
            return True
        stored, now = _read(connection, member.id)
        if stored is None:
            return False
        member.adopt(stored, now)
    raise _refused("report")


def report_many(
    connection: sa.Connection, members: Sequence[Record], patience: float
) -> list[int]:
    """Report that members are alive, as report() does, in two statements.

    A row that another process has locked is left out, as it would delay the
    others. So is a row that report() has to read first.

    There is no transaction around the two statements: if the client
    disappeared, the server would keep it open, with all its locks.

    :returns: the ids of the records that have been written
    """
    sent = time.monotonic()
    found, now = queries.claim(connection, [one.id for one in members])
    if now is not None:
        _sample(connection, sent, now)
    numbers = {}
    for one in members:
        if one.found is None and 0 < found.get(one.id, 0) <= one.number:
            one.number += 1
            numbers[one.id] = one.number
    if not numbers:
        return []
    written = queries.report_many(
        connection, numbers, deadline(connection, patience)
    )
    # If some were not written, report() is called for each of them.
    return list(numbers) if written == len(numbers) else []


def withdraw(
    connection: sa.Connection, member: Record, patience: float, own: bool
) -> None:
    """Report that a member has left.

    :param patience: seconds for which the caller waits for the answer
    :param own: whether this process reported it. Then, if another process
        has reported it since, the member has not left
    :raises BackendError: the database has executed no attempt
    """
    for _ in range(TRIES):
        if queries.withdraw(
            connection,
            member.id,
            member.number,
            member.found,
            deadline(connection, patience),
        ):
            return
        stored, now = _read(connection, member.id)
        if stored is None or stored.left:
            return
        if own and stored.number > member.number:
            return
        member.adopt(stored, now)
    raise _refused("leave")


def deadline(
    connection: sa.Connection, patience: float
) -> datetime.datetime | None:
    """Return the deadline of a statement that is sent now.

    :returns: by the clock of the server behind the connection; None: the
        database is a file, so no statement is late
    """
    if connection.dialect.name == "sqlite":
        return None
    known = connection.info.get("nova_sg_clock")
    now = time.monotonic()
    if known is None or now - known[1] > CLOCK_LIFE:
        _sample(connection, now, queries.now(connection))
        now = time.monotonic()
    seconds = connection.info["nova_sg_clock"][0].from_monotonic(now)
    return _EPOCH + datetime.timedelta(seconds=seconds + patience)


def _read(
    connection: sa.Connection, service_id: int
) -> tuple[Stored | None, Any]:
    sent = time.monotonic()
    row = queries.read(connection, service_id)
    if row is None:
        return None, None
    _sample(connection, sent, row.now)
    return Stored(row.report_count, row.last_seen_up), row.now


def _sample(
    connection: sa.Connection, sent: float, now: datetime.datetime
) -> None:
    received = time.monotonic()
    # A new one each time: it must not be combined with earlier samples, as
    # the clock may have been set by a little in between.
    made = clock.BackendClock()
    made.sample(sent, received, (now - _EPOCH).total_seconds())
    connection.info["nova_sg_clock"] = made, received


def _moment(value: Any) -> datetime.datetime | None:
    """Read a time as the database returns it; None: it is not a time."""
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime.datetime) else None


def _number(moment: datetime.datetime) -> int:
    return int((moment - ZERO).total_seconds())


def _refused(what: str) -> exception.BackendError:
    return exception.BackendError(
        f"the database executed none of {TRIES} attempts to {what} in time. "
        "It is overloaded, its clock was set, or another process reports "
        "for the same host and binary"
    )
