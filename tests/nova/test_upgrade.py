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


"""From Nova's own driver to nova_sg's, while everything runs."""

import collections
import http.client
import threading
import time
import unittest

import tests
from tests.fixtures import novarig
from tests.nova import base

BINARIES = ("nova-conductor", "nova-scheduler", "nova-compute")


class _Client:
    """Asks for the services again and again, and keeps the wrong answers."""

    def __init__(self, cloud):
        self._cloud = cloud
        #: The current step, for the text of a failure.
        self.step = "beginning"
        self._stopping = threading.Event()
        self.states = collections.Counter()
        #: The services that were listed down, in which step, and when.
        self.down = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stopping.wait(0.1):
            try:
                answer = self._cloud.get("/os-services")
            except (OSError, http.client.HTTPException):
                # The API itself is being restarted.
                continue
            for service in answer["services"]:
                state = service["binary"], service["state"]
                self.states[state] += 1
                if service["state"] != "up":
                    self.down.append((*state, self.step, time.time()))

    @property
    def asks(self):
        """Whether it has not ended by an error."""
        return self._thread.is_alive()

    def stop(self):
        self._stopping.set()
        self._thread.join()


class Upgrade:
    """No service is listed down during an upgrade in the right order.

    First every service moves to nova_sg's db driver, in any order. Then the
    services that ask move to zk: API, scheduler and conductor. They judge
    services that ZooKeeper does not know by the services table. The computes
    move last, because a service that reads only the table would miss their
    reports to ZooKeeper. The way back is the reverse.
    """

    # A service that restarts is silent for no longer than this.
    DOWN_TIME = 40

    def setUp(self):
        super().setUp()
        self.cloud = self.enterContext(
            novarig.Cloud(
                base.site(),
                "stock",
                self.MODE,
                service_down_time=self.DOWN_TIME,
                # A conductor that stops may lose a heartbeat. Its sender
                # waits for the answer and sends no other meanwhile.
                options="[DEFAULT]\nrpc_response_timeout = 5\n",
            )
        )
        self.client = _Client(self.cloud)
        self.addCleanup(self.client.stop)

    def _restart(self, name, driver):
        cloud = self.cloud
        self.client.step = f"{name} moves to {driver}"
        service = getattr(cloud, name)
        cloud.configure(name, driver)
        begun = time.monotonic()
        service.stop()
        before = base.log_lines(service, "Join ServiceGroup")
        service.start()
        if name != "api":
            base.process.wait_for(
                lambda: (
                    len(base.log_lines(service, "Join ServiceGroup"))
                    > len(before)
                ),
                message=f"{name} joins",
            )
        self.assertLess(time.monotonic() - begun, self.DOWN_TIME)
        # So that every observer refreshes once more.
        time.sleep(3)

    def _assert_none_was_down(self):
        """Check that no service was listed down until now."""
        self.assertTrue(self.client.asks)
        down = self.client.down
        self.assertEqual([], down[:3], self.cloud.log_tails())
        self.client.down.clear()
        for binary in BINARIES:
            self.assertEqual(
                {"up"}, set(self.cloud.states(binary).values()), binary
            )

    def _move_to_zk(self):
        for name in ("api", "scheduler", "conductor", "compute"):
            self._restart(name, "zk")
        self.client.step = "all have moved to zk"
        # Afterwards all reports of the db driver are old.
        time.sleep(self.DOWN_TIME)
        self._assert_none_was_down()

    def test_to_zk_and_back_to_stock_nova(self):
        for name in ("compute", "api", "conductor", "scheduler"):
            self._restart(name, "db")
        self._move_to_zk()
        for binary in BINARIES:
            self.assertGreater(self.client.states[binary, "up"], 100)
        self.cloud.compute.kill()
        took = self.cloud.wait_for_state("nova-compute", "down")
        self.assertLess(took, self.DOWN_TIME / 2)
        self.cloud.compute.start()
        self.cloud.wait_for_state("nova-compute", "up", timeout=120)
        self.client.down.clear()
        members = ("compute", "conductor", "scheduler")
        for name in members:
            self._restart(name, "db")
            self._assert_none_was_down()
        self._restart("api", "db")
        self._assert_none_was_down()
        # Once more, with a ZooKeeper that knows all of them from before.
        self._move_to_zk()
        for name in (*members, "api"):
            self._restart(name, "db")
        self._assert_none_was_down()
        for name in ("api", *members):
            self._restart(name, "stock")
        self.client.step = "all have moved to stock"
        time.sleep(self.DOWN_TIME)
        self._assert_none_was_down()


@tests.long_form
class UpgradeOnThreadsTest(Upgrade, unittest.TestCase):
    MODE = "threads"


@tests.long_form
class UpgradeOnEventletTest(Upgrade, unittest.TestCase):
    MODE = "eventlet"
