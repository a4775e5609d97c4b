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

"""Whether too much is down to act upon a down event.

Events, times and members in, a decision out. Nothing here does I/O or reads a
clock. Times are seconds of any monotonic clock.

A rack that loses its power, or a network that breaks, looks like many hosts
that die. To evacuate all of them makes it worse. So above a limit nothing is
done upon any of them, also not upon the first ones: a down event is judged
only after the time in which the others have to become known. Nor upon the last
ones, when the others come back one after the other: a limit has to be kept for
a while before anything is done again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple

from nova_sg.liveness import model
from nova_sg.servicegroup import description, events

HOUR = 3600.0

#: The causes of a suspension: the options, with dashes.
MAX_DOWN = "max-down"
MAX_DOWN_PER_DOMAIN = "max-down-per-domain"
MAX_PER_HOUR = "max-per-hour"

# Members that an operator, or the member itself, has taken out.
_ON_PURPOSE = (model.FORCED_DOWN.cause, model.LEFT.cause)


class Limit(NamedTuple):
    """How many members may be down: a number, or a share of the members."""

    text: str
    number: int
    #: From 0 to 1; None: the number counts.
    share: float | None = None

    def of(self, size: int) -> int:
        """Return how many of so many members may be down: at least one."""
        if self.share is None:
            return self.number
        # 10 % of 30 are 3, whatever binary fractions make of it.
        return max(1, math.floor(size * self.share + 1e-9))


def read_limit(text: str) -> Limit:
    """Read "3" or "10%".

    :raises ValueError: the text is something else
    """
    text = text.strip()
    digits = text.removesuffix("%").rstrip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise ValueError(f"{text!r} is neither a number, as 3, nor 10%")
    number = int(digits)
    if not text.endswith("%"):
        return Limit(text, number)
    if number > 100:
        raise ValueError(f"{text!r} is more than 100%")
    return Limit(text, 0, number / 100)


class Rules(NamedTuple):
    """The options of [events] by which down events are judged."""

    max_down: Limit | None = None
    max_down_per_domain: Limit | None = None
    #: Actions upon down events in any hour.
    max_per_hour: int | None = None
    #: Whether nothing is done upon members that an operator disabled.
    skip_disabled: bool = False

    @property
    def counts(self) -> bool:
        """Whether the members that are down are counted."""
        return bool(self.max_down or self.max_down_per_domain)


class Exceeded(NamedTuple):
    """A limit is exceeded."""

    #: MAX_DOWN, MAX_DOWN_PER_DOMAIN or MAX_PER_HOUR.
    cause: str
    #: The failure domain that it is about; None: the group.
    domain: str | None
    #: Why, as a clause, with the numbers.
    reason: str

    @property
    def what(self) -> tuple[str, str | None]:
        """What tells this suspension from others."""
        return self.cause, self.domain


class Limits:
    """Judges down events, and counts what was done upon them.

    :param rules: the options
    :param settle: seconds for which a limit on members that are down has to
        be kept after it was exceeded
    """

    def __init__(self, rules: Rules, settle: float = 0.0) -> None:
        self.rules = rules
        self._settle = settle
        # By Exceeded.what: when a limit was found exceeded last, and how.
        self._last: dict[tuple, tuple[float, Exceeded]] = {}
        # By event: when it was first acted upon. In order of time.
        self._acted: dict[tuple, float] = {}

    def exceeded(
        self,
        members: Collection[description.Member],
        domains: Iterable[str | None],
        now: float,
    ) -> list[Exceeded]:
        """Return the limits that are exceeded: what is done, and is down.

        :param members: the members of the group
        :param domains: the failure domains to judge; None is none
        """
        found = [
            *self._too_many(members, self.rules.max_down, MAX_DOWN, None, now),
            *(
                one
                for domain in dict.fromkeys(domains)
                if domain is not None
                for one in self._too_many(
                    [m for m in members if m.domain == domain],
                    self.rules.max_down_per_domain,
                    MAX_DOWN_PER_DOMAIN,
                    domain,
                    now,
                )
            ),
        ]
        self._forget(now)
        most = self.rules.max_per_hour
        if most is not None and len(self._acted) >= most:
            found.append(
                Exceeded(
                    MAX_PER_HOUR,
                    None,
                    f"{len(self._acted)} down events were acted upon within "
                    f"an hour; [events] max_per_hour is {most}",
                )
            )
        return found

    def admit(
        self,
        event: events.Event,
        members: Collection[description.Member],
        now: float,
    ) -> list[Exceeded]:
        """Return what forbids to act upon a down event now; none: nothing.

        Then it is counted as acted upon. A further attempt for the same event
        is not counted again.
        """
        domain = next(
            (m.domain for m in members if m.host == event.host), event.domain
        )
        found = self.exceeded(members, [domain], now)
        if _key(event) in self._acted:
            found = [one for one in found if one.cause != MAX_PER_HOUR]
        if not found:
            self._acted.setdefault(_key(event), now)
        return found

    def skips(
        self, event: events.Event, members: Collection[description.Member]
    ) -> bool:
        """Whether nothing is done as an operator disabled the member."""
        return self.rules.skip_disabled and any(
            m.disabled for m in members if m.host == event.host
        )

    def _too_many(
        self,
        members: Collection[description.Member],
        limit: Limit | None,
        cause: str,
        domain: str | None,
        now: float,
    ) -> list[Exceeded]:
        if limit is None:
            return []
        counted = [one for one in members if self._counts(one)]
        down = sum(one.state == model.DOWN for one in counted)
        if down <= limit.of(len(counted)):
            at, before = self._last.get((cause, domain), (-math.inf, None))
            if before is not None and now < at + self._settle:
                return [before]
            return []
        where = f" of the failure domain {domain}" if domain else ""
        option = cause.replace("-", "_")
        found = Exceeded(
            cause,
            domain,
            f"{down} of {len(counted)} members{where} are down; [events] "
            f"{option} is {limit.text}",
        )
        self._last[found.what] = now, found
        return [found]

    def _counts(self, member: description.Member) -> bool:
        """Whether a member should be alive."""
        if member.state == model.DOWN and member.cause in _ON_PURPOSE:
            return False
        return not (self.rules.skip_disabled and member.disabled)

    def _forget(self, now: float) -> None:
        self._acted = {
            key: at for key, at in self._acted.items() if at > now - HOUR
        }


def _key(event: events.Event) -> tuple:
    return event.group, event.host, event.at


def suspended(
    exceeded: Exceeded, event: events.Event
) -> events.Event:
    """Return the event that nothing is done, as a limit is exceeded.

    :param event: the down event at which that was found
    """
    return event._replace(
        type=events.SUSPENDED,
        host="",
        binary=None,
        last_seen=None,
        reason=exceeded.reason,
        cause=exceeded.cause,
        domain=exceeded.domain,
        disabled=False,
    )
