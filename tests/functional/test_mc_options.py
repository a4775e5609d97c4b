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
"""The options of the mc driver, as files spell them."""

import os
import tempfile
import textwrap

from nova_sg import config, exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared
from tests import base, single_mode
from tests.fixtures.memcached import Memcached

# From OpenStack's guide "Configure Compute service groups", as it stands.
GUIDE = """\
# Driver for the ServiceGroup service
servicegroup_driver = "mc"

# Memcached servers. Use either a list of memcached servers to use for \
caching (list value),
# or "<None>" for in-process caching (default).
memcached_servers = <None>

# Timeout; maximum time since last check-in for up service (integer value).
# Helps to define whether a node is dead
service_down_time = 60
"""


@single_mode
class McOptionsTest(base.TestCase):
    def read(self, text):
        """Read a file as the agent does; earlier ones are forgotten."""
        process.reset()
        with tempfile.NamedTemporaryFile(
            "w", dir=self.folder, suffix=".conf", delete=False
        ) as file:
            file.write(textwrap.dedent(text))
        config.parse(["--config-file", file.name], "a test")

    def setUp(self):
        super().setUp()
        self.server = self.enterContext(Memcached())
        self.addCleanup(process.reset)

    def used(self):
        """Return the addresses of the servers that the driver uses."""
        return [
            server.address for server in process.shared().driver._servers
        ]

    def assert_is_shared(self):
        """Check that a member that joins here is seen through the server."""
        api = servicegroup.API()
        api.join("one", "compute", base.Member("one", interval=60))
        elsewhere = Shared(process.load("mc"))
        self.addCleanup(elsewhere.close)
        self.assertEqual(["one"], elsewhere.view("compute").hosts_up())

    def test_the_example_of_the_guide(self):
        self.read("[DEFAULT]\n" + GUIDE)
        self.assertEqual("mc", CONF.servicegroup_driver)
        self.assertEqual(60, CONF.service_down_time)
        self.assertEqual(["<None> (inside the process)"], self.used())
        api = servicegroup.API()
        api.join("one", "compute", base.Member("one", interval=60))
        self.assertEqual(["one"], api.get_all("compute"))
        self.assertEqual("mc", api.member("compute", "one").driver)
        files = os.listdir(self.folder)
        self.assertEqual([], [f for f in files if not f.endswith(".conf")])

    def test_spellings_of_the_in_process_store(self):
        for line in (
            "",
            "memcached_servers =",
            "memcached_servers = <None>",
            'memcached_servers = "<None>"',
            "memcached_servers = '<None>'",
            "memcached_servers = None",
        ):
            with self.subTest(line=line):
                self.read(
                    f"""
                    [DEFAULT]
                    servicegroup_driver = mc
                    {line}
                    """
                )
                self.assertEqual(
                    ["<None> (inside the process)"], self.used()
                )

    def test_spellings_of_a_list_of_servers(self):
        one, two = self.server.address, "127.0.0.1:1"
        for line in (
            f"memcached_servers = {one},{two}",
            f"memcached_servers = {one} , {two}",
            f'memcached_servers = "{one},{two}"',
            f"memcached_servers = '{one},{two}'",
            f'memcached_servers = "{one}", "{two}"',
            f"memcached_servers = {one},{two},{one}",
        ):
            with self.subTest(line=line):
                self.read(
                    f"""
                    [DEFAULT]
                    servicegroup_driver = "mc"
                    {line}
                    """
                )
                self.assertEqual([one, two], self.used())
                self.assert_is_shared()

    def test_kinds_of_addresses(self):
        for address in (
            "localhost",
            "localhost:11211",
            "inet:localhost:11211",
            "inet6:[::1]:11211",
            "inet6:[fe80::1%eth0]",
            "[::1]:11211",
            "[::1]",
            "[localhost]:11211",
            "inet:[localhost]:11211",
            "/run/memcached.sock",
            "unix:/run/memcached.sock",
        ):
            with self.subTest(address=address):
                self.read(
                    f"""
                    [DEFAULT]
                    servicegroup_driver = mc
                    memcached_servers = {address}
                    """
                )
                self.assertEqual([address], self.used())

    def test_oslo_caches_option(self):
        self.read(
            f"""
            [DEFAULT]
            servicegroup_driver = mc
            [cache]
            memcache_servers = {self.server.address}
            """
        )
        self.assertEqual([self.server.address], self.used())
        self.assert_is_shared()

    def test_memcached_servers_wins_over_oslo_caches_option(self):
        self.read(
            f"""
            [DEFAULT]
            servicegroup_driver = mc
            memcached_servers = {self.server.address}
            [cache]
            memcache_servers = 127.0.0.1:1
            """
        )
        self.assertEqual([self.server.address], self.used())

    def test_the_error_names_the_option_and_the_invalid_address(self):
        for address in (
            "::1",
            "[::1]:port",
            "[]:11211",
            "[::1",
            "two words:11211",
            "host/path:11211",
            "host:port",
            "host:0",
            "host:99999",
            "host:11211:1",
            "tcp://host:11211",
            "inet6:::1:11211",
        ):
            for option, text in (
                (
                    "[DEFAULT] memcached_servers",
                    f"memcached_servers = {self.server.address},{address}",
                ),
                (
                    "[cache] memcache_servers",
                    f"[cache]\nmemcache_servers = {address}",
                ),
            ):
                with self.subTest(address=address, option=option):
                    self.read("[DEFAULT]\nservicegroup_driver = mc\n" + text)
                    with self.assertRaises(exception.ConfigError) as caught:
                        servicegroup.API().join(
                            "one", "compute", base.Member("one")
                        )
                    self.assertIn(option, str(caught.exception))
                    self.assertIn(repr(address), str(caught.exception))
                    self.assertIn("host:port", str(caught.exception))

    def test_the_secret_and_the_time_out(self):
        self.read(
            f"""
            [DEFAULT]
            servicegroup_driver = mc
            memcached_servers = {self.server.address}
            [memcache]
            memcache_secret_key = correct-horse
            socket_timeout = 0.5
            """
        )
        self.assert_is_shared()
        self.assertEqual(0.5, process.shared().driver._servers[0].timeout)
        self.read(
            f"""
            [DEFAULT]
            servicegroup_driver = mc
            memcached_servers = {self.server.address}
            """
        )
        api = servicegroup.API()
        self.assertEqual([], api.get_all("compute"))
