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

"""What the monitor shows: every group, its members, the last transitions.

One thread for each group follows it and publishes what changes. Requests are
answered from the memory of these threads, so no client waits for a backend.
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
from nova_sg.monitor import event_streams
from nova_sg.servicegroup import events, process
from nova_sg.servicegroup.shared import Shared

LOG = logging.getLogger(__name__)

# Seconds between two searches for new groups.
DISCOVERY = 5.0
# Seconds between two searches while there is no group.
FIRST_DISCOVERY = 1.0
# Transitions that are kept.
TIMELINE = 200
# Refreshes of each backend of a group whose times are kept.
RECENT = 60

#: What a reader is shown of a verdict: its state, or its cause where that
#: says more.
KINDS = (
    *("up", "draining", "unwell", "stopped", "held"),
    *("down", "forced", "left", "unknown"),
)
NOT_YET = "no backend has answered yet"
_BY_CAUSE = {
    "forced-down": "forced",
    "left": "left",
    "held": "held",
    "draining": "draining",
    "unwell": "unwell",
    "stopped": "stopped",
    "restarting": "stopped",
}


def kind(state: str, cause: str) -> str:
    """Return which of KINDS a member with this verdict is."""
    return _BY_CAUSE.get(cause, state)


class FollowedGroup:
    """One group: what was published of it, and the thread that follows it."""

    def __init__(
        self, name: str, overview: Overview, shared: Shared
    ) -> None:
        self.name = name
        self.view = shared.view(name)
        #: Which of KINDS each member is, by its name.
        self.kinds: dict[str, str] = {}
        #: The failure domains of the members that have one, by their names.
        self.domains: dict[str, str] = {}
        # By driver: seconds that the last refreshes took, None for one that
        # failed; and how many refreshes there were.
        self._recent: dict[str, collections.deque] = {}
        self._refreshes: dict[str, int] = {}
        self._overview = overview
        self._verdicts: Any = None
        self._watch: events.Subscription | None = None
        self._stopped = False
        self._changed = threading.Event()
        threading.Thread(
            target=self._run, name=f"nova-sg-monitor-{name}", daemon=True
        ).start()

    def stop(self) -> None:
        self._stopped = True
        self._changed.set()

    def counts(self) -> dict[str, int]:
        """Return how many members there are of each kind."""
        counted = collections.Counter(self.kinds.values())
        return {one: counted[one] for one in KINDS}

    def backends(self) -> list[dict[str, Any]]:
        """Return how each backend answers about this group."""
        return [_describe_backend(one) for one in self.view.refresh_statuses()]

    def disagreements(self) -> list[dict[str, Any]]:
        """Return how drivers disagree, or disagreed, about members."""
        return [
            one._asdict()
            for one in process.all_disagreements()
            if one.group == self.name and one.total
        ]

    def recent(self) -> list[list[float | None]]:
        """Return the seconds that the last refreshes took, by backend."""
        return [list(times) for times in self._recent.values()]

    def _run(self) -> None:
        failure = trouble_log.TroubleLog()
        while not self._stopped:
            try:
                if self._watch is None:
                    # This makes the first refresh, which may take long.
                    self._watch = self.view.watch(self._happened)
                with self._overview.lock:
                    self._publish()
                failure.ends()
            except Exception:
                if failure.begins():
                    LOG.exception(
                        "Cannot follow the group %s. What is shown of it may "
                        "be old; the next refresh tries again",
                        self.name,
                    )
            self._changed.wait(CONF.servicegroup.view_refresh_interval)
            self._changed.clear()
        if self._watch is not None:
            self._watch.cancel()

    def _happened(self, event: events.Event) -> None:
        if not self._stopped:
            self._overview.happened(event)
            self._changed.set()

    def _publish(self) -> None:
        verdicts = self.view.verdicts()
        if verdicts is not self._verdicts:
            self._verdicts = verdicts
            self._publish_members(
                {
                    host: kind(verdict.state, verdict.cause)
                    for host, verdict in verdicts.items()
                },
                self.view.domains(),
            )
        refreshed = [self._is_new(one) for one in self.view.refresh_statuses()]
        if any(refreshed):
            self._overview.streams.publish(
                "backends",
                {
                    "group": self.name,
                    "backends": self.backends(),
                    "recent": self.recent(),
                    "disagreements": self.disagreements(),
                },
            )

    def _is_new(self, status: metrics.RefreshStatus) -> bool:
        """Return whether there was a refresh since the last call.

        The seconds that it took are kept.
        """
        name = status.driver
        recent = self._recent.setdefault(
            name, collections.deque(maxlen=RECENT)
        )
        if status.refreshes == self._refreshes.get(name, 0):
            return False
        self._refreshes[name] = status.refreshes
        recent.append(_rounded(status.seconds) if status.answering else None)
        return True

    def _publish_members(
        self, kinds: dict[str, str], domains: dict[str, str]
    ) -> None:
        old, self.kinds = self.kinds, kinds
        before, self.domains = self.domains, domains
        changed = {
            host: one for host, one in kinds.items() if old.get(host) != one
        }
        gone = [host for host in old if host not in kinds]
        moved: dict[str, str | None] = {}
        if domains != before:
            moved = {
                host: domains.get(host)
                for host in kinds
                if domains.get(host) != before.get(host)
            }
        if changed or gone or moved:
            self._overview.streams.publish(
                "members",
                {
                    "group": self.name,
                    "changed": changed,
                    "gone": gone,
                    "domains": moved,
                },
            )


class Overview:
    """Every group that has members."""

    def __init__(self) -> None:
        #: Held while something changes and is published.
        self.lock = threading.RLock()
        self.streams = event_streams.EventStreams(self.lock, self.state)
        self._groups: dict[str, FollowedGroup] = {}
        self._timeline: collections.deque = collections.deque(maxlen=TIMELINE)
        self._number = 0
        # Why the names of the groups are not known; None: they are known.
        self._trouble: str | None = NOT_YET
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to follow every group."""
        threading.Thread(
            target=self._discover,
            args=(self._stop,),
            name="nova-sg-monitor-groups",
            daemon=True,
        ).start()

    def restart(self) -> None:
        """Follow the groups anew, with the reloaded configuration."""
        with self.lock:
            groups, self._groups = self._groups, {}
            for group in groups.values():
                group.stop()
            self._trouble = NOT_YET
            self._stop.set()
            self._stop = threading.Event()
        self.start()

    def stop(self) -> None:
        """Stop following, and end all streams of events."""
        self._stop.set()
        self.streams.close()
        for group in list(self._groups.values()):
            group.stop()

    # -- what is shown

    def groups(self) -> list[FollowedGroup]:
        """Return the groups, sorted by name."""
        return [group for _, group in sorted(self._groups.items())]

    def group(self, name: str) -> FollowedGroup | None:
        """Return a group; None: there is none of that name."""
        return self._groups.get(name)

    def state(self) -> dict[str, Any]:
        """Return everything that the status page shows."""
        with self.lock:
            return {
                "at": events.iso(datetime.datetime.now(datetime.UTC)),
                "service_down_time": CONF.service_down_time,
                "groups": [
                    {
                        "group": group.name,
                        "members": _by_kind(group.kinds),
                        "domains": group.domains,
                        "backends": group.backends(),
                        "recent": group.recent(),
                        "disagreements": group.disagreements(),
                    }
                    for group in self.groups()
                ],
                "transitions": list(self._timeline),
            }

    def not_ready(self) -> Iterator[str]:
        """Yield, for people, what is not known yet, or no longer."""
        if self._trouble is not None:
            yield f"The groups are not known: {self._trouble}"
        for group in self.groups():
            refresh_statuses = group.view.refresh_statuses()
            if not any(one.refreshes for one in refresh_statuses):
                yield f"The group {group.name} has not been refreshed yet"
            elif not any(_is_known(one) for one in refresh_statuses):
                yield (
                    f"The state of the group {group.name} is not known: "
                    f"{refresh_statuses[0].trouble}"
                )

    def happened(self, event: events.Event) -> None:
        """Add a transition to the timeline."""
        fields = events.as_dict(event)
        with self.lock:
            self._number += 1
            fields["number"] = self._number
            self._timeline.append(fields)
            self.streams.publish("transition", fields)

    # -- which groups there are

    def _discover(self, stop: threading.Event) -> None:
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
                    LOG.exception(
                        "Cannot ask for the groups. Those that are known are "
                        "followed; new ones are not found until it works"
                    )
                trouble = exception.describe(error)
            if stop.is_set():
                return
            self._trouble = trouble
            if trouble is None:
                self._follow(shared, names)
            # A reader of an empty page waits for the first group.
            stop.wait(DISCOVERY if self._groups else FIRST_DISCOVERY)

    def _follow(self, shared: Shared, names: set[str]) -> None:
        with self.lock:
            if names == set(self._groups):
                return
            for name in set(self._groups) - names:
                self._groups.pop(name).stop()
            for name in names - set(self._groups):
                self._groups[name] = FollowedGroup(name, self, shared)
            self.streams.publish_state()


def _by_kind(kinds: dict[str, str]) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = {}
    for host, one in kinds.items():
        hosts.setdefault(one, []).append(host)
    return hosts


def _describe_backend(status: metrics.RefreshStatus) -> dict[str, Any]:
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


def _is_known(status: metrics.RefreshStatus) -> bool:
    """Return whether verdicts stand: the last answer is not too old."""
    return (
        status.answered_at is not None
        and time.monotonic() - status.answered_at <= CONF.service_down_time
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
