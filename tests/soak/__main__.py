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

"""Have a process live through many troubles: tools/soak.sh starts this.

Its memory, descriptors, threads and files must not grow. The table has the
slope of each figure, with its standard error.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile

from tests.fixtures import watchdog
from tests.soak import slopes
from tests.soak.run import BACKENDS, Soak

DRIVERS = (*BACKENDS, "zk,db", "mc,db")
#: By how much each figure may grow in a soak: megabytes, Python's blocks of
#: memory, and numbers.
MOST = {
    "memory": 2.0,
    "traced": 0.5,
    "blocks": 2000,
    "descriptors": 1,
    "threads": 1,
    "green threads": 1,
    "files": 1,
}


def main(arguments=None):
    given = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    watchdog.begin()
    folder = tempfile.mkdtemp(prefix="soak-")
    os.chmod(folder, 0o711)
    soak = Soak(folder, given.driver.split(","), given.mode, given.seed)
    print(
        f"soak: seed {given.seed}, {given.driver}, {given.mode}, "
        f"{given.minutes:g} minutes",
        flush=True,
    )
    error = ""
    try:
        with open(given.output or os.devnull, "w", buffering=1) as output:
            soak.run(
                given.minutes * 60,
                lambda sample: print(json.dumps(sample), file=output),
            )
    except KeyboardInterrupt:
        print("soak: interrupted", file=sys.stderr)
        return 130
    except AssertionError as trouble:
        error = str(trouble)
    lines, grown = table(soak.samples)
    made = ", ".join(f"{soak.troubles[one]} {one}" for one in soak.troubles)
    print(f"{len(soak.samples)} rounds: {made}")
    print("\n".join(lines))
    if error or grown:
        kept = tempfile.mkdtemp(prefix="nova-sg-soak-", dir="/var/tmp")
        shutil.copytree(folder, kept, dirs_exist_ok=True, ignore=_pipes)
        print(f"The files of its processes: {kept}")
    if error:
        print(f"soak: {error}", file=sys.stderr)
    if grown:
        print(f"soak: growing: {', '.join(grown)}", file=sys.stderr)
    return int(bool(error or grown))


def _pipes(folder, names):
    return [name for name in names if name == "orders"]


def table(samples):
    """Return the lines of a table, and the names of figures that grow."""
    lines = [f"{'':13} {'first':>10} {'last':>10} {'an hour':>10}    error"]
    grown = []
    hours = [sample["hours"] for sample in samples]
    names = [*MOST, "log"]
    for name in names:
        if not samples or name not in samples[0]:
            continue
        figures = [sample[name] for sample in samples]
        if name == "log":
            # Kilobytes in each round.
            figures = [
                (now - before) / 1000
                for before, now in zip([0, *figures], figures, strict=False)
            ]
        try:
            line = slopes.fit(hours, figures)
        except ValueError as error:
            return [str(error)], []
        bad = name in MOST and line.grows(MOST[name])
        if bad:
            grown.append(name)
        lines.append(
            f"{name:13} {line.first:10,.2f} {line.last:10,.2f} "
            f"{line.slope:+10,.2f} {line.error:8,.2f}"
            f"{'  grows' if bad else ''}"
        )
    return lines, grown


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="tools/soak.sh",
        description="Have a process live through joins, deaths, restarts, "
        "cuts and ends of sessions, and find out what grows in it.",
    )
    parser.add_argument(
        "--driver",
        choices=DRIVERS,
        default="db",
        help="the driver, and a secondary driver; default: %(default)s",
    )
    parser.add_argument(
        "--mode",
        choices=("threads", "eventlet"),
        default="threads",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="how long it lives; default: %(default)s",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(10**6),
        help="an integer from which the troubles are made; default: random",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the samples here, a line of JSON for each round",
    )
    given = parser.parse_args(arguments)
    if given.minutes <= 0:
        parser.error("--minutes must be greater than 0")
    return given


if __name__ == "__main__":
    sys.exit(main())
