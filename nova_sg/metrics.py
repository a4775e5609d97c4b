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

"""What this process counts and times, for Prometheus.

The numbers are the process's own, on a registry of their own; none is kept
anywhere else. A child starts at zero after a fork. Nothing here is touched
by a question that is answered from memory (service_is_up).
"""

from __future__ import annotations

import collections
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import prometheus_client
from prometheus_client import core, exposition, registry

from nova_sg import version

# Seconds. What a backend takes on a good day is at the lower end, what it
# takes before a report or a look is given up is at the upper.
BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


class Metrics:
    """Every metric of one process.

    The driver and the group are labels throughout; members never are.
    """

    def __init__(self) -> None:
        self.registry = registry.CollectorRegistry()
        by_group = ["driver", "group"]
        self.reports = prometheus_client.Counter(
            "nova_sg_reports",
            "Reports of members of this process, by outcome: sent, failed",
            [*by_group, "outcome"],
            registry=self.registry,
        )
        self.report_seconds = prometheus_client.Histogram(
            "nova_sg_report_seconds",
            "How long a report took, failed or not",
            by_group,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.looks = prometheus_client.Counter(
            "nova_sg_looks",
            "Looks at a group, by outcome: answered, failed",
            [*by_group, "outcome"],
            registry=self.registry,
        )
        self.look_seconds = prometheus_client.Histogram(
            "nova_sg_look_seconds",
            "How long a look at a group took, failed or not",
            by_group,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.stalls = prometheus_client.Counter(
            "nova_sg_stalls",
            "Times that the backend stopped answering about a group",
            by_group,
            registry=self.registry,
        )
        self.stall_seconds = prometheus_client.Counter(
            "nova_sg_stall_seconds",
            "Seconds without an answer about a group, of stalls that ended",
            by_group,
            registry=self.registry,
        )
        self.transitions = prometheus_client.Counter(
            "nova_sg_transitions",
            "What happened to members, by type: joined, up, down, left, held",
            [*by_group, "type"],
            registry=self.registry,
        )
        self.sessions = prometheus_client.Counter(
            "nova_sg_session_events",
            "What happened to this process's sessions with ZooKeeper",
            ["event"],
            registry=self.registry,
        )
        # By driver and group, which are the labels: no series is there twice,
        # also while a reload has both the old and the new.
        self._looking: weakref.WeakValueDictionary[
            tuple[str, str], Looking
        ] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self.registry.register(_Members(self._looking))
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.Info(
            "nova_sg", "The version of nova_sg", registry=self.registry
        ).info({"version": version.version_string()})

    def reporting(self, driver: str, group: str) -> Reporting:
        """Return what counts the reports to a group."""
        return Reporting(self, driver, group)

    def session_event(self, event: str) -> None:
        """Count what a session's listener is told."""
        self.sessions.labels(event).inc()

    def follow(self, looking: Looking) -> None:
        """Show the members of a group, until unfollow() or a newer one."""
        with self._lock:
            self._looking[looking.driver, looking.group] = looking

    def unfollow(self, looking: Looking) -> None:
        """Do not show the members of a group any longer."""
        key = looking.driver, looking.group
        with self._lock:
            if self._looking.get(key) is looking:
                del self._looking[key]


class Reporting:
    """The reports of one member."""

    def __init__(self, metrics: Metrics, driver: str, group: str) -> None:
        self._seconds = metrics.report_seconds.labels(driver, group)
        # Made now: a series that begins with its first failure has none.
        self._sent = metrics.reports.labels(driver, group, "sent")
        self._failed = metrics.reports.labels(driver, group, "failed")

    def done(self, seconds: float, failed: bool) -> None:
        """Count a report that took so many seconds."""
        self._seconds.observe(seconds)
        (self._failed if failed else self._sent).inc()


class Census:
    """How many members a group has, by verdict."""

    def __init__(
        self,
        numbers: Mapping[tuple[str, str], int],
        oldest: float | None = None,
    ) -> None:
        #: The number of members by state and cause.
        self.numbers = numbers
        #: Seconds since the oldest last report of the members that are up;
        #: None: there is none.
        self.oldest = oldest


def no_census() -> Census:
    """Return the census of a backend whose members are counted elsewhere."""
    return Census({}, None)


class Looking:
    """The looks of one process at one group, and how the backend is.

    :param group: the group
    :param driver: the name of the driver that is asked
    """

    def __init__(self, group: str, driver: str) -> None:
        metrics = current()
        labels = (driver, group)
        self.group = group
        self.driver = driver
        #: The seconds that the last look took; None: there was none.
        self.seconds: float | None = None
        #: When the last one was answered, monotonic; None: none was.
        self.answered_at: float | None = None
        #: Whether the last one was answered.
        self.answering = False
        #: Why not, in words.
        self.trouble = ""
        #: How many looks there were, how many of them failed, and how often
        #: the backend stopped answering.
        self.looks = self.failures = self.stalls = 0
        self._answered = metrics.looks.labels(*labels, "answered")
        self._failed = metrics.looks.labels(*labels, "failed")
        self._seconds = metrics.look_seconds.labels(*labels)
        self._stalls = metrics.stalls.labels(*labels)
        self._stall_seconds = metrics.stall_seconds.labels(*labels)
        self._transitions = {
            kind: metrics.transitions.labels(*labels, kind)
            for kind in (
                *("joined", "up", "down", "left", "held"),
                *("draining", "stopped"),
            )
        }
        self._metrics = metrics

    def show(self, census: Callable[[], Census]) -> None:
        """Have the members of the group among the metrics.

        :param census: called for every scrape; it must not wait
        """
        self.census = census
        self._metrics.follow(self)

    def hide(self) -> None:
        """End what show() began: whoever counts the members is closed.

        The garbage collector may be late: the view and its census refer to
        each other.
        """
        self._metrics.unfollow(self)

    def answered(
        self, begun: float, ended: float, interrupted: bool = False
    ) -> None:
        """Count a look that was answered.

        :param begun: when it began, monotonic
        :param ended: when the answer was there, monotonic
        :param interrupted: whether the backend was away before
        """
        self._took(begun, ended)
        self._answered.inc()
        away = not self.answering or interrupted
        if away and self.answered_at is not None:
            if self.answering:
                self._stalled()
            self._stall_seconds.inc(max(0.0, begun - self.answered_at))
        self.answering, self.trouble = True, ""
        self.answered_at = ended

    def failed(self, begun: float, ended: float, trouble: str) -> None:
        """Count a look that was not answered.

        :param trouble: why not, in words
        """
        self._took(begun, ended)
        self._failed.inc()
        self.failures += 1
        if not self.trouble:
            self._stalled()
        self.answering, self.trouble = False, trouble

    def happened(self, kinds: Iterable[str]) -> None:
        """Count what happened to members, by its type."""
        for kind, count in collections.Counter(kinds).items():
            if kind in self._transitions:
                self._transitions[kind].inc(count)

    def _took(self, begun: float, ended: float) -> None:
        self.looks += 1
        self.seconds = ended - begun
        self._seconds.observe(self.seconds)

    def _stalled(self) -> None:
        self.stalls += 1
        self._stalls.inc()


class _Members(registry.Collector):
    """What is counted when somebody asks, and not before."""

    def __init__(self, looking: Mapping[tuple[str, str], Looking]) -> None:
        self._looking = looking

    def describe(self) -> list[core.Metric]:
        return [*self._families(), *self._disagreeing()]

    def collect(self) -> Iterator[core.Metric]:
        members, oldest, answering, silence = families = self._families()
        now = time.monotonic()
        for one in list(self._looking.values()):
            census = one.census()
            labels = [one.driver, one.group]
            for verdict, number in census.numbers.items():
                members.add_metric([*labels, *verdict], number)
            if census.oldest is not None:
                oldest.add_metric(labels, census.oldest)
            answering.add_metric(labels, one.answering)
            if one.answered_at is not None:
                silence.add_metric(labels, now - one.answered_at)
        yield from families
        yield from self._disagreeing()

    @staticmethod
    def _disagreeing() -> tuple[core.Metric, ...]:
        names = ["group", "primary", "secondary", "kind"]
        total = core.CounterMetricFamily(
            "nova_sg_disagreements",
            "Members that a secondary driver disagreed about for a while",
            labels=names,
        )
        now = core.GaugeMetricFamily(
            "nova_sg_disagreeing_members",
            "Members that a secondary driver disagrees about",
            labels=names,
        )
        # By labels: a reload may have two that compare the same drivers.
        found = {
            tuple(getattr(one, name) for name in names): one
            for one in _disagreements()
        }
        for labels, one in found.items():
            total.add_metric(labels, one.total)
            now.add_metric(labels, one.members)
        return total, now

    @staticmethod
    def _families() -> tuple[core.GaugeMetricFamily, ...]:
        labels = ["driver", "group"]
        return (
            core.GaugeMetricFamily(
                "nova_sg_members",
                "Members by verdict: the state, and the cause of it",
                labels=[*labels, "state", "cause"],
            ),
            core.GaugeMetricFamily(
                "nova_sg_oldest_report_seconds",
                "Age of the oldest last report of the members that are up",
                labels=labels,
            ),
            core.GaugeMetricFamily(
                "nova_sg_backend_answering",
                "Whether the last look at a group was answered",
                labels=labels,
            ),
            core.GaugeMetricFamily(
                "nova_sg_last_answer_seconds",
                "Seconds since a look at a group was answered",
                labels=labels,
            ),
        )


_disagreements: Callable[[], Iterable[Any]] = tuple
_current: Metrics | None = None
_lock = threading.Lock()


def current() -> Metrics:
    """Return this process's metrics."""
    global _current
    if _current is None:
        with _lock:
            if _current is None:
                _current = Metrics()
    return _current


def count_disagreements(found: Callable[[], Iterable[Any]]) -> None:
    """Have the disagreements of drivers among the metrics.

    :param found: returns them as nova_sg.servicegroup.process has them
    """
    global _disagreements
    _disagreements = found


def render(accept: str = "") -> tuple[bytes, str]:
    """Write all metrics down.

    :param accept: what the asker takes: its Accept header
    :returns: the text, and its content type
    """
    encode, content_type = exposition.choose_encoder(accept)
    return encode(current().registry), content_type


def start_afresh() -> None:
    """Forget everything: what a parent counted is not ours."""
    # Its locks may have been held when it forked.
    global _current, _lock
    _current, _lock = None, threading.Lock()
