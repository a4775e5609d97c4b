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

# Faults of servers and of the network, and how often each is picked.
_OF_SERVERS = {
    "kill_server": 3,
    "suspend_server": 4,
    "restart_server": 2,
    "rolling_restart": 1,
    "reload_proxy": 2,
    "fill_disk": 2,
    "read_only": 2,
    "lock_tables": 2,
    "step_clock": 2,
    "flush": 3,
    "unplug": 2,
    "one_way": 3,
    "loss": 3,
    "cut_hosts": 4,
    "halves": 3,
    "rack": 2,
    "cut_controller": 2,
    "controllers": 1,
}
# The same of the process of a host.
_OF_HOSTS = {
    "kill_host": 2,
    "cut_and_kill_host": 1,
    "suspend_host": 1,
    "hold_gil": 1,
    "leave": 1,
    "restart_host": 1,
    "force_down": 1,
}
# Faults that only some backends have.
_ONLY = {
    "flush": ("mc",),
    "reload_proxy": ("db",),
    "fill_disk": ("db", "zk"),
    "read_only": ("db",),
    "lock_tables": ("db",),
    "step_clock": ("db", "mc"),
}
#: The names of all faults, for a plan of some of them.
KINDS = (*_OF_SERVERS, *_OF_HOSTS)
# How many racks the nodes are shared out to, in a partition of these.
_RACKS = 3
#: The host with many members.
BULK = "hb"
# By how many seconds a clock is set forward or back, at most.
_STEP = 20.0


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
    #: Seconds by which a clock is set forward, or, below 0, back.
    step: float = 0.0


class _Planner:
    """Makes a plan.

    :param servers: names of servers by driver
    :param fronts: those of them that are proxies
    :param kinds: of KINDS; None: all
    """

    def __init__(self, seed, hosts, controllers, servers, fronts, kinds=None):
        self._is_of_some = kinds is not None
        kinds = KINDS if kinds is None else kinds
        self._of_hosts = {
            kind: weight for kind, weight in _OF_HOSTS.items() if kind in kinds
        }
        # By driver.
        self._of_servers = {
            driver: {
                kind: weight
                for kind, weight in _OF_SERVERS.items()
                if kind in kinds and driver in _ONLY.get(kind, (driver,))
            }
            for driver in sorted(servers)
        }
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
            if self._is_of_some:
                many = 10
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
        drivers = [one for one, some in self._of_servers.items() if some]
        if not drivers:
            return
        driver = pick.choice(drivers)
        names = self._servers[driver]
        core = [name for name in names if name not in self._fronts]
        fronts = [name for name in names if name in self._fronts]
        lasts = min(pick.uniform(1.0, 14.0), limit - at)
        weights = self._of_servers[driver]
        [kind] = pick.choices(list(weights), list(weights.values()))
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
        elif kind == "rack":
            racks = [
                [
                    *core[number::_RACKS],
                    *fronts[number::_RACKS],
                    *self._hosts[number::_RACKS],
                    *self._controllers[number::_RACKS],
                ]
                for number in range(_RACKS)
            ]
            cut = racks.pop(pick.randrange(_RACKS))
            others = tuple(name for rack in racks for name in rack)
            self._add(at, lasts, "cut", cut, peers=others)
        elif kind == "controllers":
            # They need no way to the hosts.
            self._add(
                *(at, lasts, "cut", self._controllers),
                peers=tuple(self._hosts),
            )
        elif kind == "reload_proxy":
            self._add(at, 0.1, kind, [pick.choice(fronts)])
        elif kind == "step_clock":
            name = pick.choice(core)
            # See Mc.clock_needs_start.
            key = name if driver == "mc" else f"clock of {name}"
            if self._take(key, at, lasts):
                step = round(pick.uniform(-_STEP, _STEP), 1)
                self._add(at, lasts, kind, [name], step=step)
        elif kind in ("fill_disk", "read_only", "lock_tables"):
            some = [pick.choice(core)]
            keys = [f"writes of {driver}"]
            if kind == "fill_disk":
                # The server may end of it.
                keys += core if driver == "db" else some
            elif pick.random() < 0.3:
                some = core
            if all(self._free.get(key, 0.0) <= at for key in keys):
                for key in keys:
                    self._take(key, at, lasts, 12.0)
                self._add(at, lasts, kind, some)
        elif kind == "flush":
            for name in pick.choice([names, [pick.choice(names)]]):
                self._add(at, 0.1, kind, [name])

    def _some_hosts(self, most):
        most = max(1, min(most, len(self._hosts) - 1))
        return self._random.sample(self._hosts, self._random.randint(1, most))

    def _host(self, at, limit):
        if not self._of_hosts or at >= limit:
            return
        name = self._random.choice(self._hosts)
        [kind] = self._random.choices(
            list(self._of_hosts), list(self._of_hosts.values())
        )
        if kind == "force_down" and name == BULK:
            # It takes a command for each member.
            return
        lasts = min(self._random.uniform(2.0, 40.0), limit - at)
        if kind == "restart_host":
            lasts = 0.1
        if self._take(name, at, lasts, 8.0):
            self._add(at, lasts, kind, [name])


