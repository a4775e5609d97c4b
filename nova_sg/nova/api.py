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

"""The API inside Nova: nova_sg's, with additions for Nova.

It is imported after Nova's own servicegroup module.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import types
from collections.abc import Mapping
from typing import Any

import nova.conf.servicegroup
from oslo_log import log as logging

from nova_sg import config, exception, grace, servicegroup, threads, version
from nova_sg.backends import base
from nova_sg.backends.db import driver as db
from nova_sg.backends.db import records as db_records
from nova_sg.conf import CONF
from nova_sg.conf import servicegroup as options
from nova_sg.guard import orders
from nova_sg.liveness.model import UP, Refresh, Verdict
from nova_sg.nova import names, rpc_health, unknown, workers
from nova_sg.servicegroup import api as api_module
from nova_sg.servicegroup import process

LOG = logging.getLogger(__name__)

#: The group of Nova's compute services: their topic.
COMPUTES = "compute"
# Seconds that a service which stops waits for leaving its group.
LEAVE_WAIT = 5.0


class NovaDbDriver(base.Driver):
    """The db driver inside Nova.

    Reports go through the Service object of Nova's service; nova-conductor
    writes it if the process has no database. Members are judged by the record
    that the caller brings along. The driver opens no connection of its own
    and does not read [database], which may be missing or meant for another
    database.
    """

    name = db.DbDriver.name
    characteristics = db.DbDriver.characteristics
    observes = False

    def __init__(self) -> None:
        self._records = db_records.Reader()
        self._orders = orders.Orders(self.name)

    def report(self, membership: base.Membership) -> None:
        ref = membership.service.service_ref
        self._orders.impossible(
            "inside Nova this process has no database connection for it"
        )
        self._save(ref, (getattr(ref, "report_count", None) or 0) + 1)

    def withdraw(self, membership: base.Membership) -> None:
        self._save(membership.service.service_ref, 0)

    @staticmethod
    def _save(ref: Any, report_count: int) -> None:
        if not hasattr(ref, "save"):
            raise _not_observable()
        db_records.save(ref, report_count)

    def read_record(self, member: Mapping) -> base.Record | None:
        return self._records.read(member)

    def observe(self, group: str) -> Refresh:
        raise _not_observable()

    def groups(self) -> list[str]:
        raise _not_observable()

    def force_down(self, group: str, host: str, forced: bool) -> None:
        raise _not_observable()

    def forget(self, group: str, host: str) -> None:
        raise _not_observable()

    def check(self) -> list[base.Finding]:
        return [
            base.Finding(
                True,
                "the services table",
                "inside Nova it is written and read through Nova's records",
            )
        ]

    def close(self) -> None:
        self._orders.cancel_all()


def _not_observable() -> exception.BackendError:
    return exception.BackendError(
        "inside Nova only Nova itself reads and writes the services table"
    )


class NovaGroupDriver(api_module.GroupDriver):
    """Reads the caller's record with every driver.

    A member that moves to another backend may still report to db. What Nova
    does if a state is not known is in nova_sg.nova.unknown.
    """

    def is_up(self, member: Mapping) -> bool:
        try:
            up = super().is_up(member)
        except exception.ServiceGroupUnavailable as error:
            return self._unknown(member, error, scheduling=False).state == UP
        if _unknown.groups:
            self._known(member)
        return up

    def _unknown(
        self,
        member: Mapping,
        error: exception.ServiceGroupUnavailable,
        scheduling: bool,
    ) -> Verdict:
        """Return the verdict to use for a member, or raise the error."""
        group = member["topic"]
        _unknown.begins(group, error)
        last = self.shared().view(group).observer.last_verdict(member["host"])
        return unknown.taken_for(last, error, scheduling)

    def _known(self, member: Mapping) -> None:
        group = member["topic"]
        # Some states may be known while others are not.
        if (
            group in _unknown.groups
            and not self.shared().view(group).observer.unavailable()
        ):
            _unknown.ends(group)

    def _read_record(self, member: Mapping) -> base.Record | None:
        return _records().read_record(member)


class PlacementDriver(NovaGroupDriver):
    """Asks whether a member accepts new work."""

    def is_up(self, member: Mapping) -> bool:
        try:
            accepts = self.accepts(member)
        except exception.ServiceGroupUnavailable as error:
            return self._unknown(member, error, scheduling=True).accepting
        if _unknown.groups:
            self._known(member)
        return accepts


_unknown = unknown.Log()
_coalesces = config.Derived(lambda: CONF.servicegroup.coalesce_reports)


@functools.cache
def _records() -> NovaDbDriver:
    return NovaDbDriver()


class API(servicegroup.API):
    """nova_sg's API, which replaces nova.servicegroup.API."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _process.log()
        if _coalesces.get():
            # Not earlier: it imports Nova's database API.
            from nova_sg.nova import coalesce

            coalesce.install()

    @staticmethod
    def _make_driver() -> NovaGroupDriver:
        return NovaGroupDriver()

    def join(
        self, member: str | Mapping, group: str, service: Any = None
    ) -> None:
        """Join, and leave when the service stops, which Nova does not do."""
        if hasattr(service, "stop"):
            # First: a signal may stop the service before join() returns.
            _leave_at_stop(self, member, group, service)
        super().join(member, group, service)
        if _process.places:
            _process.follow(self, COMPUTES)


class PlacementAPI(API):
    """The API for the scheduler's filter, which asks where to place work.

    service_is_up() returns whether a member accepts new work.
    """

    @staticmethod
    def _make_driver() -> PlacementDriver:
        # The parent of workers makes the filter; the workers inherit this.
        _process.places = True
        return PlacementDriver()


#: Replaces the module nova.servicegroup in the scheduler's filter.
placement = types.SimpleNamespace(API=PlacementAPI)


