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


"""Marks of members that are forced down, as a process remembers them."""

import time
import unittest
from unittest import mock

from nova_sg.backends.memcached import (
    forced_down,
    local,
    marks,
    replicas,
    values,
)
from tests import base

GROUP = "compute"
KEY = values.forced_key(GROUP)
CODEC = values.Codec(None)


class MarksTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.servers = [local.LocalServer() for _ in range(3)]

    def process(self):
        """Return the marks as another process knows them."""
        return marks.Marks(replicas.Replicas(self.servers, 1.0), CODEC)

    def on(self, server):
        value = server.get([KEY]).result().get(KEY, b"")
        found, _ = forced_down.read(CODEC, KEY, value)
        return {host: mark.forced for host, mark in found.items()}

    def wipe(self, *some):
        for server in some:
            server.delete(KEY)

    def test_a_mark_is_written_again_to_each_server_that_lacks_it(self):
        one = self.process()
        one.command(GROUP, "h", True)
        self.wipe(*self.servers)
        self.assertTrue(one.restore(GROUP)["h"].forced)
        for server in self.servers:
            self.assertEqual({"h": True}, self.on(server))
        self.wipe(self.servers[1])
        # Another process reads it from the others.
        self.process().restore(GROUP)
        self.assertEqual({"h": True}, self.on(self.servers[1]))

    def test_of_two_processes_the_newer_mark_counts(self):
        one, two = self.process(), self.process()
        one.command(GROUP, "h", True)
        made_at = two.restore(GROUP)["h"].at
        self.wipe(*self.servers)
        # A new process cannot know how old the mark is.
        base.wait_for(lambda: time.time() * 1000 > made_at + 1)
        # It knows of no mark, as it is new.
        self.process().command(GROUP, "h", False)
        for process in one, two:
            self.assertFalse(process.restore(GROUP)["h"].forced)
        self.assertEqual({"h": False}, self.on(self.servers[0]))

    def test_a_member_that_is_removed_has_a_mark_only_if_it_had_one(self):
        one = self.process()
        one.command(GROUP, "h", False, forgotten=True)
        self.assertEqual({}, self.on(self.servers[0]))
        one.command(GROUP, "h", True)
        one.command(GROUP, "h", False, forgotten=True)
        self.assertEqual({"h": False}, self.on(self.servers[0]))

    def test_a_process_that_was_suspended_for_long_trusts_the_servers(self):
        one = self.process()
        one.command(GROUP, "h", True)
        self.wipe(*self.servers)
        with mock.patch.object(marks, "MEMORY", -1.0):
            self.assertEqual({}, one.restore(GROUP))

    def test_observers_write_now_and_then(self):
        one = self.process()
        one.command(GROUP, "h", True)
        for expected in {"h": True}, {}:
            self.wipe(self.servers[0])
            answers = {
                server: server.get([KEY]).result() for server in self.servers
            }
            known, lacking, refused = one.take_in(GROUP, answers)
            self.assertEqual(([self.servers[0]], 0), (lacking, refused))
            one.restore_soon(GROUP, lacking, known)
            self.assertEqual(expected, self.on(self.servers[0]))
