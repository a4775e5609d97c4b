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

The metrics are on a registry of their own. A child process begins at zero.
A question that is answered from memory (service_is_up) counts nothing.
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
# takes before a report or a refresh is given up is at the upper.
BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

#: Failure domains that have a series of their own, in each group. The others
#: are counted together, as OTHER_DOMAINS.
MOST_DOMAINS = 200
OTHER_DOMAINS = "(other)"
#: How many members of a group that are not plainly up have their names among
#: the metrics.
NAMED = 100

#: Old names of metrics by new ones: shown beside them for one release.
OLD_NAMES = {
    "nova_sg_refreshes": "nova_sg_looks",
    "nova_sg_refresh_seconds": "nova_sg_look_seconds",
    "nova_sg_outages": "nova_sg_stalls",
    "nova_sg_outage_seconds": "nova_sg_stall_seconds",
}


class Metrics:
    """Every metric of one process.

    The driver and the group are labels throughout. Members are labels only
    of what is about members of this process, or of members that are not
    plainly up, and of those only where name_members() was called.
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
        self.refreshes = prometheus_client.Counter(
            "nova_sg_refreshes",
            "Refreshes of a group, by outcome: answered, failed",
            [*by_group, "outcome"],
            registry=self.registry,
        )
        self.refresh_seconds = prometheus_client.Histogram(
            "nova_sg_refresh_seconds",
            "How long a refresh of a group took, failed or not",
            by_group,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.outages = prometheus_client.Counter(
            "nova_sg_outages",
            "Times that the backend stopped answering about a group",
            by_group,
            registry=self.registry,
        )
        self.outage_seconds = prometheus_client.Counter(
            "nova_sg_outage_seconds",
            "Seconds without an answer about a group, of outages that ended",
            by_group,
            registry=self.registry,
        )
        self.transitions = prometheus_client.Counter(
            "nova_sg_transitions",
            "What happened to members, by type, such as up, down, held",
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
        self._followed: weakref.WeakValueDictionary[
            tuple[str, str], RefreshStatus
        ] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self.registry.register(_Members(self._followed))
        self.registry.register(
            _OldNames(
                self.refreshes,
                self.refresh_seconds,
                self.outages,
                self.outage_seconds,
            )
        )
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

    def follow(self, status: RefreshStatus) -> None:
        """Show the members of a group, until unfollow() or a newer one."""
        with self._lock:
            self._followed[status.driver, status.group] = status

    def unfollow(self, status: RefreshStatus) -> None:
        """Do not show the members of a group any longer."""
        key = status.driver, status.group
        with self._lock:
            if self._followed.get(key) is status:
                del self._followed[key]


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
        domains: Mapping[tuple[str, str], int] | None = None,
        held: Mapping[str, int] | None = None,
    ) -> None:
        #: The number of members by state and cause.
        self.numbers = numbers
        #: Seconds since the oldest last report of the members that are up;
        #: None: there is none.
        self.oldest = oldest
        #: The number of members by failure domain and state, of those that
        #: have a domain.
        self.domains = domains or {}
        #: The number of members that are held, by the failure domain that
        #: fell silent; empty: the whole group did.
        self.held = held or {}


def no_census() -> Census:
    """Return the census of a backend whose members are counted elsewhere."""
    return Census({}, None)


class RefreshStatus:
    """How the refreshes of a group by one driver of this process went.

    :param group: the group
    :param driver: the name of the driver
    """

    def __init__(self, group: str, driver: str) -> None:
        metrics = current()
        labels = (driver, group)
        self.group = group
        self.driver = driver
        #: Seconds that the last refresh took; None: there was none.
        self.seconds: float | None = None
        #: When a refresh was last answered, monotonic; None: none was.
        self.answered_at: float | None = None
        #: Whether the last refresh was answered.
        self.answering = False
        #: Why it was not, for people.
        self.trouble = ""
        #: How many refreshes there were, how many of them failed, and how
        #: often the backend stopped answering.
        self.refreshes = self.failures = self.outages = 0
        # See show().
        self.unusual: Callable[[], Iterable[tuple[str, str, str]]] | None
        self.unusual = None
        self._answered = metrics.refreshes.labels(*labels, "answered")
        self._failed = metrics.refreshes.labels(*labels, "failed")
        self._seconds = metrics.refresh_seconds.labels(*labels)
        self._outages = metrics.outages.labels(*labels)
        self._outage_seconds = metrics.outage_seconds.labels(*labels)
        self._transitions = {
            kind: metrics.transitions.labels(*labels, kind)
            for kind in (
                *("joined", "up", "down", "left", "held"),
                *("draining", "unwell", "stopped"),
            )
        }
        self._metrics = metrics

    def show(
        self,
        census: Callable[[], Census],
        unusual: Callable[[], Iterable[tuple[str, str, str]]] | None = None,
    ) -> None:
        """Have the members of the group among the metrics.

        :param census: called for every scrape; it must not wait
        :param unusual: the same; returns the host, the state and the cause of
            the members that are not plainly up, the most important first
        """
        self.census = census
        self.unusual = unusual
        self._metrics.follow(self)

    def hide(self) -> None:
        """End what show() began.

        The garbage collector would be late: the view and its census refer
        to each other.
        """
        self._metrics.unfollow(self)

    def answered(
        self, begun: float, ended: float, interrupted: bool = False
    ) -> None:
        """Count a refresh that was answered.

        :param begun: when it began, monotonic
        :param ended: when the answer was there, monotonic
        :param interrupted: whether the backend was unreachable before
        """
        self._took(begun, ended)
        self._answered.inc()
        outage = not self.answering or interrupted
        if outage and self.answered_at is not None:
            if self.answering:
                self._begin_outage()
            self._outage_seconds.inc(max(0.0, begun - self.answered_at))
        self.answering, self.trouble = True, ""
        self.answered_at = ended

    def failed(self, begun: float, ended: float, trouble: str) -> None:
        """Count a refresh that was not answered.

        :param trouble: why not, for people
        """
        self._took(begun, ended)
        self._failed.inc()
        self.failures += 1
        if not self.trouble:
            self._begin_outage()
        self.answering, self.trouble = False, trouble

    def happened(self, kinds: Iterable[str]) -> None:
        """Count what happened to members, by its type."""
        for kind, count in collections.Counter(kinds).items():
            if kind in self._transitions:
                self._transitions[kind].inc(count)

    def _took(self, begun: float, ended: float) -> None:
        self.refreshes += 1
        self.seconds = ended - begun
        self._seconds.observe(self.seconds)

    def _begin_outage(self) -> None:
        self.outages += 1
        self._outages.inc()


class _OldNames(registry.Collector):
    """Metrics under their OLD_NAMES."""

    def __init__(self, *metrics: registry.Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[core.Metric]:
        for metric in self._metrics:
            for family in metric.collect():
                new, old = family.name, OLD_NAMES[family.name]
                family.name = old
                family.documentation = f"The old name of {new}"
                family.samples = [
                    sample._replace(name=old + sample.name.removeprefix(new))
                    for sample in family.samples
                ]
                yield family


class _Members(registry.Collector):
    """What is counted at the time of a scrape."""

    def __init__(
        self, followed: Mapping[tuple[str, str], RefreshStatus]
    ) -> None:
        self._followed = followed

    def describe(self) -> list[core.Metric]:
        return [
            *self._families(),
            *self._named(),
            *self._disagreeing(),
            self._healthy(),
        ]

    def collect(self) -> Iterator[core.Metric]:
        families = self._families()
        members, oldest, answering, age, domains, held = families
        now = time.monotonic()
        # By labels: a reload may follow a group by two drivers.
        by_domain: dict[tuple[str, str, str], int] = {}
        held_by: dict[tuple[str, str], int] = {}
        for one in list(self._followed.values()):
            census = one.census()
            labels = [one.driver, one.group]
            for verdict, number in census.numbers.items():
                members.add_metric([*labels, *verdict], number)
            if census.oldest is not None:
                oldest.add_metric(labels, census.oldest)
            answering.add_metric(labels, one.answering)
            if one.answered_at is not None:
                age.add_metric(labels, now - one.answered_at)
            for (domain, state), number in _bounded(census.domains).items():
                by_domain[one.group, domain, state] = number
            for domain, number in census.held.items():
                held_by[one.group, domain] = number
        for of_domain, number in by_domain.items():
            domains.add_metric(of_domain, number)
        for of_hold, number in held_by.items():
            held.add_metric(of_hold, number)
        yield from families
        yield from self._named()
        yield from self._disagreeing()
        yield self._healthy()

    @staticmethod
    def _healthy() -> core.Metric:
        healthy = core.GaugeMetricFamily(
            "nova_sg_health",
            "Whether a member of this process is well, by check: 1, 0",
            labels=["group", "host", "check"],
        )
        # By labels: a reload may have both the old and the new.
        found = {
            (one.group, one.host, one.check): not one.reason
            for one in _health()
        }
        for labels, well in found.items():
            healthy.add_metric(labels, well)
        return healthy

    def _named(self) -> tuple[core.Metric, ...]:
        """Return the members that are not plainly up, by name."""
        labels = ["driver", "group"]
        states = core.GaugeMetricFamily(
            "nova_sg_member_state",
            "A member that is not plainly up: 1",
            labels=[*labels, "host", "state", "cause"],
        )
        left_out = core.GaugeMetricFamily(
            "nova_sg_member_states_left_out",
            f"Such members beyond the first {NAMED}, which have no name here",
            labels=labels,
        )
        for one in list(self._followed.values()) if _naming else ():
            if one.unusual is None:
                continue
            found = list(one.unusual())
            for host, state, cause in found[:NAMED]:
                states.add_metric(
                    [one.driver, one.group, host, state, cause], 1
                )
            left_out.add_metric(
                [one.driver, one.group], max(0, len(found) - NAMED)
            )
        return states, left_out

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
                "Whether the last refresh of a group was answered",
                labels=labels,
            ),
            core.GaugeMetricFamily(
                "nova_sg_last_answer_seconds",
                "Seconds since a refresh of a group was answered",
                labels=labels,
            ),
            core.GaugeMetricFamily(
                "nova_sg_domain_members",
                "Members of each failure domain, by state",
                labels=["group", "domain", "state"],
            ),
            core.GaugeMetricFamily(
                "nova_sg_held_members",
                "Members that are held as up, by the failure domain that fell "
                "silent; empty: the whole group did",
                labels=["group", "domain"],
            ),
        )


def _bounded(
    domains: Mapping[tuple[str, str], int],
) -> Mapping[tuple[str, str], int]:
    """Return the numbers of MOST_DOMAINS domains, and those of the others.

    Which domains these are depends on their names alone, so that no series
    comes and goes.
    """
    names = sorted({domain for domain, _ in domains})
    if len(names) <= MOST_DOMAINS:
        return domains
    shown = set(names[:MOST_DOMAINS])
    numbers: collections.Counter[tuple[str, str]] = collections.Counter()
    for (domain, state), number in domains.items():
        numbers[domain if domain in shown else OTHER_DOMAINS, state] += number
    return numbers


_disagreements: Callable[[], Iterable[Any]] = tuple
_health: Callable[[], Iterable[Any]] = tuple
_naming = False
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


def show_health(found: Callable[[], Iterable[Any]]) -> None:
    """Have what the checks of members found among the metrics.

    :param found: returns it as nova_sg.servicegroup.process has it
    """
    global _health
    _health = found


def name_members() -> None:
    """Have the members that are not plainly up among the metrics, by name.

    Not for a process of which there are many: each would show all of them.
    """
    global _naming
    _naming = True


def render(accept: str = "") -> tuple[bytes, str]:
    """Write all metrics down.

    :param accept: the request's Accept header
    :returns: the text, and its content type
    """
    encode, content_type = exposition.choose_encoder(accept)
    return encode(current().registry), content_type


def start_afresh() -> None:
    """Begin at zero, in a child process."""
    # The parent's locks may have been held at the fork.
    global _current, _lock
    _current, _lock = None, threading.Lock()