def _leave_at_stop(
    api: API, member: str | Mapping, group: str, service: Any
) -> None:
    stop = service.stop
    worker = workers.Worker(
        str(member), group, str(getattr(service, "binary", None))
    )

    def leave() -> None:
        # The last worker leaves for all. Only in backends in which each
        # worker is a member of its own, each leaves by itself.
        try:
            api._driver.leave(member, group, last=worker.is_last())
        except exception.NovaSGError as error:
            LOG.warning(
                "Could not leave the group %(group)s: %(error)s. %(member)s "
                "goes down by silence, after service_down_time",
                {"group": group, "member": member, "error": error},
            )
        except Exception:
            LOG.exception(
                "Unexpected error while leaving the group %(group)s. "
                "%(member)s goes down by silence, after service_down_time",
                {"group": group, "member": member},
            )
        finally:
            worker.done()

    def drain() -> None:
        try:
            # Its RPC server is about to be closed.
            api._driver.end_checks(member, group)
            # While other workers live, the member accepts new work.
            if worker.is_last():
                api._driver.drain(member, group)
        except Exception:
            LOG.exception(
                "Could not report that %(member)s in the group %(group)s is "
                "draining: the scheduler may place new work there until it "
                "has left",
                {"member": member, "group": group},
            )

    @functools.wraps(stop)
    def stop_and_leave(*args: Any, **kwargs: Any) -> Any:
        # On a thread, as for leaving.
        threading.Thread(target=drain, daemon=True).start()
        try:
            return stop(*args, **kwargs)
        finally:
            # On a thread, and for a limited time, so that the service stops
            # even if the backend hangs, or if the code that the signal has
            # interrupted holds a lock.
            leaving = threading.Thread(target=leave, daemon=True)
            leaving.start()
            threads.join(leaving, LEAVE_WAIT)

    service.stop = stop_and_leave


class _Process:
    """Initialises nova_sg once in each process of Nova's that uses it."""

    def __init__(self) -> None:
        #: The pid of the process that has logged that nova_sg is active.
        self.logged = 0
        #: The pid of the process that has checked its hub, and that hub.
        self.pid = 0
        self.hub: Any = None
        #: Whether this process, or its parent, has a filter that asks where
        #: new work may be placed.
        self.places = False
        # The pid of the process that follows a group from its start on.
        self._follows = 0

    def begin(self) -> None:
        """Initialise this process, which may be the child of a fork.

        Not at the fork itself: most children only execute another program, or
        do not use nova_sg, as those of privsep.
        """
        pid = os.getpid()
        if pid != self.pid:
            hubs = sys.modules.get("eventlet.hubs")
            if hubs is not None:
                if self.hub is not None and hubs.get_hub() is self.hub:
                    _take_own_hub(hubs)
                self.hub = hubs.get_hub()
            self.pid = pid
        self.log()

    def follow(self, api: API, group: str) -> None:
        """Begin to follow a group, once in a process, and do not wait.

        So the first request to a scheduler finds the states in memory.
        """
        if self._follows == os.getpid():
            return
        self._follows = os.getpid()

        def follow() -> None:
            try:
                shared = api._driver.shared()
                if shared.observing():
                    # A subscription, as without one the view would be given
                    # up where there is no request for a while.
                    shared.view(group).watch(lambda event: None)
            except Exception:
                LOG.debug(
                    "Cannot follow the group %s yet. It is followed from the "
                    "first question on",
                    group,
                    exc_info=True,
                )

        threading.Thread(
            target=follow, name=f"nova-sg-follow-{group}", daemon=True
        ).start()

    def log(self) -> None:
        """Log that nova_sg is active, once in a process."""
        pid = os.getpid()
        # Not before logging is set up: the message would be lost.
        if pid != self.logged and logging.getLogger(None).logger.handlers:
            self.logged = pid
            LOG.info(
                "nova_sg %(version)s active, driver %(driver)s",
                {
                    "version": version.version_string(),
                    "driver": process.driver_names().replace(",", ", "),
                },
            )


_process = _Process()


def _take_own_hub(hubs: Any) -> None:
    """Replace the hub that this process has inherited by a new one.

    The inherited hub shares its epoll with the parent and its other children:
    each process would take events that the others wait for. oslo.service does
    the same for the workers that it forks.
    """
    greenlet = sys.modules["greenlet"]
    # A green thread cannot replace the hub that it returns to.
    if greenlet.getcurrent().parent is None:
        hubs.use_hub()


def _follow_forks() -> None:
    process.on_first_use(_process.begin)
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None:
        _process.pid, _process.hub = os.getpid(), hubs.get_hub()
    try:
        import uwsgi
    except ImportError:
        return
    # uWSGI forks its workers without calling the functions of
    # os.register_at_fork(), but calls this hook.
    before = getattr(uwsgi, "post_fork_hook", None)

    def after() -> None:
        if before is not None:
            before()
        process.after_fork_in_child()
        _process.begin()

    uwsgi.post_fork_hook = after


def prepare() -> None:
    """Let Nova's option accept all drivers; use NovaDbDriver for db.

    :raises SystemExit: Nova's option is not as expected
    """
    for opt in nova.conf.servicegroup.SERVICEGROUP_OPTS:
        choices = getattr(opt.type, "choices", None)
        if opt.name == "servicegroup_driver" and isinstance(choices, dict):
            for ours in options.DRIVERS:
                choices.setdefault(*ours)
            for name in options.installed():
                choices.setdefault(name, "")
            break
    else:
        names.stop(
            "nova.conf.servicegroup.SERVICEGROUP_OPTS has no option "
            "servicegroup_driver with choices"
        )
    _follow_forks()
    grace.of_nova = True
    process.use("db", NovaDbDriver)
    rpc_health.install()
