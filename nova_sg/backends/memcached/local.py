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

"""The store inside the process, in the place of a memcached server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from nova_sg.backends import clock
from nova_sg.backends.memcached.protocol import Command


class LocalServer:
    """The in-process store, in the place of a server."""

    address = "<None> (inside the process)"
    generation = 1

    def __init__(self) -> None:
        self.clock = clock.BackendClock()
        moment = time.monotonic()
        self.clock.sample(moment, moment, time.time())
        # The value, and until when it is kept (monotonic).
        self._values: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def submit(self, command: Command) -> Future:
        """As RemoteServer.submit."""
        return getattr(self, command.name)(*command.args)

    def get(self, keys: Iterable[str]) -> Future:
        """As RemoteServer.get."""
        with self._lock:
            values = {key: self._get(key) for key in keys}
        return _done({k: v for k, v in values.items() if v is not None})

    def set(self, key: str, value: bytes, expire: int = 0) -> Future:
        """As RemoteServer.set."""
        until = time.monotonic() + (expire or float("inf"))
        with self._lock:
            self._values[key] = value, until
        return _done(None)

    def renew(self, key: str, value: bytes, expire: int) -> Future:
        """As RemoteServer.renew."""
        with self._lock:
            found = self._get(key) is not None
        if found:
            self.set(key, value, expire)
        return _done(found)

    def delete(self, key: str) -> Future:
        """As RemoteServer.delete."""
        with self._lock:
            self._values.pop(key, None)
        return _done(None)

    def append(self, key: str, line: bytes) -> Future:
        """As RemoteServer.append."""
        return self.update(key, lambda old: old + line)

    def update(self, key: str, change: Callable[[bytes], bytes]) -> Future:
        """As RemoteServer.update."""
        with self._lock:
            new = change(self._get(key) or b"")
            self._values[key] = new, float("inf")
        return _done(None)

    def exchange(
        self, key: str, change: Callable[[bytes], bytes | None], expire: int
    ) -> Future:
        """As RemoteServer.exchange."""
        with self._lock:
            old = self._get(key) or b""
            new = change(old)
            if new is None:
                return _done((old, old))
            until = time.monotonic() + (expire or float("inf"))
            self._values[key] = new, until
        return _done((old, new))

    def stats(self) -> Future:
        """As RemoteServer.stats."""
        return _done({"version": "none", "time": str(int(time.time()))})

    def compare(self, attempts: int) -> Future:
        """As RemoteServer.compare."""
        return _done("")

    def _get(self, key: str) -> bytes | None:
        value, until = self._values.get(key, (None, 0.0))
        if until <= time.monotonic():
            self._values.pop(key, None)
            return None
        return value

    def close(self) -> None:
        """Nothing to close."""


def _done(result: Any) -> Future:
    future: Future = Future()
    future.set_result(result)
    return future
