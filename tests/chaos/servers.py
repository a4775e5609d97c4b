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

"""The servers of a cloud: each in a namespace, each with a clock of its own.

A backend makes its servers, says by which options members reach them, and
cleans up.
"""

import contextlib
import http.server
import os
import shutil
import signal
import socketserver
import tempfile
import threading
import types

import pymysql

from tests.chaos import cloud
from tests.faults.processes import FAKETIME
from tests.fixtures import galera, mariadb, memcached, process, watchdog
from tests.fixtures import zookeeper as zk_fixtures

_GROUP_PORT = 4567
_CHECK_PORT = 9200
_DATABASE = "nova_sg"
# Stock Nova's members do not mix with nova_sg's.
_STOCK_DATABASE = "nova"
_PASSWORD = "secret"


class _InNode:
    """A Daemon of the fixtures, in a node of the cloud.

    :param node: the cloud.Node
    :param port: the port it listens on
    :param ahead: seconds by which its clock is ahead
    """

    # The size of its disk, in megabytes; 0: it has none of its own.
    DISK = 0

    def place(self, node, port, ahead=None):
        self.node = node
        self.port = port
        self._skew = ahead
        self._has_disk = False
        # The folder with the file of its clock.
        self._clock = None

    def start(self, wait=True):
        with self.node.inside():
            super().start(wait)

    def wait_until_ready(self):
        with self.node.inside():
            super().wait_until_ready()

    def is_answering(self):
        """Return whether it takes requests now."""
        with self.node.inside():
            return self.is_running and not self.is_frozen and self.is_ready()

    def _make_directory(self):
        super()._make_directory()
        if self.DISK:
            self.node.disk(self.directory, self.DISK)
            self._has_disk = True
        if self._skew is not None and self._clock is None:
            # Not in its own folder, the disk of which may be full.
            self._clock = tempfile.mkdtemp(prefix="nova-sg-test-")
            watchdog.guard_folder(self._clock)
            os.chmod(self._clock, 0o755)
            self._write_clock(self._skew)

    def close(self):
        if self._has_disk:
            self.kill()
            self.node.remove_disk(self.directory)
            self._has_disk = False
        super().close()
        if self._clock is not None:
            shutil.rmtree(self._clock, ignore_errors=True)
            watchdog.release_folder(self._clock)
            self._clock = None

    @property
    def _ballast(self):
        return os.path.join(self.directory, "ballast")

    def fill_disk(self):
        """Take all that is free on its disk."""
        found = os.statvfs(self.directory)
        free = found.f_bfree * found.f_bsize
        if not free:
            return
        with open(self._ballast, "ab") as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), file.tell(), free)

    def free_disk(self):
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._ballast)

    def _write_clock(self, ahead):
        # In one step, as the server reads it all the time.
        path = os.path.join(self._clock, "new")
        with open(path, "w") as file:
            file.write(f"{ahead:+}s\n")
        os.rename(path, os.path.join(self._clock, "ahead"))

    def step_clock(self, step):
        """Set its clock: so many seconds off from where it was at first."""
        self._write_clock(round(self._skew + step, 1))

    def _surroundings(self):
        found = super()._surroundings()
        if self._skew is not None:
            found["env"] |= {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": os.path.join(self._clock, "ahead"),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        return found


class ZooKeeper(_InNode, zk_fixtures.ZooKeeperServer):
    DISK = 64

    def peer_line(self, reader):
        return f"server.{self.number}={self.node.address}:2888:3888"

    def prepare(self):
        super().prepare()
        with open(self._config) as file:
            text = file.read()
        with open(self._config, "w") as file:
            file.write(text.replace("=127.0.0.1\n", "=0.0.0.0\n"))


class Memcached(_InNode, memcached.Memcached):
    def command(self):
        return [
            word.replace("127.0.0.1", "0.0.0.0") for word in super().command()
        ]


class Galera(_InNode, galera.Node):
    """A node of the cluster.

    :ivar others: see galera.Node
    """

    DISK = 400

    def start(self, wait=True):
        # Galera sets the policy of its threads, and ends if it may not. A
        # server may not where the whole run is kept in the background.
        policy = os.sched_getscheduler(0)
        if policy == os.SCHED_IDLE:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        try:
            super().start(wait)
        finally:
            if policy == os.SCHED_IDLE:
                os.sched_setscheduler(0, policy, os.sched_param(0))

    @property
    def group_address(self):
        return f"{self.node.address}:{_GROUP_PORT}"

    def command(self):
        # What galera.Node adds is for 127.0.0.1.
        command = mariadb.MariaDB.command(self)
        if self.others is None:
            return command
        if self.others:
            command.remove(f"--init-file={self._accounts}")
        options = [
            f"gmcast.listen_addr=tcp://{self.group_address}",
            f"ist.recv_addr={self.node.address}:4568",
            "gcache.size=8M",
            "socket.checksum=1",
            # Shorter than by default, as all times of a run are.
            "evs.keepalive_period=PT0.3S",
            "evs.inactive_check_period=PT0.3S",
            "evs.suspect_timeout=PT1.5S",
            "evs.inactive_timeout=PT4S",
            "evs.install_timeout=PT4S",
        ]
        return [
            *(word for word in command if "--bind-address" not in word),
            "--bind-address=0.0.0.0",
            "--wsrep-on=ON",
            f"--wsrep-provider={galera._provider()}",
            f"--wsrep-cluster-address=gcomm://{','.join(self.others)}",
            f"--wsrep-provider-options={';'.join(options)}",
            f"--wsrep-node-address={self.node.address}",
            f"--wsrep-node-incoming-address={self.node.address}:{self.port}",
            f"--wsrep-node-name={self.node.name}",
            "--wsrep-sst-method=copied",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
        ]

    def prepare(self):
        super().prepare()
        if not self.others:
            with open(self._accounts, "a") as accounts:
                accounts.write(
                    f"CREATE DATABASE IF NOT EXISTS {_DATABASE};\n"
                    "CREATE OR REPLACE USER nova@'%' "
                    f"IDENTIFIED BY '{_PASSWORD}';\n"
                    f"GRANT ALL ON {_DATABASE}.* TO nova@'%';\n"
                    f"CREATE DATABASE IF NOT EXISTS {_STOCK_DATABASE};\n"
                    f"GRANT ALL ON {_STOCK_DATABASE}.* TO nova@'%';\n"
                )


class HAProxy(_InNode, process.Daemon):
    """HAProxy before the nodes of the cluster.

    :param leastconn: whether all nodes serve; otherwise the first one does,
        and the others are its backups
    """

    def __init__(self, nodes, leastconn):
        super().__init__()
        self._nodes = nodes
        self._leastconn = leastconn

    def prepare(self):
        lines = []
        for number, node in enumerate(self._nodes):
            backup = "" if self._leastconn or not number else " backup"
            lines.append(
                f"  server {node.node.name} {node.node.address}:{node.port} "
                f"check port {_CHECK_PORT}{backup}\n"
            )
        with open(self._path, "w") as config:
            config.write(
                "global\n  maxconn 400\n  hard-stop-after 10s\n"
                "defaults\n  mode tcp\n  timeout connect 1s\n"
                "  timeout client 1h\n  timeout server 1h\n"
                "  timeout check 500ms\n"
                "listen galera\n"
                f"  bind 0.0.0.0:{self.port}\n"
                f"  balance {'leastconn' if self._leastconn else 'first'}\n"
                "  option httpchk GET /\n"
                "  option clitcpka\n  option srvtcpka\n"
                "  default-server inter 500ms rise 2 fall 2 "
                "on-marked-down shutdown-sessions\n" + "".join(lines)
            )

    @property
    def _path(self):
        return os.path.join(self.directory, "haproxy.cfg")

    def command(self):
        program = "/usr/sbin/haproxy"
        return [
            program if os.path.exists(program) else "haproxy",
            *("-W", "-db", "-f", self._path),
        ]

    def reload(self):
        """Have new processes take over; the old ones end a little later."""
        self._process.send_signal(signal.SIGUSR2)

    def _workers(self):
        pid = self._process.pid
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                return [int(child) for child in children.read().split()]
        return []

    def _send_workers(self, number, workers):
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self):
        super().freeze()
        self._send_workers(signal.SIGSTOP, self._workers())

    def thaw(self):
        if self.is_frozen:
            self._send_workers(signal.SIGCONT, self._workers())
        super().thaw()

    def kill(self):
        workers = self._workers() if self.is_running else []
        super().kill()
        self._send_workers(signal.SIGKILL, workers)

    def is_ready(self):
        return process.answers(self.port, b"", b"mysql_native_password")


