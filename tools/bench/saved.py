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

"""Reads the tables that rows.tables() has written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench import rows

_FIGURE = re.compile(r"([\d.,]+(?:e[+-]\d+)?)(?: \[(\d+)\])?")
_NOTE = re.compile(r"\[(\d+)\] (.*)")


def read(text: str) -> Iterator[rows.Row]:
    """Yield the rows of all tables in a text; other text is ignored.

    Figures are as exact as in the text.
    """
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if len(lines) > 1 and re.fullmatch("[- ]*-[- ]*", lines[1]):
            yield from _table(lines)


def _table(lines: list[str]) -> Iterator[rows.Row]:
    places = [match.span() for match in re.finditer("-+", lines[1])]
    head, *body = (
        [line[begin:end].strip() for begin, end in places]
        for line in (lines[0], *lines[2:])
    )
    backend, _, mode = head[0].rpartition(", ")
    notes = {}
    for line in lines[2:]:
        if found := _NOTE.fullmatch(line):
            notes[found[1]] = found[2]
    for line, (name, unit, *cells) in zip(lines[2:], body, strict=True):
        if _NOTE.fullmatch(line):
            continue
        for contender, cell in zip(head[2:], cells, strict=True):
            found = _FIGURE.fullmatch(cell)
            # The last columns are ratios, not contenders.
            if found is None or "/" in contender:
                continue
            yield rows.Row(
                name,
                contender,
                float(found[1].replace(",", "")),
                unit,
                backend,
                mode,
                notes.get(found[2], ""),
            )
