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

"""The load of the zk driver: requests, listings, delays."""

import os
import threading
import time
from unittest import mock

from nova_sg import zookeeper
from nova_sg.servicegroup import process
from tests import LONG, base
from tests.base import wait_for
from tests.functional import zk
from tests.zookeeper.base import Ticker

_CREATE_MANY = """
import sys
import threading
import tests
from nova_sg import evzookeeper, zookeeper

address, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
session = evzookeeper.ZKSession(address, 30)
handle, session_id = session.connected_handle(30)
acl = [evzookeeper.ZOO_OPEN_ACL_UNSAFE]


def all_answered(start):
    left = [count]
    done = threading.Event()

    def answered(handle, rc, *value):
        assert rc == zookeeper.OK, rc
        left[0] -= 1
        if not left[0]:
            done.set()

    for number in range(count):
        name = f"{path}/node{number}@{session_id:x}"
        start(name, zookeeper.Immediate(answered))
    assert done.wait(120)


all_answered(lambda name, answered: zookeeper.acreate(
    handle, name, "", acl, zookeeper.EPHEMERAL, answered))
print("joined", flush=True)
sys.stdin.readline()
all_answered(lambda name, answered: zookeeper.adelete(
    handle, name, -1, answered))
print("gone", flush=True)
session.close()
"""


class QuestionsTest(zk.ZkTestCase):
    # The client pings after a third of it, so no ping comes during the test.
    RECV_TIMEOUT = 60000

    def packets(self):
        """Return how many packets all servers have received."""
        total = 0
        for server in self.ensemble.servers:
            for line in server.four_letters("srvr").splitlines():
                name, _, value = line.partition(": ")
                if name == "Received":
                    total += int(value)
        return total

    def test_questions_send_no_request(self):
        self.join("one", interval=3600)
        self.join("two", interval=3600)
        # The test's own session would count, too.
        self.zk.close()
        self.wait_until_up("one")
        self.wait_until_up("two")

        def received(seconds):
            before = self.packets()
            time.sleep(seconds)
            return self.packets() - before

        # The question for the number counts as well.
        wait_for(
            lambda: received(0) == received(0.5),
            message="the requests of the first questions are over",
        )
        asking = received(0)
        before = self.packets()
        begun = time.monotonic()
        for _ in range(10_000):
            self.assertTrue(self.is_up("one"))
        took = time.monotonic() - begun
        # Long enough for many refreshes of the view.
        while time.monotonic() < begun + 1:
            self.assertEqual(["one", "two"], self.api.get_all("compute"))
            time.sleep(0.01)
        self.assertLessEqual(self.packets() - before, asking)
        zk.print_figure(f"service_is_up: {10_000 / took:.0f}/s")


class CrowdTest(zk.ZkTestCase):
    # The figures in doc/ are of three servers.
    SERVERS = 3 if LONG else 1
    MEMBERS = 5000 if LONG else 2000

    def test_a_crowd_costs_few_listings(self):
        self.join("observer")
        # A member beside those that are counted.
        self.wait_until_up("observer")
        events = self.collect(self.api)
        client = process.shared().driver._link.client.transport
        listing = mock.patch.object(
            client, "get_children", wraps=client.get_children
        )
        counted = self.enterContext(listing)
        path = f"{self.prefix}/compute"
        crowd = self.start_process(
            *("-c", _CREATE_MANY),
            *(self.ensemble.address, path, str(self.MEMBERS)),
        )
        for words, kinds in (("joined", {"joined"}), ("gone", {"left"})):
            events.clear()
            before = counted.call_count
            begun = time.monotonic()
            with Ticker() as ticker:
                crowd.expect(words, 120)
                said = time.monotonic()
                wait_for(
                    lambda: len(events) >= self.MEMBERS,
                    120,
                    lambda: f"{len(events)} events",
                )
            told = time.monotonic()
            listings = counted.call_count - before
            zk.print_figure(
                f"{self.MEMBERS} {words}: {said - begun:.1f} s until all "
                f"were, observer {told - said:.2f} s later, {listings} "
                f"listings, it stood still for {ticker.longest:.2f} s at most"
            )
            self.assertEqual(kinds, {event.type for event in events})
            self.assertEqual(
                self.MEMBERS, len({event.host for event in events})
            )
            # The monitor lists the members once every 50 ms at most. A
            # refresh comes after each of these, and every 50 ms anyhow. It
            # lists two paths if members have gone.
            most = 5 * (told - begun) / 0.05 + 10
            self.assertLess(listings, most)
            if words == "joined":
                self.assertEqual(
                    self.MEMBERS + 1, len(self.api.get_all("compute"))
                )
                crowd.tell("go")


class PushTest(zk.ZkTestCase):
    # The figures in doc/ are of three.
    SERVERS = 3 if LONG else 1
    ROUNDS = 100 if LONG else 20
    # Without a change there is a refresh every quarter of it.
    DOWN_TIME = 40.0 * base.PATIENCE

    def test_delay_from_the_change_to_the_callback(self):
        """It is measured from before the request for the change is sent."""
        told = threading.Event()
        moments = []

        def callback(event):
            moments.append(time.monotonic())
            told.set()

        # No refresh comes without a change.
        self.flags("servicegroup", view_refresh_interval=10 * base.PATIENCE)
        self.join("observer")
        watch = self.api.watch("compute", callback)
        self.addCleanup(watch.cancel)
        path = f"{self.prefix}/compute/pushed@ff"
        delays = {"appeared": [], "vanished": []}
        for _ in range(self.ROUNDS):
            for what, change in (
                (
                    "appeared",
                    lambda: self.zk.create(
                        path, "", flags=zookeeper.EPHEMERAL
                    ),
                ),
                ("vanished", lambda: self.zk.delete(path)),
            ):
                told.clear()
                begun = time.monotonic()
                change()
                self.assertTrue(told.wait(base.PATIENCE))
                delays[what].append(moments[-1] - begun)
                # So that the next change finds the watch set again.
                time.sleep(0.1)
        for what, seconds in delays.items():
            zk.report_figures(f"a znode {what}, the callback came", seconds)
            # The quickest: a busy machine delays some, waiting delays all.
            self.assertLess(min(seconds), 0.1)


class LeakTest(zk.ZkTestCase):
    def test_closing_ends_all_threads_and_descriptors(self):
        self.use()
        before = _held()
        for _ in range(5):
            self.use()
        wait_for(
            lambda: all(
                now <= then
                for now, then in zip(_held(), before, strict=True)
            ),
            message=lambda: f"of {before} threads, fds are left {_held()}",
        )

    def use(self):
        service = self.join("one")
        self.collect(self.api)
        self.wait_until_up("one")
        self.assertFalse(service.model_disconnected)
        process.reset()
        for prefix in (
            "nova-sg-observe",
            "nova-sg-report",
            "nova_sg.evzookeeper MembershipMonitor",
        ):
            self.assert_no_thread_named(prefix)


def _held():
    """Return the numbers of threads, including C's, and of descriptors."""
    return tuple(
        len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd")
    )
