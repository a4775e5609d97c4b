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

"""Has services restored in their order, whenever a server is connected.

Here: Restorer, one session's services and the thread that restores them.
Not here: what a service restores (service.py, membership.py), and when the
session is connected (session.py).
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from nova_sg import zookeeper

LOG = logging.getLogger(__name__)

# Seconds until what failed is restored again.
RETRY_INTERVAL = 1.0


class Restorer:
    """The services of a session, from its begin to its close().

    Everything here is called with the session's condition held, apart from
    the services' own restore(), which may wait for answers.

    :ivar thread: what restores; it starts with the first service.
    """

    def __init__(
            self, condition: threading.Condition,
            is_connected: Callable[[], bool]) -> None:
        self._condition = condition
        self._is_connected = is_connected
        self._connections = 0
        self._closed = False
        # Services in the order in which they came, and those of them that
        # are to be restored, in the same order.
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
        """Have a service restored as soon as possible."""
        if service in self._services:
            self._due[service] = None
            self._condition.notify_all()

    def connected(self) -> None:
        """A server is connected: all have to be restored."""
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
                        # The next connection begins again, with the first:
                        # those that follow must not overtake it.
                        failed = []
                        break
                if not _restored(service):
                    failed.append(service)
            if not failed:
                continue
            with self._condition:
                # A new connection has all services restored, at once.
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
        # A connection that breaks again, most likely.
        LOG.debug("%r not restored: %s", service, exc)
        return False
    except Exception:
        LOG.exception("%r not restored", service)
        return False
    return True
