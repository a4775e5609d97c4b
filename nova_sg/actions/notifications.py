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

"""The message queue as a way to act, by a process that sends: sender.py.

A broker that does not answer holds up that process and nothing else; at the
end of the time limit it is killed, and the next attempt has another one.
"""

from __future__ import annotations

import itertools
import json
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from nova_sg import exception
from nova_sg.actions import messages, schedule
from nova_sg.actions.engine import Failed, Outlet
from nova_sg.servicegroup import view

# Seconds for the process to start.
_START = 60.0


class Notifications(Outlet):
    """Sends each event to a message queue, by oslo.messaging.

    :param arguments: --config-file and --config-dir, for the process that
        sends: it reads the options itself
    :param limit: seconds for one attempt
    :param publisher: the host that watches
    :param about: returns what is known of a member by its group and name;
        None: nothing
    :raises ConfigError: it cannot be done; the text says what is missing
    """

    name = "the message queue"

    def __init__(
        self,
        arguments: Sequence[str],
        limit: float,
        publisher: str,
        about: Callable[[str, str], view.Member | None],
    ) -> None:
        self._arguments = arguments
        self._limit = limit
        self._publisher = publisher
        self._about = about
        self._lock = threading.Lock()
        try:
            self._sender = _Sender(arguments)
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
                self._sender = _Sender(self._arguments)
            return self._sender


class _Sender:
    """One process that sends.

    :raises Failed: it cannot be started, or says what is wrong
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._link, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-W", "ignore", "-m"]
        command += ["nova_sg.actions.sender", str(theirs.fileno())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError as error:
                self._link.close()
                raise Failed(str(error)) from error
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        # Where those wait that have sent something, by its number.
        start: queue.Queue = queue.Queue()
        self._waiting = {0: start}
        #: Whether it is gone, or will be in a moment.
        self.ended = False
        threading.Thread(
            target=self._read, name="nova-sg-sender", daemon=True
        ).start()
        self._wait(start, _START)

    def send(self, message: dict, limit: float) -> None:
        """Have a message sent.

        :param limit: seconds; who does not answer is ended
        :raises Failed: it was not, or nobody knows
        """
        answer: queue.Queue = queue.Queue()
        with self._lock:
            if self.ended:
                raise Failed("the process that sends has ended")
            number = next(self._numbers)
            self._waiting[number] = answer
            try:
                self._link.sendall(
                    json.dumps([number, message]).encode() + b"\n"
                )
            except OSError as error:
                raise Failed(str(error)) from error
        self._wait(answer, limit)

    def end(self) -> None:
        """End it, whatever it does."""
        with self._lock:
            self.ended = True
        self._process.kill()

    def _wait(self, answer: queue.Queue, limit: float) -> None:
        try:
            problem = answer.get(timeout=limit)
        except queue.Empty:
            self.end()
            raise Failed(f"not done after {limit:g} s") from None
        if problem is not None:
            raise Failed(problem)

    def _read(self) -> None:
        """Pass on its answers, until it is gone."""
        try:
            with self._link.makefile("rb") as lines:
                for line in lines:
                    number, problem = json.loads(line)
                    self._waiting.pop(number).put(problem)
        except OSError:
            # It ended with something unread.
            pass
        with self._lock:
            self.ended = True
            left, self._waiting = self._waiting, {}
        self._process.kill()
        self._process.wait()
        self._link.close()
        for answer in left.values():
            answer.put("the process that sends has ended")
