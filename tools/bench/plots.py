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

"""Draws the rows of saved tables that matter most to operators.

The same tables always give the same pictures, to the byte, and a page that
shows them. For readers who cannot see the pictures the page has all their
figures as text.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench import rows, saved

_ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)
_SOURCE = os.path.join(_ROOT, "doc", "source")
_TABLES = ("benchmarks.txt", "benchmarks-nova.txt", "scale.txt")
#: The names of the pages with the pictures.
PAGE = "benchmarks-plots.inc"
SCALE_PAGE = "scale-plots.inc"

# By project, which is the first word of a contender's name.
_COLOURS = {"nova_sg": "#3b82c4", "nova": "#d9822b"}
_OTHER = "#5f9e6e"
_DRIVERS = {"db": "#3b82c4", "mc": "#d9822b", "zk": _OTHER}
# Colours that are replaced by those of the reader's scheme.
_INK, _FAINT, _PAPER = "#0a0b0c", "#8a8b8c", "#fafbfc"
_SCHEMES = {
    _INK: ("--ink", "#1f2328", "#e6e6e6"),
    _FAINT: ("--faint", "#d0d4d9", "#4a4f55"),
    _PAPER: ("--paper", "#ffffff", "#1b1e22"),
}
_UNITS = {"us": "µs"}


class Plot(NamedTuple):
    """One picture."""

    #: The file's name, without its ending.
    name: str
    title: str
    #: The text below it.
    caption: str
    #: A pattern for the names of its rows.
    pattern: str
    #: Draws the rows; returns the figure.
    draw: Callable[[Plot, Sequence[rows.Row]], Any]
    #: Whether each step of its scale is ten times the one before.
    logarithmic: bool = True
    page: str = PAGE

    def choose(self, measured: Sequence[rows.Row]) -> list[rows.Row]:
        """Return its rows, of one mode."""
        mine = [r for r in measured if re.fullmatch(self.pattern, r.name)]
        modes = [row.mode for row in mine]
        mode = "threads" if "threads" in modes else "".join(modes[:1])
        # A row may be in several tables.
        unique = {
            (row.name, _label(row)): row for row in mine if row.mode == mode
        }
        return list(unique.values())


def draw(measured: Sequence[rows.Row], folder: str) -> list[str]:
    """Draw every plot that has rows, and write the pages.

    :param folder: the pages' folder; the pictures go to images in it
    :returns: the names of the plots
    """
    parts: dict[str, list[str]] = {}
    names = []
    os.makedirs(os.path.join(folder, "images"), exist_ok=True)
    for plot in PLOTS:
        chosen = plot.choose(measured)
        if not chosen:
            continue
        path = f"images/bench-{plot.name}.svg"
        with open(os.path.join(folder, path), "w") as file:
            file.write(_svg(plot.draw(plot, chosen)))
        names.append(plot.name)
        mode = {"threads": "native threads"}.get(chosen[0].mode, "eventlet")
        parts.setdefault(plot.page, []).append(
            f".. figure:: {path}\n"
            f"   :alt: {plot.title}. {_words(chosen)}\n\n"
            f"   {plot.caption} On {mode}.\n"
        )
    for page, figures in parts.items():
        with open(os.path.join(folder, page), "w") as file:
            file.write("\n".join([_NOTICE, *figures]))
    return names


_NOTICE = ".. Made by tools/bench.sh --plots.\n"


def _words(chosen: Sequence[rows.Row]) -> str:
    """Return the picture's figures as text."""
    return " ".join(
        f"{name}: "
        + "; ".join(
            f"{_label(row)} {_text(row)}" for row in chosen if row.name == name
        )
        + "."
        for name in dict.fromkeys(row.name for row in chosen)
    )


def _label(row: rows.Row) -> str:
    """Return the contender's name, with the server if that is not in it."""
    if "computes" in row.backend:
        return row.contender
    return f"{row.contender}, {row.backend}"


def _text(row: rows.Row) -> str:
    unit = _UNITS.get(row.unit, row.unit)
    return f"{rows.number(row.figure)} {unit}".strip()


def _colour(contender: str) -> str:
    return _COLOURS.get(contender.split()[0], _OTHER)


# -- drawing


def _new(height: float, panels: int, **how: Any) -> tuple[Any, list]:
    # Imported here because it takes a second, and only drawing needs it.
    import matplotlib
    from matplotlib import figure

    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "nova_sg",
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": _INK,
            "axes.edgecolor": _FAINT,
            "axes.labelcolor": _INK,
            "axes.facecolor": _PAPER,
            "axes.titlesize": 9,
            "axes.axisbelow": True,
            "figure.facecolor": _PAPER,
            "grid.color": _FAINT,
            "grid.linewidth": 0.5,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    made = figure.Figure(figsize=(8, height), layout="constrained")
    return made, list(made.subplots(panels, squeeze=False, **how).flat)


