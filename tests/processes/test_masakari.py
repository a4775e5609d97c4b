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

"""The driver of masakari-hostmonitor, in the real masakari-hostmonitor.

One server stands in for Keystone and for Masakari's API.
"""

import datetime
import http.server
import json
import os
import signal
import threading

from tests.fixtures import nova
from tests.fixtures.process import wait_for
from tests.processes import base

DOWN_TIME = 2

CONFIG = """\
[host]
monitoring_driver = nova_sg
[api]
auth_url = {url}/identity/v3
auth_type = password
username = masakari
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
region = RegionOne
api_interface = internal
"""


class Api(http.server.ThreadingHTTPServer):
    """Keystone, and Masakari's API.

    :param statuses: of the first notifications; None: no answer; then 202
    """

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.notifications = []
        self.closing = threading.Event()
        self.passwords = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def close(self):
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def told(self, host):
        """Return the notifications about a host: (event, host_status)."""
        return [
            (
                notification["payload"]["event"],
                notification["payload"]["host_status"],
            )
            for notification in self.notifications
            if notification["hostname"] == host
        ]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = self.server.url
        if self.path.startswith("/identity"):
            path, version = "identity/v3", "v3.14"
        else:
            path, version = "instance-ha/v1", "v1.3"
        links = [{"rel": "self", "href": f"{url}/{path}/"}]
        self._answer(
            200,
            {
                "version": {
                    "id": version.partition(".")[0] + ".0",
                    "status": "CURRENT",
                    "min_version": "1.0",
                    "version": version[1:],
                    "links": links,
                }
            },
        )

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        if self.path == "/identity/v3/auth/tokens":
            self._issue(body)
            return
        assert self.path == "/instance-ha/v1/notifications", self.path
        assert self.headers["X-Auth-Token"] == "TOKEN", self.headers
        self.server.notifications.append(body["notification"])
        statuses = self.server.statuses
        status = statuses.pop(0) if statuses else 202
        if status is None:
            self.server.closing.wait()
            return
        self._answer(status, body)

    def _issue(self, body):
        user = body["auth"]["identity"]["password"]["user"]
        self.server.passwords.add((user["name"], user["password"]))
        endpoint = {
            "interface": "internal",
            "region": "RegionOne",
            "region_id": "RegionOne",
            "id": "1",
            "url": f"{self.server.url}/instance-ha/v1",
        }
        expires = datetime.datetime.now() + datetime.timedelta(days=1)
        token = {
            "methods": ["password"],
            "user": {
                "id": "1",
                "name": user["name"],
                "domain": {"id": "default", "name": "Default"},
            },
            "expires_at": f"{expires:%Y-%m-%dT%H:%M:%S}.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "catalog": [
                {
                    "type": "instance-ha",
                    "name": "masakari",
                    "id": "1",
                    "endpoints": [endpoint],
                }
            ],
        }
        self._answer(201, {"token": token}, {"X-Subject-Token": "TOKEN"})

    def _answer(self, status, body, headers=()):
        body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class MasakariTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.configure(
            "[servicegroup]\nmass_silence_min_members = 1000\n",
            service_down_time=DOWN_TIME,
        )
        # Makes the database.
        self.do("list", "-f", "json")

    def start_monitor(self, *statuses, options=""):
        """Start masakari-hostmonitor, and the API with these statuses."""
        self.api = Api(*statuses)
        self.addCleanup(self.api.close)
        monitors = self.write(
            "masakarimonitors.conf",
            CONFIG.format(url=self.api.url, password=base.PASSWORD) + options,
        )
        program = os.path.join(
            os.path.dirname(nova.python()), "masakari-hostmonitor"
        )
        self.log = self.path("hostmonitor.log")
        self.monitor = self.start(
            program,
            *("--config-file", monitors, "--config-file", self.config),
            *("--log-file", self.log),
            config=False,
        )

    def logged(self, words):
        """Wait until the log has words."""
        wait_for(
            lambda: words in self._read(),
            base.PATIENCE,
            lambda: f"{words!r} is logged: {self._read()}",
        )

    def start_agent(self, host):
        """Start an agent, and wait until it is up."""
        agent = self.agent(host)
        self.wait_for_state(host, "up")
        return agent

    def die(self, agent):
        agent.kill()
        wait_for(
            lambda: self.api.told(agent.host),
            base.PATIENCE,
            lambda: f"Masakari is told of {agent.host}: {self._read()}",
        )

    def _read(self):
        if not os.path.exists(self.log):
            return ""
        with open(self.log) as log:
            return log.read()

    def test_a_dead_host_is_fenced_and_reported(self):
        fenced = self.path("fenced")
        script = self.write(
            "fence",
            # It fails at first.
            '#!/bin/sh\necho "$NOVA_SG_HOST" >> "$1"\n'
            '[ $(wc -l < "$1") -gt 1 ]\n',
        )
        os.chmod(script, 0o700)
        hosts = ("leaver", "forced", "dead", "alive")
        leaver, forced, dead, _ = map(self.start_agent, hosts)
        self.start_monitor(
            503, options=f"[masakari]\nfence = {script} {fenced}\n"
        )
        self.logged("Watching")
        self.do("force-down", "forced")
        forced.kill()
        leaver.stop()
        self.die(dead)
        wait_for(
            lambda: len(self.api.told("dead")) == 2,
            base.PATIENCE,
            "after the status 503 Masakari is told again",
        )
        with open(fenced) as file:
            # Once for each attempt.
            self.assertEqual(["dead"] * 3, file.read().split())
        [first, again] = self.api.notifications
        self.assertEqual(first, again)
        self.assertEqual("COMPUTE_HOST", first["type"])
        self.assertEqual(
            {
                "event": "STOPPED",
                "cluster_status": "OFFLINE",
                "host_status": "NORMAL",
            },
            first["payload"],
        )
        when = datetime.datetime.fromisoformat(first["generated_time"])
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        self.assertLess(abs((now - when).total_seconds()), base.PATIENCE)
        self.agent("dead")
        wait_for(
            lambda: self.api.told("dead")[2:] == [("STARTED", "NORMAL")],
            base.PATIENCE,
            "Masakari is told that the host is back",
        )
        # The others went down, or not, before.
        self.assertEqual(
            {"dead"}, {one["hostname"] for one in self.api.notifications}
        )
        self.logged("Not reported to Masakari: forced is down")
        self.assertEqual({("masakari", base.PASSWORD)}, self.api.passwords)
        self.end_monitor()

    def end_monitor(self):
        result = self.finish(self.monitor, signal.SIGTERM)
        self.check_words(self._read())
        self.assertEqual(0, result.status)

    def test_without_a_fence_and_refused(self):
        one, two = self.start_agent("one"), self.start_agent("two")
        self.start_monitor(
            *(None, 409), options="[events]\ntime_limit = 1\n"
        )
        self.logged("[masakari] fence is not set")
        self.logged("Watching")
        self.die(one)
        self.logged("Masakari refuses the notification that one is STOPPED")
        self.die(two)
        # There was no answer to the first one.
        self.assertEqual([("STOPPED", "UNKNOWN")] * 2, self.api.told("one"))
        self.assertEqual([("STOPPED", "UNKNOWN")], self.api.told("two"))
        self.end_monitor()
