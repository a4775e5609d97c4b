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

"""Reporting: the members of this process, and the reports that keep them up.

The service that joined has a timer, which sends the reports: a looping call
of oslo.service in Nova's services and in nova-sg-agent. For a member without
a service a thread does (standalone). No exception leaves a timer.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg import exception, metrics
from nova_sg import trouble as trouble_log
from nova_sg.backends import base
from nova_sg.conf import CONF
from nova_sg.servicegroup import standalone

LOG = logging.getLogger(__name__)

# Seconds from the report at join to the first report of the timer, as in
# Nova.
INITIAL_REPORTING_DELAY = 5
# Each report waits for a random part of the interval, up to this fraction, so
# that nodes that were started in the same moment do not report in step.
JITTER = 0.1
# Characters of the reason why a member is unwell.
MAX_REASON = 200
# join() waits this long for the first report to get through.
JOIN_WAIT = 1.0


class _ReportedMember:
    """A membership and the state of its reporting.

    A process may have many.
    """

    __slots__ = (
        "_free",
        "begun",
        "certain",
        "error",
        "failing_since",
        "failure",
        "left",
        "log",
        "membership",
        "reported_until",
        "succeeded_at",
        "timer",
        "trouble",
    )

    def __init__(self, membership: base.Membership) -> None:
        self.membership = membership
        self.timer: Any = None
        # Empty while a report or the withdrawal is under way: they must not
        # overtake each other. A green lock takes a kilobyte.
        self._free = [True]
        self.left = False
        # Whether the last report failed.
        self.trouble = False
        # The error of the last report; empty: it succeeded.
        self.error = ""
        # When a report succeeded last, monotonic; None: none did.
        self.succeeded_at: float | None = None
        # Decides when failed reports are logged; None: none has failed.
        self.log: trouble_log.TroubleLog | None = None
        # The same for errors outside the driver.
        self.failure: trouble_log.TroubleLog | None = None
        # When the report under way began; None: there is none.
        self.begun: float | None = None
        # When the first report began that failed, or took too long; None: the
        # last one succeeded.
        self.failing_since: float | None = None
        # Up to when the outage is certain: nothing is known of the time from
        # the end of a failed report to the next one.
        self.certain = float("-inf")
        # Until when reports tell observers of the last outage.
        self.reported_until = float("-inf")

    def take(self) -> bool:
        """Begin a report; return False if another one is under way.

        give() has to follow.
        """
        try:
            return self._free.pop()
        except IndexError:
            return False

    def give(self) -> None:
        """End a report."""
        self._free.append(True)

    def wait(self) -> None:
        """As take(), after the report that is under way."""
        pause = 0.0005
        while not self.take():
            time.sleep(pause)
            pause = min(2 * pause, 0.02)

    def stop(self) -> None:
        """Stop the timer."""
        self.left = True
        if self.timer is None:
            return
        self.timer.stop()
        done = getattr(self.membership.service.tg, "timer_done", None)
        if done is not None:
            # oslo.service before 4.5 raises it if the group has been stopped
            # before, as Nova 31 and 32 do.
            with contextlib.suppress(ValueError):
                done(self.timer)


class Reported(NamedTuple):
    """How the reports of a member of this process go, by one driver."""

    host: str
    group: str
    #: Seconds since a report succeeded; None: none did.
    age: float | None
    #: The error of the last report; empty: it succeeded.
    trouble: str
    draining: bool


class Reporter:
    """Reports the members that joined through one driver."""

    def __init__(
        self,
        driver: base.Driver,
        on_outage: Callable[[str, Hashable, float, float, bool], None]
        | None = None,
    ) -> None:
        """Make a reporter.

        :param on_outage: called when reports fail, or take longer than their
            interval, with: the group, the member, since when, up to when
            that is certain (both monotonic), and whether it is over
        """
        self._driver = driver
        self._on_outage = on_outage
        self._lock = threading.Lock()
        self._by_service: dict[int, _ReportedMember] = {}
        self._counts: dict[str, metrics.Reporting] = {}

    def join(
        self,
        host: str,
        group: str,
        service: Any,
        report: Callable[[Any], None],
        unwell: str = "",
    ) -> bool:
        """Join a group: report now, and then on the service's timer.

        A service whose report_interval is 0 does not report.

        :param report: what the timer calls, with the service
        :param unwell: why the member cannot do its work; empty: it can
        :returns: whether the first report is known to have succeeded
        """
        interval = service.report_interval
        if not interval:
            return False
        member = _ReportedMember(_membership(host, group, service))
        member.membership.unwell = _printable(unwell)
        with self._lock:
            self._by_service[id(service)] = member
        # On a thread: a backend that hangs must not keep the service from
        # starting.
        done = threading.Event()
        threading.Thread(
            target=self._report_first, args=[member, done], daemon=True
        ).start()
        done.wait(JOIN_WAIT)
        # Earlier than usual if service_down_time is short.
        delay = min(INITIAL_REPORTING_DELAY, CONF.service_down_time / 2.5)
        with self._lock:
            # A reload may have been faster, and has joined again.
            if not member.left:
                member.timer = service.tg.add_timer_args(
                    interval, report, args=[service], initial_delay=delay
                )
        return done.is_set() and not (member.trouble or member.left)

    def members(self) -> list[Reported]:
        """Return how the reports of each member go."""
        now = time.monotonic()
        return [
            Reported(
                one.membership.host,
                one.membership.group,
                None if one.succeeded_at is None else now - one.succeeded_at,
                one.error,
                one.membership.draining,
            )
            for one in list(self._by_service.values())
        ]

    def report_state(self, service: Any) -> None:
        """Report for a service that joined: its timer calls this.

        Never raises; trouble is logged once when it begins and once when it
        ends.
        """
        member = self._by_service.get(id(service))
        if member is None:
            ref = service.service_ref
            if ref is None:
                # It left after its timer began this call.
                return
            member = _ReportedMember(
                _membership(ref["host"], ref["topic"], service)
            )
            # The interval of its timer is not known.
            member.membership.interval = CONF.report_interval
            member.trouble = bool(
                getattr(service, "model_disconnected", False)
            )
            member.log = trouble_log.TroubleLog(told=member.trouble)
            self._report(member)
            # An outage ends here, as the next call makes another member.
            self._outage_ends(member)
            return
        time.sleep(random.uniform(0, JITTER * member.membership.interval))
        self._report(member)

    def drain(self, host: str, group: str) -> None:
        """Report, now and from now on, that a member is about to stop.

        Never raises; trouble is logged as for any report.
        """
        self._report_change(host, group, draining=True)

    def unwell(self, host: str, group: str, reason: str) -> None:
        """Report, now and from now on, that a member cannot do its work.

        Never raises; trouble is logged as for any report.

        :param reason: why, as a clause; empty: it can again
        """
        self._report_change(host, group, unwell=_printable(reason))

    def _report_change(self, host: str, group: str, **fields: Any) -> None:
        for member in list(self._by_service.values()):
            membership = member.membership
            if (membership.host, membership.group) == (host, group):
                for name, value in fields.items():
                    setattr(membership, name, value)
                # Wait for a report under way, which does not contain this.
                member.wait()
                member.give()
                self._report(member)

    def leave(self, host: str, group: str) -> None:
        """Leave a group, also if another process joined it.

        :raises BackendError: the backend was not told; observers see the
            member go down by silence instead
        """
        with self._lock:
            leaving = [
                (key, member)
                for key, member in self._by_service.items()
                if member.membership.host == host
                and member.membership.group == group
            ]
            for key, member in leaving:
                member.stop()
                del self._by_service[key]
                self._outage_ends(member)
        if not leaving:
            service = standalone.Standalone(host, group)
            self._driver.withdraw(_membership(host, group, service))
            return
        trouble = None
        for _, member in leaving:
            # After a report under way, which would make the member up again.
            member.wait()
            try:
                self._driver.withdraw(member.membership)
            except Exception as error:
                # The others leave nevertheless.
                trouble = error
            finally:
                member.give()
        if trouble is not None:
            raise trouble

    def _report_first(
        self, member: _ReportedMember, done: threading.Event
    ) -> None:
        try:
            self._report(member)
        finally:
            done.set()

    def _report(self, member: _ReportedMember) -> None:
        # A report that is still under way takes the place of this one.
        if not member.take():
            self._is_slow(member)
            return
        try:
            if not member.left:
                self._report_locked(member)
        except Exception:
            # An exception would end the timer, and so all reports.
            if member.failure is None:
                member.failure = trouble_log.TroubleLog()
            if member.failure.begins():
                LOG.exception(
                    "Unexpected error while reporting the state of %s to the "
                    "group %s. Reports go on",
                    member.membership.host,
                    member.membership.group,
                )
        else:
            if member.failure is not None:
                member.failure.ends()
        finally:
            member.give()

    def _report_locked(self, member: _ReportedMember) -> None:
        membership = member.membership
        service = membership.service
        trouble = None
        member.begun = begun = time.monotonic()
        if member.failing_since is not None:
            membership.reported_outage = member.failing_since, member.certain
        elif begun > member.reported_until:
            membership.reported_outage = None
        try:
            self._driver.report(membership)
        except Exception as error:
            # Logged below, as inside this block oslo.log would add its text
            # to the line once more.
            trouble = exception.as_backend_error(
                error, f"the driver {self._driver.name}"
            )
        member.begun = None
        took = time.monotonic() - begun
        if member.left:
            # The error may only mean that connections were closed.
            return
        self._count(membership, took, trouble)
        if trouble is not None and not isinstance(
            trouble, (exception.MemberVanished, exception.NotRegistered)
        ):
            self._outage_goes_on(member, begun)
        else:
            slow = took > membership.interval or member.certain > begun
            if trouble is None and slow:
                self._outage_goes_on(member, begun)
            self._outage_ends(member)
        member.error = "" if trouble is None else str(trouble)
        if trouble is None:
            member.succeeded_at = time.monotonic()
        if trouble is not None:
            # Nova's own code, and its operators, read this attribute.
            member.trouble = service.model_disconnected = True
            if member.log is None:
                member.log = trouble_log.TroubleLog()
            if member.log.begins():
                _log_trouble(membership, trouble)
        elif member.trouble:
            member.trouble = service.model_disconnected = False
            if member.log is not None and member.log.ends():
                LOG.info(
                    "The state of %s is reported to the group %s again",
                    membership.host,
                    membership.group,
                )

    def _count(
        self,
        membership: base.Membership,
        seconds: float,
        trouble: Exception | None,
    ) -> None:
        counts = self._counts.get(membership.group)
        if counts is None:
            counts = self._counts[membership.group] = (
                metrics.current().reporting(
                    self._driver.name, membership.group
                )
            )
        counts.done(seconds, failed=trouble is not None)

    # -- outages

    def _is_slow(self, member: _ReportedMember) -> None:
        """Note an outage if the report under way takes too long."""
        begun = member.begun
        if begun is None or member.left:
            return
        if time.monotonic() - begun > 0.9 * member.membership.interval:
            self._outage_goes_on(member, begun)

    def _outage_goes_on(self, member: _ReportedMember, begun: float) -> None:
        if member.failing_since is None:
            member.failing_since = begun
        member.certain = time.monotonic()
        self._tell(member, member.failing_since, over=False)

    def _outage_ends(self, member: _ReportedMember) -> None:
        if member.failing_since is not None:
            self._tell(member, member.failing_since, over=True)
            # For observers that begin later, or poll rarely.
            member.membership.reported_outage = (
                member.failing_since,
                member.certain,
            )
            member.reported_until = time.monotonic() + CONF.service_down_time
            member.failing_since = None

    def _tell(self, member: _ReportedMember, since: float, over: bool) -> None:
        if self._on_outage is not None:
            source = id(member), member.membership.host
            span = since, member.certain
            self._on_outage(member.membership.group, source, *span, over)

    def close(self) -> None:
        """Stop the timers; no member is withdrawn."""
        with self._lock:
            members, self._by_service = self._by_service, {}
            for one in members.values():
                one.stop()
        for one in members.values():
            self._outage_ends(one)


def _printable(reason: str) -> str:
    """Return a reason as one line that every backend can store."""
    line = " ".join(reason.split())[:MAX_REASON]
    return "".join(one if one.isprintable() else "?" for one in line)


def _membership(host: str, group: str, service: Any) -> base.Membership:
    return base.Membership(
        host=host,
        group=group,
        binary=getattr(service, "binary", None) or f"nova-{group}",
        service=service,
        interval=service.report_interval,
        domain=CONF.servicegroup.failure_domain,
    )


def _log_trouble(
    membership: base.Membership, error: exception.BackendError
) -> None:
    if isinstance(error, exception.MemberVanished):
        LOG.error("%s", error)
        return
    LOG.warning(
        "Cannot report the state of %(host)s to the group %(group)s: "
        "%(error)s. Trying again every %(interval)g s",
        {
            "host": membership.host,
            "group": membership.group,
            "error": error,
            "interval": membership.interval,
        },
    )
    if isinstance(error, exception.UnexpectedError):
        LOG.debug("Traceback of this error:", exc_info=error)
