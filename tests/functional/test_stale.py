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

"""Members that have shown no life for long: not listed, and removed.

A week cannot pass in a test, so here it has two seconds.
"""

from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.backends import base as backends
from nova_sg.backends.memcached import driver as mc_driver
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared
from tests.base import wait_for
from tests.functional import db, mc, zk

WEEK = 2.0


class Stale:
    DRIVER = ""

    def setUp(self):
        super().setUp()
        self.start_backend()
        self.enterContext(mock.patch.object(backends, "LISTED", WEEK))
        self.enterContext(mock.patch.object(backends, "UNCHANGED", 0.5))
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.api = servicegroup.API()

    def start_backend(self):
        pass

    def states(self):
        """Return the state of each member, as a new observer lists it."""
        shared = Shared(process.load(self.DRIVER))
        try:
            members = shared.view("compute").members()
            return {member.host: member.state for member in members}
        finally:
            shared.close()

    def hosts(self):
        return [member.host for member in self.api.members("compute")]

    def wait_until_not_listed(self, host):
        wait_for(lambda: host not in self.hosts(), message=self.hosts)
        wait_for(lambda: host not in self.states(), message=self.states)

    def test_a_member_without_life_for_a_week_is_not_listed(self):
        events = self.collect(self.api)
        for host in ("alive", "gone", "forced"):
            self.join(host)
        wait_for(lambda: len(self.hosts()) == 3)
        self.api.force_down("forced", "compute")
        self.api.leave("gone", "compute")
        self.api.leave("forced", "compute")
        self.assertEqual("down", self.states()["gone"])
        self.wait_until_not_listed("gone")
        self.assertEqual({"alive": "up", "forced": "down"}, self.states())
        told = [one.type for one in events if one.host == "gone"]
        self.assertEqual("left", told[-1])
        # A question about it is answered as before.
        self.assertFalse(
            self.api.service_is_up({"host": "gone", "topic": "compute"})
        )
        with self.assertRaises(exception.MemberNotFound):
            self.api.member("compute", "gone")
        # It may come back at any time.
        self.join("gone")
        wait_for(lambda: "gone" in self.hosts())
        self.assertTrue(
            self.api.service_is_up({"host": "gone", "topic": "compute"})
        )
        self.assertEqual("up", self.states()["gone"])

    def test_it_can_still_be_removed(self):
        self.join("alive")
        for host in ("gone", "also", "late"):
            self.join(host)
        wait_for(lambda: len(self.hosts()) == 4)
        self.api.leave("gone", "compute")
        self.api.leave("also", "compute")
        self.assertEqual([], self.api.stale("compute", 3600))
        self.wait_until_not_listed("gone")
        self.wait_until_not_listed("also")
        self.api.leave("late", "compute")
        self.assertEqual(["also", "gone"], self.api.stale("compute", WEEK))
        self.assertIn("late", self.api.stale("compute", 0))
        self.api.forget("gone", "compute")
        self.assertEqual(["also"], self.api.stale("compute", WEEK))
        with self.assertRaises(exception.MemberNotFound):
            self.api.forget("gone", "compute")
        with self.assertRaises(exception.MemberIsUp):
            self.api.forget("alive", "compute")


class ByClocks:
    """The age of a member is by a clock, which may be set."""

    def test_a_process_that_has_listed_it_goes_on_for_a_while(self):
        self.enterContext(mock.patch.object(backends, "UNCHANGED", 3600.0))
        self.join("one")
        wait_for(lambda: self.hosts() == ["one"])
        self.api.leave("one", "compute")
        # As the first look of a process goes by the clock.
        wait_for(lambda: not self.states(), message=self.states)
        self.assertEqual(["one"], self.hosts())
        for _ in range(3):
            self.api.refresh("compute")
        self.assertEqual(["one"], self.hosts())


class DbTest(ByClocks, Stale, db.TestCase):
    DRIVER = "db"

    def test_a_record_that_nova_disabled_stays(self):
        self.join("one")
        self.api.leave("one", "compute")
        driver = process.shared().driver
        driver._run(
            lambda c: c.exec_driver_sql("UPDATE services SET disabled = 1")
        )
        wait_for(
            lambda: self.api.member("compute", "one").age > WEEK,
            message="a week has passed",
        )
        self.assertEqual({"one": "down"}, self.states())


class McTest(Stale, mc.McTestCase):
    DRIVER = "mc"

    def start_backend(self):
        self.start()
        lifetime = mock.patch.object(mc_driver, "RECORD_LIFETIME", int(WEEK))
        self.enterContext(lifetime)

    def join(self, host):
        return super().join(host, interval=0.1)

    def states(self, *arguments, **parameters):
        return mc.McTestCase.states(self, *arguments, **parameters)


class ZkTest(ByClocks, Stale, zk.ZkTestCase):
    DRIVER = "zk"
