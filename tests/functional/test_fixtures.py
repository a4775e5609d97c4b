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

"""The fixtures work as the other tests expect."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import tests
from tests.fixtures import (
    mariadb,
    memcached,
    process,
    proxy,
    watchdog,
    zookeeper,
)


class ModeTest(unittest.TestCase):
    def test_each_mode_has_its_threads_and_nothing_else(self):
        if tests.MODE == "threads":
            with self.assertRaises(ImportError):
                __import__("eventlet.patcher")
            self.assertNotIn("eventlet", sys.modules)
        else:
            patcher = sys.modules["eventlet.patcher"]
            for module in ("os", "select", "socket", "thread", "time"):
                self.assertTrue(patcher.is_monkey_patched(module), module)


class WaitingTest(unittest.TestCase):
    def test_waiting_lets_other_threads_work(self):
        done = threading.Event()
        worker = threading.Thread(target=done.set)
        worker.start()
        process.wait_for(done.is_set)
        worker.join()

    def test_wait_for_returns_the_result_or_names_the_condition(self):
        results = iter([None, 0, "there"])
        self.assertEqual("there", process.wait_for(lambda: next(results)))
        with self.assertRaisesRegex(AssertionError, "pigs fly"):
            process.wait_for(lambda: False, 0.01, "pigs fly")


@tests.single_mode
class ProcessTest(unittest.TestCase):
    def test_ports_are_distinct_and_not_ephemeral(self):
        ports = [process.free_port() for _ in range(20)]
        self.assertEqual(20, len(set(ports)))
        with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
            self.assertLess(max(ports), int(limits.read().split()[0]))

    def test_a_server_that_does_not_start_shows_its_log(self):
        class Broken(memcached.Memcached):
            def command(self):
                return [*super().command(), "--no-such-option"]

        with self.assertRaisesRegex(AssertionError, "no-such-option"):
            with Broken():
                pass

    def test_a_server_starts_stops_freezes_and_restarts(self):
        server = memcached.Memcached()
        self.addCleanup(server.close)
        server.start()
        first = server.pid
        self.assertTrue(server.is_ready())

        server.freeze()
        self.assertFalse(
            process.answers(server.port, b"version\r\n", b"VERSION", 0.1)
        )
        server.thaw()
        self.assertTrue(server.is_ready())

        server.kill()
        self.assertIsNone(server.pid)
        self.assertFalse(server.is_ready())
        self.assertFalse(os.path.exists(f"/proc/{first}"))

        port = server.port
        server.start()
        self.assertEqual(port, server.port)
        self.assertTrue(server.is_ready())

        server.freeze()
        server.restart()
        self.assertTrue(server.is_ready())

        pid, directory = server.pid, server.directory
        server.close()
        self.assertFalse(server.is_running)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertFalse(os.path.exists(directory))


@tests.single_mode
class EndTest(unittest.TestCase):
    """A test process that is killed leaves nothing behind."""

    PROGRAM = """\
