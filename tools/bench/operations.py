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

"""The measurements of a driver, in their order, the same for each driver.

To add an operation, add a function here and a method to the contenders.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from bench import measure, rows
from bench.contenders import base


class Sizes(NamedTuple):
    """The sizes of a measurement."""

    #: For how many seconds a figure is measured.
    seconds: float
    #: How many members one process reports for.
    many: int
    #: The sizes of groups. Single questions are about the first group;
    #: memory is counted with the last one.
    groups: tuple[int, ...]
    #: How many members join and leave while a client follows, and how many
    #: a second if not all at once.
    crowd: int
    pace: float
    #: For how many seconds the interpreter lock is held, and the timeout of
    #: a session that should outlive it.
    stall: float
    session: float
    #: How many members with a guard are killed, one after the other; and
    #: service_down_time of members without one.
    kills: int
    silence: float
    #: How many sessions lose their server, and for how many seconds.
    sessions: int
    outage: float


class Operations:
    """Measures one contender.

    :param template: a row with the fields that all figures have in common
    :param server: the process id of the contender's server
    """

    def __init__(
        self,
        contender: base.Contender,
        template: rows.Row,
        sizes: Sizes,
        server: int | None,
    ) -> None:
        self._contender = contender
        self._template = template
        self._sizes = sizes
        self._server = server
        self._hosts: dict[str, list[str]] = {}

    def all(self) -> Iterator[rows.Row]:
        """Measure everything."""
        if self._contender.only_reports:
            yield from self.many_reports()
            return
        yield from self.api()
        # Before the groups are made, as stock Nova searches its record among
        # all of them.
        yield from self.reports()
        for count in self._sizes.groups:
            group = f"group{count}"
            self._hosts[group] = self._contender.seed(group, count)
        yield from self.is_up()
        for group in self._hosts:
            yield from self.group_answers(group)
        yield from self.memory()
        yield from self.crash()

    def api(self) -> Iterator[rows.Row]:
        timing = self._repeat(self._contender.make_api)
        yield self._row("API()", timing.wall / timing.calls * 1e6, "us")

    def reports(self) -> Iterator[rows.Row]:
        [report] = self._contender.reporters("one", 1)
        yield from self._reports("report, 1 member", self._repeat(report))
        yield from self.many_reports()

    def many_reports(self) -> Iterator[rows.Row]:
        count = self._sizes.many
        many = self._contender.reporters("many", count)
        # Make the connections before the measurement.
        measure.together(many, 0)
        name = f"report, {count} members"
        before = self._contender.statements()
        timing = measure.together(many, self._sizes.seconds, self._server)
        yield from self._reports(name, timing)
        if before is not None:
            # Without the statement of this question.
            said = self._contender.statements() - before - 1
            yield self._row(
                f"{name}: statements a report", timing.each(said), ""
            )

    def _reports(
        self, name: str, timing: measure.Timing
    ) -> Iterator[rows.Row]:
        failed = ""
        if timing.failed:
            failed = f"{timing.failed} of {timing.calls} failed"
        yield self._row(name, timing.rate, "1/s", note=failed, of="report")
        yield self._row(
            f"{name}: CPU a report", timing.each(timing.cpu) * 1e6, "us"
        )
        if timing.server_cpu is not None:
            yield self._row(
                f"{name}: the server's CPU",
                timing.each(timing.server_cpu) * 1e6,
                "us",
            )

    def is_up(self) -> Iterator[rows.Row]:
        group, hosts = next(iter(self._hosts.items()))
        host = hosts[len(hosts) // 2]
        for name, question in (
            (
                "service_is_up, record at hand",
                self._contender.is_up_at_hand(),
            ),
            (
                "service_is_up, by name",
                self._contender.is_up_by_name(group, host),
            ),
        ):
            if question is None:
                continue
            if not question():
                raise AssertionError(f"{name}: {host} is not up")
            timing = self._repeat(question)
            yield self._row(name, timing.rate, "1/s")
            yield self._row(
                f"{name}: CPU", timing.each(timing.cpu) * 1e6, "us"
            )

    def group_answers(self, group: str) -> Iterator[rows.Row]:
        hosts = self._hosts[group]
        for name, question in (
            ("refresh", self._contender.ask(group, hosts)),
            ("members(), in memory", self._contender.recall(group)),
        ):
            if question is None:
                continue
            found = question()
            if found != len(hosts):
                raise AssertionError(
                    f"{name}: {found} of {len(hosts)} are known"
                )
            timing = self._repeat(question)
            full = f"{name}, of {len(hosts):,}"
            yield self._row(
                full, timing.wall / timing.calls * 1e3, "ms", of=name
            )
            yield self._row(
                f"{full}: CPU", timing.each(timing.cpu) * 1e3, "ms"
            )

    def memory(self) -> Iterator[rows.Row]:
        group, hosts = list(self._hosts.items())[-1]
        observer = self._contender.observer(group, hosts)
        if observer is not None:
            kept, peak = measure.memory(observer)
            name = f"memory a member, observer of {len(hosts):,}"
            yield self._row(name, kept / len(hosts), "bytes")
            yield self._row(
                f"{name}: while it asks", peak / len(hosts), "bytes"
            )
        many = self._sizes.many
        kept, _ = measure.memory(
            lambda: self._contender.reporters("memory", many)
        )
        yield self._row(
            f"memory a membership, reporter of {many}", kept / many, "bytes"
        )

    def crash(self) -> Iterator[rows.Row]:
        kills, silence = self._sizes.kills, self._sizes.silence
        beside = "a crash seen, beside a guard"
        for name, crash in (
            (beside, base.Crash(True, kills, None, base.REFRESH)),
            (
                f"{beside}, refresh every {base.SHORT_REFRESH:g} s",
                base.Crash(True, kills, None, base.SHORT_REFRESH),
            ),
            (
                "a crash seen, by silence",
                base.Crash(False, 1, silence, base.SHORT_REFRESH),
            ),
        ):
            seconds = self._contender.crash(crash)
            if seconds is not None:
                yield self._row(
                    name,
                    statistics.median(seconds) * 1e3,
                    "ms",
                    note=self._contender.crash_note(crash),
                )

    def _repeat(self, call) -> measure.Timing:
        return measure.repeat(call, self._sizes.seconds, self._server)

    def _row(
        self, name: str, figure: float, unit: str, note: str = "", of: str = ""
    ) -> rows.Row:
        note = note or self._contender.notes.get(of or name, "")
        return self._template._replace(
            name=name, figure=figure, unit=unit, note=note
        )
