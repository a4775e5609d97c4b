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

"""The API as Nova gets it: nova_sg's, with what only Nova needs.

Imported once Nova's own servicegroup module has been.
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

from nova_sg import exception, grace, servicegroup, threads, version
from nova_sg.backends import base
from nova_sg.backends.db import driver as db
from nova_sg.backends.db import records as db_records
from nova_sg.conf import CONF
from nova_sg.conf import servicegroup as options
from nova_sg.guard import keeper
from nova_sg.liveness.model import Refresh
from nova_sg.nova import names, workers
from nova_sg.servicegroup import api as api_module
from nova_sg.servicegroup import process

LOG = logging.getLogger(__name__)

# Seconds that a service which stops waits for its word to get through.
LEAVE_WAIT = 5.0


class NovaDbDriver(base.Driver):
    """The db driver where the database is Nova's affair.

    Reports go through the record that Nova's service has, by nova-conductor
    where the process has no database; verdicts are read off the record that
    the asker brings. No process gets a connection of ours: not a word of
    [database] is read, which may not be there, or not for us.
    """

    name = db.DbDriver.name
    characteristics = db.DbDriver.characteristics
    observes = False

    def __init__(self) -> None:
        self._records = db_records.Reader()
        self._wills = keeper.Wills(self.name)

    def report(self, membership: base.Membership) -> None:
        ref = membership.service.service_ref
        self._wills.impossible(
            "inside Nova its process has no database connection of ours"
        )
        self._save(ref, (getattr(ref, "report_count", None) or 0) + 1)

    def withdraw(self, membership: base.Membership) -> None:
        self._save(membership.service.service_ref, 0)

    @staticmethod
    def _save(ref: Any, report_count: int) -> None:
        if not hasattr(ref, "save"):
            raise _not_ours()
        db_records.save(ref, report_count)

    def read_record(self, member: Mapping) -> base.Record | None:
        return self._records.read(member)

    def observe(self, group: str) -> Refresh:
        raise _not_ours()

    def groups(self) -> list[str]:
        raise _not_ours()

    def force_down(self, group: str, host: str, forced: bool) -> None:
        raise _not_ours()

    def forget(self, group: str, host: str) -> None:
        raise _not_ours()

    def check(self) -> list[base.Finding]:
        return [
            base.Finding(
                True,
                "the services table",
                "inside Nova it is written and read through Nova's records",
            )
        ]

    def close(self) -> None:
        self._wills.revoke_all()


def _not_ours() -> exception.BackendError:
    return exception.BackendError(
        "inside Nova the services table is Nova's to ask"
    )


class NovaGroupDriver(api_module.GroupDriver):
    """Reads each record that it is asked about, whatever the driver.

    A member may still report by the db driver, on its way to another.
    """

    def _read_record(self, member: Mapping) -> base.Record | None:
        return _records().read_record(member)


class PlacementDriver(NovaGroupDriver):
    """Asks whether a member accepts new work."""

    def is_up(self, member: Mapping) -> bool:
        return self.accepts(member)


@functools.cache
def _records() -> NovaDbDriver:
    return NovaDbDriver()


class API(servicegroup.API):
    """nova_sg's API, in the place of nova.servicegroup.API."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._driver = NovaGroupDriver()
        _process.log()
        if CONF.servicegroup.coalesce_reports:
            # Not before: it brings Nova's database API with it.
            from nova_sg.nova import coalesce

            coalesce.install()

    def join(
        self, member: str | Mapping, group: str, service: Any = None
    ) -> None:
        """Join, and leave when the service stops: Nova never does."""
        if hasattr(service, "stop"):
            # First: a signal may stop the service before join() returns.
            _leave_at_stop(self, member, group, service)
        super().join(member, group, service)


