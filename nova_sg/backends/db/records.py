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

"""The records of the services table, apart from connections to a database.

Reading rows of the table and the records that callers bring along, and saving
a record through an object of Nova's.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging
from oslo_utils import timeutils

from nova_sg import exception, once
from nova_sg.backends import base, clock
from nova_sg.backends.base import Record
from nova_sg.backends.db.models import CRASHED
from nova_sg.liveness.model import Attributes, Observation

LOG = logging.getLogger(__name__)

# How many different attributes are kept.
MOST_ATTRIBUTES = 1000

EPOCH = datetime.datetime(1970, 1, 1)
EPOCH_UTC = EPOCH.replace(tzinfo=datetime.UTC)


class Reader:
    """Reads records, and measures their age by the clock that stamped them.

    :param ask_clock: returns the database's time, in seconds since the
        epoch, or raises BackendError; None: it cannot be asked, or it is the
        time of this host
    """

    def __init__(self, ask_clock: Callable[[], float] | None = None) -> None:
        self._ask_clock = ask_clock
        #: The database's clock, if a driver has sampled it.
        self.clock = clock.BackendClock()
        #: The clock of this host.
        self.wall = clock.WallClock()
        # By the values of a row: equal rows share one object, which is quick
        # to compare.
        self._attributes: dict[tuple, Attributes] = {}
        # When the database's clock was last asked as this host's was set.
        self._learnt = float("-inf")
        self._warned = once.Once("services table records")

    def named(self, row: Any) -> bool:
        """Whether a row of the table has the name of a host."""
        if isinstance(row.host, str):
            return True
        self._warn_once(
            row.host,
            "A services table record of %s has %r where the host's name "
            "should be; it is ignored",
            row.topic,
            row.host,
        )
        return False

    def observation(self, asked: float, row: Any) -> Observation:
        """Return a row of the table as an observation; see named().

        :param asked: when the table was read, monotonic
        """
        # Written for speed: there may be many thousands of rows.
        service_id, host, topic, binary, count, seen, created = row[1:8]
        forced_down, disabled, reason = row[8:]
        if seen is not None and (
            type(seen) is not datetime.datetime or seen.tzinfo is not None
        ):
            seen = self._moment(host, seen)
        reported = last_seen = registered = mark = None
        left = crashed = False
        if seen is not None:
            reported = (seen - EPOCH).total_seconds() - self.clock.offset
            last_seen = seen.replace(tzinfo=datetime.UTC)
            left, crashed = count == 0, count == CRASHED
            # A record that says "left" or "crashed" has no number.
            if not (left or crashed):
                mark = service_id, count if type(count) is int else 0
        if reported is None or reported > asked:
            created = self._moment(host, created)
            if created is not None:
                registered = seconds(created) - self.clock.offset
        values = topic, binary, left, crashed, forced_down, disabled, reason
        attributes = self._attributes.get(values)
        if attributes is None:
            if len(self._attributes) > MOST_ATTRIBUTES:
                self._attributes = {}
            attributes = self._attributes[values] = Attributes(
                topic=topic,
                binary=binary,
                left=left,
                crashed=crashed,
                forced_down=bool(forced_down),
                disabled=bool(disabled),
                disabled_reason=reason,
            )
        return tuple.__new__(
            Observation,
            (host, mark, reported, last_seen, registered, attributes),
        )

    def _moment(self, host: str, value: Any) -> datetime.datetime | None:
        try:
            return None if value is None else moment(value)
        except ValueError:
            self._warn_once(
                host,
                "The services table record of %s has %r where a time should "
                "be; this value is ignored",
                host,
                value,
            )
            return None

    def _warn_once(self, host: Any, message: str, *values: Any) -> None:
        if self._warned.first(host):
            LOG.warning(message, *values)

    def read(self, member: Mapping) -> Record | None:
        """Read a caller's record; None: it has no valid time."""
        # Written for speed, as a scheduler asks for each of its hosts: the
        # usual case first, and without datetime.replace().
        seen = base.field(member, "last_seen_up")
        when = seen or base.field(member, "created_at")
        if not when:
            return None
        if not isinstance(when, datetime.datetime) or when.tzinfo not in (
            None,
            datetime.UTC,
        ):
            try:
                when = moment(when)
            except ValueError:
                return None
        # The stamp is by the clock of the database, or of the host that wrote
        # the record for Nova. If the database's clock is not known, this
        # host's clock is used.
        if self.clock.synced:
            now = self.clock.from_monotonic(time.monotonic())
            age = now - seconds(when)
        else:
            age = _age(when)
            step = self.wall.step()
            if step:
                age = self._doubted(age, step)
        if not seen:
            return Record(None, None, age)
        count = base.field(member, "report_count")
        return Record(seen, count, age, count == 0, count == CRASHED)

    def _doubted(self, age: float, step: float) -> float:
        """Return the age of a record after this host's clock was set.

        Until the database's time is known, the age is by the clock as it was
        before. If the record would then be from the future, the clock was
        wrong before: the age is by the clock as it is now.
        """
        self._learn_clock()
        before = age - step
        return before if before >= -clock.STEP else age

    def _learn_clock(self) -> None:
        now = time.monotonic()
        if self._ask_clock is None or now - self._learnt < clock.DOUBT / 10:
            return
        self._learnt = now
        threading.Thread(
            target=self._read_clock,
            args=[self._ask_clock],
            name="nova-sg-db-clock",
            daemon=True,
        ).start()

    def _read_clock(self, ask: Callable[[], float]) -> None:
        sent = time.monotonic()
        try:
            now = ask()
        except exception.BackendError as error:
            LOG.debug("Cannot read the database's clock: %s", error)
            return
        self.clock.sample(sent, time.monotonic(), now)


