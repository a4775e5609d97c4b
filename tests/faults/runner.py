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

"""Plays faults, several side by side, and finds what did not hold."""

import concurrent.futures
import dataclasses
import threading
import time
import traceback

from tests.faults import contenders, stage, truth

#: The factors for times of the short form, tried in turn on a busy machine.
SCALES = (1, 2, 4)
#: The machine is too busy if a thread that has nothing to do stood still for
#: this part of service_down_time,
STOOD_STILL = 1 / 15
#: or if a member or an observer waited for a core for this part of it, all
#: in all. A report may take hundreds of turns of two threads, each of which
#: may have to wait.
WAITED_FOR_CORE = 1 / 3
#: Seconds by which an answer may be late because of the measurement itself.
SLACK = 1.0


@dataclasses.dataclass
class Row:
    """How one contender went through one fault."""

    fault: str
    contender: str
    mode: str
    members: int
    score: truth.Score
    #: Seconds: the stated bound of the driver; None: no member died.
    bound: float | None
    #: Seconds for which it was watched after the fault's end.
    watched: float
    note: str
    complaints: list
    #: The latest warnings of its processes; empty without complaints.
    log: str


@dataclasses.dataclass
class Outcome:
    """The result of one fault."""

    fault: str
    rows: list
    #: What did not hold for nova_sg, or the harness's own error.
    complaints: list
    #: How often it was played. It is played again if the machine was busy.
    attempts: int
    seconds: float


class Canary(threading.Thread):
    """Measures how late this machine runs a thread with nothing to do."""

    def __init__(self):
        super().__init__(daemon=True)
        self._lags = []
        self._stopped = threading.Event()

    def run(self):
        while not self._stopped.is_set():
            begun = time.monotonic()
            self._stopped.wait(0.05)
            lag = time.monotonic() - begun - 0.05
            if lag > 0.1:
                self._lags.append((begun, lag))

    def worst(self, begin, end):
        """Return the longest lag between two moments, in seconds."""
        return max(
            (lag for at, lag in list(self._lags) if begin <= at <= end),
            default=0.0,
        )

    def stop(self):
        self._stopped.set()


