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

"""When a silence becomes too long."""

from __future__ import annotations

from collections.abc import Iterable

from nova_sg.liveness.model import Outage


def deadline(
    outages: Iterable[Outage], since: float, limit: float, long: float
) -> float:
    """Return the last moment at which a silence is not too long.

    A member may be silent for limit seconds. An outage adds its own length,
    as the member could not report in that time.

    After an outage in which every member missed a report, the whole limit
    begins again at the end of the outage: a member may need its full interval
    until it reports again. Several such outages together never give more than
    two limits. So a backend that fails again and again does not keep dead
    members up.

    An outage that begins after the deadline changes nothing: the member was
    down before it.

    :param outages: disjoint, the earliest first
    :param since: the last report
    :param limit: seconds of silence that are allowed
    :param long: seconds of an outage in which every member misses a report
    """
    due = since + limit
    excused = 0.0
    for begin, end, missed in outages:
        if end <= since:
            continue
        begin = max(begin, since)
        if begin > due:
            break
        excused += end - begin
        if missed or end - begin >= long:
            due = min(end + limit, since + excused + 2 * limit)
        else:
            due += end - begin
    return due