def save(ref: Any, report_count: int) -> None:
    """Write a record through an object of Nova's.

    In a process without a database nova-conductor writes it, and stamps
    last_seen_up only if report_count has grown.
    """
    try:
        ref.report_count = report_count
        ref.save()
    except Exception as error:
        # By name, as Nova is not imported here.
        kind = type(error).__name__
        if kind == "ServiceNotFound":
            raise vanished(ref.binary, ref.host) from error
        if kind == "MessagingTimeout":
            raise exception.BackendError(
                "nova-conductor does not answer"
            ) from error
        raise


def vanished(binary: str, host: str) -> exception.MemberVanished:
    # The first sentence is Nova's.
    return exception.MemberVanished(
        f"The services table record for the {binary} service on host {host} "
        "is gone. If the service was deleted on purpose, stop it. Otherwise "
        "restart it, or set [servicegroup] recreate_missing_record: then the "
        "record is created again"
    )


def moment(value: Any) -> datetime.datetime:
    """Read a moment, UTC, as databases, RPC and people write it.

    :raises ValueError: it is not a moment
    """
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if not isinstance(value, datetime.datetime):
        raise ValueError(f"not a time: {value!r}")
    if value.tzinfo is not None:
        try:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        except OverflowError as error:
            # Before the year 1, or after 9999.
            raise ValueError(str(error)) from error
    return value


def seconds(moment: datetime.datetime) -> float:
    """Return the seconds since the epoch of a moment, UTC, naive or not."""
    epoch = EPOCH if moment.tzinfo is None else EPOCH_UTC
    return (moment - epoch).total_seconds()


def _age(moment: datetime.datetime) -> float:
    """Return the seconds since a moment, UTC, by the clock of this host."""
    aware = moment.tzinfo is not None
    now = timeutils.utcnow(with_timezone=aware)
    if aware and now.tzinfo is None:
        # A test has set the clock.
        now = now.replace(tzinfo=datetime.UTC)
    return (now - moment).total_seconds()
