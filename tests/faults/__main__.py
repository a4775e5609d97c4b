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

"""Run faults and print the table: python -m tests.faults --help."""

import argparse
import importlib.metadata
import os
import re
import sys
import time

from nova_sg.cmd import progress
from tests.faults import catalogue, runner, table
from tests.fixtures import nova


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Play faults and print what observers answered.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="regular expressions for names of faults; default: all faults",
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help="use the default settings and real durations: about 20 minutes",
    )
    parser.add_argument(
        "--no-stock", action="store_true", help="leave out stock Nova"
    )
    parser.add_argument(
        "--jobs", type=int, default=0, help="faults to play side by side"
    )
    parser.add_argument(
        "--list", action="store_true", help="only print the names"
    )
    parser.add_argument("--write", help="a file to write the table to")
    given = parser.parse_args()
    faults = [
        fault
        for fault in catalogue.FAULTS
        if not given.names
        or any(re.search(n, fault.name, re.IGNORECASE) for n in given.names)
    ]
    if given.list:
        print("\n".join(fault.name for fault in faults))
        return 0
    if not given.no_stock:
        nova.python()
    load = os.getloadavg()[0]
    begun = time.monotonic()
    shown = progress.Progress()
    tell = _Progress(shown, len(faults))
    playing = runner.Runner(
        given.long,
        given.jobs or (10 if given.long else 6),
        tell,
        stock=not given.no_stock,
    )
    try:
        with shown:
            tell.count()
            playing.start(faults)
            outcomes = playing.outcomes()
    finally:
        playing.close()
    conditions = _conditions(given.long, load, time.monotonic() - begun)
    found = [outcomes[fault.name] for fault in faults]
    print("\n".join([*conditions, "", *table.lines(found)]))
    if given.write:
        lines = [*conditions, "", *table.lines(found, logs=False), ""]
        with open(given.write, "w") as file:
            file.write("\n".join(lines))
    return int(any(outcome.complaints for outcome in outcomes.values()))


class _Progress:
    """Shows on a terminal how many faults have been played."""

    def __init__(self, shown, total):
        self._shown = shown
        self._total = total
        self._done = self._bad = 0

    def __call__(self, outcome):
        self._done += 1
        self._bad += bool(outcome.complaints)
        self.count()
        if outcome.complaints:
            self._shown.note("\n".join(table.lines([outcome])))

    def count(self):
        words = f"faults; {self._bad} of them failed"
        self._shown.step(words, self._done, self._total)


def _conditions(long, load, seconds):
    form = "long form: default settings" if long else "short times"
    after = os.getloadavg()
    return (
        f"{form}; {seconds / 60:.1f} minutes",
        f"cores: {os.cpu_count()}",
        f"load average: {load:.1f} before, {after[1]:.1f} over the last 5 "
        "minutes",
        f"nova_sg {importlib.metadata.version('nova-sg')}",
    )


if __name__ == "__main__":
    sys.exit(main())
