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

"""The API: join, leave, and which members are up. Nova's API, and more.

An API object has no state: making one takes microseconds and connects to
nothing. Drivers, reporters and observers belong to the process (process.py).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import config, exception
from nova_sg.backends import base
from nova_sg.conf import CONF
from nova_sg.liveness import model
from nova_sg.liveness.model import UP
from nova_sg.servicegroup import (
    commands,
    description,
    events,
    process,
    settings,
    standalone,
)
from nova_sg.servicegroup.shared import Shared

LOG = logging.getLogger(__name__)


class API:
    """Nova's servicegroup.API, with calls that Nova removed, and new ones.

    A `member` in a question is a mapping, or an object with `.get` and
    `[...]`, that has at least `host` and `topic`: a Service object of Nova, a
    row, a plain dict.

    The constructor accepts arguments, as Nova's does, and ignores them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._driver = self._make_driver()

    @staticmethod
    def _make_driver() -> GroupDriver:
        return GroupDriver()

    def join(
        self, member: str | Mapping, group: str, service: Any = None
    ) -> None:
        """Add a member to a group and keep reporting its state.

        The first report is sent at once. If the backend is unreachable, it
        is tried again at every interval.

        :param member: the member's name, or a mapping with its `host`
        :param group: the group's name
        :param service: the object whose timer reports: it has
            `tg.add_timer_args`, `report_interval` (seconds; 0: no reports),
            `service_ref`, `host` and `topic`. None: a thread reports every
            [DEFAULT] report_interval seconds
        :raises ConfigError: the driver cannot work with its options; or a name
            is empty, or has characters that cannot be printed
        """
        return self._driver.join(member, group, service)

    def leave(self, member: str | Mapping, group: str) -> None:
        """Take a member out of a group: it is down from now on.

        :raises BackendError: the backend was not told; the member goes down
            by silence
        """
        return self._driver.leave(member, group)

    def service_is_up(self, member: Mapping) -> bool:
        """Whether a member is up.

        If no backend answers, the last known state is used for
        service_down_time. A host that is not a member is not up.

        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time; or the member's state is not known yet, as its
            backend may be frozen
        """
        if base.field(member, "forced_down"):
            return False
        return self._driver.is_up(member)

    def accepts(self, member: Mapping) -> bool:
        """Whether the scheduler may place new work on a member.

        That is so if it is up, and neither about to stop nor just stopped.

        :raises ServiceGroupUnavailable: as service_is_up()
        """
        if base.field(member, "forced_down"):
            return False
        return self._driver.accepts(member)

    def drain(self, member: str | Mapping, group: str) -> None:
        """Report that a member is about to stop and accepts no new work.

        Call leave() when it has stopped.
        """
        self._driver.drain(member, group)

    def unwell(
        self, member: str | Mapping, group: str, reason: str
    ) -> None:
        """Report that a member is alive and cannot do its work.

        It accepts no new work until this is called with an empty reason. The
        services table has no room for it: with db it is not reported.

        :param reason: why, as a clause: "RabbitMQ cannot be reached"
        """
        self._driver.unwell(member, group, reason)

    def get_updated_time(self, member: Mapping) -> Any:
        """Return when a member was last updated or last reported."""
        return self._driver.updated_time(member)

    def get_all(self, group: str) -> list[str]:
        """Return the names of the members of a group that are up, sorted.

        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        """
        return self._driver.get_all(group)

    def members(self, group: str) -> list[description.Member]:
        """Return every known member of a group, sorted by name.

        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        """
        return self._driver.shared().view(group).members()

    def member(self, group: str, host: str) -> description.Member:
        """Return one member of a group.

        :raises MemberNotFound: the group has no such member
        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        """
        return self._driver.shared().view(group).member(host)

    def backend_states(
        self, group: str, host: str
    ) -> list[description.BackendState]:
        """Return a member as each backend alone shows it, the primary first.

        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        """
        return self._driver.shared().view(group).backend_states(host)

    def size(self, group: str) -> int:
        """Return how many members a group had at the last refresh."""
        return self._driver.shared().view(group).size()

    def groups(self) -> list[str]:
        """Return the names of all known groups, sorted.

        :raises BackendError: no backend answers
        """
        return self._driver.shared().groups()

    def watch(
        self, group: str, callback: Callable[[events.Event], None]
    ) -> events.Subscription:
        """Call callback(event) for each event from now on: see events.Event.

        An exception of the callback is logged, and it stays subscribed.

        :returns: the subscription; its cancel() ends it
        """
        return self._driver.shared().view(group).watch(callback)

    def refresh(self, group: str) -> list[events.Event]:
        """Refresh a group from each backend now.

        :returns: the events since the last refresh of this process; none if
            this is the first one, or if no backend answers
        """
        return self._driver.shared().view(group).refresh()

    def force_down(self, host: str, group: str, forced: bool = True) -> None:
        """Declare a member down whatever it reports, or take that back.

        :raises MemberNotFound: the group has no such member
        :raises BackendError: the primary's backend was not told; or it is
            taken back and a backend was not told, which all others were
        """
        commands.force_down(self._driver.shared(), host, group, forced)

    def note_crash(self, host: str, group: str) -> bool:
        """Note that a member's process has ended without leaving.

        The caller knows that no process of the member runs: a report that
        comes later makes it up again.

        :returns: whether it was noted; False: the group has no such member,
            or it has left, or its crash is known
        :raises BackendError: a backend was not told; all others were
        """
        return commands.note_crash(self._driver.shared(), host, group)

    def stale(self, group: str, age: float) -> list[str]:
        """Return the names of members that are down for good, sorted.

        They are down, have shown no life for at least a time, and are not
        forced down.

        :param age: the time, in seconds
        :raises ServiceGroupUnavailable: no backend has answered for
            service_down_time
        :raises BackendError: a backend does not answer
        """
        return commands.stale(self._driver.shared(), group, age)

    def forget(self, host: str, group: str) -> None:
        """Remove a member that is not up from a group.

        :raises MemberNotFound: the group has no such member
        :raises MemberIsUp: it is up
        :raises ServiceGroupUnavailable: it is not known whether it is up
        :raises BackendError: a backend was not told
        """
        commands.forget(self._driver.shared(), host, group)


