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

import collections
import datetime
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from oslo_log import log as logging

from nova_sg.liveness import model

LOG = logging.getLogger(__name__)

JOINED = "joined"
UP = "up"
DOWN = "down"
LEFT = "left"
HELD = "held"
DRAINING = "draining"
STOPPED = "stopped"

#: The reason and the cause of an event of somebody who is no longer a member.
REMOVED = "removed", "removed"


class Event(NamedTuple):
    """Something happened to a member."""

    #: joined (a new member), up (back again), down, left (on purpose, or
    #: removed by an operator), or, of a member that is still up: held (silent
    #: with most of the group), draining (about to stop) or stopped (it left,
    #: or its process ended, and may be starting again). What follows on these
    #: is up, down or left.
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
    was: model.Verdict | None, now: model.Verdict
) -> str | None:
    """Return the type of event that a new verdict is; None: it is none.

    That a member's state is not known any more is no event: a watcher acts on
    "down", and there is nothing to act on yet. What it turns out to be is one.

    :param was: the verdict before; None: there was no such member
    """
    if was is None:
        return JOINED
    if was is now or now.state == model.UNKNOWN:
        return None
    if now in _STILL_UP:
        return _STILL_UP[now]
    if was.state == now.state and was not in _STILL_UP:
        return None
    if now.state == model.UP:
        return JOINED if was is model.LEFT else UP
    if now is model.LEFT and was is not model.STOPPED:
        return LEFT
    return DOWN


# Verdicts of members that are up, and are not as they should be.
_STILL_UP = {
    model.HELD: HELD,
    model.DRAINING: DRAINING,
    model.STOPPED: STOPPED,
    model.RESTARTING: STOPPED,
}


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


#: So many events wait for a callback that is slower than what happens.
QUEUE = 10_000


class Watch:
    """A subscription: calls back for every event until cancelled.

    The callback runs on a thread of its own (a green one in a green
    process), so that a slow one delays nobody else; events come to it one at
    a time and in order. Where QUEUE of them wait, those that a later event of
    the same member has overtaken are dropped, then the oldest quarter: what
    comes to it in the end is the newest state.
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
        self._changed = threading.Condition()
        self._waiting: collections.deque[Event] = collections.deque()
        self._cancelled = False
        # Whether that events were dropped is logged already.
        self._told = False
        self._thread = threading.Thread(
            target=self._run, name=f"nova-sg-watch-{group}", daemon=True
        )
        self._thread.start()

    def put(self, event: Event) -> None:
        """Have the callback called with event, soon."""
        dropped = 0
        with self._changed:
            if len(self._waiting) >= QUEUE:
                dropped = self._drop()
            self._waiting.append(event)
            self._changed.notify()
        if dropped and not self._told:
            self._told = True
            LOG.warning(
                "A callback that watches the group %(group)s is too slow: "
                "%(number)d events wait for it. Older events of the same "
                "member are dropped, only the newest is kept",
                {"group": self.group, "number": QUEUE},
            )

    def _drop(self) -> int:
        """Make room; return how many events were dropped."""
        before = len(self._waiting)
        # The last event of each member, in the order of these.
        newest: dict[str, Event] = {}
        for event in self._waiting:
            newest.pop(event.host, None)
            newest[event.host] = event
        kept = list(newest.values())
        if len(kept) >= QUEUE:
            # There are more members than that.
            kept = kept[len(kept) // 4 :]
        self._waiting = collections.deque(kept)
        return before - len(kept)

    def cancel(self) -> None:
        """End the subscription. Does not wait for a call under way."""
        self._on_cancel(self)
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def _next(self) -> Event | None:
        """Wait for an event; None: it is cancelled, and there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._cancelled)
            if not self._waiting:
                return None
            if len(self._waiting) == 1:
                # It has caught up; to fall behind again is news.
                self._told = False
            return self._waiting.popleft()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            try:
                self._callback(event)
            except Exception:
                LOG.exception(
                    "A callback that watches the group %s failed; it stays "
                    "subscribed",
                    self.group,
                )


class Watches:
    """The subscriptions to the events of one group."""

    def __init__(self, group: str) -> None:
        self._group = group
        # Replaced as a whole: to tell takes no lock.
        self._all: tuple[Watch, ...] = ()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def add(
        self,
        callback: Callable[[Event], None],
        on_cancel: Callable[[], None],
    ) -> Watch:
        """Have callback called from now on.

        :param on_cancel: called once the subscription is cancelled
        """

        def remove(watch: Watch) -> None:
            with self._lock:
                self._all = tuple(w for w in self._all if w is not watch)
            on_cancel()

        watch = Watch(self._group, callback, remove)
        with self._lock:
            self._all = (*self._all, watch)
        return watch

    def tell(self, told: Iterable[Event]) -> None:
        """Have all callbacks called with each of the events."""
        for event in told:
            for watch in self._all:
                watch.put(event)

    def cancel(self) -> None:
        """End all subscriptions."""
        for watch in self._all:
            watch.cancel()
