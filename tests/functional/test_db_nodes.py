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

"""Several nodes behind one address, and a replica that lags."""

import json
import time

from nova_sg import exception
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared
from tests import single_mode
from tests.base import wait_for
from tests.fixtures import mariadb
from tests.fixtures import process as servers
from tests.fixtures.proxy import TcpProxy
from tests.functional import db, zk


class Primary(mariadb.MariaDB):
    """A server that replicas read from."""

    def command(self):
        return [*super().command(), "--log-bin=log", "--server-id=1"]


class Replica(mariadb.SteppableMariaDB):
    """A server that replicates another one."""

    def command(self):
        return [*super().command(), "--server-id=2"]

    def follow(self, other):
        [(file, position, *_)] = other.execute("SHOW MASTER STATUS")
        self.order(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', "
            f"MASTER_PORT = {other.port}, MASTER_USER = 'root', "
            f"MASTER_PASSWORD = '{db.PASSWORD}', MASTER_DELAY = 0, "
            f"MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {position}"
        )

    def order(self, change):
        """Change its replication by a statement."""
        self.execute("STOP SLAVE")
        self.execute(change)
        self.execute("START SLAVE")


class NodesTestCase(db.MariaDBTestCase):
    SERVER = Primary

    def setUp(self):
        self.replica = servers.shared(Replica)
        self.replica.follow(servers.shared(Primary))
        self.addCleanup(self.replica.execute, "STOP SLAVE")
        super().setUp()
        self.server.execute(
            f"GRANT SLAVE MONITOR ON *.* TO {self.name}@127.0.0.1"
        )
        self.addCleanup(self.replica.execute, "SET GLOBAL read_only = 0")
        wait_for(self.is_replicated, message="the replica has all")

    def is_replicated(self):
        return self.replica.execute(
            "SELECT * FROM mysql.global_priv WHERE user = %s "
            "AND JSON_VALUE(priv, '$.access') > 0",
            self.name,
        )

    def url_of(self, port):
        return self.url.replace(f":{self.server.port}/", f":{port}/")

    def connect_to(self, port):
        """Have the driver connect to a port; return it."""
        self.flags("database", connection=self.url_of(port))
        process.reset()
        return process.shared().driver


@single_mode
class NodesTest(NodesTestCase):
    def balanced(self, *ports):
        """Return the driver; its connections lead to ports in turn."""
        proxy = TcpProxy(*ports)
        proxy.start()
        self.addCleanup(proxy.stop)
        return self.connect_to(proxy.port)

    def name_of(self, server):
        [(host,)] = server.execute("SELECT @@hostname")
        return f"{host}:{server.port}"

    @staticmethod
    def clocks(findings):
        return [one for one in findings if one.subject == "clock"]

    def test_the_doctor_checks_each_node(self):
        driver = self.balanced(self.server.port, self.replica.port)
        self.replica.set_clock(30)
        self.addCleanup(self.replica.set_clock, 0)
        self.replica.execute("SET GLOBAL read_only = 1")
        self.replica.execute("STOP SLAVE")
        findings = driver.check()
        clocks = {
            one.text.split(": ")[0]: one for one in self.clocks(findings)
        }
        first = clocks.pop(f"node {self.name_of(self.server)}")
        second = clocks.pop(f"node {self.name_of(self.replica)}")
        self.assertEqual({}, clocks)
        self.assertTrue(first.ok, first)
        self.assertFalse(second.ok, second)
        self.assertRegex(second.text, r": \+(29\.9|30\.)\d+ s from this host$")
        self.assertIn("Synchronise the clocks", second.remedy)
        [bad] = [
            one for one in findings if not one.ok and one.subject != "clock"
        ]
        self.assertEqual(
            f"node {self.name_of(self.replica)}: read-only and its "
            "replication does not run",
            bad.text,
        )
        self.assertIn("Connect to nodes that take writes", bad.remedy)

    def test_the_doctor_finds_a_node_that_does_not_answer(self):
        # A new connection is tried twice.
        nothing = servers.free_port()
        driver = self.balanced(self.server.port, nothing, nothing)
        [bad] = [one for one in driver.check() if not one.ok]
        self.assertIn("one of several new connections failed", bad.text)

    def test_the_doctor_checks_a_single_node(self):
        findings = self.connect_to(self.server.port).check()
        self.assertEqual([], [one for one in findings if not one.ok])
        [clock] = self.clocks(findings)
        self.assertRegex(
            clock.text, r"^the database is [-+]0\.\d+ s from this host$"
        )

    def test_a_driver_leaves_a_server_that_became_read_only(self):
        self.replica.execute("STOP SLAVE")
        self.replica.execute("SET GLOBAL read_only = 1")
        # The address leads to another server than when the driver connected.
        driver = self.balanced(self.replica.port, self.server.port)
        since = time.monotonic() - 99.0
        self.assertIn("read-only", driver.outage("compute", since).reason)
        self.assertIsNone(driver.outage("compute", since))

    def test_outages_that_follow_from_the_state_of_a_replica(self):
        driver = self.connect_to(self.replica.port)
        self.replica.execute("SET GLOBAL read_only = 1")

        def told():
            return driver.outage("compute", since)

        def trouble():
            return [
                one for one in driver.check() if one.text.startswith("node ")
            ]

        # The replica has all reports.
        since = time.monotonic() - 99.0
        self.assertIsNone(told())
        [line] = trouble()
        self.assertTrue(line.ok, line)
        self.assertIn("read-only and 0 s behind", line.text)

        self.replica.execute("STOP SLAVE")
        outage = told()
        self.assertEqual(since, outage.begin)
        self.assertEqual(
            "it is read-only, and its replication does not run", outage.reason
        )

        self.replica.order("CHANGE MASTER TO MASTER_DELAY = 3600")
        self.sql("INSERT INTO services (host, report_count) VALUES ('x', 0)")
        wait_for(lambda: "behind" in getattr(told(), "reason", ""))
        outage = told()
        self.assertRegex(outage.reason, r"^it is read-only and \d+ s behind$")
        # It has the reports from before that.
        self.assertGreater(outage.begin, since + 60.0)
        [line] = trouble()
        self.assertFalse(line.ok)
        self.assertRegex(line.text, r": read-only and \d+ s behind$")
        # It takes writes, and lags.
        self.replica.execute("SET GLOBAL read_only = 0")
        self.assertRegex(told().reason, r"^it is \d+ s behind$")
        [line] = trouble()
        self.assertRegex(line.text, r": \d+ s behind$")


