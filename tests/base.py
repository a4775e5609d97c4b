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

"""The base of nova_sg's test cases: each has a configuration of its own."""

import logging
import shutil
import tempfile
import threading
import unittest

from nova_sg.conf import CONF
from nova_sg.servicegroup import process, standalone
from tests.fixtures.process import PATIENCE, quickest, wait_for

__all__ = [
    "PATIENCE",
    "LogRecorder",
    "Member",
    "TestCase",
    "quickest",
    "wait_for",
]


class LogRecorder(logging.Handler):
    """Keeps the messages that were logged."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def matching(self, words, level=logging.NOTSET):
        """Return the messages with words in them, at a level or above."""
        return [
            record.getMessage()
            for record in list(self.records)
            if words in record.getMessage() and record.levelno >= level
        ]


class Timers(standalone.Timers):
    """Timers that keep the errors raised out of them, and can stand still."""

    def __init__(self):
        super().__init__()
        self.raised = []
        self.moving = threading.Event()
        self.moving.set()

    def add_timer_args(self, interval, callback, args, initial_delay=0):
        def call(*args):
            self.moving.wait()
            try:
                callback(*args)
            except BaseException as error:
                self.raised.append(error)
                raise

        return super().add_timer_args(interval, call, args, initial_delay)


class Member:
    """A service that can join: short intervals, timers on threads."""

    def __init__(self, host, topic="compute", interval=0.1, binary=None):
        self.host = host
        self.topic = topic
        self.binary = binary or f"nova-{topic}"
        self.report_interval = interval
        self.service_ref = None
        self.model_disconnected = False
        self.tg = Timers()


class TestCase(unittest.TestCase):
    """A test with a state folder and options of its own."""

    def setUp(self):
        super().setUp()
        CONF([], project="nova-sg", default_config_files=[])
        self.addCleanup(CONF.reset)
        self.folder = tempfile.mkdtemp(prefix="nova-sg-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.flags(state_path=self.folder)
        self.addCleanup(process.reset)
        self.logs = LogRecorder()
        root = logging.getLogger()
        level = root.level
        root.addHandler(self.logs)
        root.setLevel(logging.DEBUG)
        self.addCleanup(root.setLevel, level)
        self.addCleanup(root.removeHandler, self.logs)

    def flags(self, group=None, **values):
        """Override options until the test ends."""
        for name, value in values.items():
            CONF.set_override(name, value, group)
            self.addCleanup(CONF.clear_override, name, group)

    def collect(self, api, group="compute"):
        """Watch a group; return the list that its events are added to."""
        events = []
        watch = api.watch(group, events.append)
        self.addCleanup(watch.cancel)
        return events

    def assert_becomes(self, expected, get):
        """Wait until get() returns what is expected."""
        try:
            wait_for(lambda: get() == expected)
        except AssertionError:
            self.assertEqual(expected, get())

    def assert_no_thread_named(self, prefix):
        """Wait until no thread whose name begins with prefix is left."""

        def left():
            return [
                thread.name
                for thread in threading.enumerate()
                if thread.name.startswith(prefix)
            ]

        wait_for(
            lambda: not left(),
            message=lambda: f"no thread {prefix}* is left: {left()}",
        )
