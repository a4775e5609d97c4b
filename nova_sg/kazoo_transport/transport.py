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

"""The functions of nova_sg.zookeeper that evzookeeper calls, by kazoo.

Their arguments, results and exceptions are those of nova_sg/zookeeper/api.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kazoo import version

from nova_sg.kazoo_transport import client, convert, sessions
from nova_sg.zookeeper import constants
from nova_sg.zookeeper import convert as texts

Watcher = sessions.Completion | None
Completion = sessions.Completion | None


class Sasl(NamedTuple):
    """What to authenticate with by SASL, mechanism DIGEST-MD5."""

    username: str
    password: str


class KazooTransport:
    """Begins sessions with the same TLS and SASL.

    :param encrypt: begins TLS on a connection to a host, and returns the
        encrypted connection; None: no TLS
    :param sasl: None: no SASL; otherwise pure-sasl has to be installed
    """

    version = version.__version__
    #: It needs no pauses between attempts to connect.
    paces_itself = True

    def __init__(
        self,
        encrypt: client.Encrypt | None = None,
        sasl: Sasl | None = None,
    ) -> None:
        self._encrypt = encrypt
        self._sasl = sasl

    # Sessions.

    def init(
        self,
        host: str,
        watcher: Watcher = None,
        recv_timeout: int = 10000,
        clientid: tuple[int, Any] = (-1, ""),
    ) -> sessions.Handle:
        """Begin a session. It connects, and reconnects, in the background.

        :param host: as for kazoo: an IPv6 address has brackets
        """
        number, password = clientid
        session = sessions.Session(
            host,
            watcher,
            recv_timeout,
            None
            if number == -1
            else (number, texts.to_bytes(password)[:16].ljust(16, b"\0")),
            self._encrypt,
            # A copy, as kazoo changes it.
            self._sasl and {"mechanism": "DIGEST-MD5", **self._sasl._asdict()},
        )
        session.start()
        return session.handle

    def close(self, handle: int, *, timeout: float | None = None) -> int:
        sessions.find(handle).close(timeout)
        return constants.OK

    def state(self, handle: int) -> int:
        return sessions.find(handle).state()

    def recv_timeout(self, handle: int) -> int:
        return sessions.find(handle).timeout

    def connected_host(self, handle: int) -> str | None:
        """The address and the port of the connected server."""
        return sessions.find(handle).connected_host()

    def client_id(self, handle: int) -> tuple[int, str]:
        return sessions.find(handle).client_id()

    def problem(self, handle: int) -> str | None:
        """Why the last attempt to connect failed; None: it succeeded."""
        return sessions.find(handle).problem

    def add_auth(
        self,
        handle: int,
        scheme: str,
        cert: Any,
        completion: Completion = None,
    ) -> int:
        sessions.find(handle).add_auth(
            convert.to_text(scheme), convert.to_text(cert), completion
        )
        return constants.OK

    @staticmethod
    def zerror(rc: int) -> str:
        return convert.text(rc)

    # Requests.

    def create(
        self,
        handle: int,
        path: Any,
        value: Any,
        acl: list[dict[str, Any]],
        flags: int = 0,
        *,
        timeout: float | None = None,
    ) -> str:
        znode, data = convert.to_path(path), texts.to_bytes(value)
        entries = convert.to_acl(acl)
        return _ask(
            handle,
            timeout,
            lambda one: one.create_async(
                znode,
                data,
                entries,
                ephemeral=bool(flags & constants.EPHEMERAL),
                sequence=bool(flags & constants.SEQUENCE),
            ),
        )

    def delete(
        self,
        handle: int,
        path: Any,
        version: int = -1,
        *,
        timeout: float | None = None,
    ) -> int:
        znode = convert.to_path(path)
        _ask(handle, timeout, lambda one: one.delete_async(znode, version))
        return constants.OK

    def exists(
        self,
        handle: int,
        path: Any,
        watcher: Watcher = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, int] | None:
        znode = convert.to_path(path)
        watch = sessions.find(handle).watch(watcher)
        return _ask(
            handle,
            timeout,
            lambda one: one.exists_async(znode, watch),
            convert.from_stat,
        )

    def get(
        self,
        handle: int,
        path: Any,
        watcher: Watcher = None,
        *,
        timeout: float | None = None,
    ) -> tuple[str, dict[str, int]]:
        znode = convert.to_path(path)
        watch = sessions.find(handle).watch(watcher)
        return _ask(
            handle,
            timeout,
            lambda one: one.get_async(znode, watch),
            lambda found: (
                convert.from_data(found[0]),
                convert.from_stat(found[1]),
            ),
        )

    def get_children(
        self,
        handle: int,
        path: Any,
        watcher: Watcher = None,
        *,
        timeout: float | None = None,
    ) -> list[str]:
        znode = convert.to_path(path)
        watch = sessions.find(handle).watch(watcher)
        return _ask(
            handle, timeout, lambda one: one.get_children_async(znode, watch)
        )

    def set(
        self,
        handle: int,
        path: Any,
        value: Any,
        version: int = -1,
        *,
        timeout: float | None = None,
    ) -> int:
        self.set2(handle, path, value, version, timeout=timeout)
        return constants.OK

    def set2(
        self,
        handle: int,
        path: Any,
        value: Any,
        version: int = -1,
        *,
        timeout: float | None = None,
    ) -> dict[str, int]:
        znode, data = convert.to_path(path), texts.to_bytes(value)
        return _ask(
            handle,
            timeout,
            lambda one: one.set_async(znode, data, version),
            convert.from_stat,
        )

    def get_acl(
        self, handle: int, path: Any, *, timeout: float | None = None
    ) -> tuple[dict[str, int], list[dict[str, Any]]]:
        znode = convert.to_path(path)
        return _ask(
            handle,
            timeout,
            lambda one: one.get_acls_async(znode),
            lambda found: (
                convert.from_stat(found[1]),
                convert.from_acl(found[0]),
            ),
        )

    def set_acl(
        self,
        handle: int,
        path: Any,
        version: int,
        acl: list[dict[str, Any]],
        *,
        timeout: float | None = None,
    ) -> int:
        znode, entries = convert.to_path(path), convert.to_acl(acl)
        _ask(
            handle,
            timeout,
            lambda one: one.set_acls_async(znode, entries, version),
        )
        return constants.OK

    def async_(
        self, handle: int, path: Any, completion: Completion = None
    ) -> int:
        """Make this session's server catch up with the leader."""
        znode = convert.to_path(path)
        session = sessions.find(handle)
        session.submit(
            sessions.Request(
                session,
                lambda one: one.sync_async(znode),
                completion=completion,
            )
        )
        return constants.OK


def _ask(
    handle: int,
    timeout: float | None,
    send: Callable[[Any], Any],
    convert_result: Callable[[Any], Any] | None = None,
) -> Any:
    session = sessions.find(handle)
    request = sessions.Request(session, send, convert_result)
    return session.submit(request).wait(timeout)
