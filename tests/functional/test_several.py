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

"""Several backends at once: a database, and memcached beside it."""

import contextlib
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.servicegroup import process, reporter
from tests import base
from tests.base import wait_for
from tests.fixtures.memcached import Memcached


class SeveralTestCase(base.TestCase):
    """The embedded database first, one memcached second.

    :ivar server: the memcached
    """

    DOWN_TIME = 20.0

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=self.DOWN_TIME, report_interval=0.1)
        self.enterContext(
            mock.patch.object(reporter, "INITIAL_REPORTING_DELAY", 0.1)
        )
        self.enterContext(mock.patch.object(reporter, "JOIN_WAIT", 60))
        self.server = self.enterContext(Memcached())
        self.addCleanup(process.reset)
        self.flags(memcached_servers=[self.server.address])
        self.flags(
            "servicegroup",
            view_refresh_interval=0.05,
            secondary_drivers=["mc"],
        )
        self.api = servicegroup.API()

    def join(self, host, group="compute"):
        member = base.Member(host, topic=group)
        self.api.join(host, group, member)
        return member

    def is_up(self, host, group="compute"):
        return self.api.service_is_up({"host": host, "topic": group})

    def alone(self, name, host, group="compute"):
        """Return what an observer of one driver says; None: no member."""
        shared = process.Shared(process.load(name))
        try:
            return shared.view(group).member(host)
        except exception.MemberNotFound:
            return None
        finally:
            shared.close()

    def state(self, name, host):
        member = self.alone(name, host)
        return member and member.state

    def wait_for_state(self, name, host, state):
        wait_for(
            lambda: self.state(name, host) == state,
            30,
            f"{host} is {state} by {name}",
        )

    @contextlib.contextmanager
    def only(self, driver):
        """Have what joins within report to one driver alone."""
        self.flags(servicegroup_driver=driver)
        self.flags("servicegroup", secondary_drivers=[])
        try:
            yield servicegroup.API()
        finally:
            self.flags(servicegroup_driver="db")
            self.flags("servicegroup", secondary_drivers=["mc"])

    def stop_reports(self):
        for shared in list(process._shared.values()):
            shared.stop_reports()
        self.assert_no_thread_named("nova-sg-report")


class ReportsTest(SeveralTestCase):
    def test_reports_go_to_all(self):
        self.join("one")
        for name in ("db", "mc"):
            self.wait_for_state(name, "one", "up")
            seen = self.alone(name, "one").last_seen
            wait_for(
                lambda name=name, seen=seen: (
                    self.alone(name, "one").last_seen > seen
                ),
                30,
                f"reports to {name} go on",
            )
        self.api.leave("one", "compute")
        for name in ("db", "mc"):
            self.assertEqual("down", self.state(name, "one"))
        self.assert_no_thread_named("nova-sg-report")

