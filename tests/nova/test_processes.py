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


"""The processes of a real Nova: forks, imports, tools, and switching off."""

import os
import resource
import subprocess
import time

from tests.fixtures import novarig, process
from tests.fixtures.novarig import cloud as novarig_cloud
from tests.fixtures.novarig import site as novarig_site
from tests.nova import base

LIVING = "nova-compute=True nova-conductor=True nova-scheduler=True"


class Processes:
    """Tests on one Nova with several workers everywhere."""

    SETTINGS = {
        "workers": 2,
        "server": "uwsgi",
        # So that the next report does not make up for a wrong word at once.
        "report_interval": 4,
        "service_down_time": 10,
    }

    def _api_objects(self, mode):
        return base.run_script(
            "api_objects.py",
            OS_NOVA_CONFIG_DIR=self.cloud.site.folder,
            OS_NOVA_CONFIG_FILES="api-paste.ini;api.conf",
            **base.mode_variable(mode),
        )

    def test_api_objects(self):
        """What nova-api makes hundreds of, costs next to nothing."""
        for mode in novarig_cloud.MODES:
            with self.subTest(mode):
                found = self._api_objects(mode)
                self.assertEqual("nova_sg.nova.api", found["module"])
                self.assertGreater(found["objects"], 400)
                self.assertEqual(mode == "eventlet", found["eventlet"])
                # Of CPU time.
                self.assertLess(found["microseconds"], 100)
                # Connects to nothing, starts nothing.
                self.assertEqual(found["before"], found["constructed"])
                self.assertEqual([LIVING], found["up"])
                self.assertEqual(0, found["statements"])
                self.assertEqual(1, found["shared"])
                more = (
                    found["asked"]["sockets"] - found["constructed"]["sockets"]
                )
                # One client for all of them: a connection a memcached
                # server, or one session; one to tell of the database.
                self.assertLessEqual(
                    more, {"db": 1, "mc": 3, "zk": 3}[self.DRIVER]
                )
                self.assertEqual(LIVING, found["child"])

    def test_every_worker_of_the_api_answers(self):
        cloud = self.cloud
        workers = base.family(cloud.api.pid)[1:]
        self.assertGreaterEqual(len(workers), 2)
        busy = [_cpu(pid) for pid in workers]

        def all_were_asked():
            self.assertEqual(
                {"up"}, set(cloud.states("nova-compute").values())
            )
            return all(
                _cpu(pid) > before
                for pid, before in zip(workers, busy, strict=True)
            )

        process.wait_for(all_were_asked, message="all workers have been asked")

    def test_up_while_one_worker_lives(self):
        cloud = self.cloud
        for service, binary in (
            (cloud.conductor, "nova-conductor"),
            (cloud.scheduler, "nova-scheduler"),
        ):
            with self.subTest(binary):
                first, *_ = self._workers(service)
                # One that is silent, and one that is told to go.
                os.kill(first, 19)
                try:
                    self.assert_stays(
                        "up", [binary], cloud.service_down_time + 3
                    )
                finally:
                    os.kill(first, 18)
                # Nobody starts another in its place for the time being.
                service.freeze()
                os.kill(first, 15)
                try:
                    self.assert_stays("up", [binary], 8)
                finally:
                    service.thaw()
                service.stop()
                took = cloud.wait_for_state(binary, "down")
                # By its silence it would be longer.
                self.assertLess(took, cloud.service_down_time - 4 - 0.5)

    def _workers(self, service):
        def two():
            found = base.family(service.pid)[1:]
            return found if len(found) >= 2 else None

        return process.wait_for(two, message="there are two workers")

    def test_answers_have_the_shape_of_stock(self):
        cloud = self.cloud
        cloud.configure("stock", "stock")
        # configure() takes any name: that of a second API, here.
        stock = self.enterContext(cloud.make_api("stock"))
        for path in (
            "/os-services",
            "/os-hypervisors/detail",
            "/os-availability-zone/detail",
        ):
            self.assertEqual(
                _shape(cloud.get(path, stock)), _shape(cloud.get(path)), path
            )

    def test_tools_are_not_disturbed(self):
        cloud = self.cloud
        cloud.configure("stock", "stock")
        for tool in (
            ("nova-manage", "cell_v2", "list_hosts"),
            ("nova-status", "upgrade", "check"),
            ("oslopolicy-list-redundant", "--namespace", "nova"),
        ):
            with self.subTest(tool):
                program, *rest = tool
                ours, stock = (
                    self._tool(
                        program, "--config-file", cloud.config(name), *rest
                    )
                    for name in ("conductor", "stock")
                )
                self.assertEqual(stock, ours)

    def _tool(self, *command):
        done = subprocess.run(
            [self.cloud.site.program(command[0]), *command[1:]],
            capture_output=True,
            text=True,
            env=novarig_site.clean_environment(),
            timeout=120,
        )
        return done.returncode, done.stdout


