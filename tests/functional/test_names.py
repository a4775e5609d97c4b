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

"""Names of one host that differ in case only, and names that are shared."""

from nova_sg import exception, servicegroup
from nova_sg.backends import base as backends
from tests.base import wait_for
from tests.functional import mc, zk


class OtherCase:
    """The record of a service may have another case than its member."""

    def setUp(self):
        super().setUp()
        self.start_backend()
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.api = servicegroup.API()

    def start_backend(self):
        pass

    def is_up(self, host):
        return self.api.service_is_up({"topic": "compute", "host": host})

    def test_a_record_in_another_case_is_of_the_same_member(self):
        self.join("Ctl1")
        wait_for(lambda: self.is_up("Ctl1"))
        self.assertTrue(self.is_up("ctl1"))
        self.assertTrue(
            self.api.accepts({"topic": "compute", "host": "CTL1"})
        )
        self.assertEqual("Ctl1", self.api.member("compute", "ctl1").host)
        [state] = self.api.backend_states("compute", "ctl1")
        self.assertEqual("Ctl1", state.member.host)
        self.assertIsNotNone(
            self.api.get_updated_time(
                {"topic": "compute", "host": "ctl1", "updated_at": None}
            )
        )

    def test_an_old_record_in_another_case_does_not_count_alone(self):
        """As inside Nova: the services table has an old report."""
        self.join("Ctl1")
        wait_for(lambda: self.is_up("Ctl1"))
        shared = self.api._driver.shared()
        record = backends.Record("2020-01-01", 7, 1e8)
        verdict = shared.verdict(
            "compute", "ctl1", record, self.api._driver._limits
        )
        self.assertEqual("up", verdict.state)

    def test_what_was_done_to_the_member_counts_for_its_record(self):
        self.join("Ctl1")
        wait_for(lambda: self.is_up("ctl1"))
        self.api.force_down("Ctl1", "compute")
        self.assertFalse(self.is_up("ctl1"))
        self.api.force_down("Ctl1", "compute", forced=False)
        wait_for(lambda: self.is_up("ctl1"))
        self.api.leave("Ctl1", "compute")
        self.assertFalse(self.is_up("ctl1"))

    def test_of_two_members_neither_is_guessed(self):
        self.join("Ctl1")
        self.join("ctl1")
        wait_for(lambda: self.is_up("Ctl1") and self.is_up("ctl1"))
        self.assertFalse(self.is_up("CTL1"))
        with self.assertRaises(exception.MemberNotFound):
            self.api.member("compute", "CTL1")
        self.api.leave("ctl1", "compute")
        self.assertFalse(self.is_up("ctl1"))
        self.assertTrue(self.is_up("Ctl1"))


class McTest(OtherCase, mc.McTestCase):
    def start_backend(self):
        self.start()

    def join(self, host):
        return super().join(host, interval=0.1)


class ZkTest(OtherCase, zk.ZkTestCase):
    pass
