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

"""Conditions that carry a state."""

import ctypes
import threading
import time
import unittest

from nova_sg import zookeeper
from nova_sg.evzookeeper import utils
from nova_sg.zookeeper import offhub
from tests.fixtures import process


class ConditionTest(unittest.TestCase):
    def test_each_notice_lets_one_wait_pass(self):
        condition = utils.PipeCondition()
        condition.notify()
        condition.notify()
        condition.wait(process.PATIENCE)
        condition.wait(process.PATIENCE)
        with self.assertRaises(zookeeper.OperationTimeoutException):
            condition.wait(0.05)

    def test_the_last_state_is_got(self):
        condition = utils.StatePipeCondition()
        condition.set_and_notify(1)
        condition.set_and_notify(2)
        self.assertEqual(2, condition.wait_and_get(process.PATIENCE))
        self.assertEqual(2, condition.wait_and_get(process.PATIENCE))
        with self.assertRaises(zookeeper.OperationTimeoutException):
            condition.wait_and_get(0)

    def test_close(self):
        condition = utils.StatePipeCondition()
        closer = threading.Timer(0.1, condition.close)
        closer.start()
        with self.assertRaises(utils.PipeConditionClosedError):
            condition.wait_and_get(process.PATIENCE)
        with self.assertRaises(utils.PipeConditionClosedError):
            condition.wait()
        condition.set_and_notify(1)
        condition.close()
        closer.join()

    def test_notified_by_a_thread(self):
        condition = utils.StatePipeCondition()
        thread = threading.Thread(target=condition.set_and_notify, args=[1])
        thread.start()
        self.assertEqual(1, condition.wait_and_get(process.PATIENCE))
        thread.join()

    def test_notified_by_a_thread_of_the_operating_system(self):
        """Under eventlet this thread is not green."""
        condition = utils.StatePipeCondition()

        def work():
            ctypes.CDLL(None).usleep(100000)
            condition.set_and_notify(1)

        begin = time.monotonic()
        offhub.run(work, lambda result: None)
        self.assertEqual(1, condition.wait_and_get(process.PATIENCE))
        self.assertLess(time.monotonic() - begin, process.PATIENCE / 2)


if __name__ == "__main__":
    unittest.main()
