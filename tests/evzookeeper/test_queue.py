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

"""The queue recipe."""

import threading
import time
import unittest
from unittest import mock

from nova_sg import zookeeper
from nova_sg.evzookeeper import queue
from tests.evzookeeper import base
from tests.fixtures import process


class QueueTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.queue = queue.ZKQueue(self.session, "/queue")

    def test_order(self):
        for value in ("a", "b", ""):
            self.queue.enqueue(value)
        self.assertEqual(
            ["a", "b", ""], [self.queue.dequeue() for _ in range(3)])
        self.assertEqual([], self.session.get_children("/queue"))

    def test_that_exists(self):
        self.queue.enqueue("a")
        self.assertEqual(
            "a", queue.ZKQueue(self.open(), "/queue").dequeue())

    def test_empty(self):
        for timeout in (0, 0.2):
            begin = time.monotonic()
            with self.assertRaises(zookeeper.OperationTimeoutException):
                self.queue.dequeue(timeout)
            self.assertGreaterEqual(time.monotonic() - begin, timeout - 0.01)

    def test_waits(self):
        adder = threading.Timer(0.2, self.queue.enqueue, ["a"])
        adder.start()
        self.assertEqual("a", self.queue.dequeue(process.PATIENCE))
        adder.join()

    def test_waits_through_an_expiry(self):
        got = []
        taker = threading.Thread(
            target=lambda: got.append(self.queue.dequeue(process.PATIENCE)))
        asked = self.enterContext(mock.patch.object(
            self.client, "get_children", wraps=self.client.get_children))
        taker.start()
        process.wait_for(lambda: asked.called, message="it asks")
        self.expire(self.session)
        self.queue.enqueue("a")
        taker.join(process.PATIENCE)
        self.assertEqual(["a"], got)

    def test_each_value_is_taken_once(self):
        got = []

        def take():
            other = queue.ZKQueue(self.open(), "/queue")
            while True:
                value = other.dequeue(process.PATIENCE)
                if value == "end":
                    return
                got.append(value)

        takers = [threading.Thread(target=take) for _ in range(4)]
        for taker in takers:
            taker.start()
        for i in range(100):
            self.queue.enqueue(str(i))
        for _ in takers:
            self.queue.enqueue("end")
        for taker in takers:
            taker.join(process.PATIENCE)
        self.assertEqual(sorted(map(str, range(100))), sorted(got))


if __name__ == "__main__":
    unittest.main()
