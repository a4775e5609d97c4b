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

"""Streams of server-sent events, each with a queue of its own.

A client that reads slower than things happen loses what is in its queue and
is sent the whole state again. So it holds up no other client, and what it
shows is never wrong for long.
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
# Clients at one time.
CLIENTS = 100
# Seconds without a message after which a comment is sent, to find out whether
# the client is still there.
HEARTBEAT = 15.0


def message(kind: str, data: Any) -> bytes:
    """Return one server-sent event as bytes."""
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()


class TooManyClients(Exception):
    """There are CLIENTS streams already."""


class _Client:
    def __init__(self) -> None:
        self.queue: collections.deque[bytes] = collections.deque()
        # Whether the next message has to be the whole state.
        self.behind = True
        self.waiting = threading.Event()
        self.waiting.set()


class EventStreams:
    """Sends every client the whole state, and then what changes.

    :param lock: held while the state changes and is published
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
            "Clients that watch by server-sent events",
            registry=numbers.registry,
        )
        self._too_slow = prometheus_client.Counter(
            "nova_sg_monitor_slow_clients",
            "Times that a client was too slow and was sent the state again",
            registry=numbers.registry,
        )

    def publish(self, kind: str, data: Any) -> None:
        """Queue a message for every client, without waiting for any."""
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
                client.waiting.set()

    def publish_state(self) -> None:
        """Have the whole state sent to every client."""
        with self._lock:
            for client in self._clients:
                client.behind = True
                client.queue.clear()
                client.waiting.set()

    def subscribe(self) -> Stream:
        """Return the stream of a new client.

        :raises TooManyClients: there are CLIENTS streams already
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
                client.waiting.set()

    def _messages(self, client: _Client) -> Iterator[bytes]:
        # Milliseconds that a browser waits before it connects again.
        yield b"retry: 2000\n\n"
        while not self._closed:
            if not client.waiting.wait(HEARTBEAT):
                yield b": still here\n\n"
                continue
            with self._lock:
                client.waiting.clear()
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
    """The messages of one client, as a WSGI server takes them.

    :param done: called at the end, also where nothing was taken
    """

    def __init__(
        self, messages: Iterator[bytes], done: Callable[[], None]
    ) -> None:
        self._messages = messages
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        return self._messages

    def close(self) -> None:
        """End the stream: the client is gone."""
        self._done()