class _ClusterCheck(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Tells HAProxy whether a node of Galera is synced."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, galera_node):
        self.galera_node = galera_node
        with galera_node.node.inside():
            super().__init__(("0.0.0.0", _CHECK_PORT), _Check)
        self._thread = threading.Thread(
            target=self.serve_forever, args=[0.2], daemon=True
        )
        self._thread.start()

    def handle_error(self, request, client_address):
        """HAProxy did not wait for the answer."""

    def close(self):
        self.shutdown()
        self.server_close()


class _Check(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        state = galera_state(self.server.galera_node, 0.4, writable=True)
        self.send_response(200 if state == "Synced" else 503)
        self.end_headers()

    def log_message(self, *args):
        pass


def galera_state(server, timeout, writable=False):
    """Return a node's state in the cluster; "" if it does not answer.

    :param writable: whether a node that is read-only is not ready
    """
    if not server.is_running:
        return ""
    try:
        with _session(server, timeout) as cursor:
            cursor.execute(
                "SHOW STATUS WHERE Variable_name IN ("
                "'wsrep_local_state_comment', 'wsrep_ready')"
            )
            found = dict(cursor.fetchall())
            cursor.execute("SELECT @@global.read_only")
            [(read_only,)] = cursor.fetchall()
    except (OSError, pymysql.MySQLError):
        return ""
    if found.get("wsrep_ready") != "ON" or (writable and read_only):
        return "not ready"
    return found.get("wsrep_local_state_comment", "")


@contextlib.contextmanager
def _session(server, timeout):
    address = "127.0.0.1"
    socket_ = cloud.connect(server.node, address, server.port, timeout)
    link = pymysql.connect(
        host=address,
        user="root",
        password=mariadb._PASSWORD,
        connect_timeout=timeout,
        read_timeout=timeout,
        write_timeout=timeout,
        ssl_disabled=True,
        defer_connect=True,
        autocommit=True,
    )
    try:
        link.connect(socket_)
        with link.cursor() as cursor:
            yield cursor
    finally:
        with contextlib.suppress(OSError, pymysql.MySQLError):
            link.close()
        socket_.close()


class Backend:
    """The servers of one driver.

    :ivar servers: by name
    :ivar fronts: names of the servers that members connect to; empty: all
    """

    driver = ""
    port = 0
    names = ()
    #: Whether a server reads its clock at its start alone.
    clock_needs_start = False

    def __init__(self, the_cloud, random):
        self._cloud = the_cloud
        self._closing = contextlib.ExitStack()
        self._random = random
        self.servers = {}
        self.fronts = ()

    def start(self):
        """Start all servers; wait until they take requests."""
        self._cloud.add(*self.names)
        self._make()
        for server in self.servers.values():
            self._closing.callback(server.close)
        self._start()

    def _start(self):
        for server in self.servers.values():
            server.start(wait=False)
        for server in self.servers.values():
            server.wait_until_ready()

    def _addresses(self):
        return ",".join(
            f"{self._cloud.nodes[name].address}:{self.port}"
            for name in self.names
        )

    def options(self, client):
        """Return options for a client, by section.

        :param client: a number by which the servers are shared out
        """
        raise NotImplementedError

    def stock_options(self, client):
        """Return the same for a client that is stock Nova."""
        raise NotImplementedError

    def front(self, client):
        """Return the server by which a client reaches the backend.

        None: it reaches each of them by itself.
        """
        return None

    def start_server(self, name):
        """Start a server that was killed or stopped; do not wait for it."""
        self.servers[name].start(wait=False)

    def answers(self, name):
        """Return whether a server serves its clients."""
        return self.servers[name].is_answering()

    def rescue(self):
        """Do what an operator has to do after some outages.

        :returns: whether there was something to do
        """
        return False

    def close(self):
        self._closing.close()


class Zk(Backend):
    driver = "zk"
    port = 2181
    names = ("z1", "z2", "z3")

    def _make(self):
        ensemble = types.SimpleNamespace(servers=[])
        for number, name in enumerate(self.names, 1):
            server = ZooKeeper(ensemble, number)
            server.place(self._cloud.nodes[name], self.port)
            ensemble.servers.append(server)
            self.servers[name] = server

    def options(self, client):
        return {
            "zookeeper": {
                "address": self._addresses(),
                "recv_timeout": 4000,
                "sg_retry_interval": 1,
            }
        }


class Mc(Backend):
    driver = "mc"
    port = 11211
    names = ("m1", "m2", "m3")
    # memcached counts on from there by the monotonic clock.
    clock_needs_start = True

    def _make(self):
        for name in self.names:
            server = Memcached()
            # More than a second would show in their whole seconds.
            ahead = round(self._random.uniform(-1.5, 1.5), 1)
            server.place(self._cloud.nodes[name], self.port, ahead)
            self.servers[name] = server

    def options(self, client):
        return {
            "DEFAULT": {"memcached_servers": self._addresses()},
            "memcache": {"socket_timeout": 0.5},
        }

    def stock_options(self, client):
        return {
            "cache": {
                "enabled": True,
                "backend": "oslo_cache.memcache_pool",
                "memcache_servers": self._addresses(),
            }
        }

    def flush(self, name):
        """Have a server forget all values."""
        node = self._cloud.nodes[name]
        with contextlib.closing(
            cloud.connect(node, "127.0.0.1", self.port, 1.0)
        ) as link:
            link.sendall(b"flush_all\r\n")
            link.recv(100)


class Db(Backend):
    driver = "db"
    port = 3306
    names = ("g1", "g2", "g3", "lb1", "lb2")

    def __init__(self, the_cloud, random):
        super().__init__(the_cloud, random)
        self.fronts = ("lb1", "lb2")

    def _make(self):
        self._exchange = tempfile.mkdtemp(prefix="nova-sg-test-")
        watchdog.guard_folder(self._exchange)
        self._closing.callback(watchdog.release_folder, self._exchange)
        self._closing.callback(shutil.rmtree, self._exchange, True)
        nodes = []
        for name in self.names[:3]:
            node = Galera(self._exchange)
            ahead = round(self._random.uniform(-1.5, 1.5), 1)
            node.place(self._cloud.nodes[name], self.port, ahead)
            node.own(self._exchange)
            self.servers[name] = node
            nodes.append(node)
        for name in self.fronts:
            proxy = HAProxy(nodes, leastconn=name == "lb2")
            proxy.place(self._cloud.nodes[name], self.port)
            self.servers[name] = proxy

    def _start(self):
        first, *others = nodes = [
            self.servers[name] for name in self.names[:3]
        ]
        first.others = []
        first.start()
        for node in others:
            node.others = [first.group_address]
            node.start()
        for node in nodes:
            node.others = [one.group_address for one in nodes if one != node]
            self._closing.callback(_ClusterCheck(node).close)
        for name in self.fronts:
            self.servers[name].start(wait=False)
        for name in self.fronts:
            self.servers[name].wait_until_ready()

    def answers(self, name):
        server = self.servers[name]
        if name in self.fronts:
            return server.is_answering()
        return galera_state(server, 1.0) == "Synced"

    def set_read_only(self, name, value):
        """Have a node refuse what members write; return whether it does."""
        server = self.servers[name]
        if not server.is_running or server.is_frozen:
            # It is writable after a start.
            return not value and not server.is_running
        try:
            with _session(server, 5.0) as cursor:
                cursor.execute(f"SET GLOBAL read_only = {int(value)}")
        except (OSError, pymysql.MySQLError):
            return False
        return True

    @contextlib.contextmanager
    def locked(self, name):
        """Hold FLUSH TABLES WITH READ LOCK at a node, as a backup does."""
        with contextlib.ExitStack() as session:
            with contextlib.suppress(OSError, pymysql.MySQLError):
                cursor = session.enter_context(
                    _session(self.servers[name], 5.0)
                )
                cursor.execute("FLUSH TABLES WITH READ LOCK")
            yield

    def rescue(self):
        """Make a primary component again, if the nodes have lost it.

        Nodes that all lost each other, and one of which was restarted
        meanwhile, do not know whether they are a majority.
        """
        states = {
            name: galera_state(self.servers[name], 1.0)
            for name in self.names[:3]
        }
        waiting = [name for name, state in states.items() if state]
        if len(waiting) < 2 or set(states.values()) & {"Synced", "Joined"}:
            return False
        try:
            with _session(self.servers[waiting[0]], 5.0) as cursor:
                cursor.execute(
                    "SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'"
                )
        except (OSError, pymysql.MySQLError):
            return False
        return True

    def front(self, client):
        return self.fronts[client % len(self.fronts)]

    def options(self, client):
        return {"database": {"connection": self._url(client, _DATABASE)}}

    def stock_options(self, client):
        url = self._url(client, _STOCK_DATABASE)
        return {"database": {"connection": url}}

    def _url(self, client, name):
        address = self._cloud.nodes[self.front(client)].address
        return f"mysql+pymysql://nova:{_PASSWORD}@{address}:{self.port}/{name}"


BACKENDS = {kind.driver: kind for kind in (Db, Mc, Zk)}
