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

"""A real Nova while the state of services is not known; deleted services."""

import json
import time
import urllib.error
import urllib.request

from tests.fixtures import nova, process
from tests.fixtures.novarig import cloud as novarig
from tests.nova import base

UNKNOWN = "States in the group compute are not known"


class Unknown:
    """The backend is gone for longer than service_down_time."""

    def servers(self):
        """Return the servers of the backend."""
        if self.DRIVER == "zk":
            return self.cloud.site.zookeeper.servers
        return self.cloud.site.memcached

    def stop_backend(self):
        """Stop the backend, and wait until the API knows no states."""
        cloud = self.cloud
        before = len(base.log_lines(cloud.api, UNKNOWN))
        servers = list(self.servers())
        for server in servers:
            self.addCleanup(self.start_server, server)
            server.kill()
        process.wait_for(
            lambda: cloud.states("nova-compute")
            and len(base.log_lines(cloud.api, UNKNOWN)) > before,
            message=lambda: cloud.missing("the API knows no states"),
        )
        return servers

    @staticmethod
    def start_server(server):
        if not server.is_running:
            server.start()

    def delete(self, path):
        """Send a DELETE; return the status."""
        request = urllib.request.Request(
            f"{self.cloud.api.url}/v2.1{path}",
            method="DELETE",
            headers={
                "X-Auth-Token": "admin",
                "OpenStack-API-Version": "compute 2.69",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            raise AssertionError(self.cloud.missing(error.read())) from error

    def put(self, path, body):
        request = urllib.request.Request(
            f"{self.cloud.api.url}/v2.1{path}",
            json.dumps(body).encode(),
            method="PUT",
            headers={
                "Content-Type": "application/json",
                "X-Auth-Token": "admin",
                "OpenStack-API-Version": "compute 2.69",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status

    def service(self, binary):
        query = f"/os-services?binary={binary}"
        [service] = self.cloud.get(query)["services"]
        return service

    def instance_row(self, instance):
        [row] = self.cloud.site.mariadb.execute(
            "SELECT deleted, task_state FROM instances WHERE uuid = %s",
            instance,
            database="nova",
        )
        return row

    def test_the_compute_was_up(self):
        """Nova builds there, and neither evacuates nor deletes locally."""
        cloud = self.cloud
        process.wait_for(
            lambda: cloud.select_host() == novarig.COMPUTE_HOST,
            message="the scheduler finds the compute",
        )
        before = len(base.log_lines(cloud.api, UNKNOWN))
        with cloud.instance() as instance:
            self.stop_backend()
            cloud.compute.kill()
            # All that Nova goes by is the last state that was known.
            self.assertEqual("up", self.service("nova-compute")["state"])
            self.assertEqual(novarig.COMPUTE_HOST, cloud.select_host())
            status, text = cloud.act(instance, "evacuate", {})
            self.assertEqual(400, status, text)
            self.assertIn("It may be alive, so it is not evacuated", text)
            self.assertEqual(204, self.delete(f"/servers/{instance}"))
            # The compute has to do it. It was told, though it is dead.
            self.assertEqual((0, "deleting"), self.instance_row(instance))
        # Logged once, however often it is asked.
        self.assertEqual(before + 1, len(base.log_lines(cloud.api, UNKNOWN)))

    def test_the_compute_was_down(self):
        """It may have come back: only an operator's word counts."""
        cloud = self.cloud
        with cloud.instance() as instance:
            cloud.compute.kill()
            cloud.wait_for_state("nova-compute", "down")
            # Otherwise the scheduler would have no state to go by. It began
            # to observe later than the API, and may find it later.
            process.wait_for(
                lambda: cloud.select_host() is None,
                message="the scheduler finds it down",
            )
            servers = self.stop_backend()
            self.assertEqual("down", self.service("nova-compute")["state"])
            self.assertIsNone(cloud.select_host())
            status, text = cloud.act(instance, "evacuate", {})
            self.assertEqual(400, status, text)
            self.assertIn("force the service down", text)
            service = self.service("nova-compute")["id"]
            self.put(f"/os-services/{service}", {"forced_down": True})
            try:
                status, text = cloud.act(instance, "evacuate", {})
                self.assertEqual(200, status, text)
            finally:
                cloud.site.mariadb.execute(
                    "UPDATE services SET forced_down = 0", database="nova"
                )
                cloud.site.mariadb.execute(
                    "UPDATE migrations SET status = 'completed'",
                    database="nova",
                )
        for server in servers:
            server.start()
        process.wait_for(
            lambda: cloud.states("nova-compute")
            and base.log_lines(cloud.api, "compute are known again"),
            message=lambda: cloud.missing("the states are known again"),
        )
        self.assertEqual("down", self.service("nova-compute")["state"])


class Deleted:
    """Nova deletes the record of a service."""

    def listed(self):
        """Return the schedulers that nova-sg lists, and their states."""
        done = nova.run(
            [
                *(self.cloud.site.python, "-m", "nova_sg.cmd.shell"),
                *("--config-file", self.cloud.config("api")),
                *("list", "--group", "scheduler", "-f", "json"),
            ],
        )
        self.assertEqual(0, done.returncode, done.stdout)
        return {
            one["Host"]: one["State"]
            for one in json.loads(done.stdout[done.stdout.index("[") :])
        }

    def test_a_deleted_service_is_not_listed(self):
        cloud = self.cloud
        # To the API one that has just stopped, of another test, is up, too.
        process.wait_for(
            lambda: self.listed() == {novarig.CONTROL_HOST: "up"}
        )
        cloud.scheduler.kill()
        process.wait_for(
            lambda: self.listed() == {novarig.CONTROL_HOST: "down"}
        )
        service = self.service("nova-scheduler")["id"]
        self.assertEqual(204, self.delete(f"/os-services/{service}"))
        self.assertEqual({}, self.listed())
        # It comes back as a new service does.
        cloud.scheduler.start()
        process.wait_for(
            lambda: self.listed() == {novarig.CONTROL_HOST: "up"}
        )

    def test_a_service_is_deleted_while_the_backend_is_gone(self):
        cloud = self.cloud
        self.stop_backend()
        cloud.scheduler.kill()
        service = self.service("nova-scheduler")["id"]
        begun = time.monotonic()
        self.assertEqual(204, self.delete(f"/os-services/{service}"))
        self.assertLess(time.monotonic() - begun, 15 + base.SLACK)
        command = f"nova-sg forget {novarig.CONTROL_HOST} --group scheduler"
        [line] = process.wait_for(
            lambda: base.log_lines(cloud.api, command),
            message=lambda: cloud.missing("the remedy is logged"),
        )
        self.assertIn("WARNING", line)
