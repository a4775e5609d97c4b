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

    #: The program that can run in this mode, with arguments by which it asks
    #: its backend.
    ASKING = {
        "threads": ("nova-sg", "list"),
        # It patches the standard library.
        "eventlet": ("nova-sg-agent",),
    }[MODE]

    def run_program(self, program, *arguments, **kwargs):
        return self.run_here(program, *arguments, **kwargs)

    def run_agent_until(self, words, *arguments, host="node"):
        """Run nova-sg-agent until its log holds words, and end it.

        :returns: the log
        """
        path = self.path(f"{host}.log")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

        def read():
            with open(path) as file:
                return file.read()

        self.run_agent_while(
            lambda: words not in read(),
            *("--debug", "--host", host, "--log-file", path),
            *arguments,
            message=lambda: f"{host} logs {words!r}:\n{read()}",
        )
        self.check_words(read())
        return read()

    def run_agent_while(self, condition, *arguments, message="", **kwargs):
        """Run nova-sg-agent while a condition holds, then end it by SIGTERM.

        :param condition: a callable, called on another thread once the agent
            has begun
        :param message: what has to come so that it does not, as in wait_for
        """
        ended = threading.Event()
        told = []
        raised = []

        def end():
            wait_for(lambda: ended.is_set() or _is_launched(), PATIENCE)
            try:
                wait_for(
                    lambda: ended.is_set() or not condition(),
                    PATIENCE,
                    message or "the condition does not hold any more",
                )
            except BaseException as error:
                raised.append(error)
            # Without the agent it would end the tests.
            if not ended.is_set():
                told.append(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)

        ending = threading.Thread(target=end)
        ending.start()
        try:
            result = self.run_program("nova-sg-agent", *arguments, **kwargs)
        finally:
            ended.set()
            ending.join()
        for error in raised:
            raise error
        self.assertEqual((0, ""), (result.status, result.err), result.out)
        if not told:
            # Only a signal ends it in order: this one was for the tests.
            raise KeyboardInterrupt
        return result


def _is_launched():
    """Whether oslo.service handles SIGTERM: there is a service then."""
    handler = signal.getsignal(signal.SIGTERM)
    return getattr(handler, "__name__", None) == "_handle_signal"
