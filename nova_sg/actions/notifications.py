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

"""Sends events to a message queue, by a process of its own: sender.py.

A broker that does not answer holds up that process and nothing else. The
process is killed at the end of the time limit, and the next attempt starts
another one.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import queue
import threading
from collections.abc import Callable, Sequence

from nova_sg import exception
from nova_sg.actions import messages, schedule, sender
from nova_sg.actions.engine import Failed, Handler
from nova_sg.servicegroup import description

# Seconds for the process to start.
_START = 60.0
# Notifications under way at a time: more gain nothing in one process.
_MOST = 16


class Notifications(Handler):
    """Sends each event to a message queue, by oslo.messaging.

    :param arguments: --config-file and --config-dir, for the process that
        sends: it reads the options itself
    :param limit: seconds for one attempt
    :param parallel: notifications under way at the same time
    :param publisher: the host of nova-sg watch
    :param about: returns what is known of a member by its group and name;
        None: nothing
    :raises ConfigError: it cannot be done; the text says what is missing
    """

    name = "the message queue"

    def __init__(
        self,
        arguments: Sequence[str],
        limit: float,
        parallel: int,
        publisher: str,
        about: Callable[[str, str], description.Member | None],
    ) -> None:
        self._arguments = arguments
        self._limit = limit
        self.longest = _START + limit
        self._parallel = min(parallel, _MOST)
        self._publisher = publisher
        self._about = about
        self._lock = threading.Lock()
        try:
            self._sender = _Sender(arguments, self._parallel)
        except Failed as error:
            raise exception.ConfigError(
                f"[events] notifications: {error}"
            ) from None

    def act(self, job: schedule.Job) -> None:
        event = job.event
        about = self._about(event.group, event.host)
        message = messages.notification(job, self._publisher, about)
        self._running().send(message, self._limit)

    def close(self) -> None:
        self._sender.end()

    def _running(self) -> _Sender:
        with self._lock:
            if self._sender.ended:
                self._sender = _Sender(self._arguments, self._parallel)
            return self._sender


class _Sender:
    """A process that sends, with a pipe for each notification under way.

    :raises Failed: it cannot be started, or reports what is wrong
    """

    def __init__(self, arguments: Sequence[str], parallel: int) -> None:
        # A fork would have the locks of our threads, and no threads.
        context = multiprocessing.get_context("spawn")
        pipes, theirs = zip(
            *(context.Pipe() for _ in range(parallel)), strict=True
        )
        self._process = context.Process(
            target=sender.main, args=(theirs, arguments)
        )
        #: Whether it has ended, or will in a moment.
        self.ended = False
        # It imports nothing from the working folder: multiprocessing starts
        # it with -c, and cannot be given -P.
        is_new = "PYTHONSAFEPATH" not in os.environ
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        try:
            self._process.start()
        except OSError as error:
            raise Failed(str(error)) from error
        finally:
            if is_new:
                del os.environ["PYTHONSAFEPATH"]
            # So that ours report the end of the process.
            for pipe in theirs:
                pipe.close()
        # multiprocessing would wait for it when we end.
        atexit.register(self._process.kill)
        threading.Thread(
            target=self._wait, name="nova-sg-sender", daemon=True
        ).start()
        self._receive(pipes[0], _START)
        self._idle: queue.SimpleQueue = queue.SimpleQueue()
        for pipe in pipes:
            self._idle.put(pipe)

    def send(self, message: dict, limit: float) -> None:
        """Have a message sent.

        :param limit: seconds; a process that has not answered then is ended
        :raises Failed: it was not sent, or that is not known
        """
        pipe = self._idle.get()
        try:
            pipe.send(message)
            self._receive(pipe, limit)
        except OSError as error:
            raise Failed(str(error)) from error
        finally:
            self._idle.put(pipe)

    def end(self) -> None:
        """End the process, whatever it does."""
        self.ended = True
        self._process.kill()

    def _receive(
        self, pipe: multiprocessing.connection.Connection, limit: float
    ) -> None:
        if not pipe.poll(limit):
            self.end()
            raise Failed(f"not done after {limit:g} s")
        try:
            problem = pipe.recv()
        except EOFError:
            problem = "the process that sends has ended"
        if problem is not None:
            raise Failed(problem)

    def _wait(self) -> None:
        """Wait for the end of the process: no zombie is left."""
        self._process.join()
        self.ended = True
        atexit.unregister(self._process.kill)
