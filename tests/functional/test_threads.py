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

"""join(): waiting for the end of a thread."""

import threading
import time
import unittest

from nova_sg import threads


class JoinTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.go_on = threading.Event()
        self.thread = threading.Thread(target=self.go_on.wait, daemon=True)
        self.thread.start()
        self.addCleanup(self.go_on.set)

    def test_time_over(self):
        begun = time.monotonic()
        threads.join(self.thread, 0.2)
        self.assertGreaterEqual(time.monotonic() - begun, 0.2)
        self.assertTrue(self.thread.is_alive())

    def test_no_time(self):
        threads.join(self.thread, 0)
        threads.join(self.thread, -1)
        self.assertTrue(self.thread.is_alive())

    def test_ended(self):
        waker = threading.Timer(0.1, self.go_on.set)
        waker.start()
        begun = time.monotonic()
        threads.join(self.thread, 60)
        self.assertLess(time.monotonic() - begun, 30)
        self.assertFalse(self.thread.is_alive())
        threads.join(self.thread, 60)

    def test_without_a_limit(self):
        threading.Timer(0.1, self.go_on.set).start()
        threads.join(self.thread, None)
        self.assertFalse(self.thread.is_alive())
