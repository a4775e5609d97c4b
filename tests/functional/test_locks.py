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

"""The lock and the note of a group, with each driver on real servers."""

import time
from unittest import mock

from nova_sg import exception
from nova_sg.actions import lease
from nova_sg.backends import base as driver_base
from nova_sg.backends.db import locks as db_locks
from nova_sg.backends.memcached import values
from nova_sg.servicegroup import process
from tests.base import wait_for
from tests.functional import db, mc, zk

GROUP = "compute"


class Promises:
    """What every driver promises; `self.driver()` is another process's."""

    def test_one_of_several_has_the_lock(self):
        one, other = self.driver(), self.driver()
        # That it is the first one, a backend cannot tell from a lock that it
        # has lost.
        taken = one.acquire(GROUP, "one", 60)
        self.assertEqual(driver_base.Lock("one"), taken)
        for _ in range(2):
            self.assertEqual("one", other.acquire(GROUP, "other", 60).holder)
            renewed = one.acquire(GROUP, "one", 60)
            self.assertEqual(driver_base.Lock("one", renewed=True), renewed)
        # Not that of another group.
        self.assertEqual("other", other.acquire("other", "other", 60).holder)

    def test_a_lock_that_is_released_is_taken_at_once(self):
        one, other = self.driver(), self.driver()
        one.acquire(GROUP, "one", 60)
        other.release(GROUP, "other")
        self.assertEqual("one", other.acquire(GROUP, "other", 60).holder)
        one.release(GROUP, "one")
        self.assertEqual(
            driver_base.Lock("other", True), other.acquire(GROUP, "other", 60)
        )
        self.assertEqual("other", one.acquire(GROUP, "one", 60).holder)

    def test_a_lock_whose_holder_died_is_taken_and_is_not_clean(self):
        other = self.driver()
        self.take_and_die(GROUP, "one", 2)
        found = []

        def taken():
            found.append(other.acquire(GROUP, "other", 60))
            return found[-1].holder == "other"

        wait_for(taken)
        self.assertFalse(found[-1].clean)
        # It is released by the next, and is clean again after that.
        other.release(GROUP, "other")
        self.assertTrue(self.driver().acquire(GROUP, "next", 60).clean)

    def test_a_note_is_kept_for_all(self):
        one, other = self.driver(), self.driver()
        self.assertEqual("", other.read_note(GROUP))
        text = "Wartung: 50% \u2013 it's {\"fine\"}"
        one.write_note(GROUP, text)
        self.wait_for_note(other, text)
        other.write_note(GROUP, "another")
        self.wait_for_note(one, "another")
        one.write_note(GROUP, "")
        self.wait_for_note(other, "")
        self.assertEqual("", one.read_note("other"))

    def wait_for_note(self, driver, text):
        # A server of ZooKeeper may be behind.
        self.assert_becomes(text, lambda: driver.read_note(GROUP))

    def take_and_die(self, group, holder, seconds):
        """Take a lock and never renew it."""
        self.assertEqual(
            holder, self.driver().acquire(group, holder, seconds).holder
        )


class DbTest(Promises, db.MariaDBTestCase):
    """Nova's database: it has no table of nova_sg's."""

    def setUp(self):
        super().setUp()
        self.sql(f"DROP TABLE {db_locks.locks.name}")

    def driver(self):
        driver = process.load("db")
        self.addCleanup(driver.close)
        return driver

    def test_reading_makes_no_table(self):
        self.driver().read_note(GROUP)
        self.assertEqual((), self.sql("SHOW TABLES LIKE 'nova\\_sg\\_locks'"))

    def test_a_user_that_may_not_make_the_table(self):
        # Before a user of that name connects.
        self.server.execute(
            f"REVOKE CREATE ON `{self.name}`.* FROM {self.name}@127.0.0.1"
        )
        for call in (
            lambda: self.driver().acquire(GROUP, "one", 60),
            lambda: self.driver().write_note(GROUP, "why"),
        ):
            with self.assertRaises(exception.BackendError) as caught:
                call()
            text = str(caught.exception)
            self.assertIn("denied", text)
            self.assertNotIn(db.PASSWORD, text)
        # What it says helps.
        statement = text.partition("INSERT and UPDATE on it: ")[2]
        self.sql(statement)
        self.assertEqual(
            "one", self.driver().acquire(GROUP, "one", 60).holder
        )

    def test_the_table_is_there_before_the_migration(self):
        one = self.driver()
        one.acquire(GROUP, "one", 60)
        self.sql("UPDATE nova_sg_alembic_version SET version_num = '0003'")
        self.sync(self.server.url(self.name))
        [[version]] = self.sql(
            "SELECT version_num FROM nova_sg_alembic_version"
        )
        self.assertNotEqual("0003", version)
        self.assertEqual("one", one.acquire(GROUP, "other", 60).holder)

    def test_groups_that_differ_only_in_case_are_two(self):
        one = self.driver()
        one.acquire("Compute", "one", 60)
        self.assertEqual("other", one.acquire(GROUP, "other", 60).holder)

    def test_a_lock_ends_by_the_clock_of_the_database(self):
        one = self.driver()
        one.acquire(GROUP, "one", 60)
        (seconds,) = self.sql(
            "SELECT TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), expires) "
            "FROM nova_sg_locks"
        )[0]
        self.assertAlmostEqual(60e6, seconds, delta=30e6)


class EmbeddedDbTest(Promises, db.TestCase):
    def driver(self):
        driver = process.load("db")
        self.addCleanup(driver.close)
        return driver


