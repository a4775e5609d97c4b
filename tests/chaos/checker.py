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

"""Judges the answers in a history by its truth.

===============  ============================================================
violation
===============  ============================================================
wrong down       an observer that had called a host up calls it down, though
                 the host was clear for long enough before
not back         a host is down, though it, the observer and the backend have
                 had no trouble for long enough
wrong up         a host that is gone is up past the driver's stated bound
rose             a host that is gone, and was called down, is called up
records          not counted as wrong: the first record that an observer reads
                 after an outage is old, and it does not report itself, so it
                 has no evidence of the outage (judgement.rst, "Records that
                 the caller brings along")
unknown          there is no answer, though a majority of the backend could be
                 reached for long enough. With two backends not, if only one
                 could be reached, and the host had left it or not reported to
                 it: it may report to the other (liveness/group.py, counts())
===============  ============================================================
"""

import dataclasses

from tests.chaos.truth import FOREVER, Truth

# All these times are of a run with short times, see Times in run.py.
# Seconds for which a host has to be clear before "down" is wrong: the
# backend's own time to get over the last trouble, and two missed reports.
CLEAR = {"db": 12.0, "mc": 10.0, "zk": 12.0}
# Seconds that servers, and connections to them, need after a change.
SETTLES = {"db": 10.0, "mc": 4.0, "zk": 8.0}
# Seconds within which a host that has no trouble any more is up.
BACK = {"db": 10.0, "mc": 8.0, "zk": 10.0}
# Without a session the pauses between attempts to connect grow to this.
LONGEST_PAUSE = 30.0
# Seconds after an outage in which each host has reported again.
RECORDS = 5.0
# Seconds by which an answer may be later, on a busy machine.
SLACK = 0.5
#: The kind of violation that is a stated bound.
STATED = "records"
# By how much clocks of servers may differ in a run.
SKEW = 3.0


# Seconds after the step of a server's clock in which a command is not judged:
# it has stamps of the time before.
STEPPED = 20.0
_OF_NOVA_SG = (
    *("blocking", "blocked", "unblocked"),
    *("forcing", "forced", "unforcing", "unforced"),
)


@dataclasses.dataclass
class Violation:
    """Answers, one after the other, that break a rule."""

    kind: str
    observer: str
    host: str
    begin: float
    end: float
    #: How many answers.
    count: int
    why: str

    def __str__(self):
        return (
            f"{self.kind}: {self.observer} about {self.host}, "
            f"{self.begin:.2f} to {self.end:.2f}, {self.count} answers: "
            f"{self.why}"
        )


@dataclasses.dataclass
class Result:
    """What a checker found."""

    #: Seconds of the run, from the first answer to the last.
    seconds: float = 0.0
    #: How many faults were played.
    faults: int = 0
    #: How many answers there were about single hosts.
    answers: int = 0
    #: How many of them were "no answer".
    unknown: int = 0
    #: How many were about a host that had to be up; that had to be down; by
    #: an observer that had to have an answer.
    had_to_be_up: int = 0
    had_to_be_down: int = 0
    had_to_answer: int = 0
    #: How many were left out, as the observer did not get a core; or as a
    #: clock was just set, which only an observer that lived before can know.
    left_out: int = 0
    violations: list = dataclasses.field(default_factory=list)

    def wrong(self, *kinds):
        """Return how many answers broke one of these rules."""
        return sum(v.count for v in self.violations if v.kind in kinds)

    @property
    def wrongs(self):
        """The violations that no stated bound allows."""
        return [v for v in self.violations if v.kind != STATED]