class Runner:
    """Plays faults.

    :param long: whether to use default settings and real durations
    :param jobs: how many faults to play at the same time
    :param tell: called with each Outcome
    :param stock: whether stock Nova takes part, to compare with; nothing has
        to hold for it
    """

    def __init__(self, long, jobs, tell=lambda outcome: None, stock=True):
        self._long = long
        self._stock = stock
        self._tell = tell
        self._canary = Canary()
        self._canary.start()
        self._pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self._futures = {}

    def start(self, faults):
        """Begin to play faults, the long ones first."""
        for fault in sorted(faults, key=self._expected, reverse=True):
            self._futures[fault.name] = self._pool.submit(self._play, fault)

    def _expected(self, fault):
        # Faults with many members take long to set up.
        return (
            fault.scale,
            fault.own_servers and "zk" in fault.on,
            fault.lasts[self._long],
            len(fault.on),
        )

    def outcome(self, name):
        """Wait for a fault's Outcome."""
        return self._futures[name].result()

    def outcomes(self):
        """Wait for all, in the order of the catalogue."""
        return {name: f.result() for name, f in self._futures.items()}

    def close(self):
        self._pool.shutdown(cancel_futures=True)
        self._canary.stop()
        contenders.close()

    def _play(self, fault):
        begun = time.monotonic()
        attempts = 0
        for scale in SCALES:
            attempts += 1
            times = contenders.Times(self._long, scale * fault.scale)
            since = time.monotonic()
            waited = [0.0]
            try:
                rows = self._attempt(fault, times, waited)
                broken = []
            except Exception:
                rows = []
                broken = [traceback.format_exc()]
            complaints = broken + [
                f"{row.contender}: {words}"
                for row in rows
                for words in row.complaints
            ]
            lag = self._canary.worst(since, time.monotonic())
            # A process that gets no core cannot report. Such an attempt
            # proves nothing about nova_sg.
            if not complaints or not (
                lag >= times.service_down_time * STOOD_STILL
                or max(waited) >= times.service_down_time * WAITED_FOR_CORE
            ):
                break
        outcome = Outcome(
            fault.name, rows, complaints, attempts, time.monotonic() - begun
        )
        self._tell(outcome)
        return outcome

    def _attempt(self, fault, times, waited):
        """Play a fault once.

        :param waited: a list that takes how long its processes waited for a
            core, in seconds
        """
        played = stage.Stage(fault, times, self._stock)
        try:
            played.open()
            begin = time.monotonic()
            before = played.waited_for_core()
            fault.inject(played)
            half = fault.seconds(times) / 2
            played.wait(half)
            if fault.dies:
                played.kill_victims()
            played.wait(half)
            fault.heal(played)
            healed = time.monotonic()
            if fault.dies:
                for one in played.contenders:
                    within = times.down_after_outage(one.kind)
                    one.truth.backend_returned(healed, within)
            self._settle(played, healed)
            end = time.monotonic()
            after = played.waited_for_core()
            waited += (after[one] - before[one] for one in before)
            return [
                self._row(played, one, begin, healed, end)
                for one in played.contenders
            ]
        finally:
            played.close()

    @staticmethod
    def _settle(played, healed):
        """Watch until nova_sg's observers are right, and for a least time."""
        times = played.times
        least = healed + 1.5 * times.service_down_time + 1
        most = healed + 4 * times.service_down_time + 20
        ours = [c for c in played.contenders if c.kind.stack == "ours"]
        while time.monotonic() < most:
            time.sleep(0.2)
            if time.monotonic() < least:
                continue
            if all(one.last_letters() == one.truth.letters() for one in ours):
                return

    def _row(self, played, one, begin, healed, end):
        score = truth.score(one.truth, one.polls(), begin, healed, end)
        bound = None
        if score.detected is not None:
            spans = (s for spans in one.truth.spans.values() for s in spans)
            bound = min(
                span.due - span.begin
                for span in spans
                if span.state == truth.DEAD
            )
        one.note = ""
        complaints = list(played.fault.check(played, one))
        if one.kind.stack == "ours":
            lag = self._canary.worst(begin, end)
            complaints += self._complaints(
                one, score, begin, healed, SLACK + 2 * lag
            )
        else:
            complaints = []
        return Row(
            fault=played.fault.name,
            contender=one.kind.name,
            mode=one.mode,
            members=len(one.hosts),
            score=score,
            bound=bound,
            watched=end - healed,
            note=one.note,
            complaints=complaints,
            log=_trouble(one) if complaints else "",
        )

    @staticmethod
    def _complaints(one, score, begin, healed, slack):
        if score.wrong_down:
            yield (
                f"{score.wrong_down} wrong answers down, of "
                f"{len(score.called_down)} living members: "
                f"{sorted(score.called_down)[:3]}, from second "
                f"{score.wrong_at[0] - begin:.1f} to "
                f"{score.wrong_at[-1] - begin:.1f}; the fault ended at second "
                f"{healed - begin:.1f}"
            )
        if score.wrong_up > slack:
            yield (
                f"a dead member was up for {score.wrong_up:.1f} s past the "
                "bound"
            )
        if score.detected == float("inf"):
            yield "a dead member was never called down"
        if score.recovered is None:
            yield (
                "living members were not up again at the end: "
                f"{one.last_letters()}"
            )
        if not score.answers:
            yield "the observer gave no answer"
        for process in (*one.crowd, one.observer):
            if process.has_ended:
                yield f"{process} ended\n{process.log()}"


def _trouble(one):
    """Return the latest warnings of a contender's processes."""
    found = []
    for process in (*one.crowd[:1], one.victim, one.observer):
        if process is not None:
            lines = process.log().splitlines()
            found.append(f"{process}:")
            found += [line for line in lines if " INFO " not in line][-5:]
    return "\n    ".join(found)
