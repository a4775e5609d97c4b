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


"""Tests that run the programs in the process of the tests."""

import contextlib
import os
import signal
import threading

from tests import MODE
from tests.fixtures.process import wait_for
from tests.processes import base
from tests.processes.base import PASSWORD, PATIENCE

__all__ = [
    "PASSWORD",
    "PATIENCE",
    "TestCase",
    "green_mode",
]

def green_mode(test):
    """Decorate a test of nova-sg-agent: it needs green threads."""
    return test if MODE == "eventlet" else None


class TestCase(base.TestCase):
    """A test that runs the programs' main functions in this process."""

    #: The program that can run in this mode, and what has it look at its
    #: backend.
    ASKING = {
        "threads": ("nova-sg", "list"),
        # It patches the standard library.
        "eventlet": ("nova-sg-agent",),
    }[MODE]

    def run_program(self, program, *arguments, **kwargs):
        return self.run_here(program, *arguments, **kwargs)

    def run_agent_until(self, words, host="node"):
        """Run nova-sg-agent until its log holds words, and end it by SIGTERM.

        :returns: the log
        """
        path = self.path(f"{host}.log")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        ended = threading.Event()

        def read():
            if not os.path.exists(path):
                return ""
            with open(path) as file:
                return file.read()

        def end():
            try:
                wait_for(lambda: words in read() or ended.is_set(), PATIENCE)
            finally:
                # Without the agent it would end the tests.
                if not ended.is_set():
                    signal.raise_signal(signal.SIGTERM)

        ending = threading.Thread(target=end)
        ending.start()
        try:
            result = self.run_program(
                *("nova-sg-agent", "--debug"),
                *("--host", host, "--log-file", path),
            )
        finally:
            ended.set()
            ending.join()
        self.assertEqual(
            (0, "", ""), (result.status, result.out, result.err)
        )
        self.check_words(read())
        self.assertIn(words, read())
        return read()
