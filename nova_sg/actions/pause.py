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

"""The note by which an operator pauses actions. No I/O, no clock here."""

from __future__ import annotations

import datetime
import json
from typing import NamedTuple

from nova_sg.servicegroup import events

#: Characters of a reason, at most.
LONGEST = 500


class Pause(NamedTuple):
    """Actions upon the events of a group are paused."""

    #: The host on which the operator gave the command.
    by: str
    #: When, UTC.
    at: datetime.datetime
    #: When it ends by itself, UTC; None: it does not.
    until: datetime.datetime | None
    #: What the operator gave as the reason; may be empty.
    reason: str

    def __str__(self) -> str:
        text = f"since {events.iso(self.at)}, by a command on {self.by}"
        if self.until is not None:
            text += f", until {events.iso(self.until)}"
        return f"{text} ({self.reason})" if self.reason else text


def write(pause: Pause) -> str:
    """Return a pause as a note."""
    fields = pause._asdict()
    fields["at"] = pause.at.isoformat()
    fields["until"] = pause.until and pause.until.isoformat()
    return json.dumps(fields)


def read(note: str, now: datetime.datetime) -> Pause | None:
    """Return the pause that a note has; None: actions are not paused.

    A note that makes no sense is a pause: another version may have written it.

    :param now: UTC
    """
    if not note:
        return None
    try:
        fields = json.loads(note)
        found = Pause(
            str(fields["by"]),
            _moment(fields["at"]),
            None if fields["until"] is None else _moment(fields["until"]),
            str(fields["reason"]),
        )
    except (ValueError, TypeError, KeyError):
        return Pause("an unknown host", now, None, "an unknown note")
    if found.until is not None and found.until <= now:
        return None
    return found


def _moment(text: str) -> datetime.datetime:
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return found
