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

"""Members whose records Nova deletes: what the backends are told."""

from nova_sg import exception, servicegroup
from nova_sg.servicegroup import commands, process
from nova_sg.servicegroup.shared import Shared
from tests.base import wait_for
from tests.functional import mc, test_several, zk


class Deleted:
    DRIVER = ""

    def setUp(self):
        super().setUp()
        self.start_backend()
        self.flags("servicegroup", failure_domain="rack 7")
        self.flags("servicegroup", view_refresh_interval=0.05)
        # Entries and index lines are written again within half of it.
        self.flags(service_down_time=4.0)
        self.api = servicegroup.API()

    def start_backend(self):
        pass

    def domains(self):
        """Return the domain of each member, as a new observer sees it."""
        shared = Shared(process.load(self.DRIVER))
        try:
            view = shared.view("compute")
            view.members()
            return {
                host: member.histories[0].observation.attributes.domain
                for host, member in view.observer.group.members.items()
            }
        finally:
            shared.close()

    def delete(self, host):
        commands.record_deleted(process.shared(), host, "compute")

    def test_a_member_that_is_down(self):
        self.join("one")
        self.join("two")
        wait_for(lambda: self.domains().keys() == {"one", "two"})
        self.api.leave("one", "compute")
        self.api.force_down("one", "compute")
        self.delete("one")
        self.assertEqual({"two"}, self.domains().keys())
        members = self.api.members("compute")
        self.assertEqual(["two"], [one.host for one in members])
        # A new one of that name is not forced down.
        self.join("one")
        wait_for(lambda: self.api.get_all("compute") == ["one", "two"])

    def test_a_record_in_another_case(self):
        self.join("one")
        wait_for(lambda: self.api.get_all("compute") == ["one"])
        self.api.leave("one", "compute")
        self.delete("One")
        self.assertEqual({}, self.domains())

    def test_a_member_that_still_runs_is_back(self):
        self.join("one")
        wait_for(lambda: self.domains() == {"one": "rack 7"})
        self.delete("one")
        wait_for(lambda: self.domains() == {"one": "rack 7"})
        wait_for(lambda: self.api.get_all("compute") == ["one"])

    def test_no_such_member(self):
        self.delete("none")
        self.assertEqual({}, self.domains())


class McTest(Deleted, mc.McTestCase):
    DRIVER = "mc"

    def start_backend(self):
        self.start()

    def join(self, host):
        return super().join(host, interval=0.1)


class ZkTest(Deleted, zk.ZkTestCase):
    DRIVER = "zk"


class SecondaryTest(test_several.SeveralTestCase):
    """The embedded database first, one memcached second."""

    def test_a_backend_that_does_not_answer(self):
        """All others are told, and the error names it."""
        self.join("one")
        wait_for(lambda: self.alone("mc", "one") and self.alone("db", "one"))
        self.api.leave("one", "compute")
        self.server.kill()
        with self.assertRaisesRegex(exception.BackendError, "^mc: memcached"):
            commands.record_deleted(process.shared(), "one", "compute")
        self.assertIsNone(self.alone("db", "one"))

    def test_all_answer(self):
        self.join("one")
        wait_for(lambda: self.alone("mc", "one") and self.alone("db", "one"))
        self.api.leave("one", "compute")
        commands.record_deleted(process.shared(), "one", "compute")
        self.assertIsNone(self.alone("db", "one"))
        self.assertIsNone(self.alone("mc", "one"))
