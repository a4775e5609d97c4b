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

"""The servers that keep each group: requests to all at once, their clocks."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, once
from nova_sg.backends import clock
from nova_sg.backends.memcached import servers
from nova_sg.backends.memcached.answers import Answers, as_answered
from nova_sg.backends.memcached.local import LocalServer
from nova_sg.backends.memcached.protocol import Command
from nova_sg.liveness.model import ServerOutage

LOG = logging.getLogger(__name__)

# Servers that keep a group.
REPLICAS = 3
# Seconds after which a server's clock is read again.
CLOCK_LIFETIME = 60.0
# Seconds between two checks whether an address leads to one server.
COMPARE_INTERVAL = 600.0
# The uptime of a memcached that has just been started, in seconds.
UPTIME_AT_START = 2.0

Server = servers.RemoteServer | LocalServer


class Replicas:
    """All servers, of which REPLICAS keep each group.

    :param timeout: seconds within which a server has to connect or answer
    :param option: the option that names the servers, for messages
    """

    def __init__(
        self,
        all_servers: list[Server],
        timeout: float,
        option: str = "memcached_servers",
    ) -> None:
        self.servers = all_servers
        self._option = option
        self._timeout = timeout
        # When each server's clock was read, by which connection (a server
        # that was restarted may show another time), and our own clocks then.
        self._clock_read: dict[Server, tuple[float, int, clock.Clocks]] = {}
        # When each server was last compared, monotonic.
        self._compared: dict[Server, float] = {}
        self._warned = once.Once("addresses of memcached servers")

    def of(self, group: str) -> list[Server]:
        """Return the servers that keep a group: the same in each process."""
        if len(self.servers) <= REPLICAS:
            return self.servers

        def rank(server: Server) -> bytes:
            text = f"{server.address}\0{group}".encode()
            return hashlib.sha256(text).digest()

        return sorted(self.servers, key=rank)[:REPLICAS]

    def gather(
        self, futures: Mapping[Any, concurrent.futures.Future]
    ) -> dict:
        """Return the results of the requests that succeed in time.

        :param futures: by server, or by a tuple that begins with the server
        :raises BackendError: no request succeeded
        """
        collected = _Collected(self._timeout)
        collected.wait(futures)
        return collected.results_or_error()

    def execute(
        self,
        commands: Mapping[Any, Command],
        beside: Mapping[Any, Command] | None = None,
    ) -> dict:
        """Have servers execute commands, in one round trip to all of them.

        :param commands: by server, or by a tuple that begins with the server
        :param beside: more of them, by other keys, which may fail
        :returns: the results of all that succeeded in time
        :raises BackendError: none of commands succeeded
        """
        needed = None
        if beside:
            needed, commands = commands, {**commands, **beside}
        # For each server, the keys and the commands.
        by_server: dict[Server, tuple[list[Any], list[Command]]] = {}
        for key, command in commands.items():
            server = key[0] if type(key) is tuple else key
            if server in by_server:
                keys, wanted = by_server[server]
                keys.append(key)
                wanted.append(command)
            else:
                by_server[server] = [key], [command]
        collected = _Collected(self._timeout)
        answers: Answers | None = None
        local: dict[Any, concurrent.futures.Future] = {}
        begun: list[servers.RemoteServer] = []
        try:
            for server, (keys, wanted) in by_server.items():
                if isinstance(server, LocalServer):
                    for key, command in zip(keys, wanted, strict=True):
                        local[key] = server.submit(command)
                elif server.begin(wanted):
                    begun.append(server)
                else:
                    answers = answers or Answers()
                    answers.expect(server, wanted)
            for server in as_answered(begun, self._timeout):
                keys, wanted = by_server[server]
                # It is no longer in use, whatever happens.
                begun.remove(server)
                try:
                    results = server.finish(wanted)
                except exception.BackendError as error:
                    collected.add(server, error)
                    continue
                if results is None:
                    answers = answers or Answers()
                    answers.expect(server, wanted)
                else:
                    collected.add_all(keys, results)
        finally:
            for server in begun:
                server.abandon()
        if answers is not None:
            left = collected.seconds_left()
            for server, results in answers.wait(left).items():
                if isinstance(results, list):
                    collected.add_all(by_server[server][0], results)
                else:
                    collected.add(server, results or _no_answer(server))
        collected.wait(local)
        return collected.results_or_error(needed)

    def read_clocks(
        self, replicas: list[Server], anew: bool = False
    ) -> None:
        """Read the servers' clocks where that is due.

        It is due after a while, after a new connection, and after our own
        clocks have leapt: this process may have been suspended.

        :param anew: read all clocks
        """
        now = time.monotonic()
        ours = clock.Clocks.read()
        due = []
        for server in replicas:
            known = self._clock_read.get(server)
            if (
                anew
                or known is None
                or known[1] != server.generation
                or now - known[0] >= CLOCK_LIFETIME
                or ours.leapt_since(known[2])
            ):
                due.append(server)
        if not due:
            return
        try:
            read = self.gather({server: server.stats() for server in due})
        except exception.BackendError:
            return
        for server in read:
            if server in self._clock_read:
                # Not in a process that ends at once.
                self._compare(server, now)
            self._clock_read[server] = now, server.generation, ours

    def _compare(self, server: Server, now: float) -> None:
        """Begin to check, now and then, whether there is one server."""
        last = self._compared.get(server)
        if last is not None and now - last < COMPARE_INTERVAL:
            return
        self._compared[server] = now
        server.compare(1).add_done_callback(
            functools.partial(self._take_comparison, server)
        )

    def _take_comparison(
        self, server: Server, request: concurrent.futures.Future
    ) -> None:
        if request.cancelled() or request.exception() is not None:
            return
        if request.result() and self._warned.first(server.address):
            LOG.warning(
                "memcached at %(address)s: %(result)s. Each process sees "
                "another part of each group, and living members may go down. "
                "Name each server by itself in %(option)s",
                {
                    "address": server.address,
                    "result": request.result(),
                    "option": self._option,
                },
            )

    def restarted(
        self, replicas: list[Server], since: float
    ) -> ServerOutage | None:
        """Return the time in which reports were lost by restarts.

        :param since: the last report of any member, monotonic
        :returns: None: a server has run since then, or does not answer
        """
        asked = time.monotonic()
        found = self.gather({server: server.stats() for server in replicas})
        uptimes = [stats.get("uptime") for stats in found.values()]
        if len(found) < len(replicas) or None in uptimes:
            return None
        started = [
            # Uptimes are whole seconds.
            min(asked, asked - float(uptime) + UPTIME_AT_START)
            for uptime in uptimes
        ]
        if min(started) <= since:
            return None
        return ServerOutage(
            since, max(started), "it was restarted, which loses all reports"
        )


class _Collected:
    """The results of requests to several servers.

    :param timeout: seconds within which a server has to connect or answer
    """

    def __init__(self, timeout: float) -> None:
        self._give_up = time.monotonic() + timeout * 2
        self._results: dict[Any, Any] = {}
        self._errors: list[str] = []

    def add(self, key: Any, result: Any) -> None:
        """Add a result, or a BackendError."""
        if isinstance(result, exception.BackendError):
            self._errors.append(str(result))
        else:
            self._results[key] = result

    def add_all(self, keys: Iterable[Any], results: Iterable[Any]) -> None:
        """Add the results of one server, in the order of their keys."""
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, exception.BackendError):
                self._errors.append(str(result))
            else:
                self._results[key] = result

    def seconds_left(self) -> float:
        """Return how long to wait for others."""
        return max(0.0, self._give_up - time.monotonic())

    def wait(self, futures: Mapping[Any, concurrent.futures.Future]) -> None:
        """Add the results of those requests that succeed in time."""
        for key, future in futures.items():
            try:
                self._results[key] = future.result(self.seconds_left())
            except exception.BackendError as error:
                self.add(key, error)
            except concurrent.futures.TimeoutError:
                future.cancel()
                self.add(key, _no_answer(_server(key)))

    def results_or_error(self, needed: Iterable[Any] | None = None) -> dict:
        """Return all results.

        :param needed: the keys of which one has to be there; None: all keys
        :raises BackendError: there are errors alone
        """
        found: Iterable[Any] = self._results
        if needed is not None:
            found = self._results.keys() & set(needed)
        if self._errors and not found:
            raise exception.BackendError("; ".join(sorted(set(self._errors))))
        return self._results


def _server(key: Any) -> Server:
    return key[0] if isinstance(key, tuple) else key


def _no_answer(server: Server) -> exception.BackendError:
    return exception.BackendError(f"memcached at {server.address}: no answer")


def now(server: Server) -> float:
    """Return the server's time, or ours until its clock has been read."""
    if not server.clock.synced:
        return time.time()
    return server.clock.from_monotonic(time.monotonic())
