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

"""kazoo's client as one session: it ends when the session ends.

Here: what is different from kazoo. It has no public way to learn of every
state and of a failed attempt to connect, so these classes override methods
that it does not document; a test of each exists.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import time
import types
from collections.abc import Callable
from typing import Any, Protocol

from kazoo import client, exceptions, version
from kazoo.handlers import threading as threads
from kazoo.protocol import connection, serialization, states
from kazoo.retry import KazooRetry

from nova_sg.kazoo_transport import convert
from nova_sg.zookeeper import addresses, constants, dispatch

# Seconds between two rounds of attempts to connect to the servers, as with the
# C client (nova_sg/evzookeeper/reconnection.py): the first pause, and the
# longest one without a session.
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
# kazoo's pauses are random: they may be longer by this part.
_JITTER = 0.4
# After so many session timeouts without a connection the client no longer
# tells the servers what it has seen. If their data were lost or restored, they
# are older than that; then the servers refuse the client, but not the session,
# which has expired if they do not know it.
_MEMORY = 2

# Before 2.11 kazoo measures the time until the next ping by the wall clock,
# and would lose the session when that is set.
if tuple(map(int, version.__version__.split(".")[:2])) < (2, 11):
    connection.time = types.SimpleNamespace(
        time=time.monotonic, monotonic=time.monotonic
    )

Encrypt = Callable[[socket.socket, str], socket.socket]


class Owner(Protocol):
    """What a client tells its session, on the thread of the connection."""

    def connected(self, timeout: int) -> None:
        """A server is connected, and has accepted the authentication.

        :param timeout: the session timeout that it agreed to, in ms
        """

    def failed(self, problem: str) -> None:
        """An attempt to connect has failed."""

    def changed(self, state: str) -> None:
        """Called before the client acts on one of KeeperState's states."""


class Log(logging.LoggerAdapter):
    """kazoo's messages, without those that contain passwords.

    At DEBUG it logs each request, also those with credentials and data.

    :param closing: whether this process ends the session: then kazoo warns
        that it could not connect
    """

    def __init__(
        self, log: logging.Logger, closing: Callable[[], bool]
    ) -> None:
        super().__init__(log, {})
        self._closing = closing

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if level >= logging.INFO and not self._closing():
            super().log(level, msg, *args, **kwargs)

    def warn(self, msg: object, *args: Any, **kwargs: Any) -> None:
        # kazoo's spelling, which Python 3.13 no longer has.
        self.warning(msg, *args, **kwargs)


class InChild(BaseException):
    """This is the copy of a green thread in the child of a fork."""


class Handler(threads.SequentialThreadingHandler):
    """kazoo's threads, with connections of our own.

    :param encrypt: begins TLS on a connection to a host, and returns the
        encrypted connection; None: no TLS
    """

    def __init__(self, encrypt: Encrypt | None) -> None:
        super().__init__()
        self._encrypt = encrypt
        #: Seconds that each step of connecting to one server may take.
        self.patience = 0.0
        # The name of the server; kazoo does not pass it before 2.11.
        self.hostname = ""
        self._pid = os.getpid()

    def create_connection(self, address: tuple, **_: Any) -> socket.socket:
        link = socket.create_connection(address[:2], self.patience)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._encrypt(link, self.hostname) if self._encrypt else link

    def select(
        self, readers: list, writers: list, others: list, timeout: float
    ) -> tuple[list, list, list]:
        # What TLS has read from the socket already; kazoo forgets it.
        pending = [
            one for one in readers if hasattr(one, "pending") and one.pending()
        ]
        readable, writable, _ = super().select(
            readers, writers, others, 0 if pending else timeout
        )
        readable += [one for one in pending if one not in readable]
        # If two descriptors are ready at once, eventlet's hub switches here
        # twice: the second time must not end whatever comes next.
        time.sleep(0)
        if os.getpid() != self._pid:
            # The parent uses the connection.
            raise InChild
        return readable, writable, []


class _Connection(connection.ConnectionHandler):
    """Tells the session of each attempt to connect."""

    def __init__(self, owner: Owner, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owner = owner
        #: The address and the port of the last attempt to connect.
        self.last_server: tuple[str, int] | None = None
        self._known: list[tuple] = []
        # How many attempts have taken too long since there was a connection.
        self._slow = 0
        # When the connection broke; None: there is one, or was none yet.
        self._lost_at: float | None = None

    def _expand_client_hosts(self) -> list[tuple]:
        timeout = self.client._session_timeout / 1000
        lost = self._lost_at
        if lost is not None and time.monotonic() - lost > _MEMORY * timeout:
            self.client.last_zxid = 0
        found: list[tuple] = []
        problem = ""
        for host, port in self.client.hosts:
            ips, error = _resolve(host, port)
            problem = error or problem
            # A name that cannot be resolved now has the addresses it had.
            found += [(host, ip, port) for ip in ips] or [
                one for one in self._known if one[::2] == (host, port)
            ]
        self._known = list(found)
        random.shuffle(found)
        if not found:
            self._owner.failed(problem)
        # The server whose connection broke comes last: it may hang.
        return sorted(found, key=lambda one: one[1:] == self.last_server)

    def _connect_loop(self, retry: KazooRetry) -> Any:
        # While there is a session it must not end because of a pause.
        longest = LONGEST_PAUSE
        if self.client._session_id:
            longest = self.client._session_timeout / 1000 / 2
        retry.max_delay = longest / (1 + _JITTER)
        return super()._connect_loop(retry)

    def _connect_attempt(self, *args: Any) -> Any:
        try:
            return super()._connect_attempt(*args)
        except Exception as error:
            # Such as of a message that it cannot read. kazoo has logged it,
            # and would give up the session. The next attempt follows.
            self._owner.failed(repr(error))
            self.client._session_callback(states.KeeperState.CONNECTING)
            return None
        finally:
            if self._lost_at is None:
                self._lost_at = time.monotonic()

    def _invoke(
        self, timeout: float, request: Any, xid: int | None = None
    ) -> Any:
        # kazoo would wait for the whole session timeout. A server that has
        # just started may never answer, and the session would end meanwhile.
        if isinstance(request, serialization.Connect):
            timeout = self.handler.patience
        return super()._invoke(timeout, request, xid)

    def _patience(self) -> float:
        """Return the seconds that connecting may take: time for all servers.

        It grows while the servers are slow.
        """
        timeout = self.client._session_timeout / 1000
        share = timeout / 3 / len(self.client.hosts)
        # After hours the power would be too large.
        return min(timeout, share * 2 ** min(self._slow, 20))

    def _connect(self, host: str, hostip: str, port: int) -> tuple:
        self.last_server = hostip, port
        self.handler.patience = self._patience()
        self.handler.hostname = host
        try:
            times = super()._connect(host, hostip, port)
        except (
            exceptions.SessionExpiredError,
            exceptions.AuthFailedError,
        ):
            raise
        except exceptions.SASLException as error:
            raise exceptions.AuthFailedError(f"SASL: {error}") from error
        except Exception as error:
            if convert.code(error) == constants.SESSIONCLOSEDREQUIRESASLAUTH:
                raise exceptions.AuthFailedError("SASL") from error
            # kazoo's own texts leave out what TLS found.
            cause = error.__context__ or error
            if isinstance(cause, (TimeoutError, threads.KazooTimeoutError)):
                self._slow += 1
            self._owner.failed(f"{host}:{port}: {str(cause) or repr(cause)}")
            if not isinstance(
                error,
                (exceptions.ConnectionDropped, threads.KazooTimeoutError),
            ):
                # Any other would end kazoo's thread.
                raise exceptions.ConnectionDropped(repr(error)) from error
            raise
        self._lost_at = None
        self._slow = 0
        # The read timeout is two thirds of the session timeout.
        self._owner.connected(round(times[0] * 1.5))
        return times

    def _authenticate_with_sasl(self, host: str, timeout: float) -> None:
        try:
            super()._authenticate_with_sasl(host, timeout)
        except exceptions.AuthFailedError as error:
            if isinstance(error.__cause__, exceptions.ConnectionDropped):
                # Not an answer: the session may still be continued.
                raise error.__cause__ from None
            raise


def _resolve(host: str, port: int) -> tuple[list[str], str]:
    """Return the addresses of a host, and the resolver's error.

    It is resolved in a thread of the operating system, as a green one would
    block the hub.
    """
    servers = addresses.split(f"{host}:{port}")
    if servers.are_addresses:
        return [host], ""
    reply = dispatch.Reply()
    try:
        addresses.resolve(servers, lambda *result: reply.set(result))
    except OSError as error:
        return [], f"{host}: {error}"
    reply.wait()
    found, problem = reply.value
    return [one.rpartition(":")[0] for one in found.servers], problem


class Client(client.KazooClient):
    """A KazooClient that makes one session, and none after it."""

    def __init__(
        self,
        owner: Owner,
        hosts: str,
        timeout: float,
        client_id: tuple[int, bytes] | None,
        handler: Handler,
        log: logging.Logger,
        sasl_options: dict[str, str] | None,
    ) -> None:
        self._owner = owner
        self._closing = False
        super().__init__(
            hosts=hosts,
            timeout=timeout,
            client_id=client_id,
            handler=handler,
            logger=Log(log, lambda: self._closing),
            connection_retry=KazooRetry(
                max_tries=-1,
                delay=FIRST_PAUSE,
                max_jitter=_JITTER,
                sleep_func=handler.sleep_func,
            ),
        )
        retry = self._conn_retry.copy()
        retry.interrupt = self._stopped.is_set
        self._connection = _Connection(
            owner, self, retry, logger=self.logger, sasl_options=sasl_options
        )

    def _session_callback(self, state: str) -> None:
        if self._closing and state == states.KeeperState.CONNECTING:
            # The connection broke before the server's answer.
            self._stopped.set()
        if state != self._state:
            self._owner.changed(state)
            if state in (
                states.KeeperState.EXPIRED_SESSION,
                states.KeeperState.AUTH_FAILED,
            ):
                # Otherwise it would begin another session.
                self._stopped.set()
        super()._session_callback(state)

    def begin_close(self) -> None:
        """Have the server end the session; wait for nothing."""
        self._closing = True
        if not self._live.is_set():
            self._stopped.set()
        # Otherwise not yet: before 2.11 kazoo would not wait for the answer.
        self._queue.append((client.CloseInstance, None))
        self.wake()

    def wake(self) -> None:
        link = self._connection._write_sock
        if link is not None:
            with contextlib.suppress(OSError):
                link.send(b"\0")

    def has_stopped(self, timeout: float | None = 0) -> bool:
        """Wait until there is no connection, and none is attempted."""
        return self._connection.connection_stopped.wait(timeout)

    def cut(self) -> None:
        """Have the connection fail at once, and no other follow."""
        self._stopped.set()
        link = self._connection._socket
        if link is not None:
            # It may have just been closed.
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def free(self) -> None:
        """Free threads and sockets, once it has stopped."""
        self.handler.stop()
        self._connection.stop()
        self._connection.close()

    def last_server(self) -> tuple[str, int] | None:
        """The address and the port of the last attempt to connect."""
        return self._connection.last_server

    def session(self) -> tuple[int, bytes]:
        """The session's id, signed, and its password."""
        return self._session_id or 0, self._session_passwd

    def remember_auth(self, scheme: str, credential: str) -> None:
        """Authenticate with each connection from now on."""
        self.auth_data.add((scheme, credential))
