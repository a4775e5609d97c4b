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

"""Restoring the services of a session, in order, when it is connected.

Here: Restorer, the services of one session and the thread that restores them.
Not here: what a service restores (service.py, membership.py), and when the
session is connected (session.py).
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from nova_sg import zookeeper

LOG = logging.getLogger(__name__)

# Seconds until a service whose restore() failed is restored again.
RETRY_INTERVAL = 1.0


class Restorer:
    """The services of a session, from its beginning to its close().

    All methods are called with the session's condition held. The services'
    own restore() is called without it, as it may wait for answers.

    :ivar thread: the thread that restores; it starts with the first service.
    """

    def __init__(
            self, condition: threading.Condition,
            is_connected: Callable[[], bool]) -> None:
        self._condition = condition
        self._is_connected = is_connected
        self._connections = 0
        self._closed = False
        # The services in the order in which they were added, and those that
        # have to be restored, in the same order.
        self._services: dict[Any, None] = {}
        self._due: dict[Any, None] = {}
        self.thread: threading.Thread | None = None

    def add(self, service: Any) -> None:
        self._services[service] = None
        if self.thread is None:
            self.thread = threading.Thread(
                target=self._run, name="nova_sg.evzookeeper restorer",
                daemon=True)
            self.thread.start()

    def remove(self, service: Any) -> None:
        self._services.pop(service, None)
        self._due.pop(service, None)

    def soon(self, service: Any) -> None:
        """Restore a service as soon as possible."""
        if service in self._services:
            self._due[service] = None
            self._condition.notify_all()

    def connected(self) -> None:
        """A server is connected: restore all services."""
        self._connections += 1
        self._due = dict(self._services)
        self._condition.notify_all()

    def close(self) -> list[Any]:
        """End the thread, soon, and return the services."""
        self._closed = True
        services = list(self._services)
        self._services.clear()
        self._due.clear()
        self._condition.notify_all()
        return services

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._closed
                    or self._is_connected() and self._due)
                if self._closed:
                    return
                due, self._due = self._due, {}
                connections = self._connections
            failed: list[Any] = []
            for service in due:
                with self._condition:
                    if (not self._is_connected()
                            or self._connections != connections):
                        # After the next connection all services are restored
                        # again, so that they keep their order.
                        failed = []
                        break
                if not _restored(service):
                    failed.append(service)
            if not failed:
                continue
            with self._condition:
                # A new connection makes all services due at once.
                self._condition.wait_for(
                    lambda: self._closed
                    or self._connections != connections,  # noqa: B023
                    RETRY_INTERVAL)
                self._due = {
                    service: None for service in self._services
                    if service in failed or service in self._due}


def _restored(service: Any) -> bool:
    try:
        service.restore()
    except zookeeper.ZooKeeperException as exc:
        # Most likely the connection has broken again.
        LOG.debug("%r is not restored: %s", service, exc)
        return False
    except Exception:
        LOG.exception("%r is not restored; trying again", service)
        return False
    return True
