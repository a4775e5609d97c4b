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


"""How nova-sg-agent reads its options, files and arguments."""

import os

from nova_sg import servicegroup
from tests.cli import base
from tests.fixtures import memcached, process


@base.green_mode
class ConfigurationTest(base.TestCase):
    def check(self, host, topic, binary, *arguments, **kwargs):
        """Run an agent until it is up by the API of the same process."""

        def is_missing():
            # The API that is made now has the agent's configuration.
            return (host, binary, "up") not in [
                (one.host, one.binary, one.state)
                for one in servicegroup.API().members(topic)
            ]

        self.run_agent_while(is_missing, *arguments, **kwargs)

    def report(self, host):
        """Have a member report once more, after it has left."""
        self.execute(
            "UPDATE services SET report_count = 1, last_seen_up = "
            "strftime('%Y-%m-%d %H:%M:%f000', 'now') WHERE host = ?",
            host,
        )

    def test_host_topic_binary(self):
        self.configure("host = filed\ntopic = volume\nbinary = cinder-volume")
        self.check("filed", "volume", "cinder-volume")
        self.check(
            *("given", "network", "agent-x"),
            *("--host", "given"),
            *("--topic", "network"),
            *("--binary", "agent-x"),
        )
        self.check(
            *("third", "cell", "cinder-volume"),
            *("--host", "third", "--topic", "cell"),
        )

    def test_names_that_would_break_the_lines_of_a_log(self):
        for option in ("host", "topic"):
            with self.subTest(option):
                refused = self.run_program(
                    "nova-sg-agent", f"--{option}", "a\nb"
                )
                self.assertEqual((2, ""), (refused.status, refused.out))
                self.assertIn(
                    f"[DEFAULT] {option}: the name 'a\\nb' cannot be used",
                    refused.err,
                )

    def test_default_binary_and_host(self):
        self.check(
            *(os.uname().nodename, "scheduler", "nova-scheduler"),
            *("--topic", "scheduler"),
        )

    def test_config_dir(self):
        folder = self.path("conf.d")
        os.mkdir(folder)
        for name, text in (
            ("10-one.conf", "[DEFAULT]\nhost = ten\ntopic = first\n"),
            ("20-two.conf", "[DEFAULT]\nhost = twenty\n"),
            ("30-three.off", "[DEFAULT]\nhost = thirty\n"),
        ):
            self.write(f"conf.d/{name}", text)
        where = ("--config-dir", folder)
        self.check("twenty", "first", "nova-first", *where)
        result = self.nova_sg(*where, "is-up", "twenty")
        self.assertEqual((1, "down\n"), (result.status, result.out))
        self.report("twenty")
        self.assertEqual("up\n", self.do(*where, "is-up", "twenty"))

    def test_a_file_where_openstack_looks(self):
        # ~/.nova-sg/nova-sg.conf
        os.mkdir(self.path(".nova-sg"))
        os.rename(self.config, self.path(".nova-sg/nova-sg.conf"))
        self.check(
            *("found", "compute", "nova-compute"),
            *("--host", "found"),
            config=False,
        )
        result = self.nova_sg("is-up", "found", config=False)
        self.assertEqual((1, "down\n"), (result.status, result.out))
        self.report("found")
        result = self.nova_sg("is-up", "found", config=False)
        self.assertEqual((0, "up\n"), (result.status, result.out))

    def test_modern_spelling_of_the_memcached_servers(self):
        server = process.shared(memcached.Memcached)
        topic = os.path.basename(self.folder)
        self.configure(
            "servicegroup_driver = mc\n"
            f"topic = {topic}\n"
            f"[cache]\nmemcache_servers = {server.address}"
        )
        self.check("node", topic, f"nova-{topic}", "--host", "node")

    def test_an_interval_that_is_too_long(self):
        self.configure(report_interval=1, service_down_time=1)
        self.run_agent_until(
            "Report interval must be less than service down time. Current "
            "config: service_down_time = 1, report_interval = 1. Using a "
            "service_down_time of 2.5"
        )
