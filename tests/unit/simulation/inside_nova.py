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

"""A host that reports to a backend and to Nova's database.

A process of Nova's refreshes the group from the backend. It asks about the
host with the record that it has just read, as NovaGroupDriver does. Another
process refreshes from both.
"""

import datetime
import types
from typing import NamedTuple
from unittest import mock

from nova_sg.backends import base
from nova_sg.liveness import model
from nova_sg.servicegroup import service_records, shared
from tests.unit.simulation import judges

LIMIT, INTERVAL, GRACE = 60.0, 10.0, 60.0
#: Seconds between two refreshes; until a session ends; until there is another.
STEP, SESSION, REJOIN = 2.0, 4.0, 2.0
#: Seconds until an observer knows of the next report. A record has whole
#: seconds.
DUE = INTERVAL + STEP + 1.0
LIMITS = model.Limits(LIMIT, INTERVAL, restart_grace=GRACE)
HOST, GROUP = "host", "compute"


class Event(NamedTuple):
    """What happens."""

    #: Seconds since the event before.
    after: int
    #: start, kill or stop: the host. cut or heal, mc or db: its way to the
    #: backend. blind or see: the observer's way to mc.
    what: str


class Wrong(AssertionError):
    """A verdict that is wrong."""


class _NotKnown(Exception):
    """The state is not known."""


