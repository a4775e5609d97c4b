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


"""Tests of a compute that cannot use RabbitMQ, and of its page /health."""

import json
import time
import urllib.error
import urllib.request

from tests.fixtures import process, proxy
from tests.fixtures.novarig import cloud as novarig
from tests.nova import base

# Seconds from one ping to the next, and for its answer.
INTERVAL = LIMIT = 2

UNWELL, WELL = "is unwell", "is well again"

_OPTIONS = """\
[DEFAULT]
transport_url = rabbit://nova:nova@{proxy}/
[servicegroup]
rpc_check_interval = {interval}
rpc_check_time_limit = {limit}
health_listen = 127.0.0.1:{port}
"""


class Health:
    """Tests of a driver by which reports need no RabbitMQ."""

    def _start(self):
        """Have the compute use RabbitMQ through a proxy; return the proxy."""
        cloud = self.cloud
        between = proxy.TcpProxy(cloud.site.rabbitmq.port)
        self.enterContext(between)
        self.port = process.free_port()
        cloud.configure(
            "compute",
            self.DRIVER,
            _OPTIONS.format(
                proxy=between.address,
                interval=INTERVAL,
                limit=LIMIT,
                port=self.port,
            ),
        )
        self.addCleanup(cloud.configure, "compute", self.DRIVER)
        # The next test starts it again with its own configuration.
        self.addCleanup(cloud.compute.kill)
        cloud.compute.kill()
        self.restart_compute()
        self._wait_until_taken()
        self._earlier = {
            words: len(base.log_lines(cloud.compute, words))
            for words in (UNWELL, WELL)
        }
        return between

    def _wait_until_taken(self):
        return self._wait_for_host(novarig.COMPUTE_HOST)

    def _wait_for_host(self, host):
        begun = time.monotonic()
        process.wait_for(
            lambda: self._selects(host),
            120,
            lambda: self.cloud.missing(f"the scheduler takes {host}"),
        )
        return time.monotonic() - begun

    def _selects(self, host):
        try:
            return self.cloud.select_host() == host
        except AssertionError as error:
            # A broker that starts again may lose a request or an answer.
            if not str(error).startswith("MessagingTimeout"):
                raise
            return False

    def _health(self):
        """Return the status of /health, and the compute's RPC check."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/health", timeout=30
            ) as answer:
                status, state = answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            status, state = error.code, json.load(error)
        [member] = state["members"]
        return status, member["checks"].get("rpc", {}).get("healthy")

    def _wait_for_health(self, status, healthy):
        process.wait_for(
            lambda: self._health() == (status, healthy),
            60,
            lambda: f"/health is {status}: {self._health()}",
        )

    def _lines(self, words):
        """Return the lines with words since this test began."""
        lines = base.log_lines(self.cloud.compute, words)
        return lines[self._earlier[words] :]

    def test_the_connection_of_one_compute_is_cut(self):
        between = self._start()
        self._wait_for_health(200, True)
        between.cut()
        avoided = self._wait_for_host(None)
        # One more second for the report to reach the scheduler.
        self.assertLess(avoided, INTERVAL + LIMIT + 1 + base.SLACK)
        self._wait_for_health(503, False)
        silence = self.cloud.service_down_time + INTERVAL
        self.assert_stays("up", novarig.BINARIES, silence)
        self.assertIsNone(self.cloud.select_host())
        [line] = self._lines(UNWELL)
        self.assertIn(
            f"its RPC server did not answer a ping by RabbitMQ within {LIMIT} "
            "s. It goes on reporting",
            line,
        )
        between.restore()
        taken = self._wait_until_taken()
        self.assertLess(taken, 30)
        self._wait_for_health(200, True)
        self.assertEqual(1, len(self._lines(WELL)))
        # A service that stops closes its RPC server, and is not unwell.
        self.cloud.compute.stop()
        self.assertEqual(1, len(self._lines(UNWELL)))
        print(
            f"{self.DRIVER} {self.MODE}: cut off from RabbitMQ, avoided after "
            f"{avoided:.1f} s; healed, taken after {taken:.1f} s"
        )

    def test_the_broker_stops_and_starts(self):
        self._start()
        rabbitmq = self.cloud.site.rabbitmq
        rabbitmq.stop()
        self.assert_stays(
            "up",
            novarig.BINARIES,
            self.cloud.service_down_time + INTERVAL + LIMIT,
        )
        self.assertEqual(1, len(self._lines(UNWELL)))
        self.assertEqual(503, self._health()[0])
        # The pings themselves log nothing.
        driver = "oslo.messaging._drivers.impl_rabbit"
        failed = [
            line
            for line in base.log_lines(self.cloud.compute, "Failed to publish")
            if driver in line
        ]
        self.assertEqual([], failed)
        rabbitmq.start()
        begun = time.monotonic()
        self._wait_for_health(200, True)
        well = time.monotonic() - begun
        self.assertLess(well, 30)
        self._wait_until_taken()
        self.assert_stays("up", novarig.BINARIES, 2)
        print(
            f"{self.DRIVER} {self.MODE}: RabbitMQ is back, the compute is "
            f"well after {well:.1f} s"
        )
