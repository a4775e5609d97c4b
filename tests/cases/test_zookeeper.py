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


"""Cases of ZooKeeper: what operators reported, and what nova_sg does now."""

import os
import shutil
import socket
import sys
import threading
import time

from nova_sg import evzookeeper, servicegroup, zookeeper
from nova_sg.backends.zookeeper import driver
from nova_sg.evzookeeper import gate, membership, reconnection
from tests import base
from tests.base import PATIENCE, wait_for
from tests.evzookeeper.base import Events
from tests.fixtures import zookeeper as fixture
from tests.functional import zk

NOT_WATCHING = zookeeper.NOTWATCHING_EVENT


class Hangup:
    """A server that ends each connection at once, and counts them."""

    def __init__(self):
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            link.close()

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class OwnServerCase(base.TestCase):
    """A test with a server of its own.

    :cvar client: the transport of its sessions
    :cvar CLIENT: the same as [zookeeper] client
    """

    client = zookeeper
    CLIENT = "c"

    def setUp(self):
        super().setUp()
        self.server = fixture.ZooKeeperServer()
        self.addCleanup(self.server.close)
        self.server.start()

    def open(self, address=None, recv_timeout=2000, **kwargs):
        session = evzookeeper.ZKSession(
            address or self.server.address,
            recv_timeout=recv_timeout,
            operation_timeout=PATIENCE,
            client=self.client,
            **kwargs,
        )
        self.addCleanup(session.close)
        return session


class NoServerTest(OwnServerCase):
    def test_no_storm_of_connections(self):
        """50 sessions made 742 connections a second, for as long as it lasted.

        Here ten: they made 150 a second.
        """
        hangup = Hangup()
        self.addCleanup(hangup.close)
        self.assert_no_storm(hangup, hangup.address)

    def test_no_storm_at_two_servers(self):
        """With an even number of servers the C client makes no pause at all.

        One session made 2,400 connections a second.
        """
        hangup = Hangup()
        self.addCleanup(hangup.close)
        self.assert_no_storm(hangup, f"{hangup.address},{hangup.address}")

    def assert_no_storm(self, hangup, address):
        for _ in range(10):
            self.open(address, recv_timeout=4000)
        wait_for(lambda: hangup.connections >= 10, message="they connect")
        time.sleep(2)
        before = hangup.connections
        time.sleep(3)
        # A session has tried for two seconds: it pauses for 0.4 s and longer,
        # and then tries both servers.
        self.assertLess(hangup.connections - before, 10 * 3 * 5)

    def test_with_a_session_the_pauses_are_shorter_than_its_timeout(self):
        waiting = reconnection.Reconnection(4000)
        self.addCleanup(waiting.close)
        waiting.has_session = True
        pauses = [waiting.pause() for _ in range(100)]
        self.assertLessEqual(max(pauses), 2)
        self.assertLess(sum(pauses[:3]), 2)
        waiting.has_session = False
        self.assertGreaterEqual(waiting.pause(), 15)
        waiting.connected()
        self.assertLessEqual(waiting.pause(), reconnection.FIRST_PAUSE)

    def test_a_session_is_kept_while_the_server_is_restarted(self):
        """However long that takes: its sessions have their timeout again."""
        events = Events()
        session = self.open(listeners=[events])
        self.assertTrue(session.wait_connected(PATIENCE))
        fired = []
        session.exists("/", lambda *event: fired.append(event[1]))
        session.create("/mine", "", flags=zookeeper.EPHEMERAL)
        before = session.session_id
        self.server.stop()
        events.wait(evzookeeper.SUSPENDED)
        # Longer than the life of a handle.
        wait_for(
            lambda: fired == [zookeeper.SESSION_EVENT, NOT_WATCHING],
            message=lambda: f"the watch has ended: {fired}",
        )
        self.server.start()
        events.wait(evzookeeper.CONNECTED)
        self.assertEqual(before, session.session_id)
        stat = session.exists("/mine")
        self.assertEqual(before, stat["ephemeralOwner"] & (1 << 64) - 1)

    def test_a_monitor_goes_on_with_the_next_handle(self):
        session = self.open()
        self.assertTrue(session.wait_connected(PATIENCE))
        fired = []
        session.exists("/", lambda *event: fired.append(event[1]))
        seen = []
        monitor = membership.MembershipMonitor(
            session, "/group", cb_func=seen.append
        )
        wait_for(lambda: seen == [set()], message="an empty group")
        self.server.stop()
        wait_for(lambda: NOT_WATCHING in fired, message="another handle")
        self.server.start()
        wait_for(lambda: seen[-1] == set(), message="it is connected again")
        other = self.open()
        membership.Membership(other, "/group", "one", timeout=PATIENCE)
        wait_for(
            lambda: monitor.get_all() == {"one"}, message="a new member"
        )


