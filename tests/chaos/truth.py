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

"""What a history says of the truth: which host could report to what, when.

Nothing here knows of answers. There are three answers to "is it alive?", as a
packet that is lost on its way back, or three in ten that are lost, prove
neither:

- A host is *clear* while its process certainly runs and its path to the
  backend is whole, or is broken for no reason of its own: the backend itself
  has no majority.
- A host is *gone* while its process certainly does not run, or none of its
  packets can reach a server.
- Otherwise nothing is claimed.

Moments are seconds since the run began.
"""

import bisect
import dataclasses
import itertools

FOREVER = float("inf")

#: A path is whole; the backend is out, for all alike; the path is broken, or
#: may be.
WHOLE, OUT, BROKEN = "whole", "out", "broken"


# States of a process: it may not report from here on; it may report again; it
# reports again.
_TROUBLE = ("killed", "suspended", "leaving", "blocking", "forcing")
_GOES_ON = ("started", "resumed", "unblocked", "unforcing")
_BACK = ("joined", "resumed", "unblocked", "unforced")


class Spans:
    """Times, as a list of spans that do not touch."""

    def __init__(self, spans=()):
        self.spans = []
        for begin, end in sorted(spans):
            if self.spans and begin <= self.spans[-1][1]:
                last = self.spans[-1]
                self.spans[-1] = (last[0], max(end, last[1]))
            else:
                self.spans.append((begin, end))

    def overlap(self, begin, end):
        """Return whether any of these times is between two moments."""
        return any(b <= end and e >= begin for b, e in self.spans)

    def around(self, begin, end):
        """Return the span that has both moments in it; None."""
        for span in self.spans:
            if span[0] <= begin and end <= span[1]:
                return span
        return None

    def last(self, moment):
        """Return the last span that began before a moment; None."""
        found = None
        for span in self.spans:
            if span[0] <= moment:
                found = span
        return found


@dataclasses.dataclass(frozen=True)
class _Cut:
    node: str
    peers: frozenset
    direction: str
    loss: float
    #: From when to when it may have dropped packets.
    may: tuple
    #: From when to when it certainly did.
    did: tuple

    def touches(self, one, other):
        """Return whether packets between two nodes may be lost."""
        return self._is_between(one, other) or self._is_between(other, one)

    def _is_between(self, node, peer):
        return node == self.node and (not self.peers or peer in self.peers)

    def stops(self, sender, receiver):
        """Return whether all packets from one node to another are lost."""
        if self.loss < 1:
            return False
        if self._is_between(sender, receiver):
            return self.direction in ("out", "both")
        if self._is_between(receiver, sender):
            return self.direction in ("in", "both")
        return False


@dataclasses.dataclass(frozen=True)
class _Segment:
    """A time in which nothing changes."""

    begin: float
    end: float
    #: Servers that may not serve.
    down: frozenset
    #: Servers that serve, but may not write: a proxy does not know.
    locked: frozenset
    cuts: tuple
    #: How often a server was flushed before, by server.
    flushes: tuple


