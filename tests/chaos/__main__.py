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

"""Play the nemesis and judge the answers: tools/chaos.sh starts this.

A run can be repeated: the seed gives the same faults, at the same times. What
the machine does between them differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys

from tests.chaos import checker, cloud, history, nemesis, shrinking
from tests.chaos.run import Run

DRIVERS = ("db", "mc", "zk", "zk,db", "mc,db")


def main(arguments=None):
    given = _parse(arguments)
    if given.check:
        return _show(history.read(given.check), given.stretch)
    if given.rows:
        print("\n".join(rows([history.read(path) for path in given.rows])))
        return 0
    reason = cloud.why_not()
    if reason:
        print(f"chaos: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _play(given)
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return 130


def _interrupt(signo, frame):
    raise KeyboardInterrupt


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="tools/chaos.sh",
        description="Play random faults on a cloud in network namespaces, and "
        "judge what nova_sg's observers answered. Needs root.",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="an integer from which the faults are made; default: random",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=3.0,
        help="how long faults are played; default: %(default)s",
    )
    parser.add_argument(
        "--driver",
        choices=DRIVERS,
        metavar="|".join(DRIVERS),
        default="db",
        help="the driver, and a secondary driver; default: %(default)s",
    )
    parser.add_argument(
        "--mode",
        choices=("threads", "eventlet"),
        default="threads",
        help="how hosts and the first observer run; default: %(default)s",
    )
    parser.add_argument(
        "--times",
        choices=("short", "default"),
        default="short",
        help="with default all options have their defaults, and all faults "
        "last ten times as long: give at least 45 minutes; default: "
        "%(default)s",
    )
    parser.add_argument(
        "--hosts",
        type=int,
        default=30,
        help="how many hosts; default: %(default)s",
    )
    parser.add_argument(
        "--bulk",
        type=int,
        default=200,
        help="how many members one more process has, in a group of its own; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--stock",
        action="store_true",
        help="have a member of stock Nova on each host, too, and judge what "
        "stock Nova's db and mc drivers answer; needs the environment that "
        "tools/nova-env.sh makes",
    )
    parser.add_argument(
        "--inside",
        action="store_true",
        help="ask inside Nova, too, as nova-api does: by records, with the "
        "driver db or a secondary; needs the same environment",
    )
    parser.add_argument(
        "--faults",
        type=_names,
        metavar="NAME,...",
        help="make the plan of these faults alone: "
        f"{', '.join(nemesis.KINDS)}",
    )
    parser.add_argument(
        "--only",
        type=_numbers,
        help="play only the faults with these numbers: 3,7,9",
    )
    parser.add_argument(
        "--shrink",
        type=int,
        default=0,
        metavar="N",
        help="after a violation, look for fewer faults that cause it, by up "
        "to N runs",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="keep the history and the logs here; by default they are kept "
        "in /var/tmp only if there was a violation",
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        help="play nothing: judge this history.jsonl",
    )
    parser.add_argument(
        "--rows",
        metavar="FILE",
        nargs="+",
        help="play nothing: print a row for each history.jsonl, as the table "
        "of doc/source/chaos.rst has them",
    )
    parser.add_argument(
        "--stretch",
        type=int,
        default=3,
        metavar="N",
        help="show the history around so many violations; default: "
        "%(default)s",
    )
    given = parser.parse_args(arguments)
    if not 2 <= given.hosts <= 200:
        parser.error("--hosts must be from 2 to 200")
    if not 0 <= given.bulk <= 999:
        parser.error("--bulk must be from 0 to 999")
    if given.minutes <= 0:
        parser.error("--minutes must be greater than 0")
    if given.inside and "db" not in given.driver.split(","):
        parser.error("--inside asks by records: give a --driver with db")
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(10**6)
    return given


def _names(text):
    names = text.split(",")
    unknown = set(names) - set(nemesis.KINDS)
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no faults: {', '.join(sorted(unknown))}; there are "
            f"{', '.join(nemesis.KINDS)}"
        )
    return names


def _numbers(text):
    return {int(number) for number in text.split(",")}


def _play(given):
    output = given.output or os.path.join(
        "/var/tmp",
        f"nova-sg-chaos-{given.driver.replace(',', '-')}-{given.mode}-"
        f"{given.seed}-{os.getpid()}",
    )
    if os.path.exists(os.path.join(output, "history.jsonl")):
        print(
            f"chaos: {output} has a history; remove it, or give another "
            "--output",
            file=sys.stderr,
        )
        return 2
    number = iter(range(1, 1000))

    def play(only, seconds):
        folder = output if only is given.only else f"{output}/{next(number)}"
        run = Run(
            folder,
            given.seed,
            seconds,
            given.driver.split(","),
            given.mode,
            given.hosts,
            only,
            bulk=given.bulk,
            stock=given.stock,
            inside=given.inside,
            faults=given.faults,
            times=given.times,
        )
        run.play()
        return history.read(run.path)

    print(
        f"chaos: seed {given.seed}, {given.driver}, {given.mode}, "
        f"{given.minutes:g} minutes, {given.hosts} hosts",
        flush=True,
    )
    try:
        entries = play(given.only, given.minutes * 60)
    except KeyboardInterrupt:
        if not given.output:
            shutil.rmtree(output, ignore_errors=True)
        raise
    status = _show(entries, given.stretch)
    if status == 1 and given.shrink:
        shrinking.shrink(entries, play, given.shrink, given.minutes * 60)
    if status or given.output:
        print(f"The history: {output}/history.jsonl")
    else:
        shutil.rmtree(output)
    return status


def _show(entries, most):
    """Print what was found; return the exit status."""
    result = checker.check(entries)
    print("\n".join(table(entries, result)))
    for text in _together(result.violations):
        print(text)
    for violation in result.wrongs[:most]:
        print(f"\n{violation}")
        for entry in checker.stretch(entries, violation):
            print(json.dumps(entry))
    errors = next(
        (e["errors"] for e in entries if e["event"] == "end"),
        ["the run did not end"],
    )
    for error in errors:
        print(f"The nemesis failed: {error}")
    return int(bool(result.wrongs)) or 3 * bool(errors)


def _together(violations):
    """Yield a line for violations of the same kind at the same moment."""
    groups = {}
    for one in violations:
        key = one.kind, one.observer, round(one.begin, 1)
        groups.setdefault(key, []).append(one)
    for some in groups.values():
        others = ", ".join(one.host for one in some[1:])
        yield f"{some[0]}{f'; also {others}' if others else ''}"


def table(entries, result):
    """Return the lines of a run's table."""
    setup = next(entry for entry in entries if entry["event"] == "setup")
    rows = _rows(setup, result)
    rows += _actions(entries)
    lines = [f"{name:15} {value}" for name, value in rows]
    for driver in setup.get("stock", {}):
        lines.append(f"stock Nova, {driver}")
        found = checker.check(entries, driver)
        rows = _rows(setup, found)[_ANSWERS:]
        lines += [f"  {name:13} {value}" for name, value in rows]
    return lines


