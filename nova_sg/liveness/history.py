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

This observer knows of a new report because the number of the last report has
changed since the refresh before. The age of the report is measured on this
observer's own clock. The backend's stamp is used at the first refresh, where
there is nothing else. Later it only tells when the report was written between
the two refreshes.
"""

from __future__ import annotations

from nova_sg.liveness.model import NEVER, History, Limits, Observation
from nova_sg.liveness.outages import MARGIN


def first(observation: Observation, asked: float, limits: Limits) -> History:
    """Return what is known of a member after its first observation.

    :param asked: when the backend was asked
    """
    limit = limits.service_down_time
    report_number, stamp = observation.report_number, observation.reported
    report = grace = NEVER
    # A stamp from the future is not believed: such a member is down, as in
    # Nova.
    if report_number is not None and (stamp is None or stamp <= asked + limit):
        report = asked if stamp is None else min(stamp, asked)
    if observation.attributes.present:
        report = asked
    if asked <= report + limit:
        # The stamp may come from a clock that is behind: the member has time
        # until its next report is due.
        grace = asked + limits.due
    gone = NEVER
    if observation.attributes.gone:
        # It may have left long ago, and have reported to another backend
        # since. So the moment is right after its last report here.
        last = report if stamp is None else max(report, stamp)
        gone = min(last + min(MARGIN, limits.due), asked)
        if last == NEVER:
            gone = asked
    return History(
        observation,
        report_number,
        report,
        _registered(observation, asked, limit),
        observation.last_seen,
        gone,
        grace,
        asked if observation.attributes.lost else NEVER,
        observation.attributes.domain,
    )


def again(
    before: History,
    observation: Observation,
    since: float,
    asked: float,
    limits: Limits,
    up: bool,
    exact: bool = False,
) -> History:
    """Return what is known of a member after another observation.

    :param since: when the backend was asked before
    :param asked: when it was asked now
    :param up: whether the member was up
    :param exact: whether stamps are exact, see Refresh
    """
    report, report_number = before.report, before.report_number
    last_seen = before.last_seen
    if before.observation.attributes.present:
        report = max(report, since)
    if observation.report_number not in (None, report_number):
        earliest = report if exact else since
        report = _between(observation.reported, earliest, asked)
        report_number, last_seen = (
            observation.report_number,
            observation.last_seen,
        )
    if observation.attributes.present:
        report = asked
    gone = grace = NEVER
    if observation.attributes.gone:
        # The earliest possible moment: a report to another backend may be
        # later.
        gone = max(since, report)
        if before.gone > NEVER and before.report_number == report_number:
            gone = before.gone
    if observation.attributes.vanished:
        if before.observation.attributes.vanished:
            grace = before.grace
        elif up:
            grace = asked + limits.due
    ended = NEVER
    if observation.attributes.lost:
        ended = before.ended if before.observation.attributes.lost else asked
    domain = observation.attributes.domain
    if domain is None and observation.attributes.vanished:
        # The backend has lost what the member reported.
        domain = before.domain
    registered = _registered(observation, asked, limits.service_down_time)
    return History(
        observation,
        report_number,
        report,
        max(registered, before.registered),
        last_seen,
        gone,
        grace,
        ended,
        domain,
    )


def is_older(
    observation: Observation, before: History, limits: Limits
) -> bool:
    """Whether an observation comes from a server that is behind.

    Such an observation has a smaller number. But if its stamp is far newer,
    the numbers have started again, as after a backup was restored. Far, as the
    clocks of two servers may differ.
    """
    report_number, than = observation.report_number, before.report_number
    last, known = observation.last_seen, before.last_seen
    if report_number is None and observation.attributes.gone:
        # A member that leaves keeps the time of its last report, but not
        # its number.
        return last is not None and known is not None and last < known
    if than is None or report_number is None or report_number >= than:
        return False
    if before.gone > NEVER and last is not None and known is not None:
        # The numbers of a member that joins again may start again.
        return last <= known
    reported = observation.reported
    far = max(MARGIN, limits.service_down_time - limits.due)
    return reported is None or reported <= before.report + far


def has_reported(before: History, observation: Observation) -> bool:
    """Whether an observation shows that the member has reported since."""
    return observation.attributes.present or observation.report_number not in (
        None,
        before.report_number,
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
