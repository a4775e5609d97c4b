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

import contextlib
import functools
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import memcache

from nova_sg import exception, threads
from nova_sg.backends import clock
from nova_sg.backends.memcached import address as mc_address
from nova_sg.backends.memcached import connection, lookup, values

# Seconds after a failure in which a server is not tried again.
RETRY = 1.0
# Keys in one request: a longer one would hold up the other callers.
CHUNK = 1000
# Attempts to change a value that other processes change, too.
ATTEMPTS = 20
# Seconds for which a value is kept by which two connections are compared.
PROBE_LIFETIME = 60

_NO_STATISTICS = (
    "it gives no statistics, and so not its clock: is that a proxy, such as "
    "twemproxy? Name the memcached servers themselves"
)
_WANTS_PASSWORD = (
    "it wants a user name and a password (memcached -Y): set [cache] username "
    "and password"
)
_WANTS_TLS = (
    "the server closed the connection: does it want TLS (memcached -Z, "
    "[cache] tls_enabled), or does it refuse this host?"
)


class _NoStatistics(Exception):
    """The server answers, but not with its statistics."""


class _Closed(ConnectionError):
    """The server has closed the connection."""


class _Client(memcache.Client):
    """python-memcached for one server: values are bytes, failures raise.

    It is given its connections: see use().
    """

    def __init__(self) -> None:
        # An address that is not used.
        super().__init__(["127.0.0.1"])
        (self.server,) = self.servers
        # The library calls it for every failure, which it then hides.
        self.server.mark_dead = functools.partial(_fail, self.server)
        self.server.connect = lambda: self.server.socket is not None
        #: Whether the server has answered on this connection.
        self.answered = False

    def use(self, link: socket.socket) -> None:
        """Use a connection, in the place of the one before."""
        self.disconnect_all()
        self.server.socket = link
        self.server.buffer = b""
        self.answered = False

    def statistics(self) -> dict[str, str]:
        """Return the server's statistics.

        :raises _NoStatistics: the server has none
        """
        found = {}
        self.server.send_cmd("stats")
        while (line := self.server.readline()) != b"END":
            words = line.decode("ascii", "replace").split(" ", 2)
            if words[0] == "ERROR":
                raise _NoStatistics()
            if words[0] != "STAT" or len(words) < 3:
                _refuse_answer(line)
            found[words[1]] = words[2]
        if "time" not in found:
            raise _NoStatistics()
        return found

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
                _refuse_answer(line)
            if command == "gets":
                self.cas_ids[words[1]] = int(words[4])
            found[words[1].decode()] = server.recv(int(words[3]) + 2)[:-2]
        return found


def _fail(server: Any, reason: OSError | str) -> NoReturn:
    """Close the connection and raise what went wrong."""
    server.close_socket()
    if isinstance(reason, OSError):
        raise reason
    raise _Closed("the server closed the connection")


def _refuse_answer(line: bytes) -> NoReturn:
    if line.startswith(b"CLIENT_ERROR unauth"):
        raise OSError(_WANTS_PASSWORD)
    raise OSError(f"unexpected answer {line[:100]!r}")


