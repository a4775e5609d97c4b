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


"""Simulated days of large groups, to measure the detector's speed.

    python -m tests.unit.simulation.days [MEMBERS [HOURS]]
"""

import gc
import random
import sys
import time

from tests.unit.simulation import oracle
from tests.unit.simulation.world import Cut, Outage, Script, Span

# Seconds between two refreshes of a large group. An observer whose refreshes
# take long waits for as much as a quarter of service_down_time.
STEP = 15.0


def script(members, until, seed=0):
    """Return what happens in a day: outages, cuts and deaths."""
    rng = random.Random(seed)

    def span(shortest, longest):
        begin = rng.uniform(200, until)
        return Span(begin, begin + rng.uniform(shortest, longest))

    outages, at = [], 600.0
    while at < until:
        begin = at + rng.uniform(0, 3600)
        end = begin + rng.choice([5, 20, 120, 600])
        outages.append(Outage(Span(begin, end), rng.random() < 0.3))
        at = end + 600.0
    cuts = []
    for _ in range(int(until / 7200) + 1):
        few = rng.sample(range(1, members), max(1, members // 100))
        cuts.append(Cut(span(30, 400), frozenset(few)))
    dead = {
        number: span(100, 20_000)
        for number in rng.sample(range(1, members), members // 50)
    }
    return Script(tuple(outages), tuple(cuts), dead)


def run(members, hours, seed=0):
    """Simulate; return the CPU seconds it took, the script and the oracle.

    :raises oracle.Wrong: a verdict was wrong
    """
    until = hours * 3600.0
    events = script(members, until, seed)
    gc.collect()
    # The garbage collector would visit very many objects, in vain.
    gc.disable()
    try:
        begun = time.process_time()
        _, judged = oracle.run(events, members, until, STEP, seed)
        return time.process_time() - begun, events, judged
    finally:
        gc.enable()


def main():
    members = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    hours = float(sys.argv[2]) if len(sys.argv) > 2 else 24.0
    took, events, judged = run(members, hours)
    refreshes = int(hours * 3600 / STEP)
    print(
        f"{members} members, {hours:g} h, {refreshes} refreshes, "
        f"{len(events.outages)} outages, {len(events.cuts)} partitions, "
        f"{len(events.dead)} deaths ({judged.found} had to be found, and "
        f"were), no wrong verdict: {took:.1f} s of CPU time, "
        f"{took / refreshes / members * 1e6:.2f} us per member and refresh"
    )


if __name__ == "__main__":
    main()
