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

"""A member that stops and starts again, with each driver."""

import time

from nova_sg import servicegroup
from nova_sg.servicegroup.shared import Shared
from tests.base import wait_for
from tests.functional import db, judged, mc, zk

GRACE = 4.0


class Restarts(judged.Judged):
    """The tests for each driver, which a subclass has."""

    def setUp(self):
        super().setUp()
        self.flags("servicegroup", restart_grace=GRACE)
        # It reads this once.
        self.api = servicegroup.API()

    def test_a_member_that_restarts_is_never_down(self):
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        events = self.collect(self.api)
        self.drain()
        self.api.leave("one", "compute")
        self.wait_for_verdict("stopped", True, False)
        self.assertRegex(
            self.api.member("compute", "one").reason,
            r"^stopped \d s ago, may be restarting",
        )
        # An observer that begins now judges so, too.
        new = Shared(servicegroup.process.load(self.DRIVER))
        self.addCleanup(new.close)
        [member] = new.view("compute").members()
        self.assertEqual(("up", "stopped"), (member.state, member.cause))
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        wait_for(lambda: events and events[-1].type == "up")
        self.assertEqual(
            [*self.DRAINS, "stopped", "up"], [one.type for one in events]
        )

    #: The events of a member that is draining.
    DRAINS = ("draining",)

    def drain(self):
        self.api.drain("one", "compute")
        self.wait_for_verdict("draining", True, False)
        self.assertRegex(
            self.api.member("compute", "one").reason, "^draining; last report"
        )
        # Its further reports do not end the draining.
        begun = time.monotonic()
        while time.monotonic() < begun + 1.0:
            self.assertEqual(("draining", True, False), self.judged())

    def test_a_member_that_stays_stopped_is_down_after_the_grace(self):
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        events = self.collect(self.api)
        left = time.monotonic()
        self.api.leave("one", "compute")
        self.wait_for_verdict("left", False, False)
        self.assertGreater(time.monotonic(), left + GRACE - 1.5)
        wait_for(lambda: len(events) == 2)
        self.assertEqual(["stopped", "down"], [one.type for one in events])


class McTest(Restarts, mc.McTestCase):
    DRIVER = "mc"

    def start_backend(self):
        self.start()


class ZkTest(Restarts, zk.ZkTestCase):
    DRIVER = "zk"


class DbTest(Restarts, db.MariaDBTestCase):
    """A record can have that a member has left, but not that it drains."""

    DRIVER = "db"
    DRAINS = ()

    def drain(self):
        self.api.drain("one", "compute")
        self.assertEqual(("reported", True, True), self.judged())