class RemoteServer:
    """One memcached server.

    Each operation returns a future, which fails with BackendError. An
    operation may be executed twice; that makes no difference.

    :param address: as mc_address.parse() takes it
    :param timeout: seconds to wait for a connection and for an answer
    :param tls: None: the connection is not encrypted
    :param login: None: there is no password
    :raises ValueError: the address is invalid
    """

    def __init__(
        self,
        address: str,
        timeout: float,
        tls: connection.Tls | None = None,
        login: connection.Login | None = None,
    ) -> None:
        self.address = address
        self.clock = clock.BackendClock()
        #: Grows with every new connection: the server may have been
        #: restarted, and be empty.
        self.generation = 0
        self._timeout = timeout
        self.tls, self.login = tls, login
        self._parsed = mc_address.parse(address)
        #: The name that the server's certificate has to have; "": no TLS.
        self.host = (
            "" if self._parsed.family == "unix" else self._parsed.host
        )
        #: Where the last connection leads; before, the name.
        self.target: lookup.Target = (
            0 if self.host else int(socket.AF_UNIX),
            (self.host, self._parsed.port) if self.host else self._parsed.host,
        )
        self._lookup = lookup.Lookup(self._parsed)
        self._queue: queue.Queue = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        # Monotonic.
        self._retry_at = float("-inf")
        self._failure = ""
        # Why no operation is possible until it has given its statistics.
        self._refused = ""

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
        """Set a value, for expire seconds; 0: for good.

        :returns: None
        """

        def set_(client: _Client) -> None:
            if not client.set(key, value, expire):
                raise self._error("the value was not stored")

        return self._submit(set_)

    def renew(self, key: str, value: bytes, expire: int) -> Future:
        """Replace a value, for expire seconds.

        :returns: whether there was one; if not, nothing is written
        """

        def renew(client: _Client) -> bool:
            return bool(client.replace(key, value, expire))

        return self._submit(renew)

    def keep(self, key: str, value: bytes, expire: int) -> Future:
        """Keep a value for expire more seconds; set it if there is none."""

        def keep(client: _Client) -> None:
            if not client.touch(key, expire):
                client.add(key, value, expire)

        return self._submit(keep)

    def delete(self, key: str) -> Future:
        """Delete a value, if there is one."""
        return self._submit(lambda client: client.delete(key))

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
            found = self._statistics(client)
            if found is None:
                self._refused = _NO_STATISTICS
                raise self._error(_NO_STATISTICS)
            self.clock.sample(
                sent, time.monotonic(), float(found["time"]), resolution=1.0
            )
            self._refused = ""
            return found

        return self._submit(stats, always=True)

    def _statistics(self, client: _Client) -> dict[str, str] | None:
        """Return the server's statistics; None: it answers without them."""
        try:
            return client.statistics()
        except _NoStatistics:
            return None
        except ConnectionError:
            if client.answered:
                raise
        # A proxy closes the connection if it does not know the command. It
        # answers others.
        self._connect(client)
        try:
            client.read([values.GROUPS_KEY])
        except ConnectionError:
            raise OSError(_WANTS_TLS) from None
        try:
            # Not if a server was started just now.
            return client.statistics()
        except (_NoStatistics, ConnectionError):
            return None

    def compare(self, attempts: int) -> Future:
        """Find out whether other connections lead to another server.

        A value is set on one connection, and read on others: one to each
        address that the name has, and more of them to the first one.

        :param attempts: how many connections to one address
        :returns: "" or what answers as another server, as a clause
        """

        def compare(client: _Client) -> str:
            key = f"nova_sg:p:{secrets.token_hex(8)}"
            client.set(key, b"1", PROBE_LIFETIME)
            used, targets = self.target, []
            with contextlib.suppress(OSError):
                targets = self._lookup.targets(self._timeout)
            tried = [used] * attempts + [t for t in targets if t != used]
            for target in tried[: attempts + 8]:
                other = _Client()
                try:
                    other.use(self._open(target))
                    if other.read([key]):
                        continue
                except Exception:
                    # Whether it answers is not asked here.
                    continue
                finally:
                    other.disconnect_all()
                if not client.read([key]):
                    # Wiped, or restarted, meanwhile.
                    return ""
                if target == used:
                    return "two connections answer as different servers"
                return (
                    f"{_show(used)} and {_show(target)}, the addresses of "
                    "its name, answer as different servers"
                )
            return ""

        return self._submit(compare)

    # -- the thread

    def _submit(
        self, operation: Callable[[_Client], Any], always: bool = False
    ) -> Future:
        """Have the server's thread execute an operation.

        :param always: also while the server has refused its statistics
        """
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
            self._queue.put((operation, always, future))
        return future

    def _run(self) -> None:
        # A client belongs to the thread that made it.
        client = _Client()
        while (job := self._queue.get()) is not None:
            self._answer(client, *job)
            # Of ten thousand members it is a megabyte.
            del job
        client.disconnect_all()

    def _answer(
        self,
        client: _Client,
        operation: Callable[[_Client], Any],
        always: bool,
        future: Future,
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            if self._refused and not always:
                raise self._error(self._refused)
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
        except OSError as error:
            self._failure = connection.explain(error, self._timeout)
        except Exception as error:
            self._failure = exception.describe(error)
        client.disconnect_all()
        self._retry_at = time.monotonic() + RETRY
        # Not within a handler: its error would keep a socket open.
        raise self._error(self._failure)

    def _attempt(self, client: _Client, operation: Callable) -> Any:
        if client.server.socket is not None:
            try:
                result = operation(client)
                client.answered = True
                return result
            except (TimeoutError, exception.BackendError):
                raise
            except Exception:
                # The server may have been restarted since the connection
                # was used last.
                pass
        self._connect(client)
        result = operation(client)
        client.answered = True
        return result

    def _connect(self, client: _Client) -> None:
        """Give a client a new connection.

        :raises OSError: the text says why there is none
        """
        client.disconnect_all()
        deadline = time.monotonic() + self._timeout
        try:
            targets = self._lookup.targets(self._timeout)
        except OSError as error:
            raise OSError(f"cannot connect: {error}") from None
        failures = []
        for number, target in enumerate(targets):
            left = max(0.01, deadline - time.monotonic())
            try:
                # One that does not answer leaves time for the others.
                link = self._open(target, left / (len(targets) - number))
            except OSError as error:
                why = connection.explain(error, self._timeout)
                failures.append((target, why))
                continue
            link.settimeout(self._timeout)
            client.use(link)
            self.target = target
            self.generation += 1
            return
        if len(failures) == 1 and not self._is_name(failures[0][0]):
            raise OSError(f"cannot connect: {failures[0][1]}")
        raise OSError(
            "cannot connect to "
            + "; ".join(f"{_show(target)}: {why}" for target, why in failures)
        )

    def _is_name(self, target: lookup.Target) -> bool:
        """Whether the address that was configured is not the target's."""
        return bool(self.host) and self.host != target[1][0]

    def _open(
        self, target: lookup.Target, timeout: float | None = None
    ) -> socket.socket:
        return connection.connect(
            target, self.host, timeout or self._timeout, self.tls, self.login
        )

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


def _show(target: lookup.Target) -> str:
    """Return an address for people."""
    place = target[1]
    if isinstance(place, str):
        return place
    host, port = place[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _done(result: Any) -> Future:
    future: Future = Future()
    future.set_result(result)
    return future