class PlacementAPI(API):
    """The same for the scheduler's filter: it asks where to place work.

    service_is_up() says whether a member accepts new work.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._driver = PlacementDriver()


#: What stands for nova.servicegroup where the filter looks for an API.
placement = types.SimpleNamespace(API=PlacementAPI)


def _leave_at_stop(
    api: API, member: str | Mapping, group: str, service: Any
) -> None:
    stop = service.stop
    worker = workers.Worker(
        str(member), group, str(getattr(service, "binary", None))
    )

    def leave() -> None:
        # Where each worker is a member of its own to the backend, it leaves
        # by itself.
        try:
            api._driver.leave(member, group, last=worker.is_last())
        except exception.NovaSGError as error:
            LOG.warning(
                "Could not leave the group %(group)s, %(member)s will be "
                "seen down later: %(error)s",
                {"group": group, "member": member, "error": error},
            )
        except Exception:
            LOG.exception("Could not leave the group %s", group)
        finally:
            worker.done()

    def drain() -> None:
        try:
            # While other workers of it live, the member accepts new work.
            if worker.is_last():
                api._driver.drain(member, group)
        except Exception:
            LOG.exception("Could not report that %s is draining", member)

    @functools.wraps(stop)
    def stop_and_leave(*args: Any, **kwargs: Any) -> Any:
        # On a thread, like leaving.
        threading.Thread(target=drain, daemon=True).start()
        try:
            return stop(*args, **kwargs)
        finally:
            # On a thread: a backend that hangs must not keep the service
            # from stopping, nor must a lock that is held by what a signal
            # has interrupted to stop it.
            leaving = threading.Thread(target=leave, daemon=True)
            leaving.start()
            threads.join(leaving, LEAVE_WAIT)

    service.stop = stop_and_leave


class _Process:
    """What is done once in each process of Nova's that uses nova_sg."""

    def __init__(self) -> None:
        #: The process that has logged that nova_sg is active.
        self.logged = 0
        #: The process that has seen to its hub, and the hub.
        self.pid = 0
        self.hub: Any = None

    def begin(self) -> None:
        """Take up work in this process, perhaps the child of a fork.

        Not at the fork: most children do nothing but become another program,
        or, as privsep's, do not use nova_sg.
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

    def log(self) -> None:
        """Log that nova_sg is active, once in a process."""
        pid = os.getpid()
        # Before the log is set up nothing would be seen.
        if pid != self.logged and logging.getLogger(None).logger.handlers:
            self.logged = pid
            LOG.info(
                "nova_sg %(version)s active, driver %(driver)s",
                {
                    "version": version.version_string(),
                    "driver": process.configured().replace(",", ", "),
                },
            )


_process = _Process()


def _take_own_hub(hubs: Any) -> None:
    """Have a hub of our own in the place of the parent's.

    Its epoll is the parent's and the siblings', too: each would take events
    that the others wait for. oslo.service does this for the workers that it
    forks.
    """
    greenlet = sys.modules["greenlet"]
    # A green thread cannot leave the hub that it returns to.
    if greenlet.getcurrent().parent is None:
        hubs.use_hub()


def _hear_of_forks() -> None:
    process.on_first_use(_process.begin)
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None:
        _process.pid, _process.hub = os.getpid(), hubs.get_hub()
    try:
        import uwsgi
    except ImportError:
        return
    # It tells Python nothing of its forks, unless it is asked to. These are
    # all of workers.
    before = getattr(uwsgi, "post_fork_hook", None)

    def after() -> None:
        if before is not None:
            before()
        process.after_fork_in_child()
        _process.begin()

    uwsgi.post_fork_hook = after


def prepare() -> None:
    """Make Nova's option take all our drivers; give db Nova's meaning.

    :raises SystemExit: Nova's option is not as it is expected
    """
    for opt in nova.conf.servicegroup.SERVICEGROUP_OPTS:
        choices = getattr(opt.type, "choices", None)
        if opt.name == "servicegroup_driver" and isinstance(choices, dict):
            for ours in options.DEFAULT_OPTS[0].type.choices.items():
                choices.setdefault(*ours)
            break
    else:
        names.stop(
            "nova.conf.servicegroup.SERVICEGROUP_OPTS has no option "
            "servicegroup_driver with choices"
        )
    _hear_of_forks()
    grace.of_nova = True
    process.use("db", NovaDbDriver)
