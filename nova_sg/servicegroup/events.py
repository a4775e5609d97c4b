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

"""What happens to members, and telling those who asked."""

from __future__ import annotations

import datetime
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg.servicegroup import detector

LOG = logging.getLogger(__name__)

JOINED = "joined"
UP = "up"
DOWN = "down"
LEFT = "left"
HELD = "held"

#: The reason and the cause of an event of somebody who is no longer a member.
REMOVED = "removed", "removed"


class Event(NamedTuple):
    """Something happened to a member."""

    #: joined (a new member), up (back again), down, left (on purpose, or
    #: removed by an operator), or held (silent with most of the group, and
    #: still up; what follows is up, down or left).
    type: str
    group: str
    host: str
    topic: str | None
    binary: str | None
    #: When this observer noticed, UTC.
    at: datetime.datetime
    #: The member's last report, UTC; None: no report is known.
    last_seen: datetime.datetime | None
    #: Why, in words.
    reason: str
    #: The same in one word: the verdict's cause, or "removed".
    cause: str = ""


def change(
    was: detector.Verdict | None, now: detector.Verdict
) -> str | None:
    """Return the type of event that a new verdict is; None: it is none.

    :param was: the verdict before; None: there was no such member
    """
    if was is None:
        return JOINED
    if was is now:
        return None
    if now is detector.HELD:
        return HELD
    if was.state == now.state and was is not detector.HELD:
        return None
    if now.state == detector.UP:
        return JOINED if was is detector.LEFT else UP
    return LEFT if now is detector.LEFT else DOWN


def iso(moment: datetime.datetime | None) -> str | None:
    """Write a UTC moment in ISO 8601, to the millisecond."""
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_dict(event: Event) -> dict[str, Any]:
    """Return an event as its JSON has it."""
    fields = event._asdict()
    for name in ("at", "last_seen"):
        fields[name] = iso(fields[name])
    return fields


class Watch:
    """A subscription: calls back for every event until cancelled.

    The callback runs on a thread of its own (a green one in a green
    process), so that a slow one delays nobody else; events come to it one at
    a time and in order.
    """

    def __init__(
        self,
        group: str,
        callback: Callable[[Event], None],
        on_cancel: Callable[[Watch], None],
    ) -> None:
        self.group = group
        self._callback = callback
        self._on_cancel = on_cancel
        self._queue: queue.Queue = queue.Queue()
        self._thread = threading.Thread(
            target=self._run, name=f"nova-sg-watch-{group}", daemon=True
        )
        self._thread.start()

    def put(self, event: Event) -> None:
        """Have the callback called with event, soon."""
        self._queue.put(event)

    def cancel(self) -> None:
        """End the subscription. Does not wait for a call under way."""
        self._on_cancel(self)
        self._queue.put(None)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._callback(event)
            except Exception:
                LOG.exception(
                    "A callback that watches the group %s failed; it stays "
                    "subscribed",
                    self.group,
                )


class Watches:
    """Those who watch one group, and what they are told."""

    def __init__(self, group: str, lock: AbstractContextManager) -> None:
        """Begin with nobody.

        :param lock: held by whoever adds to it or tells, so that nobody
            misses what happens, or hears of what came before
        """
        self._group = group
        self._lock = lock
        self._all: list[Watch] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, callback: Callable[[Event], None]) -> Watch:
        """Have callback called from now on."""
        watch = Watch(self._group, callback, self._remove)
        self._all.append(watch)
        return watch

    def _remove(self, watch: Watch) -> None:
        with self._lock:
            if watch in self._all:
                self._all.remove(watch)

    def tell(self, told: Iterable[Event]) -> None:
        """Have all callbacks called with each of the events."""
        for event in told:
            for watch in self._all:
                watch.put(event)

    def cancel(self) -> None:
        """End all subscriptions."""
        for watch in list(self._all):
            watch.cancel()
