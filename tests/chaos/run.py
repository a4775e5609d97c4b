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

"""One run: the cloud, its processes, the nemesis, and the history of it."""

import contextlib
import os
import random
import threading
from typing import NamedTuple

from tests.chaos import cloud, hosts, nemesis, servers
from tests.chaos.history import History
from tests.faults import truth as answers
from tests.fixtures.process import wait_for


class Times(NamedTuple):
    """The options of all processes, in seconds, and what follows of them."""

    service_down_time: float
    report_interval: float
    refresh: float
    #: By which everything takes longer than with short times.
    factor: int

    @property
    def acts(self):
        """Seconds for which a watcher's command is later than its verdict.

        They are the default of [events] gather_for, and the start of the
        command.
        """
        return 1.25 * self.report_interval + 2 * self.refresh + 2.25


TIMES = {
    "short": Times(6.0, 1.0, 0.25, 1),
    # The options' defaults.
    "default": Times(60.0, 10.0, 2.0, 10),
}
# ZooKeeper's: see tests/chaos/servers.py. It is the default, too.
SESSION = 4.0

# Seconds between two questions of a long-lived observer.
_PERIOD = 0.25
# Seconds between two commands.
_COMMAND_PERIOD = 4.0
# Seconds between two questions to the monitor; to stock Nova.
_MONITOR_PERIOD = 1.0
_STOCK_PERIOD = 1.0
# Observers of stock Nova, by driver.
_STOCK = {"db": "n1", "mc": "n2"}
# The observer inside Nova.
_INSIDE = "c7"
# Seconds between two samples of the kernel's scheduler, and the part of that
# for which a thread was ready and had no core.
_SAMPLE = 1.0
_STARVED = 0.7
# Seconds without any server after which an operator helps.
_RESCUE = 20.0
# Seconds for which the sampler itself had no core.
_STOOD_STILL = 0.7


