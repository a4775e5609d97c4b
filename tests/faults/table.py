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

"""The figures of all faults as a table."""

_COLUMNS = (
    "driver",
    "mode",
    "members",
    "wrong down",
    "wrong up, s",
    "no answer, s",
    "found after, s",
    "bound, s",
    "back after, s",
)


def lines(outcomes, logs=True):
    """Yield the lines of the table, with a block for each fault.

    :param logs: whether to show the processes' logs where a fault failed
    """
    blocks = [(o, [_cells(row) for row in o.rows]) for o in outcomes]
    rows = [_COLUMNS, *(cells for _, block in blocks for cells in block)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield _line(_COLUMNS, widths)
    yield "  ".join("-" * width for width in widths)
    for outcome, block in blocks:
        again = f" (played {outcome.attempts} times)"
        yield outcome.fault + (again if outcome.attempts > 1 else "")
        for row, cells in zip(outcome.rows, block, strict=True):
            yield _line(cells, widths)
            if row.note:
                yield f"    {row.note}"
            if logs and row.log:
                yield f"    {row.log}"
        for words in outcome.complaints:
            yield f"    FAILED: {words if logs else words.splitlines()[-1]}"


def _line(cells, widths):
    padded = [
        cell.ljust(width) if number < 2 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _cells(row):
    score = row.score
    return (
        f"  {row.contender}",
        row.mode,
        f"{row.members:,}",
        f"{score.wrong_down:,}",
        _seconds(score.wrong_up),
        _seconds(score.unanswered),
        _found(score.detected, row.watched),
        "" if row.bound is None else _seconds(row.bound),
        f"> {row.watched:.0f}"
        if score.recovered is None
        else _seconds(score.recovered),
    )


def _found(detected, watched):
    if detected is None:
        return ""
    return (
        f"> {watched:.0f}" if detected == float("inf") else _seconds(detected)
    )


def _seconds(value):
    return f"{max(0.0, value):.1f}"
