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

"""A member without a service: its reports are sent by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from nova_sg.conf import CONF


class _Timer:
    """Calls a function at an interval, on a thread, until stopped."""

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
            # wait() may return False though stop() was called at the end.
            if self._stopped.is_set():
                return
            begun = time.monotonic()
            self._function(*self._args)
            delay = max(0.0, self._interval - (time.monotonic() - begun))

    def stop(self) -> None:
        self._stopped.set()


class Timers:
    """What join() needs of an oslo.service thread group."""

    def add_timer_args(
        self,
        interval: float,
        callback: Callable,
        args: list,
        initial_delay: float = 0,
    ) -> _Timer:
        return _Timer(interval, callback, args, initial_delay)


class Standalone:
    """Takes the place of the service of a member that has none."""

    def __init__(self, host: str, topic: str) -> None:
        self.host = host
        self.topic = topic
        self.binary = f"nova-{topic}"
        self.report_interval = CONF.report_interval
        self.service_ref = None
        self.tg = Timers()
