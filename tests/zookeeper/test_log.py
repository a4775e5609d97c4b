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

"""The destination of the C client's log."""

import logging
import os
import re
import tempfile
import unittest

from nova_sg import zookeeper
from tests.fixtures import process
from tests.zookeeper import base

LOGGER = "nova_sg.zookeeper"


class LogTest(base.TestCase):
    def setUp(self):
        super().setUp()
        zookeeper.set_debug_level(zookeeper.LOG_LEVEL_INFO)
        self.addCleanup(
            zookeeper.set_debug_level, zookeeper.LOG_LEVEL_WARN)

    def test_python_logging(self):
        with self.assertLogs(LOGGER, "INFO") as logs:
            zookeeper.close(self.connect())
            process.wait_for(lambda: any(
                "Closing zookeeper" in line for line in logs.output))
        records = [
            record for record in logs.records
            if "Initiating client connection" in record.getMessage()]
        self.assertEqual(logging.INFO, records[0].levelno)
        # Without the C client's own date, process and level.
        self.assertRegex(
            records[0].getMessage(),
            "^zookeeper_init_internal: Initiating client connection")

    def test_levels(self):
        dead = f"127.0.0.1:{process.free_port()}"
        with self.assertLogs(LOGGER, "DEBUG") as logs:
            zookeeper.set_debug_level(zookeeper.LOG_LEVEL_DEBUG)
            handle = zookeeper.init(dead)
            process.wait_for(
                lambda: {"DEBUG", "INFO", "ERROR"} <= {
                    record.levelname for record in logs.records},
                message=lambda: f"every level: {logs.output}")
            zookeeper.close(handle)

    def test_set_debug_level(self):
        zookeeper.set_debug_level(zookeeper.LOG_LEVEL_ERROR)
        with self.assertLogs(LOGGER, "DEBUG") as logs:
            zookeeper.close(self.connect())
            dead = f"127.0.0.1:{process.free_port()}"
            handle = zookeeper.init(dead)
            process.wait_for(lambda: logs.output)
            zookeeper.close(handle)
        self.assertEqual(
            {logging.ERROR}, {record.levelno for record in logs.records})

    def test_stream(self):
        self.addCleanup(zookeeper.set_log_stream, None)
        with tempfile.NamedTemporaryFile("w") as stream:
            zookeeper.set_log_stream(stream)
            with self.assertNoLogs(LOGGER):
                zookeeper.close(self.connect())
                zookeeper.set_log_stream(None)
            with open(stream.name) as content:
                self.assertRegex(
                    content.read(), re.compile(
                        r"^[-\d]+ [:,\d]+:\d+\(0x.*\):ZOO_INFO@zookeeper_"
                        r"close@\d+: Closing zookeeper sessionId", re.M))
        # The file is closed. The log goes on in Python's logging.
        with self.assertLogs(LOGGER, "INFO") as logs:
            zookeeper.close(self.connect())
            process.wait_for(lambda: logs.output)

    def test_streams_leave_no_descriptors(self):
        self.addCleanup(zookeeper.set_log_stream, None)
        with open(os.devnull, "w") as stream:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(100):
                zookeeper.set_log_stream(stream)
            self.assertEqual(before, len(os.listdir("/proc/self/fd")))

    def test_no_stream(self):
        for stream in (1, "/dev/null", object()):
            with self.subTest(stream), self.assertRaises(ValueError):
                zookeeper.set_log_stream(stream)

    def test_nothing_on_stderr(self):
        """Not even if a program configures no logging."""
        dead = f"127.0.0.1:{process.free_port()}"
        _, output, _ = base.run_python("""
import sys, time
from nova_sg import zookeeper
zookeeper.set_debug_level(zookeeper.LOG_LEVEL_DEBUG)
handle = zookeeper.init(sys.argv[1])
time.sleep(0.5)
zookeeper.close(handle)
""", dead)
        self.assertEqual("", output)


if __name__ == "__main__":
    unittest.main()
