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

"""One group as several backends know it, and one verdict over each member.

Each backend has a view of its own, which looks by itself. A
thread of this module compares them and tells watchers, while somebody asks
or watches.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable

from oslo_log import log as logging

from nova_sg import exception, metrics, threads
from nova_sg import trouble as trouble_log
from nova_sg.conf import CONF
from nova_sg.servicegroup import detector, events
from nova_sg.servicegroup.memory import Member, Opinion
from nova_sg.servicegroup.several import compare, judgement, secondary
from nova_sg.servicegroup.view import DUTY, IDLE, GroupView

LOG = logging.getLogger(__name__)


class SeveralView:
    """The members of one group, by a primary and secondaries.

    Has the methods of a GroupView.
    """

    def __init__(
        self, group: str, primary: GroupView, secondaries: list[GroupView]
    ) -> None:
        self.group = group
        self._primary = primary
        # Set when a view has looked.
        self._changed = threading.Event()
        primary.on_look = self._changed.set
        #: The secondaries, the first one first.
        self.secondaries = [
            secondary.Secondary(view, self._changed) for view in secondaries
        ]
        self._others = secondaries
        self._judgement = judgement.Judgement(primary, self.secondaries)
        #: Members that fell while the primary was away, by a record that an
        #: asker had, and when.
        self.fallen_by_record: dict[str, float] = {}
        # By member: what watchers were told last, and by whom.
        self._told: dict[str, tuple[detector.Verdict, GroupView]] | None = None
        self._known: dict[str, detector.Known] = {}
        # Guards what is compared and told.
        self._lock = threading.Lock()
        self._watches = events.Watches(group, self._lock)
        self._thread: threading.Thread | None = None
        self._used = 0.0
        self._closed = threading.Event()

    # -- questions

    def is_up(self, host: str) -> bool:
        """Whether host is up, from memory, kept fresh in the background.

        :raises ServiceGroupUnavailable: neither the primary nor a secondary
            can say
        """
        self._start()
        self._primary.update()
        expired = [one.look() for one in self.secondaries if one.view.expired]
        if expired:
            self._await(expired)
        if (
            host not in self._primary.last_verdicts
            or not self._primary.answering()
        ):
            for other in self.secondaries:
                other.have_it_say()
        _, verdict = self._judgement.judge(host)
        if verdict is detector.UNAVAILABLE:
            raise exception.ServiceGroupUnavailable(
                f"The state of {host} in the group {self.group} is not "
                f"known: {self._trouble()}"
            )
        return verdict.state == detector.UP

    def knows(self, host: str) -> bool:
        """Whether host was a member at a last look, up or not."""
        return self._primary.knows(host) or any(
            other.knows(host) for other in self._others
        )

    @property
    def last_verdicts(self) -> compare.Verdicts:
        """What the primary's last look brought; not to be changed."""
        return self._primary.last_verdicts

    def answering(self) -> bool:
        """Whether the primary can be asked."""
        return self._primary.answering()

    def silence(self) -> float:
        """Return the seconds since the primary was heard; infinity: never."""
        return self._primary.silence()

    def reported_since(self, host: str, moment: float) -> bool:
        """Whether host has reported to the primary since then."""
        return self._primary.reported_since(host, moment)

    def hosts_up(self) -> list[str]:
        """Return the names of the members that are up.

        :raises ServiceGroupUnavailable: no backend can say
        """
        self._look("listed")
        return sorted(
            host
            for host in self._judgement.hosts()
            if self._judgement.judge(host)[1].state == detector.UP
        )

    def last_seen(self, host: str) -> datetime.datetime | None:
        """Return host's last report, UTC, from memory, whoever has it."""
        self._start()
        seen = [self._primary.last_seen(host)]
        for other in self._others:
            member = other.recall(host)
            seen.append(member and member.last_seen)
        return max(filter(None, seen), default=None)

    def members(self) -> list[Member]:
        """Return all members, sorted by name, not older than one refresh.

        :raises ServiceGroupUnavailable: no backend can say
        """
        self._look("listed")
        hosts = sorted(self._judgement.hosts())
        found = (self._member(host) for host in hosts)
        return [member for member in found if member is not None]

    def member(self, host: str) -> Member:
        """Return one member, not older than one refresh.

        :raises MemberNotFound: no backend knows such a member
        :raises ServiceGroupUnavailable: as members
        """
        self._look("asked about")
        member = self._member(host)
        if member is None:
            raise exception.MemberNotFound(
                f"The group {self.group} has no member {host}"
            )
        return member

    def _member(self, host: str) -> Member | None:
        view, verdict = self._judgement.judge(host)
        member = view.recall(host)
        if member is None:
            return None
        if view is not self._primary and verdict is not detector.FORCED_DOWN:
            name = self._primary.name
            if not self._primary.answering():
                why = f"{name} cannot be asked"
            elif self._judgement.fell(host):
                why = f"{name} has no later report"
            else:
                why = f"{name} does not know it yet"
            member = member._replace(
                reason=f"{member.reason}; by {view.name}, as {why}"
            )
        return member._replace(state=verdict.state)

    def opinions(self, host: str) -> list[Opinion]:
        """Return what each driver says of a member, the primary's first.

        :raises ServiceGroupUnavailable: as members
        """
        self._look("asked about")
        return [
            Opinion(view.name, view.recall(host), view.trouble)
            for view in (self._primary, *self._others)
        ]

    def is_alive(self, host: str) -> bool:
        """Whether host is up by itself, in any backend that can be asked.

        :raises MemberNotFound: no backend knows such a member
        :raises ServiceGroupUnavailable: the primary cannot be asked
        """
        if not self._primary.available():
            self._primary.is_alive(host)
        found = []
        for view in (self._primary, *self._others):
            if view.answering() and view.knows(host):
                found.append(view.is_alive(host))
        if not found:
            self.member(host)
        return any(found)

    def size(self) -> int:
        """Return how many members the largest of the last looks brought."""
        return max(view.size() for view in (self._primary, *self._others))

    def expire(self) -> None:
        """Have the next question answered by a new look at the primary."""
        self._primary.expire()

    def _look(self, what: str) -> None:
        """Look where need be; who hangs is waited for a while."""
        looking = [one.look() for one in self.secondaries if one.view.stale()]
        if self._primary.stale():
            self._primary.refresh()
        self._await(looking)
        if not any(
            view.available() for view in (self._primary, *self._others)
        ):
            raise exception.ServiceGroupUnavailable(
                f"The group {self.group} cannot be {what}: {self._trouble()}"
            )

    @staticmethod
    def _await(looking: list[threading.Thread | None]) -> None:
        give_up = time.monotonic() + secondary.FIRST_LOOK
        for thread in looking:
            if thread is not None:
                threads.join(thread, max(0.0, give_up - time.monotonic()))

    def _trouble(self) -> str:
        return "; ".join(
            f"{view.name}: {view.trouble or 'no answer yet'}"
            for view in (self._primary, *self._others)
            if not view.answering()
        )

    # -- from memory: no look, and no waiting for one that hangs

    def verdicts(self) -> dict[str, detector.Verdict]:
        """Return the verdicts by name, as the last looks left them."""
        return {
            host: self._judgement.judge(host)[1]
            for host in self._judgement.hosts()
        }

    def recall(self, host: str) -> Member | None:
        """Return one member as the last looks left it; None: no member."""
        return self._member(host)

    def lookings(self) -> list[metrics.Looking]:
        """Return how the looks go, the primary's first."""
        return [view.looking for view in (self._primary, *self._others)]

    # -- watching

    def watch(self, callback: Callable[[events.Event], None]) -> events.Watch:
        """Have callback called for every change from now on."""
        self._start()
        self._primary.update()
        for other in self.secondaries:
            other.have_it_say()
        with self._lock:
            self._tell()
            return self._watches.add(callback)

    def refresh(self) -> list[events.Event]:
        """Look at all backends now; who hangs is not waited for.

        :returns: what changed since the last look
        """
        looking = [one.look() for one in self.secondaries]
        self._primary.refresh()
        self._await(looking)
        with self._lock:
            self._compare()
            return self._tell()

    def _tell(self) -> list[events.Event]:
        old, new, known = self._told, {}, {}
        changes = []
        for host in self._judgement.hosts():
            view, verdict = self._judgement.judge(host)
            if verdict.state == detector.UNKNOWN:
                # No news, until somebody can say.
                if old and host in old:
                    new[host], known[host] = old[host], self._known[host]
                continue
            new[host] = verdict, view
            known[host] = view.known(host)
            was = old.get(host) if old is not None else None
            kind = events.change(was and was[0], verdict)
            if old is not None and kind is not None and known[host]:
                reason = view.explain(host, verdict)
                told = kind, host, known[host], reason, verdict.cause
                changes.append(view.event(*told))
        for host in (old or {}).keys() - new.keys():
            view = old[host][1]
            if self._known[host]:
                told = events.LEFT, host, self._known[host]
                changes.append(view.event(*told, *events.REMOVED))
        self._told, self._known = new, known
        self._watches.tell(changes)
        return changes

    # -- comparing, in the background

    def _compare(self) -> None:
        primary, now = self._primary, time.monotonic()
        for one in self.secondaries:
            if primary.answering() and one.view.answering():
                one.comparer.compare(
                    now,
                    secondary.settling_time(),
                    primary.last_verdicts,
                    one.view.last_verdicts,
                )
                one.log(primary.name, now)
            else:
                one.comparer.interrupt()
        self._judgement.note_the_fallen(now)

    def _start(self) -> None:
        self._used = time.monotonic()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed.is_set():
                    self._thread = threading.Thread(
                        target=self._run,
                        name=f"nova-sg-compare-{self.group}",
                        daemon=True,
                    )
                    self._thread.start()

    def _run(self) -> None:
        failure = trouble_log.Trouble()
        while not self._closed.is_set():
            with self._lock:
                idle = time.monotonic() - self._used > IDLE
                if idle and not self._watches:
                    self._thread = None
                    return
            begun = time.monotonic()
            try:
                self._step()
                failure.ends()
            except Exception:
                if failure.begins():
                    LOG.exception("Comparing the group %s failed", self.group)
            took = time.monotonic() - begun
            self._closed.wait(took * (1 - DUTY) / DUTY)
            self._changed.wait(CONF.servicegroup.view_refresh_interval)
            self._changed.clear()

    def _step(self) -> None:
        self._primary.keep()
        for other in self._others:
            other.start()
        with self._lock:
            self._compare()
            if self._watches:
                self._tell()

    def close(self) -> None:
        """Stop comparing, and end all subscriptions; the views go on."""
        self._closed.set()
        self._changed.set()
        self._watches.cancel()
        thread = self._thread
        if thread is not None:
            threads.join(thread, 5)
