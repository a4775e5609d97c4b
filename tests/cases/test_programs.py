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

"""Cases of issue reports about the programs, whatever the backend.

The programs run as processes of their own, so one mode is enough.
"""

import collections
import contextlib
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap

import pymysql

import tests
from tests.fixtures import (
    consumer,
    mariadb,
    memcached,
    process,
    rabbitmq,
    zookeeper,
)
from tests.fixtures.process import wait_for
from tests.processes import base, monitor, watching
from tests.processes.test_agent import NOVA_CONF

RELOADED = "The configuration is reloaded"
KEPT = "The configuration is not reloaded"

# A file of Python's logging, as kolla and nova-operator bring one along.
LOGGING = """\
[loggers]
keys = root, service
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
level = {level}
handlers = file
[logger_service]
qualname = nova_sg.service
level = INFO
handlers =
[handler_file]
class = FileHandler
args = ({path!r},)
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""


def handles(pid, signo):
    """Whether a process has a handler for a signal."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name == "SigCgt":
                return bool(int(value, 16) >> (signo - 1) & 1)
    return False


class LoggingFileTest(base.TestCase):
    """SIGHUP with log_config_append.

    oslo.log: with log_config_append all other logging options are ignored.
    """

    def setUp(self):
        super().setUp()
        self.file = self.path("logging.conf")
        self.configure(
            f"log_transitions = true\nlog_config_append = {self.file}\n"
        )

    def log_from(self, level):
        path = self.path("node.log")
        self.write("logging.conf", LOGGING.format(level=level, path=path))

    def hang_up(self, agent, words):
        before = agent.log.count(words)
        agent.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: agent.log.count(words) > before,
            base.PATIENCE,
            lambda: f"it logs {words!r}:\n{agent.log}",
        )

    def logs_joins(self, agent, host):
        """Whether it logs at INFO that a member joins.

        A WARNING, that the member goes down, comes later in any case.
        """
        self.insert(host, 0)
        warning = f"WARNING nova_sg.manager {host} "
        forced = True

        def warned():
            nonlocal forced
            self.execute(
                "UPDATE services SET forced_down = ? WHERE host = ?",
                forced,
                host,
            )
            forced = not forced
            with contextlib.suppress(AssertionError):
                wait_for(lambda: warning in agent.log, 1)
            return warning in agent.log

        wait_for(warned, base.PATIENCE, lambda: f"{warning}:\n{agent.log}")
        return f"INFO nova_sg.manager {host} " in agent.log

    def test_the_levels_are_those_of_the_file(self):
        """SIGHUP set the level of the root logger to INFO."""
        self.log_from("WARNING")
        agent = self.agent("node")
        agent.wait_for_log("node joins the group")
        self.hang_up(agent, RELOADED)
        self.assertFalse(self.logs_joins(agent, "one"), agent.log)
        # debug has no effect.
        self.configure(
            f"log_transitions = true\nlog_config_append = {self.file}\n"
            "debug = true\n"
        )
        self.hang_up(agent, RELOADED)
        self.assertFalse(self.logs_joins(agent, "two"), agent.log)
        self.assertNotIn("DEBUG", agent.log)
        # The file is read again.
        self.log_from("INFO")
        self.hang_up(agent, RELOADED)
        self.assertTrue(self.logs_joins(agent, "three"), agent.log)
        agent.stop()

    def test_a_wrong_file(self):
        """oslo.log takes away all handlers before it reads the file."""
        self.log_from("LOUD")
        refused = self.run_program("nova-sg-agent")
        self.assertEqual((2, ""), (refused.status, refused.out))
        self.assertEqual(1, refused.err.count("\n"), refused.err)
        self.assertIn(f"log_config_append: {self.file}: ", refused.err)
        self.assertIn("LOUD", refused.err)
        self.log_from("INFO")
        agent = self.agent("node")
        agent.wait_for_log("node joins the group")
        for text in ("[loggers]\n", "", LOGGING.format(level="INFO", path="")):
            self.write("logging.conf", text)
            self.hang_up(agent, KEPT)
            last = agent.log.split(KEPT)[-1]
            self.assertIn(f"log_config_append: {self.file}: ", last)
        self.log_from("WARNING")
        self.hang_up(agent, RELOADED)
        agent.stop()