class RefusedTest(OwnServerCase):
    def test_one_message_while_a_group_may_not_be_read(self):
        """There was one a second."""
        owner = self.open(auths=[("digest", "user:secret")])
        self.assertTrue(owner.wait_connected(PATIENCE))
        acl = [{"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""}]
        owner.create("/group", "", acl)
        with self.assertLogs("nova_sg.evzookeeper", "DEBUG") as logs:
            monitor = membership.MembershipMonitor(self.open(), "/group")
            wait_for(
                lambda: sum("Cannot list" in one for one in logs.output) == 3,
                message=lambda: f"it has tried three times: {logs.output}",
            )
        self.assertIsNone(monitor.get_all())
        levels = [one[:7] for one in logs.output if "Cannot list" in one]
        self.assertEqual(["WARNING", "DEBUG:n", "DEBUG:n"], levels)


class ServerListTest(OwnServerCase):
    def test_the_authentication_reaches_the_server_that_answers(self):
        """It was lost when the first server refused the connection."""
        first = self.open(auths=[("digest", "user:secret")])
        self.assertTrue(first.wait_connected(PATIENCE))
        acl = [{"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""}]
        first.create("/a", "x", acl)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            dead = f"127.0.0.1:{closed.getsockname()[1]}"
            servers = f"{dead},{self.server.address},{dead}"
            for _ in range(8):
                session = self.open(servers, auths=[("digest", "user:secret")])
                self.assertTrue(session.wait_connected(PATIENCE))
                self.assertEqual("x", session.get("/a")[0])


class GateTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.gate = gate.Gate()
        self.addCleanup(self.gate.close)

    def connect(self):
        host, port = self.gate.address.split(":")
        link = socket.create_connection((host, int(port)), PATIENCE)
        self.addCleanup(link.close)
        return link

    def test_open(self):
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        with self.gate.holding() as held:
            self.assertFalse(held)

    def test_shut(self):
        self.gate.shut()
        with self.gate.holding() as held:
            self.assertFalse(held)
        link = self.connect()
        with self.gate.holding() as held:
            self.assertTrue(held)
            link.setblocking(False)
            with self.assertRaises(BlockingIOError):
                link.recv(1)

    def test_what_waits_is_let_through(self):
        self.gate.shut()
        link = self.connect()
        self.gate.let_through()
        try:
            self.assertEqual(b"", link.recv(1))  # eventlet's answer
        except ConnectionResetError:
            pass
        self.connect()
        self.gate.open()
        self.test_open()

    def test_the_port_is_kept(self):
        self.gate.shut()
        self.gate.open()
        host, port = self.gate.address.split(":")
        with socket.socket() as other, self.assertRaises(OSError):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((host, int(port)))


class WipedTest(OwnServerCase):
    """The data are lost, or restored as they were before."""

    def setUp(self):
        super().setUp()
        self.flags(servicegroup_driver="zk", report_interval=0.1)
        self.flags(
            "zookeeper",
            address=self.server.address,
            client=self.CLIENT,
            recv_timeout=2000,
            sg_retry_interval=1,
        )
        self.flags("servicegroup", view_refresh_interval=0.05)

    def test_members_and_observers_are_back(self):
        """They never were: the server refused a client that "has seen zxid".

        doctor said ok, and list was empty with status 0.
        """
        api = servicegroup.API()
        api.join("one", "compute", base.Member("one"))
        record = {"host": "one", "topic": "compute"}
        wait_for(lambda: api.service_is_up(record), message="it is up")
        session = self.open()
        self.assertTrue(session.wait_connected(PATIENCE))
        # So that the server has no such number when it begins anew.
        for _ in range(200):
            session.create("/x", "")
            session.delete("/x")
        session.close()
        self.server.stop()
        shutil.rmtree(os.path.join(self.server.directory, "data", "version-2"))
        self.server.start()
        # Not by another session with the server: each one adds a number.
        base.wait_for(
            lambda: len(self.znodes()) == 1,
            message="it has joined the new data",
        )
        wait_for(lambda: api.service_is_up(record), message="it is up again")

    def znodes(self):
        """Return the ephemeral znodes, without a session."""
        dump = self.server.four_letters("dump")
        return [line for line in dump.splitlines() if "/compute/" in line]


class NamesTest(OwnServerCase):
    """Server and name resolution are unreachable at the same time."""

    def start(self, name):
        """Start a session with hosts and nsswitch.conf of its own."""
        self.hosts = os.path.join(self.folder, "hosts")
        switch = os.path.join(self.folder, "nsswitch.conf")
        with open(switch, "w") as file:
            file.write("hosts: files\n")
        self.resolve(name)
        unshare = ["unshare", "--mount"]
        if os.geteuid():
            unshare.append("--map-root-user")
        session = zk.Process(
            "-c",
            "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])",
            *unshare,
            *("sh", "-c"),
            'mount --bind "$1" /etc/hosts && '
            'mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"',
            *("sh", self.hosts, switch, sys.executable),
            *("-m", "tests.cases.zk_session"),
            *(f"{name}:{self.server.port}", "2000", self.CLIENT),
        )
        self.addCleanup(session.close)
        session.expect("connected")
        return session

    def resolve(self, *names):
        # The file itself stays: it is mounted.
        with open(self.hosts, "w") as file:
            file.write("".join(f"127.0.0.1 {name}\n" for name in names))

    def test_no_busy_loop(self):
        """It took 118 % of a core, and wrote 23,000 lines a second."""
        session = self.start("zk1.test")
        self.resolve()
        self.server.stop()
        session.expect("suspended")
        begun, before = time.monotonic(), _cpu(session.pid)
        time.sleep(4)
        used = _cpu(session.pid) - before
        self.assertLess(used / (time.monotonic() - begun), 0.05)
        self.assertEqual(["connected", "suspended"], session.output().split())
        self.server.start()
        # By the address that it has had.
        session.expect("connected\nsuspended\nconnected")

    def test_another_address(self):
        """The server is moved, as a pod is, and its name with it."""
        session = self.start("zk1.test")
        self.server.stop()
        session.expect("suspended")
        # The same server by another address: it listens on 127.0.0.2.
        config = os.path.join(self.server.directory, "zoo.cfg")
        with open(config) as file:
            text = file.read()
        with open(config, "w") as file:
            file.write(
                text.replace(
                    "clientPortAddress=127.0.0.1",
                    "clientPortAddress=127.0.0.2",
                )
            )
        with open(self.hosts, "w") as file:
            file.write("127.0.0.2 zk1.test\n")
        self.server.start(wait=False)
        session.expect("connected\nsuspended\nconnected")

    def test_no_name_is_known_at_first(self):
        self.hosts = os.path.join(self.folder, "hosts")
        session = self.open(f"zk1.invalid:{self.server.port}")
        with self.assertLogs("nova_sg.evzookeeper", "WARNING") as logs:
            self.assertFalse(session.wait_connected(3))
        self.assertEqual(1, len(logs.output), logs.output)
        self.assertIn("zk1.invalid", logs.output[0])


def _cpu(pid):
    """Return the seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class LibraryTest(zk.ZkTestCase):
    def test_doctor_names_the_library_that_is_loaded(self):
        """It printed a constant."""
        checked = driver.ZkDriver()
        self.addCleanup(checked.close)
        findings = checked.check()
        found = [one for one in findings if "libzookeeper_mt" in one.text]
        self.assertRegex(found[0].text, r"the C client 3\.\d+\.\d+ \(/")