class Run:
    """One run.

    :param folder: where its files are
    :param drivers: names, the primary first
    :param mode: threads or eventlet: hosts and the first observer
    :param count: how many hosts
    :param only: numbers of the faults to play; None: all
    :param plan: the faults to play; by default they are made from the seed
    :param calm: seconds after the last fault in which everything comes back
    :param bulk: how many members one more process has, in a group of its own
    :param stock: whether stock Nova has a member on each host, too
    :param inside: whether an observer inside Nova asks, by records; it needs
        the driver db
    :param faults: names of the faults to make a plan of; None: all
    :param times: short or default
    """

    def __init__(
        self,
        folder,
        seed,
        seconds,
        drivers,
        mode,
        count=30,
        only=None,
        plan=None,
        calm=nemesis.CALM,
        bulk=0,
        stock=False,
        inside=False,
        faults=None,
        times="short",
    ):
        self._times = TIMES[times]
        self.folder = folder
        self.path = os.path.join(folder, "history.jsonl")
        self._seed = seed
        self._seconds = seconds
        self._drivers = drivers
        self._mode = mode
        self._names = [f"h{number:02}" for number in range(count)]
        self._bulk = [f"b{number:03}" for number in range(bulk)]
        self._stock = [
            driver for driver in _STOCK if stock and driver in drivers
        ]
        self._inside = inside and "db" in drivers
        self._faults = faults
        self._only = only
        self._plan = plan
        self._calm = calm * self._times.factor
        self._closing = contextlib.ExitStack()
        self._random = random.Random(f"cloud {seed}")
        self._nemesis = None
        self.errors = []

    def play(self):
        """Set up, play, write the history, clean up."""
        with self._closing:
            self._set_up()
            played = threading.Thread(
                target=self._nemesis.play, args=[self._plan], daemon=True
            )
            played.start()
            try:
                while played.is_alive():
                    played.join(0.5)
                # Everything comes back.
                threading.Event().wait(self._calm)
            finally:
                self._nemesis.stop()
                played.join(100)
            self.errors = self._nemesis.errors
            self._end.set()
            for sampler in self._samplers:
                sampler.join()
            self._command.close()
            self._monitor.check()
            self._watcher.check()
            self._collect()
            self.history.write("end", errors=self.errors)

    def _set_up(self):
        os.makedirs(self.folder, exist_ok=True)
        self.history = History(self.path)
        self._closing.callback(self.history.close)
        self._cloud = self._closing.enter_context(cloud.Cloud())
        self._backends = []
        for driver in self._drivers:
            backend = servers.BACKENDS[driver](self._cloud, self._random)
            self._backends.append(backend)
            self._closing.callback(backend.close)
            backend.start()
        self._controllers = ["c1", "c2", "c3"]
        if "db" in self._drivers:
            self._controllers.append("c4")
        self._controllers += ["c5", "c6"]
        if self._inside:
            self._controllers.append(_INSIDE)
        self._machines = list(self._names)
        if self._bulk:
            self._machines.append(nemesis.BULK)
        self._cloud.add(*self._controllers)
        self._cloud.add(*self._machines)
        self._cloud.add(*(_STOCK[driver] for driver in self._stock))
        self._fork_servers = {}
        for mode in dict.fromkeys([self._mode, "threads", "eventlet"]):
            self._fork_servers[mode] = hosts.ForkServer(mode)
            self._closing.callback(self._fork_servers[mode].close)
        if self._stock:
            self._nova = hosts.ForkServer("threads", "stock")
            self._closing.callback(self._nova.close)
        if self._inside:
            self._with_nova = hosts.ForkServer("threads", "inside")
            self._closing.callback(self._with_nova.close)
        self._start_processes()
        if self._plan is None:
            self._plan = self._make_plan()
        if self._only is not None:
            self._plan = [
                fault for fault in self._plan if fault.number in self._only
            ]
        self._nemesis = nemesis.Nemesis(
            *(self._cloud, self._hosts, self._backends, self.history),
            self._command.order,
        )
        self._end = threading.Event()
        self._samplers = [
            threading.Thread(target=self._sample, daemon=True),
            *(
                threading.Thread(
                    target=self._ask_servers, args=[backend], daemon=True
                )
                for backend in self._backends
            ),
        ]
        for sampler in self._samplers:
            sampler.start()

    def _make_plan(self):
        return nemesis.plan(
            self._seed,
            self._seconds,
            self._machines,
            self._controllers,
            {one.driver: one.names for one in self._backends},
            [name for one in self._backends for name in one.fronts],
            self._faults,
            self._times.factor,
        )

    def _options(self, client, whole=False):
        """Return the options of a process.

        :param whole: whether Nova reads them, which accepts whole seconds only
        """
        times = {
            "service_down_time": self._times.service_down_time,
            "report_interval": self._times.report_interval,
        }
        if whole:
            times = {name: round(time) for name, time in times.items()}
        return [
            {
                "DEFAULT": {"servicegroup_driver": self._drivers[0], **times},
                "servicegroup": {
                    "view_refresh_interval": self._times.refresh,
                    "secondary_drivers": ",".join(self._drivers[1:]),
                },
            },
            *(backend.options(client) for backend in self._backends),
        ]

    def _stock_options(self, client, driver):
        return [
            {
                "DEFAULT": {
                    "servicegroup_driver": driver,
                    "service_down_time": round(self._times.service_down_time),
                    "report_interval": round(self._times.report_interval),
                },
            },
            *(
                backend.stock_options(client)
                for backend in self._backends
                if backend.driver == driver
            ),
        ]

    def _front(self, client):
        return {
            backend.driver: backend.front(client) for backend in self._backends
        }

    def _start_processes(self):
        nodes = self._cloud.nodes
        threads = self._fork_servers["threads"]
        self._command = hosts.Command(
            threads,
            nodes["c2"],
            os.path.join(self.folder, "c2"),
            self._options(1),
            self._names,
            self.history,
            _COMMAND_PERIOD,
        )
        if "db" in self._drivers:
            self._command.run(os.path.join(self.folder, "prepare"), "prepare")
        stock = {driver: _STOCK[driver] for driver in self._stock}
        if "db" in stock:
            made = hosts.start(
                *(self._nova, nodes["c2"], "stock_host"),
                os.path.join(self.folder, "prepare-stock"),
                *([], self._stock_options(1, "db")),
                prepares=True,
            )
            made.wait("prepared")
            made.close()
        everywhere = self._controllers + list(stock.values())
        self.history.write(
            "setup",
            seed=self._seed,
            seconds=self._seconds,
            faults=self._faults,
            drivers=self._drivers,
            mode=self._mode,
            hosts=self._names + self._bulk,
            # The machine of each member whose name is not its machine's.
            machines=dict.fromkeys(self._bulk, nemesis.BULK),
            # Observers that ask about the first members only.
            asks={
                name: len(self._names)
                for name in everywhere
                if name not in ("c1", "c6")
            },
            stock=stock,
            acts={"c5": self._times.acts},
            servers={one.driver: one.names for one in self._backends},
            fronts={
                name: self._front(client)
                for client, name in enumerate(self._machines)
            }
            | {
                name: self._front(client)
                for client, name in enumerate(everywhere)
            },
            lived={name: name != "c2" for name in everywhere},
            records=[
                name
                for name in ("c3", "c4", _INSIDE)
                if "db" in self._drivers and name in self._controllers
            ],
            reports=["c4"],
            service_down_time=self._times.service_down_time,
            report_interval=self._times.report_interval,
            refresh=self._times.refresh,
            factor=self._times.factor,
            session=SESSION,
        )
        self._hosts = {}
        for client, name in enumerate(self._machines):
            is_bulk = name == nemesis.BULK
            host = hosts.Host(
                self._fork_servers[self._mode],
                nodes[name],
                os.path.join(self.folder, name),
                self._options(client),
                self.history,
                self._bulk if is_bulk else [name],
                hosts.BULK if is_bulk else hosts.GROUP,
                [
                    hosts.Shadow(
                        *(self._nova, nodes[name]),
                        os.path.join(self.folder, f"{name}-nova-{driver}"),
                        self._stock_options(client, driver),
                    )
                    for driver in stock
                    if not is_bulk
                ],
            )
            self._hosts[name] = host
            self._closing.callback(host.close)
            host.start()
        for host in self._hosts.values():
            host.wait_until_joined()
        self._observers = {}
        other = "eventlet" if self._mode == "threads" else "threads"
        for client, name in enumerate(self._controllers):
            if name in ("c2", "c5", "c6", _INSIDE):
                continue
            mode = other if name == "c3" else self._mode
            self._observers[name] = hosts.start(
                self._fork_servers[mode],
                nodes[name],
                "controller",
                os.path.join(self.folder, name),
                self._names,
                self._options(client),
                period=_PERIOD,
                records=name in ("c3", "c4") and "db" in self._drivers,
                joins=name if name == "c4" else "",
                bulk=self._bulk if name == "c1" else [],
                bulk_group=hosts.BULK,
            )
            self._closing.callback(self._observers[name].close)
        if self._inside:
            client = self._controllers.index(_INSIDE)
            self._observers[_INSIDE] = hosts.start(
                *(self._with_nova, nodes[_INSIDE], "inside_observer"),
                os.path.join(self.folder, _INSIDE),
                *(self._names, self._options(client, whole=True)),
                period=_PERIOD,
            )
            self._closing.callback(self._observers[_INSIDE].close)
        for driver, name in stock.items():
            client = everywhere.index(name)
            self._observers[name] = hosts.start(
                *(self._nova, nodes[name], "stock_observer"),
                os.path.join(self.folder, name),
                *(self._names, self._stock_options(client, driver)),
                period=_STOCK_PERIOD,
            )
            self._closing.callback(self._observers[name].close)
        self._start_programs()
        wait_for(self._all_up, message="every observer sees all hosts up")
        self._all_up_since = cloud.now()
        self._command.start()
        self._monitor.start()

    def _start_programs(self):
        nodes = self._cloud.nodes
        self._watcher = hosts.Watcher(
            nodes["c5"],
            os.path.join(self.folder, "c5"),
            self._options(self._controllers.index("c5")),
        )
        self._closing.callback(self._watcher.close)
        self._monitor = hosts.Monitor(
            nodes["c6"],
            os.path.join(self.folder, "c6"),
            self._options(self._controllers.index("c6")),
            {hosts.GROUP: self._names, hosts.BULK: self._bulk},
            self.history,
            _MONITOR_PERIOD,
        )
        self._closing.callback(self._monitor.close)

    def _polls(self, name):
        path = os.path.join(self._observers[name].folder, "answers")
        with contextlib.suppress(OSError):
            return answers.read(path)
        return []

    def _all_up(self):
        for name in self._observers:
            polls = self._polls(name)
            if not polls or set(polls[-1].letters) != {"U"}:
                return False
        self._monitor.check()
        self._watcher.check()
        return set(self._monitor.ask()) == {"U"}

    def _collect(self):
        """Add the observers' answers to the history."""
        for name, process in self._observers.items():
            for poll in self._polls(name):
                self.history.write(
                    *("answers", poll.begun, poll.at),
                    observer=name,
                    letters=poll.letters,
                )
            if not os.path.exists(os.path.join(process.folder, "journal")):
                # Stock Nova gives no reasons.
                continue
            for entry in process.events("changed"):
                self.history.write(
                    *("reason", entry["at"], entry["at"]),
                    observer=name,
                    host=entry["host"],
                    letter=entry["letter"],
                    reason=entry["reason"],
                )

        self._collect_acts()

    def _collect_acts(self):
        """Add what the watcher did, and which state it acted upon."""
        ended = cloud.now()
        states = dict.fromkeys(self._names, "U")

        def tell(at):
            self.history.write(
                *("answers", at, at),
                observer=self._watcher.node.name,
                letters="".join(states.values()),
            )

        told = self._all_up_since
        for at, kind, host, cause in sorted(self._watcher.acts()):
            if host not in states:
                continue
            while told + _MONITOR_PERIOD < at:
                told += _MONITOR_PERIOD
                tell(told)
            states[host] = "D" if kind in ("down", "left") else "U"
            self.history.write(
                *("acted", at, at),
                observer=self._watcher.node.name,
                host=host,
                type=kind,
                cause=cause,
            )
            tell(at)
            told = max(told, at)
        while told + _MONITOR_PERIOD < ended:
            told += _MONITOR_PERIOD
            tell(told)

    # -- whether the machine is at fault

    def _processes(self):
        for name, host in self._hosts.items():
            yield name, host.process.pid
        for name, process in self._observers.items():
            yield name, process.pid
        for program in (self._watcher, self._monitor):
            yield program.node.name, program.pid
        for backend in self._backends:
            for name, server in backend.servers.items():
                pid = server.pid
                if pid is not None:
                    yield name, pid

    def _ask_servers(self, backend):
        """Write down which servers serve, as they themselves say."""
        names = [name for name in backend.names if name not in backend.fronts]
        served = dict.fromkeys(names, True)
        well = dict.fromkeys(names, cloud.now())
        while not self._end.wait(0.5):
            for name in names:
                begun = cloud.now()
                serves = False
                with contextlib.suppress(OSError, AttributeError):
                    serves = backend.answers(name)
                if serves != served[name]:
                    self.history.write(
                        "server",
                        begun=begun if serves else well[name],
                        server=name,
                        state="serving" if serves else "silent",
                    )
                    served[name] = serves
                if serves:
                    well[name] = begun
            if cloud.now() - max(well.values()) > _RESCUE:
                begun = cloud.now()
                if backend.rescue():
                    self.history.write(
                        "rescue", begun=begun, driver=backend.driver
                    )

    def _sample(self):
        before = {}
        at = cloud.now()
        while not self._end.wait(_SAMPLE):
            begun, at = at, cloud.now()
            if at - begun > _SAMPLE + _STOOD_STILL:
                self.history.write("starved", begun, at, node="*")
            for name, pid in list(self._processes()):
                waited = _waited(pid)
                worst = max(
                    (
                        seconds - before.get(thread, seconds)
                        for thread, seconds in waited.items()
                    ),
                    default=0.0,
                )
                before.update(waited)
                if worst > _STARVED:
                    self.history.write("starved", begun, at, node=name)


def _waited(pid):
    """Return for how long each thread of a process waited for a core."""
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            path = f"/proc/{pid}/task/{thread}/schedstat"
            with contextlib.suppress(OSError, IndexError), open(path) as file:
                found[pid, thread] = int(file.read().split()[1]) / 1e9
    return found
