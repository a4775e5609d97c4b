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

"""Rows, their ratios, and the tables that are printed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: The project whose figures are divided by those of the others.
OURS = "nova_sg"

#: The units of which more is better. Of all other units less is better.
RATES = ("1/s", "kept")

# A ratio this close to 1 is not called worse.
_EVEN = 0.05


class Row(NamedTuple):
    """One figure."""

    #: The name of the measurement. Rows of one name are comparable.
    name: str
    #: The contender that was measured.
    contender: str
    figure: float
    unit: str
    #: The server. Contenders are compared on the same one.
    backend: str = ""
    #: threads or eventlet.
    mode: str = ""
    #: A remark about the figure.
    note: str = ""
    #: The least and the most of several rounds.
    low: float | None = None
    high: float | None = None


class Ratio(NamedTuple):
    """A figure of nova_sg divided by a peer's."""

    name: str
    ours: str
    peer: str
    backend: str
    mode: str
    ratio: float
    #: Whether nova_sg's is the better figure.
    better: bool


def merge(rounds: Iterable[Row]) -> list[Row]:
    """Merge the rows of several rounds: the result has the medians."""
    same: dict[tuple, list[Row]] = {}
    for row in rounds:
        key = row.name, row.contender, row.unit, row.backend, row.mode
        same.setdefault(key, []).append(row)
    merged = []
    for rows in same.values():
        figures = [row.figure for row in rows]
        notes = [row.note for row in rows if row.note]
        merged.append(
            rows[0]._replace(
                figure=statistics.median(figures),
                low=min(figures),
                high=max(figures),
                note=notes[-1] if notes else "",
            )
        )
    return merged


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Divide nova_sg's figures by those of peers in the same place."""
    found = []
    for ours in rows:
        if not _is_ours(ours.contender):
            continue
        for peer in rows:
            if _is_ours(peer.contender) or not peer.figure:
                continue
            if _place(peer) != _place(ours):
                continue
            ratio = ours.figure / peer.figure
            better = ratio > 1 if ours.unit in RATES else ratio < 1
            found.append(
                Ratio(
                    ours.name,
                    ours.contender,
                    peer.contender,
                    ours.backend,
                    ours.mode,
                    ratio,
                    better,
                )
            )
    return found


def _is_ours(contender: str) -> bool:
    return contender.split()[0] == OURS


def _place(row: Row) -> tuple:
    return row.name, row.unit, row.backend, row.mode


def tables(rows: Sequence[Row]) -> str:
    """Return the rows as text, with a table for each backend and mode.

    The figures are below the contenders' names, followed by nova_sg's figure
    divided by each peer's. A ratio that is worse for nova_sg is marked.
    """
    quotients = {
        (r.name, r.ours, r.peer, r.backend, r.mode): r for r in ratios(rows)
    }
    texts = []
    for backend, mode in dict.fromkeys((r.backend, r.mode) for r in rows):
        here = [r for r in rows if (r.backend, r.mode) == (backend, mode)]
        texts.append(_table(f"{backend}, {mode}", here, quotients))
    return "\n\n".join(texts)


def _table(title: str, rows: Sequence[Row], quotients: dict) -> str:
    contenders = list(dict.fromkeys(row.contender for row in rows))
    place = rows[0].backend, rows[0].mode
    compared = {key[1:3] for key in quotients if key[3:] == place}
    pairs = [
        (ours, peer)
        for ours in contenders
        for peer in contenders
        if (ours, peer) in compared
    ]
    cells = {(r.name, r.unit, r.contender): r for r in rows}
    lines = [
        [
            title,
            "unit",
            *contenders,
            *(_quotient_of(ours, peer, pairs) for ours, peer in pairs),
        ]
    ]
    notes: list[str] = []
    for name, unit in dict.fromkeys((row.name, row.unit) for row in rows):
        line = [name, unit]
        for contender in contenders:
            row = cells.get((name, unit, contender))
            text = "-" if row is None else number(row.figure)
            if row is not None and row.note:
                if row.note not in notes:
                    notes.append(row.note)
                text += f" [{notes.index(row.note) + 1}]"
            line.append(text)
        for ours, peer in pairs:
            row = cells.get((name, unit, ours))
            quotient = row and quotients.get(
                (name, ours, peer, row.backend, row.mode)
            )
            if quotient:
                line.append(number(quotient.ratio) + _mark(quotient))
            else:
                line.append("-")
        lines.append(line)
    text = _aligned(lines)
    for count, note in enumerate(notes, 1):
        text += f"\n[{count}] {note}"
    return text


def _quotient_of(ours: str, peer: str, pairs: Sequence[tuple]) -> str:
    several = len({pair[0] for pair in pairs}) > 1
    return f"{ours.split()[-1] if several else OURS}/{peer.split()[0]}"


def _mark(quotient: Ratio) -> str:
    even = abs(quotient.ratio - 1) < _EVEN
    return "" if quotient.better or even else " worse"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for line in lines:
        cells = [line[0].ljust(widths[0]), line[1].ljust(widths[1])]
        cells += [
            cell.rjust(width)
            for cell, width in zip(line[2:], widths[2:], strict=True)
        ]
        texts.append("  ".join(cells).rstrip())
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(texts)


def number(figure: float) -> str:
    """Return a figure with three significant digits, or as an integer."""
    if figure == 0:
        return "0"
    if abs(figure) >= 100:
        return f"{figure:,.0f}"
    if abs(figure) >= 10:
        return f"{figure:.1f}"
    return f"{figure:#.3g}"
