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

"""Reporting: what this process joined, and the reports that keep it alive.

A report is sent by a timer of the service that joined (a looping call of
oslo.service, in Nova's services and in ours), or by a thread of this module
for whoever joins without a service. Nothing raises out of a timer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, metrics, threads
from nova_sg import trouble as trouble_log
from nova_sg.backends import base
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# The timer's first report comes this many seconds after the one that is sent
# at join, as Nova has it.
INITIAL_REPORTING_DELAY = 5
# Each report waits a random part of the interval, up to this, so that nodes
# that were started in one instant do not stay in step.
JITTER = 0.1
# join() waits this long for the first report to get through.
JOIN_WAIT = 1.0


class _Timer:
    """Calls a function every so often, on a thread, until stopped."""

    def __init__(
        self, interval: float, function: Callable, args: list, delay: float
    ) -> None:
        self._interval = interval
        self._function = function
        self._args = args
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=[delay], daemon=True, name="nova-sg-report"
        )
        self._thread.start()

    def _run(self, delay: float) -> None:
        while not self._stopped.wait(delay):
            # wait() says no as well where both came at once.
            if self._stopped.is_set():
                return
            begun = time.monotonic()
            self._function(*self._args)
            delay = max(0.0, self._interval - (time.monotonic() - begun))

    def stop(self) -> None:
        self._stopped.set()


class _Timers:
    """As much of an oslo.service thread group as joining takes."""

    def add_timer_args(
        self,
        interval: float,
        callback: Callable,
        args: list,
        initial_delay: float = 0,
    ) -> _Timer:
        return _Timer(interval, callback, args, initial_delay)


class Standalone:
    """Stands in for the service of somebody who joins without one."""

    def __init__(self, host: str, topic: str) -> None:
        self.host = host
        self.topic = topic
        self.binary = f"nova-{topic}"
        self.report_interval = CONF.report_interval
        self.service_ref = None
        self.tg = _Timers()


class _Joined:
    """A membership and the state of its reporting."""

    def __init__(self, membership: base.Membership) -> None:
        self.membership = membership
        self.timer: Any = None
        # Held while a report or the withdrawal is under way: they must not
        # overtake each other.
        self.lock = threading.Lock()
        self.left = False
        # Whether the last report failed, and when that is logged.
        self.trouble = False
        self.log = trouble_log.Trouble()
        # When a failure beside the driver is logged.
        self.failure = trouble_log.Trouble()
        # When the report under way began; None: none is.
        self.begun: float | None = None
        # When the first report began that did not get through, or took too
        # long; None: the last one did.
        self.stalled: float | None = None
        # Up to when that is certain: nothing is known of the time from the
        # end of a report that failed to the next one.
        self.certain = float("-inf")
        # Until when others are told of the last such time.
        self.tells = float("-inf")

    def stop(self) -> None:
        """Send no more reports."""
        self.left = True
        if self.timer is None:
            return
        self.timer.stop()
        done = getattr(self.membership.service.tg, "timer_done", None)
        if done is not None:
            done(self.timer)


class Reporter:
    """All that this process has joined through one driver."""

    def __init__(
        self,
        driver: base.Driver,
        on_stall: Callable[[str, Hashable, float, float, bool], None]
        | None = None,
    ) -> None:
        """Make a reporter.

        :param on_stall: told of reports that do not get through, or take
            longer than their interval: the group, whose they are, since
            when, and up to when that is certain, on the monotonic clock; and
            whether it is over
        """
        self._driver = driver
        self._on_stall = on_stall
        self._lock = threading.Lock()
        self._by_service: dict[int, _Joined] = {}
        self._counts: dict[str, metrics.Reporting] = {}

    def join(
        self,
        host: str,
        group: str,
        service: Any,
        report: Callable[[Any], None],
    ) -> bool:
        """Join a group: report now, and on service's timer from then on.

        A service whose report_interval is 0 does not report.

        :param report: what the timer calls, with service
        :returns: whether the first report is known to have got through
        """
        interval = service.report_interval
        if not interval:
            return False
        joined = _Joined(_membership(host, group, service))
        with self._lock:
            self._by_service[id(service)] = joined
        # On a thread: a backend that hangs must not keep the service from
        # starting.
        first = threading.Thread(
            target=self._report, args=[joined], daemon=True
        )
        first.start()
        threads.join(first, JOIN_WAIT)
        # A short service_down_time does not allow for the usual delay.
        delay = min(INITIAL_REPORTING_DELAY, CONF.service_down_time / 2.5)
        with self._lock:
            # A reload may have come first: it has joined anew.
            if not joined.left:
                joined.timer = service.tg.add_timer_args(
                    interval, report, args=[service], initial_delay=delay
                )
        return not (first.is_alive() or joined.trouble or joined.left)

    def report_state(self, service: Any) -> None:
        """Report for a service that joined: what its timer calls.

        Never raises; trouble is logged once when it begins and once when it
        ends.
        """
        joined = self._by_service.get(id(service))
        if joined is None:
            ref = service.service_ref
            if ref is None:
                # It has left, and its timer had begun this call before.
                return
            joined = _Joined(_membership(ref["host"], ref["topic"], service))
            # Of its timer we know nothing.
            joined.membership.interval = CONF.report_interval
            joined.trouble = bool(
                getattr(service, "model_disconnected", False)
            )
            joined.log = trouble_log.Trouble(told=joined.trouble)
            self._report(joined)
            # Nor will anybody hear that it is over.
            self._stall_ends(joined)
            return
        time.sleep(random.uniform(0, JITTER * joined.membership.interval))
        self._report(joined)

    def drain(self, host: str, group: str) -> None:
        """Report, now and from now on, that a member is about to stop.

        Never raises; trouble is logged as that of any report.
        """
        for joined in list(self._by_service.values()):
            membership = joined.membership
            if (membership.host, membership.group) == (host, group):
                membership.draining = True
                # One that is under way does not say so.
                with joined.lock:
                    pass
                self._report(joined)

    def leave(self, host: str, group: str) -> None:
        """Leave a group; who did not join it may leave it, too.

        :raises BackendError: the word did not get through; observers see
            the member go down by its silence instead
        """
        with self._lock:
            leaving = [
                (key, joined)
                for key, joined in self._by_service.items()
                if joined.membership.host == host
                and joined.membership.group == group
            ]
            for key, joined in leaving:
                joined.stop()
                del self._by_service[key]
                self._stall_ends(joined)
        if not leaving:
            service = Standalone(host, group)
            self._driver.withdraw(_membership(host, group, service))
            return
        trouble = None
        for _, joined in leaving:
            # A report under way ends first, or it would bring the member
            # back.
            with joined.lock:
                try:
                    self._driver.withdraw(joined.membership)
                except Exception as error:
                    # The others leave all the same.
                    trouble = error
        if trouble is not None:
            raise trouble

    def _report(self, joined: _Joined) -> None:
        # A report that is still under way will do for this one, too.
        if not joined.lock.acquire(blocking=False):
            self._is_slow(joined)
            return
        try:
            if not joined.left:
                self._report_locked(joined)
        except Exception:
            # It would end the timer: the member would never report again.
            if joined.failure.begins():
                LOG.exception("Unexpected error while reporting state")
        else:
            joined.failure.ends()
        finally:
            joined.lock.release()

    def _report_locked(self, joined: _Joined) -> None:
        membership = joined.membership
        service = membership.service
        trouble = None
        joined.begun = begun = time.monotonic()
        if joined.stalled is not None:
            membership.away = joined.stalled, joined.certain
        elif begun > joined.tells:
            membership.away = None
        try:
            self._driver.report(membership)
        except Exception as error:
            # Logged outside: inside, oslo.log adds the error once more.
            trouble = exception.as_backend_error(
                error, f"the driver {self._driver.name}"
            )
        joined.begun = None
        took = time.monotonic() - begun
        if joined.left:
            # Connections may have been closed under it: nothing to tell.
            return
        self._count(membership, took, trouble)
        if trouble is not None and not isinstance(
            trouble, (exception.MemberVanished, exception.NotRegistered)
        ):
            self._stall_goes_on(joined, begun)
        else:
            slow = took > membership.interval or joined.certain > begun
            if trouble is None and slow:
                self._stall_goes_on(joined, begun)
            self._stall_ends(joined)
        if trouble is not None:
            # Nova's own code, and its operators, look at this attribute.
            joined.trouble = service.model_disconnected = True
            if joined.log.begins():
                _log_trouble(membership, trouble)
        elif joined.trouble:
            joined.trouble = service.model_disconnected = False
            if joined.log.ends():
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

    # -- what is no fault of the members

    def _is_slow(self, joined: _Joined) -> None:
        """Tell of a report that is under way for longer than it may be."""
        begun = joined.begun
        if begun is None or joined.left:
            return
        if time.monotonic() - begun > 0.9 * joined.membership.interval:
            self._stall_goes_on(joined, begun)

    def _stall_goes_on(self, joined: _Joined, begun: float) -> None:
        if joined.stalled is None:
            joined.stalled = begun
        joined.certain = time.monotonic()
        self._tell(joined, joined.stalled, over=False)

    def _stall_ends(self, joined: _Joined) -> None:
        if joined.stalled is not None:
            self._tell(joined, joined.stalled, over=True)
            # Observers that begin late, or look rarely, hear it, too.
            joined.membership.away = joined.stalled, joined.certain
            joined.tells = time.monotonic() + CONF.service_down_time
            joined.stalled = None

    def _tell(self, joined: _Joined, since: float, over: bool) -> None:
        if self._on_stall is not None:
            who = id(joined), joined.membership.host
            span = since, joined.certain
            self._on_stall(joined.membership.group, who, *span, over)

    def close(self) -> None:
        """Stop the timers; nobody is withdrawn."""
        with self._lock:
            joined, self._by_service = self._by_service, {}
            for one in joined.values():
                one.stop()
        for one in joined.values():
            self._stall_ends(one)


def _membership(host: str, group: str, service: Any) -> base.Membership:
    return base.Membership(
        host=host,
        group=group,
        binary=getattr(service, "binary", None) or f"nova-{group}",
        service=service,
        interval=service.report_interval,
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
        LOG.debug("That comes from here:", exc_info=error)
