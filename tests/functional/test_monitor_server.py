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

"""The server of the monitor's page, and its threads."""

import socket
import threading
import time

from nova_sg.monitor import server
from tests import base
from tests.fixtures import process


class StopTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.before = set(threading.enumerate())

    def left(self):
        return set(threading.enumerate()) - self.before

    def check_that_no_thread_stays(self):
        base.wait_for(
            lambda: not self.left(),
            message=lambda: f"these ended, too: {self.left()}",
        )
        self.assertEqual([], self.logs.matching("Error"))

    def test_soon_after_the_start(self):
        """cheroot ignored it, and its threads stayed."""
        for pause in (0.0, 0.05, 0.3):
            with self.subTest(pause):
                started = server.Server(process.free_port(), "port", None)
                started.start()
                time.sleep(pause)
                self.assertTrue(self.left())
                started.stop()
                self.check_that_no_thread_stays()

    def test_before_the_start(self):
        stopped = server.Server(process.free_port(), "port", None)
        stopped.stop()
        stopped.start()
        self.check_that_no_thread_stays()


class ConnectionTest(base.TestCase):
    def test_what_a_client_has_not_read_is_dropped(self):
        """Otherwise Python 3.13 sends it later, and prints that it failed."""
        owner = server.Server(process.free_port(), "port", None)
        self.addCleanup(owner.stop)
        mine, client = socket.socketpair()
        made = server._Connection(owner, mine)
        made.wfile._write_buf.extend(b"the rest of an answer")
        client.close()
        made.close()
        self.assertTrue(made.wfile.closed)
        self.assertNotIn(made, owner.connections)
