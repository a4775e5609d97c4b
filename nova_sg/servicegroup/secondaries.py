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

"""Reports to secondaries, triggered by the timer of the service that joined.

The timer itself reports to the primary. For each secondary there is a thread,
so that a backend that hangs delays no other. This thread reports only when
the timer runs: if the timer has stopped, the service hangs, and no backend
may be told that it is alive. There is one exception: while the timer waits
for a report to the primary, the threads go on at its interval.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nova_sg.servicegroup import reporter


class ServiceTimer:
    """The timer of one service, which the secondaries wait for.

    :param service: the service that joined
    """

    def __init__(self, host: str, group: str, service: Any) -> None:
        self.host = host
        self.group = group
        self.service = service
        self.secondaries: list[SecondaryService] = []
        # Whether a report to the primary is under way.
        self.reporting = False
        #: Whether the member has left for good.
        self.left = False

    def follow(self, to: reporter.Reporter) -> None:
        """Join through a secondary, and report to it from now on."""
        secondary = SecondaryService(self)
        to.join(self.host, self.group, secondary, to.report_state)

    @contextlib.contextmanager
    def report(self) -> Iterator[None]:
        """Trigger all secondaries; a context for the report to the primary."""
        self.reporting = True
        for secondary in self.secondaries:
            secondary.wake.set()
        try:
            yield
        finally:
            self.reporting = False


class SecondaryService:
    """Takes the place of the service for the reporter of one secondary.

    It has a model_disconnected of its own: trouble with a secondary does not
    change the service's.
    """

    def __init__(self, timer: ServiceTimer) -> None:
        self._timer = timer
        self.host = timer.host
        self.binary = getattr(timer.service, "binary", None)
        self.report_interval = timer.service.report_interval
        self.model_disconnected = False
        #: Where timers are made.
        self.tg = self
        self.wake = threading.Event()
        self._stopped = False
        timer.secondaries.append(self)

    @property
    def service_ref(self) -> Any:
        """The record that the service holds, as it is now."""
        return self._timer.service.service_ref

    def add_timer_args(
        self,
        interval: float,
        callback: Callable,
        args: list,
        initial_delay: float = 0,
    ) -> SecondaryService:
        """Call callback, on a thread, each time the service's timer runs.

        The delay is not used: the timer has it.
        """
        if self._timer.left:
            # It left while it was joining.
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
            triggered = self.wake.wait(interval)
            self.wake.clear()
            if not self._stopped and (triggered or self._timer.reporting):
                callback(*args)

    def stop(self) -> None:
        """Stop reporting."""
        self._stopped = True
        self.wake.set()