class HangUpTest(monitor.TestCase):
    def test_soon_after_the_start(self):
        """A SIGHUP soon after the start killed the program.

        The handler is the first thing that the program installs.
        """
        for program in ("nova-sg-agent", "nova-sg-monitor"):
            for backend in ("eventlet", "threading"):
                with self.subTest(program, backend=backend):
                    self.set_up(f"concurrency_backend = {backend}")
                    self.configure(
                        f"concurrency_backend = {backend}\n"
                        f"[monitor]\nport = {self.port}\n"
                    )
                    self.check(program)

    def check(self, program):
        log = self.path(f"{program}.log")
        self.write(f"{program}.log", "")
        systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(systemd.close)
        systemd.bind(f"\0{log}")
        systemd.settimeout(base.PATIENCE)
        started = self.start(
            program,
            *("--log-file", log),
            env=self.environment | {"NOTIFY_SOCKET": f"@{log}"},
        )
        wait_for(lambda: handles(started.pid, signal.SIGHUP), base.PATIENCE)
        started.send_signal(signal.SIGHUP)

        def read():
            with open(log) as file:
                return file.read()

        wait_for(
            lambda: RELOADED in read() or started.poll() is not None,
            base.PATIENCE,
            lambda: f"{program} answers SIGHUP:\n{read()}",
        )
        # From here on systemd would pass signals on, with Type=notify.
        self.assertIn(b"READY=1", systemd.recv(100))
        self.assertEqual(0, self.finish(started, signal.SIGTERM).status)
        systemd.close()
        self.check_words(read())

    def test_the_monitor_reads_its_logging_file_again(self):
        """It had the levels of its start until a restart."""
        path, log = self.path("logging.conf"), self.path("monitor.log")
        text = LOGGING.replace("keys = root, service", "keys = root")
        self.write("logging.conf", text.format(level="WARNING", path=log))
        self.monitor(f"log_config_append = {path}")
        self.wait_until_ready()
        self.assertEqual("", self.log())
        self.write("logging.conf", text.format(level="INFO", path=log))
        self.started.send_signal(signal.SIGHUP)
        wait_for(
            lambda: f"INFO nova_sg.service {RELOADED}" in self.log(),
            base.PATIENCE,
            self.log,
        )


class WatcherTest(watching.TestCase):
    def test_hang_up(self):
        """SIGHUP killed nova-sg watch at once.

        What it was doing about an event ended in the middle, and the events
        that waited were lost without a word.
        """
        begun, ended = self.path("begun"), self.path("ended")
        slow = self.write(
            "slow",
            f"#!/bin/sh\necho >{begun}\nsleep 1\necho >{ended}\n",
        )
        os.chmod(slow, 0o755)
        watch = self.watch("--exec", slow)
        self.force("one", True)
        wait_for(lambda: os.path.exists(begun), base.PATIENCE)
        watch.send_signal(signal.SIGHUP)
        self.assertEqual(0, watch.wait(base.PATIENCE))
        self.assertTrue(os.path.exists(ended))
        self.check_words(watch.stderr.read())


class SilentEndTest(base.TestCase):
    """A script on native threads that ends without closing the API.

    It printed "zookeeper is closing" three times.
    """

    SCRIPT = """\
        from nova_sg import servicegroup
        from nova_sg.conf import CONF
        CONF([], project="nova-sg", default_config_files=[])
        CONF.set_override("servicegroup_driver", "zk")
        CONF.set_override("address", {address!r}, "zookeeper")
        CONF.set_override("state_path", {state!r})
        api = servicegroup.API()
        api.join("one", "compute")
        {last}
        print("done")
    """

    def test_zookeeper(self):
        server = process.shared(zookeeper.ZooKeeperServer)
        for last in (
            "api.refresh('compute'); print(api.members('compute'))",
            "watch = api.watch('compute', print)",
        ):
            with self.subTest(last):
                ran = subprocess.run(
                    [
                        sys.executable,
                        "-c",
                        textwrap.dedent(self.SCRIPT).format(
                            address=server.address,
                            state=self.state,
                            last=last,
                        ),
                    ],
                    cwd=base.ROOT,
                    capture_output=True,
                    text=True,
                    timeout=base.PATIENCE,
                )
                self.assertEqual((0, ""), (ran.returncode, ran.stderr))
                self.assertIn("done\n", ran.stdout)


