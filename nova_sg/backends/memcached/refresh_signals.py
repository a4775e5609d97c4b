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

"""Refresh signals: a small value for each group that observers poll.

A member with a crash guard, or with a restart_grace, sees to it that its group
has the value. A guard replaces it when it has withdrawn the member, and a
member when it begins to drain, or leaves. An observer that follows the group,
and found the value in its last refresh, polls it several times a second, and
refreshes at once when it has changed. The signal decides nothing: where it is
lost, or written over by another program, the next refresh comes in its time.
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

# A longer value is no signal, and would be expensive to poll.
MAX_LENGTH = 100
# Refreshes that follow a signal take this share of the time at most.
DUTY_CYCLE = 0.1


class _GroupSignal:
    """The signal of one group."""

    def __init__(self) -> None:
        #: What to call when a refresh is due.
        self.callbacks: list[Callable[[], None]] = []
        #: By server: the value that it had last.
        self.last_values: dict[Server, bytes] = {}
        #: When the last refresh ended, monotonic, and how long it took.
        self.refreshed_at = float("-inf")
        self.refresh_took = 0.0
        #: Whether the value has changed since the last refresh.
        self.changed = False


class RefreshSignals:
    """Polls the signals of the groups that are followed."""

    def __init__(self, codec: values.Codec) -> None:
        self._codec = codec
        self._lock = threading.Lock()
        self._groups: dict[str, _GroupSignal] = {}
        # By server: the last request.
        self._requests: dict[Server, concurrent.futures.Future] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def new(self, group: str) -> tuple[str, bytes]:
        """Return the key of a group's signal, and a new value for it."""
        key = values.refresh_signal_key(group)
        return key, self._codec.lines(key, [secrets.token_hex(8)])

    def follow(self, group: str, callback: Callable[[], None]) -> None:
        """Call callback() when the signal of a group changes."""
        with self._lock:
            callbacks = self._group(group).callbacks
            if callback not in callbacks:
                callbacks.append(callback)
            self._start()

    def unfollow(self, group: str, callback: Callable[[], None]) -> None:
        """Take follow() back, if there was one."""
        with self._lock:
            callbacks = self._group(group).callbacks
            if callback in callbacks:
                callbacks.remove(callback)

    def refreshed(
        self, group: str, began: float, found: Mapping[Server, bytes | None]
    ) -> None:
        """Take in which values the servers had in a refresh that just ended.

        :param began: when the refresh began, monotonic
        """
        key = values.refresh_signal_key(group)
        with self._lock:
            signal = self._group(group)
            signal.last_values = {
                server: value
                for server, value in found.items()
                if value is not None and self._is_signal(key, value)
            }
            signal.refreshed_at = time.monotonic()
            signal.refresh_took = signal.refreshed_at - began
            # The next poll finds any later change.
            signal.changed = False
            self._start()

    def close(self) -> None:
        """Stop polling."""
        self._closed.set()

    def _group(self, name: str) -> _GroupSignal:
        return self._groups.setdefault(name, _GroupSignal())

    def _is_signal(self, key: str, value: bytes) -> bool:
        if len(value) > MAX_LENGTH:
            return False
        names, refused = self._codec.read_lines(key, value)
        return len(names) == 1 and not refused

    # -- polling

    def _active(self) -> dict[str, _GroupSignal]:
        """Return the groups that are followed and have a signal.

        A group that is no longer refreshed is not polled either.
        """
        recent = time.monotonic() - 2 * max(
            CONF.servicegroup.view_refresh_interval,
            CONF.service_down_time / 4,
        )
        return {
            name: signal
            for name, signal in self._groups.items()
            if signal.callbacks
            and signal.last_values
            and signal.refreshed_at > recent
        }

    def _start(self) -> None:
        if self._thread is None and CONF.memcache.crash_poll_interval:
            if self._active() and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._run,
                    name="nova-sg-mc-refresh-signals",
                    daemon=True,
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            interval = CONF.memcache.crash_poll_interval
            with self._lock:
                active = self._active()
                if not (active and interval) or self._closed.is_set():
                    self._thread = None
                    return
            try:
                self._poll(active)
            except Exception as error:
                # The next refresh starts another thread.
                LOG.debug("Cannot poll memcached's refresh signals: %s", error)
                self._thread = None
                return
            self._closed.wait(interval)

    def _poll(self, groups: Mapping[str, _GroupSignal]) -> None:
        by_server: dict[Server, dict[str, str]] = {}
        for name, signal in groups.items():
            self._call_back(signal)
            for server in list(signal.last_values):
                keys = by_server.setdefault(server, {})
                keys[values.refresh_signal_key(name)] = name
        for server, keys in by_server.items():
            request = self._requests.get(server)
            # A server that has not answered yet is not asked again.
            if request is None or request.done():
                self._requests[server] = request = server.get(keys)
                request.add_done_callback(
                    functools.partial(self._answered, server, keys)
                )

    def _answered(
        self,
        server: Server,
        keys: Mapping[str, str],
        request: concurrent.futures.Future,
    ) -> None:
        """Take in an answer, on the server's thread."""
        if request.cancelled() or request.exception() is not None:
            # Refreshes report the error.
            return
        found = request.result()
        for key, name in keys.items():
            signal, value = self._groups[name], found.get(key)
            last = signal.last_values.get(server)
            if value is None or value == last or last is None:
                continue
            if self._is_signal(key, value):
                signal.last_values[server] = value
                signal.changed = True
                self._call_back(signal)
            else:
                signal.last_values.pop(server, None)

    @staticmethod
    def _call_back(signal: _GroupSignal) -> None:
        """Have the group refreshed, if it is due and not too soon."""
        pause = signal.refresh_took * (1 - DUTY_CYCLE) / DUTY_CYCLE
        if signal.changed and time.monotonic() >= signal.refreshed_at + pause:
            signal.changed = False
            for callback in list(signal.callbacks):
                callback()