def _bars(plot: Plot, chosen: Sequence[rows.Row]) -> Any:
    """Draw a panel for each row of the tables, a bar for each contender."""
    panels = list(dict.fromkeys(row.name for row in chosen))
    by_panel = [[r for r in chosen if r.name == name] for name in panels]
    lines = [len(rows_here) + 1.6 for rows_here in by_panel]
    made, axes = _new(
        0.45 + 0.23 * sum(lines), len(panels), height_ratios=lines
    )
    made.suptitle(plot.title, weight="bold")
    for axis, name, here in zip(axes, panels, by_panel, strict=True):
        axis.set_title(name, loc="left")
        axis.barh(
            range(len(here)),
            [row.figure for row in here],
            color=[_colour(row.contender) for row in here],
            height=0.7,
        )
        axis.set_yticks(range(len(here)), [_label(row) for row in here])
        axis.invert_yaxis()
        axis.tick_params(length=0)
        axis.set_xticks([])
        axis.spines["bottom"].set_visible(False)
        for place, row in enumerate(here):
            axis.annotate(
                _text(row),
                (row.figure, place),
                xytext=(4, 0),
                textcoords="offset points",
                verticalalignment="center",
            )
        # One scale for all panels, so that they can be compared.
        figures = [row.figure for row in chosen if row.figure]
        if plot.logarithmic and figures:
            # So that the shortest bar can be seen, too.
            axis.set_xscale("log")
            axis.set_xlim(min(figures) / 3, max(figures) * 8)
            axis.xaxis.set_minor_formatter("")
        else:
            most = max(row.figure for row in here)
            axis.set_xlim(0, (most or 1) * 1.2)
    return made


