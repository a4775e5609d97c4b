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

"""Connections: a listening socket, TLS, and a thread a client.

For green processes. No client holds up another: accepting does nothing but
accept, and a thread serves one connection, TLS handshake included.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, monkey_patch
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# Connections at one time; who comes then is turned away.
CONNECTIONS = 500
# Seconds that a client may take to send, or to read on.
TIMEOUT = 30.0


class Server:
    """Serves a WSGI application at an address, in the background.

    :param port: the port of [monitor] listen
    :param option: the option that port is, for the words of errors
    :raises ConfigError: one cannot listen there, or the certificate is no
        good
    """

    def __init__(self, port: int, option: str, application: Callable) -> None:
        self._context = _context()
        self._listener = _listen(port, option)
        scheme = "http" if self._context is None else "https"
        self.url = _url(scheme, CONF.monitor.listen, port)
        self._serve = monkey_patch.wsgi(
            self._listener, application, scheme, TIMEOUT
        )
        self._free = threading.Semaphore(CONNECTIONS)
        self._stopped = False

    def start(self) -> None:
        """Begin to accept connections."""
        LOG.info("Listening at %s", self.url)
        threading.Thread(
            target=self._run, name="nova-sg-accept", daemon=True
        ).start()

    def stop(self) -> None:
        """Accept no more connections."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def reload(self) -> None:
        """Read the certificate again, for the connections to come.

        :raises ConfigError: it is no good; the old one stays
        """
        fresh = _context()
        if (fresh is None) == (self._context is None):
            self._context = fresh

    def _run(self) -> None:
        while not self._stopped:
            try:
                connection, address = self._listener.accept()
            except OSError as error:
                if self._stopped or error.errno == errno.EBADF:
                    return
                # The client has gone, or there are too many files open.
                time.sleep(0.05)
                continue
            if not self._free.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._attend, args=[connection, address], daemon=True
            ).start()

    def _attend(self, connection: socket.socket, address: Any) -> None:
        try:
            connection.settimeout(TIMEOUT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                connection = self._context.wrap_socket(
                    connection,
                    server_side=True,
                    do_handshake_on_connect=False,
                )
                connection.do_handshake()
            self._serve(connection, address)
        except OSError as error:
            # Clients come and go as they like.
            LOG.debug("A client at %s: %s", address, error)
        except Exception:
            LOG.exception("Unexpected error with a client at %s", address)
        finally:
            self._free.release()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                connection.close()


def _listen(port: int, option: str) -> socket.socket:
    host = CONF.monitor.listen
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise exception.ConfigError(
            f"[monitor] listen, {option}: cannot listen on {host}, port "
            f"{port}: {why}. Choose an address of this host and a free port"
        ) from None
    return listener


def _context() -> ssl.SSLContext | None:
    """Return the TLS context that the options ask for; None: no TLS."""
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


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
