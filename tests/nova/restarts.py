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

"""Tests of a compute that is stopped and started again."""

import threading
import time

from tests.fixtures import process
from tests.fixtures.novarig import cloud as novarig
from tests.nova import base

#: A busy machine may take far longer than service_down_time for a restart.
OPTIONS = "[servicegroup]\nrestart_grace = 120\n"


class Restarts:
    @property
    def _avoided_within(self):
        """The seconds until the scheduler has to avoid the compute."""
        if self.DRIVER == "db":
            # A record cannot have that it drains, only that it has left.
            return 60
        return 1 + base.SLACK

    def test_a_clean_restart(self):
        """The API never lists it down; the scheduler avoids it meanwhile."""
        cloud = self.cloud
        process.wait_for(
            lambda: cloud.select_host() == novarig.COMPUTE_HOST,
            message="the scheduler finds the compute",
        )
        listed, over = [], threading.Event()

        def poll():
            while not over.is_set():
                listed.append(set(cloud.states("nova-compute").values()))
                time.sleep(0.1)

        polling = threading.Thread(target=poll, daemon=True)
        polling.start()
        try:
            stopping = threading.Thread(target=cloud.compute.stop, daemon=True)
            begun = time.monotonic()
            stopping.start()
            process.wait_for(
                lambda: cloud.select_host() is None,
                message="the scheduler avoids the compute",
            )
            avoided = time.monotonic() - begun
            with cloud.instance() as instance:
                stopping.join()
                status, text = cloud.act(instance, "evacuate", {})
                self.assertEqual(400, status, text)
                self.assertIn("is still in use", text)
            # The scheduler gives it no work until it has joined again.
            self.assertIsNone(cloud.select_host())
            self.restart_compute()
            process.wait_for(
                lambda: cloud.select_host() == novarig.COMPUTE_HOST,
                message="the scheduler takes the compute",
            )
        finally:
            over.set()
            polling.join()
        self.assertEqual([{"up"}] * len(listed), listed)
        self.assertLess(avoided, self._avoided_within)
        print(
            f"{self.DRIVER} {self.MODE}: stopped, avoided after "
            f"{avoided:.1f} s, never listed down"
        )