import os, sys, tests
from tests.fixtures import {module}
server = {module}.{kind}()
server.start()
{more}
print(server.pid, os.environ["TMPDIR"], flush=True)
sys.stdin.read()
"""

    def check(self, module, kind, more=""):
        """Kill a test process with a server; check that all of it ends."""
        folder = self.enterContext(tempfile.TemporaryDirectory())
        # So that the servers' accounts can read it.
        os.chmod(folder, 0o711)
        environment = os.environ | {"TMPDIR": folder}
        # As if no test process had started it.
        del environment[watchdog.VARIABLE]
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                self.PROGRAM.format(module=module, kind=kind, more=more),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        with child:
            self.addCleanup(child.kill)
            pid, own = child.stdout.readline().split()
            self.assertEqual(folder, os.path.dirname(own))
            started = family(int(pid))
            child.kill()
        for one in started:
            process.wait_for(
                lambda one=one: not runs(one),
                message=lambda: f"{started} have ended",
            )
        process.wait_for(
            lambda: not os.listdir(folder),
            message=lambda: f"{os.listdir(folder)} are removed",
        )
        return started

    def test_a_frozen_server_is_ended(self):
        self.check("memcached", "Memcached", "server.freeze()")

    def test_a_browser_is_ended(self):
        started = self.check(
            "browser", "Browser", "server.open('about:blank')"
        )
        # More than the driver has been started.
        self.assertGreater(len(started), 3)

    @tests.long_form
    def test_a_broker_is_ended(self):
        self.check("rabbitmq", "RabbitMQ")


def family(pid):
    """Return a process and all that it has started, by their ids."""
    found = []
    to_do = [pid]
    while to_do:
        found.append(to_do.pop())
        # A process or a thread may have ended meanwhile. Its children have
        # another parent then.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in os.listdir(f"/proc/{found[-1]}/task"):
                path = f"/proc/{found[-1]}/task/{thread}/children"
                with open(path) as children:
                    to_do += map(int, children.read().split())
    return found


def runs(pid):
    """Return whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@tests.single_mode
class MariaDBTest(unittest.TestCase):
    def test_shared(self):
        server = process.shared(mariadb.MariaDB)
        urls = {server.create_database(), server.create_database()}
        self.assertEqual(2, len(urls))
        for url in urls:
            self.assertRegex(url, rf"@127\.0\.0\.1:{server.port}/test_\d+$")
        name = url.rpartition("/")[2]
        server.execute("CREATE TABLE t (n INT)", database=name)
        server.execute("INSERT INTO t VALUES (42)", database=name)

        # It is started or thawed, with the data that it had.
        for fail in (server.kill, server.freeze):
            fail()
            self.assertIs(server, process.shared(mariadb.MariaDB))
            rows = server.execute("SELECT n FROM t", database=name)
            self.assertEqual(((42,),), rows)


@tests.long_form
class ZooKeeperTest(unittest.TestCase):
    def test_one_server(self):
        server = self.enterContext(zookeeper.ZooKeeperServer())
        self.assertEqual("standalone", server.mode)
        server.restart()
        self.assertEqual("standalone", server.mode)

    def test_ensemble_elects_anew(self):
        ensemble = self.enterContext(zookeeper.ZooKeeperEnsemble())
        self.assertEqual(3, len(ensemble.address.split(",")))
        first = ensemble.leader()
        first.kill()
        self.assertIsNot(first, ensemble.leader())
        first.start()
        self.assertEqual("follower", first.mode)


@tests.single_mode
class TcpProxyTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        server = self.enterContext(memcached.Memcached())
        self.server = server
        self.proxy = self.enterContext(proxy.TcpProxy(server.port))

    def _connect(self):
        link = socket.create_connection(("127.0.0.1", self.proxy.port), 10)
        self.addCleanup(link.close)
        return link

    def _ask(self, link):
        link.sendall(b"version\r\n")
        return link.recv(100)

    def test_bytes_pass(self):
        self.assertIn(b"VERSION", self._ask(self._connect()))

    def test_a_cut_holds_bytes_until_it_is_restored(self):
        link = self._connect()
        self._ask(link)
        self.proxy.cut()
        link.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            self._ask(link)
        late = self._connect()
        late.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            self._ask(late)

        self.proxy.restore()
        for waiting in (link, late):
            waiting.settimeout(10)
            self.assertIn(b"VERSION", waiting.recv(100))

    def test_delay_is_taken_in_each_direction(self):
        link = self._connect()
        self.proxy.delay(0.15)
        begin = time.monotonic()
        self.assertIn(b"VERSION", self._ask(link))
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)

    def test_the_end_of_the_server_ends_the_connection(self):
        link = self._connect()
        self._ask(link)
        self.server.kill()
        self.assertEqual(b"", link.recv(100))

    def test_connections_end_at_once_without_a_server(self):
        self.server.kill()
        self.assertEqual(b"", self._connect().recv(100))
