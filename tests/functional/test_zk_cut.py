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

"""A server of an ensemble is cut off from the others, not from clients."""

import threading
import time

from nova_sg import servicegroup
from nova_sg.backends import base as driver_base
from nova_sg.servicegroup import process
from tests import base, long_form
from tests.base import wait_for
from tests.fixtures import proxy
from tests.fixtures import zookeeper as fixture
from tests.functional import zk


class _Server(fixture.ZooKeeperServer):
    """A server that the others reach through proxies."""

    def __init__(self, *args):
        super().__init__(*args)
        peers, self._election = self._peer_ports
        #: The way from another server to this one, by its number.
        self.ways = {
            number: proxy.TcpProxy(peers)
            for number in (1, 2, 3)
            if number != self.number
        }

    def peer_line(self, reader):
        way = self.ways.get(reader.number)
        if way is None:
            return super().peer_line(reader)
        return f"server.{self.number}={way.address}:{self._election}"


class _Member:
    """A process with one member, as far as ZooKeeper can tell."""

    def __init__(self, case, host):
        self.host = host
        self._driver = process.load("zk")
        case.addCleanup(self._driver.close)
        self._membership = driver_base.Membership(
            host, "compute", "nova-compute", base.Member(host), 0.1
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        case.addCleanup(self._thread.join)
        case.addCleanup(self._end.set)
        self._thread.start()

    @property
    def server(self):
        """The address of the server that it is connected to."""
        return self._driver._link.session.server

    @property
    def has_written(self):
        """Whether it writes nothing more for a while.

        A client whose write gets no answer gets none to its pings either, and
        goes to another server in time.
        """
        return bool(self._membership.state.get("written"))

    def _run(self):
        while not self._end.wait(0.1):
            try:
                self._driver.report(self._membership)
            except Exception as error:
                # It is reported again.
                self.error = error


class CutTest(zk.ZkTestCase):
    # syncLimit times tickTime is 5 s.
    RECV_TIMEOUT = 2000
    MEMBERS = 5

    def setUp(self):
        self.servers = fixture.ZooKeeperEnsemble(kind=_Server)
        for server in self.servers.servers:
            for way in server.ways.values():
                self.enterContext(way)
        self.enterContext(self.servers)
        super().setUp()

    def access(self):
        return {"address": self.servers.address, "client": self.CLIENT}

    def states(self):
        self.api.refresh("compute")
        return {one.host: one.state for one in self.api.members("compute")}

    def reasons(self):
        return " ".join(one.reason for one in self.api.members("compute"))

    @long_form
    def test_its_members_are_held(self):
        """The others end their sessions; the members live."""
        leader = self.servers.leader()
        cut = next(one for one in self.servers.servers if one is not leader)
        members = []

        def connected():
            return sum(one.server == cut.address for one in members)

        # Fewer than half of the group: else the whole group would be held.
        while connected() < self.MEMBERS or 2 * connected() > len(members):
            members.append(_Member(self, f"host{len(members)}"))
            self.assertLess(len(members), 40)
            wait_for(lambda: members[-1].server)
        # It observes by way of the leader.
        self.flags("zookeeper", address=leader.address)
        self.api = servicegroup.API()
        expected = dict.fromkeys((one.host for one in members), "up")
        wait_for(lambda: self.states() == expected, message=self.states)
        wait_for(lambda: all(one.has_written for one in members))
        events = self.collect(self.api)
        leader.ways[cut.number].cut()
        held = f"members of the server {cut.address} fell silent"
        deadline = time.monotonic() + 20
        while held not in self.reasons():
            self.assertEqual(expected, self.states())
            self.assertLess(time.monotonic(), deadline)
        # Then the server gives up, and its clients go to the others.
        wait_for(
            lambda: (
                cut.address not in {one.server for one in members}
                and "held" not in self.reasons()
            )
        )
        self.assertEqual(expected, self.states())
        self.assertEqual([], [one for one in events if one.type == "down"])
