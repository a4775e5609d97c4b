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


"""The check of a Nova service's RPC server: the service sends itself a ping.

With the db driver each heartbeat goes through the message queue, so a service
that is cut off from it goes down. With mc and zk nothing else would notice.

The ping is Nova's own (nova/baserpc.py), which every RPC server of Nova's
answers. It goes to the service's own topic and host: what the scheduler, the
API and other services send takes the same way.

This module is imported after Nova's own servicegroup module, and imports
Nova's RPC only when a check is made.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

from nova_sg.conf import CONF
from nova_sg.nova import workers
from nova_sg.servicegroup import health

_NAMESPACE = "baseapi"
_VERSION = "1.0"
# Seconds within which the first ping is sent, at a random moment: many
# computes may start at once.
_DELAY = 10.0


class _Quiet(logging.Filter):
    """Drops what the RabbitMQ driver logs about pings.

    While RabbitMQ is out it would be some lines at each ping, beside those of
    the service's own connections. The check logs the trouble once.
    """

    LOGGER = "oslo.messaging._drivers.impl_rabbit"

    def __init__(self) -> None:
        super().__init__()
        self._threads: set[int] = set()
        logging.getLogger(self.LOGGER).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in self._threads

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *error: object) -> None:
        self._threads.discard(threading.get_ident())


_quiet = _Quiet()


class Ping(health.Check):
    """A ping to the RPC server of the member's own service.

    :param host: the member
    :param topic: its group, which is the topic of its RPC server
    """

    name = "rpc"
    subject = "its RPC server"

    def __init__(self, host: str, topic: str) -> None:
        interval = CONF.servicegroup.rpc_check_interval
        super().__init__(
            interval,
            CONF.servicegroup.rpc_check_time_limit,
            min(interval, _DELAY),
        )
        self._host = host
        self._topic = topic

    def run(self) -> str:
        import oslo_messaging
        from nova import context, rpc

        client = rpc.get_client(
            oslo_messaging.Target(
                topic=self._topic, namespace=_NAMESPACE, version=_VERSION
            )
        ).prepare(
            server=self._host,
            # Of the answer. The broker drops a ping that waits for longer.
            timeout=self.limit,
            # A connection that a restart of the broker has ended is found
            # out by its next use.
            retry=1,
        )
        try:
            with _quiet:
                client.call(
                    context.get_admin_context(), "ping", arg=uuid.uuid4().hex
                )
        except oslo_messaging.RemoteError:
            # An answer, though no good one.
            return ""
        except oslo_messaging.MessagingTimeout:
            return self.no_answer()
        except oslo_messaging.MessageDeliveryFailure:
            # The error has the address of the broker, and may have more.
            return "it cannot send messages: RabbitMQ is unreachable"
        return ""

    def no_answer(self) -> str:
        return (
            f"{self.subject} did not answer a ping by RabbitMQ within "
            f"{self.limit:g} s"
        )


class Workers(health.Workers):
    """The workers of one member, as nova_sg.nova.workers knows them."""

    def __init__(self, *names: str) -> None:
        self._lock = workers.SharedLock("well", *names)
        self._lock.share()

    def is_well(self) -> None:
        self._lock.share()

    def is_alone(self) -> bool:
        if not self._lock.is_known:
            return True
        alone = self._lock.exclude()
        # Another worker that is unwell tries the same.
        self._lock.release()
        return alone

    def done(self) -> None:
        self._lock.close()


def _ping(
    host: str, group: str, service: Any, only_records: bool
) -> health.Check | None:
    """Return the check of a service that has an RPC server."""
    if (
        only_records
        or not CONF.servicegroup.rpc_check_interval
        or getattr(service, "__dict__", {}).get("rpcserver") is None
    ):
        return None
    return Ping(host, group)


def _workers(host: str, group: str, service: Any) -> health.Workers:
    return Workers(host, group, str(getattr(service, "binary", None)))


def install() -> None:
    """Have the members of this process checked from now on."""
    health.add(_ping, _workers)
