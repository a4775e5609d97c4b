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

"""A memcached server: python-memcached that fails fast and says why.

python-memcached turns every failure into "not found" and blocks its caller.
Here each server has one thread (a green one in a green process) and one
connection, callers get a future, and a failure is a BackendError. After a
failure all calls to that server fail at once for RETRY seconds. So a server
that hangs delays no other server, and a caller by one time-out at most.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import memcache

from nova_sg import exception, threads
from nova_sg.backends import clock

# Seconds after a failure in which a server is not tried again.
RETRY = 1.0
# Keys in one request: a longer one would hold up the other callers.
CHUNK = 1000
# Attempts to change a value that other processes change, too.
ATTEMPTS = 20


class _Client(memcache.Client):
    """python-memcached for one server: values are bytes, failures raise."""

    def set_servers(self, servers: Sequence[str]) -> None:
        super().set_servers(servers)
        (self.server,) = self.servers
        # The library calls it for every failure, which it then hides.
        self.server.mark_dead = functools.partial(_fail, self.server)

    def read(
        self, keys: Sequence[str], command: str = "get"
    ) -> dict[str, bytes]:
        """Return the values of those keys that exist: {key: bytes}.

        get_multi() would unpickle or decompress a value whose flags say so,
        and fail on unknown flags; this ignores them.

        :param command: "gets" has a later cas() depend on these values
        """
        server, found = self.server, {}
        server.send_cmd(f"{command} {' '.join(keys)}")
        while (line := server.readline()) != b"END":
            words = line.split()
            if len(words) < 4 or words[0] != b"VALUE":
                raise OSError(f"unexpected answer {line[:100]!r}")
            if command == "gets":
                self.cas_ids[words[1]] = int(words[4])
            found[words[1].decode()] = server.recv(int(words[3]) + 2)[:-2]
        return found


def _fail(server: Any, reason: OSError | str) -> NoReturn:
    """Close the connection and raise what went wrong."""
    connected = server.socket is not None
    server.close_socket()
    if isinstance(reason, OSError):
        raise reason
    raise ConnectionError(
        "the server closed the connection" if connected else f"cannot {reason}"
    )


class RemoteServer:
    """One memcached server.

    Each operation returns a future, which fails with BackendError. An
    operation may be executed twice; that makes no difference.

    :param address: "host:port", "inet6:[address]:port" or "unix:path"
    :param timeout: seconds to wait for a connection and for an answer
    :raises ValueError: the address is invalid
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.clock = clock.BackendClock()
        #: Grows with every new connection: the server may have been
        #: restarted, and be empty.
        self.generation = 0
        self._timeout = timeout
        parsed = _Client([address]).server
        #: Its family, and the address as a socket of that family takes it.
        self.socket_address: tuple[int, tuple[str, int] | str] = (
            int(parsed.family),
            parsed.address,
        )
        if isinstance(parsed.address, tuple):
            if not 0 < parsed.port < 65536:
                raise ValueError(f"{parsed.port} is not a port")
        self._queue: queue.Queue = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        # Monotonic.
        self._retry_at = float("-inf")
        self._failure = ""

    # -- operations

    def get(self, keys: Iterable[str]) -> Future:
        """Return the values of those keys that exist: {key: bytes}."""
        keys = list(keys)

        def get(client: _Client) -> dict[str, bytes]:
            found = {}
            for start in range(0, len(keys), CHUNK):
                found.update(client.read(keys[start : start + CHUNK]))
            return found

        return self._submit(get)

    def set(self, key: str, value: bytes, expire: int = 0) -> Future:
        """Set a value, for expire seconds; 0: for good."""

        def set_(client: _Client) -> None:
            if not client.set(key, value, expire):
                raise self._error("the value was not stored")

        return self._submit(set_)

    def keep(self, key: str, value: bytes, expire: int) -> Future:
        """Keep a value for expire more seconds; set it if there is none."""

        def keep(client: _Client) -> None:
            if not client.touch(key, expire):
                client.add(key, value, expire)

        return self._submit(keep)

    def append(self, key: str, line: bytes) -> Future:
        """Add a line to a list, or begin the list."""

        def append(client: _Client) -> None:
            for _ in range(ATTEMPTS):
                if client.append(key, line) or client.add(key, line):
                    return
            raise self._error("the line was not added")

        return self._submit(append)

    def update(self, key: str, change: Callable[[bytes], bytes]) -> Future:
        """Replace a value by change(value); b"" stands for no value.

        A change that another process makes in between is not lost. change
        may be called several times.
        """

        def update(client: _Client) -> None:
            for _ in range(ATTEMPTS):
                client.reset_cas()
                old = client.read([key], "gets").get(key)
                new = change(old or b"")
                if new == (old or b""):
                    return
                store = client.add if old is None else client.cas
                if store(key, new):
                    return
            raise self._error("other processes keep changing the value")

        return self._submit(update)

    def exchange(
        self, key: str, change: Callable[[bytes], bytes | None], expire: int
    ) -> Future:
        """Replace a value by change(value), for expire seconds; 0: for good.

        :param change: gets b"" if there is no value, and returns None if the
            value shall stay; may be called several times
        :returns: the value before, and the value now
        """

        def exchange(client: _Client) -> tuple[bytes, bytes]:
            for _ in range(ATTEMPTS):
                client.reset_cas()
                found = client.read([key], "gets").get(key)
                old = found or b""
                new = change(old)
                if new is None:
                    return old, old
                store = client.add if found is None else client.cas
                if store(key, new, expire):
                    return old, new
            raise self._error("other processes keep changing the value")

        return self._submit(exchange)

    def stats(self) -> Future:
        """Return the server's statistics, and set its clock by them."""

        def stats(client: _Client) -> dict[str, str]:
            sent = time.monotonic()
            ((_, found),) = client.get_stats()
            received = time.monotonic()
            if "time" not in found:
                raise OSError("the server does not give its statistics")
            self.clock.sample(
                sent, received, float(found["time"]), resolution=1.0
            )
            return found

        return self._submit(stats)

    # -- the thread

    def _submit(self, operation: Callable[[_Client], Any]) -> Future:
        future: Future = Future()
        with self._lock:
            if self._closed:
                future.set_exception(self._error("closed by this process"))
                return future
            if self._thread is None:
                # An executor's threads would delay the end of the process.
                self._thread = threading.Thread(
                    target=self._run,
                    name=f"nova-sg-{self.address}",
                    daemon=True,
                )
                self._thread.start()
            self._queue.put((operation, future))
        return future

    def _run(self) -> None:
        # A client belongs to the thread that made it.
        client = _Client([self.address], socket_timeout=self._timeout)
        while (job := self._queue.get()) is not None:
            self._answer(client, *job)
            # Of ten thousand members it is a megabyte.
            del job
        client.disconnect_all()

    def _answer(
        self,
        client: _Client,
        operation: Callable[[_Client], Any],
        future: Future,
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self._execute(client, operation))
        except Exception as error:
            future.set_exception(error)

    def _error(self, text: str) -> exception.BackendError:
        return exception.BackendError(f"memcached at {self.address}: {text}")

    def _execute(self, client: _Client, operation: Callable) -> Any:
        if time.monotonic() < self._retry_at:
            raise self._error(self._failure)
        try:
            return self._attempt(client, operation)
        except exception.BackendError:
            # The server refused one value, and works.
            raise
        except TimeoutError:
            self._failure = f"no answer within {self._timeout:g} s"
        except OSError as error:
            self._failure = str(error)
        except Exception as error:
            self._failure = exception.describe(error)
        client.disconnect_all()
        self._retry_at = time.monotonic() + RETRY
        # Not within a handler: its error would keep a socket open.
        raise self._error(self._failure)

    def _attempt(self, client: _Client, operation: Callable) -> Any:
        if client.server.socket is not None:
            try:
                return operation(client)
            except (TimeoutError, exception.BackendError):
                raise
            except Exception:
                # The server may have been restarted since the connection
                # was used last.
                client.disconnect_all()
        client.server.connect()
        self.generation += 1
        return operation(client)

    def close(self) -> None:
        """Close the connection for good; the thread ends."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
            thread = self._thread
        if thread is not None:
            threads.join(thread, self._timeout * 2)


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
