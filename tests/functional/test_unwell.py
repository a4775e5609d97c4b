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

"""What members say of themselves: that they are unwell, their domain."""

from nova_sg import servicegroup
from nova_sg.servicegroup import events
from nova_sg.servicegroup.shared import Shared
from tests.base import wait_for
from tests.functional import db, judged, mc, zk


class Says(judged.Judged):
    """The tests for each driver that stores it, which a subclass has."""

    def attributes(self):
        """Return what a new observer learns of the member's own words."""
        shared = Shared(servicegroup.process.load(self.DRIVER))
        try:
            view = shared.view("compute")
            view.members()
            [history] = view.observer.group.members["one"].histories
            said = history.observation.attributes
            return said.unwell, said.domain
        finally:
            shared.close()

    def test_an_unwell_member_is_up_and_accepts_no_work(self):
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        happened = self.collect(self.api)
        self.api.unwell("one", "compute", "its queue @ is /not\n answered")
        self.wait_for_verdict("unwell", True, False)
        self.assertRegex(
            self.api.member("compute", "one").reason,
            "^unwell: its queue @ is /not answered; last report",
        )
        self.assertEqual(
            ("its queue @ is /not answered", None), self.attributes()
        )
        # Another reason takes the place of the first one.
        self.api.unwell("one", "compute", "its disk is full")
        wait_for(lambda: "disk" in self.api.member("compute", "one").reason)
        self.assertEqual(("its disk is full", None), self.attributes())
        self.api.unwell("one", "compute", "")
        self.wait_for_verdict("reported", True, True)
        wait_for(lambda: happened and happened[-1].type == "up")
        self.assertEqual(["unwell", "up"], [one.type for one in happened])
        self.assertIn("its queue", happened[0].reason)

    def test_a_process_that_starts_again_is_well(self):
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        self.api.unwell("one", "compute", "its disk is full")
        self.wait_for_verdict("unwell", True, False)
        # As if it had been killed: nothing is withdrawn.
        self.api._driver.shared().close()
        servicegroup.process.reset()
        self.api = servicegroup.API()
        self.join("one")
        self.wait_for_verdict("reported", True, True)

    def test_a_domain_is_known_also_when_the_member_has_left(self):
        self.flags("servicegroup", failure_domain="rack 7/b")
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        self.assertEqual(("", "rack 7/b"), self.attributes())
        self.api.leave("one", "compute")
        self.wait_for_verdict("left", False, False)
        self.assertEqual(("", "rack 7/b"), self.attributes())
        self.flags("servicegroup", failure_domain="rack 8")
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        self.assertEqual(("", "rack 8"), self.attributes())

    def test_a_member_and_its_events_have_its_domain(self):
        self.flags("servicegroup", failure_domain="rack 7")
        self.join("one")
        self.wait_for_verdict("reported", True, True)
        self.assertEqual("rack 7", self.api.member("compute", "one").domain)
        happened = self.collect(self.api)
        self.api.leave("one", "compute")
        wait_for(lambda: happened)
        self.assertEqual(
            ("left", "rack 7", False),
            (happened[0].type, happened[0].domain, happened[0].disabled),
        )
        as_json = events.as_dict(happened[0])
        self.assertEqual("rack 7", as_json["failure_domain"])
        self.assertNotIn("domain", as_json)


class McTest(Says, mc.McTestCase):
    DRIVER = "mc"

    def start_backend(self):
        self.start()


class ZkTest(Says, zk.ZkTestCase):
    DRIVER = "zk"


class DbTest(db.MariaDBTestCase):
    """The services table has no room for it."""

    def test_an_unwell_member_is_not_marked(self):
        api = servicegroup.API()
        self.join("one")
        api.unwell("one", "compute", "its disk is full")
        self.assertTrue(api.accepts(judged.MEMBER))
