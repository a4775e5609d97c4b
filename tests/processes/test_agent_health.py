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


"""An agent with a health_check that shows /health, green and native."""

import json
import os
import urllib.error
import urllib.request

from tests import native_services
from tests.fixtures import memcached
from tests.fixtures.process import free_port, wait_for
from tests.processes import base


class AgentHealthTest(base.TestCase):
    MODE = "eventlet"

    def setUp(self):
        super().setUp()
        self.server = self.enterContext(memcached.Memcached())
        self.port = free_port()
        self.flag = self.path("flag")
        self.configure(
            f"concurrency_backend = {self.MODE}\n"
            "servicegroup_driver = mc\n"
            f"memcached_servers = {self.server.address}\n"
            "[servicegroup]\n"
            f"health_check = test -e {self.flag}\n"
            "health_check_interval = 0.2\n"
            f"health_listen = 127.0.0.1:{self.port}\n"
        )

    def health(self):
        """Return the status of /health and its object; None: no answer."""
        url = f"http://127.0.0.1:{self.port}/health"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return None

    def wait_for_status(self, status):
        wait_for(
            lambda: (self.health() or [0])[0] == status,
            base.PATIENCE,
            lambda: f"/health is {status}: {self.health()}",
        )

    def shown(self):
        return json.loads(self.do("show", "one", "-f", "json"))["Reason"]

    def test_unwell_until_the_check_succeeds(self):
        agent = self.agent("one")
        agent.wait_for_log("one in the group compute is unwell: its health")
        self.wait_for_status(503)
        wait_for(lambda: "unwell: its" in self.shown(), base.PATIENCE)
        self.wait_for_state("one", "up")
        open(self.flag, "w").close()
        self.wait_for_status(200)
        wait_for(lambda: self.shown().startswith("last"), base.PATIENCE)
        # The check goes on after a reload.
        os.unlink(self.flag)
        agent.process.send_signal(1)
        agent.wait_for_log("The configuration is reloaded")
        self.wait_for_status(503)
        agent.stop()
        self.assertIsNone(self.health())

    def test_a_second_agent_does_without_the_port(self):
        open(self.flag, "w").close()
        first = self.agent("one")
        self.wait_for_status(200)
        second = self.agent("two")
        second.wait_for_log("another process has")
        self.wait_for_state("two", "up")
        pid = self.health()[1]["pid"]
        first.stop()
        wait_for(
            lambda: (self.health() or [0, {"pid": pid}])[1]["pid"] != pid,
            base.PATIENCE,
            "the second agent has the port",
        )
        second.stop()


@native_services
class NativeTest(AgentHealthTest):
    MODE = "threading"