base.make_variants(
    globals(),
    Processes,
    [
        ("db", "threads", False),
        ("db", "eventlet", False),
        ("mc", "threads", True),
        ("mc", "eventlet", False),
        ("zk", "threads", False),
        ("zk", "eventlet", False),
    ],
)


class Forks:
    """An API whose workers fork, with zk's client and all its threads."""

    DRIVER = "zk"

    test_every_worker_of_the_api_answers = (
        Processes.test_every_worker_of_the_api_answers
    )


class ForkTest(Forks, base.CloudTestCase):
    """It is loaded before they fork."""

    # The hard way: nothing runs green threads between two requests.
    MODE = "eventlet"
    SETTINGS = {"server": "uwsgi"}

    def test_an_idle_worker_knows(self):
        cloud = self.cloud
        workers = base.family(cloud.api.pid)[1:]
        cloud.compute.kill()
        time.sleep(cloud.service_down_time)
        busy = [_cpu(pid) for pid in workers]
        while any(
            _cpu(pid) == before
            for pid, before in zip(workers, busy, strict=True)
        ):
            self.assertEqual(
                {"down"}, set(cloud.states("nova-compute").values())
            )


if base.LONG:

    class LazyTest(Forks, base.CloudTestCase):
        """Each of them loads it by itself."""

        SETTINGS = {"server": "uwsgi-lazy"}


class ImportTest(base.unittest.TestCase):
    """When what is imported."""

    def setUp(self):
        super().setUp()
        self.cloud = novarig.Cloud(base.site(), "stock")

    def _first_parse(self, driver, mode):
        self.cloud.mode = mode
        path = self.cloud.configure(f"first-{driver}", driver)
        return base.run_script("first_parse.py", "--config-file", path)

    def test_before_novas_decision(self):
        for mode, name in (("threads", "threading"), ("eventlet", "eventlet")):
            stock = self._first_parse("stock", mode)
            ours = self._first_parse("mc", mode)
            self.assertEqual([name, name], [stock["mode"], ours["mode"]])
            more = {
                module.partition(".")[0]
                for module in set(ours["modules"]) - set(stock["modules"])
            }
            self.assertIn("nova_sg", more)
            self.assertFalse(
                more & {"nova", "eventlet", "urllib3", "oslo_context"}, more
            )
            # Whoever patches warns of them.
            self.assertNotIn("oslo_config.sources._uri", ours["modules"])
            self.assertIn("nova_sg.nova.hook", ours["modules"])
            self.assertNotIn("nova_sg.nova.api", ours["modules"])

    def test_switched_off_it_is_not_there(self):
        self.cloud.configure("api", "stock")
        self.cloud.make_api("api")
        found = base.run_script(
            "api_objects.py",
            OS_NOVA_CONFIG_DIR=base.site().folder,
            OS_NOVA_CONFIG_FILES="api-paste.ini;api.conf",
            **base.mode_variable("threads"),
        )
        self.assertEqual("nova.servicegroup.api", found["module"])
        self.assertFalse(found["imported"])

    def test_other_processes_start_as_fast(self):
        """With the .pth file, the least of many starts."""
        python = base.site().python
        tool = base.site().program("nova-sg")
        program = [
            python,
            "-c",
            "import sys; assert 'nova' not in sys.modules",
        ]
        without = with_it = float("inf")
        # By turns: a busy machine is slower for all of one's CPU time, too.
        for _ in range(4):
            self._run(tool, "nova", "disable")
            without = min(without, self._starts(program))
            self._run(tool, "nova", "enable")
            try:
                with_it = min(with_it, self._starts(program))
            finally:
                self._run(tool, "nova", "disable")
        print(
            f"start of a process: {without * 1e3:.1f} ms, with the .pth file "
            f"{with_it * 1e3:.1f} ms"
        )
        self.assertLess(with_it - without, 0.005)

    @staticmethod
    def _run(*command):
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            env=novarig_site.clean_environment(),
        )

    @classmethod
    def _starts(cls, program):
        # CPU time: what else the machine does is not counted.
        def used():
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime

        least = float("inf")
        for _ in range(10):
            before = used()
            cls._run(*program)
            least = min(least, used() - before)
        return least


def _cpu(pid):
    """Return the CPU time that a process has used, in clock ticks."""
    with open(f"/proc/{pid}/stat") as stat:
        columns = stat.read().rpartition(")")[2].split()
    return int(columns[11]) + int(columns[12])


def _shape(answer):
    """Return an answer without its values: keys and types."""
    if isinstance(answer, dict):
        return {key: _shape(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return sorted(map(repr, map(_shape, answer)))
    # Reports bring a time where there was none.
    return "" if answer is None or isinstance(answer, str) else type(answer)
