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

"""As much of a service as it takes to join a group of Nova's or nova_sg's."""

import threading
import time


class Timer(threading.Thread):
    """A timer like oslo.service's looping call with a fixed interval."""

    def __init__(self, interval, callback, args, delay):
        super().__init__(daemon=True)
        self._interval = interval
        self._callback = callback
        self._args = args
        self._delay = delay
        self._stopped = threading.Event()

    def run(self):
        due = time.monotonic() + self._delay
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            begun = time.monotonic()
            self._callback(*self._args)
            due = max(time.monotonic(), begun + self._interval)

    def stop(self):
        self._stopped.set()


class Service:
    """A member that is its own thread group: it has the timers."""

    def __init__(self, host, topic, interval, service_ref=None):
        self.host = host
        self.topic = topic
        self.binary = f"nova-{topic}"
        self.report_interval = interval
        self.service_ref = service_ref
        self.model_disconnected = False
        self.tg = self

    def add_timer_args(self, interval, callback, args, initial_delay=0):
        # Nova waits 5 seconds, which is too long for the short form's
        # service_down_time of 3.
        delay = min(initial_delay, interval)
        timer = Timer(interval, callback, args, delay)
        timer.start()
        return timer