class Checker:
    """Judges one history.

    :param entries: as history.read() returns them
    :param stock: the driver of stock Nova whose observer is judged, by the
        same rules; by default the observers of nova_sg are
    """

    def __init__(self, entries, stock=None):
        if stock is not None:
            # What nova_sg's members do has no meaning to stock Nova's.
            entries = [
                entry | {"drivers": [stock]}
                if entry["event"] == "setup"
                else entry
                for entry in entries
                if entry.get("state") not in _OF_NOVA_SG
            ]
        self._entries = entries
        self.truth = Truth(entries)
        setup = self.truth.setup
        stocks = setup.get("stock", {})
        self._observers = (
            set(setup["lived"]) - set(stocks.values())
            if stock is None
            else {stocks[stock]}
        )
        self._asks = setup.get("asks", {})
        # By observer that acts: by how many seconds that is later.
        self._acts = setup.get("acts", {})
        self._drivers = setup["drivers"]
        self._down_time = setup["service_down_time"]
        self._interval = setup["report_interval"]
        self._refresh = setup["refresh"]
        self._session = setup["session"]
        self._lived = setup["lived"]
        self._factor = setup.get("factor", 1)
        # Observers that need the database for a question.
        self._by_records = set(setup["records"])
        # Observers that ask by records and do not report.
        self._no_evidence = set(setup["records"]) - set(setup["reports"])
        # By observer: when it last had no answer.
        self._silent = {}
        # By observer and host: the last answer that was up or down.
        self._last = {}
        # The open violation.
        self._open = {}
        # The span in which a host is gone and was called down.
        self._found = {}
        self.result = Result()

    def _long(self, times, driver):
        """Return one of the times above with the times of this run."""
        if driver == "zk":
            # Sessions are as short, refreshes are rarer.
            return times[driver] + 4 * (self._refresh - 0.25)
        return times[driver] * self._factor

    def bound(self, driver):
        """Return the stated bound until a host that is gone is down."""
        if driver == "zk":
            return self._session * 5 / 3 + 0.5 + 0.1
        return self._down_time + self._refresh + (driver == "mc")

    def check(self):
        """Judge all answers; return a Result."""
        result = self.result
        result.faults = sum(
            entry["event"] == "fault" and entry["state"] == "begins"
            for entry in self._entries
        )
        answers = [e for e in self._entries if e["event"] == "answers"]
        if answers:
            result.seconds = answers[-1]["at"] - answers[0]["begun"]
        for entry in answers:
            observer = entry["observer"]
            if observer not in self._observers:
                continue
            if self.truth.starved[observer].overlap(
                entry["begun"] - 2 * self._interval, entry["at"]
            ) or (
                not self._lived[observer]
                and self.truth.stepped.overlap(
                    entry["begun"] - STEPPED * self._factor, entry["at"]
                )
            ):
                result.left_out += len(entry["letters"])
                continue
            asked = self._asks.get(observer, len(self.truth.hosts))
            asked = self.truth.hosts[:asked]
            for host, letter in zip(asked, entry["letters"], strict=True):
                self._answer(entry, observer, host, letter)
        return result

    def _answer(self, entry, observer, host, letter):
        begun, at = entry["begun"], entry["at"]
        self.result.answers += 1
        self.result.unknown += letter == "?"
        lived = self._lived[observer]
        key = observer, host
        kind, why = "", ""
        missing = self._unknown(observer, host, lived, begun, at)
        if not lived and "mc" in self._drivers:
            # A memcached that was restarted knows those that report since.
            if begun < self._up_since(observer, host, at):
                missing = ""
        self.result.had_to_answer += bool(missing)
        if letter == "?":
            self._silent[observer] = at
            kind, why = ("unknown", missing) if missing else ("", "")
        elif letter == "D":
            kind, why = self._down(observer, host, lived, begun, at)
            gone = self.truth.gone[host].around(begun, at)
            longest = max(map(self.bound, self._drivers)) + SLACK
            if gone and lived and begun > gone[0] + longest:
                self._found[key] = gone
        else:
            kind, why = self._up(observer, host, lived, begun, at)
        self._note(kind, why, key, begun, at)
        if letter != "?" and lived:
            self._last[key] = letter

    def _note(self, kind, why, key, begun, at):
        before = self._open.get(key)
        if not kind:
            self._open.pop(key, None)
        elif before and before.kind == kind:
            before.end = at
            before.count += 1
        else:
            violation = Violation(kind, *key, begun, at, 1, why)
            self.result.violations.append(violation)
            self._open[key] = violation

    def _settled(self, observer, moment, some, drivers=None):
        """Return since when an observer's backends have settled; None.

        :param some: whether one of several backends is enough
        """
        found = []
        for driver in drivers or self._drivers:
            since = self.truth.good_since(observer, moment, [driver])
            found.append(
                None if since is None else since + self._long(SETTLES, driver)
            )
        if some:
            known = [since for since in found if since is not None]
            return min(known, default=None)
        return None if None in found else max(found)

    def _unknown(self, observer, host, lived, begun, at):
        """Return why there has to be an answer; "": there need not be one."""
        # A server that all members' reports in it are old is not believed at
        # the first refresh of a process.
        late = 0.0 if lived else self._down_time
        reached = {}
        for driver in self._drivers:
            since = self._settled(observer, at, True, [driver])
            if since is not None and begun >= since + late:
                reached[driver] = since + late
        counting = reached
        if len(reached) < len(self._drivers):
            counting = {
                driver: since
                for driver, since in reached.items()
                if not self._has_moved(observer, host, driver, begun, at)
            }
        if observer in self._by_records and "db" not in reached:
            return ""
        if not counting:
            return ""
        since = min(counting.values())
        return f"the backend could be reached since {since:.2f}"

    def _has_moved(self, observer, host, driver, begun, at):
        """Return whether a host may report to another backend only.

        That is so if it has left this one, or if its last report to this one
        was older by service_down_time than the last to another that the
        observer saw. While the observer cannot reach the other one, it does
        not know whether such a host is alive.
        """
        seen = 2 * self._interval + self._refresh
        if self.truth.left[host].overlap(begun - seen, at):
            return True
        lost = max(
            self.truth.last_reached(observer, at, other)
            for other in self._drivers
            if other != driver
        )
        silence = self.truth.silent(host, driver).last(at)
        return (
            silence is not None
            and lost - silence[0] >= self._down_time - seen
            and begun <= silence[1] + self._long(BACK, driver)
        )

    def _down(self, observer, host, lived, begun, at):
        kind, why = self._wrong_down(observer, host, lived, begun, at)
        self.result.had_to_be_up += bool(kind)
        gone = self.truth.gone[host].around(begun, at)
        if gone and begun > self._limit(
            observer, host, gone, lived, begun, at
        ):
            self.result.had_to_be_down += 1
        return kind, why

    def _wrong_down(self, observer, host, lived, begun, at):
        before = self._last.get((observer, host))
        open_ = self._open.get((observer, host))
        if lived and (
            before == "U" or (open_ and open_.kind in ("wrong down", STATED))
        ):
            late = self._acts.get(observer, 0.0)
            seconds = self._clear(host, begun) + late
            if self.truth.clear(host, observer, begun - seconds, at):
                kind = "wrong down"
                last = self._silent.get(observer, -FOREVER)
                if (
                    observer in self._no_evidence
                    and begun < last + RECORDS * self._factor
                ):
                    kind = STATED
                return kind, f"it was clear for {seconds:.1f} s"
            return "", ""
        since = self._up_since(observer, host, at)
        if begun < since:
            return "", ""
        return "not back", f"without any trouble since {since:.2f}"

    def _has_to_be_up(self, observer, host, lived, begun, at):
        if lived:
            late = self._acts.get(observer, 0.0)
            begin = begun - self._clear(host, begun) - late
            if self.truth.clear(host, observer, begin, at):
                return True
        return begun >= self._up_since(observer, host, at)

    def _clear(self, host, begun):
        """Return for how long a host has to be clear, in seconds."""
        clear = max(self._long(CLEAR, driver) for driver in self._drivers)
        if "zk" in self._drivers:
            clear += min(self.truth.last_cut(host, begun), LONGEST_PAUSE)
        return clear

    def _up_since(self, observer, host, at):
        """Return from when on a host has to be up again."""
        settled = self._settled(observer, at, some=True)
        clear = self.truth.clear_since(host, observer, at)
        if settled is None or clear is None:
            return FOREVER
        back = max(self._long(BACK, driver) for driver in self._drivers)
        if "zk" in self._drivers:
            back += min(self.truth.last_cut(host, at), LONGEST_PAUSE)
        return max(settled, clear) + back + self._acts.get(observer, 0.0)

    def _up(self, observer, host, lived, begun, at):
        gone = self.truth.gone[host].around(begun, at)
        if gone is None:
            self.result.had_to_be_up += self._has_to_be_up(
                observer, host, lived, begun, at
            )
            return "", ""
        if self._found.get((observer, host)) == gone:
            self.result.had_to_be_down += 1
            return "rose", f"it is gone since {gone[0]:.2f}, and was down"
        limit = self._limit(observer, host, gone, lived, begun, at)
        if begun <= limit:
            return "", ""
        self.result.had_to_be_down += 1
        return "wrong up", (
            f"it is gone since {gone[0]:.2f}, the limit was {limit:.2f}"
        )

    def _limit(self, observer, host, gone, lived, begun, at):
        """Return until when a host that is gone may be up."""
        settled = self._settled(observer, at, some=False)
        if settled is None:
            return FOREVER
        limit = max(gone[0], settled)
        if "zk" in self._drivers:
            # A session lives on from the last byte. Reports to the others
            # have times, or are not executed late.
            limit = max(limit, self.truth.last_bytes(host, gone))
        limit += max(map(self.bound, self._drivers)) + SLACK
        limit += self._acts.get(observer, 0.0)
        if not lived:
            limit += 1.5 * self._interval + SKEW
        begin = gone[0] - 2 * self._down_time
        if self.truth.many_silent(host, observer, begin, at):
            # Mass silence: the hold, and what is not counted of it.
            limit += 3 * self._down_time
        return limit


