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

"""A database server that answers questions but takes no reports.

The observer is this process. It does not report, so it has no evidence from
reports of its own.
"""

import contextlib
import json
import threading
import time

from nova_sg import exception
from nova_sg.backends.db import queries
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared
from tests.base import wait_for
from tests.functional import db, zk

TAKES_NONE = "The backend db takes no reports of the group compute"
OVER = "no longer shows an outage for the group compute"


class TestCase(db.MariaDBTestCase):
    @contextlib.contextmanager
    def read_lock(self):
        """Lock all tables, as a backup does."""
        locker = self.link()
        locker.execute("FLUSH TABLES WITH READ LOCK")
        yield
        locker.execute("UNLOCK TABLES")


class OutageTest(TestCase):
    DOWN_TIME = 3.0
    # Seconds that a busy machine may take longer.
    SLACK = 10.0

    def setUp(self):
        super().setUp()
        # Members report far more often than this observer expects. So a
        # moment without a waiting statement does not end an outage.
        self.flags(report_interval=1.0)

    def start(self, host):
        """Have a member join in a process of its own; return the process."""
        member = zk.Process(
            "-m",
            "tests.functional.guarded",
            json.dumps(
                {
                    "DEFAULT": {"service_down_time": self.DOWN_TIME},
                    "database": {"connection": self.url},
                    "servicegroup": {"crash_guard": False},
                }
            ),
        )
        self.addCleanup(member.close)
        member.expect("ready", 60)
        member.tell(f"join {host}")
        self.wait_for_report(host, 3)
        return member

    def start_two(self):
        """Return the processes of two members, after both are up."""
        members = self.start("one"), self.start("two")
        self.wait_for_state("up", "one")
        self.wait_for_state("up", "two")
        return members

    @contextlib.contextmanager
    def read_only(self):
        self.server.execute("SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            self.server.execute("SET GLOBAL read_only = 0")

    def test_no_member_is_down_while_all_tables_are_locked(self):
        _, dies = self.start_two()
        with zk.Poller(self.api, "one", "two") as poller, self.read_lock():
            time.sleep(self.DOWN_TIME)
            dies.kill()
            time.sleep(2 * self.DOWN_TIME)
            self.assertEqual(["up"], poller.states)
            [line] = self.logs.matching(TAKES_NONE)
            self.assertRegex(line, r": reports wait in the server, for \d+\.")
            reason = self.api.member("compute", "one").reason
            self.assertRegex(reason, r"; \d+\.\d s of that without the back")
            over = time.monotonic()
        self.wait_for_state("down", "two", self.DOWN_TIME + self.SLACK)
        self.assertGreater(time.monotonic(), over + self.DOWN_TIME - 1)
        self.assertEqual("up", self.state("one"))
        wait_for(lambda: self.logs.matching(OVER))
        self.assertEqual(1, len(self.logs.matching(OVER)))

    def test_no_member_is_down_at_first_while_it_is_read_only(self):
        _, dies = self.start_two()
        with self.read_only():
            begun = time.monotonic()
            dies.kill()
            with zk.Poller(self.api, "one", "two") as poller:
                time.sleep(begun + 2 * self.DOWN_TIME - time.monotonic())
                self.assertEqual(["up"], poller.states)
            self.assertIn(
                f"{TAKES_NONE}: it is read-only. Silence in this time does "
                "not count against its members",
                self.logs.matching(TAKES_NONE),
            )
            # The user may not ask for the replication's state. The server
            # may be a replica that has all reports, and every member dead.
            self.wait_for_state("down", "two", self.DOWN_TIME + self.SLACK)
            wait_for(lambda: self.logs.matching(OVER))
            self.assertEqual(1, len(self.logs.matching(OVER)))
        self.wait_for_state("up", "one")
        self.assertEqual("down", self.state("two"))

    def test_no_member_is_down_while_a_known_primary_is_read_only(self):
        self.server.execute(f"GRANT SLAVE MONITOR ON *.* TO {self.user}")
        # So long that the state is known all the time on a busy machine, too.
        self.DOWN_TIME = 6.0
        self.flags(service_down_time=self.DOWN_TIME)
        self.start_two()
        with (
            self.read_only(),
            zk.Poller(self.api, "one", "two") as poller,
        ):
            time.sleep(3.5 * self.DOWN_TIME)
            self.assertEqual(
                ["up"],
                poller.states,
                f"{poller.errors[:3]} {self.logs.matching(TAKES_NONE)}",
            )
            self.assertTrue(self.logs.matching(f"{TAKES_NONE}: it is read-"))

    @property
    def user(self):
        return f"{self.name}@127.0.0.1"

    def test_an_outage_raises_no_dead_member(self):
        """The lock begins shortly before they fall."""
        _, dies = self.start_two()
        # The first observer reports itself, the second does not.
        self.join("here")
        alone = Shared(process.load("db"))
        self.addCleanup(alone.close)
        views = [process.shared().view("compute"), alone.view("compute")]
        told = []
        for number, view in enumerate(views):
            events = []
            told.append(events)
            self.addCleanup(view.watch(events.append).cancel)
            wait_for(lambda v=view: v.is_up("two"), message=f"{number}")
        dead = time.monotonic()
        dies.kill()
        time.sleep(0.9 * self.DOWN_TIME)
        with self.read_lock():
            time.sleep(self.DOWN_TIME)
            for view in views:
                wait_for(
                    lambda v=view: v.observer.group.backends[0].outages_until(
                        time.monotonic()
                    ),
                    message="the outage is known",
                )
        wait_for(
            lambda: all(not view.is_up("two") for view in views),
            2 * self.DOWN_TIME + self.SLACK,
        )
        self.assertGreater(time.monotonic(), dead + self.DOWN_TIME - 1)
        # Also after members have reported the outage.
        self.wait_for_report("here", 5)
        for view in views:
            view.refresh()
        for events in told:
            found = [one.type for one in events if one.host == "two"]
            self.assertEqual(["down"], found)


class ServerOutageTest(TestCase):
    """The outages that the driver reports of a server."""

    DOWN_TIME = 4.0

    def setUp(self):
        super().setUp()
        self.join("one")
        self.stop_reports()
        self.driver = process.shared().driver
        self.since = time.monotonic() - 99.0

    def outage(self):
        return self.driver.outage("compute", self.since)

    def test_no_outage_while_it_works(self):
        self.assertIsNone(self.outage())
        # A short wait is no outage. On a busy machine it may get long.
        patience = self.driver._database.timeout
        locker = self.link()
        for _ in range(20):
            locker.execute("SELECT * FROM services FOR UPDATE")
            begun = time.monotonic()
            with self.waiting(lambda c: queries.report(c, 1, 99, None, None)):
                found = self.outage()
                waited = time.monotonic() - begun
                locker.execute("ROLLBACK")
            if waited < patience / 2:
                break
        self.assertLess(waited, patience / 2)
        self.assertIsNone(found)

    @contextlib.contextmanager
    def waiting(self, work):
        """Have another connection wait for a lock."""

        def wait():
            with contextlib.suppress(exception.BackendError):
                self.driver._database.run(work)

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def test_a_report_that_waits_long_is_an_outage(self):
        # The report of one member, and of several in one statement.
        for name, work in (
            ("one", lambda c: queries.report(c, 1, 99, None, None)),
            ("several", lambda c: queries.claim(c, [1, 2])),
        ):
            with self.subTest(name):
                with self.read_lock(), self.waiting(work):
                    wait_for(lambda: self.outage() is not None)
                    outage = self.outage()
                    self.assertEqual(self.since, outage.begin)
                    self.assertIn("reports wait in the serv", outage.reason)
                wait_for(lambda: self.outage() is None)
