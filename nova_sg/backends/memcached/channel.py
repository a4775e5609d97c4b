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

"""The connection to a memcached server, and the thread that serves it.

A caller that finds the connection free writes its commands on it, and reads
the answers: see begin(). So several servers can be sent their commands before
the first answer is read. While the connection is in use, or there is none, the
server's thread executes them (a green one in a green process), many at once,
and callers wait for a future.

A failure is a BackendError. After a failure all calls to that server fail at
once for RETRY seconds. So a server that hangs delays no other server, and a
caller by one time-out at most.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from nova_sg import exception, threads
from nova_sg.backends.memcached import address as mc_address
from nova_sg.backends.memcached import connection, lookup, protocol
from nova_sg.backends.memcached.protocol import Command, Connection

# Seconds after a failure in which a server is not tried again.
RETRY = 1.0

#: What a server executes on a connection that no other caller uses meanwhile.
Dialogue = Callable[[Connection], Any]


class _Job:
    """What a server's thread has to do."""

    __slots__ = ("always", "done", "is_wanted", "work")

    def __init__(
        self,
        work: Sequence[Command] | Dialogue,
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


def release(lock: Any) -> None:
    """Release a lock by which one thread wakes another one."""
    # It may be released already; a green one does not mind.
    with contextlib.suppress(RuntimeError):
        lock.release()


class Channel:
    """The way to one memcached server: its connection and its thread.

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
        #: Grows with every new connection: the server may have been
        #: restarted, and be empty.
        self.generation = 0
        #: Seconds to wait for a connection and for an answer.
        self.timeout = timeout
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
        #: The addresses of its name.
        self.lookup = lookup.Lookup(self._parsed)
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
        #: Why no operation is possible until it has given its statistics.
        self.refused = ""

    # -- on the caller's thread

    def begin(self, commands: Sequence[Command]) -> bool:
        """Send commands, if the connection is free.

        finish() or abandon() has to follow, on the same thread.

        :returns: whether they were sent; if not, submit() them
        """
        if (
            self._wanted
            or self._connection is None
            or self.refused
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
            raise self.error(self._failure) from None
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
            return self.error(str(result))
        return result

    # -- the thread

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

    def put_dialogue(self, work: Dialogue, always: bool = False) -> Future:
        """Have the server's thread execute a dialogue.

        :param always: also while the server has refused its statistics
        """
        future: Future = Future()
        self._put(
            _Job(
                work,
                future.set_running_or_notify_cancel,
                lambda result: set_result(future, result),
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
            release(self._arrived)

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
                    job.done(self.error("closed by this process"))
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
                if self.refused and not job.always:
                    done.append((job, self.error(self.refused)))
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

    def error(self, text: str) -> exception.BackendError:
        """Return an error that names the server."""
        return exception.BackendError(f"memcached at {self.address}: {text}")

    def _note_failure(self, error: Exception) -> None:
        """Leave the server alone for a while."""
        if isinstance(error, OSError):
            self._failure = connection.explain(error, self.timeout)
        else:
            self._failure = exception.describe(error)
        self._disconnect()
        self._retry_at = time.monotonic() + RETRY

    def _disconnect(self) -> None:
        used, self._connection = self._connection, None
        if used is not None:
            used.close()

    def _execute(self, operation: Dialogue) -> Any:
        if time.monotonic() < self._retry_at:
            raise self.error(self._failure)
        try:
            return self._attempt(operation)
        except exception.BackendError:
            # The server refused one value, and works.
            raise
        except Exception as error:
            self._note_failure(error)
        # Not within a handler: its error would keep a socket open.
        raise self.error(self._failure)

    def _attempt(self, operation: Dialogue) -> Any:
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
        return self._run_on(self.connect(), operation)

    def _run_on(self, used: Connection, operation: Dialogue) -> Any:
        try:
            result = operation(used)
        except protocol.Refused as refused:
            raise self.error(str(refused)) from None
        used.answered = True
        return result

    def connect(self) -> Connection:
        """Make a new connection, in the place of the one before.

        :raises OSError: the text says why there is none
        """
        self._disconnect()
        deadline = time.monotonic() + self.timeout
        try:
            targets = self.lookup.targets(self.timeout)
        except OSError as error:
            raise OSError(f"cannot connect: {error}") from None
        failures = []
        for number, target in enumerate(targets):
            left = max(0.01, deadline - time.monotonic())
            try:
                # One that does not answer leaves time for the others.
                link = self.open(target, left / (len(targets) - number))
            except OSError as error:
                why = connection.explain(error, self.timeout)
                failures.append((target, why))
                continue
            link.settimeout(self.timeout)
            self._connection = made = Connection(link, self.timeout)
            self.target = target
            self.generation += 1
            return made
        if len(failures) == 1 and not self._is_name(failures[0][0]):
            raise OSError(f"cannot connect: {failures[0][1]}")
        raise OSError(
            "cannot connect to "
            + "; ".join(
                f"{lookup.show(target)}: {why}" for target, why in failures
            )
        )

    def _is_name(self, target: lookup.Target) -> bool:
        """Whether the address that was configured is not the target's."""
        return bool(self.host) and self.host != target[1][0]

    def open(
        self, target: lookup.Target, timeout: float | None = None
    ) -> socket.socket:
        """Open one more connection.

        :param timeout: seconds; None: the usual ones
        :raises OSError: it cannot be opened
        """
        return connection.connect(
            target, self.host, timeout or self.timeout, self.tls, self.login
        )

    def close(self) -> None:
        """Close the connection for good; the thread ends."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._jobs.append(None)
            self._wake()
            threads.join(thread, self.timeout * 2)


def set_result(future: Future, result: Any) -> None:
    """Set what a job returned, or a BackendError."""
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
