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

"""A whole group in one value: how MariaDB and MySQL answer a refresh.

To take a row of a result apart takes PyMySQL longer than all else that is done
with it, and the server longer to send it. So the server joins all records of a
group to one text, see queries.observe_together(). Here that text is read. A
record that shows nothing new since the last refresh is not read again.
"""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

from nova_sg import threads
from nova_sg.backends.db import queries, records
from nova_sg.backends.db.models import CRASHED
from nova_sg.liveness.model import Attributes, Observation

# Of a record: the values before those of its Attributes, and all of them.
_FIRST, _ALL = 5, 10


class Row(NamedTuple):
    """A record, with the columns of queries.observe()."""

    now: Any
    id: int
    host: str | None
    topic: str | None
    binary: str | None
    report_count: int | None
    last_seen_up: Any
    created_at: Any
    forced_down: int | None
    disabled: int | None
    disabled_reason: str | None


class GroupReader:
    """Reads the text of one group, again and again.

    :param reader: what makes observations of rows
    """

    def __init__(self, reader: records.Reader) -> None:
        self._reader = reader
        # The observations of the last refresh, in the order of the records,
        # which is mostly the same.
        self._before: list[Observation] = []
        # The attributes of members that have neither left nor crashed, by the
        # text of their values.
        self._attributes: dict[str, Attributes] = {}

    def read(self, asked: float, number: int, text: Any) -> list[Observation]:
        """Return an observation for each record that has a host's name.

        :param asked: when the table was read, monotonic
        :param number: how many records there are
        :raises ValueError: the text is not what these records would give: it
            is cut off, or a value has a character that separates values
        """
        texts = _split(number, text)
        before, known = self._before, self._attributes
        if len(known) > records.MOST_ATTRIBUTES:
            known = self._attributes = {}
        most = len(before)
        found: list[Observation] = []
        for record in threads.in_slices(texts):
            # Written for speed, as Reader.observation().
            service_id, count, host, seen, created, rest = record.split(
                queries.VALUE_END, _FIRST
            )
            place = len(found)
            if place < most:
                last = before[place]
                # The text of a number is never longer than needed.
                if (
                    last[0] == host
                    and last[5] is known.get(rest)
                    and last[1] == (int(service_id), _number(count))
                ):
                    found.append(last)
                    continue
            row = _row(service_id, count, host, seen, created, rest)
            if not self._reader.named(row):
                continue
            observation = self._reader.observation(asked, row)
            if row.report_count not in (0, CRASHED):
                known[rest] = observation.attributes
            found.append(observation)
        self._before = found
        return found


def _split(number: int, text: Any) -> list[str]:
    """Return the texts of the records.

    A value with a separator in it gives one part too many. Each record ends
    with a separator, so one that is cut off has one part too few.
    """
    if not number:
        return []
    texts = text.split(queries.RECORD_END) if isinstance(text, str) else []
    if len(texts) != number or (
        text.count(queries.VALUE_END) != number * _ALL
    ):
        raise ValueError(f"{number} records gave {len(texts)} texts")
    return texts


def _row(
    service_id: str,
    count: str,
    host: str,
    seen: str,
    created: str,
    rest: str,
) -> Row:
    """Return a record with the types that PyMySQL gives its values."""
    values = [_value(one) for one in rest.split(queries.VALUE_END)]
    if len(values) != _ALL - _FIRST + 1:
        raise ValueError("a value has a character that separates values")
    forced_down, disabled, topic, binary, reason, _ = values
    return Row(
        None,
        int(service_id),
        _value(host),
        topic,
        binary,
        _number(count),
        _moment(seen),
        _moment(created),
        _number(forced_down),
        _number(disabled),
        reason,
    )


def _value(text: str) -> str | None:
    return None if text == queries.NULL else text


def _number(text: str | None) -> int | None:
    return None if text is None or text == queries.NULL else int(text)


def _moment(text: str) -> datetime.datetime | str | None:
    """Return a time; what is none stays as it is, such as a zero date."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return _value(text)
