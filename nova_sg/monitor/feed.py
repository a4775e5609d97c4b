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

"""Those who watch by server-sent events, each with a queue of its own.

Whoever reads slower than things happen loses what is in its queue and is
given the whole state again: it never holds up anybody, and what it is shown
is never wrong for long.
"""

from __future__ import annotations

import collections
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client

from nova_sg import metrics

# Messages that may wait for one client.
QUEUE = 500
CLIENTS = 100
# Seconds without news after which a client is written to, to see whether it
# is still there.
HEARTBEAT = 15.0


def message(kind: str, data: Any) -> bytes:
    """Write one server-sent event."""
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()


class TooManyClients(Exception):
    """No more clients can be served."""


class _Client:
    def __init__(self) -> None:
        self.queue: collections.deque[bytes] = collections.deque()
        # Whether it needs the whole state, as it does at first.
        self.behind = True
        self.news = threading.Event()
        self.news.set()


class Feed:
    """Gives every client the whole state, and then what changes.

    :param lock: held while the state changes and is told of
    :param state: returns the whole state; called with the lock held
    """

    def __init__(
        self, lock: threading.RLock, state: Callable[[], Any]
    ) -> None:
        self._lock = lock
        self._state = state
        self._clients: set[_Client] = set()
        self._closed = False
        numbers = metrics.current()
        self._number = prometheus_client.Gauge(
            "nova_sg_monitor_clients",
            "Who watches by server-sent events",
            registry=numbers.registry,
        )
        self._too_slow = prometheus_client.Counter(
            "nova_sg_monitor_slow_clients",
            "Times that a client was too slow and was given the state anew",
            registry=numbers.registry,
        )

    def tell(self, kind: str, data: Any) -> None:
        """Queue a message for every client; waits for none."""
        with self._lock:
            if not self._clients:
                return
            text = message(kind, data)
            for client in self._clients:
                if client.behind:
                    continue
                if len(client.queue) >= QUEUE:
                    self._too_slow.inc()
                    client.behind = True
                    client.queue.clear()
                else:
                    client.queue.append(text)
                client.news.set()

    def anew(self) -> None:
        """Have every client given the whole state."""
        with self._lock:
            for client in self._clients:
                client.behind = True
                client.queue.clear()
                client.news.set()

    def subscribe(self) -> Stream:
        """Return a new client's messages, for as long as they are taken.

        :raises TooManyClients: there are as many as can be served
        """
        client = _Client()
        with self._lock:
            if len(self._clients) >= CLIENTS:
                raise TooManyClients
            self._clients.add(client)
            self._number.set(len(self._clients))
        return Stream(self._messages(client), lambda: self._leave(client))

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        with self._lock:
            for client in self._clients:
                client.news.set()

    def _messages(self, client: _Client) -> Iterator[bytes]:
        # A browser waits so many milliseconds before it comes again.
        yield b"retry: 2000\n\n"
        while not self._closed:
            if not client.news.wait(HEARTBEAT):
                yield b": still here\n\n"
                continue
            with self._lock:
                client.news.clear()
                if client.behind:
                    client.behind = False
                    text = message("state", self._state())
                else:
                    text = b"".join(client.queue)
                client.queue.clear()
            if text:
                yield text

    def _leave(self, client: _Client) -> None:
        with self._lock:
            self._clients.discard(client)
            self._number.set(len(self._clients))


class Stream:
    """Messages whose end is told, even where it was never begun."""

    def __init__(
        self, messages: Iterator[bytes], done: Callable[[], None]
    ) -> None:
        self._messages = messages
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        return self._messages

    def close(self) -> None:
        """Called by the WSGI server when the client is gone."""
        self._done()