class UnknownNamesTest(base.TestCase):
    """A typo in the name of a section or an option had no effect, silently."""

    WRONG = (
        "reportinterval = 5\n[zookeper]\naddress = a:1\n"
        "[servicegroup]\ncrash_gard = true\nreport_interval = 5\n"
        "[database]\nconnection_debug = 0\n[oslo_messaging_rabbit]\nssl = 1\n"
    )
    FOUND = (
        "option [DEFAULT] reportinterval (is it report_interval?)",
        "option [servicegroup] crash_gard (is it crash_guard?)",
        "option [servicegroup] report_interval (it belongs to [DEFAULT])",
        "section [zookeper] (is it [zookeeper]?)",
    )

    def check_found(self, text):
        self.assertEqual(1, text.count(f"{self.config}: "), text)
        for words in self.FOUND:
            self.assertIn(words, text)
        for words in ("connection_debug", "ssl", "oslo_messaging"):
            self.assertNotIn(words, text)

    def test_the_files_of_nova_sg(self):
        self.configure(self.WRONG)
        listed = self.run_here("nova-sg", "list", "-f", "json")
        self.assertEqual((0, "[]\n"), (listed.status, listed.out))
        self.assertEqual(1, listed.err.count("\n"), listed.err)
        self.check_found(listed.err)
        checked = self.run_here("nova-sg", "doctor")
        self.assertEqual(1, checked.status)
        (bad,) = [
            line for line in checked.out.splitlines() if line.startswith("BAD")
        ]
        self.check_found(bad)
        agent = self.agent("node")
        agent.wait_for_log("node joins the group")
        self.assertEqual(1, agent.log.count("WARNING"), agent.log)
        self.check_found(agent.log)
        agent.stop()

    def test_the_files_of_nova(self):
        """Nova's options are Nova's matter, whatever the file's name is."""
        text = NOVA_CONF.format(
            secret=base.PASSWORD,
            state=self.state,
            logs=self.folder,
            url=f"sqlite:///{self.path('nova.sqlite')}",
        )
        for name in ("nova.conf", "nova-cpu.conf", "nova-sg.conf"):
            self.config = self.write(name, text)
            ran = self.run_here("nova-sg", "db", "sync")
            self.assertEqual((0, ""), (ran.status, ran.err), name)


class GuardFilesTest(base.TestCase):
    def files(self):
        return {
            name
            for name in os.listdir(self.state)
            if name.startswith("nova-sg-guard-")
        }

    def test_what_a_killed_agent_leaves(self):
        """nova-sg-guard-* stayed in state_path for ever.

        A power failure ends an agent and its guard at once.
        """
        self.configure("[servicegroup]\ncrash_guard = true\n")
        killed = self.agent("killed", start_new_session=True)
        self.wait_for_state("killed", "up")
        left = self.files()
        self.assertEqual(1, len(left))
        (guard,) = _children(killed.process.pid)
        os.kill(guard, signal.SIGKILL)
        killed.kill()
        self.assertEqual(left, self.files())
        # That of a member that is alive stays.
        first = self.agent("first")
        self.wait_for_state("first", "up")
        kept = self.files()
        self.assertEqual(1, len(kept))
        self.assertNotEqual(left, kept)
        second = self.agent("second")
        self.wait_for_state("second", "up")
        self.assertLess(kept, self.files())
        first.stop()
        second.stop()
        self.assertEqual(set(), self.files())


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(one) for one in children.read().split()]


