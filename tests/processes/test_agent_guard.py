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

"""The agent beside a crash guard."""

import signal

from tests.processes import base

CRASHED = "its process ended without leaving the group"


class GuardedAgentTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.configure("[servicegroup]\ncrash_guard = true\n")

    def reason(self, host):
        return self.nova_sg("show", host).out

    def test_killed_after_a_reload(self):
        agent = self.agent("one")
        self.wait_for_state("one", "up")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for_log("The configuration is reloaded")
        agent.kill()
        self.wait_for_state("one", "down")
        self.assertIn(CRASHED, self.reason("one"))
        # After a restart it is up, and can leave.
        agent = self.agent("one")
        self.wait_for_state("one", "up")
        agent.stop()
        self.assertIn("left the group", self.reason("one"))
        self.assertNotIn("crash guard", agent.log)
