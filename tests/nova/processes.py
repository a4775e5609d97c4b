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


"""Tests of the processes of a real Nova: workers, forks, and tools."""

import os
import signal
import subprocess
import time

import tests
from tests.fixtures import nova, process
from tests.fixtures.novarig import cloud as novarig_cloud
from tests.fixtures.novarig import proc
from tests.fixtures.novarig import site as novarig_site
from tests.nova import base

LIVING = "nova-compute=True nova-conductor=True nova-scheduler=True"


class Processes:
    """Tests on one Nova with several workers everywhere."""

    SETTINGS = {
        "workers": 2,
        "server": "uwsgi",
        # Long, so that the next report does not hide a wrong state at once.
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
        """nova-api makes hundreds of API objects, so they must be cheap."""
        for mode in novarig_cloud.MODES if tests.LONG else [self.MODE]:
            with self.subTest(mode):
                found = self._api_objects(mode)
                self.assertEqual("nova_sg.nova.api", found["module"])
                self.assertGreater(found["objects"], 400)
                self.assertEqual(mode == "eventlet", found["eventlet"])
                # It is CPU time.
                self.assertLess(found["microseconds"], 100)
                # It makes no connection and starts no thread.
                self.assertEqual(found["before"], found["constructed"])
                self.assertEqual([LIVING], found["up"])
                self.assertEqual(0, found["statements"])
                self.assertEqual(1, found["shared"])
                more = (
                    found["asked"]["sockets"] - found["constructed"]["sockets"]
                )
                # All of them share one client: a connection for each
                # memcached server, or one session; and one socket for the
                # database.
                self.assertLessEqual(
                    more, {"db": 1, "mc": 3, "zk": 3}[self.DRIVER]
                )
                self.assertEqual(LIVING, found["child"])

    def test_every_worker_of_the_api_answers(self):
        self.assertGreaterEqual(len(self.cloud.api_workers), 2)
        self.assert_every_worker_lists("up")

    def test_up_while_one_worker_lives(self):
        cloud = self.cloud
        services = [cloud.conductor, cloud.scheduler]
        binaries = ["nova-conductor", "nova-scheduler"]
        firsts = [self._workers(service)[0] for service in services]
        # One worker of each service is suspended, and then stopped.
        for first in firsts:
            os.kill(first, signal.SIGSTOP)
        try:
            self.assert_stays("up", binaries, cloud.service_down_time + 3)
        finally:
            for first in firsts:
                os.kill(first, signal.SIGCONT)
        # The services are suspended, so that they start no other worker.
        for service in services:
            service.freeze()
        for first in firsts:
            os.kill(first, signal.SIGTERM)
        try:
            self.assert_stays("up", binaries, 8)
        finally:
            for service in services:
                service.thaw()
        # If it were known by their silence, it would take longer.
        silence = cloud.service_down_time - cloud.report_interval
        for service, binary in zip(services, binaries, strict=True):
            with self.subTest(binary):
                service.stop()
                took = cloud.wait_for_state(binary, "down")
                self.assertLess(took, silence - 0.5)

    def _workers(self, service):
        def two():
            found = proc.family(service.pid)[1:]
            return found if len(found) >= 2 else None

        return process.wait_for(two, message="there are two workers")

    def test_answers_have_the_shape_of_stock_novas(self):
        cloud = self.cloud
        cloud.configure("stock", "stock")
        # configure() takes any name, such as that of a second API.
        stock = self.enterContext(cloud.make_api("stock"))
        for path in (
            "/os-services",
            "/os-hypervisors/detail",
            "/os-availability-zone/detail",
        ):
            self.assertEqual(
                _shape(cloud.get(path, stock)), _shape(cloud.get(path)), path
            )

    def test_a_tool_is_not_disturbed(self):
        status, output = self._tool(
            "nova-manage",
            *("--config-file", self.cloud.config("conductor")),
            *("cell_v2", "list_cells"),
        )
        self.assertEqual(0, status, output)
        self.assertIn(" cell1 ", output)

    @tests.long_form
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
        done = nova.run(
            [self.cloud.site.program(command[0]), *command[1:]],
            novarig_site.clean_environment(self.cloud.site.folder),
            errors=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout


class Forks:
    """Tests of an API with forked workers."""

    test_every_worker_of_the_api_answers = (
        Processes.test_every_worker_of_the_api_answers
    )

    def test_an_idle_worker_of_the_api_answers(self):
        cloud = self.cloud
        cloud.compute.kill()
        # Nothing may ask meanwhile. ZooKeeper ends a session by its own timer.
        time.sleep(cloud.service_down_time + base.SLACK)
        self.assert_every_worker_lists("down")


def _shape(answer):
    """Return the shape of an answer: keys and types without values."""
    if isinstance(answer, dict):
        return {key: _shape(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return sorted(map(repr, map(_shape, answer)))
    # A time is None before the first report.
    return "" if answer is None or isinstance(answer, str) else type(answer)
