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

"""The programs, while the database's library raises unusual errors."""

import signal
import time

import sqlalchemy as sa

from tests import single_mode
from tests.fixtures import auth_proxy, mariadb, memcached, process
from tests.processes import base

# The lines that an agent may log about one outage: begin and end of failed
# refreshes and of failed reports, and that it could not leave.
FEW = 8


@single_mode
class FrozenVerdictsTest(base.TestCase):
    def setUp(self):
        super().setUp()
        server = process.shared(mariadb.MariaDB)
        url = sa.make_url(server.create_database())
        server.execute(
            f"CREATE USER {url.database}@127.0.0.1 IDENTIFIED BY "
            f"'{base.PASSWORD}'"
        )
        self.addCleanup(
            server.execute, f"DROP USER {url.database}@127.0.0.1"
        )
        server.execute(
            f"GRANT ALL ON `{url.database}`.* TO {url.database}@127.0.0.1"
        )
        self.proxy = auth_proxy.AuthProxy(server.port)
        self.addCleanup(self.proxy.close)
        url = url.set(
            username=url.database,
            password=base.PASSWORD,
            port=self.proxy.port,
        )
        cache = process.shared(memcached.Memcached)
        self.configure(
            "log_transitions = true\n"
            f"memcached_servers = {cache.address}\n[database]\nconnection = "
            + url.render_as_string(hide_password=False),
            report_interval=1,
            service_down_time=4,
            refresh=0.2,
        )
        # As a process: this one has the proxy's threads.
        self.assertEqual(0, self.nova_sg("db", "sync").status)

    def test_they_say_what_is_wrong_and_end(self):
        node, other = self.agent("node"), self.agent("other")
        for host in "node", "other":
            waited = self.nova_sg("wait", host, "--for", "up")
            self.assertEqual(0, waited.status, waited.err)
        lines = node.log.count(" nova_sg.")
        self.proxy.plugin = "client_ed25519"
        self.proxy.drop()
        node.wait_for_log("Cannot refresh group compute")
        node.wait_for_log("Cannot report the state of node")
        words = "RuntimeError: 'pynacl' package is required"

        result = self.nova_sg("is-up", "other")
        self.assertEqual((2, "unknown\n"), (result.status, result.out))
        self.assertIn(words, result.err)

        result = self.nova_sg("doctor")
        self.assertEqual(1, result.status)
        [bad] = [line for line in result.lines if line.startswith("BAD")]
        self.assertIn(words, bad)
        self.assertIn("ok  memcached ", result.out)

        result = self.nova_sg("list")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn(words, result.err)

        for agent, signo in ((node, signal.SIGTERM), (other, signal.SIGINT)):
            begun = time.monotonic()
            agent.stop(signo)
            # After a minute it would end by SIGALRM.
            self.assertLess(time.monotonic() - begun, 30)
            self.assertIn("Could not leave the group compute", agent.log)
        self.assertLess(node.log.count(" nova_sg.") - lines, FEW, node.log)
