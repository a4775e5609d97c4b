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

"""Members that are too old to be listed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nova_sg.backends import base
from nova_sg.liveness.model import NEVER, Observation


class Unlisted:
    """The members of each group that are not listed.

    :param is_own: whether the table is nova_sg's own: Nova lists all of its
        own
    """

    def __init__(self, is_own: Callable[[], bool]) -> None:
        self._is_own = is_own
        # By group and host: members that are too old to be listed, with the
        # number of their last report, and since when this process knows that.
        self._aging: dict[str, dict[str, tuple[Any, float]]] = {}
        # By group: the members that the last observation left out, with the
        # seconds since their last sign of life.
        self._unlisted: dict[str, dict[str, float]] = {}

    def of(self, group: str) -> dict[str, float]:
        """Return the members that the last observation left out.

        :returns: the seconds since their last sign of life, by name
        """
        return self._unlisted.get(group, {})

    def leave_out(
        self, group: str, now: float, found: list[Observation]
    ) -> list[Observation]:
        """Return the members that are to be listed.

        Their age is by the database's clock, which may have been set. So a
        member that was listed before goes on for a while.
        """
        first, before = group not in self._aging, self._aging.get(group, {})
        aging, unlisted = {}, {}
        oldest = now - base.LISTED
        # Most have reported since: written for speed.
        old = [
            one
            for one in found
            if (one[2] is None or one[2] < oldest) and _is_old(one, oldest)
        ]
        if old and not self._is_own():
            return found
        for one in old:
            last, since = before.get(
                one.host, (one.report_number, NEVER if first else now)
            )
            if last != one.report_number:
                since = now
            aging[one.host] = one.report_number, since
            if now - since >= base.UNCHANGED:
                unlisted[one.host] = now - _seen(one)
        self._aging[group], self._unlisted[group] = aging, unlisted
        if not unlisted:
            return found
        return [one for one in found if one.host not in unlisted]


def _seen(one: Observation) -> float:
    """Return a member's last sign of life; infinite: it is not known."""
    seen = one.registered if one.reported is None else one.reported
    return math.inf if seen is None else seen


def _is_old(one: Observation, oldest: float) -> bool:
    """Whether a member's last sign of life is too old to be listed."""
    return _seen(one) < oldest and not (
        one.attributes.forced_down or one.attributes.disabled
    )
