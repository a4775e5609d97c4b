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

"""A memcached server: requests that fail fast and say why.

Each server has one connection. A caller that finds it free writes its commands
on it, and reads the answers: see begin(). So several servers can be sent their
commands before the first answer is read. While the connection is in use, or
there is none, the server's thread executes them (a green one in a green
process), many at once, and callers wait for a future.

A failure is a BackendError. After a failure all calls to that server fail at
once for RETRY seconds. So a server that hangs delays no other server, and a
caller by one time-out at most.
"""

from __future__ import annotations

import collections
import contextlib
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from nova_sg import exception, threads
from nova_sg.backends import clock
from nova_sg.backends.memcached import address as mc_address
from nova_sg.backends.memcached import connection, lookup, protocol, values
from nova_sg.backends.memcached.client import Client, NoStatistics
from nova_sg.backends.memcached.protocol import Command, Connection

# Seconds after a failure in which a server is not tried again.
RETRY = 1.0
# Keys in one request: a longer one would hold up the other callers.
CHUNK = 1000
# Seconds for which a green thread waits for one server before it looks whether
# another one has answered.
PATIENCE = 0.02
# Attempts to change a value that other processes change, too.
ATTEMPTS = 20
# Seconds for which a value is kept by which two connections are compared.
PROBE_LIFETIME = 60

_NO_STATISTICS = (
    "it gives no statistics, and so not its clock: is that a proxy, such as "
    "twemproxy? Name the memcached servers themselves"
)
_CLOSED = (
    "the server closed the connection: does it want {}, or does it refuse "
    "this host?"
)
_TLS = "TLS (memcached -Z, [cache] tls_enabled)"
# By TLS 1.3 it says so after the handshake, or just closes.
_CERTIFICATE = "a certificate of this host ([cache] tls_certfile)"

#: What a server executes on a connection that no other caller uses meanwhile.
_Dialogue = Callable[[Connection], Any]


class _Job:
    """What a server's thread has to do."""

    __slots__ = ("always", "done", "is_wanted", "work")

    def __init__(
        self,
        work: Sequence[Command] | _Dialogue,
        is_wanted: Callable[[], bool],
        done: Callable[[Any], None],
        always: bool = False,
    ) -> None:
        self.work = work
        #: Whether the caller still waits; called when the work begins.
        self.is_wanted = is_wanted
        #: Takes the result, or a BackendError; of commands it is a list.
        self.done = done
        #: Also while the server has refused its statistics.
        self.always = always


class Answers:
    """The results of several servers; one caller waits for them."""

    def __init__(self) -> None:
        #: None: it has not answered.
        self._found: dict[RemoteServer, Any] = {}
        self._waits = True
        # Taken by the caller, and released when a server has answered.
        self._arrived = threading.Lock()

    def expect(self, server: RemoteServer, commands: list[Command]) -> None:
        """Have the server's thread execute commands."""
        self._found[server] = None
        server.submit_all(
            commands,
            lambda: self._waits,
            lambda result: self._add(server, result),
        )

    def wait(self, timeout: float) -> dict[RemoteServer, Any]:
        """Wait for all servers.

        :param timeout: seconds; what was not begun by then is not executed
        :returns: the results of each server in a list, or a BackendError;
            None: it has not answered
        """
        deadline = time.monotonic() + timeout
        while None in self._found.values():
            left = deadline - time.monotonic()
            if left <= 0 or not self._arrived.acquire(timeout=left):
                break
        self._waits = False
        return dict(self._found)

    def _add(self, server: RemoteServer, result: Any) -> None:
        self._found[server] = result
        _release(self._arrived)


