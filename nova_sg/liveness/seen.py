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

"""What a backend has shown of one member, added up over all refreshes.

This observer knows of a new report because the member's mark has changed
since the refresh before. The age of the report is measured on this observer's
own clock. The backend's stamp is used at the first refresh, where there is
nothing else. Later it only tells when the report was written between the two
refreshes.
"""

from __future__ import annotations

from nova_sg.liveness.model import NEVER, Limits, Observation, Seen
from nova_sg.liveness.outages import MARGIN


def first(observation: Observation, asked: float, limits: Limits) -> Seen:
    """Return what is known of a member after its first observation.

    :param asked: when the backend was asked
    """
    limit = limits.service_down_time
    mark, stamp = observation.mark, observation.reported
    report = grace = NEVER
    # A stamp from the future is not believed: such a member is down, as in
    # Nova.
    if mark is not None and (stamp is None or stamp <= asked + limit):
        report = asked if stamp is None else min(stamp, asked)
    if observation.facts.present:
        report = asked
    if asked <= report + limit:
        # The stamp may come from a clock that is behind: the member has time
        # until its next report is due.
        grace = asked + limits.due
    gone = NEVER
    if observation.facts.gone:
        # It may have left long ago, and have reported to another backend
        # since. So the moment is right after its last report here.
        last = report if stamp is None else max(report, stamp)
        gone = min(last + min(MARGIN, limits.due), asked)
        if last == NEVER:
            gone = asked
    return Seen(
        observation,
        mark,
        report,
        _registered(observation, asked, limit),
        observation.last_seen,
        gone,
        grace,
        asked if observation.facts.lost else NEVER,
    )


def again(
    before: Seen,
    observation: Observation,
    since: float,
    asked: float,
    limits: Limits,
    up: bool,
    exact: bool = False,
) -> Seen:
    """Return what is known of a member after another observation.

    :param since: when the backend was asked before
    :param asked: when it was asked now
    :param up: whether the member was up
    :param exact: whether stamps are exact, see Refresh
    """
    report, mark = before.report, before.mark
    last_seen = before.last_seen
    if before.observation.facts.present:
        report = max(report, since)
    if observation.mark not in (None, mark):
        earliest = report if exact else since
        report = _between(observation.reported, earliest, asked)
        mark, last_seen = observation.mark, observation.last_seen
    if observation.facts.present:
        report = asked
    gone = grace = NEVER
    if observation.facts.gone:
        # The earliest possible moment: a report to another backend may be
        # later.
        gone = max(since, report)
        if before.gone > NEVER and before.mark == mark:
            gone = before.gone
    if observation.facts.vanished:
        if before.observation.facts.vanished:
            grace = before.grace
        elif up:
            grace = asked + limits.due
    ended = NEVER
    if observation.facts.lost:
        ended = before.ended if before.observation.facts.lost else asked
    registered = _registered(observation, asked, limits.service_down_time)
    return Seen(
        observation,
        mark,
        report,
        max(registered, before.registered),
        last_seen,
        gone,
        grace,
        ended,
    )


def is_older(
    observation: Observation, before: Seen, limits: Limits
) -> bool:
    """Whether an observation comes from a server that is behind.

    Such an observation has a smaller mark. But if its stamp is far newer, the
    numbers have started again, as after a backup was restored. Far, as the
    clocks of two servers may differ.
    """
    mark, than = observation.mark, before.mark
    last, known = observation.last_seen, before.last_seen
    if mark is None and observation.facts.gone:
        # A member that leaves keeps the time of its last report, but no mark.
        return last is not None and known is not None and last < known
    if than is None or mark is None or mark >= than:
        return False
    if before.gone > NEVER and last is not None and known is not None:
        # The marks of a member that joins again may start again.
        return last <= known
    reported = observation.reported
    far = max(MARGIN, limits.service_down_time - limits.due)
    return reported is None or reported <= before.report + far


def has_reported(before: Seen, observation: Observation) -> bool:
    """Whether an observation shows that the member has reported since."""
    return observation.facts.present or observation.mark not in (
        None,
        before.mark,
    )


def _between(stamp: float | None, since: float, asked: float) -> float:
    if stamp is None:
        return asked
    return min(max(stamp, since), asked)


def _registered(observation: Observation, asked: float, limit: float) -> float:
    registered = observation.registered
    if registered is None or registered > asked + limit:
        return NEVER
    return registered
