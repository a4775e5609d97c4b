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

"""Events to a real broker, and from there to a consumer."""

import datetime
import sys
import threading
import time

from nova_sg.actions import engine, notifications, schedule
from nova_sg.servicegroup import events
from tests import base
from tests.fixtures import consumer, rabbitmq

CAUSES = {events.DOWN: "silent", events.UP: "reported"}
HOSTS = ("one", "two", "three")


class Other(engine.Handler):
    """Another handler, which always succeeds."""

    name = "the other"

    def __init__(self):
        self.seen = []

    def act(self, job):
        self.seen.append(job.event)


class Pauses:
    """Notes for how long another thread has stood still."""

    longest = 0.0

    def __enter__(self):
        self._stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop = True
        self._thread.join()

    def _run(self):
        before = time.monotonic()
        while not self._stop:
            time.sleep(0.02)
            now = time.monotonic()
            self.longest = max(self.longest, now - before)
            before = now


class NotificationsTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.broker = self.enterContext(rabbitmq.RabbitMQ())
        self.config = f"{self.folder}/nova-sg.conf"
        with open(self.config, "w") as file:
            file.write(consumer.options(self.broker.url))
        self.other = Other()
        self.queue = notifications.Notifications(
            ["--config-file", self.config],
            limit=3,
            parallel=2,
            publisher="observer1",
            about=lambda group, host: None,
        )
        self.engine = engine.Engine(
            [self.other, self.queue],
            lambda: schedule.Schedule(CAUSES, 0, 600),
            parallel=2,
            confirm=lambda group, host: True,
        )
        self.addCleanup(self.engine.close, base.PATIENCE)
        self.sent = []

    def put_some(self):
        moment = datetime.datetime.now(datetime.UTC)
        for kind, cause in CAUSES.items():
            for host in HOSTS:
                event = events.Event(
                    *(kind, "compute", host, "compute", "nova-compute"),
                    *(moment, moment, "because", cause),
                )
                self.sent.append(event)
                self.engine.put(event)

    def assert_all_arrive(self, listener):
        """Wait until everything is there, in order for each member."""
        base.wait_for(
            lambda: len(listener.lines()) >= len(self.sent),
            message=lambda: f"all came: {listener.lines()}",
        )
        for host in HOSTS:
            self.assertEqual(
                [
                    f"service.{event.type} {host} {event.type} {event.cause}"
                    for event in self.sent
                    if event.host == host
                ],
                listener.lines(host),
            )

    def test_a_broker_that_does_not_answer(self):
        # No consumer runs yet: the broker keeps the messages.
        self.put_some()
        listener = consumer.Consumer(self.folder, self.config)
        self.enterContext(listener)
        self.assert_all_arrive(listener)
        self.broker.freeze()
        with Pauses() as pauses:
            self.put_some()
            base.wait_for(
                lambda: self.logs.matching("not done after 3 s. Trying again"),
                message="an attempt is given up",
            )
        # Other threads, which may be green, go on meanwhile.
        self.assertLess(pauses.longest, 2)
        base.wait_for(
            lambda: len(self.other.seen) == len(self.sent),
            message="the other handler does not wait",
        )
        self.broker.thaw()
        self.assert_all_arrive(listener)
        # It is in another process, and so is all that it imports.
        self.assertNotIn("oslo_messaging", sys.modules)
