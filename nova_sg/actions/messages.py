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

"""Events in the form of Nova's versioned notifications.

Pure functions: an event in, a dictionary for JSON out. The documentation lists
which fields are Nova's and which are nova_sg's own.
"""

from __future__ import annotations

import datetime
from typing import Any

from nova_sg.actions import schedule
from nova_sg.liveness import model
from nova_sg.servicegroup import description, events

#: The publisher, before the name of the host: consumers filter by it. No
#: service of Nova has this name.
PUBLISHER = "nova-sg"

# The state that follows from each cause.
_STATES = {verdict.cause: verdict.state for verdict in model.VERDICTS} | {
    events.REMOVED[1]: model.DOWN
}


def notification(
    job: schedule.Job, publisher: str, member: description.Member | None
) -> dict[str, Any]:
    """Return the notification of an event, the same for each attempt.

    :param publisher: the host of nova-sg watch
    :param member: the member as it is known now; None: it is not known
    """
    event = job.event
    return {
        # Consumers recognize a repetition by it.
        "message_id": job.id,
        "publisher_id": f"{PUBLISHER}:{publisher}",
        "event_type": f"service.{event.type}",
        "priority": "INFO",
        "timestamp": _nova(event.at, " "),
        "payload": {
            "nova_object.name": "ServiceLivenessPayload",
            "nova_object.namespace": "nova_sg",
            "nova_object.version": "1.1",
            "nova_object.data": {
                # The fields of Nova's ServiceStatusPayload 1.1.
                "host": event.host,
                "binary": event.binary,
                "topic": event.topic,
                "last_seen_up": event.last_seen
                and f"{_nova(event.last_seen, 'T', 'seconds')}Z",
                "disabled": member and member.disabled,
                "disabled_reason": member and member.disabled_reason,
                "forced_down": member and member.forced_down,
                # Not every backend has these.
                "availability_zone": None,
                "report_count": None,
                "uuid": None,
                "version": None,
                # The fields of nova_sg.
                "group": event.group,
                "state": _STATES.get(event.cause, model.UNKNOWN),
                "cause": event.cause,
                "reason": event.reason,
                "noticed_at": events.iso(event.at),
                # Since version 1.1.
                "failure_domain": event.domain,
            },
        },
    }


def _nova(
    moment: datetime.datetime, between: str, precision: str = "microseconds"
) -> str:
    """Write a moment as Nova does: in UTC, without its name."""
    return moment.replace(tzinfo=None).isoformat(between, precision)
