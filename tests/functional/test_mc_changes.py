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


"""Observers of memcached hear of a crash, and are not kept busy by it."""

import concurrent.futures
import time

from nova_sg.backends.memcached import changes, values
from tests.base import wait_for
from tests.functional import mc

THREAD = "nova-sg-mc-changes"


class Server:
    """A memcached that answers what and when the test says."""

    def __init__(self, value=None):
        #: What it answers; None: it does not.
        self.value = value
        self.asked = 0

    def get(self, keys):
        self.asked += 1
        future = concurrent.futures.Future()
        if self.value is not None:
            future.set_result(dict.fromkeys(keys, self.value))
        return future


class ChangesTest(mc.McTestCase):
    """Without servers: what is asked, and when somebody is woken."""

    def setUp(self):
        super().setUp()
        self.flags("memcache", crash_poll_interval=0.01)
        self.changes = changes.Changes(values.Codec("s3cret"))
        self.addCleanup(self.assert_no_thread_named, THREAD)
        self.addCleanup(self.changes.close)
        self.woken = []

    def value(self, group="compute"):
        return self.changes.new(group)[1]

    def follow(self, *servers, took=0.0):
        """Follow a group that was looked at on servers a moment ago."""
        self.changes.follow("compute", lambda: self.woken.append(1))
        self.look(*servers, took=took)

    def look(self, *servers, took=0.0):
        self.changes.looked(
            "compute",
            time.monotonic() - took,
            {server: server.value for server in servers},
        )

    def wait_until_asked(self, server, times=3):
        """Wait until it was asked some more times."""
        enough = server.asked + times
        wait_for(lambda: server.asked >= enough, message="it is asked")

    def test_another_value_is_news_once(self):
        server = Server(self.value())
        self.follow(server)
        self.wait_until_asked(server)
        self.assertEqual([], self.woken)
        server.value = self.value()
        wait_for(lambda: self.woken, message="somebody is woken")
        self.wait_until_asked(server)
        self.assertEqual([1], self.woken)

    def test_looks_that_take_long_are_not_made_too_often(self):
        server = Server(self.value())
        self.follow(server, took=3600.0)
        server.value = self.value()
        self.wait_until_asked(server)
        self.assertEqual([], self.woken)
        # It is not forgotten.
        self.look(server)
        server.value = self.value()
        wait_for(lambda: self.woken, message="somebody is woken")

    def test_a_server_that_does_not_answer(self):
        silent, well = Server(self.value()), Server(self.value())
        self.changes.looked("compute", 0.0, {})
        self.follow(silent, well)
        silent.value = None
        self.wait_until_asked(well)
        asked = silent.asked
        self.wait_until_asked(well, 10)
        self.assertLessEqual(silent.asked, asked + 1)
        well.value = self.value()
        wait_for(lambda: self.woken, message="somebody is woken")

    def test_what_nobody_with_the_secret_wrote_is_no_news(self):
        server = Server(self.value())
        self.follow(server)
        self.wait_until_asked(server)
        for value in (
            b"0123456789abcdef\n",
            values.Codec("other").lines(values.changes_key("compute"), ["a"]),
            self.value("conductor"),
            self.value() + self.value(),
            b"x" * 1000,
            b"",
        ):
            with self.subTest(value):
                server.value = value
                # It is not even asked for any more.
                self.assert_no_thread_named(THREAD)
                self.assertEqual([], self.woken)
                server.value = self.value()
                self.look(server)

    def test_nobody_asks_where_there_is_no_guard(self):
        server = Server(b"")
        self.changes.looked("compute", time.monotonic(), {server: None})
        self.follow(server)
        # Nor about a group that nobody follows.
        other = Server(self.value("conductor"))
        self.changes.looked(
            "conductor", time.monotonic(), {other: other.value}
        )
        self.assert_no_thread_named(THREAD)
        self.assertEqual((0, 0), (server.asked, other.asked))
        # Nor where the operator does not want it.
        self.flags("memcache", crash_poll_interval=0)
        self.look(other)
        self.assert_no_thread_named(THREAD)


class FollowTest(mc.McTestCase):
    def test_members_without_a_guard_leave_no_value(self):
        raw = self.raw(self.start())
        self.join("one")
        self.wait_for_states({"one": "up"})
        self.assertIsNone(raw.get(values.changes_key("compute")))
        self.assert_no_thread_named(THREAD)
