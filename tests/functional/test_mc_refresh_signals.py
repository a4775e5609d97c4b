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

"""Observers poll refresh signals of memcached; they do not keep them busy."""

import concurrent.futures
import time

from nova_sg.backends.memcached import refresh_signals, values
from tests.base import wait_for
from tests.functional import mc

THREAD = "nova-sg-mc-refresh-signals"


class Server:
    """A memcached whose answers the test decides on."""

    def __init__(self, value=None):
        #: What it answers; None: it does not answer.
        self.value = value
        self.requests = 0

    def get(self, keys):
        self.requests += 1
        future = concurrent.futures.Future()
        if self.value is not None:
            future.set_result(dict.fromkeys(keys, self.value))
        return future


class RefreshSignalsTest(mc.McTestCase):
    """What is polled, and when a refresh is asked for; without servers."""

    def setUp(self):
        super().setUp()
        self.flags("memcache", crash_poll_interval=0.01)
        self.signals = refresh_signals.RefreshSignals(values.Codec("s3cret"))
        self.addCleanup(self.assert_no_thread_named, THREAD)
        self.addCleanup(self.signals.close)
        self.calls = []

    def value(self, group="compute"):
        return self.signals.new(group)[1]

    def follow(self, *servers, took=0.0):
        """Follow a group that was refreshed from servers a moment ago."""
        self.signals.follow("compute", lambda: self.calls.append(1))
        self.refresh(*servers, took=took)

    def refresh(self, *servers, took=0.0):
        self.signals.refreshed(
            "compute",
            time.monotonic() - took,
            {server: server.value for server in servers},
        )

    def wait_for_requests(self, server, number=3):
        """Wait until a server has got a number of further requests."""
        enough = server.requests + number
        wait_for(lambda: server.requests >= enough, message="it is polled")

    def wait_for_call(self):
        wait_for(lambda: self.calls, message="a refresh is asked for")

    def test_a_new_value_asks_for_one_refresh(self):
        server = Server(self.value())
        self.follow(server)
        self.wait_for_requests(server)
        self.assertEqual([], self.calls)
        server.value = self.value()
        self.wait_for_call()
        self.wait_for_requests(server)
        self.assertEqual([1], self.calls)

    def test_slow_refreshes_are_not_asked_for_too_often(self):
        server = Server(self.value())
        self.follow(server, took=3600.0)
        server.value = self.value()
        self.wait_for_requests(server)
        self.assertEqual([], self.calls)
        # A quick refresh ends the pause.
        self.refresh(server)
        server.value = self.value()
        self.wait_for_call()

    def test_a_hung_server_gets_no_second_request(self):
        hung, healthy = Server(self.value()), Server(self.value())
        self.signals.refreshed("compute", 0.0, {})
        self.follow(hung, healthy)
        hung.value = None
        self.wait_for_requests(healthy)
        requests = hung.requests
        self.wait_for_requests(healthy, 10)
        self.assertLessEqual(hung.requests, requests + 1)
        healthy.value = self.value()
        self.wait_for_call()

    def test_a_value_that_is_not_authentic_is_ignored(self):
        server = Server(self.value())
        self.follow(server)
        self.wait_for_requests(server)
        other = values.Codec("other")
        for value in (
            b"0123456789abcdef\n",
            other.lines(values.refresh_signal_key("compute"), ["a"]),
            self.value("conductor"),
            self.value() + self.value(),
            b"x" * 1000,
            b"",
        ):
            with self.subTest(value):
                server.value = value
                # It is not even polled any more.
                self.assert_no_thread_named(THREAD)
                self.assertEqual([], self.calls)
                server.value = self.value()
                self.refresh(server)

    def test_a_group_without_a_signal_is_not_polled(self):
        server = Server(b"")
        self.signals.refreshed("compute", time.monotonic(), {server: None})
        self.follow(server)
        # Neither is a group that is not followed.
        other = Server(self.value("conductor"))
        self.signals.refreshed(
            "conductor", time.monotonic(), {other: other.value}
        )
        self.assert_no_thread_named(THREAD)
        self.assertEqual((0, 0), (server.requests, other.requests))
        # Neither is any group if the operator does not want it.
        self.flags("memcache", crash_poll_interval=0)
        self.refresh(other)
        self.assert_no_thread_named(THREAD)


class MembersWithoutGuardTest(mc.McTestCase):
    def test_they_write_no_signal(self):
        raw = self.raw(self.start())
        self.join("one")
        self.wait_for_states({"one": "up"})
        self.assertIsNone(raw.get(values.refresh_signal_key("compute")))
        self.assert_no_thread_named(THREAD)
