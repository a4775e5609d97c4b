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

"""A driver of masakari-hostmonitor, by the entry point hostmonitor.driver.

Only masakari-hostmonitor imports this module: it needs masakari-monitors.
"""

from __future__ import annotations

import math

from masakarimonitors.ha import masakari
from masakarimonitors.hostmonitor import driver
from masakarimonitors.objects.event_constants import EventConstants
from openstack import exceptions
from oslo_log import log as logging
from oslo_service import loopingcall

from nova_sg import config, servicegroup
from nova_sg.actions import engine, factory, handlers, schedule
from nova_sg.conf import CONF
from nova_sg.servicegroup import events, process

LOG = logging.getLogger(__name__)

# Seconds that Masakari's API may take to answer, unless [api] timeout is set.
API_TIMEOUT = 30


class HostMonitor(driver.DriverBase):
    """Reports to Masakari which hosts of the group are down, and up again.

    :raises ConfigError: an option of nova_sg is wrong; masakari-hostmonitor
        logs it and ends
    """

    def __init__(self) -> None:
        super().__init__()
        config.check()
        # By default a request waits for its answer for ever.
        patience = math.ceil(min(CONF.events.time_limit, API_TIMEOUT))
        CONF.set_default("timeout", patience, group="api")
        self._notifier = Notifier(CONF.masakari.fence, CONF.events.time_limit)
        self._causes = frozenset(CONF.masakari.causes)
        if not CONF.masakari.fence:
            LOG.warning(
                "[masakari] fence is not set: Masakari is told of hosts that "
                "are down with host_status UNKNOWN, and does nothing. Set it "
                "to a command that powers a host off"
            )
        self._engine: engine.Engine | None = None
        self._subscription: events.Subscription | None = None
        # Without a timer eventlet's hub, in a process that is not patched,
        # notices SIGTERM after up to a minute.
        self._timer = loopingcall.FixedIntervalLoopingCall(lambda: None)

    def monitor_hosts(self) -> None:
        """Begin, and return: other threads do the work until stop()."""
        api = servicegroup.API()
        # A later refresh always has to confirm that a host is still down.
        down_for = max(
            CONF.events.down_for, CONF.servicegroup.view_refresh_interval
        )
        self._engine = factory.make_engine(
            CONF.topic,
            [self._notifier],
            api,
            lambda event: None,
            only=(events.DOWN, events.UP),
            down_for=down_for,
            # One connection, which threads cannot share.
            parallel=1,
        )
        self._subscription = api.watch(CONF.topic, self._receive)
        self._timer.start(interval=1)
        LOG.info("Watching the group %s for Masakari", CONF.topic)

    def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
        if self._engine is not None:
            self._engine.close(CONF.events.time_limit)
        process.reset()
        self._timer.stop()

    def _receive(self, event: events.Event) -> None:
        if event.type == events.DOWN:
            kept = None
            if event.cause not in self._causes:
                kept = "its cause is not among [masakari] causes"
            elif event.host == CONF.hostname:
                kept = "this process runs there"
            if kept:
                LOG.info(
                    "Not reported to Masakari: %(host)s is down "
                    "(%(reason)s), and %(kept)s",
                    {"host": event.host, "reason": event.reason, "kept": kept},
                )
                return
        assert self._engine is not None
        # Of other types some cancel a report that waits.
        self._engine.put(event)


class Notifier(engine.Handler):
    """Sends notifications to Masakari's API.

    The connection and the credentials are those of masakari-monitors, in its
    section [api].

    :param fence: a command that makes sure that a host is off; None: it is
        not known whether hosts are off
    :param limit: seconds that the command may run
    :raises ConfigError: the command cannot be read
    """

    name = "the notification to Masakari"

    def __init__(self, fence: str | None, limit: float) -> None:
        self._fence = handlers.Command(fence, limit) if fence else None
        # The fence, a new token and the notification.
        self.longest = limit + 2 * CONF.api.timeout
        self._sender = masakari.SendNotification()
        # The hosts that Masakari knows to be down, by this process.
        self._stopped: set[str] = set()

    def act(self, job: schedule.Job) -> None:
        host = job.event.host
        if job.event.type == events.DOWN:
            status = EventConstants.HOST_STATUS_UNKNOWN
            if self._fence is not None:
                self._fence.act(job)
                status = EventConstants.HOST_STATUS_NORMAL
            self._send(
                job.event,
                event=EventConstants.EVENT_STOPPED,
                cluster_status=EventConstants.CLUSTER_STATUS_OFFLINE,
                host_status=status,
            )
            self._stopped.add(host)
        elif host in self._stopped:
            self._send(
                job.event,
                event=EventConstants.EVENT_STARTED,
                cluster_status=EventConstants.CLUSTER_STATUS_ONLINE,
                host_status=EventConstants.HOST_STATUS_NORMAL,
            )
            self._stopped.discard(host)

    def _send(self, about: events.Event, **payload: str) -> None:
        # Its send_notification() logs errors and returns nothing.
        try:
            self._sender.masakari_client.create_notification(
                type=EventConstants.TYPE_COMPUTE_HOST,
                hostname=about.host,
                generated_time=about.at.replace(tzinfo=None),
                payload=payload,
            )
        except Exception as error:
            status = getattr(error, "status_code", None)
            if isinstance(error, exceptions.HttpException) and status in (
                400,
                409,
            ):
                # To repeat it would change nothing.
                LOG.warning(
                    "Masakari refuses the notification that %(host)s is "
                    "%(event)s: %(error)s. Nothing is done about this host. "
                    "409: it has this notification already, or the host is "
                    "under maintenance. 400: add the host to a failover "
                    "segment",
                    {
                        "host": about.host,
                        "event": payload["event"],
                        "error": error,
                    },
                )
                return
            # With a new token next time.
            self._sender = masakari.SendNotification()
            raise engine.Failed(
                str(error) or type(error).__name__
            ) from error
        LOG.info(
            "Told Masakari that %(host)s is %(event)s, host_status "
            "%(status)s: %(reason)s",
            {
                "host": about.host,
                "event": payload["event"],
                "status": payload["host_status"],
                "reason": about.reason,
            },
        )