class OneMcTest(Promises, mc.McTestCase):
    NUMBER = 1

    def setUp(self):
        super().setUp()
        self.start(self.NUMBER)


class SeveralMcTest(OneMcTest):
    NUMBER = 3

    def test_most_servers_are_enough(self):
        one, other = self.driver(), self.driver()
        one.acquire(GROUP, "one", 60)
        self.servers[0].kill()
        self.assertEqual("one", one.acquire(GROUP, "one", 60).holder)
        self.assertEqual("one", other.acquire(GROUP, "other", 60).holder)
        self.servers[1].kill()
        self.assertEqual("", one.acquire(GROUP, "one", 60).holder)

    def test_a_server_that_lost_the_lock_is_taken_back(self):
        one = self.driver()
        one.acquire(GROUP, "one", 60)
        raw = [self.raw(server) for server in self.servers]
        raw[0].delete(values.lock_key(GROUP))
        self.assertEqual("one", one.acquire(GROUP, "one", 60).holder)
        for each in raw:
            self.assertIsNotNone(each.get(values.lock_key(GROUP)))

    def test_restarts_do_not_have_two_processes_rely_on_the_lock(self):
        """Most servers forget, and another process takes what they forgot."""
        one, other = self.driver(), self.driver()
        key = values.lock_key(GROUP)
        ours, theirs = lease.Lease("one", 60), lease.Lease("other", 60)
        for moment in (0, 30, 60, 61):
            ours.answered(one.acquire(GROUP, "one", 60), moment, moment + 1)
        self.assertTrue(ours.covers(62, 30))
        for server in self.servers[:2]:
            self.raw(server).delete(key)
        theirs.answered(other.acquire(GROUP, "other", 60), 63, 64)
        # It has the lock, and waits until the first one no longer relies on
        # it, whether or not that one tries to renew.
        self.assertEqual("", theirs.other)
        for moment in range(64, 121):
            self.assertFalse(theirs.covers(moment, 0))
        self.assertFalse(ours.covers(121.5, 0))
        ours.answered(one.acquire(GROUP, "one", 60), 70, 71)
        self.assertEqual("other", ours.other)
        self.assertFalse(ours.covers(71, 0))

    def test_two_that_have_one_server_each(self):
        """None has the lock, and none keeps the other from it for long."""
        drivers = {name: self.driver() for name in ("a", "b", "c")}
        key = values.lock_key(GROUP)
        codec = values.Codec(None)
        for server, name in zip(self.servers, "ab", strict=False):
            self.raw(server).set(
                key, codec.lines(key, [f"held {name}"]), expire=1
            )
        self.raw(self.servers[2]).set(
            key, codec.lines(key, ["held gone"]), expire=1
        )
        wait_for(
            lambda: any(
                driver.acquire(GROUP, name, 60).holder == name
                for name, driver in drivers.items()
            )
        )

    def test_a_note_that_one_server_missed(self):
        one = self.driver()
        one.write_note(GROUP, "old")
        key = values.note_key(GROUP)
        raw = self.raw(self.servers[0])
        old = raw.get(key)
        one.write_note(GROUP, "")
        raw.set(key, old)
        self.assertEqual("", self.driver().read_note(GROUP))


class ZkTest(Promises, zk.ZkTestCase):
    def driver(self):
        driver = process.load("zk")
        self.addCleanup(driver.close)
        return driver

    def take_and_die(self, group, holder, seconds):
        # Its session ends: the servers do not care how.
        dies = process.load("zk")
        self.assertEqual(holder, dies.acquire(group, holder, seconds).holder)
        dies.close()

    def test_the_znode_of_an_earlier_session(self):
        one, other = self.driver(), self.driver()
        one.acquire(GROUP, "one", 60)
        one._link.session.connect(60)
        self.assertEqual("one", one.acquire(GROUP, "one", 60).holder)
        self.assertEqual("one", other.acquire(GROUP, "other", 60).holder)
        path = f"{self.prefix}/.locks/{GROUP}/holder"
        self.assertEqual(
            one._link.session.session_id,
            self.zk.exists(path)["ephemeralOwner"],
        )

    def test_a_process_that_hangs_and_keeps_its_session(self):
        one, other = self.driver(), self.driver()
        one.acquire(GROUP, "one", 1)
        found = []

        def taken():
            found.append(other.acquire(GROUP, "other", 1))
            return found[-1].holder == "other"

        wait_for(taken)
        self.assertFalse(found[-1].clean)
        # As long as one renews it, the other does not get it.
        for _ in range(20):
            other.acquire(GROUP, "other", 1)
            self.assertEqual("other", one.acquire(GROUP, "one", 1).holder)
            time.sleep(0.1)
        self.assertTrue(one._link.session.is_connected())

    def test_a_process_that_died_before_it_relied_on_the_lock(self):
        """What it would have shown as taken, it had not relied on."""
        one = process.load("zk")
        one.acquire(GROUP, "one", 60)
        one.release(GROUP, "one")
        with mock.patch.object(
            type(one._link.session), "set", side_effect=RuntimeError
        ), self.assertRaises(exception.BackendError):
            one.acquire(GROUP, "one", 60)
        # Its next call holds it, but not as a new one: it waits.
        self.assertEqual(
            driver_base.Lock("one", renewed=True),
            one.acquire(GROUP, "one", 60),
        )
        one.close()
        other = self.driver()
        wait_for(lambda: other.acquire(GROUP, "other", 60).holder == "other")

    def test_the_groups_are_the_same(self):
        one = self.driver()
        one.acquire(GROUP, "one", 60)
        one.write_note(GROUP, "why")
        self.assertEqual([], one.groups())
