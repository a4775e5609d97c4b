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

"""What is shown: every group, its members, and what happened to them.

A thread a group follows its view and tells the feed what is different; the
questions of clients are answered from what these threads left, so that no
client waits for a backend.
"""

from __future__ import annotations

import collections
import datetime
import threading
import time
from collections.abc import Iterator
from typing import Any

from oslo_log import log as logging

from nova_sg import exception, metrics
from nova_sg import trouble as trouble_log
from nova_sg.conf import CONF
from nova_sg.monitor import feed
from nova_sg.servicegroup import events, process

LOG = logging.getLogger(__name__)

# Seconds between two looks for groups that were not there before.
DISCOVERY = 5.0
# Transitions, and times of looks a group, that are kept.
TIMELINE = 200
RECENT = 60

#: What a member is to a reader, by the verdict's cause where that says more
#: than the state does.
KINDS = ("up", "held", "down", "forced", "left", "unknown")
_BY_CAUSE = {"forced-down": "forced", "left": "left", "held": "held"}


def kind(state: str, cause: str) -> str:
    """Return which of KINDS a member is."""
    return _BY_CAUSE.get(cause, state)


class Group:
    """One group: what was told of it last, and the thread that follows it."""

    def __init__(
        self, name: str, board: Board, shared: process.Shared
    ) -> None:
        self.name = name
        self.view = shared.view(name)
        #: What each member is, by its name.
        self.kinds: dict[str, str] = {}
        # By driver: seconds that the last looks took, None for one that
        # failed; and how many looks there were.
        self._recent: dict[str, collections.deque] = {}
        self._looks: dict[str, int] = {}
        self._board = board
        self._verdicts: Any = None
        self._watch: events.Subscription | None = None
        self._stopped = False
        self._news = threading.Event()
        threading.Thread(
            target=self._run, name=f"nova-sg-monitor-{name}", daemon=True
        ).start()

    def stop(self) -> None:
        self._stopped = True
        self._news.set()

    def counts(self) -> dict[str, int]:
        """Return how many members there are of each kind."""
        counted = collections.Counter(self.kinds.values())
        return {one: counted[one] for one in KINDS}

    def backends(self) -> list[dict[str, Any]]:
        """Return how each backend answers about this group."""
        return [_backend(looking) for looking in self.view.lookings()]

    def disagreements(self) -> list[dict[str, Any]]:
        """Return what drivers disagree, or disagreed, about."""
        return [
            one._asdict()
            for one in process.all_disagreements()
            if one.group == self.name and one.total
        ]

    def recent(self) -> list[list[float | None]]:
        """Return the seconds that the last looks took, by backend."""
        return [list(times) for times in self._recent.values()]

    def _run(self) -> None:
        failure = trouble_log.TroubleLog()
        while not self._stopped:
            try:
                if self._watch is None:
                    # The first look is made here; it may take long.
                    self._watch = self.view.watch(self._happened)
                with self._board.lock:
                    self._tell()
                failure.ends()
            except Exception:
                if failure.begins():
                    LOG.exception("Following the group %s failed", self.name)
            self._news.wait(CONF.servicegroup.view_refresh_interval)
            self._news.clear()
        if self._watch is not None:
            self._watch.cancel()

    def _happened(self, event: events.Event) -> None:
        if not self._stopped:
            self._board.happened(event)
            self._news.set()

    def _tell(self) -> None:
        verdicts = self.view.verdicts()
        if verdicts is not self._verdicts:
            self._verdicts = verdicts
            self._tell_members(
                {
                    host: kind(verdict.state, verdict.cause)
                    for host, verdict in verdicts.items()
                }
            )
        looked = [self._has_looked(one) for one in self.view.lookings()]
        if any(looked):
            self._board.feed.tell(
                "backends",
                {
                    "group": self.name,
                    "backends": self.backends(),
                    "recent": self.recent(),
                    "disagreements": self.disagreements(),
                },
            )

    def _has_looked(self, looking: metrics.RefreshStatus) -> bool:
        """Keep the time of a look that was made since the last time."""
        name = looking.driver
        recent = self._recent.setdefault(
            name, collections.deque(maxlen=RECENT)
        )
        if looking.refreshes == self._looks.get(name, 0):
            return False
        self._looks[name] = looking.refreshes
        recent.append(
            _rounded(looking.seconds) if looking.answering else None
        )
        return True

    def _tell_members(self, kinds: dict[str, str]) -> None:
        old, self.kinds = self.kinds, kinds
        changed = {
            host: one for host, one in kinds.items() if old.get(host) != one
        }
        gone = [host for host in old if host not in kinds]
        if changed or gone:
            self._board.feed.tell(
                "members",
                {"group": self.name, "changed": changed, "gone": gone},
            )