class Truth:
    """The truth of one history.

    :param entries: as history.read() returns them
    """

    def __init__(self, entries):
        self.setup = next(e for e in entries if e["event"] == "setup")
        #: Members. Most are called like their machines.
        self.hosts = self.setup["hosts"]
        self._machines = self.setup.get("machines", {})
        machines = [self.machine(host) for host in self.hosts]
        self._names = list(dict.fromkeys(machines))
        self.drivers = self.setup["drivers"]
        self._servers = self.setup["servers"]
        self._fronts = self.setup["fronts"]
        self.end = max(entry["at"] for entry in entries)
        #: By host: its process may not run, or stood still.
        self.trouble = {}
        #: By host: its member leaves, or has left, and has not joined again.
        self.left = {}
        #: By host: its process certainly does not run.
        self._dead = {}
        #: Times in which a server's clock was set to another time.
        self.stepped = self._find_steps(entries)
        #: By node: it did not get a core.
        self.starved = {}
        self._cuts = self._find_cuts(entries)
        self._find_starved(entries)
        self._find_processes(entries)
        self._segments = self._find_segments(entries)
        self._begins = [segment.begin for segment in self._segments]
        #: By host: it is gone.
        self.gone = {
            host: Spans([*self._dead[host], *self._unreachable(host)])
            for host in self._names
        }
        for member, machine in self._machines.items():
            for found in (self.trouble, self.left, self.gone):
                found[member] = found[machine]
        self._cache = {}

    def machine(self, host):
        """Return the node that a member runs on."""
        return self._machines.get(host, host)

    # -- reading the history

    def _find_cuts(self, entries):
        begun, cuts = {}, []
        for entry in entries:
            if entry["event"] == "cut":
                begun[entry["id"]] = entry
            elif entry["event"] == "healed":
                cuts.append(self._cut(begun.pop(entry["id"]), entry))
        cuts += [self._cut(entry, None) for entry in begun.values()]
        return cuts

    @staticmethod
    def _cut(entry, healed):
        may_end = healed["at"] if healed else FOREVER
        did_end = healed["begun"] if healed else FOREVER
        return _Cut(
            entry["node"],
            frozenset(entry["peers"]),
            entry["direction"],
            entry["loss"],
            (entry["begun"], may_end),
            (entry["at"], did_end),
        )

    def _find_steps(self, entries):
        begun, spans = {}, []
        for entry in entries:
            if entry["event"] != "clock":
                continue
            if entry["step"]:
                begun[entry["server"]] = entry["begun"]
            else:
                spans.append((begun.pop(entry["server"]), entry["at"]))
        spans += [(begin, FOREVER) for begin in begun.values()]
        return Spans(spans)

    def _find_starved(self, entries):
        for entry in entries:
            if entry["event"] == "starved":
                span = entry["begun"], entry["at"]
                self.starved.setdefault(entry["node"], []).append(span)
        everywhere = self.starved.pop("*", [])
        servers = [n for names in self._servers.values() for n in names]
        for node in (*self._names, *servers, *self.setup["lived"]):
            self.starved[node] = Spans(
                [*self.starved.get(node, ()), *everywhere]
            )

    def _find_processes(self, entries):
        for host in self._names:
            trouble = list(self.starved[host].spans)
            dead = []
            left = []
            down = 0.0
            surely = None
            leaving = None
            for entry in entries:
                if entry["event"] != "process" or entry["host"] != host:
                    continue
                state = entry["state"]
                if state in _TROUBLE:
                    down = entry["begun"] if down is None else down
                if state in ("killed", "suspended", "left", "forced") or (
                    # Another thread keeps its session.
                    state == "blocked" and "zk" not in self.drivers
                ):
                    surely = entry["at"] if surely is None else surely
                if state in _GOES_ON and surely is not None:
                    dead.append((surely, entry["begun"]))
                    surely = None
                if state in _BACK and down is not None:
                    trouble.append((down, entry["at"]))
                    down = None
                if state == "leaving":
                    leaving = entry["begun"] if leaving is None else leaving
                if state == "joined" and leaving is not None:
                    left.append((leaving, entry["at"]))
                    leaving = None
            if down is not None:
                trouble.append((down, FOREVER))
            if surely is not None:
                dead.append((surely, FOREVER))
            if leaving is not None:
                left.append((leaving, FOREVER))
            self.trouble[host] = Spans(trouble)
            self.left[host] = Spans(left)
            self._dead[host] = dead

    def _find_segments(self, entries):
        down = {}
        silent = {}
        locked = {}
        spans = []
        locks = []
        flushes = []
        for entry in entries:
            if entry["event"] != "server":
                continue
            name, state = entry["server"], entry["state"]
            if state in ("answering", "unlocked") and name in locked:
                locks.append((name, locked.pop(name), entry["at"]))
            if state in (
                *("killed", "stopped", "suspended"),
                *("filled", "read-only"),
            ):
                down.setdefault(name, entry["begun"])
            elif state == "locked":
                locked.setdefault(name, entry["begun"])
            elif (
                state in ("answering", "resumed", "writable") and name in down
            ):
                spans.append((name, down.pop(name), entry["at"]))
            elif state == "silent":
                silent.setdefault(name, entry["begun"])
            elif state == "serving" and name in silent:
                spans.append((name, silent.pop(name), entry["at"]))
            elif state == "flushed":
                flushes.append((entry["begun"], name))
        for some in (down, silent):
            spans += [(name, begin, FOREVER) for name, begin in some.items()]
        locks += [(name, begin, FOREVER) for name, begin in locked.items()]
        for names in self._servers.values():
            for name in names:
                for begin, end in self.starved[name].spans:
                    spans.append((name, begin, end))
        servers = {n for names in self._servers.values() for n in names}
        points = {0.0, FOREVER}
        for _, begin, end in spans + locks:
            points |= {begin, end}
        for cut in self._cuts:
            points |= set(cut.may)
        points |= {at for at, _ in flushes}
        found = []
        for begin, end in itertools.pairwise(sorted(points)):
            middle = begin + 0.0005 if end == FOREVER else (begin + end) / 2
            cuts = [c for c in self._cuts if c.may[0] <= middle <= c.may[1]]
            # A server that is cut off from all, one way at least, is of no
            # more use than one that is suspended.
            isolated = [
                cut
                for cut in cuts
                if cut.node in servers and not cut.peers and cut.loss >= 1
            ]
            found.append(
                _Segment(
                    begin,
                    end,
                    frozenset(n for n, b, e in spans if b <= middle <= e)
                    | {cut.node for cut in isolated},
                    frozenset(n for n, b, e in locks if b <= middle <= e),
                    tuple(cut for cut in cuts if cut not in isolated),
                    tuple(name for at, name in flushes if at <= middle),
                )
            )
        return found

    def _unreachable(self, host):
        """Yield the times in which no packet of a host reaches a server."""
        points = sorted({p for cut in self._cuts for p in cut.did})
        for begin, end in itertools.pairwise(points):
            cuts = [c for c in self._cuts if c.did[0] <= begin < c.did[1]]
            if cuts and all(
                any(cut.stops(host, server) for cut in cuts)
                for driver in self.drivers
                for server in self._targets(host, driver)
            ):
                yield begin, end

    def last_bytes(self, host, gone):
        """Return until when bytes of a host that is gone may arrive.

        A process may have sent them while its host was cut off. The host's
        kernel sends them again after the cut, also if the process has been
        killed meanwhile: after the cut it waits for as long as the cut lasted
        at most.

        :param gone: the span in which the host is gone
        """
        found = gone[0]
        host = self.machine(host)
        for cut in self._cuts:
            begin, end = cut.may
            if gone[0] <= end < gone[1] and host in {cut.node, *cut.peers}:
                found = max(found, 2 * end - begin)
        return found

    # -- paths

    def _targets(self, client, driver):
        """Return the servers that a client speaks to."""
        front = self._fronts[client][driver]
        return [front] if front else self._servers[driver]

    def _core_names(self, driver):
        fronts = {one[driver] for one in self._fronts.values()}
        return [name for name in self._servers[driver] if name not in fronts]

    def _core(self, segment, driver):
        """Return servers that make a majority and see each other; or none."""
        names = self._core_names(driver)
        up = [name for name in names if name not in segment.down]
        for size in range(len(up), len(names) // 2, -1):
            for some in itertools.combinations(up, size):
                if not any(
                    cut.touches(one, other)
                    for one, other in itertools.combinations(some, 2)
                    for cut in segment.cuts
                ):
                    return set(some)
        return set()

    def _free(self, segment, client, names):
        """Return the servers to which a client's packets certainly get."""
        return {
            name
            for name in names
            if name not in segment.down
            and not any(cut.touches(client, name) for cut in segment.cuts)
        }

    def _is_touched(self, segment, client, driver):
        return any(
            cut.touches(client, server)
            for cut in segment.cuts
            for server in self._servers[driver]
        )

    def path(self, segment, client, driver):
        """Return how the path of a client is: WHOLE, OUT or BROKEN."""
        client = self.machine(client)
        key = segment.begin, client, driver
        if key not in self._cache:
            self._cache[key] = self._path(segment, client, driver)
        return self._cache[key]

    def _path(self, segment, client, driver):
        if driver == "mc":
            free = self._free(segment, client, self._servers[driver])
            if free:
                return WHOLE
            touched = self._is_touched(segment, client, driver)
            return BROKEN if touched else OUT
        core = self._core(segment, driver)
        front = self._fronts[client][driver]
        if core & segment.locked:
            # Writes to the others hang, too, once this one has not applied
            # enough of them.
            return OUT if core <= segment.locked else BROKEN
        if front:
            if not self._free(segment, client, [front]):
                return BROKEN
            behind = self._free(segment, front, self._core_names(driver))
            if core:
                return WHOLE if behind & core else BROKEN
            touched = self._is_touched(segment, front, driver)
            return BROKEN if touched else OUT
        if core:
            free = self._free(segment, client, core)
            return WHOLE if len(free) >= 2 else BROKEN
        touched = self._is_touched(segment, client, driver)
        return BROKEN if touched else OUT

    def pair(self, segment, host, observer, driver):
        """Return how the way from a host to an observer is."""
        host = self.machine(host)
        of_host = self.path(segment, host, driver)
        if driver != "mc":
            return of_host
        # They meet at a server that both reach.
        names = self._servers[driver]
        if self._free(segment, host, names) & self._free(
            segment, observer, names
        ):
            return WHOLE
        touched = self._is_touched(segment, host, driver) or self._is_touched(
            segment, observer, driver
        )
        return BROKEN if touched else OUT

    def _between(self, begin, end):
        first = bisect.bisect_right(self._begins, begin) - 1
        last = bisect.bisect_right(self._begins, end)
        return self._segments[max(0, first) : last]

    # -- questions

    def clear(self, host, observer, begin, end):
        """Return whether a host was clear all the time between two moments."""
        if begin < 0 or self.trouble[host].overlap(begin, end):
            return False
        segments = self._between(begin, end)
        ways = {
            driver: {
                self.pair(one, host, observer, driver) for one in segments
            }
            for driver in self.drivers
        }
        if len(self.drivers) == 1:
            return BROKEN not in ways[self.drivers[0]]
        if all(BROKEN not in found for found in ways.values()):
            return True
        return any(
            found == {WHOLE}
            and all(
                self.path(one, observer, driver) != BROKEN for one in segments
            )
            for driver, found in ways.items()
        )

    def clear_since(self, host, observer, moment):
        """Return since when the way from a host has been whole; None: not."""
        if self.trouble[host].overlap(moment, moment):
            return None
        since = None
        for segment in reversed(self._between(0.0, moment)):
            if not any(
                self.pair(segment, host, observer, driver) == WHOLE
                and self.path(segment, observer, driver) == WHOLE
                for driver in self.drivers
            ):
                break
            since = segment.begin
        if since is None:
            return None
        last = self.trouble[host].last(moment)
        return max(since, last[1]) if last else since

    def last_cut(self, host, moment):
        """Return for how long a host's path was last broken, in seconds."""
        end = None
        for segment in reversed(self._between(0.0, moment)):
            broken = any(
                self.path(segment, host, driver) == BROKEN
                for driver in self.drivers
            )
            if broken and end is None:
                end = min(segment.end, moment)
            if end is not None and not broken:
                return end - segment.end
        return 0.0 if end is None else end

    def silent(self, host, driver):
        """Return the times in which a host may not report to a backend."""
        key = "silent", host, driver
        if key not in self._cache:
            self._cache[key] = Spans(
                [
                    *self.trouble[host].spans,
                    *(
                        (segment.begin, segment.end)
                        for segment in self._segments
                        if self.path(segment, host, driver) != WHOLE
                    ),
                ]
            )
        return self._cache[key]

    def last_reached(self, observer, moment, driver):
        """Return until when an observer could reach a backend, at last."""
        for segment in reversed(self._between(0.0, moment)):
            if self.path(segment, observer, driver) == WHOLE:
                return min(segment.end, moment)
        return 0.0

    def good_since(self, observer, moment, drivers):
        """Return since when nothing changed between an observer and servers.

        :returns: None if a majority cannot be reached by it
        """
        since = 0.0
        for driver in drivers:
            segments = self._between(0.0, moment)
            now = segments[-1]
            if self.path(now, observer, driver) != WHOLE:
                return None
            mark = self._mark(now, observer, driver)
            begin = now.begin
            for segment in reversed(segments):
                if self._mark(segment, observer, driver) != mark:
                    break
                begin = segment.begin
            since = max(since, begin)
        return since

    def _mark(self, segment, observer, driver):
        key = "mark", segment.begin, observer, driver
        if key not in self._cache:
            names = self._servers[driver]
            front = self._fronts[observer][driver]
            if front:
                names = [*self._core_names(driver), front]
            self._cache[key] = (
                frozenset(segment.down & set(names)),
                frozenset(segment.locked & set(names)),
                frozenset(
                    cut
                    for cut in segment.cuts
                    if any(
                        cut.touches(one, other)
                        for one, other in itertools.combinations(
                            [*names, observer], 2
                        )
                    )
                ),
                tuple(n for n in segment.flushes if n in names),
            )
        return self._cache[key]

    def many_silent(self, host, observer, begin, end):
        """Return whether half of a host's group was not clear in a time.

        As the observer sees it: hosts that report to other memcacheds than it
        can reach are silent to it.
        """
        if host in self._machines:
            # The whole group is in this process.
            return True
        count = 0
        segments = self._between(begin, end)
        group = [host for host in self.hosts if host not in self._machines]
        for host in group:
            # Not that it had not started yet.
            count += any(
                0.0 < b <= end and e >= begin
                for b, e in self.trouble[host].spans
            ) or any(
                self.pair(segment, host, observer, driver) == BROKEN
                for segment in segments
                for driver in self.drivers
            )
        return count >= len(group) / 2