def _release(lock: Any) -> None:
    """Release a lock by which one thread wakes another one."""
    # It may be released already; a green one does not mind.
    with contextlib.suppress(RuntimeError):
        lock.release()


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
        # What the thread has to do; None: end.
        self._jobs: collections.deque[_Job | None] = collections.deque()
        # Whether it waits for _arrived, which is released then.
        self._idle = False
        self._arrived = threading.Lock()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        # Held while the connection is in use.
        self._in_use = threading.Lock()
        self._connection: Connection | None = None
        # Whether the thread waits for the connection.
        self._wanted = False
        # Monotonic.
        self._retry_at = float("-inf")
        self._failure = ""
        # Why no operation is possible until it has given its statistics.
        self._refused = ""

    # -- operations

    def submit(self, command: Command) -> Future:
        """Have a command executed."""
        future: Future = Future()
        self.submit_all(
            [command],
            future.set_running_or_notify_cancel,
            lambda result: _set(
                future, result[0] if isinstance(result, list) else result
            ),
        )
        return future

    def submit_all(
        self,
        commands: Sequence[Command],
        is_wanted: Callable[[], bool],
        done: Callable[[Any], None],
    ) -> None:
        """Have commands executed by the thread.

        :param is_wanted: whether they are still to be executed
        :param done: called on the thread with a list, which has for each
            command its result or a BackendError, or with a BackendError
        """
        self._put(_Job(commands, is_wanted, done))

    def get(self, keys: Iterable[str]) -> Future:
        """Return the values of those keys that exist: {key: bytes}."""
        keys = list(keys)
        if len(keys) <= CHUNK:
            return self.submit(protocol.get(keys))
        commands = [
            protocol.get(keys[start : start + CHUNK])
            for start in range(0, len(keys), CHUNK)
        ]

        def get(connection: Connection) -> dict[str, bytes]:
            found = {}
            for command in commands:
                found.update(connection.call(command.request, command.read))
            return found

        return self._put_dialogue(get)

    def set(self, key: str, value: bytes, expire: int = 0) -> Future:
        """Set a value, for expire seconds; 0: for good.

        :returns: None
        """
        return self.submit(protocol.set_(key, value, expire))

    def renew(self, key: str, value: bytes, expire: int) -> Future:
        """Replace a value, for expire seconds.

        :returns: whether there was one; if not, nothing is written
        """
        return self.submit(protocol.renew(key, value, expire))

    def keep(self, key: str, value: bytes, expire: int) -> Future:
        """Keep a value for expire more seconds; set it if there is none."""

        def keep(used: Client) -> None:
            if not used.touch(key, expire):
                used.add(key, value, expire)

        return self._submit(keep)

    def delete(self, key: str) -> Future:
        """Delete a value, if there is one."""
        return self._submit(lambda used: used.delete(key))

    def append(self, key: str, line: bytes) -> Future:
        """Add a line to a list, or begin the list."""

        def append(used: Client) -> None:
            for _ in range(ATTEMPTS):
                if used.append(key, line) or used.add(key, line):
                    return
            raise self._error("the line was not added")

        return self._submit(append)

    def update(self, key: str, change: Callable[[bytes], bytes]) -> Future:
        """Replace a value by change(value); b"" stands for no value.

        A change that another process makes in between is not lost. change
        may be called several times.
        """

        def exchange(old: bytes) -> bytes | None:
            new = change(old)
            return None if new == old else new

        return self.exchange(key, exchange, 0)

    def exchange(
        self, key: str, change: Callable[[bytes], bytes | None], expire: int
    ) -> Future:
        """Replace a value by change(value), for expire seconds; 0: for good.

        :param change: gets b"" if there is no value, and returns None if the
            value shall stay; may be called several times
        :returns: the value before, and the value now
        """

        def exchange(used: Client) -> tuple[bytes, bytes]:
            for _ in range(ATTEMPTS):
                used.reset_cas()
                found = used.read(key, "gets")
                old = found or b""
                new = change(old)
                if new is None:
                    return old, old
                store = used.add if found is None else used.cas
                if store(key, new, expire):
                    return old, new
            raise self._error("other processes keep changing the value")

        return self._submit(exchange)

    def stats(self) -> Future:
        """Return the server's statistics, and set its clock by them."""

        def stats(used: Connection) -> dict[str, str]:
            sent = time.monotonic()
            found = self._statistics(used)
            if found is None:
                self._refused = _NO_STATISTICS
                raise self._error(_NO_STATISTICS)
            self.clock.sample(
                sent, time.monotonic(), float(found["time"]), resolution=1.0
            )
            self._refused = ""
            return found

        return self._put_dialogue(stats, always=True)

    def _statistics(self, used: Connection) -> dict[str, str] | None:
        """Return the server's statistics; None: it answers without them."""
        try:
            return Client(used.link).statistics()
        except NoStatistics:
            return None
        except ConnectionError:
            if used.answered:
                raise
        # A proxy closes the connection if it does not know the command. It
        # answers others.
        used = self._connect()
        try:
            Client(used.link).read(values.GROUPS_KEY)
        except ConnectionError:
            wants = _TLS if self.tls is None else _CERTIFICATE
            raise OSError(_CLOSED.format(wants)) from None
        try:
            # Not if a server was started just now.
            return Client(used.link).statistics()
        except (NoStatistics, ConnectionError):
            return None

    def compare(self, attempts: int) -> Future:
        """Find out whether other connections lead to another server.

        A value is set on one connection, and read on others: one to each
        address that the name has, and more of them to the first one.

        :param attempts: how many connections to one address
        :returns: "" or what answers as another server, as a clause
        """

        def compare(one: Client) -> str:
            key = f"nova_sg:p:{secrets.token_hex(8)}"
            one.set(key, b"1", PROBE_LIFETIME)
            used, targets = self.target, []
            with contextlib.suppress(OSError):
                targets = self._lookup.targets(self._timeout)
            tried = [used] * attempts + [t for t in targets if t != used]
            for target in tried[: attempts + 8]:
                try:
                    with self._open(target) as link:
                        if Client(link).read(key):
                            continue
                except Exception:
                    # Whether it answers is not asked here.
                    continue
                if not one.read(key):
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

    # -- on the caller's thread

    def begin(self, commands: Sequence[Command]) -> bool:
        """Send commands, if the connection is free.

        finish() or abandon() has to follow, on the same thread.

        :returns: whether they were sent; if not, submit() them
        """
        if (
            self._wanted
            or self._connection is None
            or self._refused
            or self._closed
            or self._jobs
            or not self._in_use.acquire(blocking=False)
        ):
            return False
        sent = False
        try:
            used = self._connection
            if used is None:
                return False
            if len(commands) == 1:
                request = commands[0].request
            else:
                request = b"".join([one.request for one in commands])
                if len(request) > protocol.WINDOW:
                    return False
            sent = self._send(used, request)
            return sent
        finally:
            if not sent:
                self._in_use.release()

    def _send(self, used: Connection, request: bytes) -> bool:
        try:
            used.send(request)
        except TimeoutError as error:
            self._note_failure(error)
        except Exception:
            # The thread makes another connection.
            self._disconnect()
        except BaseException:
            self._disconnect()
            raise
        else:
            return True
        return False

    def finish(self, commands: Sequence[Command]) -> list[Any] | None:
        """Read the answers to the commands that begin() has sent.

        :returns: for each its result, or a BackendError; None: the
            connection was closed, submit() them
        :raises BackendError: the server does not answer
        """
        used, done = self._connection, False
        assert used is not None
        try:
            results = used.read_all(commands)
            done = True
        except TimeoutError as error:
            self._note_failure(error)
            raise self._error(self._failure) from None
        except Exception:
            # The server may have been restarted since the connection was
            # used last.
            return None
        finally:
            if not done:
                self._disconnect()
            self._in_use.release()
        for number, result in enumerate(results):
            if isinstance(result, protocol.Refused):
                results[number] = self._translated(result)
        return results

    def abandon(self) -> None:
        """Do not read the answers to what begin() has sent."""
        self._disconnect()
        self._in_use.release()

    def fileno(self) -> int:
        """Return the connection's file descriptor, after begin()."""
        assert self._connection is not None
        return self._connection.fileno()

    def has_answered(self, timeout: float) -> bool:
        """Whether finish() need not wait for the first bytes.

        :param timeout: seconds to wait for them here
        """
        assert self._connection is not None
        return self._connection.await_bytes(timeout)

    def give_up(self) -> None:
        """Have finish() fail if the answer has not arrived."""
        assert self._connection is not None
        self._connection.give_up()

    def _translated(self, result: Any) -> Any:
        if isinstance(result, protocol.Refused):
            return self._error(str(result))
        return result

    # -- the thread

    def _submit(self, work: Callable[[Client], Any]) -> Future:
        """Have the server's thread do something by python-memcached."""
        return self._put_dialogue(lambda used: work(Client(used.link)))

    def _put_dialogue(self, work: _Dialogue, always: bool = False) -> Future:
        """Have the server's thread execute a dialogue.

        :param always: also while the server has refused its statistics
        """
        future: Future = Future()
        self._put(
            _Job(
                work,
                future.set_running_or_notify_cancel,
                lambda result: _set(future, result),
                always,
            )
        )
        return future

    def _put(self, job: _Job) -> None:
        if self._thread is None:
            self._start()
        self._jobs.append(job)
        self._wake()
        if self._closed:
            # The thread may have ended before it found the job.
            self._refuse_all()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                # An executor's threads would delay the end of the process.
                self._thread = threading.Thread(
                    target=self._run,
                    name=f"nova-sg-{self.address}",
                    daemon=True,
                )
                self._thread.start()

    def _wake(self) -> None:
        if self._idle:
            self._idle = False
            _release(self._arrived)

    def _next_job(self) -> _Job | None:
        """Wait for the next job."""
        while True:
            try:
                return self._jobs.popleft()
            except IndexError:
                self._idle = True
                # Unless there is one meanwhile.
                if not self._jobs:
                    self._arrived.acquire()
                self._idle = False

    def _refuse_all(self) -> None:
        ends = False
        with contextlib.suppress(IndexError):
            while True:
                job = self._jobs.popleft()
                if job is None:
                    ends = True
                elif job.is_wanted():
                    job.done(self._error("closed by this process"))
        if ends:
            # That is for the thread.
            self._jobs.append(None)
            self._wake()

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            jobs = [job, *self._jobs_beside(job)]
            self._wanted = True
            with self._in_use:
                self._wanted = False
                done = self._do(jobs)
            result = None
            for job, result in done:
                job.done(result)
            # Of ten thousand members it is a megabyte.
            del job, jobs, done, result
        with self._in_use:
            self._disconnect()
        self._refuse_all()

    def _jobs_beside(self, first: _Job) -> list[_Job]:
        """Take jobs whose commands may be sent together with others."""
        found: list[_Job] = []
        size = _size(first)
        while self._jobs:
            job = self._jobs[0]
            if job is None:
                break
            size += _size(job)
            if size > protocol.WINDOW:
                break
            found.append(job)
            self._jobs.popleft()
        return found

    def _do(self, jobs: list[_Job]) -> list[tuple[_Job, Any]]:
        """Do one job, or the commands of several.

        :returns: their results, or errors
        """
        done: list[tuple[_Job, Any]] = []
        wanted = []
        for job in jobs:
            if job.is_wanted():
                if self._refused and not job.always:
                    done.append((job, self._error(self._refused)))
                else:
                    wanted.append(job)
        if not wanted:
            return done
        try:
            if callable(wanted[0].work):
                [job] = wanted
                return [*done, (job, self._execute(wanted[0].work))]
            commands: list[Command] = []
            for job in wanted:
                assert not callable(job.work)
                commands += job.work
            results = iter(self._execute_all(commands))
        except exception.BackendError as error:
            # Each of several callers raises one of its own.
            text = str(error)
            return done + [
                (job, exception.BackendError(text)) for job in wanted
            ]
        for job in wanted:
            assert not callable(job.work)
            done.append((job, [next(results) for _ in job.work]))
        return done

    def _execute_all(self, commands: Sequence[Command]) -> list[Any]:
        request = b"".join([one.request for one in commands])

        def execute(used: Connection) -> list[Any]:
            used.send(request)
            return used.read_all(commands)

        return [self._translated(one) for one in self._execute(execute)]

    def _error(self, text: str) -> exception.BackendError:
        return exception.BackendError(f"memcached at {self.address}: {text}")

    def _note_failure(self, error: Exception) -> None:
        """Leave the server alone for a while."""
        if isinstance(error, OSError):
            self._failure = connection.explain(error, self._timeout)
        else:
            self._failure = exception.describe(error)
        self._disconnect()
        self._retry_at = time.monotonic() + RETRY

    def _disconnect(self) -> None:
        used, self._connection = self._connection, None
        if used is not None:
            used.close()

    def _execute(self, operation: _Dialogue) -> Any:
        if time.monotonic() < self._retry_at:
            raise self._error(self._failure)
        try:
            return self._attempt(operation)
        except exception.BackendError:
            # The server refused one value, and works.
            raise
        except Exception as error:
            self._note_failure(error)
        # Not within a handler: its error would keep a socket open.
        raise self._error(self._failure)

    def _attempt(self, operation: _Dialogue) -> Any:
        used = self._connection
        if used is not None:
            try:
                return self._run_on(used, operation)
            except (TimeoutError, exception.BackendError):
                raise
            except Exception:
                # The server may have been restarted since the connection
                # was used last.
                pass
        return self._run_on(self._connect(), operation)

    def _run_on(self, used: Connection, operation: _Dialogue) -> Any:
        try:
            result = operation(used)
        except protocol.Refused as refused:
            raise self._error(str(refused)) from None
        used.answered = True
        return result

    def _connect(self) -> Connection:
        """Make a new connection, in the place of the one before.

        :raises OSError: the text says why there is none
        """
        self._disconnect()
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
            self._connection = made = Connection(link, self._timeout)
            self.target = target
            self.generation += 1
            return made
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
            thread = self._thread
        if thread is not None:
            self._jobs.append(None)
            self._wake()
            threads.join(thread, self._timeout * 2)