def rows(histories):
    """Return the lines of a table with a row for each history."""
    table = [_HEAD]
    for entries in histories:
        setup = next(entry for entry in entries if entry["event"] == "setup")
        stocks = [None, *setup.get("stock", {})]
        for stock in stocks:
            found = checker.check(entries, stock)
            table.append(
                (
                    str(setup["seed"]),
                    ",".join(setup.get("faults") or ["all"]),
                    f"Nova {stock}" if stock else ",".join(setup["drivers"]),
                    setup["mode"],
                    f"{found.seconds / 60:.1f}",
                    str(found.faults),
                    f"{found.answers:,}",
                    str(found.wrong("wrong down", "not back")),
                    str(found.wrong("wrong up", "rose")),
                    str(found.wrong("unknown")),
                )
            )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    ]
    return [rule, lines[0], rule, *lines[1:], rule]


_HEAD = (
    *("seed", "kinds", "driver", "mode", "minutes", "faults", "answers"),
    # Wrong answers: "down", "up", and none.
    *("down", "up", "none"),
)


def _actions(entries):
    acted = [e["type"] for e in entries if e["event"] == "acted"]
    if not acted:
        return []
    return [("evacuations", acted.count("down"))]


def _rows(setup, result):
    return [
        ("driver", ",".join(setup["drivers"])),
        ("mode", setup["mode"]),
        ("seed", setup["seed"]),
        ("minutes", f"{result.seconds / 60:.1f}"),
        ("faults", result.faults),
        ("answers", result.answers),
        ("had to be up", result.had_to_be_up),
        ("had to be down", result.had_to_be_down),
        ("had to answer", result.had_to_answer),
        ("left out", result.left_out),
        ("no answer", result.unknown),
        ("wrong down", result.wrong("wrong down")),
        ("not back", result.wrong("not back")),
        ("wrong up", result.wrong("wrong up")),
        ("rose", result.wrong("rose")),
        ("wrong unknown", result.wrong("unknown")),
        ("stated", result.wrong(checker.STATED)),
    ]


# The row of a table with which those about answers begin.
_ANSWERS = 5


if __name__ == "__main__":
    sys.exit(main())
