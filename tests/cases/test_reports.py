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

"""Public reports that were found later, about servers of each backend."""

import contextlib
import logging
import socket
import time

from nova_sg import evzookeeper, exception, servicegroup
from nova_sg.servicegroup import process
from tests import base
from tests.base import PATIENCE, wait_for
from tests.fixtures import memcached, zookeeper
from tests.functional import db, mc, zk


class LimitedMemcached(memcached.Memcached):
    MOST = 40

    def command(self):
        return [*super().command(), "-c", str(self.MOST)]


class MemcachedTest(mc.McTestCase):
    def test_the_limit_of_connections_is_reached(self):
        """memcached refuses connections: other clients leak theirs.

        A member keeps the connection that it has, and a new observer does
        not know whether members are up.
        """
        server = self.start(1, LimitedMemcached)
        self.join("one", interval=0.1)
        self.wait_for_states({"one": "up"})
        old = self.another()
        self.wait_for_states({"one": "up"}, old)
        reports = self.raw(server)
        links = []
        for _ in range(2 * server.MOST):
            links.append(socket.create_connection(("127.0.0.1", server.port)))
            self.addCleanup(links[-1].close)
        wait_for(lambda: int(reports.stats()["rejected_connections"]))
        with self.assertRaises(exception.ServiceGroupUnavailable):
            self.states()
        before = self.reported_at(reports, "one")
        wait_for(lambda: self.reported_at(reports, "one") > before)
        self.assertEqual({"one": "up"}, self.states(old))
        for link in links:
            link.close()

        def known():
            # The server may take a moment to notice.
            with contextlib.suppress(exception.ServiceGroupUnavailable):
                return self.states() == {"one": "up"}
            return False

        wait_for(known)


class LimitedZooKeeper(zookeeper.ZooKeeperServer):
    #: Connections of one client's address; the default of ZooKeeper is 60.
    MOST = 3

    def prepare(self):
        super().prepare()
        with open(self._config, "a") as config:
            config.write(f"maxClientCnxns={self.MOST}\n")


class ZooKeeperTest(base.TestCase):
    def test_the_limit_of_connections_is_reached(self):
        """ZooKeeper closes the connections of a host that has too many.

        A member that cannot join says so once, and joins as soon as it can.
        """
        server = self.enterContext(LimitedZooKeeper())
        self.addCleanup(process.reset)
        # With sessions: ZooKeeper closes a connection without one after 10 s.
        links = []
        for _ in range(server.MOST):
            links.append(
                evzookeeper.ZKSession(
                    server.address, recv_timeout=40000, timeout=PATIENCE
                )
            )
            self.addCleanup(links[-1].close)
        self.flags(servicegroup_driver="zk", service_down_time=60)
        self.flags("zookeeper", address=server.address, recv_timeout=4000)
        api = servicegroup.API()
        api.join("one", "compute", base.Member("one"))
        trouble = "Cannot report the state of one"
        wait_for(lambda: self.logs.matching(trouble))
        # Several attempts to connect, and twenty reports.
        time.sleep(2)
        warnings = self.logs.matching("", logging.WARNING)
        self.assertEqual(1, len(warnings), warnings)
        findings = process.shared().driver.check()
        bad = [one for one in findings if "maxClientCnxns" in one.text]
        self.assertEqual([False], [one.ok for one in bad], findings)
        for link in links:
            link.close()
        wait_for(lambda: self.logs.matching("one is reported to the group"))
        api.refresh("compute")
        self.assertTrue(api.service_is_up({"host": "one", "topic": "compute"}))


class DatabaseTest(db.MariaDBTestCase):
    def test_idle_connections_are_closed(self):
        """ "MySQL server has gone away", by wait_timeout or by HAProxy.

        Each report and each refresh found its connection closed. None of
        them fails.
        """
        self.server.execute("SET GLOBAL wait_timeout = 1")
        self.addCleanup(
            self.server.execute, "SET GLOBAL wait_timeout = DEFAULT"
        )
        self.flags(report_interval=2)
        self.flags("servicegroup", view_refresh_interval=2)
        closed = self.closed()
        attempts = self.count_reports()
        self.join("one", interval=2)
        self.wait_for_state("up", "one")
        wait_for(lambda: len(attempts) > 3 and self.closed() > closed)
        self.assertEqual([None] * len(attempts), attempts)
        self.assertEqual("up", self.state("one"))
        for words in "Cannot report", "Cannot refresh":
            self.assertEqual([], self.logs.matching(words))

    def closed(self):
        """Return how many connections the server has closed by itself."""
        rows = self.server.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
        return int(rows[0][1])


class CopiedTest(zk.ZkTestCase):
    def test_znodes_that_a_program_has_copied(self):
        """Programs that copy znodes make ephemeral ones persistent.

        A member whose znode was copied, or restored from a backup, was up for
        ever.
        """
        self.join("alive")
        self.wait_until_up("alive")
        path = f"{self.prefix}/compute"
        # A new observer finds them, and an old one sees them come.
        for hosts in ("one", "two"), ("three",):
            for host in hosts:
                self.zk.create(f"{path}/{host}@1000a2b3c4d0001", "")
            for host in hosts:
                words = f"{host}@1000a2b3c4d0001': it does not end with a"
                wait_for(lambda w=words: self.logs.matching(w))
                self.assertFalse(self.is_up(host))
                self.assertEqual(1, len(self.logs.matching(words)))
        self.assertEqual(
            {"alive": "up"},
            {one.host: one.state for one in self.api.members("compute")},
        )
