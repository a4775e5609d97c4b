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


"""What accounts, and strangers, can do: doc/source/security.rst says so."""

import json
import os
import time

from nova_sg import exception, zookeeper
from nova_sg.backends import base as driver_base
from nova_sg.backends.memcached import values
from nova_sg.backends.zookeeper import names as znodes
from nova_sg.servicegroup import process
from tests import base, single_mode
from tests.base import wait_for
from tests.functional import db, mc, test_guard, zk

SECRET = "correct-horse"
# The least privileges of a member.
MEMBER = (
    "SELECT, INSERT, UPDATE ON services",
    "SELECT ON nova_sg_alembic_version",
)


def membership(host):
    return driver_base.Membership(
        host, "compute", "nova-compute", base.Member(host), 0.1
    )


@single_mode
class DatabaseTest(db.MariaDBTestCase):
    """Accounts with fewer privileges than all."""

    def driver(self, *grants):
        """Return a driver whose account has these privileges on tables."""
        name = f"u{len(self.accounts)}_{self.name}"[:32]
        self.accounts.append(name)
        self.server.execute(
            f"CREATE USER {name}@127.0.0.1 IDENTIFIED BY '{db.PASSWORD}'"
        )
        self.addCleanup(self.server.execute, f"DROP USER {name}@127.0.0.1")
        for grant in grants:
            what, _, table = grant.partition(" ON ")
            self.server.execute(
                f"GRANT {what} ON `{self.name}`.{table} TO {name}@127.0.0.1"
            )
        self.flags(
            "database",
            connection=f"mysql+pymysql://{name}:{db.PASSWORD}@127.0.0.1:"
            f"{self.server.port}/{self.name}",
        )
        driver = process.load("db")
        self.addCleanup(driver.close)
        return driver

    def setUp(self):
        super().setUp()
        self.accounts = []

    def hosts(self, driver):
        return {
            one.host: one.attributes.forced_down
            for one in driver.observe("compute").observations
        }

    def test_a_member(self):
        driver = self.driver(*MEMBER)
        member = membership("one")
        driver.report(member)
        driver.report(member)
        driver.force_down("compute", "one", True)
        self.assertEqual({"one": True}, self.hosts(driver))
        driver.force_down("compute", "one", False)
        self.assertTrue(driver.note_crash("compute", "one"))
        driver.report(membership("one"))
        driver.withdraw(member)
        driver.forget("compute", "one")
        self.assertEqual({}, self.hosts(driver))
        with self.assertRaises(exception.BackendError):
            driver.acquire("compute", "me", 10.0)

    def test_an_observer(self):
        self.driver(*MEMBER).report(membership("one"))
        driver = self.driver("SELECT ON services")
        self.assertEqual({"one": False}, self.hosts(driver))
        self.assertEqual(["compute"], driver.groups())
        for call in (
            lambda: driver.report(membership("one")),
            lambda: driver.report(membership("two")),
            lambda: driver.force_down("compute", "one", True),
            lambda: driver.note_crash("compute", "one"),
            lambda: driver.forget("compute", "one"),
        ):
            with self.assertRaisesRegex(exception.BackendError, "denied"):
                call()
        self.assertEqual({"one": False}, self.hosts(driver))

    def test_a_watcher(self):
        driver = self.driver(
            "SELECT ON services", "SELECT, INSERT, UPDATE ON nova_sg_locks"
        )
        lock = driver.acquire("compute", "me", 10.0)
        self.assertEqual("me", lock.holder)
        driver.write_note("compute", "work on rack 3")
        self.assertEqual("work on rack 3", driver.read_note("compute"))
        driver.release("compute", "me")


