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

"""A memcached server: what it is asked and told.

Each operation returns a future, which fails with BackendError. An operation
may be executed twice; that makes no difference.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from nova_sg.backends import clock
from nova_sg.backends.memcached import (
    channel,
    connection,
    lookup,
    protocol,
    values,
)
from nova_sg.backends.memcached.client import Client, NoStatistics
from nova_sg.backends.memcached.protocol import Command, Connection

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
_CLOSED = (
    "the server closed the connection: does it want {}, or does it refuse "
    "this host?"
)
_TLS = "TLS (memcached -Z, [cache] tls_enabled)"
# By TLS 1.3 it says so after the handshake, or just closes.
_CERTIFICATE = "a certificate of this host ([cache] tls_certfile)"


class RemoteServer(channel.Channel):
    """One memcached server. The arguments are those of a Channel."""

    def __init__(
        self,
        address: str,
        timeout: float,
        tls: connection.Tls | None = None,
        login: connection.Login | None = None,
    ) -> None:
        super().__init__(address, timeout, tls, login)
        self.clock = clock.BackendClock()

    def submit(self, command: Command) -> Future:
        """Have a command executed."""
        future: Future = Future()
        self.submit_all(
            [command],
            future.set_running_or_notify_cancel,
            lambda result: channel.set_result(
                future, result[0] if isinstance(result, list) else result
            ),
        )
        return future

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

        return self.put_dialogue(get)

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
            raise self.error("the line was not added")

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
            raise self.error("other processes keep changing the value")

        return self._submit(exchange)

    def stats(self) -> Future:
        """Return the server's statistics, and set its clock by them."""

        def stats(used: Connection) -> dict[str, str]:
            sent = time.monotonic()
            found = self._statistics(used)
            if found is None:
                self.refused = _NO_STATISTICS
                raise self.error(_NO_STATISTICS)
            self.clock.sample(
                sent, time.monotonic(), float(found["time"]), resolution=1.0
            )
            self.refused = ""
            return found

        return self.put_dialogue(stats, always=True)

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
        used = self.connect()
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
                targets = self.lookup.targets(self.timeout)
            tried = [used] * attempts + [t for t in targets if t != used]
            for target in tried[: attempts + 8]:
                try:
                    with self.open(target) as link:
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
                    f"{lookup.show(used)} and {lookup.show(target)}, the "
                    "addresses of its name, answer as different servers"
                )
            return ""

        return self._submit(compare)

    def _submit(self, work: Callable[[Client], Any]) -> Future:
        """Have the server's thread do something by python-memcached."""
        return self.put_dialogue(lambda used: work(Client(used.link)))