class Board:
    """Every group there is."""

    def __init__(self) -> None:
        #: Held while something changes and is told of.
        self.lock = threading.RLock()
        self.feed = feed.Feed(self.lock, self.state)
        self._groups: dict[str, Group] = {}
        self._timeline: collections.deque = collections.deque(maxlen=TIMELINE)
        self._number = 0
        # Why the names of the groups are not known; None: they are.
        self._trouble: str | None = "nobody has been asked yet"
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to follow every group."""
        threading.Thread(
            target=self._discover, name="nova-sg-monitor-groups", daemon=True
        ).start()

    def restart(self) -> None:
        """Take up what the configuration says now."""
        with self.lock:
            groups, self._groups = self._groups, {}
            for group in groups.values():
                group.stop()
            self._trouble = "nobody has been asked yet"
            self._stop.set()
            self._stop = threading.Event()
        self.start()

    def stop(self) -> None:
        """Follow nobody any longer, and let all clients go."""
        self._stop.set()
        self.feed.close()
        for group in list(self._groups.values()):
            group.stop()

    # -- what is shown

    def groups(self) -> list[Group]:
        """Return the groups, sorted by name."""
        return [group for _, group in sorted(self._groups.items())]

    def group(self, name: str) -> Group | None:
        return self._groups.get(name)

    def state(self) -> dict[str, Any]:
        """Return everything that a status page shows, in short."""
        with self.lock:
            return {
                "at": events.iso(datetime.datetime.now(datetime.UTC)),
                "service_down_time": CONF.service_down_time,
                "groups": [
                    {
                        "group": group.name,
                        "members": _by_kind(group.kinds),
                        "backends": group.backends(),
                        "recent": group.recent(),
                        "disagreements": group.disagreements(),
                    }
                    for group in self.groups()
                ],
                "transitions": list(self._timeline),
            }

    def not_ready(self) -> Iterator[str]:
        """Say what is not known yet, or not any more."""
        if self._trouble is not None:
            yield f"The groups are not known: {self._trouble}"
        for group in self.groups():
            lookings = group.view.lookings()
            if not any(one.refreshes for one in lookings):
                yield f"The group {group.name} has not been looked at yet"
            elif not any(_is_known(one) for one in lookings):
                yield (
                    f"The state of the group {group.name} is not known: "
                    f"{lookings[0].trouble}"
                )

    def happened(self, event: events.Event) -> None:
        """Add a transition to the timeline."""
        fields = events.as_dict(event)
        with self.lock:
            self._number += 1
            fields["number"] = self._number
            self._timeline.append(fields)
            self.feed.tell("transition", fields)

    # -- which groups there are

    def _discover(self) -> None:
        stop = self._stop
        failure = trouble_log.TroubleLog()
        while not stop.is_set():
            trouble = None
            try:
                shared = process.shared()
                names = set(shared.groups())
                failure.ends()
            except exception.NovaSGError as error:
                trouble = str(error)
            except Exception as error:
                if failure.begins():
                    LOG.exception("Asking for the groups failed")
                trouble = exception.describe(error)
            if stop.is_set():
                return
            self._trouble = trouble
            if trouble is None:
                self._follow(shared, names)
            # Whoever looks at an empty page waits for the first group.
            stop.wait(DISCOVERY if self._groups else 1.0)

    def _follow(self, shared: process.Shared, names: set[str]) -> None:
        with self.lock:
            if names == set(self._groups):
                return
            for name in set(self._groups) - names:
                self._groups.pop(name).stop()
            for name in names - set(self._groups):
                self._groups[name] = Group(name, self, shared)
            self.feed.anew()


def _by_kind(kinds: dict[str, str]) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = {}
    for host, one in kinds.items():
        hosts.setdefault(one, []).append(host)
    return hosts


def _backend(status: metrics.RefreshStatus) -> dict[str, Any]:
    age = None
    if status.answered_at is not None:
        age = round(time.monotonic() - status.answered_at, 3)
    seconds = _rounded(status.seconds)
    return {
        "driver": status.driver,
        "answering": status.answering,
        "trouble": status.trouble,
        "last_answer_seconds": age,
        "refresh_seconds": seconds,
        "refreshes": status.refreshes,
        "failures": status.failures,
        "outages": status.outages,
        # The old names, for one release.
        "look_seconds": seconds,
        "looks": status.refreshes,
        "stalls": status.outages,
    }


def _is_known(looking: metrics.RefreshStatus) -> bool:
    """Whether verdicts stand: the last answer is not too old."""
    return (
        looking.answered_at is not None
        and time.monotonic() - looking.answered_at <= CONF.service_down_time
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
