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

"""The database driver: a member is a record of the services table."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, threads
from nova_sg.backends import base
from nova_sg.backends.base import Record
from nova_sg.backends.db import (
    engine,
    health,
    locks,
    queries,
    records,
    reports,
    schema,
    together,
    unlisted,
    writer,
)
from nova_sg.conf import CONF
from nova_sg.guard import orders
from nova_sg.liveness.model import (
    NEVER,
    Limits,
    Observation,
    Refresh,
    ServerOutage,
)

LOG = logging.getLogger(__name__)

# Seconds for which the records of a group are read one by one after they could
# not be read as one text.
BY_ROWS = 60.0


class DbDriver(base.LockingDriver):
    """Reports by one UPDATE, observes by one SELECT.

    All times are by the database's clock.
    """

    name = "db"
    characteristics = base.Characteristics(
        detects="a service, or a host, that no longer writes to the database",
        bound="service_down_time + view_refresh_interval",
        blind="a service whose timer runs while its work is stuck",
    )

    def __init__(self) -> None:
        self._database = engine.Database(engine.url())
        self._embedded = not CONF.database.connection
        self._ready = not self._embedded
        self._lock = threading.Lock()
        # Whether the table is nova_sg's own; None: not known yet.
        self._own: bool | None = True if self._embedded else None
        self._unlisted = unlisted.Unlisted(self._is_own)
        # The clock of the embedded database is that of this host.
        self._records = records.Reader(
            None if self._embedded else self._ask_clock
        )
        self._writer = writer.Writer(
            self._write_reports, self._database.timeout
        )
        self._locks = locks.Locks(self._database.name, self._run)
        # By group: what reads all of its records from one text, and until when
        # they are read one by one instead, monotonic.
        self._group_readers: dict[str, together.GroupReader] = {}
        self._by_rows_until: dict[str, float] = {}
        # The ids of the records of this process's members.
        self._reporting: set[int] = set()
        self._orders = orders.Orders("db")
        # The last answer to the question why no member of a group reports.
        self._asked: dict[str, health.Asked] = {}

    def _run(self, work, patience=engine.QUICK):
        if not self._ready:
            with self._lock:
                if not self._ready:
                    try:
                        schema.create_embedded(self._database)
                    except exception.ConfigError as error:
                        # It may be corrected while the process runs.
                        raise exception.BackendError(str(error)) from error
                    self._ready = True
        return self._database.run(work, patience)

    # -- members of this process

    def report(self, membership: base.Membership) -> None:
        ref = membership.service.service_ref
        if hasattr(ref, "save"):
            self._orders.impossible(
                "inside Nova this process has no database connection for it"
            )
            records.save(ref, ref.report_count + 1)
            return
        record = membership.state.get("record")
        if record is None:
            record = self._register(membership)
        sent = time.monotonic()
        self._give_order(membership, record, sent, None)
        if self._report(record):
            answered = time.monotonic()
            self._give_order(membership, record, sent, answered)
            return
        self._orders.cancel(membership)
        if not CONF.servicegroup.recreate_missing_record:
            raise records.vanished(membership.binary, membership.host)
        LOG.warning(
            "The services table record for the %s service on host %s is "
            "gone. The record is created again",
            membership.binary,
            membership.host,
        )
        del membership.state["record"]
        self._reporting.discard(record.id)
        self._report(self._register(membership))

    def _report(self, record: reports.Record) -> bool:
        """Report that a member is alive; return whether it has a record."""
        found = None
        if len(self._reporting) > 1:
            found = self._writer.put(record.id, record)
        if found is None:
            # It is the only member, or was not written with others.
            found = self._report_alone(record)
        return found

    def _report_alone(self, record: reports.Record) -> bool:
        patience = self._database.timeout
        return self._run(
            lambda c: reports.report(c, record, patience), patience
        )

    def _write_reports(
        self, by_id: Mapping[int, reports.Record]
    ) -> dict[int, bool]:
        several, patience = list(by_id.values()), self._database.timeout
        if len(several) == 1:
            return {several[0].id: self._report_alone(several[0])}
        try:
            written = self._run(
                lambda c: reports.report_many(c, several, patience),
                # The other half is for the reports alone.
                patience / 4,
            )
        except engine.Conflict:
            # One row is enough for that. Each is written by itself.
            return {}
        return dict.fromkeys(written, True)

    def _register(self, membership: base.Membership) -> reports.Record:
        record = self._find(membership)
        if record is None:
            name = membership.host, membership.group, membership.binary
            made = self._run(lambda c: queries.create(c, *name))
            if made is not None:
                record = reports.Record(made)
            else:
                # Another process may have created it.
                record = self._find(membership)
        if record is None:
            raise exception.NotRegistered(
                f"the services table of {self._database.name} is of an older "
                f"version: it has a record of {membership.binary} on "
                f"{membership.host} in another group, and takes no second "
                "one. Run: nova-sg db sync"
            )
        membership.state["record"] = record
        self._reporting.add(record.id)
        return record

    def _find(self, membership: base.Membership) -> reports.Record | None:
        """Return a member's record; None: it has none, and may create one.

        :raises NotRegistered: it has none, and may not create one
        """
        name = membership.host, membership.group, membership.binary
        found = self._run(lambda c: queries.find(c, *name))
        if (
            found is not None
            and found.topic == membership.group
            and found.host == membership.host
        ):
            return reports.record(found)
        where = f"the services table of {self._database.name}"
        nova = schema.owner(self._database) == schema.FOREIGN
        if found is not None and found.host != membership.host:
            # The table compares names without their case.
            remedy = "Run: nova-sg db sync"
            if nova:
                remedy = "Set [DEFAULT] host to the name in the record"
            raise exception.NotRegistered(
                f"{where} has a record of {found.host}, and takes "
                f"{membership.host} for the same host. {remedy}"
            )
        if not nova:
            return None
        # A record without a version of Nova would stop Nova's services from
        # working together.
        has = f"no record of {membership.binary} on {membership.host}"
        if found is not None:
            has += f" in the group {membership.group}, but in the group "
            has += str(found.topic)
        raise exception.NotRegistered(
            f"{where} is Nova's and has {has}; only Nova creates records there"
        )

    def _give_order(
        self,
        membership: base.Membership,
        record: reports.Record,
        sent: float,
        answered: float | None,
    ) -> None:
        """Order the crash guard to mark the record if this process ends."""
        if not self._orders.wanted():
            return
        try:
            how = self._database.outside()
        except ValueError as error:
            self._orders.impossible(str(error))
            return
        self._orders.give(
            membership,
            apart=self.apart,
            id=record.id,
            # Without an answer yet: the number of the report under way.
            number=record.number + (answered is None),
            sent=sent,
            answered=answered,
            late=self._database.timeout,
            **how,
        )

    def withdraw(self, membership: base.Membership) -> None:
        self._orders.cancel(membership)
        ref = membership.service.service_ref
        if hasattr(ref, "save"):
            records.save(ref, 0)
            return
        record = membership.state.get("record")
        own = record is not None
        if not own:
            try:
                record = self._find(membership)
            except exception.NotRegistered:
                # There is nothing to withdraw.
                record = None
        if record is not None:
            self._reporting.discard(record.id)
            patience = self._database.timeout
            self._run(lambda c: reports.withdraw(c, record, patience, own))

    # -- observing

    def observe(self, group: str) -> Refresh:
        if (
            not self._database.is_mysql
            or time.monotonic() < self._by_rows_until.get(group, NEVER)
        ):
            return self._observe_rows(group)
        sent = time.monotonic()
        answer = self._run(lambda c: queries.observe_together(c, group))
        self._sample(sent, answer.now)
        reader = self._group_readers.setdefault(
            group, together.GroupReader(self._records)
        )
        try:
            found = reader.read(sent, answer.number, answer.text)
        except ValueError as error:
            LOG.debug(
                "The records of the group %(group)s cannot be read as one "
                "text, for now they are read one by one: %(error)s",
                {"group": group, "error": error},
            )
            self._by_rows_until[group] = sent + BY_ROWS
            return self._observe_rows(group)
        return self._refresh(group, sent, found)

    def _observe_rows(self, group: str) -> Refresh:
        sent = time.monotonic()
        rows = self._run(lambda c: queries.observe(c, group))
        if rows:
            self._sample(sent, rows[0].now)
        read = self._records
        found = [
            read.observation(sent, row)
            for row in threads.in_slices(rows)
            if read.named(row)
        ]
        return self._refresh(group, sent, found)

    def _sample(self, sent: float, now: Any) -> None:
        """Take in the database's time, which an answer has shown."""
        seconds = records.seconds(records.moment(now))
        self._records.clock.sample(sent, time.monotonic(), seconds)

    def _refresh(
        self, group: str, sent: float, found: list[Observation]
    ) -> Refresh:
        listed = self._unlisted.leave_out(group, sent, _one_a_host(found))
        return Refresh(self.name, sent, listed)

    def _is_own(self) -> bool:
        """Whether the table is nova_sg's own: Nova lists all of its own."""
        if self._own is None:
            self._own = schema.owner(self._database) == schema.OURS
        return self._own

    def unlisted(self, group: str) -> dict[str, float]:
        self.observe(group)
        return self._unlisted.of(group)

    def outage(self, group: str, since: float) -> ServerOutage | None:
        if not self._database.is_mysql:
            return None
        asked = time.monotonic()
        now = health.Asked(asked, self._run(health.read))
        before = self._asked.get(group)
        self._asked[group] = now
        told = health.judge(
            now,
            before,
            since,
            self._database.timeout,
            Limits(CONF.service_down_time, CONF.report_interval),
        )
        if told is not None and now.health.read_only:
            # Behind a virtual address this may be the former primary.
            self._database.connect_anew()
        return told

    def groups(self) -> list[str]:
        return self._run(queries.groups)

    def read_record(self, member: Mapping) -> Record | None:
        return self._records.read(member)

    def _ask_clock(self) -> float:
        return records.seconds(records.moment(self._run(queries.now)))

    # -- commands of operators

    def force_down(self, group: str, host: str, forced: bool) -> None:
        if not self._run(lambda c: queries.force_down(c, group, host, forced)):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )

    def forget(self, group: str, host: str) -> None:
        if not self._run(lambda c: queries.forget(c, group, host)):
            raise exception.MemberNotFound(
                f"The group {group} has no member {host}"
            )

    def note_crash(self, group: str, host: str) -> bool:
        return self._run(lambda c: queries.note_crash(c, group, host))

    def check(self) -> list[base.Finding]:
        # Few processes check: the others start sooner without it.
        from nova_sg.backends.db import doctor

        return doctor.check(self._database, self._run, self._embedded)

    def close(self) -> None:
        self._orders.cancel_all()
        self._database.close()


def _one_a_host(found: list[Observation]) -> list[Observation]:
    """Return one observation for each host: that with the newest report."""
    if len({one[0] for one in found}) == len(found):
        return found
    newest: dict[str, Observation] = {}
    for one in found:
        other = newest.setdefault(one.host, one)
        if other is not one and (one.reported or NEVER) > (
            other.reported or NEVER
        ):
            newest[one.host] = one
    return list(newest.values())
