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

"""Disagreements between a secondary and the primary, counted and logged."""

from __future__ import annotations

import collections
from typing import NamedTuple

from oslo_log import log as logging

from nova_sg.conf import CONF
from nova_sg.servicegroup import compare

LOG = logging.getLogger(__name__)

# Seconds between two log messages about the disagreements of one group.
LOG_EVERY = 60.0


class Disagreement(NamedTuple):
    """How a secondary disagrees with the primary on a group, in one way."""

    group: str
    primary: str
    secondary: str
    #: One of nova_sg.servicegroup.compare.KINDS.
    kind: str
    #: On how many members they disagree in this way now.
    members: int
    #: How many such disagreements there were since the process began.
    total: int


def settling_time() -> float:
    """Return the seconds after which a difference is a disagreement.

    One backend may show a death at once, and another only after a silence of
    service_down_time. The refresh that shows it may come a quarter of that
    time later.
    """
    return (
        1.25 * CONF.service_down_time
        + 2 * CONF.servicegroup.view_refresh_interval
    )


class Disagreements:
    """The disagreements between the primary and one secondary on a group."""

    def __init__(self, group: str, primary: str, secondary: str) -> None:
        self._names = group, primary, secondary
        self._comparer = compare.Comparer()
        # The disagreements that were logged last, by kind, and when.
        self._logged: dict[str, int] = {}
        self._logged_at = float("-inf")

    def __iter__(self):
        kinds = list(self._comparer.settled.values())
        for kind, total in self._comparer.totals.items():
            yield Disagreement(*self._names, kind, kinds.count(kind), total)

    def compare(
        self,
        now: float,
        primary: compare.Verdicts | None,
        secondary: compare.Verdicts | None,
    ) -> None:
        """Take in the verdicts by each alone; None: it does not answer."""
        if primary is None or secondary is None:
            self._comparer.interrupt()
            return
        self._comparer.compare(now, settling_time(), primary, secondary)
        self._log(now)

    def _log(self, now: float) -> None:
        settled = self._comparer.settled
        kinds = dict(collections.Counter(settled.values()))
        if kinds == self._logged or now - self._logged_at < LOG_EVERY:
            return
        self._logged, self._logged_at = kinds, now
        group, primary, secondary = self._names
        names = {"primary": primary, "secondary": secondary}
        if not kinds:
            LOG.info(
                "The drivers %(primary)s and %(secondary)s agree again on "
                "the group %(group)s",
                names | {"group": group},
            )
            return
        what = "; ".join(
            f"{count} {compare.KINDS[kind].format(**names)}"
            for kind, count in sorted(kinds.items())
        )
        LOG.warning(
            "The drivers %(primary)s and %(secondary)s disagree on members "
            "of the group %(group)s: %(what)s. One of these members is "
            "%(host)s; nova-sg doctor lists all of them",
            names | {"group": group, "what": what, "host": min(settled)},
        )
