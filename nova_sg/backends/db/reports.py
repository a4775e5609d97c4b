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

"""Reports that are numbered, and that count up to a deadline only.

A statement may wait in a socket buffer, at a proxy or in the server while its
sender dies. It must not count when it is executed in the end. So:

* Each attempt to report has a number, which report_count becomes. It is
  executed only where report_count is a smaller number. 0 (left) and CRASHED
  are no numbers, so a late report undoes neither, and the number of a member
  that leaves is greater than that of no report but its own.
* Each statement carries the moment up to which it is executed, by the clock
  of the server that the connection leads to: as long as its sender waits for
  the answer. That clock is read once for a connection, and again every
  CLOCK_LIFE seconds.

A member knows its next number, so a report is one statement. Where that
changes nothing, another process wrote to the record, the clock was set, or
the report came too late: the record and the clock are read, and the report is
tried again, at once.

A process that joins reads the record. It goes on from a number which is
greater than all before: a record that says "left" or "crashed" has no number,
but the time of its last report, and numbers never run ahead of the time: they
begin at the time, in seconds, and grow by one with each attempt. A record
without any report begins at 1.
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

# So often a statement is tried. A second try finds what the first one has
# read, unless another process writes to the same record at the same time.
TRIES = 3
# Seconds after which the server's clock is read again.
CLOCK_LIFE = 600.0
# The greatest number: report_count is an INT.
GREATEST = 2**31 - 1
# Numbers that stand for times count the seconds from here.
ZERO = datetime.datetime(2020, 1, 1)
_EPOCH = datetime.datetime(1970, 1, 1)


class Stored(NamedTuple):
    """What a record says of its reports."""

    number: int
    #: As the database gives it: whatever stands there.
    last_seen: Any

    @property
    def left(self) -> bool:
        """Whether it is the record of a member that has left."""
        return self.number == 0 and self.last_seen is not None


class Record:
    """A member's record, as far as the member's process knows it."""

    def __init__(self, service_id: int) -> None:
        self.id = service_id
        #: The number of the last attempt.
        self.number = 0
        # What the record has to be like for the next statement; None: any
        # report with a smaller number.
        self.found: Stored | None = Stored(0, None)

    def adopt(self, stored: Stored, now: datetime.datetime) -> None:
        """Go on from what the record says.

        :param now: the database's clock
        """
        if 0 < stored.number <= self.number:
            # A report of this process, and none of another since.
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
            # It was no number of ours, or a clock was wrong by decades.
            number = max(0, _number(now) - 1)
        self.number = number


def record(row: Any) -> Record:
    """Return what a process knows that has read a record.

    :param row: with the columns of queries.find()
    """
    made = Record(row.id)
    made.adopt(Stored(row.report_count, row.last_seen_up), row.now)
    return made


def report(
    connection: sa.Connection, member: Record, patience: float
) -> bool:
    """Note that a member is alive, now, by the database's clock.

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
    """Note that members are alive, as report() does, all at once.

    A row that another process has locked is left aside: it would keep the
    others waiting. So is one that report() has to read first.

    Two statements, and no transaction around them: a server that does not
    hear from its client any more would keep one open, with all its locks.

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
    # Which of them were not is for report() to find out.
    return list(numbers) if written == len(numbers) else []


def withdraw(
    connection: sa.Connection, member: Record, patience: float, own: bool
) -> None:
    """Note that a member has left.

    :param patience: seconds for which the caller waits for the answer
    :param own: whether this process reports it: if another process does by
        now, the member has not left
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
    """Return up to when a statement counts that is sent now.

    :returns: by the clock of the server behind the connection; None: the
        database is a file, and nothing is late
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
    # One reading, not what several have in common: it may have been set by
    # less than they leave open.
    made = clock.BackendClock()
    made.sample(sent, received, (now - _EPOCH).total_seconds())
    connection.info["nova_sg_clock"] = made, received


def _moment(value: Any) -> datetime.datetime | None:
    """Read a time as the database gives it; None: it is none."""
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
        "Its clock is being set, it is overloaded, or another process "
        "reports for the same host and binary"
    )
