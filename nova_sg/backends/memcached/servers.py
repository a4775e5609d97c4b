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

"""Memcached servers: python-memcached, made to fail fast and tell.

python-memcached keeps a connection a thread and turns every failure into
"not found". Here each server has one thread that owns one connection (a green
thread in a green process), callers get a future, and a failure is a
BackendError. A server that fails is left alone for a moment, in which every
call to it fails at once: it delays nobody by more than one time-out.
"""

from __future__ import annotations

import concurrent.futures
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import memcache

from nova_sg import exception, threads
from nova_sg.backends import clock

# Seconds for which a server that failed is left alone.
RETRY = 1.0
# Keys in one question: a longer one would hold up the other callers.
CHUNK = 1000
# Attempts to change a value that others change, too.
ATTEMPTS = 20


class _Client(memcache.Client):
    """python-memcached without its ideas about what values mean.

    It would unpickle or decompress a value whose flags say so; here a value
    is bytes, whatever its flags.
    """

    def _recv_value(self, server, flags, rlen):
        data = server.recv(rlen + 2)
        if len(data) != rlen + 2:
            raise OSError("the answer was cut short")
        return data[:-2]


class RemoteServer:
    """One memcached server.

    Every method returns a future; what it fails with is a BackendError.

    :param address: "host:port", "inet6:[address]:port" or "unix:path"
    :param timeout: seconds to wait for a connection and for an answer
    :raises ValueError: the address is none
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.clock = clock.BackendClock()
        #: Grows with every new connection: the server may have been
        #: restarted, and be empty.
        self.generation = 0
        self._timeout = timeout
        #: The address as sockets take it: its family and what belongs to it.
        self.place = _place(address)
        self._queue: queue.Queue = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._failed_at: float | None = None
        self._failure = ""

    # -- operations

    def get(self, keys: Iterable[str]) -> concurrent.futures.Future:
        """Return the values of those keys that there are: {key: bytes}."""
        keys = list(keys)

        def get(client: _Client) -> dict[str, bytes]:
            found = {}
            for start in range(0, len(keys), CHUNK):
                found.update(client.get_multi(keys[start : start + CHUNK]))
                _check(client)
            return found

        return self._submit(get, again=True)

    def set(
        self, key: str, value: bytes, expire: int = 0
    ) -> concurrent.futures.Future:
        """Set a value, for expire seconds; 0: for good."""

        def set_(client: _Client) -> None:
            if not client.set(key, value, time=expire):
                _check(client)
                raise self._refusal("the value was not stored")

        return self._submit(set_, again=True)

    def keep(
        self, key: str, value: bytes, expire: int
    ) -> concurrent.futures.Future:
        """Have a value live on for expire seconds; set it if there is none."""

        def keep(client: _Client) -> None:
            if client.touch(key, expire) or client.add(key, value, expire):
                return
            _check(client)

        return self._submit(keep, again=True)

    def append(self, key: str, line: bytes) -> concurrent.futures.Future:
        """Add a line to a list, or begin it."""

        def append(client: _Client) -> None:
            for _ in range(ATTEMPTS):
                if client.append(key, line) or client.add(key, line):
                    return
                _check(client)
            raise self._refusal("the line was not added")

        return self._submit(append)

    def update(
        self, key: str, change: Callable[[bytes], bytes]
    ) -> concurrent.futures.Future:
        """Replace a value by what change makes of it, b"" for none.

        Nobody else's change in between is lost. change may be called
        several times.
        """

        def update(client: _Client) -> None:
            try:
                for _ in range(ATTEMPTS):
                    old = client.gets(key)
                    _check(client)
                    new = change(old or b"")
                    if new == (old or b""):
                        return
                    if old is None:
                        done = client.add(key, new)
                    else:
                        done = client.cas(key, new)
                    if done:
                        return
                    _check(client)
            finally:
                client.reset_cas()
            raise self._refusal("others keep changing the value")

        return self._submit(update)

    def stats(self) -> concurrent.futures.Future:
        """Return the server's statistics, and set its clock by them."""

        def stats(client: _Client) -> dict[str, str]:
            sent = time.monotonic()
            answer = client.get_stats()
            received = time.monotonic()
            _check(client)
            if not answer or "time" not in answer[0][1]:
                raise OSError("the server does not give its statistics")
            found = answer[0][1]
            self.clock.sample(
                sent, received, float(found["time"]), resolution=1.0
            )
            return found

        return self._submit(stats, again=True)

    # -- the thread

    def _submit(
        self, work: Callable[[_Client], Any], again: bool = False
    ) -> concurrent.futures.Future:
        future: concurrent.futures.Future = concurrent.futures.Future()
        with self._lock:
            if self._closed:
                future.set_exception(self._refusal("closed by this process"))
                return future
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run,
                    name=f"nova-sg-{self.address}",
                    daemon=True,
                )
                self._thread.start()
            self._queue.put((work, again, future))
        return future

    def _run(self) -> None:
        # python-memcached's client belongs to the thread that made it.
        client = _Client(
            [self.address],
            socket_timeout=self._timeout,
            # The library's own pause goes by the wall clock.
            dead_retry=0,
            cache_cas=True,
        )
        while (job := self._queue.get()) is not None:
            work, again, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._do(client, work, again))
            except Exception as error:
                future.set_exception(error)
        client.disconnect_all()

    def _refusal(self, text: str) -> exception.BackendError:
        """Return an answer that says nothing against the server."""
        return exception.BackendError(f"memcached at {self.address}: {text}")

    def _do(self, client: _Client, work: Callable, again: bool) -> Any:
        if self._failed_at is not None:
            if time.monotonic() - self._failed_at < RETRY:
                raise exception.BackendError(self._failure)
        host = client.servers[0]
        fresh = host.socket is None
        try:
            try:
                result = self._attempt(client, work)
            except OSError:
                # A connection that the server has closed meanwhile says
                # nothing about the server.
                if fresh or not again or self._timed_out:
                    raise
                result = self._attempt(client, work)
        except exception.BackendError:
            raise
        except Exception as error:
            host.close_socket()
            self._failed_at = time.monotonic()
            words = error if isinstance(error, OSError) else (
                exception.describe(error)
            )
            self._failure = f"memcached at {self.address}: {words}"
            raise exception.BackendError(self._failure) from error
        self._failed_at = None
        return result

    def _attempt(self, client: _Client, work: Callable) -> Any:
        host = client.servers[0]
        host.deaduntil = 0
        begun = time.monotonic()
        self._timed_out = False
        before = host.socket
        try:
            if not host.connect():
                raise OSError("cannot connect")
            return work(client)
        finally:
            # The library, too, connects anew and tries again.
            if host.socket is not None and host.socket is not before:
                self.generation += 1
            self._timed_out = time.monotonic() - begun >= self._timeout * 0.9

    def close(self) -> None:
        """Close the connection, for good; the thread ends."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
            thread = self._thread
        if thread is not None:
            threads.join(thread, self._timeout * 2)


def _place(address: str) -> tuple[int, tuple[str, int] | str]:
    host = memcache._Host(address)
    if host.family != socket.AF_UNIX and not 0 < host.port < 65536:
        raise ValueError(f"{host.port} is not a port")
    return int(host.family), host.address


def _check(client: _Client) -> None:
    """Raise if what the client returned was a failure in disguise."""
    if client.servers[0].socket is None:
        raise OSError("no answer")


class LocalServer:
    """Takes a server's place inside one process: the in-process store."""

    address = "<None> (inside the process)"
    generation = 1

    def __init__(self) -> None:
        self.clock = clock.BackendClock()
        moment = time.monotonic()
        self.clock.sample(moment, moment, time.time())
        self._values: dict[str, tuple[bytes, float | None]] = {}
        self._lock = threading.Lock()

    def get(self, keys: Iterable[str]) -> concurrent.futures.Future:
        """As RemoteServer.get."""
        with self._lock:
            values = {key: self._get(key) for key in keys}
        return _done({k: v for k, v in values.items() if v is not None})

    def set(
        self, key: str, value: bytes, expire: int = 0
    ) -> concurrent.futures.Future:
        """As RemoteServer.set."""
        until = time.monotonic() + expire if expire else None
        with self._lock:
            self._values[key] = value, until
        return _done(None)

    def append(self, key: str, line: bytes) -> concurrent.futures.Future:
        """As RemoteServer.append."""
        return self.update(key, lambda old: old + line)

    def update(
        self, key: str, change: Callable[[bytes], bytes]
    ) -> concurrent.futures.Future:
        """As RemoteServer.update."""
        with self._lock:
            self._values[key] = change(self._get(key) or b""), None
        return _done(None)

    def stats(self) -> concurrent.futures.Future:
        """As RemoteServer.stats."""
        return _done({"version": "none", "time": str(int(time.time()))})

    def _get(self, key: str) -> bytes | None:
        value, until = self._values.get(key, (None, None))
        if until is not None and until <= time.monotonic():
            del self._values[key]
            return None
        return value

    def close(self) -> None:
        """Nothing to close."""


def _done(result: Any) -> concurrent.futures.Future:
    future: concurrent.futures.Future = concurrent.futures.Future()
    future.set_result(result)
    return future