class MemcachedTest(mc.McTestCase):
    """A program that reaches the server, and does not know the secret."""

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.stranger = self.raw(self.server)
        self.key = values.member_key("compute", "one")

    @single_mode
    def test_without_a_secret_it_can_do_everything(self):
        self.flags(service_down_time=3.0, report_interval=0.2)
        self.join("one").tick()
        self.wait_for_states({"one": "up"})
        now = int(time.time() * 1000)
        self.stranger.set(self.key, b"1 left %d nova-compute" % (now + 100))
        self.wait_for_states({"one": "down"})
        self.stranger.set(self.key, b"1 up %d nova-compute" % (now + 500))
        self.wait_for_states({"one": "up"})

    @single_mode
    def test_with_a_secret_it_cannot_keep_a_dead_member_up(self):
        """By writing back what the member has written."""
        self.flags("memcache", memcache_secret_key=SECRET)
        self.flags(service_down_time=3.0, report_interval=0.2)
        self.flags("servicegroup", mass_silence_fraction=0.0)
        driver = self.driver()
        member = self.membership("one")
        recorded = []
        for _ in range(3):
            died = time.monotonic()
            driver.report(member)
            recorded.append(self.stranger.get(self.key))
            time.sleep(0.01)
        self.wait_for_states({"one": "up"})
        while self.states() != {"one": "down"}:
            # The server would have forgotten the value by itself.
            for value in recorded:
                self.stranger.set(self.key, value)
            self.assertLess(time.monotonic() - died, 3.0 + 4.0)
            time.sleep(0.05)
        # It was not called down early, either.
        self.assertGreater(time.monotonic() - died, 2.0)

    @single_mode
    def test_with_a_secret_it_can_take_a_member_down_for_a_while(self):
        """By writing back that the member left once: until it reports."""
        self.flags("memcache", memcache_secret_key=SECRET)
        driver = self.driver()
        member = self.membership("one")
        driver.report(member)
        driver.withdraw(member)
        left = self.stranger.get(self.key)
        driver.report(member)
        self.wait_for_states({"one": "up"})
        self.stranger.set(self.key, left)
        self.assertEqual({"one": "down"}, self.states())
        driver.report(member)
        self.assertEqual({"one": "up"}, self.states())

    @single_mode
    def test_with_a_secret_it_can_write_back_a_mark(self):
        """That a member was forced down once, until its next report."""
        self.flags("memcache", memcache_secret_key=SECRET)
        driver = self.driver()
        member = self.membership("one")
        driver.report(member)
        driver.force_down("compute", "one", True)
        key = values.forced_key("compute")
        forced = self.stranger.get(key)
        driver.force_down("compute", "one", False)
        self.assertEqual({"one": "up"}, self.states())
        self.stranger.set(key, forced)
        self.assertEqual({"one": "down"}, self.states())
        driver.report(member)
        self.assertEqual({"one": "up"}, self.states())


class ZooKeeperTest(zk.ZkTestCase):
    """A client that does not know the digest."""

    def setUp(self):
        super().setUp()
        self.flags("zookeeper", digest="nova:s3cret", acl="creator")

    @single_mode
    def test_it_can_read_and_change_nothing(self):
        self.join("one")
        self.wait_until_up("one")
        self.api.force_down("one", "compute")
        self.api.force_down("one", "compute", False)
        stranger = self.connect()
        group = znodes.group_path("compute")
        [name] = self.znodes(session=stranger)
        entry = znodes.entry_path("compute", "one", "nova-compute")
        for call in (
            lambda: stranger.delete(f"{group}/{name}"),
            lambda: stranger.create(f"{group}/two@1", ""),
            lambda: stranger.create(f"{entry}@left", ""),
            lambda: stranger.set(entry, ""),
            lambda: stranger.create(
                f"{znodes.forced_path('compute')}/one", ""
            ),
        ):
            with self.assertRaises(zookeeper.NoAuthException):
                call()
        self.assertTrue(self.is_up("one"))


@single_mode
class GuardTest(mc.McTestCase):
    def test_no_secret_of_a_guard_is_seen_from_outside(self):
        """Other users can read the arguments of every process."""
        self.start()
        settings = {
            "DEFAULT": {
                "servicegroup_driver": "mc",
                "memcached_servers": [s.address for s in self.servers],
                "state_path": self.folder,
            },
            "memcache": {"memcache_secret_key": SECRET},
        }
        service = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(service.close)
        service.expect("ready")
        service.tell("join one")
        service.expect("done: join")
        [guard] = wait_for(lambda: test_guard._guards_of(service.pid))
        for what in ("cmdline", "environ"):
            with open(f"/proc/{guard}/{what}", "rb") as text:
                self.assertNotIn(SECRET.encode(), text.read())
        # Its socket is one of a pair: it has no name to connect to.
        links = {
            os.readlink(entry.path)
            for entry in os.scandir(f"/proc/{guard}/fd")
        }
        [number] = [one[8:-1] for one in links if one.startswith("socket:")]
        with open("/proc/net/unix") as table:
            [line] = [line for line in table if line.split()[6] == number]
        self.assertEqual(7, len(line.split()), line)
        service.tell("leave one")
        service.expect("done: leave")
