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

"""Joining, asking and leaving, on the embedded default."""

from nova_sg import servicegroup
from tests import base


class SmokeTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.flags(service_down_time=1.0, report_interval=0.1)
        self.flags("servicegroup", view_refresh_interval=0.05)

    def test_join_ask_leave(self):
        api = servicegroup.API()
        api.join("one", "compute", base.Member("one"))
        api.join("two", "compute", base.Member("two"))
        self.assertEqual(["one", "two"], api.get_all("compute"))
        self.assertTrue(
            api.service_is_up({"host": "one", "topic": "compute"})
        )
        api.leave("one", "compute")
        self.assertEqual(["two"], api.get_all("compute"))
