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

"""The observer of one group in this process.

For each backend there is a poller, with a thread of its own. It refreshes the
group and passes the answer to the rules of nova_sg.liveness. The result is an
immutable Group that replaces the one before. A question reads it and waits
for nothing. So a backend that hangs delays neither a question nor the refresh
of another backend.

A poller starts with the first question, which waits for its first refresh. It
ends when there has been no question for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

from nova_sg import hold_log, threads
from nova_sg.liveness import detector
from nova_sg.liveness import group as liveness
from nova_sg.liveness.model import (
    NEVER,
    NOT_A_MEMBER,
    UNAVAILABLE,
    UNWATCHED,
    Change,
    Member,
    Outage,
    Refresh,
    Verdict,
)
from nova_sg.own_action import OwnAction
from nova_sg.poller import LATE, PAUSE, Poller, Settings, Source, await_all

# Seconds without a question after which an observer stops polling.
IDLE = 120.0
# Refreshes of one backend take this fraction of the time at most.
DUTY = 0.1
# Seconds that a question waits at most while nothing is known of the group:
# for the first backend, and for the others once one has answered.
FIRST_WAIT, OTHERS_WAIT = 10.0, 5.0
# Seconds that a question waits for a poller that is late; and for one whose
# refresh is under way, as the backend may hang.
TURN, SHORT_TURN = 0.5, 0.03


class Listener:
    """Is told of refreshes and changes; a subclass overrides what it needs.

    Called on the thread of a poller, which continues when the call returns.
    """

    def answered(
        self, backend: str, begun: float, ended: float, interrupted: bool
    ) -> None:
        """A refresh has succeeded."""

    def failed(
        self, backend: str, begun: float, ended: float, error: str
    ) -> None:
        """A refresh has failed."""

    def changed(self, group: liveness.Group, changes: list[Change]) -> None:
        """The changes of one refresh. Refreshes come in order.

        Not called for the first refresh: its members are not new.
        """


class Observer:
    """Observes one group.

    :param group: its name
    :param sources: the backends, the primary first
    :param settings: returns the settings; called for each refresh
    :param listener: told of refreshes and changes
    """

    def __init__(
        self,
        group: str,
        sources: Sequence[Source],
        settings: Callable[[], Settings],
        listener: Listener | None = None,
    ) -> None:
        self.name = group
        self._read_settings = settings
        self._listener = listener or Listener()
        #: The settings of the last refresh.
        self.settings = settings()
        self._group = liveness.new(*(source.name for source in sources))
        self._pollers = [Poller(self, source) for source in sources]
        # Held while the group is replaced; never during I/O.
        self._lock = threading.Lock()
        # Replaced as a whole, like the group.
        self._own_actions: dict[str, OwnAction] = {}
        # The names of members by their casefolded form, and the members that
        # they were made of.
        self._by_folded_name: tuple[
            Mapping[str, Member], dict[str, str | None]
        ] = ({}, {})
        # When the last question was asked.
        self._used = NEVER
        # From this moment on a question has to check the pollers.
        self._check_due = NEVER
        # Until this moment the last answer of each backend is fresh enough.
        self._fresh_until = NEVER
        #: Whether there are subscriptions: then it never stops polling.
        self.watched = False

    # -- questions

    @property
    def group(self) -> liveness.Group:
        """The group as it is known now: immutable."""
        return self._group

    @property
    def own_actions(self) -> dict[str, OwnAction]:
        """What this process did and no refresh shows yet, by host."""
        return self._own_actions

    def verdict(self, host: str) -> Verdict:
        """Return the verdict on a member, from memory."""
        now = time.monotonic()
        if now > self._check_due:
            self.keep_fresh()
        self._used = now
        if now > self._fresh_until or self._own_actions:
            return self.judge(host)
        members = self._group.members
        member = members.get(host) or members.get(self.name_of(host))
        return NOT_A_MEMBER if member is None else member.verdict

    def name_of(self, host: str) -> str:
        """Return the name by which a member is known.

        The services table may have another case than the name by which the
        service joined: Nova finds a service's record whatever its case. So if
        no member has exactly this name, and the names of one member alone
        differ from it in case only, that one is meant.
        """
        members = self._group.members
        if host in members or host in self._own_actions:
            return host
        made_of, names = self._by_folded_name
        if made_of is not members:
            names = {}
            for name in members:
                folded = name.casefold()
                names[folded] = None if folded in names else name
            self._by_folded_name = members, names
        return names.get(host.casefold()) or host

    def judge(self, host: str) -> Verdict:
        """Return the verdict on a member; starts no poller."""
        host = self.name_of(host)
        limit = self.settings.limits.service_down_time
        # Before the group: a refresh that shows the action replaces the group
        # first, and then forgets the action.
        own = self._own_actions.get(host)
        group = self._group
        verdict = group.verdict(host, time.monotonic(), limit)
        if verdict is UNAVAILABLE and self._give_turn():
            group = self._group
            verdict = group.verdict(host, time.monotonic(), limit)
        if own is None:
            return verdict
        member = group.members.get(host)
        return own.over(
            verdict, verdict if member is None else member.unforced
        )

    def last_verdict(self, host: str) -> Verdict | None:
        """Return the verdict of the last refresh that was answered.

        :returns: None: no refresh was ever answered, or the answer was that
            the member's state is not known
        """
        host = self.name_of(host)
        # As in judge().
        own = self._own_actions.get(host)
        group = self._group
        if group.refreshed == NEVER:
            return None
        member = group.members.get(host)
        verdict = NOT_A_MEMBER if member is None else member.verdict
        if own is not None:
            verdict = own.over(
                verdict, verdict if member is None else member.unforced
            )
        return None if verdict is UNWATCHED else verdict

    def _give_turn(self) -> bool:
        """Wait a moment for refreshes under way.

        Their answers may have arrived while their threads got no turn.

        :returns: whether there were such refreshes
        """
        refreshing = [one for one in self._pollers if one.is_refreshing]
        if refreshing and not any(one.trouble for one in self._pollers):
            await_all(refreshing, time.monotonic() - SHORT_TURN, SHORT_TURN)
            return True
        return False

    def keep_fresh(self) -> None:
        """Start the pollers; they run while there are questions.

        Waits for an answer if nothing is known yet, and for a moment if
        pollers are late.
        """
        now = time.monotonic()
        quiet, self._used = now - self._used > LATE, now
        begun = [one for one in self._pollers if one.begin()]
        late = [one for one in self._pollers if one.is_late(now)]
        if quiet:
            late += self._suspended(now)
        for poller in late:
            poller.wake()
        if begun or (late and self.unavailable()):
            self._await_answers()
        elif late:
            await_all(late, now, TURN)
        self._check_due = min((one.due for one in self._pollers), default=now)

    def _suspended(self, now: float) -> list[Poller]:
        """Return the pollers that were suspended during a refresh.

        The whole process may have been suspended, or no thread ran between
        two requests, as in uWSGI. The answer that such a poller then gets is
        old. Pollers that are still asking after a moment are not among them:
        they wait for a backend that hangs.
        """
        refreshing = [
            one for one in self._pollers if one.is_refreshing and now > one.due
        ]
        give_up = time.monotonic() + SHORT_TURN
        while any(one.is_refreshing for one in refreshing):
            if time.monotonic() > give_up:
                break
            time.sleep(PAUSE)
        return [one for one in refreshing if not one.is_refreshing]

    def _await_answers(self) -> None:
        """Wait until something is known, unless all backends have failed."""
        # Not for backends that have failed.
        pending = [one for one in self._pollers if not one.trouble]
        since = time.monotonic()
        while pending and self.unavailable():
            if time.monotonic() > since + FIRST_WAIT:
                return
            time.sleep(PAUSE)
            pending = [one for one in pending if not one.trouble]
        # Then for the others: they may know members that one does not.
        await_all(pending, NEVER, OTHERS_WAIT)

    def refresh(self, wait: float) -> bool:
        """Refresh from each backend now, once.

        :param wait: seconds to wait at most
        :returns: whether all refreshes have ended, successful or not
        """
        now = time.monotonic()
        for poller in self._pollers:
            poller.refresh_once()
        return await_all(self._pollers, now, wait)

    def trouble(self) -> str:
        """Return the errors of backends whose last refresh failed, as text.

        Empty: there are none.
        """
        troubled = [one for one in self._pollers if one.trouble]
        if len(self._pollers) == 1:
            return "".join(one.trouble for one in troubled)
        return "; ".join(
            f"{one.source.name}: {one.trouble}" for one in troubled
        )

    def trouble_of(self, backend: str) -> str:
        """Return the error of a backend's last refresh; empty: none."""
        return next(
            one.trouble for one in self._pollers if one.source.name == backend
        )

    def is_fresh(self) -> bool:
        """Whether each backend's last answer is fresh enough."""
        return time.monotonic() <= self._fresh_until

    def unavailable(self) -> bool:
        """Whether no backend has answered for service_down_time."""
        limit = self.settings.limits.service_down_time
        return self._group.unavailable(time.monotonic(), limit)

    def is_idle(self) -> bool:
        """Whether there are no questions and no subscriptions."""
        idle = time.monotonic() - self._used > IDLE
        return idle and not self.watched

    # -- what this process does itself

    def note_own_action(self, host: str, verdict: Verdict | None) -> None:
        """Note what this process did to a member, before a refresh shows it.

        :param verdict: see OwnAction
        """
        own = OwnAction(verdict, time.monotonic())
        with self._lock:
            self._own_actions = {**self._own_actions, host: own}
        for poller in self._pollers:
            poller.wake()

    def await_own_actions(self, wait: float) -> None:
        """Wait until refreshes show what this process did.

        :param wait: seconds to wait at most
        """
        give_up = time.monotonic() + wait
        while self._own_actions and time.monotonic() < give_up:
            time.sleep(PAUSE)

    def reports_fail(
        self, backend: str, source: Hashable, begin: float, certain: float
    ) -> None:
        """Note that reports of this process fail."""
        with self._lock:
            self._group = self._group.reports_fail(
                backend, source, begin, certain
            )

    def reports_work(
        self, backend: str, source: Hashable, certain: float
    ) -> None:
        """Note that they succeed again, or that there are no more of them."""
        with self._lock:
            self._group = self._group.reports_work(backend, source, certain)

    def backend_out(self, backend: str, outage: Outage) -> None:
        """Add an outage that a backend's server shows."""
        with self._lock:
            self._group = self._group.backend_out(backend, outage)

    def silent_since(self, backend: str, asked: float) -> float | None:
        """Return the last report to a backend, if the next one is overdue.

        :param asked: when the last refresh from it began
        :returns: None: a member has reported in time, no member ever has, or
            fewer than two members could
        """
        group, limits = self._group, self.settings.limits
        last = group.backends[group.place(backend)].last_report
        if last == NEVER or last >= asked - limits.due:
            return None
        index, there = group.place(backend), 0
        for member in group.members.values():
            seen = member.histories[index]
            if seen is not None and not seen.observation.attributes.gone:
                there += 1
                if there == 2:
                    return last
        return None

    # -- for the pollers

    def configure(self) -> None:
        """Read the settings."""
        self.settings = self._read_settings()

    def answered(self, refresh: Refresh, ended: float) -> None:
        """Take in a refresh that succeeded.

        :param ended: when it ended
        """
        limits = self.settings.limits
        with self._lock:
            before = self._group
            # Other threads run meanwhile, and see the group before.
            after, changes = detector.step(
                before, refresh, limits, threads.in_slices
            )
            self._group = after
            if self._own_actions:
                self._forget_own_actions(after)
            limit = limits.service_down_time
            self._fresh_until = after.refreshed_by_all + limit
            self._tell(before, after, refresh.backend, changes)
        hold_log.log(self.name, before, after, limits)
        self._listener.answered(
            refresh.backend, refresh.asked, ended, refresh.interrupted
        )

    def _forget_own_actions(self, group: liveness.Group) -> None:
        """Forget actions that all reachable backends show."""
        known = min(
            backend.refreshed
            for backend in group.backends
            if backend.failed is None
        )
        self._own_actions = {
            host: own
            for host, own in self._own_actions.items()
            if own.at >= known
        }

    def _tell(
        self,
        before: liveness.Group,
        after: liveness.Group,
        backend: str,
        changes: list[Change],
    ) -> None:
        if before.refreshed == NEVER:
            return
        if before.backends[before.place(backend)].refreshed == NEVER:
            # Members that this backend alone knows are not new: this is its
            # first answer.
            changes = [change for change in changes if change.was is not None]
        if changes:
            self._listener.changed(after, changes)

    def failed(
        self, backend: str, asked: float, ended: float, error: str
    ) -> None:
        """Take in that a refresh has failed."""
        with self._lock:
            self._group = self._group.refresh_failed(backend, asked)
        self._listener.failed(backend, asked, ended, error)

    def pause(self, took: float, trouble: bool) -> float:
        """Return the seconds until the next refresh.

        :param took: seconds that the last one took
        :param trouble: whether it failed
        """
        limit = self.settings.limits.service_down_time
        # In time, so that the last answer does not become too old.
        interval = min(self.settings.refresh_interval, limit / 2)
        if trouble:
            # A failed refresh spent its time waiting, which is no load for
            # the backend.
            return interval
        # Also for a large group or a slow backend: four refreshes at least
        # in service_down_time.
        pause = max(interval, min(took * (1 - DUTY) / DUTY, limit / 4))
        group = self._group
        if any(backend.spread for backend in group.backends):
            # A member whose session ended is judged at its deadline.
            left = group.next_deadline - time.monotonic()
            if 0 < left < pause:
                pause = left + 0.001
        return pause

    def request_check(self) -> None:
        """Make the next question check the pollers."""
        self._check_due = NEVER

    def close(self) -> None:
        """Stop polling."""
        for poller in self._pollers:
            poller.close()
