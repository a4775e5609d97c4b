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

"""A report that reaches memcached after the death of its member."""

import json
import time

from nova_sg.backends.memcached import values
from tests.base import wait_for
from tests.fixtures.proxy import TcpProxy
from tests.functional import mc, zk


class LateTest(mc.McTestCase):
    DOWN_TIME = 4.0

    def cut(self, proxy, raw):
        """Cut a member off; return whether a report of it is held.

        It may be something else that it sent last, and waits for.
        """
        proxy.cut()
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            if proxy.held() > 50:
                return True
            time.sleep(0.01)
        proxy.restore()
        before = self.reported_at(raw, "one")
        wait_for(lambda: self.reported_at(raw, "one") > before, 30)
        return False

    def test_a_late_report_does_not_raise_a_dead_member(self):
        self.flags(service_down_time=self.DOWN_TIME)
        server = self.start()
        raw = self.raw(server)
        proxy = self.enterContext(TcpProxy(server.port))
        settings = {
            "DEFAULT": {
                "servicegroup_driver": "mc",
                "service_down_time": self.DOWN_TIME,
                "memcached_servers": [proxy.address],
            },
            "servicegroup": {"crash_guard": False},
        }
        member = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(member.close)
        member.expect("ready", 60)
        member.tell("join one")
        self.wait_for_states({"one": "up"})
        wait_for(lambda: self.cut(proxy, raw), 60, "a report is held")
        member.kill()
        died = time.monotonic()
        last = self.reported_at(raw, "one")
        commands = int(raw.stats()["cmd_set"])
        observer = self.another()
        self.wait_for_states({"one": "down"}, observer)
        # Observers read memcached's clock to a second.
        wait_for(lambda: time.monotonic() - died > self.DOWN_TIME + 2)
        proxy.restore()
        wait_for(
            lambda: int(raw.stats()["cmd_set"]) > commands,
            30,
            "the late report arrives",
        )
        # It replaces a value that has expired, and so nothing.
        self.assertEqual(0.0, self.reported_at(raw, "one"))
        self.assertEqual({"one": "down"}, self.states())
        self.assertEqual({"one": "down"}, self.states(observer))
        # The first report of a process is stored, however late. It has the
        # time at which the member wrote it.
        key = values.member_key("compute", "one")
        late = values.StoredReport(values.UP, last + 0.1, "nova-compute")
        raw.set(key, values.Codec(None).write_report(key, late))
        observer.view("compute").refresh()
        self.assertEqual({"one": "down"}, self.states())
        self.assertEqual({"one": "down"}, self.states(observer))
