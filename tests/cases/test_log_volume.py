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

"""How much the programs log while a backend is unreachable.

Public reports of clients that log each attempt, for hours:
https://github.com/linkerd/linkerd/issues/1983,
https://github.com/samuel/go-zookeeper/issues/33.
"""

import contextlib
import time
import unittest

from tests import LONG, long_form
from tests.fixtures import mariadb, memcached, process, zookeeper
from tests.fixtures.process import wait_for
from tests.processes import base

#: Lines for a whole outage, its begin and end included.
MOST = 6
#: Seconds that the backends are unreachable.
OUTAGE = 30 if LONG else 12

SERVERS = {
    "db": mariadb.MariaDB,
    "mc": memcached.Memcached,
    "zk": zookeeper.ZooKeeperServer,
}


class Cloud(base.TestCase):
    """One backend, with the programs that use it: no test case itself."""

    def begin(self, driver):
        self.driver = driver
        self.server = self.enterContext(SERVERS[driver]())
        self.port = process.free_port()
        options = {
            "db": "",
            "mc": f"memcached_servers = 127.0.0.1:{self.server.port}",
            "zk": f"[zookeeper]\naddress = 127.0.0.1:{self.server.port}",
        }[driver]
        if driver == "db":
            options = (
                f"[database]\nconnection = {self.server.create_database()}"
            )
        self.configure(
            f"log_transitions = true\nservicegroup_driver = {driver}\n"
            f"{options}\n"
            f"[monitor]\nport = {self.port}\n",
            report_interval=1,
            service_down_time=6,
            refresh=0.5,
        )
        if driver == "db":
            self.do("db", "sync")
        self.programs = {
            "agent": self.launch("nova-sg-agent", "--host", "node"),
            "monitor": self.launch("nova-sg-monitor"),
            # -v: as the others, it logs at INFO.
            "watch": self.launch("nova-sg", "-v", "watch"),
        }

    def launch(self, program, *arguments):
        """Start a program; return the path of what it logs."""
        name = arguments[-1] if program == "nova-sg" else program
        path = self.path(f"{name}.err")
        with open(path, "w") as log:
            self.start(program, *arguments, stdout=log, stderr=log)
        return path

    def read(self, program):
        with open(self.programs[program]) as file:
            return file.read()

    def wait_until_known(self):
        """Wait until each program knows that the member is up."""
        self.wait_for_state("node", "up")
        wait_for(
            lambda: (
                b"200"
                in process.ask(self.port, b"GET /readyz HTTP/1.0\r\n\r\n")
            ),
            base.PATIENCE,
            lambda: f"the monitor is ready:\n{self.read('monitor')}",
        )
        # The watcher shows by an event that it watches. It has none of what it
        # finds at its start.
        wait_for(
            self.force,
            base.PATIENCE,
            lambda: f"the watcher watches:\n{self.read('watch')}",
        )
        wait_for(
            self.is_calm,
            base.PATIENCE,
            lambda: f"the agent is calm:\n{self.read('agent')}",
        )
        self.before = {name: self.read(name) for name in self.programs}

    def is_calm(self):
        """Whether the agent has logged as many ups as downs, maybe none."""
        log = self.read("agent")
        return log.count("compute: down") == log.count("compute: up")

    def force(self):
        """Force the member down and up; return whether the watcher saw it."""
        for options, event in (((), " down node"), (("--unset",), " up node")):
            self.do("force-down", "node", *options)
            with contextlib.suppress(AssertionError):
                wait_for(lambda: event in self.read("watch"), 2)  # noqa: B023
        return " up node" in self.read("watch")

    def logged(self, program):
        """Return the lines since wait_until_known()."""
        return self.read(program)[len(self.before[program]) :].splitlines()

    def wait_until_recovered(self):
        """Wait until each program has logged that the trouble is over."""
        wait_for(
            lambda: all(
                "reachable again" in "\n".join(self.logged(name))
                for name in self.programs
            ),
            base.PATIENCE,
            self.show,
        )
        wait_for(
            lambda: (
                "is reported to the group compute again"
                in "\n".join(self.logged("agent"))
            ),
            base.PATIENCE,
            self.show,
        )

    def show(self):
        return "\n".join(
            f"-- {self.driver}, {name}:\n" + "\n".join(self.logged(name))
            for name in self.programs
        )


class LogVolumeTest(unittest.TestCase):
    """All backends are unreachable at the same time, so that it takes once."""

    def setUp(self):
        super().setUp()
        self.clouds = []
        for driver in SERVERS:
            cloud = Cloud()
            self.addCleanup(cloud.doCleanups)
            cloud.setUp()
            cloud.begin(driver)
            self.clouds.append(cloud)
        for cloud in self.clouds:
            cloud.wait_until_known()

    def test_servers_that_are_dead(self):
        self.check_outage(
            lambda server: server.kill(), lambda server: server.start(False)
        )

    @long_form
    def test_servers_that_hang(self):
        self.check_outage(
            lambda server: server.freeze(), lambda server: server.thaw()
        )

    def check_outage(self, begin, end):
        for cloud in self.clouds:
            begin(cloud.server)
        over = time.monotonic() + OUTAGE
        for cloud in self.clouds if LONG else ():
            for check in self.check_list, self.check_is_up, self.check_doctor:
                with self.subTest(cloud.driver, check=check.__name__):
                    check(cloud)
        time.sleep(max(0.0, over - time.monotonic()))
        for cloud in self.clouds:
            end(cloud.server)
        for cloud in self.clouds:
            cloud.wait_until_recovered()
        for cloud in self.clouds:
            for name in cloud.programs:
                with self.subTest(cloud.driver, program=name):
                    lines = cloud.logged(name)
                    self.assertLessEqual(len(lines), MOST, cloud.show())
                    # It did log, at the beginning and at the end.
                    self.assertGreaterEqual(len(lines), 2, cloud.show())
                    self.assertNotIn("outlasted", cloud.show())
                    cloud.check_words(cloud.show())

    def check_list(self, cloud):
        ran = cloud.nova_sg("list")
        self.assertEqual((2, ""), (ran.status, ran.out))
        self.assertEqual(1, ran.err.count("\n"), ran.err)

    def check_is_up(self, cloud):
        ran = cloud.nova_sg("is-up", "node")
        self.assertEqual((2, "unknown\n"), (ran.status, ran.out))
        self.assertEqual(1, ran.err.count("\n"), ran.err)

    def check_doctor(self, cloud):
        ran = cloud.nova_sg("doctor")
        bad = [one for one in ran.lines if one.startswith("BAD")]
        self.assertEqual((1, ""), (ran.status, ran.err))
        # One for the server and, with zk, one for the session.
        self.assertIn(len(bad), (1, 2), ran.out)
        subjects = {one.partition(": ")[0] for one in bad}
        self.assertEqual(len(bad), len(subjects), ran.out)