def _lines(plot: Plot, chosen: Sequence[rows.Row]) -> Any:
    """Draw a panel for each server, a line for each contender, by size."""
    panels = list(dict.fromkeys(row.backend for row in chosen))
    made, axes = _new(
        0.7 + 2.2 * ((len(panels) + 1) // 2),
        (len(panels) + 1) // 2,
        ncols=2,
        sharex=True,
        sharey=True,
    )
    made.suptitle(plot.title, weight="bold")
    for axis, backend in zip(axes, panels, strict=False):
        axis.set_title(backend, loc="left")
        here = [row for row in chosen if row.backend == backend]
        for contender in dict.fromkeys(row.contender for row in here):
            mine = [row for row in here if row.contender == contender]
            _line(axis, mine)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(min(map(_size, chosen)) / 3, max(map(_size, chosen)) * 4)
        axis.margins(y=0.15)
        sizes = sorted(set(map(_size, chosen)))
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_yticks([], minor=True)
        axis.grid(axis="y")
        axis.set_xlabel("members")
        axis.set_ylabel(_UNITS.get(here[0].unit, here[0].unit))
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return made


def _line(axis: Any, mine: Sequence[rows.Row]) -> None:
    colour = _colour(mine[0].contender)
    axis.plot(
        [_size(row) for row in mine],
        [row.figure for row in mine],
        marker="o",
        color=colour,
    )
    for row, side in zip(mine, [-1] + [1] * len(mine), strict=False):
        text = _text(row)
        if row is mine[-1]:
            text = f"{text}  {row.contender}"
        axis.annotate(
            text,
            (_size(row), row.figure),
            xytext=(6 * side, 0),
            textcoords="offset points",
            horizontalalignment="right" if side < 0 else "left",
            verticalalignment="center",
            color=colour,
        )


def _growth(plot: Plot, chosen: Sequence[rows.Row]) -> Any:
    """Draw a line for each driver, by size, with its slope."""
    made, (axis,) = _new(3.4, 1)
    made.suptitle(plot.title, weight="bold")
    markers = iter("osD^v")
    for contender in dict.fromkeys(row.contender for row in chosen):
        mine = [row for row in chosen if row.contender == contender]
        points = [(_size(row), row.figure) for row in mine if row.figure > 0]
        if not points:
            continue
        name = contender.partition(" ")[2]
        axis.plot(
            *zip(*points, strict=True),
            marker=next(markers),
            color=_DRIVERS.get(name, _OTHER),
            label=f"{name}, {slope(points)}",
        )
    axis.set_xscale("log")
    if plot.logarithmic:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    sizes = sorted(set(map(_size, chosen)))
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axis.set_xticks([], minor=True)
    axis.grid(axis="y")
    axis.set_xlabel("members")
    axis.set_ylabel(_UNITS.get(chosen[0].unit, chosen[0].unit))
    axis.legend(frameon=False)
    return made


def slope(points: Sequence[tuple[float, float]]) -> str:
    """Say how a figure grows with the size, by its first and last point."""
    (first, low), (last, high) = points[0], points[-1]
    if first == last:
        return "one size"
    power = math.log(high / low) / math.log(last / first)
    return f"slope {power:.2f}"


def _size(row: rows.Row) -> int:
    return int(re.search(r"of ([\d,]+)", row.name)[1].replace(",", ""))


def _svg(figure: Any) -> str:
    """Return an SVG that follows the reader's scheme, light or dark."""
    import io

    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    light, dark = [], []
    for colour, (name, by_day, by_night) in _SCHEMES.items():
        text = text.replace(colour, f"var({name})")
        light.append(f"{name}: {by_day}")
        dark.append(f"{name}: {by_night}")
    style = (
        f"<style>:root {{{'; '.join(light)}}}\n"
        "@media (prefers-color-scheme: dark) "
        f"{{:root {{{'; '.join(dark)}}}}}</style>\n"
    )
    text = text.replace("<defs>", f"{style}<defs>", 1)
    # No line of the repository ends with a space.
    return re.sub(r"[ \t]+\n", "\n", text)


PLOTS = (
    Plot(
        "is-up",
        "service_is_up: CPU of one question",
        "What a question costs the process that asks. nova_sg answers from "
        "memory; each step to the right is ten times the one before.",
        r"service_is_up, (by name|record at hand): CPU",
        _bars,
    ),
    Plot(
        "report",
        "A report: CPU of the process that reports",
        "With ZooKeeper nova_sg's report asks the server only once every half "
        "of service_down_time.",
        r"report, [\d,]+ members?: CPU a report",
        _bars,
    ),
    Plot(
        "refresh",
        "A refresh: the states of a group, from the server",
        "The time of one refresh of a whole group, by its size.",
        r"refresh, of [\d,]+",
        _lines,
    ),
    Plot(
        "crash",
        "From SIGKILL until an observer sees it",
        "A crash beside a guard, and by the member's silence. Each step to "
        "the right is ten times the one before.",
        r"a crash seen, .*",
        _bars,
    ),
    Plot(
        "heartbeat",
        "A heartbeat on a real Nova",
        "What one report of one compute costs each part of a Nova, by "
        "driver. db+ is with coalesce_reports, which is the default.",
        r"a heartbeat: .*",
        _bars,
        logarithmic=False,
    ),
    Plot(
        "scale-servers",
        "All reports: CPU of the servers",
        "What the members' own reports cost all servers together. 100 % is "
        "one core; slope 1 is in proportion to the members.",
        r"reports: CPU of the servers, of [\d,]+",
        _growth,
        page=SCALE_PAGE,
    ),
    Plot(
        "scale-observer",
        "An observer: its CPU",
        "What following the group costs a process, by its size.",
        r"an observer: its CPU, of [\d,]+",
        _growth,
        page=SCALE_PAGE,
    ),
    Plot(
        "scale-memory",
        "Memory of the servers",
        "Memory of all servers together, with a connection for each member.",
        r"memory of the servers, of [\d,]+",
        _growth,
        page=SCALE_PAGE,
    ),
    Plot(
        "scale-death",
        "A host loses its power: seconds until an observer sees it",
        "At the default times.",
        r"a death seen, of [\d,]+",
        _growth,
        logarithmic=False,
        page=SCALE_PAGE,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="tools/bench.sh --plots",
        description="Draws saved tables; measures nothing.",
    )
    parser.add_argument(
        "tables",
        nargs="*",
        default=[os.path.join(_SOURCE, name) for name in _TABLES],
        help="files with the output of tools/bench.sh, with and without "
        "--scale, and of tools/nova-rig.sh many "
        f"(doc/source/{', '.join(_TABLES)})",
    )
    parser.add_argument(
        "--to",
        default=_SOURCE,
        metavar="FOLDER",
        help=f"the folder for {PAGE}, {SCALE_PAGE} and images/ (doc/source)",
    )
    options = parser.parse_args(arguments)
    measured = []
    for path in options.tables:
        with open(path) as file:
            measured += saved.read(file.read())
    for name in draw(measured, options.to):
        print(f"images/bench-{name}.svg")
    return 0 if measured else 1
