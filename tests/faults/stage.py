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

"""One fault's servers, members and observers."""

import contextlib
import os
import shutil
import signal
import tempfile
import time

from tests.faults import backends, contenders, processes, truth
from tests.fixtures import watchdog
from tests.fixtures.process import wait_for

# The most members of one process.
_MEMBERS_PER_PROCESS = 300


class Contender:
    """One contender on one stage: a group's members and its observer.

    The victim is the one member that a fault is done to, the crowd all
    others.
    """

    def __init__(self, stage, kind, members):
        fault = stage.fault
        self.kind = kind
        self.mode = fault.mode if kind.stack == "ours" else "threads"
        self.group = f"{kind.stack}-{stage.name}"
        victims = 1 if fault.victim else 0
        hosts = [f"node-{number:04}" for number in range(members)]
        self.crowd_hosts = hosts[: members - victims]
        self.victim_hosts = hosts[members - victims :]
        self.truth = truth.Truth(hosts)
        self.folder = os.path.join(stage.folder, kind.name.replace(" ", "-"))
        #: The processes.
        self.crowd = []
        self.victim = None
        self.observer = None

    @property
    def hosts(self):
        return self.truth.hosts

    @property
    def processes(self):
        return [*self.crowd, self.victim, self.observer]

    def polls(self):
        """Return all answers of the observer so far."""
        return truth.read(os.path.join(self.observer.folder, "answers"))

    def last_letters(self):
        """Return the observer's newest answers; "" if there are none."""
        with contextlib.suppress(OSError):
            with open(
                os.path.join(self.observer.folder, "answers"), "rb"
            ) as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 3 * len(self.hosts) - 100))
                lines = file.read().split(b"\n")
                if len(lines) > 2:
                    return lines[-2].split()[-1].decode()
        return ""


class Stage:
    """The servers and processes of one fault, and what can be done to them.

    :param stock: whether stock Nova takes part
    """

    def __init__(self, fault, times, stock):
        self.fault = fault
        self.times = times
        self.name = "".join(
            c if c.isalnum() else "-" for c in fault.name.lower()
        )
        self._closing = contextlib.ExitStack()
        self.folder = tempfile.mkdtemp(prefix="nova-sg-test-")
        watchdog.guard_folder(self.folder)
        self._closing.callback(watchdog.release_folder, self.folder)
        self._closing.callback(shutil.rmtree, self.folder, True)
        self._backends = {}
        self.proxies = {}
        self.contenders = [
            Contender(self, kind, fault.count(kind, times))
            for kind in fault.kinds(stock)
        ]
        self._clock = os.path.join(self.folder, "clock")
        # Fork servers with that clock.
        self._faked_servers = {}

    # -- setting up

    def open(self):
        """Start everything; wait until every observer sees all members up."""
        fault = self.fault
        for driver in fault.on:
            self._backends[driver] = self._start_backend(driver)
            if fault.proxied:
                self.proxies[driver] = self._backends[driver].proxies()
        self.set_clock(0)
        for contender in self.contenders:
            self._start_crowd(contender)
        for contender in self.contenders:
            self._start_victim(contender)
            self._start_observer(contender)
        for contender in self.contenders:
            if not fault.starts_empty:
                self._wait_until_all_up(contender)

    def _start_backend(self, driver):
        own = self.fault.own_servers
        if driver == "db":
            backend = backends.Db(own)
        elif driver == "mc":
            backend = backends.Mc(own, self.fault.memcacheds)
        else:
            backend = backends.Zk(own)
        self._closing.callback(backend.close)
        backend.start()
        return backend

    def _config(self, contender, part):
        """Write the configuration file of a part; return its folder."""
        backend = self._backends[contender.kind.driver]
        ports = backend.ports
        if self.fault.proxied in ("all", part):
            ports = [p.port for p in self.proxies[contender.kind.driver]]
        folder = os.path.join(contender.folder, part)
        contenders.write_config(
            folder,
            self.times.options(contender.kind),
            backend.options(contender.kind, ports),
        )
        return folder

    def _fork_server(self, contender, part):
        key = contender.kind.stack, contender.mode
        if self.fault.faked != part:
            return contenders.fork_server(*key)
        if key not in self._faked_servers:
            self._faked_servers[key] = processes.ForkServer(*key, self._clock)
            self._closing.callback(self._faked_servers[key].close)
        return self._faked_servers[key]

    def _start(self, contender, part, program, hosts):
        child = processes.Child(
            self._fork_server(contender, part.rstrip("0123456789")),
            program,
            self._config(contender, part),
            contender.group,
            hosts,
        )
        self._closing.callback(child.close)
        return child

    def _start_crowd(self, contender):
        hosts = contender.crowd_hosts
        for number in range(0, len(hosts), _MEMBERS_PER_PROCESS):
            share = hosts[number : number + _MEMBERS_PER_PROCESS]
            child = self._start(contender, f"crowd{number}", "members", share)
            contender.crowd.append(child)
            # The first process makes the table for all.
            child.wait("prepared")
        if not self.fault.starts_empty:
            for child in contender.crowd:
                child.order("join")

    def _start_victim(self, contender):
        fault = self.fault
        if not fault.victim:
            return
        if fault.victim == "agent" and contender.kind.stack == "ours":
            contender.victim = processes.Agent(
                self._config(contender, "victim"),
                contender.group,
                *contender.victim_hosts,
            )
            self._closing.callback(contender.victim.close)
            return
        contender.victim = self._start(
            contender, "victim", "members", contender.victim_hosts
        )
        contender.victim.order("join")

    def _start_observer(self, contender):
        contender.observer = self._start(
            contender, "observer", "observer", contender.hosts
        )

    def _wait_until_all_up(self, contender):
        up = "U" * len(contender.hosts)

        def all_up():
            for process in contender.processes:
                if process is not None and process.has_ended:
                    raise AssertionError(f"{process} ended\n{process.log()}")
            return contender.last_letters() == up

        wait_for(
            all_up,
            processes.PATIENCE,
            lambda: (
                f"all members of {contender.kind.name} are up before "
                f"{self.name}: {contender.last_letters()}\n"
                + "\n".join(p.log() for p in contender.processes if p)
            ),
        )
        contender.truth.alive(contender.hosts, time.monotonic())

    def close(self):
        self._closing.close()

    def waited_for_core(self):
        """Return for how long each process waited for a core, in seconds."""
        return {
            process: process.waited_for_core()
            for contender in self.contenders
            for process in contender.processes
            if process is not None
        }

    # -- what a fault may do

    def servers(self, driver):
        """Return the servers of a driver, in no particular order."""
        return self._backends[driver].servers

    def server(self, driver):
        """Return the first server of a driver."""
        return self.servers(driver)[0]

    def backend(self, driver):
        return self._backends[driver]

    def wait(self, seconds):
        """Let the fault last."""
        time.sleep(seconds)

    def kill_victims(self):
        """Kill each contender's victim by SIGKILL."""
        for one in self.contenders:
            at = one.victim.end()
            one.truth.dead(one.victim_hosts, at, self.times.down(one.kind))

    def stop_victims(self):
        """Stop each contender's victim as an operator does, by SIGTERM."""
        for one in self.contenders:
            at = one.victim.end(signal.SIGTERM)
            within = self.times.left(one.kind)
            if one.kind.stack == "ours":
                # The agent leaves the group at some moment before it ends.
                within += time.monotonic() - at
            one.truth.dead(one.victim_hosts, at, within)

    def suspend_victims(self, dies):
        """Suspend each contender's victim by SIGSTOP.

        :param dies: whether it has to be called down, by the Kind
        """
        for one in self.contenders:
            one.victim.send(signal.SIGSTOP)
            if dies(one.kind):
                self._expect_down(one)

    def resume_victims(self):
        for one in self.contenders:
            one.victim.send(signal.SIGCONT)
            self._expect_up(one)

    def cut_victims(self):
        """Cut each contender's victim off from its servers."""
        for proxies in self.proxies.values():
            for proxy in proxies:
                proxy.cut()
        for one in self.contenders:
            self._expect_down(one)

    def restore_victims(self):
        for proxies in self.proxies.values():
            for proxy in proxies:
                proxy.restore()
        for one in self.contenders:
            self._expect_up(one)

    def block_victims(self, seconds):
        """Have all threads of each victim's process stand still."""
        for one in self.contenders:
            one.victim.order("block", str(seconds))

    def _expect_down(self, contender):
        contender.truth.dead(
            contender.victim_hosts,
            time.monotonic(),
            self.times.down(contender.kind),
        )

    def _expect_up(self, contender):
        contender.truth.alive(
            contender.victim_hosts,
            time.monotonic(),
            # No bound is stated for that. It has to be up at the end.
            within=float("inf"),
        )

    def signal_observers(self, number):
        for one in self.contenders:
            one.observer.send(number)

    def block_observers(self, seconds):
        for one in self.contenders:
            one.observer.order("block", str(seconds))

    def set_clock(self, offset):
        """Set the faked wall clock to so many seconds off the real one."""
        new = f"{self._clock}.new"
        with open(new, "w") as clock:
            clock.write(f"{offset:+d}\n")
        os.replace(new, self._clock)

    def delay(self, seconds, loss=0.0):
        """Make the network to all servers slow and lossy.

        :param seconds: the delay in each direction
        :param loss: the part of all segments that is lost, from 0 to 1
        """
        for proxies in self.proxies.values():
            for proxy in proxies:
                proxy.delay(seconds)
                proxy.lose(loss)

    def join_all(self):
        """Have all members join at the same moment."""
        for one in self.contenders:
            for child in one.crowd:
                child.order("join")
        for one in self.contenders:
            for child in one.crowd:
                child.wait("done", order="join")
                # A report that was refused is repeated. When it succeeds is
                # up to the servers.
                for entry in child.events("joined") + child.events("refused"):
                    one.truth.alive(
                        [entry["host"]], entry["at"], within=float("inf")
                    )

    def leave_all(self):
        """Have all members leave at the same moment."""
        ordered = time.monotonic()
        for one in self.contenders:
            for child in one.crowd:
                child.order("leave")
        for one in self.contenders:
            for child in one.crowd:
                child.wait("done", order="leave")
                if one.kind.stack == "stock":
                    # Nova's members cannot leave. Their processes end.
                    at = child.end()
                    one.truth.dead(child.hosts, at, self.times.down(one.kind))
                for entry in child.events("left"):
                    if one.kind.stack == "ours":
                        # It left at some moment between the order and this
                        # entry.
                        took = entry["at"] - ordered
                        one.truth.dead(
                            [entry["host"]],
                            ordered,
                            took + self.times.left(one.kind, many=True),
                        )
