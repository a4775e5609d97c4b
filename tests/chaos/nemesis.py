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

"""The nemesis: from a seed, which faults hit which nodes when; and playing it.

A plan is a list of faults. It depends on the seed, the length and the shape of
the cloud alone, so a run can be repeated, also with some of its faults only.
Faults come in rounds: in the first part of a round they begin and overlap,
then those of servers and of the network end. The rest of the round is calm, so
that it is seen whether everything comes back. Dead hosts may stay dead longer.
"""

import contextlib
import dataclasses
import random
import threading
import time
import traceback

from tests.chaos.cloud import now

# Seconds of a round, and of its part with faults.
ROUND = 45.0
STORM = 26.0
# Seconds after the last fault in which everything comes back.
CALM = 25.0
# Seconds between two faults of one server or host.
_GAP = 3.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """One planned fault."""

    #: By which a repeated run picks it.
    number: int
    #: Seconds from the begin of the run.
    at: float
    lasts: float
    #: The name of a method of Nemesis.
    kind: str
    #: Names of nodes.
    targets: tuple[str, ...]
    #: The other side of a cut; empty: all nodes.
    peers: tuple[str, ...] = ()
    #: in, out or both.
    direction: str = "both"
    loss: float = 1.0


class _Planner:
    """Makes a plan.

    :param servers: names of servers by driver
    :param fronts: those of them that are proxies
    """

    def __init__(self, seed, hosts, controllers, servers, fronts):
        self._random = random.Random(f"plan {seed}")
        self._hosts = list(hosts)
        self._controllers = list(controllers)
        self._servers = servers
        self._fronts = set(fronts)
        # From when on a node may get another fault of its process.
        self._free = {}
        self.faults = []

    def plan(self, seconds):
        begin = 4.0
        while begin + STORM <= seconds:
            # Some rounds leave the backend alone: a death has to be found in
            # the stated time then.
            many = self._random.choice([0, self._random.randint(5, 11), 7, 10])
            for _ in range(many):
                at = begin + self._random.uniform(0, STORM * 0.7)
                self._server_or_network(at, begin + STORM)
            for _ in range(self._random.randint(4, 9)):
                at = begin + self._random.uniform(0, ROUND * 0.8)
                self._host(at, seconds)
            begin += ROUND
        self.faults.sort(key=lambda fault: fault.at)
        return [
            dataclasses.replace(fault, number=number)
            for number, fault in enumerate(self.faults, 1)
        ]

    def _add(self, at, lasts, kind, targets, **more):
        self.faults.append(
            Fault(
                0, round(at, 2), round(lasts, 2), kind, tuple(targets), **more
            )
        )

    def _take(self, name, at, lasts, gap=_GAP):
        """Return whether a node is free for a fault, and take it."""
        if self._free.get(name, 0.0) > at:
            return False
        self._free[name] = at + lasts + gap
        return True

    def _server_or_network(self, at, limit):
        pick = self._random
        driver = pick.choice(sorted(self._servers))
        names = self._servers[driver]
        core = [name for name in names if name not in self._fronts]
        fronts = [name for name in names if name in self._fronts]
        lasts = min(pick.uniform(1.0, 14.0), limit - at)
        kind = pick.choices(
            [
                "kill_server",
                "suspend_server",
                "restart_server",
                "rolling_restart",
                "unplug",
                "one_way",
                "loss",
                "cut_hosts",
                "halves",
                "cut_controller",
                "flush",
            ],
            [3, 4, 2, 1, 2, 3, 3, 4, 3, 2, 3 if driver == "mc" else 0],
        )[0]
        if kind in ("kill_server", "suspend_server", "restart_server"):
            name = pick.choice(names)
            if kind == "restart_server":
                lasts = 0.1
            if name in fronts:
                lasts = min(lasts, 2.0)
            # A Galera cluster that loses two nodes at once, with their
            # memory, needs an operator.
            keys = [name]
            if driver == "db" and name in core and kind != "suspend_server":
                keys = core
            if all(self._free.get(key, 0.0) <= at for key in keys):
                for key in keys:
                    self._take(key, at, lasts, 12.0 if len(keys) > 1 else _GAP)
                self._add(at, lasts, kind, [name])
        elif kind == "rolling_restart":
            if all(self._free.get(key, 0.0) <= at for key in core):
                for key in core:
                    self._take(key, at, 20.0)
                self._add(at, 0.1, kind, core)
        elif kind == "unplug":
            name = pick.choice([*names, *self._some_hosts(2)])
            if self._take(f"cable of {name}", at, lasts):
                self._add(at, lasts, kind, [name])
        elif kind == "one_way":
            name = pick.choice([*names, *self._some_hosts(2)])
            way = pick.choice(["in", "out"])
            self._add(at, lasts, "cut", [name], direction=way)
        elif kind == "loss":
            targets = pick.choice([[pick.choice(names)], self._some_hosts(6)])
            self._add(at, lasts, "cut", targets, loss=0.3)
        elif kind == "cut_hosts":
            # A rack, from all servers or from one.
            peers = pick.choice([names, [pick.choice(names)]])
            self._add(
                *(at, lasts, "cut", self._some_hosts(8)),
                peers=tuple(peers),
                direction=pick.choice(["in", "out", "both", "both"]),
            )
        elif kind == "halves":
            name = pick.choice(core)
            others = [one for one in names if one != name]
            if fronts and pick.random() < 0.5:
                # Seen by the proxies still.
                others = [one for one in core if one != name]
            elif not fronts and pick.random() < 0.5:
                # The minority with its clients.
                others += self._some_hosts(len(self._hosts) * 2 // 3)
                others += [pick.choice(self._controllers)]
            self._add(at, lasts, "cut", [name], peers=tuple(others))
        elif kind == "cut_controller":
            peers = pick.choice([names, [pick.choice(names)]])
            self._add(
                *(at, lasts, "cut", [pick.choice(self._controllers)]),
                peers=tuple(peers),
                direction=pick.choice(["in", "out", "both"]),
            )
        elif kind == "flush":
            for name in pick.choice([names, [pick.choice(names)]]):
                self._add(at, 0.1, kind, [name])

    def _some_hosts(self, most):
        most = max(1, min(most, len(self._hosts) - 1))
        return self._random.sample(self._hosts, self._random.randint(1, most))

    def _host(self, at, limit):
        name = self._random.choice(self._hosts)
        kind = self._random.choice(
            [
                *("kill_host", "kill_host", "cut_and_kill_host"),
                *("suspend_host", "leave", "restart_host"),
            ]
        )
        lasts = min(self._random.uniform(2.0, 40.0), limit - at)
        if kind == "restart_host":
            lasts = 0.1
        if self._take(name, at, lasts, 8.0):
            self._add(at, lasts, kind, [name])


def plan(seed, seconds, hosts, controllers, servers, fronts):
    """Return the faults of a run."""
    planner = _Planner(seed, hosts, controllers, servers, fronts)
    return planner.plan(seconds)


class Nemesis:
    """Plays a plan.

    :param hosts: hosts.Host by name
    :param backends: servers.Backend objects
    """

    def __init__(self, the_cloud, hosts, backends, history):
        self._cloud = the_cloud
        self._hosts = hosts
        self._backends = {
            name: backend for backend in backends for name in backend.names
        }
        self._history = history
        self._ended = threading.Event()
        self._cuts = 0
        self._lock = threading.Lock()
        #: What went wrong with the nemesis itself.
        self.errors = []

    def play(self, faults):
        """Play all faults to their ends."""
        begun = now()
        threads = [
            threading.Thread(target=self._play, args=[fault, begun])
            for fault in faults
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self):
        """Have all faults end now."""
        self._ended.set()

    def _play(self, fault, begun):
        if self._ended.wait(max(0.0, begun + fault.at - now())):
            return
        fields = dataclasses.asdict(fault)
        fields["planned"] = fields.pop("at")
        self._history.write("fault", state="begins", **fields)
        try:
            getattr(self, f"_{fault.kind}")(fault)
        except Exception:
            self.errors.append(f"{fault}\n{traceback.format_exc()}")
        self._history.write("fault", state="ends", number=fault.number)

    def _wait(self, fault):
        self._ended.wait(fault.lasts)

    # -- servers

    def _server(self, name, state, begun):
        self._history.write("server", begun=begun, server=name, state=state)

    def _start_server(self, name):
        begun = now()
        self._backends[name].start_server(name)
        self._server(name, "started", begun)
        limit = now() + 150
        while not self._answers(name):
            server = self._backends[name].servers[name]
            if now() > limit:
                raise AssertionError(
                    f"{name} does not answer\n{server.log_tail()}"
                )
            if not server.is_running:
                # A node of Galera ends if there is no cluster to join.
                # systemd would start it again.
                self._backends[name].start_server(name)
            time.sleep(0.2)
        self._server(name, "answering", now())

    def _answers(self, name):
        with contextlib.suppress(OSError):
            return self._backends[name].answers(name)
        return False

    def _kill_server(self, fault):
        [name] = fault.targets
        begun = now()
        self._backends[name].servers[name].kill()
        self._server(name, "killed", begun)
        self._wait(fault)
        self._start_server(name)

    def _restart_server(self, fault):
        for name in fault.targets:
            begun = now()
            self._backends[name].servers[name].stop()
            self._server(name, "stopped", begun)
            self._start_server(name)

    def _rolling_restart(self, fault):
        self._restart_server(fault)

    def _suspend_server(self, fault):
        [name] = fault.targets
        server = self._backends[name].servers[name]
        begun = now()
        server.freeze()
        self._server(name, "suspended", begun)
        self._wait(fault)
        begun = now()
        server.thaw()
        self._server(name, "resumed", begun)

    def _flush(self, fault):
        [name] = fault.targets
        begun = now()
        with contextlib.suppress(OSError):
            self._backends[name].flush(name)
        self._server(name, "flushed", begun)

    # -- the network

    def _cut(self, fault):
        made = self._make_cuts(fault)
        self._wait(fault)
        self._heal_cuts(made)

    def _make_cuts(self, fault):
        made = []
        for name in fault.targets:
            with self._lock:
                self._cuts += 1
                number = self._cuts
            begun = now()
            self._cloud.cut(
                number, name, fault.peers, fault.direction, fault.loss
            )
            made.append((number, name))
            self._history.write(
                "cut",
                begun=begun,
                id=number,
                node=name,
                peers=list(fault.peers),
                direction=fault.direction,
                loss=fault.loss,
            )
        return made

    def _heal_cuts(self, made):
        for number, name in made:
            begun = now()
            self._cloud.heal(number, name)
            self._history.write("healed", begun=begun, id=number)

    def _unplug(self, fault):
        [name] = fault.targets
        with self._lock:
            self._cuts += 1
            number = self._cuts
        begun = now()
        self._cloud.set_link(name, False)
        self._history.write(
            *("cut", begun),
            id=number,
            node=name,
            peers=[],
            direction="both",
            loss=1.0,
        )
        self._wait(fault)
        begun = now()
        self._cloud.set_link(name, True)
        self._history.write("healed", begun=begun, id=number)

    # -- hosts

    def _kill_host(self, fault):
        [name] = fault.targets
        host = self._hosts[name]
        host.kill()
        self._wait(fault)
        host.start()
        host.wait_until_joined()

    def _cut_and_kill_host(self, fault):
        """Its last report waits in a socket, and is sent after its death."""
        made = self._make_cuts(fault)
        self._ended.wait(min(2.0, fault.lasts / 2))
        [name] = fault.targets
        host = self._hosts[name]
        host.kill()
        self._ended.wait(min(1.0, fault.lasts / 2))
        self._heal_cuts(made)
        self._wait(fault)
        host.start()
        host.wait_until_joined()

    def _restart_host(self, fault):
        self._kill_host(fault)

    def _suspend_host(self, fault):
        [name] = fault.targets
        self._hosts[name].freeze()
        self._wait(fault)
        self._hosts[name].thaw()

    def _leave(self, fault):
        [name] = fault.targets
        self._hosts[name].leave()
        self._wait(fault)
        self._hosts[name].join()
