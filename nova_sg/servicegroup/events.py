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

"""Events: what happens to members, and the subscriptions to it."""

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
UNWELL = "unwell"
STOPPED = "stopped"
#: Not of a member: nova-sg watch does nothing upon down events for now.
SUSPENDED = "suspended"

#: The reason and the cause of the event that a member was removed.
REMOVED = "removed", "removed"


class Event(NamedTuple):
    """Something happened to a member."""

    #: joined (a new member), up (up again), down, left (on purpose, or
    #: removed by an operator). Of a member that is still up: held (silent with
    #: most of the group), draining (about to stop), unwell (it cannot do its
    #: work) or stopped (it left, or its process ended, and it may be starting
    #: again). The next event after these is up, down or left.
    type: str
    group: str
    host: str
    topic: str | None
    binary: str | None
    #: When this observer noticed, UTC.
    at: datetime.datetime
    #: The member's last report, UTC; None: no report is known.
    last_seen: datetime.datetime | None
    #: Why, as a sentence.
    reason: str
    #: Why, in one word: the verdict's cause, or "removed".
    cause: str = ""
    #: The member's failure domain, such as its rack; None: it is not known.
    domain: str | None = None
    #: Whether an operator disabled it: no new work is placed there.
    disabled: bool = False


def change(
    was: model.Verdict | None, now: model.Verdict
) -> str | None:
    """Return the type of event that a new verdict makes; None: no event.

    If a member's state becomes unknown, there is no event, as there is nothing
    to act on yet. The verdict after that may be one.

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


# Verdicts of members that are up, but do not simply report.
_STILL_UP = {
    model.HELD: HELD,
    model.DRAINING: DRAINING,
    model.UNWELL: UNWELL,
    model.STOPPED: STOPPED,
    model.RESTARTING: STOPPED,
}


def iso(moment: datetime.datetime | None) -> str | None:
    """Write a UTC moment in ISO 8601, to the millisecond."""
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_dict(event: Event) -> dict[str, Any]:
    """Return an event as a dict for JSON."""
    fields = event._asdict()
    for name in ("at", "last_seen"):
        fields[name] = iso(fields[name])
    fields["failure_domain"] = fields.pop("domain")
    return fields


#: How many events wait at most for a callback that is slow.
QUEUE = 10_000


class Subscription:
    """A subscription: its callback is called for each event until cancelled.

    The callback runs on a thread of its own (a green one in a green process),
    so that a slow one delays nothing else. It gets the events one at a time
    and in order. If QUEUE events wait, those are dropped after which there is
    a later event of the same member; if that is not enough, also the oldest
    quarter. So in the end the callback knows the newest state.
    """

    def __init__(
        self,
        group: str,
        callback: Callable[[Event], None],
        on_cancel: Callable[[Subscription], None],
    ) -> None:
        self.group = group
        self._callback = callback
        self._on_cancel = on_cancel
        self._changed = threading.Condition()
        self._waiting: collections.deque[Event] = collections.deque()
        self._cancelled = False
        # Whether it has been logged that events were dropped.
        self._told = False
        self._thread = threading.Thread(
            target=self._run, name=f"nova-sg-watch-{group}", daemon=True
        )
        self._thread.start()

    def put(self, event: Event) -> None:
        """Add an event for the callback."""
        dropped = 0
        with self._changed:
            if len(self._waiting) >= QUEUE:
                dropped = self._drop()
            self._waiting.append(event)
            self._changed.notify()
        if dropped and not self._told:
            self._told = True
            LOG.warning(
                "A callback for events of the group %(group)s is too slow: "
                "%(number)d events wait for it. Of each member only the "
                "newest event is kept, the others are dropped",
                {"group": self.group, "number": QUEUE},
            )

    def _drop(self) -> int:
        """Make room; return how many events were dropped."""
        before = len(self._waiting)
        # The last event of each member, in order.
        newest: dict[str, Event] = {}
        for event in self._waiting:
            newest.pop(event.host, None)
            newest[event.host] = event
        kept = list(newest.values())
        if len(kept) >= QUEUE:
            # There are too many members.
            kept = kept[len(kept) // 4 :]
        self._waiting = collections.deque(kept)
        return before - len(kept)

    def cancel(self) -> None:
        """End the subscription; does not wait for a call under way."""
        self._on_cancel(self)
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def _next(self) -> Event | None:
        """Wait for an event; None: cancelled, and no event is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._cancelled)
            if not self._waiting:
                return None
            if len(self._waiting) == 1:
                # It has caught up; if it falls behind again, that is logged.
                self._told = False
            return self._waiting.popleft()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            try:
                self._callback(event)
            except Exception:
                LOG.exception(
                    "A callback for events of the group %s failed; it stays "
                    "subscribed",
                    self.group,
                )


class Subscriptions:
    """The subscriptions to the events of one group."""

    def __init__(self, group: str) -> None:
        self._group = group
        # Replaced as a whole, so tell() needs no lock.
        self._all: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def add(
        self,
        callback: Callable[[Event], None],
        on_cancel: Callable[[], None],
    ) -> Subscription:
        """Call callback(event) for each event from now on.

        :param on_cancel: called once the subscription is cancelled
        """

        def remove(watch: Subscription) -> None:
            with self._lock:
                self._all = tuple(w for w in self._all if w is not watch)
            on_cancel()

        watch = Subscription(self._group, callback, remove)
        with self._lock:
            self._all = (*self._all, watch)
        return watch

    def tell(self, told: Iterable[Event]) -> None:
        """Add events to all subscriptions."""
        for event in told:
            for watch in self._all:
                watch.put(event)

    def cancel(self) -> None:
        """End all subscriptions."""
        for watch in self._all:
            watch.cancel()