class World:
    """One host, and one process that asks.

    :param inside: whether it is one of Nova's
    :param kind: what the backend keeps: sessions, as ZooKeeper does, or
        reports, as memcached does; or none: there is only the database
    :param asks: seconds between two questions
    """

    def __init__(self, inside, kind, asks):
        self._inside = inside
        self._sessions = kind == "sessions"
        self._asks = asks
        others = () if kind == "none" else ("mc",)
        names = (*others, "db")
        self._judge = judges.Judge(
            *(LIMIT, INTERVAL, model.NO_MASS_RULE),
            others if inside else names,
            GRACE,
        )
        self._shared = shared.Shared(
            *(types.SimpleNamespace(name=n, observes=True) for n in others),
            types.SimpleNamespace(name="db", observes=False),
        )
        self._shared.view = lambda group: types.SimpleNamespace(
            observer=self, not_known=lambda host, verdict: _NotKnown()
        )
        self.now = 0.0
        #: Since when the observer reaches mc; None: it does not.
        self._sees = 0.0
        self._alive = False
        # By backend: whether the host's way there is whole; since when it is
        # and the host lives, or None; its last report, or None; whether it
        # has left.
        self._whole = dict.fromkeys(names, True)
        self._well = dict.fromkeys(names)
        self._last = dict.fromkeys(names)
        self._left = dict.fromkeys(names, False)
        self._count = 0
        # When its session ends; None: it has none.
        self._session = None
        self._next = 0.0
        self._ended = None
        # Until when it has to be up, as it stopped cleanly.
        self._grace = float("-inf")
        #: How often each promise applied.
        self.checked = {"up": 0, "stopped": 0, "down": 0}
        # What Shared asks of an observer.
        self.own_actions = {}

    # -- the observer

    @property
    def group(self):
        return self._judge.group

    def verdict(self, host):
        return self.group.verdict(host, self.now, LIMIT)

    @staticmethod
    def name_of(host):
        return host

    def _refresh(self):
        if "mc" in self._whole:
            self._refresh_backend()
        last, left = self._last["db"], self._left["db"]
        if self._inside or last is None:
            return
        seen = datetime.datetime.fromtimestamp(last, datetime.UTC)
        number = None if left else last
        observation = model.Observation(
            *(HOST, number, last, seen),
            attributes=model.Attributes(left=left),
        )
        self._judge.step(model.Refresh("db", self.now, [observation]))

    def _refresh_backend(self):
        if self._sees is None:
            self._judge.refresh_failed(self.now, "mc")
            return
        last, left = self._last["mc"], self._left["mc"]
        observations = []
        if self._sessions:
            there = self._session is not None
            if last is not None:
                attributes = model.Attributes(
                    present=there, lost=not there, left=left and not there
                )
                observations = [
                    model.Observation(HOST, attributes=attributes)
                ]
        elif last is not None:
            observations = [
                model.Observation(
                    HOST, last, last, attributes=model.Attributes(left=left)
                )
            ]
        self._judge.step(model.Refresh("mc", self.now, observations))

    def _ask(self):
        if not self._inside:
            return self.verdict(HOST)
        last = self._last["db"]
        if last is None:
            record = base.Record(None, None, self.now)
        else:
            count = 0 if self._left["db"] else self._count
            stamp = int(last)
            record = base.Record(
                stamp, count, self.now - stamp, self._left["db"]
            )
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        with (
            mock.patch.object(shared, "time", clock),
            mock.patch.object(service_records, "time", clock),
        ):
            if self._shared.only_records and (
                self._shared.records.is_plainly_up(
                    (GROUP, HOST), record.stamp, record.count, LIMIT
                )
            ):
                return model.REPORTED
            try:
                return self._shared.verdict(GROUP, HOST, record, LIMITS)
            except _NotKnown:
                return model.UNAVAILABLE

    # -- the host

    def run(self, events):
        """Let events happen; check each answer.

        :raises Wrong: one is wrong
        """
        for event in [*events, Event(int(GRACE + LIMIT + DUE + STEP), "end")]:
            until = self.now + event.after
            while self.now < until:
                self.now += 1.0
                self._live()
                if self.now % STEP == 0.0:
                    self._refresh()
                if self.now % self._asks == 0.0:
                    self._check(self._ask())
            self._happen(event.what)

    def _happen(self, what):
        if what == "start" and not self._alive:
            self._alive, self._ended = True, None
            self._grace = float("-inf")
            # Numbers begin anew.
            self._count = 0
            self._next = self.now
        elif what in ("kill", "stop") and self._alive:
            if what == "stop":
                if self._has_to_be_up() and all(self._whole.values()):
                    self._grace = self.now + GRACE - STEP
                for name, whole in self._whole.items():
                    self._left[name] = whole and self._last[name] is not None
                if self._whole.get("mc"):
                    self._session = None
            self._alive, self._ended = False, self.now
        elif what == "blind":
            self._sees = None
        elif what == "see" and self._sees is None:
            self._sees = self.now
        elif " " in what:
            verb, name = what.split()
            if name in self._whole:
                self._whole[name] = verb == "heal"
        for name, whole in self._whole.items():
            if not (self._alive and whole):
                self._well[name] = None
            elif self._well[name] is None:
                self._well[name] = self.now
        if self._well.get("mc") is None and self._session == float("inf"):
            self._session = self.now + SESSION

    def _live(self):
        if self._session is not None and self.now >= self._session:
            self._session = None
        well = self._well.get("mc")
        if self._sessions and well is not None and self.now >= well + REJOIN:
            self._session = float("inf")
            self._last["mc"], self._left["mc"] = self.now, False
        if not self._alive or self.now < self._next:
            return
        self._next += INTERVAL
        if self._whole.get("mc") and not self._sessions:
            self._last["mc"], self._left["mc"] = self.now, False
        if self._whole["db"]:
            self._last["db"], self._left["db"] = self.now, False
            self._count += 1

    # -- the promises

    def _has_to_be_up(self, somewhere=("mc", "db")):
        return any(
            since is not None and self.now >= since + DUE
            for name, since in self._well.items()
            if name in somewhere
        )

    def _check(self, verdict):
        sees = self._sees is not None and self.now >= self._sees + DUE
        # A host that the observer cannot see anywhere may as well be dead.
        if self._has_to_be_up(("mc", "db") if sees else ("db",)):
            self.checked["up"] += 1
            if verdict.state != model.UP:
                raise Wrong(f"{verdict.cause} at {self.now}: it is alive")
        elif self._ended is not None and self.now <= self._grace:
            self.checked["stopped"] += 1
            if verdict.state == model.DOWN:
                raise Wrong(f"{verdict.cause} at {self.now}: it stopped")
        elif self._ended is not None and sees and self.now > self._end():
            self.checked["down"] += 1
            if verdict.state == model.UP:
                raise Wrong(f"{verdict.cause} at {self.now}: it is dead")

    def _end(self):
        """Return until when a host that does not run may be up."""
        longest = LIMIT
        if any(self._left.values()):
            longest = max(longest, GRACE)
        # While the observer did not reach mc, nobody reported there.
        return max(self._ended, self._sees) + longest + DUE
