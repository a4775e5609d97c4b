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
"""Shared by tests of the mc driver: servers, their contents, members."""

import re
import socket

from nova_sg import servicegroup
from nova_sg.backends import base as driver_base
from nova_sg.backends.memcached import values
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared
from tests import base
from tests.fixtures.memcached import Memcached

__all__ = ["McTestCase", "Raw", "Ticking", "Verbose"]


class Raw:
    """A connection to a memcached: to read values, and to tamper with them."""

    def __init__(self, server):
        self._link = socket.create_connection(("127.0.0.1", server.port), 30)
        self._lines = self._link.makefile("rb")

    def close(self):
        self._lines.close()
        self._link.close()

    def get(self, key):
        """Return the bytes of a value; None: there is none."""
        self._send(f"get {key}")
        words = self._lines.readline().split()
        if words == [b"END"]:
            return None
        value = self._lines.read(int(words[3]) + 2)[:-2]
        self._lines.readline()
        return value

    def set(self, key, value, flags=0, expire=0):
        self._send(f"set {key} {flags} {expire} {len(value)}", value)
        self._expect(b"STORED")

    def fill(self, key, pattern):
        """Set a value of the greatest length that memcached takes."""
        value = pattern * (1_048_000 // len(pattern))
        self.set(key, value)
        for size in 100, 10, 1:
            answer = b"STORED"
            while answer == b"STORED":
                self._send(f"append {key} 0 0 {size}", pattern[-1:] * size)
                answer = self._lines.readline().strip()

    def set_many(self, items):
        """Set many values at once: {key: bytes}."""
        commands = []
        for key, value in items.items():
            commands += [
                f"set {key} 0 0 {len(value)} noreply\r\n".encode(),
                value,
                b"\r\n",
            ]
        self._link.sendall(b"".join(commands))
        # Answers come in order: all values are stored after this one.
        self._send("version")
        self._lines.readline()

    def delete(self, *keys):
        for key in keys:
            self._send(f"delete {key}")
            self._lines.readline()

    def flush_all(self):
        self._send("flush_all")
        self._expect(b"OK")

    def seconds_left(self, key):
        """Return the seconds after which a value expires; -1: never."""
        self._send(f"mg {key} t")
        words = self._lines.readline().split()
        return int(words[1].removeprefix(b"t"))

    def stats(self):
        self._send("stats")
        found = {}
        while (line := self._lines.readline().strip()) != b"END":
            _, name, value = line.decode().split(" ", 2)
            found[name] = value
        return found

    def _send(self, line, data=None):
        command = line.encode() + b"\r\n"
        if data is not None:
            command += data + b"\r\n"
        self._link.sendall(command)

    def _expect(self, answer):
        line = self._lines.readline().strip()
        if line != answer:
            raise AssertionError(f"the answer is {line!r}, not {answer!r}")


class Verbose(Memcached):
    """A memcached that logs its commands."""

    def command(self):
        return [*super().command(), "-vv"]

    def commands(self):
        """Return the names of all commands so far."""
        with open(self._log_path, "rb") as log:
            return [
                line.split()[1].decode()
                for line in log
                # "<27 get one two"; answers begin with ">", and a client
                # is announced by "<27 new".
                if re.match(rb"<\d+ (?!new |server )\w", line)
            ]


class Ticking(base.Member):
    """A member without a timer: the test has it report by tick()."""

    def __init__(self, host, topic="compute"):
        # A report waits up to a tenth of the interval.
        super().__init__(host, topic, interval=0.01)
        self.tg = self
        self._callbacks = []

    def add_timer_args(self, interval, callback, args, initial_delay=0):
        self._callbacks.append((callback, args))
        return self

    def stop(self):
        self._callbacks.clear()

    def tick(self):
        for callback, args in self._callbacks:
            callback(*args)


class McTestCase(base.TestCase):
    """A test of the mc driver on servers of its own.

    Intervals are short and service_down_time is the default: a test that
    waits for a member to go down sets it, to two seconds at least. memcached
    shows its clock in whole seconds, so two processes agree on it to about a
    second.
    """

    GROUP = "compute"

    def setUp(self):
        super().setUp()
        self.flags(
            servicegroup_driver="mc",
            service_down_time=60.0,
            report_interval=0.1,
        )
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.servers = []

    def start(self, number=1, kind=Memcached):
        """Start a number of servers and configure them."""
        for _ in range(number):
            self.servers.append(self.enterContext(kind()))
        # Members end before their servers do.
        self.addCleanup(process.reset)
        self.configure(*(server.address for server in self.servers))
        return self.servers[0] if number == 1 else self.servers

    def configure(self, *addresses):
        self.flags(memcached_servers=list(addresses))

    def raw(self, server):
        raw = Raw(server)
        self.addCleanup(raw.close)
        return raw

    def another(self):
        """Return what another process would share; it knows nothing yet."""
        shared = Shared(process.load("mc"))
        self.addCleanup(shared.close)
        return shared

    def states(self, shared=None, group=GROUP):
        """Return the state of each member, as a new observer sees it."""
        if shared is None:
            # Closed at once: a test may ask often.
            shared = Shared(process.load("mc"))
            try:
                return self.states(shared, group)
            finally:
                shared.close()
        return {
            member.host: member.state
            for member in shared.view(group).members()
        }

    def wait_for_states(self, expected, shared=None, timeout=base.PATIENCE):
        """Wait until the members and their states are as expected."""
        found = {}

        def as_expected():
            found["states"] = self.states(shared)
            return found["states"] == expected

        base.wait_for(
            as_expected, timeout, lambda: f"{expected}, not {found['states']}"
        )

    def join(self, *hosts, group=GROUP, interval=None):
        """Join a group.

        :param interval: seconds between two reports; None: Ticking members
        """
        api = servicegroup.API()
        members = []
        for host in hosts:
            if interval is None:
                member = Ticking(host, group)
            else:
                member = base.Member(host, group, interval)
            api.join(host, group, member)
            members.append(member)
        return members[0] if len(hosts) == 1 else members

    def driver(self):
        """Return a driver with connections of its own."""
        driver = process.load("mc")
        self.addCleanup(driver.close)
        return driver

    def membership(self, host, group=GROUP):
        return driver_base.Membership(
            host, group, f"nova-{group}", Ticking(host, group), 0.1
        )

    def reported_at(self, raw, host, group=GROUP):
        """Return when a host reported last, by a server; 0: never."""
        key = values.member_key(group, host)
        value = raw.get(key)
        if value is None:
            return 0.0
        return values.Codec(None).read_report(key, value).at
