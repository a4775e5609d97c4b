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

"""A Galera cluster whose nodes have clocks that differ, behind HAProxy.

Each connection may lead to another node, and a report has the stamp of the
node that took it.
"""

import datetime
import json
import threading
import time

import pymysql
from pymysql import cursors

from nova_sg import exception, threads
from nova_sg.servicegroup import process
from tests import single_mode
from tests.base import PATIENCE, wait_for
from tests.fixtures import galera
from tests.functional import db, zk

# Seconds by which the second node's clock is ahead.
AHEAD = 30.0


class GaleraTestCase(db.TestCase):
    DOWN_TIME = 4.0
    #: For each node, the seconds by which its clock is ahead.
    CLOCKS = (0.0, AHEAD)

    def setUp(self):
        super().setUp()
        self.cluster = galera.Cluster(*self.CLOCKS)
        self.addCleanup(self.cluster.close)
        self.cluster.start(self.prepare)
        self.url = self.url_of(self.cluster.proxy)
        self.flags("database", connection=self.url)
        self.addCleanup(process.reset)

    @staticmethod
    def url_of(server):
        return (
            f"mysql+pymysql://root:{db.PASSWORD}@127.0.0.1:{server.port}/nova"
        )

    def prepare(self, node):
        node.create_database("nova")
        db.MariaDBTestCase.sync(self.url_of(node))

    def member(self, *hosts):
        """Start a process with members; at its end they do not leave."""
        settings = {
            "DEFAULT": {"service_down_time": self.DOWN_TIME},
            "database": {"connection": self.url},
            "servicegroup": {"crash_guard": False},
        }
        started = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(started.close)
        started.expect("ready", 60)
        started.tell(f"join {' '.join(hosts)}")
        started.expect("done: join")
        return started

    def record(self, node, host):
        """Return a member's record in one node, as Nova reads it."""
        link = pymysql.connect(
            host="127.0.0.1",
            port=node.port,
            user="root",
            password=db.PASSWORD,
            database="nova",
            cursorclass=cursors.DictCursor,
            # For TLS it would read all certificates of the system.
            ssl_disabled=True,
        )
        with link, link.cursor() as cursor:
            cursor.execute("SELECT * FROM services WHERE host = %s", [host])
            return cursor.fetchone()


class ClocksTest(GaleraTestCase):
    def is_up_by_record(self, host):
        record = self.record(self.cluster.nodes[0], host)
        return self.api.service_is_up(record)

    def check(self, expected, ask, *arguments):
        """Check an answer; return whether there is one.

        All connections of the observer are closed again and again here. On a
        busy machine it may get no answer for as long as service_down_time.
        """
        try:
            self.assertEqual(expected, ask(*arguments))
        except exception.ServiceGroupUnavailable:
            return False
        return True

    def test_verdicts_do_not_depend_on_the_nodes_clocks(self):
        # The connections of two processes lead to two nodes.
        alive = ["one", "two"]
        for host in alive:
            self.member(host)
        dies = self.member("dies")
        wait_for(lambda: self.api.get_all("compute") == ["dies", *alive])
        events = self.collect(self.api)
        # A first record has nothing but its stamp, which is in the future or
        # long ago.
        for host in alive:
            wait_for(lambda host=host: self.is_up_by_record(host))

        # By name, by a list, and by a record of either node.
        stamped_ahead = set()
        answers = 0
        until = time.monotonic() + 2 * self.DOWN_TIME
        while time.monotonic() < until or answers < 10:
            self.assertLess(time.monotonic(), until + PATIENCE)
            # An observer's connections lead to one node after the other.
            process.shared().driver._database.engine.dispose()
            for host in alive:
                for node in self.cluster.nodes:
                    record = self.record(node, host)
                    age = datetime.datetime.now(datetime.UTC)
                    age -= record["last_seen_up"].replace(tzinfo=datetime.UTC)
                    stamped_ahead.add(age.total_seconds() < -AHEAD / 2)
                    self.assertTrue(self.api.service_is_up(record))
                answers += self.check(True, self.is_up, host)
            self.check(["dies", *alive], self.api.get_all, "compute")
        # Reports have stamps of both nodes, or this would prove nothing.
        self.assertEqual({False, True}, stamped_ahead)
        self.assertEqual([], events)

        died = time.monotonic()
        dies.kill()
        wait_for(lambda: not self.is_up("dies"), 60, "its death is found")
        # Neither clock makes it later: they are AHEAD apart.
        self.assertLess(time.monotonic() - died, self.DOWN_TIME + AHEAD / 4)
        self.assertGreater(time.monotonic() - died, self.DOWN_TIME - 1)

        # Now every connection leads to the node whose clock is behind.
        self.cluster.nodes[1].stop()
        until = time.monotonic() + 1.5 * self.DOWN_TIME
        while time.monotonic() < until:
            self.assertFalse(self.is_up("dies"))
            for host in alive:
                self.assertTrue(self.is_up(host))
            time.sleep(0.02)
        self.assertEqual(
            [("dies", "down")], [(one.host, one.type) for one in events]
        )


@single_mode
class DonorTest(GaleraTestCase):
    """A node that gives its data to another takes no writes meanwhile."""

    CLOCKS = (0.0, 0.0)

    def test_no_member_is_down_for_it(self):
        donor, joiner = self.cluster.nodes
        joiner.stop()
        joiner.lose_data()
        joins = threading.Thread(target=joiner.start, daemon=True)
        # The observer, this process, does not report itself.
        alive = [f"node-{number}" for number in range(4)]
        self.member(*alive)
        dies = self.member("dies")
        wait_for(lambda: self.api.get_all("compute") == ["dies", *alive])
        events = self.collect(self.api)
        with self.cluster.long_transfer():
            joins.start()
            wait_for(
                lambda: donor.state == "Donor/Desynced",
                message="a node is a donor",
            )
            dies.kill()
            until = time.monotonic() + 3 * self.DOWN_TIME
            while time.monotonic() < until:
                self.assertEqual(["dies", *alive], self.api.get_all("compute"))
                time.sleep(0.02)
            # More than one where no report waits for 1.5 report_interval,
            # which is a moment here.
            lines = self.logs.matching("takes no reports of the group")
            self.assertTrue(lines)
            for line in lines:
                self.assertRegex(
                    line,
                    "reports wait in the server|"
                    r"is not synced \(Donor/Desynced\)",
                )
        over = time.monotonic()
        wait_for(
            lambda: self.api.get_all("compute") == alive,
            message="the one that died meanwhile is down",
        )
        self.assertLess(time.monotonic() - over, self.DOWN_TIME + 6)
        threads.join(joins, 60)
        self.assertEqual("Synced", donor.state)
        # An event comes a moment after the first answer.
        wait_for(lambda: events)
        self.assertEqual(
            [("dies", "down")], [(one.host, one.type) for one in events]
        )
