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

"""The tests of ZKSession and of members, on kazoo's transport."""

import time

from nova_sg import kazoo_transport, zookeeper
from tests.cases import test_zookeeper as cases
from tests.evzookeeper import test_membership, test_queue, test_session
from tests.fixtures import process


class _Kazoo:
    client = kazoo_transport.KazooTransport()


class CallsTest(_Kazoo, test_session.CallsTest):
    test_log_stream = None  # the C client's


class StateTest(_Kazoo, test_session.StateTest):
    UNRESOLVED = zookeeper.ConnectionLossException


class ExpiryTest(_Kazoo, test_session.ExpiryTest):
    pass


class ConnectTest(_Kazoo, test_session.ConnectTest):
    pass


class CloseTest(_Kazoo, test_session.CloseTest):
    pass


class CooperationTest(_Kazoo, test_session.CooperationTest):
    pass


class MembershipTest(_Kazoo, test_membership.MembershipTest):
    pass


class MonitorTest(_Kazoo, test_membership.MonitorTest):
    pass


class ServiceTest(_Kazoo, test_membership.ServiceTest):
    pass


class QueueTest(_Kazoo, test_queue.QueueTest):
    pass


class _KazooCase(_Kazoo):
    CLIENT = "kazoo"


class NoServerTest(_KazooCase, cases.NoServerTest):
    test_with_a_session_the_pauses_are_shorter_than_its_timeout = None
    test_a_monitor_goes_on_with_the_next_handle = None

    def test_a_session_is_kept_while_the_server_is_restarted(self):
        """However long that takes: its sessions have their timeout again."""
        session = self.open()
        self.assertTrue(session.wait_connected(process.PATIENCE))
        before = session.session_id
        self.server.stop()
        # Longer than the client tells what it has seen.
        time.sleep(2 * 2 + 1)
        self.server.start()
        self.assertTrue(session.wait_connected(process.PATIENCE))
        self.assertEqual(before, session.session_id)


class RefusedTest(_KazooCase, cases.RefusedTest):
    pass


class ServerListTest(_KazooCase, cases.ServerListTest):
    pass


class WipedTest(_KazooCase, cases.WipedTest):
    pass


class NamesTest(_KazooCase, cases.NamesTest):
    test_no_name_is_known_at_first = None