class OutputTest(monitor.TestCase):
    """Found later: what reads the log ends, or its disk is full."""

    def test_the_reader_of_the_log_ends(self):
        """Services failed after a stop of journald: EPIPE on stdout.

        They ended with status 120 when they were stopped, so that systemd
        called them failed.
        """
        self.set_up()
        for program in ("nova-sg-agent", "nova-sg-monitor"):
            with self.subTest(program):
                reader, writer = os.pipe()
                started = self.start(program, stdout=writer, stderr=writer)
                os.close(writer)
                wait_for(lambda r=reader: os.read(r, 1 << 16), base.PATIENCE)
                self.wait_until_it_works(program, started)
                os.close(reader)
                # It logs something now.
                started.send_signal(signal.SIGHUP)
                self.wait_until_it_works(program, started)
                started.terminate()
                self.assertEqual(0, started.wait(base.PATIENCE))
        self.assertIn("left the group", self.do("list"))

    def test_the_disk_of_the_log_is_full(self):
        """Services did not start, or stopped, when /var/log was full."""
        self.set_up()
        for program in ("nova-sg-agent", "nova-sg-monitor"):
            with self.subTest(program):
                with open(self.path("stderr"), "w") as stderr:
                    started = self.start(
                        *(program, "--log-file", "/dev/full"), stderr=stderr
                    )
                self.wait_until_it_works(program, started)
                started.send_signal(signal.SIGHUP)
                self.wait_until_it_works(program, started)
                started.terminate()
                self.assertEqual(0, started.wait(base.PATIENCE))
        self.assertIn("left the group", self.do("list"))

    def wait_until_it_works(self, program, started):
        """Wait for another report, or for an answer of the monitor."""
        if program == "nova-sg-monitor":
            self.started = started
            self.wait_until_ready()
            return

        def reports():
            with contextlib.suppress(sqlite3.Error):
                return self.execute("SELECT updated_at FROM services")
            return []

        before = reports()
        wait_for(
            lambda: started.poll() is not None or reports() != before,
            base.PATIENCE,
            "the agent reports",
        )
        self.assertIsNone(started.poll())

    def log(self):
        return ""


class DescriptorsTest(base.TestCase):
    def test_too_many_open_files(self):
        """A process without free descriptors called all services down.

        It never recovered. An agent that has none while its backend restarts
        is back as soon as it can open one.
        """
        server = self.enterContext(memcached.Memcached())
        self.configure(
            f"servicegroup_driver = mc\nmemcached_servers = {server.address}\n"
            "log_transitions = true"
        )
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        pid = agent.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, most))
        server.kill()
        server.start()
        for trouble in "Cannot refresh group", "Cannot report the state":
            agent.wait_for_log(trouble)
        self.assertIn("Too many open files", agent.log)
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for_log("Too many open files. The old one stays in use")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, most))
        agent.wait_for_log("node is reported to the group compute again")
        agent.wait_for_log("Backend mc reachable again")
        self.wait_for_state("node", "up")
        agent.stop()


class PasswordTest(base.TestCase):
    def test_a_new_password_of_the_database(self):
        """After a rotation of passwords services had to be restarted.

        A SIGHUP is enough. Until then reports fail, as soon as a connection
        has to be made.
        """
        server = process.shared(mariadb.MariaDB)
        name = server.create_database().rpartition("/")[2]
        user = f"{name}@127.0.0.1"

        def configure(password):
            self.configure(
                "[database]\nconnection = mysql+pymysql://"
                f"{name}:{password}@127.0.0.1:{server.port}/{name}"
            )

        server.execute(f"CREATE USER {user} IDENTIFIED BY '{base.PASSWORD}1'")
        self.addCleanup(server.execute, f"DROP USER {user}")
        server.execute(f"GRANT ALL ON `{name}`.* TO {user}")
        configure(f"{base.PASSWORD}1")
        self.do("db", "sync")
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        server.execute(f"ALTER USER {user} IDENTIFIED BY '{base.PASSWORD}2'")
        for (number,) in server.execute(
            "SELECT id FROM information_schema.processlist WHERE user = %s",
            name,
        ):
            with contextlib.suppress(pymysql.MySQLError):
                server.execute(f"KILL {number}")
        agent.wait_for_log("Cannot report the state of node")
        self.assertIn("Access denied for user", agent.log)
        configure(f"{base.PASSWORD}2")

        def reported():
            return server.execute(
                "SELECT updated_at FROM services", database=name
            )

        before = reported()
        agent.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: reported() != before, base.PATIENCE, lambda: agent.log
        )
        self.wait_for_state("node", "up")
        agent.stop()


