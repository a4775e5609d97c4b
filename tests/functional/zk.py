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

"""Base classes and helpers of the zk driver's tests."""

import atexit
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import uuid

from nova_sg import evzookeeper, servicegroup, zookeeper
from nova_sg.backends.zookeeper import names
from tests import base
from tests.base import wait_for
from tests.fixtures import process as servers
from tests.fixtures import watchdog
from tests.fixtures import zookeeper as fixture

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_shared = []


class _Alone(fixture.ZooKeeperEnsemble):
    """One server as an ensemble: the one that this process shares."""

    def __init__(self):
        self.servers = [servers.shared(fixture.ZooKeeperServer)]


def ensemble(size=3):
    """Return this process's ensemble, with all of its servers running.

    :param size: 3 or 1
    """
    if size == 1:
        return _Alone()
    if not _shared:
        _shared.append(fixture.ZooKeeperEnsemble(size))
        atexit.register(_shared[0].close)
    for server in _shared[0].servers:
        server.thaw()
    _shared[0].start()
    return _shared[0]


def print_figure(text):
    """Print a figure, not to the test runner's standard output."""
    print(f"\n{text}", file=sys.stderr)


def report_figures(what, seconds):
    """Print the distribution of measured times, in ms."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    print_figure(
        f"{what}: n={len(ordered)} "
        f"min={ordered[0] * 1000:.0f} "
        f"median={statistics.median(ordered) * 1000:.0f} "
        f"p95={ordered[round(last * 0.95)] * 1000:.0f} "
        f"max={ordered[-1] * 1000:.0f} ms"
    )


class Process:
    """A Python program in a process of the same mode.

    Its output goes to a file, because reading a pipe would block all green
    threads. The file has a name, by which the watchdog finds the program's
    children.
    """

    def __init__(self, *arguments, environment=None):
        self._output = tempfile.NamedTemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=_ROOT,
            env={**os.environ, **(environment or {})},
        )
        self.pid = self._process.pid
        watchdog.guard_process(self.pid)

    def output(self):
        # Without moving the descriptor's position, which the child shares.
        length = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), length, 0).decode()

    def expect(self, words, timeout=base.PATIENCE):
        """Wait until it has printed words."""

        def printed():
            if words in self.output():
                return True
            if self._process.poll() is not None:
                raise AssertionError(
                    f"ended without printing {words!r}: {self.output()}"
                )
            return False

        wait_for(
            printed, timeout, lambda: f"it prints {words!r}: {self.output()}"
        )

    def tell(self, words):
        os.write(self._process.stdin.fileno(), words.encode() + b"\n")

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self, timeout=base.PATIENCE):
        """Wait for its end and return its exit status."""
        wait_for(
            lambda: self._process.poll() is not None,
            timeout,
            lambda: f"it ends: {self.output()}",
        )
        watchdog.release_process(self.pid)
        return self._process.returncode

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
        return self.wait()

    def close(self):
        self.kill()
        self._process.stdin.close()
        self._output.close()


class Poller:
    """Asks 20 times a second whether members are up.

    :ivar states: the answers, without those equal to the one before
    :ivar errors: what the errors among them say
    """

    def __init__(self, api, *hosts):
        self._api = api
        self._hosts = hosts
        self._stopped = threading.Event()
        self.states = []
        self.errors = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        wait_for(lambda: self.states, message="a first answer")
        return self

    def __exit__(self, *exc_info):
        self._stopped.set()
        self._thread.join()

    def _run(self):
        while not self._stopped.wait(0.05):
            try:
                down = [host for host in self._hosts if not self._is_up(host)]
                state = " ".join(["down:", *down]) if down else "up"
            except Exception as error:
                state = type(error).__name__
                self.errors.append(str(error))
            if state not in self.states[-1:]:
                self.states.append(state)

    def _is_up(self, host):
        return self._api.service_is_up({"host": host, "topic": "compute"})


class ZkTestCase(base.TestCase):
    """A test below a prefix of its own.

    :cvar SERVERS: how many servers: 3 if a test needs several, or if sessions
        of different servers could see different states
    :cvar CLIENT: [zookeeper] client of the members and observers
    :ivar zk: a session of the test's own
    """

    SERVERS = 1
    RECV_TIMEOUT = 10000
    DOWN_TIME = 20.0
    CLIENT = "c"

    def setUp(self):
        super().setUp()
        self.ensemble = ensemble(self.SERVERS)
        self.prefix = f"/test-{uuid.uuid4().hex}"
        self.flags(
            servicegroup_driver="zk",
            service_down_time=self.DOWN_TIME,
            report_interval=0.1,
        )
        self.flags(
            "zookeeper",
            recv_timeout=self.RECV_TIMEOUT,
            sg_prefix=self.prefix,
            sg_retry_interval=1,
            **self.access(),
        )
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.zk = self.connect()
        self.api = servicegroup.API()

    def access(self):
        """Return the options of [zookeeper] that say how to connect."""
        return {"address": self.ensemble.address, "client": self.CLIENT}

    def connect(self, address=None, **arguments):
        """Return a session; it ends with the test."""
        session = evzookeeper.ZKSession(
            address or self.ensemble.address,
            base.PATIENCE,
            operation_timeout=base.PATIENCE,
            **arguments,
        )
        self.addCleanup(session.close)
        return session

    def join(self, host, group="compute", **kwargs):
        """Join a member; the timers of it end with the test."""
        service = base.Member(host, topic=group, **kwargs)
        self.api.join(host, group, service)
        return service

    def znodes(self, group="compute", session=None):
        """Return the names below a group's path."""
        session = session or self.zk
        path = f"{self.prefix}/{group}"
        # What another session has done already, our server may not know yet.
        session.sync(path)
        try:
            return sorted(session.get_children(path))
        except zookeeper.NoNodeException:
            return []

    def znode(self, host):
        """Wait for the znode of a member; return its name.

        On a busy machine the member may join in the background.
        """
        return wait_for(
            lambda: [n for n in self.znodes() if names.is_of(n, host)],
            message=f"{host} has a znode",
        )[0]

    def is_up(self, host, group="compute"):
        return self.api.service_is_up({"host": host, "topic": group})

    def wait_until_up(self, host, group="compute"):
        wait_for(
            lambda: self.is_up(host, group), message=f"{host} is up"
        )

    def wait_until_down(self, host, group="compute"):
        wait_for(
            lambda: not self.is_up(host, group), message=f"{host} is down"
        )

    def start_member(self, *hosts, **options):
        """Start a process that joins; return it when it has.

        :param wait: have it wait for a line on its input before that
        """
        process = self.start_process(
            "-m",
            "tests.functional.zk_member",
            json.dumps(
                {
                    "hosts": hosts,
                    "DEFAULT": {"service_down_time": self.DOWN_TIME},
                    **options,
                    "zookeeper": {
                        **self.access(),
                        "recv_timeout": self.RECV_TIMEOUT,
                        "sg_prefix": self.prefix,
                        "sg_retry_interval": 1,
                        **options.get("zookeeper", {}),
                    },
                }
            ),
        )
        process.expect("ready" if options.get("wait") else "joined", 120)
        return process

    def start_process(self, *arguments, **kwargs):
        process = Process(*arguments, **kwargs)
        self.addCleanup(process.close)
        return process

    def write_config(self, **options):
        """Write a configuration file for the agent and the command line."""
        path = os.path.join(self.folder, "nova-sg.conf")
        lines = [
            "[DEFAULT]",
            "servicegroup_driver = zk",
            f"state_path = {self.folder}",
            "report_interval = 1",
            f"service_down_time = {self.DOWN_TIME:g}",
            "[servicegroup]",
            "view_refresh_interval = 0.1",
            "[zookeeper]",
            f"recv_timeout = {self.RECV_TIMEOUT}",
            f"sg_prefix = {self.prefix}",
            *(
                f"{name} = {value}"
                for name, value in {**self.access(), **options}.items()
            ),
        ]
        with open(path, "w") as config:
            config.write("\n".join(lines) + "\n")
        return path
