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

"""Whether an action may begin: the limits, the pause and the lock together.

One gate for all handlers, so that each event is counted once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from oslo_log import log as logging

from nova_sg.actions import limits, permission
from nova_sg.servicegroup import description, events

LOG = logging.getLogger(__name__)

#: Answers beside those of permission: nothing is to be done.
ACT, WAIT, LEAVE = permission.ACT, permission.WAIT, permission.LEAVE
SKIP = "skip"


class Gate:
    """Decides whether an action may begin.

    :param judge: the limits
    :param members: returns the members of the group as they are known; None:
        that is not known now
    :param tell: called with an event of the type suspended, by any thread
    """

    def __init__(
        self,
        judge: limits.Limits,
        members: Callable[[], Sequence[description.Member] | None],
        tell: Callable[[events.Event], None],
    ) -> None:
        self._limits = judge
        self._members = members
        self._tell = tell
        #: Set before the first question.
        self.permission: permission.Permission | None = None
        self._lock = threading.Lock()
        # The limits that are exceeded, by limits.Exceeded.what.
        self._suspended: dict[tuple, limits.Exceeded] = {}

    @property
    def confirms(self) -> bool:
        """Whether a refresh has to confirm each down event."""
        return self._limits.rules != limits.Rules()

    @property
    def others_act(self) -> bool:
        """Whether another process has the lock."""
        return (
            self.permission is not None and self.permission.ask() == LEAVE
        )

    def ask(self, event: events.Event, again: bool) -> str:
        """Return ACT, WAIT or LEAVE by what is known in this moment.

        :param again: whether there was an attempt
        """
        if self.permission is not None:
            answer = self.permission.ask()
            if answer != ACT:
                return answer
        if event.type == events.DOWN and self.reason(event, again):
            return WAIT
        return ACT

    def reason(self, event: events.Event, again: bool) -> str:
        """Return which limit forbids to act upon an event; empty: none."""
        with self._lock:
            for one in self._suspended.values():
                if again and one.cause == limits.MAX_PER_HOUR:
                    # It is counted already.
                    continue
                if one.domain in (None, event.domain):
                    return one.reason
        return ""

    def admit(self, event: events.Event, again: bool) -> str:
        """Return ACT, WAIT or SKIP for a down event, just confirmed.

        ACT means that it is counted as acted upon.

        :param again: whether there was an attempt
        """
        if not self.confirms:
            return ACT
        members = self._members()
        if members is None:
            return WAIT
        news = []
        with self._lock:
            if not again and self._limits.skips(event, members):
                LOG.info(
                    "Nothing is done upon down of %s, as it is disabled",
                    event.host,
                )
                return SKIP
            found = self._limits.admit(event, members, time.monotonic())
            for one in found:
                if one.what not in self._suspended:
                    news.append(one)
                self._suspended[one.what] = one
        for one in news:
            LOG.warning(
                "Actions upon down events of group %(group)s are suspended: "
                "%(reason)s. Find out what is broken; see with nova-sg list",
                {"group": event.group, "reason": one.reason},
            )
            self._tell(limits.suspended(one, event))
        return WAIT if found else ACT

    def review(self) -> None:
        """End the suspensions whose limits are no longer exceeded."""
        if not self._suspended:
            return
        members = self._members()
        if members is None:
            return
        with self._lock:
            domains = {one.domain for one in self._suspended.values()}
            found = {
                one.what: one
                for one in self._limits.exceeded(
                    members, domains, time.monotonic()
                )
            }
            over = [one for one in self._suspended if one not in found]
            self._suspended = {
                one: found[one] for one in self._suspended if one in found
            }
        for cause, domain in over:
            LOG.warning(
                "Actions upon down events are no longer suspended by [events] "
                "%(option)s%(where)s",
                {
                    "option": cause.replace("-", "_"),
                    "where": f" in {domain}" if domain else "",
                },
            )
