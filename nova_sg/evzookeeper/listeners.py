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

"""The events of a session, and the listeners that get them.

Here: the events, and Listeners, the part of ZKSession that calls listeners.
Not here: when an event happens (session.py).
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

LOG = logging.getLogger(__name__)

# The events.
#: The session can be used: for the first time, again, or as a new session.
CONNECTED = "connected"
#: No server is connected; the session may or may not have ended.
SUSPENDED = "suspended"
#: The session and its ephemeral znodes are lost; a new session is made.
EXPIRED = "expired"
#: The server refused the authentication; a new session is made later.
AUTH_FAILED = "auth_failed"
#: close() was called.
CLOSED = "closed"


class Listeners:
    """The listeners and connection callbacks of a session."""

    def __init__(
            self, callbacks: Iterable[Any],
            listeners: Iterable[Callable[[str], object]]) -> None:
        self._listeners: list[Callable[[str], object]] = list(listeners)
        self._connection_callbacks = list(callbacks)

    def add_listener(self, listener: Callable[[str], object]) -> None:
        """Call listener(event) for each event, in the order in which they
        happen: CONNECTED, SUSPENDED, EXPIRED, AUTH_FAILED, CLOSED.

        It is called on the session's keeper thread and must not block. It
        must not make calls of the session, which may wait for the keeper.
        """
        self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[str], object]) -> None:
        self._listeners.remove(listener)

    def add_connection_callback(self, callback: Any) -> None:
        """Call callback.set_and_notify((handle, type, state, path)) when the
        state changes.

        :param callback: a utils.StatePipeCondition, or anything with such a
            method.
        """
        if callback not in self._connection_callbacks:
            self._connection_callbacks.append(callback)

    def remove_connection_callback(self, callback: Any) -> None:
        """:raises KeyError: when it was not added."""
        try:
            self._connection_callbacks.remove(callback)
        except ValueError:
            raise KeyError(callback) from None

    def _tell(self, event: str) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                LOG.exception(
                    "A listener of the ZooKeeper session failed at %r", event)

    def _call_back(self, event: tuple[int, int, int, str]) -> None:
        for callback in list(self._connection_callbacks):
            try:
                callback.set_and_notify(event)
            except Exception:
                LOG.exception(
                    "A connection callback of the ZooKeeper session failed")
