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

"""Statements that reach the database after their time."""

import json
import time

from nova_sg.guard import db as guard_db
from nova_sg.servicegroup import process
from tests.base import wait_for
from tests.fixtures.proxy import TcpProxy
from tests.functional import db, zk


class LateTest(db.MariaDBTestCase):
    """A member in a process of its own, on a wire that holds data back."""

    # The driver waits for an answer for a quarter of it. Nothing but the
    # number tells a statement of that time from one that is in order.
    DOWN_TIME = 40.0

    def setUp(self):
        super().setUp()
        self.proxy = TcpProxy(self.server.port)
        self.proxy.start()
        self.addCleanup(self.proxy.stop)
        self.member = None

    def start(self, down_time=None):
        """Have the member one report, behind the proxy."""
        settings = {
            "DEFAULT": {"service_down_time": down_time or self.DOWN_TIME},
            "database": {
                "connection": self.url.replace(
                    f":{self.server.port}/", f":{self.proxy.port}/"
                )
            },
            "servicegroup": {"crash_guard": False},
        }
        self.member = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(self.member.close)
        self.member.expect("ready", 60)
        self.member.tell("join one")
        self.wait_for_report("one", 3)
        # This process has none yet.
        self.connected = set(self.connections())
        self.wait_for_state("up", "one")

    def hold_a_statement(self):
        """Cut the wire, and wait until a statement is stuck on it."""
        self.proxy.cut()
        wait_for(lambda: self.proxy.held() > 60, 30, "a statement is held")

    def let_go(self):
        """End the partition; wait until the statement was executed."""
        with self.general_log() as log:
            self.proxy.restore()
            wait_for(
                lambda: any(
                    text.startswith("UPDATE services") for text in log.texts()
                ),
                30,
                "the late statement arrives",
            )
        wait_for(
            lambda: not self.connected & set(self.connections()),
            30,
            "the late statement was executed",
        )
        self.api.refresh("compute")

    def record(self):
        return self.value("report_count", "one"), self.seen()

    def seen(self):
        return self.value("last_seen_up", "one")

    def test_a_report_after_death(self):
        # So that it is given up, and down, soon.
        self.flags(service_down_time=3.0)
        self.start(down_time=3.0)
        self.hold_a_statement()
        self.member.kill()
        self.wait_for_state("down", "one")
        before = self.record()
        events = self.collect(self.api)
        self.let_go()
        self.assertEqual("down", self.state("one"))
        self.assertEqual(before, self.record())
        self.assertEqual([], events)

    def test_a_report_after_leaving(self):
        self.start()
        self.hold_a_statement()
        self.api.leave("one", "compute")
        self.member.kill()
        before = self.record()
        self.assertEqual(0, before[0])
        self.let_go()
        self.assertEqual("down", self.state("one"))
        self.assertEqual("left the group", self.reason())
        self.assertEqual(before, self.record())

    def test_a_report_after_the_guards_order(self):
        self.start()
        self.hold_a_statement()
        self.member.kill()
        self.assertTrue(self.guard())
        before = self.record()
        self.let_go()
        self.assertEqual("down", self.state("one"))
        self.assertEqual(
            "its process ended without leaving the group", self.reason()
        )
        self.assertEqual(before, self.record())

    def test_leaving_after_another_has_joined(self):
        self.start()
        # Stands still, so that what comes next is its leaving.
        self.hold_a_statement()
        self.proxy.restore()
        self.wait_for_report("one")
        self.proxy.cut()
        self.member.tell("leave one")
        wait_for(lambda: self.proxy.held() > 120, 30, "leaving is held")
        self.member.kill()
        self.join("one")
        self.wait_for_report("one", 2)
        self.let_go()
        self.assertEqual("up", self.state("one"))
        self.assertGreater(self.value("report_count", "one"), 0)

    def reason(self):
        return self.api.member("compute", "one").reason

    def guard(self, **more):
        """Do what the guard of the member's process does."""
        driver = process.shared().driver
        number = self.value("report_count", "one") + 1
        will = {
            **driver._database.outside(),
            "id": self.value("id", "one"),
            "number": number,
            "died": time.monotonic(),
            "answered": None,
            "patience": 5,
            **more,
        }
        return guard_db.withdraw(will)

    def test_the_guards_order_after_another_has_joined(self):
        self.start()
        self.member.kill()
        number = self.value("report_count", "one")
        self.join("one")
        self.wait_for_report("one", 2)
        self.stop_reports()
        # However long the new one has not reported, by the guard's clock.
        self.assertFalse(self.guard(number=number, died=time.monotonic() + 99))
        self.assertEqual("up", self.state("one"))
