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


"""The plugin for DevStack, phase by phase.

The scripts in devstack/, beside this module, stand in for DevStack itself.
They record the plugin's calls, write real configuration files, and run real
servers. What DevStack's own phases show (doc/source/compatibility.rst), each
driver from stack to clean, is here in the long form only.
"""

import glob
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import unittest
from unittest import mock

import sqlalchemy
from oslo_config import cfg

import tests
from nova_sg.backends.db import engine, schema
from nova_sg.conf import (
    database,
    memcache,
    service,
    servicegroup,
    zookeeper,
)
from nova_sg.nova import hook
from tests.fixtures import nova, process, watchdog

ROOT = pathlib.Path(__file__).parents[2]
PLUGIN = ROOT / "devstack"
STAND_INS = pathlib.Path(__file__).with_name("devstack")
DOC = ROOT / "doc" / "source" / "devstack.rst"

#: Seconds for one of DevStack's scripts, long enough for a busy machine.
PATIENCE = 180


class ScriptsTest(unittest.TestCase):
    SCRIPTS = (
        PLUGIN / "plugin.sh",
        PLUGIN / "settings",
        STAND_INS / "devstack.sh",
        STAND_INS / "functions.sh",
    )

    def check(self, *command):
        ran = subprocess.run(
            [*command, *self.SCRIPTS],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.assertEqual((0, ""), (ran.returncode, ran.stdout))

    def test_shellcheck_finds_nothing(self):
        self.check("shellcheck", "--external-sources")


class TestCase(unittest.TestCase):
    """A test with a folder that stands for DevStack's machine."""

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nova-sg-test-"))
        watchdog.guard_folder(str(self.folder))
        self.addCleanup(self._remove_folder)
        # As root the servers run as the user nobody, which needs access.
        self.folder.chmod(0o755)
        (self.folder / "bin").mkdir()
        self.program("exit 0")
        self.pids = {}
        self.addCleanup(self._end_servers)
        self.first = process.free_ports(10)
        self.ports = {
            "NOVA_SG_ZOOKEEPER_PORT": self.first,
            "NOVA_SG_ZOOKEEPER_PEER_PORT": self.first + 3,
            "NOVA_SG_MEMCACHED_PORT": self.first + 9,
        }

    def _remove_folder(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        watchdog.release_folder(str(self.folder))

    def _end_servers(self):
        for pid in self.pids.values():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            watchdog.release_process(pid)

    def program(self, text):
        """Have a script stand in for nova-sg, and record its calls."""
        path = self.folder / "bin" / "nova-sg"
        path.unlink(missing_ok=True)
        path.write_text(
            f'#!/bin/sh\necho nova-sg "$@" >>"{self.folder}/calls"\n{text}\n'
        )
        path.chmod(0o755)

    def real_program(self, *names):
        """Use nova-sg itself, in an environment with Nova.

        :param names: the files of /etc/nova that it checks; in the long form
            it checks all
        :returns: how many files it checks, and how many of these have a
            database
        """
        if tests.LONG:
            names = "nova.conf", "nova_cell1.conf", "nova-cpu.conf"
        scripts = os.path.dirname(nova.python())
        patterns = "|".join(f'*"/{name} "*' for name in names)
        self.program(
            f'case "$* " in {patterns}) exec "{scripts}/nova-sg" "$@" ;; esac'
        )
        # Make the cells' databases, as nova-manage would do.
        path = self.folder / "nova_cell0.sqlite"
        database = engine.Database(sqlalchemy.make_url(f"sqlite:///{path}"))
        schema.sync(database)
        database.close()
        shutil.copy(path, self.folder / "nova_cell1.sqlite")
        return len(names), len(set(names) - {"nova-cpu.conf"})

    def devstack(self, mode, status=0, localrc=""):
        """Run one of DevStack's scripts; return what it printed.

        :param localrc: lines, or a mapping of variables
        """
        if not isinstance(localrc, str):
            # Three servers of Java start at once, on a machine that may be
            # busy.
            patience = {"NOVA_SG_START_TIMEOUT": PATIENCE - 30}
            lines = {**patience, **self.ports, **localrc}.items()
            localrc = "\n".join(f"{name}='{value}'" for name, value in lines)
        (self.folder / "localrc").write_text(localrc + "\n")
        self.calls_file.write_text("")
        # A file, because a started server may keep a pipe open.
        with open(self.folder / "output", "w+") as output:
            ran = subprocess.run(
                [STAND_INS / "devstack.sh", mode, self.folder],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                cwd=self.folder,
                env={k: os.environ[k] for k in ("PATH",)}
                | {"HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
            )
            output.seek(0)
            text = output.read()
        for path in glob.glob(f"{self.folder}/pids/*"):
            name = os.path.basename(path)
            self.pids[name] = int(pathlib.Path(path).read_text())
            watchdog.guard_process(self.pids[name])
        self.assertEqual(status, ran.returncode, text)
        ended = self.calls()[-1:] == [f"end of {mode}"]
        self.assertEqual(status == 0, ended, text)
        return text

    @property
    def calls_file(self):
        return self.folder / "calls"

    def calls(self, *names):
        """Return the recorded calls, all or of these functions, in order."""
        return [
            line
            for line in self.calls_file.read_text().splitlines()
            if not names or line.split()[0] in names
        ]

    def conf(self, *names):
        """Return the options that a service reads from files of /etc/nova."""
        conf = cfg.ConfigOpts()
        conf.register_opts([cfg.StrOpt("host"), *memcache.DEFAULT_OPTS])
        conf.register_opts(service.SERVICE_OPTS)
        conf.register_opts(servicegroup.DEFAULT_OPTS)
        conf.register_opts(zookeeper.ZOOKEEPER_OPTS, group="zookeeper")
        conf.register_opts(database.DATABASE_OPTS, group="database")
        files = [str(self.folder / "etc" / "nova" / name) for name in names]
        # The source must not change this process when it is opened.
        with mock.patch.object(hook, "install") as install:
            conf([w for name in files for w in ("--config-file", name)])
        self.switched_on = install.called
        return conf

    def assert_on(self, conf, driver):
        self.assertTrue(self.switched_on)
        self.assertEqual(driver, conf.servicegroup_driver)

    def assert_stock(self):
        """Check that Nova's files are as without the plugin."""
        stock = self.folder / "stock"
        for path in stock.iterdir():
            now = self.folder / "etc" / "nova" / path.name
            self.assertEqual(path.read_text(), now.read_text(), path.name)
        for path in (self.folder / "etc" / "nova").iterdir():
            with self.subTest(path.name):
                self.assertNotIn("nova_sg", path.read_text())
                self.assertNotIn("servicegroup_driver", path.read_text())
                self.assertNotIn("memcached_servers", path.read_text())
                self.assertNotIn("zookeeper", path.read_text())

    def is_running(self, service):
        """Whether a server that the plugin started is running."""
        try:
            with open(f"/proc/{self.pids[service]}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False


class DbTest(TestCase):
    def test_stack(self):
        self.devstack(
            "stack",
            localrc={
                "NOVA_NUM_CELLS": 2,
                "NUMBER_FAKE_NOVA_COMPUTE": 3,
                "NOVA_SERVICE_REPORT_INTERVAL": 30,
            },
        )
        for check in (
            self.check_every_file_asks_for_the_driver,
            self.check_all_agree_on_the_times,
            self.check_nothing_is_run_or_installed_but_the_package,
            self.check_what_devstack_writes_beside_it_is_waited_for,
            self.check_the_result_is_checked,
        ):
            with self.subTest(check.__name__):
                check()

    def check_every_file_asks_for_the_driver(self):
        for names in (
            ["nova.conf"],
            ["nova_cell1.conf"],
            ["nova_cell2.conf"],
            *(["nova-cpu.conf", f"nova-fake.conf-{n}"] for n in (1, 2, 3)),
        ):
            with self.subTest(names):
                self.assert_on(self.conf(*names), "db")

    def check_all_agree_on_the_times(self):
        for name in ("nova.conf", "nova_cell2.conf", "nova-cpu.conf"):
            conf = self.conf(name)
            self.assertEqual(30, conf.report_interval, name)
            self.assertEqual(180, conf.service_down_time, name)

    def check_nothing_is_run_or_installed_but_the_package(self):
        self.assertEqual([], self.calls("install_package", "run_process"))
        self.assertEqual(
            [f"setup_develop {ROOT} in {self.folder}/opt/stack/data/venv"],
            self.calls("setup_develop"),
        )

    def check_what_devstack_writes_beside_it_is_waited_for(self):
        calls = self.calls()
        waited = calls.index("async_wait configure_neutron_nova")
        self.assertLess(calls.index("phase stack post-config"), waited)
        # The folder of the checkout may have any name.
        first = min(
            number
            for number, line in enumerate(calls)
            if line.startswith("iniset ") and "nova_sg" in line
        )
        self.assertLess(waited, first)

    def check_the_result_is_checked(self):
        etc = f"{self.folder}/etc/nova"
        self.assertEqual(
            [
                f"nova-sg nova status {etc}/nova.conf",
                f"nova-sg --config-file {etc}/nova.conf doctor",
                f"nova-sg nova status {etc}/nova_cell1.conf",
                f"nova-sg --config-file {etc}/nova_cell1.conf doctor",
                f"nova-sg nova status {etc}/nova_cell2.conf",
                f"nova-sg --config-file {etc}/nova_cell2.conf doctor",
                f"nova-sg nova status {etc}/nova-cpu.conf",
            ],
            self.calls("nova-sg"),
        )

    def test_the_package_goes_where_nova_is(self):
        own = {"GLOBAL_VENV": "False"}
        self.devstack("stack", localrc=own)
        self.assertEqual(
            [f"setup_develop {ROOT} in "], self.calls("setup_develop")
        )
        self.devstack("stack", localrc=own | {"PROJECT_VENV[nova]": "/v/nova"})
        self.assertEqual(
            [f"setup_develop {ROOT} in /v/nova"], self.calls("setup_develop")
        )
        self.devstack("clean", localrc=own | {"PROJECT_VENV[nova]": "/v/nova"})
        self.assertEqual(
            ["pip_uninstall nova-sg in /v/nova"], self.calls("pip_uninstall")
        )

    def test_a_bad_result_ends_stack_sh(self):
        for condition, words in (
            ('[ "$2" != status ]', "Nova does not use nova_sg with"),
            ('[ "$3" != doctor ]', "nova-sg doctor finds faults with"),
        ):
            with self.subTest(words):
                self.program(condition)
                text = self.devstack("stack", status=1, localrc={})
                self.assertIn(words, text)
                self.assertIn("lines that begin with BAD", text)

    @tests.long_form
    def test_nova_sgs_own_checks_agree(self):
        files, databases = self.real_program("nova.conf", "nova-cpu.conf")
        text = self.devstack("stack", localrc={})
        self.assertEqual(files, text.count("nova_sg is on: driver db"), text)
        self.assertEqual(databases, text.count("driver db: in use"), text)
        self.devstack("unstack", localrc={})
        text = self.status("nova.conf")
        self.assertIn("nova_sg is off, or not ready", text)

    def status(self, name):
        return subprocess.run(
            [
                self.folder / "bin" / "nova-sg",
                *("nova", "status", self.folder / "etc" / "nova" / name),
            ],
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def test_other_sources_of_configuration_stay(self):
        other = {"CONFIG_SOURCE": "vault, site"}
        self.devstack("stack", localrc=other)
        path = self.folder / "etc" / "nova" / "nova.conf"
        self.assertIn("config_source = vault,site,nova_sg\n", path.read_text())
        self.devstack("unstack", localrc=other)
        self.assertIn("config_source = vault,site\n", path.read_text())
        self.assertNotIn("nova_sg", path.read_text())

    def test_a_node_without_nova_is_left_alone(self):
        localrc = {"ENABLED_SERVICES": "key,mysql"}
        self.devstack("stack", localrc=localrc)
        self.devstack("unstack", localrc=localrc)
        self.assertEqual([], list((self.folder / "etc" / "nova").iterdir()))
        self.assertEqual([], self.calls("stop_nova"))


class UndoTest(TestCase):
    def test_unstack_gives_the_files_back(self):
        for driver in ("db", "mc", "zk"):
            with self.subTest(driver):
                localrc = {
                    "NOVA_SG_DRIVER": driver,
                    "NOVA_SG_MEMCACHED_SERVERS": "192.0.2.1:11211",
                    "NOVA_SG_ZOOKEEPER_ADDRESS": "192.0.2.1:2181",
                    "NOVA_NUM_CELLS": 2,
                    "NUMBER_FAKE_NOVA_COMPUTE": 3,
                }
                self.devstack("stack", localrc=localrc)
                self.assert_on(self.conf("nova_cell2.conf"), driver)
                # Also after local.conf has changed.
                self.devstack("unstack", localrc={})
                self.assert_stock()
                self.devstack("unstack", localrc=localrc)
                self.assert_stock()

    def test_unstack_before_stack_does_nothing(self):
        self.devstack("unstack", localrc={"NOVA_SG_DRIVER": "zk"})
        self.devstack("clean", localrc={"NOVA_SG_DRIVER": "zk"})

    def test_wrong_values_do_not_prevent_unstack(self):
        self.devstack("stack", localrc={})
        wrong = {
            "NOVA_SG_DRIVER": "etcd",
            "NOVA_SG_ZOOKEEPER_SERVERS": "many",
            "NOVA_SG_ZOOKEEPER_PORT": "first",
        }
        self.devstack("unstack", localrc=wrong)
        self.assert_stock()
        self.devstack("clean", localrc=wrong)
        self.assertTrue(self.calls("pip_uninstall"))

    def test_clean_removes_what_was_not_there_before(self):
        (self.folder / "installed").write_text("default-jre-headless\n")
        zk = {"NOVA_SG_DRIVER": "zk", "DISABLED_SERVICES": "nova-sg-zk-1"}
        address = {"NOVA_SG_ZOOKEEPER_ADDRESS": "192.0.2.1:2181"}
        self.devstack("stack", localrc=zk | address)
        self.assertEqual(
            ["install_package libzookeeper-mt2"], self.calls("install_package")
        )
        # A second time, after the plugin itself has made the file.
        self.devstack("stack", localrc=zk | address)
        self.assertEqual([], self.calls("install_package"))
        self.devstack("clean", localrc=zk)
        self.assertEqual(
            ["uninstall_package libzookeeper-mt2"],
            self.calls("uninstall_package"),
        )
        data = self.folder / "opt" / "stack" / "data"
        self.assertEqual([], list(data.iterdir()))


class McTest(TestCase):
    @tests.long_form
    def test_a_memcached_of_its_own(self):
        files, databases = self.real_program("nova.conf")
        localrc = {"NOVA_SG_DRIVER": "mc", "NUMBER_FAKE_NOVA_COMPUTE": 2}
        text = self.devstack("stack", localrc=localrc)
        address = f"127.0.0.1:{self.first + 9}"
        self.assertEqual(
            ["install_package memcached"], self.calls("install_package")
        )
        for names in (
            ["nova.conf"],
            ["nova_cell1.conf"],
            ["nova-cpu.conf", "nova-fake.conf-2"],
        ):
            conf = self.conf(*names)
            self.assert_on(conf, "mc")
            self.assertEqual([address], conf.memcached_servers)
        # Nova finds it when it starts, and nova_sg agrees.
        calls = [line.partition(" /")[0] for line in self.calls()]
        self.assertLess(
            calls.index("run_process nova-sg-memcached"),
            calls.index("start_nova"),
        )
        self.assertEqual(files, text.count("nova_sg is on: driver mc"), text)
        self.assertEqual(
            databases, text.count(f"memcached {address}: reachable"), text
        )
        self.assertTrue(self.is_running("nova-sg-memcached"))

        self.devstack("unstack", localrc=localrc)
        self.assertFalse(self.is_running("nova-sg-memcached"))
        self.assert_stock()

    def test_servers_elsewhere(self):
        servers = "192.0.2.1:11211,inet6:[2001:db8::1]:11211,unix:/run/mc"
        self.devstack(
            "stack",
            localrc={
                "NOVA_SG_DRIVER": "mc",
                "NOVA_SG_MEMCACHED_SERVERS": servers,
            },
        )
        self.assertEqual([], self.calls("install_package", "run_process"))
        self.assertEqual(
            servers.split(","), self.conf("nova.conf").memcached_servers
        )

    def test_a_node_without_the_api_asks_the_one_that_has_it(self):
        for host, server in (
            ("192.0.2.1", "192.0.2.1:11212"),
            ("[2001:db8::1]", "inet6:[2001:db8::1]:11212"),
        ):
            self.devstack(
                "stack",
                localrc={
                    "NOVA_SG_DRIVER": "mc",
                    "NOVA_SG_MEMCACHED_PORT": "11212",
                    "ENABLED_SERVICES": "n-cpu",
                    "SERVICE_HOST": host,
                },
            )
            self.assertEqual([], self.calls("install_package", "run_process"))
            self.assertEqual(
                [server], self.conf("nova.conf").memcached_servers
            )

    def test_a_port_in_use_is_refused(self):
        with process_on(self.first + 9):
            text = self.devstack(
                "stack", status=1, localrc={"NOVA_SG_DRIVER": "mc"}
            )
        self.assertIn(f"listens on port {self.first + 9} already", text)
        self.assertIn("set NOVA_SG_MEMCACHED_PORT to another port", text)

    def test_a_server_that_does_not_start_is_an_error(self):
        text = self.devstack(
            "stack",
            status=1,
            localrc={
                "NOVA_SG_DRIVER": "mc",
                # An address that this machine does not have.
                "SERVICE_LISTEN_ADDRESS": "192.0.2.1",
                "NOVA_SG_START_TIMEOUT": "1",
            },
        )
        self.assertIn("nova-sg-memcached does not answer at 127.0.0.1", text)
        self.assertIn("journalctl --unit devstack@nova-sg-memcached", text)


class ZkTest(TestCase):
    @tests.long_form
    def test_three_servers(self):
        files, databases = self.real_program("nova.conf")
        localrc = {
            "NOVA_SG_DRIVER": "zk",
            "NOVA_SG_ZOOKEEPER_SERVERS": 3,
            "NUMBER_FAKE_NOVA_COMPUTE": 2,
        }
        text = self.devstack("stack", localrc=localrc)
        services = [f"nova-sg-zk-{number}" for number in (1, 2, 3)]
        address = ",".join(f"127.0.0.1:{self.first + n}" for n in range(3))
        self.assertEqual(
            [
                "install_package libzookeeper-mt2 libzookeeper-java "
                "default-jre-headless"
            ],
            self.calls("install_package"),
        )
        for names in (
            ["nova.conf"],
            ["nova_cell1.conf"],
            ["nova-cpu.conf", "nova-fake.conf-2"],
        ):
            conf = self.conf(*names)
            self.assert_on(conf, "zk")
            self.assertEqual(address, conf.zookeeper.address)
        self.assertEqual(files, text.count("nova_sg is on: driver zk"), text)
        # nova-sg doctor has found all servers, and the leader.
        modes = re.findall(r"ok  ZooKeeper server \S+: (\w+)", text)
        self.assertEqual(
            ["follower"] * 2 * databases + ["leader"] * databases,
            sorted(modes),
            text,
        )
        self.assertTrue(all(map(self.is_running, services)))
        data = self.folder / "opt" / "stack" / "data" / "nova-sg"
        for number in (1, 2, 3):
            written = (data / f"zk-{number}" / "zoo.cfg").read_text()
            # So that any number of computes can connect from one address.
            self.assertIn("\nmaxClientCnxns=0\n", written)

        # They are ended although local.conf has another driver now.
        self.devstack("unstack", localrc={"NOVA_SG_DRIVER": "mc"})
        self.assertEqual(
            ["stop_nova", *(f"stop_process {one}" for one in services)],
            self.calls("stop_nova", "stop_process"),
        )
        self.assertFalse(any(map(self.is_running, services)))
        self.assert_stock()
        self.devstack("clean", localrc=localrc)
        self.assertFalse(data.exists())

    def test_one_server_that_forgets(self):
        localrc = {"NOVA_SG_DRIVER": "zk"}
        self.devstack("stack", localrc=localrc)
        address = f"127.0.0.1:{self.first}"
        self.assertEqual(address, self.conf("nova.conf").zookeeper.address)
        srvr = process.ask(self.first, b"srvr").decode()
        self.assertIn("Mode: standalone", srvr)
        before = self.pids["nova-sg-zk-1"]
        data = self.folder / "opt" / "stack" / "data" / "nova-sg" / "zk-1"
        (data / "data" / "old").write_text("")
        # A second time, without unstack.sh in between.
        self.devstack("stack", localrc=localrc)
        self.assertNotEqual(before, self.pids["nova-sg-zk-1"])
        self.assertTrue(self.is_running("nova-sg-zk-1"))
        self.assertFalse((data / "data" / "old").exists())
        (run,) = self.calls("run_process")
        self.devstack("unstack", localrc=localrc)
        self.check_a_clean_end(run.split()[2:])

    def check_a_clean_end(self, command):
        """Check that a server ends as systemd expects after a SIGTERM."""
        server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        process.wait_for(
            lambda: b"Mode: " in process.ask(self.first, b"srvr"), PATIENCE
        )
        server.terminate()
        # Any status but 0 would be a failure of the unit.
        self.assertEqual(-signal.SIGTERM, server.wait(PATIENCE))

    def test_servers_elsewhere(self):
        for given, taken in (
            ("192.0.2.1:2181,192.0.2.2:2181/nova", None),
            ("zk-1.example:2181", None),
            ("[2001:db8::1]:2181", "2001:db8::1:2181"),
        ):
            with self.subTest(given):
                (self.folder / "installed").unlink(missing_ok=True)
                self.devstack(
                    "stack",
                    localrc={
                        "NOVA_SG_DRIVER": "zk",
                        "NOVA_SG_ZOOKEEPER_ADDRESS": given,
                    },
                )
                self.assertEqual([], self.calls("run_process"))
                self.assertEqual(
                    ["install_package libzookeeper-mt2"],
                    self.calls("install_package"),
                )
                self.assertEqual(
                    taken or given, self.conf("nova.conf").zookeeper.address
                )

    def test_a_node_without_the_api_asks_the_one_that_has_it(self):
        self.devstack(
            "stack",
            localrc={
                "NOVA_SG_DRIVER": "zk",
                "NOVA_SG_ZOOKEEPER_SERVERS": 3,
                "NOVA_SG_ZOOKEEPER_PORT": 2181,
                "NOVA_SG_ZOOKEEPER_PEER_PORT": 2888,
                "ENABLED_SERVICES": "n-cpu",
                "SERVICE_HOST": "192.0.2.1",
            },
        )
        self.assertEqual([], self.calls("run_process"))
        self.assertEqual(
            "192.0.2.1:2181,192.0.2.1:2182,192.0.2.1:2183",
            self.conf("nova-cpu.conf", "nova-fake.conf-1").zookeeper.address,
        )


class VariablesTest(TestCase):
    def refused(self, *words, **variables):
        with self.subTest(**variables):
            text = self.devstack("stack", status=1, localrc=variables)
            for word in words:
                self.assertIn(word, text)
            # It is refused before anything is done.
            self.assertEqual(
                ["define_plugin nova-sg", "phase stack pre-install"],
                self.calls(),
            )

    def test_an_unknown_driver_is_refused(self):
        for value in ("etcd", "ZK", "db mc"):
            self.refused(
                f"NOVA_SG_DRIVER={value} is not a driver",
                "set it to db, mc or zk",
                NOVA_SG_DRIVER=value,
            )

    def test_a_wrong_number_of_servers_is_refused(self):
        for value in ("2", "0", "three", "5"):
            self.refused(
                f"NOVA_SG_ZOOKEEPER_SERVERS={value}",
                "set it to 1 or 3",
                NOVA_SG_ZOOKEEPER_SERVERS=value,
            )

    def test_wrong_ports_are_refused(self):
        for name in self.ports:
            for value in ("zero", "0", "65536", "-1", "021", "2181 "):
                self.refused(
                    f"{name}={value} is not a port",
                    "set it to a number from 1 to",
                    **{name: value},
                )
        self.refused(
            "NOVA_SG_ZOOKEEPER_PORT=65534 is not a port: set it to a number "
            "from 1 to 65533",
            NOVA_SG_ZOOKEEPER_SERVERS="3",
            NOVA_SG_ZOOKEEPER_PORT="65534",
        )

    def test_ports_that_overlap_are_refused(self):
        for peer in (2176, 2181, 2183):
            self.refused(
                f"NOVA_SG_ZOOKEEPER_PEER_PORT={peer}",
                "NOVA_SG_ZOOKEEPER_PORT=2181: move one of them",
                NOVA_SG_ZOOKEEPER_SERVERS="3",
                NOVA_SG_ZOOKEEPER_PORT="2181",
                NOVA_SG_ZOOKEEPER_PEER_PORT=peer,
            )

    def test_wrong_addresses_are_refused(self):
        for value in (
            "192.0.2.1",
            "192.0.2.1:2181, 192.0.2.2:2181",
            "192.0.2.1:2181,",
            "zk://192.0.2.1:2181",
        ):
            self.refused(
                f"NOVA_SG_ZOOKEEPER_ADDRESS={value}",
                "write HOST:PORT",
                "remove it",
                NOVA_SG_ZOOKEEPER_ADDRESS=value,
            )
        for value in ("192.0.2.1", "unix:run/mc", "<None>", "[::1]:x"):
            self.refused(
                f"NOVA_SG_MEMCACHED_SERVERS: {value} is not a server",
                "write HOST:PORT",
                "remove it",
                NOVA_SG_MEMCACHED_SERVERS=value,
            )

    def test_a_system_without_the_packages_is_refused(self):
        self.refused(
            "NOVA_SG_DRIVER=zk needs ZooKeeper's C client library",
            "set NOVA_SG_DRIVER to mc or db",
            NOVA_SG_DRIVER="zk",
            os_PACKAGE="rpm",
        )

    def test_every_variable_is_explained(self):
        settings = (PLUGIN / "settings").read_text()
        names = set(re.findall(r"^(NOVA_SG_\w+)=\$\{\1:-", settings, re.M))
        self.assertLess({"NOVA_SG_DRIVER", *self.ports}, names)
        readme = (PLUGIN / "README.rst").read_text()
        explained = set(re.findall(r"^``(NOVA_SG_\w+)``", readme, re.M))
        self.assertEqual(names, explained)


class ExampleTest(TestCase):
    """The local.conf of the documentation, unchanged."""

    def test_many_fake_computes(self):
        blocks = re.findall(
            r"\n\.\. code-block:: ini\n\n((?:   .*\n|\n)+)", DOC.read_text()
        )
        example = textwrap.dedent(blocks[0])
        header, _, localrc = example.partition("\n")
        self.assertEqual("[[local|localrc]]", header)
        computes = int(
            re.search(r"^NUMBER_FAKE_NOVA_COMPUTE=(\d+)$", localrc, re.M)[1]
        )
        self.assertGreater(computes, 20)
        # With ports that no other test uses.
        localrc += "".join(f"\n{n}={port}" for n, port in self.ports.items())
        self.devstack("stack", localrc=localrc)
        self.assertIn("enable_plugin nova-sg ", self.calls_file.read_text())
        hosts = set()
        for number in range(1, computes + 1):
            conf = self.conf("nova-cpu.conf", f"nova-fake.conf-{number}")
            self.assert_on(conf, "zk")
            self.assertEqual(3, len(conf.zookeeper.address.split(",")))
            self.assertIsNone(conf.database.connection)
            hosts.add(conf.host)
        self.assertEqual(computes, len(hosts))
        self.devstack("unstack", localrc=localrc)
        self.assert_stock()


def process_on(port):
    """Have a process listen on a port until it is closed."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener
