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

"""Connections: cheroot, with a thread from a pool for each that is served.

A client that has sent nothing takes no thread, and a slow client holds up no
other: the threads make the TLS handshakes, too. The threads are native or
green, as the process is.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cheroot import server as http_server
from cheroot import wsgi
from cheroot.ssl import builtin
from oslo_log import log as logging

from nova_sg import exception
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# Connections at one time; the next one is closed at once.
CONNECTIONS = 500
# Threads that are started together, when all are busy.
THREADS = 10
# Seconds that a client may take to send, or to read on.
TIMEOUT = 30.0
# Bytes of a request's headers, and of its body, which is ignored.
HEADERS = BODY = 8192
# Seconds that responses may take to end when the server is stopped.
STOP = 2.0


class _Connection(http_server.HTTPConnection):
    """A connection that is counted, and makes its TLS handshake late."""

    def __init__(self, server: Server, *args: Any) -> None:
        super().__init__(server, *args)
        self._shaken = server.ssl_adapter is None
        #: Whether a thread is serving it.
        self.served = False
        server.connections.add(self)

    def communicate(self) -> bool:
        self.served = True
        try:
            return self._shake() and super().communicate()
        except OSError as error:
            # The client is gone, or speaks no TLS.
            LOG.debug("A client at %s: %s", self.remote_addr, error)
            return False
        finally:
            self.served = False

    def _shake(self) -> bool:
        """Make the TLS handshake, once; return whether there is a client.

        :raises OSError: the client is gone, or speaks no TLS
        """
        if not self._shaken:
            try:
                self.socket.do_handshake()
            except AttributeError:
                # stop() has ended the connection meanwhile.
                return False
            self._shaken = True
        return True

    def close(self) -> None:
        self.server.connections.discard(self)
        with contextlib.suppress(OSError):
            super().close()
        # What a client that is gone has not read is dropped. Otherwise Python
        # tries to send it when the file is collected, and from 3.13 on it
        # prints that this failed.
        with contextlib.suppress(OSError):
            self.wfile.close()


class _LateHandshake(builtin.BuiltinSSLAdapter):
    """TLS by our own context; accepting a connection does not wait."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict]:
        return self.context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False
        ), {}


class _Waker:
    """What a server waits for beside its connections.

    In green threads a server that waits does not notice a connection that is
    put to the others meanwhile: this has it wait anew. To cheroot it is a
    connection that never expires.
    """

    last_used = property(lambda self: math.inf, lambda self, value: None)

    def __init__(self) -> None:
        self.socket, self._end = socket.socketpair()
        self._end.setblocking(False)
        self.rfile = self

    def has_data(self) -> bool:
        return False

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._end.send(b".")

    def close(self) -> None:
        self.socket.close()
        self._end.close()