class GroupDriver:
    """What Nova and its tests expect as API._driver.

    Each API object has its own, so that code which replaces a method of it
    affects that API object only.
    """

    def __init__(self) -> None:
        # Read once: to read an option takes longer than to judge a record.
        self._limits, self._name = _options.get()

    def shared(self) -> Shared:
        """Return what this process shares for these drivers."""
        return process.shared(self._name)

    def join(
        self, member: str | Mapping, group: str, service: Any = None
    ) -> None:
        host = _name(member)
        check_names(host, group)
        if service is None:
            service = standalone.Standalone(host, group)
        self.shared().join(host, group, service, self._report_state)

    def leave(
        self, member: str | Mapping, group: str, last: bool = True
    ) -> None:
        self.shared().leave(_name(member), group, last)

    def drain(self, member: str | Mapping, group: str) -> None:
        self.shared().drain(_name(member), group)

    def end_checks(self, member: str | Mapping, group: str) -> None:
        """Check no longer whether a member can do its work."""
        self.shared().health.end(_name(member), group)

    def unwell(
        self, member: str | Mapping, group: str, reason: str
    ) -> None:
        self.shared().unwell(_name(member), group, reason)

    def accepts(self, member: Mapping) -> bool:
        record = None
        if base.field(member, "last_seen_up") or base.field(
            member, "created_at"
        ):
            record = self._read_record(member)
        return (
            self.shared()
            .verdict(member["topic"], member["host"], record, self._limits)
            .accepting
        )

    def is_up(self, member: Mapping) -> bool:
        shared, limits = self.shared(), self._limits
        group, host = member["topic"], member["host"]
        seen = base.field(member, "last_seen_up")
        if not seen and not base.field(member, "created_at"):
            return shared.view(group).is_up(host)
        if shared.only_records and shared.records.is_plainly_up(
            (group, host),
            seen,
            base.field(member, "report_count"),
            limits.service_down_time,
        ):
            # The usual case inside Nova.
            return True
        record = self._read_record(member)
        return shared.verdict(group, host, record, limits).state == UP

    def _read_record(self, member: Mapping) -> base.Record | None:
        """Return the caller's record; None: it does not count, see Driver."""
        return self.shared().driver.read_record(member)

    def updated_time(self, member: Mapping) -> Any:
        shared = self.shared()
        recorded = shared.driver.updated_time(member)
        if shared.driver.read_record(member) is not None:
            return recorded
        seen = shared.view(member["topic"]).last_seen(member["host"])
        if seen is None or _later(recorded, seen):
            return recorded
        return seen

    def get_all(self, group: str) -> list[str]:
        return self.shared().view(group).hosts_up()

    def _report_state(self, service: Any) -> None:
        self.shared().report_state(service)


def check_names(host: str, group: str) -> None:
    """Check the names of a member and of its group.

    :raises ConfigError: a name would break the lines of logs and lists
    """
    for option, name in (("host", host), ("topic", group)):
        if not name or not name.isprintable():
            raise exception.ConfigError(
                f"[DEFAULT] {option}: the name {name!r} cannot be used. It "
                "needs characters that can be printed, and no others"
            )


def _name(member: str | Mapping) -> str:
    return member if isinstance(member, str) else member["host"]


def _later(recorded: Any, seen: datetime.datetime) -> bool:
    if not isinstance(recorded, datetime.datetime):
        return recorded is not None
    if recorded.tzinfo is None:
        recorded = recorded.replace(tzinfo=datetime.UTC)
    return recorded > seen


def _read_options() -> tuple[model.Limits, str]:
    """Return the limits and the drivers' names, from checked options."""
    _check_times()
    return settings.limits(), process.driver_names()


# Nova makes an API for each request.
_options = config.Derived(_read_options)


def _check_times() -> None:
    """Apply Nova's rule: service_down_time is longer than the interval."""
    interval = CONF.report_interval
    if CONF.service_down_time > interval:
        return
    enough = interval * 2.5
    LOG.warning(
        "Report interval must be less than service down time. Current "
        "config: service_down_time = %(down)g, report_interval = "
        "%(interval)g. Using a service_down_time of %(enough)g",
        {
            "down": CONF.service_down_time,
            "interval": interval,
            "enough": enough,
        },
    )
    CONF.set_override("service_down_time", enough)
