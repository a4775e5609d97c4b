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

"""The history of a run: what was done, and every answer, one JSON line each.

Each entry has "begun" and "at": what it tells of happened between the two, in
seconds of the monotonic clock since the run began.

==========  =================================================================
event
==========  =================================================================
setup       the first entry: drivers, hosts, servers, observers, times
fault       the nemesis begins or ends a fault: number, kind, targets
process     a host's process: started, joined, killed, suspended, resumed,
            leaving, left, failed; blocking (ordered to), blocked, unblocked;
            forcing (ordered to be down), forced, unforcing, unforced
server      a server: killed, stopped, started, answering, suspended,
            resumed, flushed, reloaded, read-only, writable, filled (its
            disk), locked (it may not write), unlocked; silent, serving: as it
            says itself
clock       a server's clock is so many seconds off from where it was: step
rescue      an operator's command to servers that had lost each other
cut         packets of a node are dropped: id, node, peers, direction, loss
healed      the end of a cut: id
starved     a node's process, or "*", did not get a core between the two
            moments
answers     an observer's answers: a letter for each host, as in
            tests.faults.truth
reason      why an observer changed its answer about a host
acted       the watcher's command was called: type of the event, host. Its
            answers are what it was called for last
end         the last entry
==========  =================================================================
"""

import json
import threading

from tests.chaos.cloud import now


class History:
    """Written while a run goes on.

    :param path: the file
    """

    def __init__(self, path):
        self._file = open(path, "w", buffering=1)
        self._lock = threading.Lock()
        self.begun = now()

    def write(self, event, begun=None, at=None, **fields):
        """Write an entry.

        :param begun: as now() gave it; by default the present
        :param at: the same
        """
        at = now() if at is None else at
        begun = at if begun is None else begun
        entry = {
            "begun": round(begun - self.begun, 3),
            "at": round(at - self.begun, 3),
            "event": event,
        } | fields
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")

    def close(self):
        self._file.close()


def read(path):
    """Return the entries of a file, in the order of their ends."""
    with open(path) as lines:
        entries = [json.loads(line) for line in lines]
    return sorted(entries, key=lambda entry: entry["at"])
