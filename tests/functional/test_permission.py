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

"""Whether a process may act, by the pause and the lock in real backends.

Processes are stood for by drivers of their own.
"""

import datetime
import threading
import time
from unittest import mock

from nova_sg.actions import pause, permission
from nova_sg.servicegroup import process
from tests.base import wait_for
from tests.functional import db, mc, zk

GROUP = "compute"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
# Seconds that an action takes, and beyond that.
LONGEST, MARGIN = 0.5, 2.5
HELD = LONGEST + MARGIN


class Overlaps(threading.Thread):
    """Notes whether two processes may act at the same moment."""

    def __init__(self, *several):
        super().__init__(daemon=True)
        self._several = several
        self._ended = threading.Event()
        self.found = 0
        self.start()

    def run(self):
        while not self._ended.wait(0.002):
            for one in self._several:
                before = one.ask()
                others = [o.ask() for o in self._several if o is not one]
                # Each of them at some moment between these two.
                if before == one.ask() == permission.ACT in others:
                    self.found += 1

    def close(self):
        self._ended.set()
        self.join()


class Promises:
    """What holds with every driver."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(permission, "INTERVAL", 0.1))

    def begin(self, holder):
        """Begin as another process would; holder None: without a lock."""
        driver = process.load(self.NAME)
        self.addCleanup(driver.close)
        made = permission.Permission(driver, GROUP, holder, LONGEST, MARGIN)
        made.start()
        self.addCleanup(made.close, False)
        return made

    def wait_until(self, one, answer):
        wait_for(lambda: one.ask() == answer, message=f"it is to {answer}")

    def test_a_pause_concerns_all(self):
        several = [self.begin(None), self.begin(None)]
        for one in several:
            self.wait_until(one, permission.ACT)
        driver = process.load(self.NAME)
        self.addCleanup(driver.close)
        driver.write_note(
            GROUP, pause.write(pause.Pause("ctl1", NOW, None, "why"))
        )
        for one in several:
            self.wait_until(one, permission.WAIT)
        wait_for(lambda: len(self.logs.matching("paused since", 30)) == 2)
        driver.write_note(GROUP, "")
        for one in several:
            self.wait_until(one, permission.ACT)
        wait_for(lambda: len(self.logs.matching("no longer paused", 30)) == 2)

    def test_one_acts_and_the_next_takes_over(self):
        first = self.begin("first")
        self.wait_until(first, permission.ACT)
        second = self.begin("second")
        overlaps = Overlaps(first, second)
        self.wait_until(second, permission.LEAVE)
        # It ends in order: the other one acts at once. The very first one has
        # to wait, as a backend cannot tell that it is the first.
        waited = len(self.logs.matching("takes over the actions", 30))
        first.close(release=True)
        self.wait_until(second, permission.ACT)
        self.assertEqual(
            waited, len(self.logs.matching("takes over the actions", 30))
        )
        # That one dies.
        third = self.begin("third")
        self.wait_until(third, permission.LEAVE)
        overlaps.close()
        overlaps = Overlaps(second, third)
        began = time.monotonic()
        self.die(second)
        self.wait_until(third, permission.ACT)
        self.assertGreater(time.monotonic() - began, HELD - 1)
        self.assertEqual(permission.WAIT, second.ask())
        self.assertEqual(
            waited + 1, len(self.logs.matching("takes over the actions", 30))
        )
        overlaps.close()
        self.assertEqual(0, overlaps.found)

    def die(self, one):
        one.close(release=False)


class DbTest(Promises, db.MariaDBTestCase):
    NAME = "db"

    def test_no_process_acts_without_the_database(self):
        first, second = self.begin("first"), self.begin("second")
        wait_for(
            lambda: permission.ACT in (first.ask(), second.ask()),
            message="one acts",
        )
        overlaps = Overlaps(first, second)
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        wait_for(
            lambda: permission.ACT not in (first.ask(), second.ask()),
            message="none acts",
        )
        self.server.thaw()
        wait_for(
            lambda: permission.ACT in (first.ask(), second.ask()),
            message="one acts again",
        )
        overlaps.close()
        self.assertEqual(0, overlaps.found)

    def test_the_clock_of_the_database_leaps(self):
        """The lock is free at once, and its holder goes on to rely on it."""
        first, second = self.begin("first"), None
        self.wait_until(first, permission.ACT)
        second = self.begin("second")
        self.wait_until(second, permission.LEAVE)
        overlaps = Overlaps(first, second)
        for _ in range(20):
            self.sql("UPDATE nova_sg_locks SET expires = '2000-01-01'")
            time.sleep(0.05)
        wait_for(
            lambda: permission.ACT in (first.ask(), second.ask()),
            message="one acts",
        )
        overlaps.close()
        self.assertEqual(0, overlaps.found)


class McTest(Promises, mc.McTestCase):
    NAME = "mc"

    def setUp(self):
        super().setUp()
        self.start(3)

    def test_servers_that_are_restarted(self):
        """They forget who has the lock."""
        several = [self.begin("first"), self.begin("second")]
        overlaps = Overlaps(*several)
        for lost in ((0,), (0, 1), (0, 1, 2)):
            with self.subTest(lost):
                wait_for(
                    lambda: permission.ACT in [o.ask() for o in several],
                    message="one acts",
                )
                for number in lost:
                    self.servers[number].restart()
        wait_for(
            lambda: permission.ACT in [o.ask() for o in several],
            message="one acts",
        )
        overlaps.close()
        self.assertEqual(0, overlaps.found)


class ZkTest(Promises, zk.ZkTestCase):
    NAME = "zk"
    RECV_TIMEOUT = 4000

    def die(self, one):
        one.close(release=False)
        # Its session ends with it.
        one._driver.close()
