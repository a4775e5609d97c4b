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

"""A migration from one backend to another, as the documentation shows it.

Agents run and are reconfigured one at a time. Meanwhile observers, with the
old configuration and with the new, ask 20 times a second for the states.
"""

import os
import signal
import subprocess
import sys
import time
import uuid

import tests
from tests.fixtures import mariadb, memcached, process, watchdog
from tests.fixtures import zookeeper as zk_fixture
from tests.fixtures.process import wait_for
from tests.processes import base

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

# Seconds: long enough for an agent to reload its files on a busy machine, and
# short enough to wait for it several times.
DOWN_TIME = 10


class Observer:
    """A process that asks for members' states, and its answers."""

    def __init__(self, case, path, hosts):
        name = case.path(f"observer-{uuid.uuid4().hex}")
        self._output = case.enterContext(open(name, "w+"))
        log = case.enterContext(open(f"{name}.log", "w"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.observer", path, *hosts],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=log,
            cwd=ROOT,
            env=case.environment,
            text=True,
        )
        watchdog.guard_process(self._process.pid)
        case.addCleanup(self._end)

    def _end(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        watchdog.release_process(self._process.pid)

    def lines(self):
        """Return (moment, host, answer), the first one first."""
        length = os.fstat(self._output.fileno()).st_size
        text = os.pread(self._output.fileno(), length, 0).decode()
        found = []
        for line in text.splitlines():
            moment, *rest = line.split()
            try:
                found.append((float(moment), *rest))
            except ValueError:
                raise AssertionError(text) from None
        return found

    def answer(self, host):
        """Return the last answer about a host."""
        answers = [rest[1] for _, *rest in self.lines() if rest[0] == host]
        return answers[-1] if answers else None

    def stop(self):
        """Have it end; return how often it has asked."""
        self._process.stdin.close()
        self._process.wait(base.PATIENCE)
        *_, (_, what, count) = self.lines()
        assert what == "asked", what
        return int(count)


class Migration:
    """One migration to ZooKeeper.

    The member "reloads" reloads its files, "restarts" is stopped and started,
    and "gone" has left before.
    """

    HOSTS = ("reloads", "restarts")

    def setUp(self):
        super().setUp()
        self.zookeeper = self.enterContext(zk_fixture.ZooKeeperServer())
        self.options = (
            f"{self.old_options()}\n"
            "[zookeeper]\n"
            f"address = {self.zookeeper.address}\n"
            "recv_timeout = 8000\n"
        )
        self.agents = {}
        self.observers = {}
        # The times of restarts, in which a host may be down.
        self.windows = []

    def write_config(self, name, primary, *secondaries):
        """Write the configuration of an agent, or of an observer."""
        return self.write(
            f"{name}.conf",
            "[DEFAULT]\n"
            f"state_path = {self.state}\n"
            "report_interval = 0.5\n"
            f"service_down_time = {DOWN_TIME}\n"
            f"servicegroup_driver = {primary}\n"
            "[servicegroup]\n"
            "view_refresh_interval = 0.2\n"
            f"secondary_drivers = {','.join(secondaries)}\n"
            f"[DEFAULT]\n{self.options}",
        )

    def start_agent(self, host):
        path = self.path(f"{host}.conf")
        agent = self.agent(host, "--config-file", path, config=False)
        agent.wait_for_log("joins the group compute by")
        self.agents[host] = agent

    def observe_by(self, name, *drivers):
        """Start an observer; wait until it sees every member up."""
        path = self.write_config(name, *drivers)
        observer = Observer(self, path, (*self.HOSTS, "gone"))
        self.observers[name] = observer
        self.wait_until_up(observer)

    def wait_until_up(self, observer, hosts=HOSTS):
        for host in hosts:
            wait_for(
                lambda host=host: observer.answer(host) == "up",
                base.PATIENCE,
                lambda host=host: f"{host} is up: {observer.lines()}",
            )

    def reconfigure(self, *drivers):
        """Reconfigure the agents for other drivers, one at a time."""
        for host in self.HOSTS:
            self.write_config(host, *drivers)
            agent = self.agents[host]
            if host == "restarts":
                begun = time.monotonic()
                agent.stop()
                self.start_agent(host)
                # The time ends once every observer knows that it is up.
                for observer in self.observers.values():
                    wait_for(
                        lambda o=observer: o.answer("restarts") == "up",
                        base.PATIENCE,
                        lambda o=observer: f"restarts is up: {o.lines()}",
                    )
                self.windows.append((begun, time.monotonic()))
            else:
                seen = agent.log.count("The configuration is reloaded")
                agent.process.send_signal(signal.SIGHUP)
                wait_for(
                    lambda a=agent, n=seen: (
                        a.log.count("The configuration is reloaded") > n
                    ),
                    base.PATIENCE,
                    lambda a=agent: f"it is reloaded:\n{a.log}",
                )
            yield host

    def check_answers(self, names):
        """End these observers; check that no answer was wrong."""
        for name in names:
            observer = self.observers.pop(name)
            self.assertGreater(observer.stop(), 20)
            wrong = [
                line for line in observer.lines() if self._is_wrong(*line)
            ]
            self.assertEqual([], wrong, f"{name}: {observer.lines()}")

    def _is_wrong(self, moment, host, answer):
        if host == "asked":
            return False
        if host == "gone":
            return answer != "down"
        if host == "restarts" and answer == "down":
            return not any(
                begun <= moment <= ended for begun, ended in self.windows
            )
        return answer != "up"

    def ask(self, name, *command):
        """Run nova-sg with an observer's configuration."""
        config = ("--config-file", self.path(f"{name}.conf"))
        return self.run_here("nova-sg", *config, *command, config=False)

    def test_no_answer_is_wrong_during_a_migration(self):
        old = self.OLD
        for host in (*self.HOSTS, "gone"):
            self.write_config(host, old)
            self.start_agent(host)
        self.agents["gone"].stop()
        self.observe_by("old", old)

        # Report to ZooKeeper, too.
        first = True
        for _ in self.reconfigure(old, "zk"):
            if first:
                self.observe_by("both", old, "zk")
                self.check_doctor_halfway()
                first = False
        result = self.ask("both", "doctor")
        self.assertEqual(0, result.status, result.out)
        self.assertIn(f"drivers {old}, zk: they agree", result.out)

        # Switch: first the services that ask, then those that report.
        self.observe_by("switched", "zk", old)
        for _ in self.reconfigure("zk", old):
            pass
        self.check_commands("switched")

        # First no service asks the old backend, then none reports to it.
        self.check_answers(["old", "both"])
        self.observe_by("new", "zk")
        for _ in self.reconfigure("zk"):
            pass
        # Afterwards all reports to the old backend are too old.
        time.sleep(DOWN_TIME)
        self.check_answers(["switched"])
        observer = self.observers["new"]
        self.wait_until_up(observer)
        for host in self.HOSTS:
            self.assertNotIn("ERROR", self.agents[host].log)
        self.agents["reloads"].kill()
        wait_for(
            lambda: observer.answer("reloads") == "down",
            base.PATIENCE,
            "a killed member is down",
        )
        lines = observer.lines()
        self.assertEqual(["reloads", "down"], list(lines[-1][1:]))
        self.assertEqual(
            [], [line for line in lines[:-1] if self._is_wrong(*line)]
        )

    def check_doctor_halfway(self):
        result = self.ask("both", "doctor")
        self.assertEqual(1, result.status, result.out)
        (bad,) = [line for line in result.lines if line.startswith("BAD")]
        self.assertIn("member restarts of compute: up by", bad)
        self.assertIn("not known to zk. It has to report to zk", bad)

    def check_commands(self, name):
        result = self.ask(name, "list", "-f", "json")
        drivers = {row["Host"]: row["Driver"] for row in result.json()}
        self.assertEqual(
            dict.fromkeys(self.HOSTS, "zk") | {"gone": self.OLD}, drivers
        )
        result = self.ask(name, "show", "reloads", "-f", "json")
        shown = result.json()
        self.assertEqual("zk", shown["Driver"])
        for driver in ("zk", self.OLD):
            self.assertTrue(shown[f"By {driver}"].startswith("up: "), shown)


class DatabaseTest(Migration, base.TestCase):
    OLD = "db"

    def old_options(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        self.write("sync.conf", f"[database]\nconnection = {url}\n")
        result = self.ask("sync", "db", "sync")
        self.assertEqual(0, result.status, result.err)
        return f"[database]\nconnection = {url}"


@tests.long_form
class MemcachedTest(Migration, base.TestCase):
    OLD = "mc"

    def old_options(self):
        server = self.enterContext(memcached.Memcached())
        return f"memcached_servers = {server.address}"