class _Moves:
    """A server with an address of its own, which changes at a restart."""

    #: The address besides 127.0.0.1, by which tests find it.
    host = "127.0.0.2"


class MovingMemcached(_Moves, memcached.Memcached):
    def command(self):
        return [
            f"127.0.0.1,{self.host}" if word == "127.0.0.1" else word
            for word in super().command()
        ]


class MovingMariaDB(_Moves, mariadb.MariaDB):
    def command(self):
        return [
            f"{word},{self.host}" if word.startswith("--bind") else word
            for word in super().command()
        ]


class MovingZooKeeper(_Moves, zookeeper.ZooKeeperServer):
    """It has one address only."""

    def command(self):
        with open(self._config) as file:
            text = re.sub(
                "(?m)^clientPortAddress=.*",
                f"clientPortAddress={self.host}",
                file.read(),
            )
        with open(self._config, "w") as file:
            file.write(text)
        return super().command()

    def is_ready(self):
        try:
            with socket.create_connection((self.host, self.port), 2) as link:
                link.sendall(b"srvr")
                return b"Mode: " in link.recv(65536)
        except OSError:
            return False


class NamesTest(base.TestCase):
    """Names of servers that are resolved late, or to another address.

    Each agent has an /etc/hosts of its own.
    """

    SERVERS = {
        "db": MovingMariaDB,
        "mc": MovingMemcached,
        "zk": MovingZooKeeper,
    }
    NAME = "backend.test"
    AGAIN = "node is reported to the group compute again"

    def hosts(self, address=None):
        """Have the name resolved to an address; None: to nothing."""
        lines = ["127.0.0.1 localhost"]
        if address is not None:
            lines.append(f"{address} {self.NAME}")
        # In place, as it is mounted.
        self.write("hosts", "\n".join([*lines, ""]))

    def begin(self, driver):
        server = self.enterContext(self.SERVERS[driver]())
        name = f"{self.NAME}:{server.port}"
        lines = {
            "mc": f"memcached_servers = {name}",
            "zk": f"[zookeeper]\naddress = {name}\nrecv_timeout = 4000",
        }
        if driver == "db":
            url = server.create_database()
            self.configure(f"[database]\nconnection = {url}")
            self.do("db", "sync")
            url = url.replace("@127.0.0.1:", f"@{self.NAME}:")
            lines["db"] = f"[database]\nconnection = {url}"
        self.configure(f"servicegroup_driver = {driver}\n{lines[driver]}\n")
        # They share the name of the member, and no folder.
        os.rename(self.config, self.path(f"{driver}.conf"))
        log = self.path(f"{driver}.log")
        process = self.start(
            *("nova-sg-agent", "--config-file", self.path(f"{driver}.conf")),
            *("--host", "node", "--log-file", log),
            config=False,
            prefix=(
                *("unshare", "--mount", "sh", "-c"),
                f"mount --bind {self.path('hosts')} /etc/hosts && "
                f"mount --bind {self.path('nsswitch')} /etc/nsswitch.conf && "
                'exec "$@"',
                "sh",
            ),
        )
        return server, base.Agent(self, "node", process, log)

    def test_late_names_and_new_addresses(self):
        """Clients that resolve a name once, at their start.

        Without a name server they never began to work, and they did not find
        a server that got another address, as a pod does at each restart.
        """
        self.hosts()
        self.write("nsswitch", "hosts: files\n")
        found = [self.begin(driver) for driver in self.SERVERS]
        for _, agent in found:
            agent.wait_for_log("Cannot report the state of node")
        self.hosts("127.0.0.2")
        self.wait_for_reports(found, 1)
        for server, _ in found:
            server.stop()
        for server, _ in found:
            server.host = "127.0.0.3"
            server.start(wait=False)
        for server, _ in found:
            server.wait_until_ready()
        self.hosts("127.0.0.3")
        self.wait_for_reports(found, 2)
        for _, agent in found:
            agent.stop()

    def wait_for_reports(self, found, times):
        for _, agent in found:
            wait_for(
                lambda agent=agent: agent.log.count(self.AGAIN) >= times,
                base.PATIENCE,
                lambda agent=agent: agent.log,
            )


