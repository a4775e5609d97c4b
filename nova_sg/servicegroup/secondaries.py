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

"""Reports to secondaries: led by the timer of the service that joined.

The timer reports to the primary by itself. Each secondary has a thread, so
that one that hangs delays nobody. The thread does not go by itself: where the
timer stands still, the service is in trouble, and no backend may hear
otherwise. Only where the timer stands in a report to the primary it goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nova_sg.servicegroup import reporter


class Lead:
    """The timer of one service, as those see it who follow it.

    :param service: whoever has joined
    """

    def __init__(self, host: str, group: str, service: Any) -> None:
        self.host = host
        self.group = group
        self.service = service
        self.followers: list[Follower] = []
        # Whether a report to the primary is under way.
        self.reporting = False
        #: Whether the member has left for good.
        self.left = False

    def follow(self, to: reporter.Reporter) -> None:
        """Join by a secondary; from now on it is reported to as well."""
        follower = Follower(self)
        to.join(self.host, self.group, follower, to.report_state)

    @contextlib.contextmanager
    def report(self) -> Iterator[None]:
        """Have all followers report; within, the primary is told."""
        self.reporting = True
        for follower in self.followers:
            follower.wake.set()
        try:
            yield
        finally:
            self.reporting = False


class Follower:
    """Stands in for a service, towards one secondary's reporter.

    Trouble with a secondary is not the service's trouble: its
    model_disconnected says nothing of it.
    """

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self.host = lead.host
        self.binary = getattr(lead.service, "binary", None)
        self.report_interval = lead.service.report_interval
        self.model_disconnected = False
        #: Where timers are made.
        self.tg = self
        self.wake = threading.Event()
        self._stopped = False
        lead.followers.append(self)

    @property
    def service_ref(self) -> Any:
        """The record that the service holds, as it is now."""
        return self._lead.service.service_ref

    def add_timer_args(
        self,
        interval: float,
        callback: Callable,
        args: list,
        initial_delay: float = 0,
    ) -> Follower:
        """Have callback called, on a thread, when the service's timer comes.

        The delay is the timer's affair.
        """
        if self._lead.left:
            # While it was joining.
            return self
        threading.Thread(
            target=self._run,
            args=[interval, callback, args],
            daemon=True,
            name="nova-sg-report",
        ).start()
        return self

    def _run(self, interval: float, callback: Callable, args: list) -> None:
        while not self._stopped:
            led = self.wake.wait(interval)
            self.wake.clear()
            if not self._stopped and (led or self._lead.reporting):
                callback(*args)

    def stop(self) -> None:
        """Report no more."""
        self._stopped = True
        self.wake.set()