def plan(
    seed,
    seconds,
    hosts,
    controllers,
    servers,
    fronts,
    kinds=None,
    factor=1,
):
    """Return the faults of a run.

    :param kinds: of KINDS: make it of these alone
    :param factor: by which all times are longer
    """
    planner = _Planner(seed, hosts, controllers, servers, fronts, kinds)
    return [
        dataclasses.replace(
            fault, at=fault.at * factor, lasts=fault.lasts * factor
        )
        for fault in planner.plan(seconds / factor)
    ]


class Nemesis:
    """Plays a plan.

    :param hosts: hosts.Host by name
    :param backends: servers.Backend objects
    :param operator: called with the arguments of a nova-sg command; returns
        its exit status
    """

    def __init__(self, the_cloud, hosts, backends, history, operator):
        self._operator = operator
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

    def _reload_proxy(self, fault):
        [name] = fault.targets
        begun = now()
        self._backends[name].servers[name].reload()
        self._server(name, "reloaded", begun)

    def _fill_disk(self, fault):
        [name] = fault.targets
        backend = self._backends[name]
        server = backend.servers[name]
        # Where a proxy still leads to it, writes hang.
        state = "locked" if backend.fronts else "filled"
        begun = now()
        self._server(name, state, begun)
        end = begun + fault.lasts
        while now() < end and not self._ended.is_set():
            server.fill_disk()
            self._ended.wait(0.3)
        server.free_disk()
        self._wait_for_server(name)
        self._server(name, "answering", begun=now())

    def _wait_for_server(self, name):
        """Wait until a server that had no disk serves; help as an operator."""
        server = self._backends[name].servers[name]
        limit = now() + 15
        while not self._answers(name):
            if now() > limit and server.is_running:
                server.kill()
            if not server.is_running:
                self._start_server(name)
                return
            time.sleep(0.2)

    def _read_only(self, fault):
        for name in fault.targets:
            begun = now()
            self._backends[name].set_read_only(name, True)
            self._server(name, "read-only", begun)
        self._wait(fault)
        for name in fault.targets:
            limit = now() + 60
            while not self._backends[name].set_read_only(name, False):
                if now() > limit:
                    raise AssertionError(f"{name} stays read-only")
                time.sleep(0.5)
            self._server(name, "writable", now())

    def _lock_tables(self, fault):
        for name in fault.targets:
            self._server(name, "locked", now())
        with contextlib.ExitStack() as locks:
            for name in fault.targets:
                locks.enter_context(self._backends[name].locked(name))
            self._wait(fault)
        for name in fault.targets:
            self._server(name, "unlocked", now())

    def _step_clock(self, fault):
        [name] = fault.targets
        backend = self._backends[name]
        server = backend.servers[name]
        for step in (fault.step, 0.0):
            begun = now()
            if backend.clock_needs_start:
                server.kill()
                self._server(name, "killed", begun)
            server.step_clock(step)
            if backend.clock_needs_start:
                self._start_server(name)
            self._history.write("clock", begun=begun, server=name, step=step)
            if step:
                self._wait(fault)

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

    def _hold_gil(self, fault):
        [name] = fault.targets
        self._hosts[name].block(fault.lasts)

    def _force_down(self, fault):
        [name] = fault.targets
        host = self._hosts[name]
        begun = now()
        host.tell("forcing", begun)
        if self._operator("force-down", name) == 0:
            host.tell("forced", begun)
        self._wait(fault)
        host.tell("unforcing", now())
        limit = now() + 90
        while self._operator("force-down", name, "--unset") != 0:
            if now() > limit:
                raise AssertionError(f"{name} stays forced down")
            self._ended.wait(1.0)
        host.tell("unforced", now())