class MetricsTest(monitor.TestCase):
    def test_states_and_series(self):
        """Exporters that took "enabled" for "up".

        Two services of one host made others give the same series twice,
        which Prometheus refuses with all that it has read.
        """
        self.configure()
        self.do("db", "sync")
        self.insert("silent", 7200)
        self.insert("disabled", 0, disabled=1)
        self.insert("fenced", 0, forced_down=1)
        for topic in "compute", "conductor":
            for host in "twin", "TWIN":
                self.insert(host, 0, topic=topic, binary=f"nova-{topic}")
        self.monitor()
        self.wait_until_ready()
        wait_for(
            lambda: self.request("/metrics").body.count(b'host="'),
            base.PATIENCE,
        )
        lines = [
            line.rpartition(" ")
            for line in self.request("/metrics").body.decode().splitlines()
            if not line.startswith("#")
        ]
        series = [name for name, _, _ in lines]
        self.assertEqual(len(set(series)), len(series), series)
        named = {
            re.search('host="([^"]*)"', name)[1]: name
            for name in series
            if name.startswith("nova_sg_member_state{")
        }
        self.assertEqual({"silent", "fenced"}, named.keys())
        for name in named.values():
            self.assertIn('state="down"', name)
        up = collections.Counter()
        for name, _, value in lines:
            if name.startswith("nova_sg_members{") and 'state="up"' in name:
                # One for each cause.
                up[re.search('group="([^"]*)"', name)[1]] += float(value)
        self.assertEqual({"compute": 3.0, "conductor": 2.0}, up)


class AlarmedRabbitMQ(rabbitmq.RabbitMQ):
    """A broker that blocks all that publish, as it is short of memory."""

    ALARM = "vm_memory_high_watermark.absolute = 1\n"

    def prepare(self):
        super().prepare()
        with open(self._path("rabbitmq.conf"), "a") as config:
            config.write(self.ALARM)

    def end_alarm(self):
        with open(self._path("rabbitmq.conf")) as config:
            text = config.read()
        with open(self._path("rabbitmq.conf"), "w") as config:
            config.write(text.replace(self.ALARM, ""))
        self.restart()


class AlarmTest(watching.TestCase):
    @tests.long_form
    def test_a_broker_that_blocks(self):
        """RabbitMQ raises an alarm, and clients that publish wait for ever.

        Other actions do not wait, and no event is lost.
        """
        broker = self.enterContext(AlarmedRabbitMQ())
        noted = self.path("noted")
        note = self.write("note", f"#!/bin/sh\necho >>{noted}\n")
        os.chmod(note, 0o755)
        self.configure(consumer.options(broker.url))
        with open(self.config, "a") as file:
            file.write(
                "[events]\nnotifications = true\nonly = down\ntime_limit = 2\n"
            )
        listener = consumer.Consumer(self.folder, self.config)
        self.enterContext(listener)
        watch = self.watch("--exec", note)
        self.force("one", 1)
        wait_for(lambda: os.path.exists(noted), base.PATIENCE)
        broker.end_alarm()
        wait_for(lambda: listener.lines("one"), base.PATIENCE, "it came")
        self.assertIn(
            "the message queue failed for down of one", self.end(watch)
        )