@single_mode
class LagTest(NodesTestCase):
    """An observer that reads from a replica that lags."""

    DOWN_TIME = 3.0

    def observe(self):
        """Return the members by a new observer of the replica."""
        self.flags("database", connection=self.url_of(self.replica.port))
        shared = Shared(process.load("db"))
        self.addCleanup(shared.close)
        return shared.view("compute")

    def lag(self):
        """Return the age of the newest report in the replica, in seconds."""
        [(age,)] = self.replica.execute(
            "SELECT TIMESTAMPDIFF(MICROSECOND, MAX(last_seen_up), "
            f"UTC_TIMESTAMP(6)) FROM `{self.name}`.services"
        )
        return float("inf") if age is None else age / 1e6

    def test_members_of_a_lagging_replica_are_unknown_not_down(self):
        settings = {
            "DEFAULT": {"service_down_time": self.DOWN_TIME},
            "database": {"connection": self.url},
            "servicegroup": {"crash_guard": False},
        }
        reporting = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(reporting.close)
        reporting.expect("ready", 60)
        reporting.tell("join " + " ".join(f"node{n}" for n in range(5)))
        wait_for(
            lambda: len(self.sql("SELECT * FROM services")) == 5
            and self.lag() < 1,
            message="the replica follows",
        )
        self.replica.execute("STOP SLAVE SQL_THREAD")
        wait_for(lambda: self.lag() > 2 * self.DOWN_TIME)

        view = self.observe()
        members = view.members()
        self.assertEqual(5, len(members))
        for member in members:
            self.assertEqual("unknown", member.state, member.reason)
            self.assertIn("the backend may be behind", member.reason)
        with self.assertRaisesRegex(
            exception.ServiceGroupUnavailable, "the backend may be behind"
        ):
            self.observe().is_up("node0")
        # From now on it lags by less than service_down_time.
        self.replica.execute("START SLAVE SQL_THREAD")
        states = set()
        wait_for(
            lambda: states.update(one.state for one in view.members())
            or len(view.hosts_up()) == 5,
            message="it has all again",
        )
        self.assertEqual({"unknown", "up"}, states | {"unknown"})

        reporting.kill()
        wait_for(
            lambda: {one.state for one in view.members()} == {"down"},
            message="the dead are found",
        )
