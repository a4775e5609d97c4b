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

"""Conditions that carry a state from one thread to another.

evzookeeper made them of pipes, hence the names; here they need no descriptor.
Any thread can notify them: a green one or, under eventlet, a thread of the
operating system, whose notification then goes through the ZooKeeper
dispatcher.
"""

import threading
from typing import Any

from nova_sg import zookeeper
from nova_sg.zookeeper import dispatch


class PipeConditionClosedError(Exception):
    """wait() on a condition that is closed."""


class PipeCondition:
    """Lets one wait() pass for each notify(), also for an earlier one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._notified = 0
        self._closed = False
        self._thread = threading.get_native_id()
        dispatch.start()

    def notify(self, quiet: bool = True) -> None:
        """Let one wait() pass; does nothing if closed.

        :param quiet: ignored; nothing is raised.
        """
        self._from_any_thread(self._notify)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a notification.

        :raises zookeeper.OperationTimeoutException: when none came in time.
        :raises PipeConditionClosedError: when closed, before or meanwhile.
        """
        with self._condition:
            if not self._condition.wait_for(
                    lambda: self._notified or self._closed, timeout):
                raise zookeeper.OperationTimeoutException(
                    f"not notified within {timeout} s")
            if self._closed:
                raise PipeConditionClosedError()
            self._notified -= 1

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _notify(self) -> None:
        with self._condition:
            self._notified += 1
            self._condition.notify()

    def _from_any_thread(self, func: Any, *args: Any) -> None:
        # A green lock must not be touched by another OS thread.
        if threading.get_native_id() == self._thread:
            func(*args)
        else:
            dispatch.post(func, *args)


class StatePipeCondition(PipeCondition):
    """A PipeCondition with a state: the last one that was set."""

    def __init__(self) -> None:
        super().__init__()
        self._state: Any = None

    def set_and_notify(self, state: Any, quiet: bool = True) -> None:
        """Set the state and let one wait_and_get() pass."""
        self._from_any_thread(self._set, state)

    def wait_and_get(self, timeout: float | None = None) -> Any:
        """As wait(); returns the state, which may be newer than the
        notification that was waited for."""
        self.wait(timeout)
        return self._state

    def _set(self, state: Any) -> None:
        with self._condition:
            self._state = state
            self._notified += 1
            self._condition.notify()