def _set(future: Future, result: Any) -> None:
    if isinstance(result, exception.BackendError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _size(job: _Job) -> int:
    """Return the bytes of a job's commands."""
    if callable(job.work):
        # Nothing is sent together with it.
        return protocol.WINDOW + 1
    return sum(len(command.request) for command in job.work)


def as_answered(
    begun: Sequence[RemoteServer], timeout: float
) -> Iterator[RemoteServer]:
    """Yield servers in the order in which they answer.

    :param begun: servers after begin()
    :param timeout: seconds after which the others are yielded; finish() fails
        then
    """
    waiting = list(begun)
    deadline = time.monotonic() + timeout
    while len(waiting) > 1:
        left = deadline - time.monotonic()
        if left <= 0:
            for server in waiting:
                server.give_up()
            break
        for server in _answered(waiting, left):
            waiting.remove(server)
            yield server
    yield from waiting


def _answered(
    waiting: Sequence[RemoteServer], timeout: float
) -> Iterable[RemoteServer]:
    """Wait for a while; return servers of which something has arrived."""
    make = getattr(select, "poll", None)
    if make is None:
        # In a green process. There select() of several connections may wake
        # its caller once more, later and anywhere (eventlet 0.41).
        return [one for one in waiting if one.has_answered(PATIENCE)]
    poll = make()
    by_number = {}
    for server in waiting:
        by_number[server.fileno()] = server
        poll.register(server, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(timeout * 1000)]


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
