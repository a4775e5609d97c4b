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


"""The page /health of a process with members, for probes of containers.

It is small, and needs no library: Nova's processes have none for this. It is
of one process: what its members are to others, nova-sg-monitor shows.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, version

LOG = logging.getLogger(__name__)

# Bytes of a request; more are not read.
SIZE = 8192
# Seconds for a request, from the connection to the end of the answer.
TIME = 5.0
# Connections that are served at one time; the next one is closed at once.
CONNECTIONS = 8
# Seconds after which a worker tries again to get the port of another one.
AGAIN = 10.0

_OPTION = "[servicegroup] health_listen"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}

Address = str | tuple[str, int]


def parse(text: str) -> Address:
    """Return an address: the path of a socket, or a host and a port.

    :raises ConfigError: it is none
    """
    kind, _, path = text.partition(":")
    if kind == "unix" and path.startswith("/"):
        return path
    # No name: to resolve it might take long.
    found = re.fullmatch(r"(?:\[(.+:.+)\]|([^:]+)):([0-9]{1,5})", text)
    if found and 0 < int(found[3]) < 65536:
        with contextlib.suppress(ValueError):
            host = found[1] or found[2]
            ipaddress.ip_address(host)
            return host, int(found[3])
    raise exception.ConfigError(
        f"{_OPTION}: {text!r} is no address. Write ADDRESS:PORT, "
        "[ADDRESS]:PORT for IPv6, or unix:/PATH; an address, not a name"
    )


class Server:
    """Serves the page at an address, in the background, until closed.

    :param text: the address, as the option has it
    :param state: returns what is shown; its "healthy" gives the status
    """

    def __init__(self, text: str, state: Callable[[], dict[str, Any]]) -> None:
        self._text = text
        self._state = state
        self._stopped = threading.Event()
        self._places = threading.Semaphore(CONNECTIONS)
        self._told = False
        #: What it listens on; None: another process has the address.
        self.listener: socket.socket | None = None
        try:
            self._address = parse(text)
        except exception.ConfigError as error:
            LOG.error(
                "%s. This process goes on, and does not show /health", error
            )
            return
        threading.Thread(
            target=self._run, name="nova-sg-health-page", daemon=True
        ).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._stopped.set()
        if self.listener is not None:
            # This wakes the thread that accepts.
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            if isinstance(self._address, str):
                with contextlib.suppress(OSError):
                    os.unlink(self._address)

    def close_in_child(self) -> None:
        """Close what a child has inherited by a fork; the parent goes on."""
        if self.listener is not None:
            with contextlib.suppress(OSError):
                os.close(self.listener.fileno())

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.listener = _listen(self._address)
            except OSError as error:
                self._tell(error)
                self._stopped.wait(AGAIN)
                continue
            LOG.info("Showing the health of this process at %s", self._text)
            if self._stopped.is_set():
                self.close()
            self._accept(self.listener)

    def _tell(self, error: OSError) -> None:
        """Log, once, that the address cannot be had."""
        if self._told:
            return
        self._told = True
        if error.errno == errno.EADDRINUSE:
            LOG.info(
                "%(option)s: another process has %(address)s, perhaps a "
                "worker of the same service. /health shows that one; this "
                "process takes its place when it ends",
                {"option": _OPTION, "address": self._text},
            )
            return
        LOG.error(
            "%(option)s: cannot listen on %(address)s: %(error)s. This "
            "process goes on and tries again; choose an address of this "
            "host and a free port, or a folder that it may write to",
            {
                "option": _OPTION,
                "address": self._text,
                "error": error.strerror or error,
            },
        )

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                if not self._stopped.wait(0.1):
                    # As where too many files are open.
                    continue
                return
            if self._places.acquire(blocking=False):
                threading.Thread(
                    target=self._serve, args=[client], daemon=True
                ).start()
            else:
                client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), client:
                end = time.monotonic() + TIME
                request = _read(client, end)
                if request:
                    client.settimeout(max(0.1, end - time.monotonic()))
                    client.sendall(self._answer(request))
        except Exception:
            LOG.exception("A request for /health could not be answered")
        finally:
            self._places.release()

    def _answer(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        method, path = (*words, b"")[:2]
        body: dict[str, Any] = {}
        if len(words) != 3 or not words[2].startswith(b"HTTP/"):
            status = 400
        elif path.partition(b"?")[0] != b"/health":
            status = 404
        elif method not in (b"GET", b"HEAD"):
            status = 405
        else:
            body = self._state()
            status = 200 if body["healthy"] else 503
        text = json.dumps(body or {"error": _REASONS[status]}).encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
            f"Server: nova-sg/{version.version_string()}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n"
            "Cache-Control: no-store\r\n"
            "Allow: GET, HEAD\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == b"HEAD" else text)


def _read(client: socket.socket, end: float) -> bytes:
    """Return the head of a request; empty: none came in time."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) < SIZE:
        left = end - time.monotonic()
        if left <= 0:
            return b""
        client.settimeout(left)
        some = client.recv(SIZE - len(request))
        if not some:
            return b""
        request += some
    return request


def _listen(address: Address) -> socket.socket:
    """Return a socket that listens.

    :raises OSError: the address cannot be had
    """
    if isinstance(address, str):
        return _listen_at_path(address)
    host, port = address
    ((family, kind, *_, place), *_) = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_at_path(path: str) -> socket.socket:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with contextlib.suppress(FileNotFoundError):
        # Left by a process that was killed. Nothing else is removed.
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener
