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

"""One soak: troubles in a row, and a sample of the subject after each.

The subject is a process with members, which also observes. Beside it there are
hosts, each a process, that die, stop and start again. Each round has one
trouble of the server, or of the way to it. At its end everything is as it was
at its start: all members are up. Then a sample is taken.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import sqlalchemy as sa

from nova_sg.backends.db import engine, schema
from tests.faults import contenders, processes
from tests.fixtures import process
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.memcached import Memcached
from tests.fixtures.proxy import TcpProxy
from tests.fixtures.zookeeper import ZooKeeperServer

GROUP = "compute"
# Seconds.
DOWN_TIME, INTERVAL, REFRESH, SESSION = 6.0, 1.0, 0.25, 4.0
# Seconds within which all members have to be up at the end of a round.
CALM = 90.0
#: How many members the subject has all the time; for a part of each round; and
#: how many other hosts there are.
STAYING, PASSING, OTHERS = 20, 10, 4

_SUBJECT = os.path.join(os.path.dirname(__file__), "programs", "subject.py")


class _Backend:
    """A server, and the proxy by which the subject reaches it."""

    def __init__(self, server):
        self.server = server
        self.proxy = TcpProxy(server.port)

    def start(self):
        self.server.start()
        self.proxy.start()

    def close(self):
        self.proxy.close()
        self.server.close()

    def options(self, port):
        """Return the options of a process that connects to a port."""
        raise NotImplementedError

    def troubles(self):
        """Return the functions that make trouble, by name."""
        return {
            "restart": self._restart,
            "freeze": self._freeze,
            "cut": lambda rng: self._cut(rng.uniform(0.5, 3.0)),
            # Sessions end, and members fall silent.
            "long cut": lambda rng: self._cut(DOWN_TIME + 2.0),
        }

    def _restart(self, rng):
        self.server.kill()
        time.sleep(rng.uniform(0.0, 3.0))
        self.server.start()

    def _freeze(self, rng):
        self.server.freeze()
        time.sleep(rng.uniform(0.5, 3.0))
        self.server.thaw()

    def _cut(self, seconds):
        self.proxy.cut()
        time.sleep(seconds)
        self.proxy.restore()


class _Db(_Backend):
    def __init__(self):
        super().__init__(MariaDB())

    def start(self):
        super().start()
        self._url = sa.make_url(self.server.create_database("soak"))
        database = engine.Database(self._url)
        schema.sync(database)
        database.close()

    def options(self, port):
        url = self._url.set(port=port).render_as_string(hide_password=False)
        return {"database": {"connection": url}}

    def troubles(self):
        return super().troubles() | {"kill": self._kill}

    def _kill(self, rng):
        """End all connections to the table."""
        for [number] in self.server.execute(
            "SELECT id FROM information_schema.processlist WHERE db = 'soak'"
        ):
            # It may have ended meanwhile.
            with contextlib.suppress(Exception):
                self.server.execute(f"KILL {number}")


class _Mc(_Backend):
    def __init__(self):
        super().__init__(Memcached())

    def options(self, port):
        return {"DEFAULT": {"memcached_servers": f"127.0.0.1:{port}"}}

    def troubles(self):
        return super().troubles() | {"flush": self._flush}

    def _flush(self, rng):
        address = self.server.LISTEN, self.server.port
        with socket.create_connection(address, 5) as link:
            link.sendall(b"flush_all\r\n")
            link.recv(100)


class _Zk(_Backend):
    def __init__(self):
        super().__init__(ZooKeeperServer())

    def options(self, port):
        return {
            "zookeeper": {
                "address": f"127.0.0.1:{port}",
                "recv_timeout": int(SESSION * 1000),
            }
        }


BACKENDS = {"db": _Db, "mc": _Mc, "zk": _Zk}


class _Spawner:
    """Starts the subject, which is no child of a fork server: its memory is
    its own.
    """

    def __init__(self, mode):
        self._mode = mode
        self._started = None

    def fork(self, order):
        self._started = subprocess.Popen(
            [sys.executable, _SUBJECT, self._mode, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self._started.pid

    def status(self):
        """Return with what status it has ended, or by which signal."""
        status = self._started.wait()
        return signal.Signals(-status).name if status < 0 else status


class Soak:
    """One soak.

    :param folder: where its files are
    :param drivers: names, the primary first
    :param mode: threads or eventlet, of the subject and the other hosts
    :param seed: what the troubles are made from
    """

    def __init__(self, folder, drivers, mode, seed):
        self._folder = folder
        self._drivers = drivers
        self._mode = mode
        self._rng = random.Random(seed)
        self._staying = [f"s{number:02}" for number in range(STAYING)]
        self._passing = [f"p{number:02}" for number in range(PASSING)]
        self._others = {f"o{number}": None for number in range(OTHERS)}
        self._starts = 0
        #: How often each trouble was made.
        self.troubles = dict.fromkeys(("joins", "deaths", "stops"), 0)
        #: A dictionary for each round: what the subject had at its end.
        self.samples = []

    def run(self, seconds, tell=lambda sample: None):
        """Play rounds for so many seconds.

        :param tell: called with each sample
        :raises AssertionError: the subject has ended, or a member was not up
            at the end of a round
        """
        with contextlib.ExitStack() as closing:
            self._start(closing)
            begun = time.monotonic()
            while time.monotonic() < begun + seconds:
                trouble = self._round()
                self.troubles[trouble] = self.troubles.get(trouble, 0) + 1
                sample = self._order("sample")
                sample["hours"] = (time.monotonic() - begun) / 3600
                sample["trouble"] = trouble
                self.samples.append(sample)
                tell(sample)

    def _start(self, closing):
        self._backends = []
        for driver in self._drivers:
            backend = BACKENDS[driver]()
            closing.callback(backend.close)
            backend.start()
            self._backends.append(backend)
        self._server = processes.ForkServer("ours", self._mode)
        closing.callback(self._server.close)
        for host in self._others:
            self._start_other(host)
        closing.callback(self._close_others)
        folder = os.path.join(self._folder, "subject")
        contenders.write_config(folder, *self._options(proxied=True))
        self._spawner = _Spawner(self._mode)
        self._subject = processes.Child(
            *(self._spawner, "subject", folder, GROUP),
            [*self._staying, *self._others],
        )
        closing.callback(self._subject.close)
        self._subject.wait("ready")
        path = os.path.join(folder, "journal")
        self._journal = closing.enter_context(open(path))
        self._journal.readline()
        self._order("join", *self._staying)
        self._wait_until_all_up()

    def _options(self, proxied):
        times = {
            "service_down_time": DOWN_TIME,
            "report_interval": INTERVAL,
            "servicegroup_driver": self._drivers[0],
        }
        view = {
            "view_refresh_interval": REFRESH,
            "secondary_drivers": ",".join(self._drivers[1:]),
        }
        return [
            {"DEFAULT": times, "servicegroup": view},
            *(
                one.options(one.proxy.port if proxied else one.server.port)
                for one in self._backends
            ),
        ]

    # -- the other hosts

    def _start_other(self, host):
        self._starts += 1
        folder = os.path.join(self._folder, f"{host}-{self._starts}")
        contenders.write_config(folder, *self._options(proxied=False))
        self._others[host] = other = processes.Child(
            *(self._server, "members", folder, GROUP, [host])
        )
        other.wait("prepared")
        other.order("join")

    def _end_other(self, host, leaves):
        other = self._others[host]
        if leaves:
            other.order("leave")
            other.wait("done", order="leave")
        other.close()
        shutil.rmtree(other.folder)
        self._others[host] = None

    def _close_others(self):
        for other in self._others.values():
            if other is not None:
                other.close()

    # -- rounds

    def _round(self):
        """Play one round; return the name of its trouble."""
        rng = self._rng
        self._order("join", *self._passing)
        self.troubles["joins"] += PASSING
        dead, stopped = rng.sample(list(self._others), 2)
        self._end_other(dead, leaves=False)
        self.troubles["deaths"] += 1
        self._end_other(stopped, leaves=True)
        self.troubles["stops"] += 1
        self._order("drain", self._passing[0])
        self._order("unwell", self._passing[1])
        backend = rng.choice(self._backends)
        name, make = rng.choice(list(backend.troubles().items()))
        make(rng)
        self._start_other(dead)
        self._start_other(stopped)
        self._order("well", self._passing[1])
        self._wait_until_all_up()
        for order in ("leave", "forget"):
            self._repeat(order, *self._passing)
        self._wait_until_all_up()
        return f"{backend.server.__class__.__name__}: {name}"

    def _repeat(self, *words):
        """Give an order again until it succeeds."""
        error = ""

        def succeeds():
            nonlocal error
            error = self._order(*words).get("error", "")
            return not error or "has no member" in error

        process.wait_for(succeeds, CALM, lambda: f"{words}: {error}")

    def _wait_until_all_up(self):
        letters = ""

        def all_up():
            nonlocal letters
            time.sleep(REFRESH)
            letters = self._order("ask")["letters"]
            return set(letters) == {"U"}

        process.wait_for(all_up, CALM, lambda: f"all are up: {letters}")

    def _order(self, *words):
        """Give the subject an order; return what it found."""
        self._subject.order(*words)
        found = None

        def is_done():
            nonlocal found
            # Only what is new: in an hour it gets long.
            line = self._journal.readline()
            if line:
                found = json.loads(line)
            elif self._subject.has_ended:
                raise AssertionError(
                    f"the subject ended with {self._spawner.status()}\n"
                    f"{self._subject.log()}"
                )
            return found is not None

        process.wait_for(
            is_done, CALM, lambda: f"{words}\n{self._subject.log()}"
        )
        return found
