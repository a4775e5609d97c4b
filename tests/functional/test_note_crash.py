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


"""A member's process has ended without leaving, as a command says."""

from nova_sg import servicegroup
from nova_sg.backends import base as driver_base
from nova_sg.servicegroup import process
from tests import base
from tests.base import wait_for
from tests.functional import db, mc, zk

CRASHED = "its process ended without leaving the group"


class _Tests:
    DRIVER: str

    def setUp(self):
        super().setUp()
        self.prepare()
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.api = servicegroup.API()
        # Of the process that has ended.
        self.ended = process.load(self.DRIVER)
        self.addCleanup(self.ended.close)

    def prepare(self):
        pass

    def member(self, host):
        self.api.refresh("compute")
        members = {one.host: one for one in self.api.members("compute")}
        return members.get(host)

    def wait_for_state(self, host, state):
        wait_for(lambda: (one := self.member(host)) and one.state == state)

    def report(self, host):
        """Report once, and never again."""
        membership = driver_base.Membership(
            host, "compute", "nova-compute", base.Member(host), 3600.0
        )
        self.ended.report(membership)
        return membership

    def test_a_crash_is_noted(self):
        crashed, left = self.report("one"), self.report("two")
        self.report("three")
        self.ended.withdraw(left)
        for host in "one", "three":
            self.wait_for_state(host, "up")
        events = self.collect(self.api)
        self.assertTrue(self.api.note_crash("one", "compute"))
        self.wait_for_state("one", "down")
        self.assertEqual(CRASHED, self.member("one").reason)
        wait_for(lambda: events)
        self.assertEqual(
            [("one", "down", "crashed")],
            [(one.host, one.type, one.cause) for one in events],
        )
        # Once more, of one that has left, and of one that is unknown.
        for host in "one", "two", "nobody":
            self.assertFalse(self.api.note_crash(host, "compute"), host)
        self.assertIn("left the group", self.member("two").reason)
        self.assertEqual("up", self.member("three").state)
        # It is started again.
        crashed.state.clear()
        self.ended.report(crashed)
        self.wait_for_state("one", "up")


class EmbeddedTest(_Tests, db.TestCase):
    DRIVER = "db"


class MariaDBTest(_Tests, db.MariaDBTestCase):
    DRIVER = "db"


class McTest(_Tests, mc.McTestCase):
    DRIVER = "mc"

    def prepare(self):
        self.start(2)


class ZkTest(_Tests, zk.ZkTestCase):
    DRIVER = "zk"
