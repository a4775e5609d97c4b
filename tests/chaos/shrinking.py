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

"""Which faults of a run are needed for its violation.

A run with some of the faults is played again, at the same times. If the same
kind of violation comes, the others are dropped. A violation that needs luck
may not come again; so what is left is enough, and not the least.
"""

from tests.chaos import checker, nemesis


def shrink(entries, play, runs, seconds):
    """Drop faults that do not matter; print what is left.

    :param play: called with numbers of faults and with seconds; plays them,
        and returns the entries of the new history
    :param runs: how often it may be called
    """
    wanted = checker.check(entries).wrongs[0].kind
    begun = {
        entry["number"]: entry["planned"]
        for entry in entries
        if entry["event"] == "fault" and entry["state"] == "begins"
    }
    kept = sorted(begun)
    parts = 2
    while runs > 0 and len(kept) > 1 and parts <= len(kept):
        for dropped in _parts(kept, parts):
            rest = [number for number in kept if number not in dropped]
            runs -= 1
            last = max(begun[number] for number in rest)
            found = checker.check(
                # Rounds are as before, if the plan is as long.
                play(set(rest), max(seconds, last + nemesis.STORM))
            )
            if any(v.kind == wanted for v in found.violations):
                kept = rest
                parts = max(2, parts - 1)
                print(f"Still {wanted} with --only {_text(kept)}", flush=True)
                break
            if runs <= 0:
                break
        else:
            parts *= 2
    print(f"Enough for {wanted}: --only {_text(kept)}")
    return kept


def _parts(numbers, count):
    size = -(-len(numbers) // count)
    return [
        set(numbers[first : first + size])
        for first in range(0, len(numbers), size)
    ]


def _text(numbers):
    return ",".join(map(str, numbers))
