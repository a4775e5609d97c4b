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

"""Hearing of crashes: a small value a group, asked for again and again.

A member with a crash guard sees to it that its group has the value, and the
guard puts another in its place when it has withdrawn the member. Observers
that follow the group, and see in their looks that there is one, ask for it
several times a second; when it is another one they look at once. It decides
nothing: where it is lost, or anybody else's, the next look comes in its time.
"""

from __future__ import annotations

import concurrent.futures
import functools
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from oslo_log import log as logging

from nova_sg.backends.memcached import values
from nova_sg.backends.memcached.replicas import Server
from nova_sg.conf import CONF

LOG = logging.getLogger(__name__)

# What is longer is nobody's of us, and costs to be asked for.
LENGTH = 100
# Looks that are made because of it take at most this part of the time.
DUTY = 0.1


class _Group:
    """What is known of one group."""

    def __init__(self) -> None:
        #: What to call when there is news.
        self.wakes: list[Callable[[], None]] = []
        #: By server: the value that was there last.
        self.known: dict[Server, bytes] = {}
        #: When the last look ended, monotonic, and how long it took.
        self.looked_at = float("-inf")
        self.took = 0.0
        #: Whether somebody has to look.
        self.news = False


class Changes:
    """Asks for the values of the groups that are followed."""

    def __init__(self, codec: values.Codec) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        # By server: the question that it has not answered yet.
        self._asked: dict[Server, concurrent.futures.Future] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def new(self, group: str) -> tuple[str, bytes]:
        """Return a group's key, and a value that nobody has seen yet."""
        key = values.changes_key(group)
        return key, self._codec.lines(key, [secrets.token_hex(8)])

    def follow(self, group: str, wake: Callable[[], None]) -> None:
        """Have wake() called when the value of a group is another one."""
        with self._lock:
            wakes = self._group(group).wakes
            if wake not in wakes:
                wakes.append(wake)
            self._start()

    def unfollow(self, group: str, wake: Callable[[], None]) -> None:
        """Have wake() called no longer, if it is."""
        with self._lock:
            wakes = self._group(group).wakes
            if wake in wakes:
                wakes.remove(wake)

    def looked(
        self, group: str, begun: float, found: Mapping[Server, bytes | None]
    ) -> None:
        """Take in what the servers had as the value when a look began.

        :param begun: when, on the monotonic clock; it has just ended
        """
        key = values.changes_key(group)
        with self._lock:
            one = self._group(group)
            one.known = {
                server: value
                for server, value in found.items()
                if value is not None and self._is_ours(key, value)
            }
            one.looked_at = time.monotonic()
            one.took = one.looked_at - begun
            # What is newer than that, the next answer shows.
            one.news = False
            self._start()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    def _is_ours(self, key: str, value: bytes) -> bool:
        if len(value) > LENGTH:
            return False
        words, refused = self._codec.read_lines(key, value)
        return len(words) == 1 and not refused

    # -- asking

    def _active(self) -> dict[str, _Group]:
        """Return the groups that somebody follows, and that have guards."""
        # Whoever is not asked about the group any more does not look either.
        lately = time.monotonic() - 2 * max(
            CONF.servicegroup.view_refresh_interval,
            CONF.service_down_time / 4,
        )
        return {
            name: one
            for name, one in self._groups.items()
            if one.wakes and one.known and one.looked_at > lately
        }

    def _start(self) -> None:
        if self._thread is None and CONF.memcache.crash_poll_interval:
            if self._active() and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="nova-sg-mc-changes", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            pause = CONF.memcache.crash_poll_interval
            with self._lock:
                active = self._active()
                if not (active and pause) or self._closed.is_set():
                    self._thread = None
                    return
            try:
                self._ask(active)
            except Exception as error:
                # The next look begins anew.
                LOG.debug("Cannot ask for news of crashes: %s", error)
                self._thread = None
                return
            self._closed.wait(pause or 1.0)

    def _ask(self, groups: Mapping[str, _Group]) -> None:
        by_server: dict[Server, list[str]] = {}
        for name, one in groups.items():
            self._wake(one)
            for server in list(one.known):
                by_server.setdefault(server, []).append(name)
        for server, names in by_server.items():
            asked = self._asked.get(server)
            # One that does not answer is not asked the same again.
            if asked is None or asked.done():
                keys = {values.changes_key(name): name for name in names}
                self._asked[server] = asked = server.get(keys)
                asked.add_done_callback(
                    functools.partial(self._answered, server, keys)
                )

    def _answered(
        self,
        server: Server,
        keys: Mapping[str, str],
        done: concurrent.futures.Future,
    ) -> None:
        """Called on the server's thread."""
        if done.cancelled() or done.exception() is not None:
            # The looks say it.
            return
        found = done.result()
        for key, name in keys.items():
            one, value = self._groups[name], found.get(key)
            old = one.known.get(server)
            if value is None or value == old or old is None:
                continue
            if self._is_ours(key, value):
                one.known[server] = value
                one.news = True
                self._wake(one)
            else:
                one.known.pop(server, None)

    @staticmethod
    def _wake(one: _Group) -> None:
        """Have somebody look, if there is news and it is not too soon."""
        rest = one.took * (1 - DUTY) / DUTY
        if one.news and time.monotonic() >= one.looked_at + rest:
            one.news = False
            for wake in list(one.wakes):
                wake()