class Server(wsgi.Server):
    """Serves a WSGI application at an address, in the background.

    :param port: the port of [monitor] listen
    :param option: the name of the option that has the port, for errors
    :raises ConfigError: the port cannot be had, or the certificate is wrong
    """

    ConnectionClass = _Connection
    keep_alive_conn_limit = CONNECTIONS
    max_request_header_size = HEADERS
    max_request_body_size = BODY

    def __init__(self, port: int, option: str, application: Callable) -> None:
        self.url = url(port)
        self.connections: set[_Connection] = set()
        self._waker = _Waker()
        self._accepting: threading.Thread | None = None
        self._stopped = False
        # Set when cheroot's threads are there, or could not be made.
        self._prepared = threading.Event()
        context, host = tls_context(), CONF.monitor.listen
        with explained(port, option):
            super().__init__(
                (host, port),
                application,
                numthreads=THREADS,
                max=CONNECTIONS,
                server_name="nova-sg",
                request_queue_size=128,
                timeout=TIMEOUT,
                shutdown_timeout=STOP,
            )
            ((family, kind, *_), *_) = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            self._bound = super().bind(family, kind)
            self._bound.listen()
        if context is not None:
            self.ssl_adapter = _LateHandshake(context)

    def bind(self, *args: Any) -> None:
        """Use the socket that listens already."""
        self.socket = self._bound

    def start(self) -> None:
        """Begin to accept connections, unless stop() was called already."""
        if self._stopped:
            return
        LOG.info("Listening at %s", self.url)
        self._accepting = threading.Thread(
            target=self._accept, name="nova-sg-accept", daemon=True
        )
        self._accepting.start()

    def _accept(self) -> None:
        # Here, so that cheroot's threads are daemons, too.
        try:
            self.prepare()
            super().put_conn(self._waker)
        finally:
            self._prepared.set()
        self.serve()

    def stop(self) -> None:
        """Accept no more connections; end those that there are.

        Responses that are under way have STOP seconds.
        """
        self._stopped = True
        if self._accepting is not None:
            # cheroot ignores a stop() before, and then its threads stay.
            self._prepared.wait()
        end = time.monotonic() + STOP
        while time.monotonic() < end and any(
            one.served for one in list(self.connections)
        ):
            time.sleep(0.02)
        for one in list(self.connections):
            with contextlib.suppress(OSError):
                one.socket.shutdown(socket.SHUT_RDWR)
        super().stop()
        self._bound.close()

    def reload(self) -> None:
        """Read the certificate again, for the connections to come.

        :raises ConfigError: the certificate is wrong; the old one stays
        """
        context = tls_context()
        if context is not None and self.ssl_adapter is not None:
            self.ssl_adapter.context = context

    def put_conn(self, conn: _Connection) -> None:
        """Wait until a connection sends again."""
        super().put_conn(conn)
        self._waker.wake()

    def process_conn(self, conn: _Connection) -> None:
        """Have a connection served: it is new, or has sent a request."""
        if conn is self._waker:
            self._waker.socket.recv(CONNECTIONS)
            super().put_conn(conn)
        elif len(self.connections) > CONNECTIONS:
            conn.close()
        elif conn.last_used is None:
            # It gets a thread when it sends.
            super().put_conn(conn)
        else:
            if self.requests.idle <= self.requests.qsize:
                self.requests.grow(THREADS)
            super().process_conn(conn)

    def error_log(
        self, msg: str = "", level: int = logging.INFO, traceback: bool = False
    ) -> None:
        if level < logging.ERROR:
            # Clients may leave at any time.
            LOG.debug("%s", msg)
            return
        LOG.error("%s", msg, exc_info=traceback)
        # Accepting fails again at once where too many files are open.
        time.sleep(1.0)


@contextlib.contextmanager
def explained(port: int, option: str) -> Iterator[None]:
    """Raise ConfigError where listening on a port fails."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise exception.ConfigError(
            f"[monitor] listen, {option}: cannot listen on "
            f"{CONF.monitor.listen}, port {port}: {why}. Choose an address "
            "of this host and a free port"
        ) from None


def tls_context() -> ssl.SSLContext | None:
    """Return the TLS context that the options ask for; None: no TLS.

    :raises ConfigError: the certificate or its key is wrong
    """
    certificate, key = CONF.monitor.cert_file, CONF.monitor.key_file
    if not certificate:
        if key:
            raise exception.ConfigError(
                "[monitor] key_file is set and cert_file is not: name the "
                "certificate as well, or neither"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A key with a password would have it asked for at a terminal.
        context.load_cert_chain(certificate, key or None, lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise exception.ConfigError(
            f"[monitor] cert_file, key_file: {certificate}"
            f"{f', {key}' if key else ''}: {why}. They have to be a "
            "certificate and its key in PEM, without a password, that this "
            "user may read"
        ) from None
    return context


def url(port: int) -> str:
    """Return the URL of a port of [monitor] listen."""
    host = CONF.monitor.listen
    scheme = "https" if CONF.monitor.cert_file else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