def check(entries, stock=None):
    """Judge a history; return a Result."""
    return Checker(entries, stock).check()


def stretch(entries, violation, before=25.0):
    """Return the entries that matter to a violation, in order."""
    setup = next(entry for entry in entries if entry["event"] == "setup")
    servers = {n for names in setup["servers"].values() for n in names}
    machine = setup.get("machines", {}).get(violation.host, violation.host)
    concerned = {machine, violation.observer} | servers
    found = []
    open_cuts = {}
    last = {}
    for entry in entries:
        event = entry["event"]
        if entry["at"] > violation.end + 1.0:
            break
        late = entry["at"] >= violation.begin - before
        if event == "cut":
            if not {entry["node"], *entry["peers"]} & concerned:
                continue
            open_cuts[entry["id"]] = entry
            if late:
                found.append(entry)
        elif event == "healed":
            cut = open_cuts.pop(entry["id"], None)
            if cut and late:
                if cut not in found:
                    found.append(cut)
                found.append(entry)
        elif event in ("process", "reason", "acted"):
            if entry["host"] not in (violation.host, machine):
                continue
            if event != "process" and entry["observer"] != violation.observer:
                continue
            if late:
                found.append(entry)
        elif event == "server" and late:
            found.append(entry)
        elif event == "starved" and late:
            if entry["node"] in concerned | {"*"}:
                found.append(entry)
        elif event == "answers" and late:
            if entry["observer"] == violation.observer:
                index = setup["hosts"].index(violation.host)
                letter = entry["letters"][index]
                if last.get(violation.observer) != letter:
                    last[violation.observer] = letter
                    found.append(entry | {"letters": letter})
    return found
