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

"""nova-sg-agent as a process, as an operator runs it."""

import json
import os
import signal
import threading
import time

from nova_sg import exception
from tests import native_services
from tests.fixtures import mariadb, memcached, process, proxy
from tests.fixtures.process import wait_for
from tests.processes import base

# From the guide "Configure Compute service groups", unchanged.
MEMCACHE_SNIPPET = """\
# Driver for the ServiceGroup service
servicegroup_driver = "mc"

# Memcached servers. Use either a list of memcached servers to use for caching (list value),
# or "<None>" for in-process caching (default).
memcached_servers = <None>

# Timeout; maximum time since last check-in for up service (integer value).
# Helps to define whether a node is dead
service_down_time = 60
"""  # noqa: E501

NOVA_CONF = """\
[DEFAULT]
my_ip = 10.0.0.11
transport_url = rabbit://openstack:{secret}@controller:5672/
state_path = {state}
log_dir = {logs}
debug = true
compute_driver = libvirt.LibvirtDriver
allow_resize_to_same_host = true
instances_path = $state_path/instances
enabled_apis = osapi_compute,metadata
reserved_host_memory_mb = 512
rootwrap_config = /etc/nova/rootwrap.conf
report_interval = 1
service_down_time = 60

[api]
auth_strategy = keystone

[api_database]
connection = mysql+pymysql://nova:{secret}@controller/nova_api

[cache]
backend = oslo_cache.memcache_pool
enabled = true
memcache_servers = controller:11211

[cinder]
os_region_name = RegionOne

[database]
connection = {url}
max_retries = -1
connection_recycle_time = 3600

[glance]
api_servers = http://controller:9292

[keystone_authtoken]
www_authenticate_uri = http://controller:5000/
memcached_servers = controller:11211
auth_type = password
username = nova
password = {secret}

[libvirt]
virt_type = kvm
cpu_mode = host-passthrough

[neutron]
auth_type = password
metadata_proxy_shared_secret = {secret}

[oslo_concurrency]
lock_path = $state_path/tmp

[placement]
password = {secret}

[vnc]
enabled = true
server_listen = 0.0.0.0
server_proxyclient_address = $my_ip
"""


class StopTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.api = self.observe()

    def member(self, host):
        return self.api.member("compute", host)

    def is_up(self):
        """Whether the member node exists and has reported."""
        try:
            node = self.member("node")
        except exception.MemberNotFound:
            return False
        return node.state == "up" and node.last_seen is not None

    def test_it_leaves_and_comes_back(self):
        for signo in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signo):
                place = self.path("cwd")
                os.mkdir(place)
                agent = self.agent("node", cwd=place, start_new_session=True)
                wait_for(self.is_up, base.PATIENCE)
                up = self.member("node")
                self.assertEqual("nova-compute", up.binary)
                session = agent.process.pid
                self.assertIn(session, sessions())
                agent.stop(signo)
                # One refresh is enough.
                self.api.refresh("compute")
                left = self.member("node")
                self.assertEqual(
                    ("down", "left the group"), (left.state, left.reason)
                )
                self.assertGreaterEqual(left.last_seen, up.last_seen)
                self.assertIn("node left the group compute", agent.log)
                self.check_nothing_stayed(session, place)
                os.rmdir(place)
        self.assertEqual(
            [(1,)], self.execute("SELECT count(*) FROM services")
        )

    def check_nothing_stayed(self, session, place):
        """Check that neither processes nor files are left behind."""
        self.assertNotIn(session, sessions())
        self.assertEqual([], os.listdir(place))
        self.assertEqual([], os.listdir(self.temporary))
        self.assertLessEqual(
            set(os.listdir(self.folder)),
            # stevedore keeps a list of the installed plugins there.
            {"cache"} | {"cwd", "nova-sg.conf", "node.log", "state", "tmp"},
        )
        for name in os.listdir(self.state):
            self.assertRegex(name, r"^nova-sg\.sqlite")

    def test_a_hurried_operator(self):
        agent = self.agent("node")
        wait_for(self.is_up, base.PATIENCE)
        # The second signal may end it at once, but not with a traceback.
        agent.process.send_signal(signal.SIGTERM)
        result = self.finish(agent.process, signal.SIGTERM)
        self.assertIn(result.status, (0, -signal.SIGTERM))
        self.assertEqual("", result.err)

    def test_a_signal_at_any_moment_of_the_start(self):
        for signo in (signal.SIGTERM, signal.SIGINT):
            for pause in (0, 0.3, 0.6, 1.0):
                with self.subTest(signo, pause=pause):
                    self.starting("node", pause).stop(signo)

    def test_sighup_at_any_moment_of_the_start(self):
        for pause in (0, 0.3, 0.6, 1.0):
            with self.subTest(pause=pause):
                agent = self.starting("node", pause)
                agent.process.send_signal(signal.SIGHUP)
                agent.wait_for_log("The configuration is reloaded")
                wait_for(self.is_up, base.PATIENCE)
                agent.stop()
                self.api.refresh("compute")
                self.assertEqual("left the group", self.member("node").reason)

    def starting(self, host, pause):
        """Start an agent; return it so many seconds into its start."""
        agent = self.agent(host)
        # Python needs a moment before it runs nova_sg, which does this first.
        pid = agent.process.pid
        wait_for(lambda: base.catches(pid, signal.SIGHUP), base.PATIENCE)
        # The signal has to be handled at any moment of the start.
        time.sleep(pause)
        return agent


def sessions():
    """Return the sessions of all processes."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.getsid(int(pid)))
        except ProcessLookupError:
            continue
    return found


class TransitionsTest(base.TestCase):
    def test_what_happens_to_others(self):
        """A member is down after service_down_time, and not before."""
        self.configure("log_transitions = true", service_down_time=8)
        api = self.observe()
        observer = self.agent("observer")
        observer.wait_for_log("observer joins the group")
        other = self.agent("other")
        said = "nova_sg.manager [-] other in the group compute:"
        # The first refresh may come before the first report.
        observer.wait_for_log(f"INFO {said} joined (")
        other.kill()
        killed = time.monotonic()

        def refresh():
            api.refresh("compute")
            return api.member("compute", "other")

        while (seen := refresh()).state == "up":
            self.assertLess(time.monotonic() - killed, base.PATIENCE)
            time.sleep(0.05)
        self.assertGreater(seen.age, 8)
        self.assertRegex(
            seen.reason, r"last report [\d.]+ s ago, allowed .* 8"
        )
        self.assertEqual("up", api.member("compute", "observer").state)
        # The other agent has noticed it, too, and logs it.
        observer.wait_for_log(f"WARNING {said} down (last report")
        other = self.agent("other")
        observer.wait_for_log(f"INFO {said} up (last report")
        other.stop()
        observer.wait_for_log(f"INFO {said} left (left the group)")
        observer.stop()
        lines = [
            line for line in observer.log.splitlines() if "manager" in line
        ]
        self.assertEqual(4, len(lines), observer.log)


class ReloadTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.configure()
        self.api = self.observe()
        # Reports are sent once a minute, until a reload changes that.
        self.configure(report_interval=60)
        self.node = self.agent("node")
        wait_for(self.is_up, base.PATIENCE, "the agent has joined")
        self.blips = []
        self.polled = 0
        self.over = threading.Event()
        self.poller = threading.Thread(target=self.poll)
        self.poller.start()
        self.addCleanup(self.end_poll)

    def is_up(self):
        self.api.refresh("compute")
        try:
            return self.api.member("compute", "node").state == "up"
        except exception.MemberNotFound:
            return False

    def poll(self):
        while not self.over.wait(0.05):
            self.polled += 1
            if not self.is_up():
                self.blips.append(self.api.member("compute", "node"))

    def end_poll(self):
        self.over.set()
        self.poller.join()

    def reports(self):
        return self.execute("SELECT report_count FROM services")[0][0]

    def hang_up(self, words):
        before = self.node.log.count(words)
        self.node.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: self.node.log.count(words) > before,
            base.PATIENCE,
            lambda: f"the agent logs {words!r}:\n{self.node.log}",
        )

    def check_reports(self):
        begun = self.reports()
        wait_for(
            lambda: self.reports() > begun + 3,
            base.PATIENCE,
            "the agent reports several times",
        )

    def end(self):
        self.end_poll()
        self.assertEqual([], self.blips)
        self.assertGreater(self.polled, 10)
        self.node.stop()

    def test_new_files(self):
        self.assertLessEqual(self.reports(), 2)
        self.configure(report_interval=0.2)
        self.hang_up("The configuration is reloaded")
        self.check_reports()
        for text, words in (
            (f"connection {base.PASSWORD}", "line 1: No ':' or '=' found"),
            (b"\x7fELF\xff\xff", f"{self.config}: not a text file"),
            ("[DEFAULT]\nreport_interval = soon\n", "report_interval: Value"),
            (
                "[DEFAULT]\nservicegroup_driver = mc\n"
                "memcached_servers = one:two\n",
                "memcached_servers: 'one:two' is not the address",
            ),
            (
                f"[database]\nconnection = nova:{base.PASSWORD}@sql\n",
                "[database] connection: not the URL of a database",
            ),
        ):
            with self.subTest(text):
                self.write("nova-sg.conf", text)
                self.check_refused(words)
        os.unlink(self.config)
        self.check_refused(f"config files: {self.config}. Correct")
        self.configure("debug = true", report_interval=0.2)
        self.hang_up("The configuration is reloaded")
        self.check_reports()
        self.end()

    def check_refused(self, words):
        """Check that the agent goes on as before, and logs why."""
        self.hang_up("The old one stays in use")
        self.assertIn(words, self.node.log.split("ERROR")[-1])
        self.check_reports()

    def test_many_signals_at_once(self):
        for _ in range(20):
            self.node.process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        self.hang_up("The configuration is reloaded")
        self.configure(report_interval=0.2)
        self.hang_up("The configuration is reloaded")
        self.check_reports()
        # The last question is answered during the reload, or before it.
        self.end_poll()
        self.assertEqual([], self.blips)
        self.node.process.send_signal(signal.SIGHUP)
        self.node.stop()
        self.api.refresh("compute")
        self.assertEqual(
            "left the group", self.api.member("compute", "node").reason
        )


class DatabaseTest(base.TestCase):
    """MariaDB, behind a proxy that can be cut."""

    def setUp(self):
        super().setUp()
        server = process.shared(mariadb.MariaDB)
        self.url = server.create_database()
        self.configure(f"[database]\nconnection = {self.url}")
        self.do("db", "sync")
        self.api = self.observe()
        self.proxy = proxy.TcpProxy(server.port)
        self.addCleanup(self.proxy.close)
        url = self.url.replace(f":{server.port}/", f":{self.proxy.port}/")
        self.configure(f"[database]\nconnection = {url}", service_down_time=60)

    def is_up(self):
        try:
            return self.api.member("compute", "node").state == "up"
        except exception.MemberNotFound:
            return False

    def test_started_before_its_database(self):
        agent = self.agent("node")
        trouble = "Cannot report the state of node to the group compute"
        agent.wait_for_log(trouble)
        self.assertIn("Trying again every 0.2 s", agent.log)
        self.proxy.start()
        wait_for(self.is_up, base.PATIENCE)
        agent.wait_for_log("node is reported to the group compute again")
        # It is logged once when it begins and once when it ends.
        self.assertEqual(1, agent.log.count(trouble))
        self.proxy.kill()
        wait_for(lambda: agent.log.count(trouble) == 2, base.PATIENCE)
        # It can stop without its database.
        agent.stop()
        self.assertIn("Could not leave the group compute: ", agent.log)
        # No line has the same text twice.
        for line in agent.log.splitlines():
            self.assertLessEqual(line.count("Can't connect"), 1, line)

    def test_stopped_while_its_database_hangs(self):
        # It waits for an answer for a quarter of this.
        with open(self.config, "a") as file:
            file.write("[DEFAULT]\nservice_down_time = 8\n")
        self.proxy.start()
        agent = self.agent("node")
        wait_for(self.is_up, base.PATIENCE)
        self.proxy.cut()
        agent.wait_for_log("Cannot report the state of node")
        # It waits for the database in order to leave. There is no reload.
        agent.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        agent.stop(signal.SIGHUP)
        self.assertIn("Could not leave the group compute: ", agent.log)


class MemcachedTest(base.TestCase):
    """The example of the guide "Configure Compute service groups"."""

    def test_memcache_snippet_of_the_guide(self):
        self.write(
            "nova-sg.conf",
            f"[DEFAULT]\nstate_path = {self.state}\n{MEMCACHE_SNIPPET}",
        )
        agent = self.agent("node")
        agent.wait_for_log("node joins the group compute by the driver mc")
        # It warns that no other process can see this member.
        agent.wait_for_log("memcached_servers names no server")
        listed = self.run_here("nova-sg", "list", "-f", "json")
        self.assertEqual((0, []), (listed.status, json.loads(listed.out)))
        self.assertIn("memcached_servers names no server", listed.err)
        agent.stop()
        self.assertIn("node left the group compute", agent.log)
        self.assertNotIn("ERROR", agent.log)

    def test_memcache_snippet_with_servers(self):
        server = process.shared(memcached.Memcached)
        snippet = MEMCACHE_SNIPPET.replace(
            "= <None>", f'= "{server.address}"'
        )
        topic = os.path.basename(self.folder)
        self.write("nova-sg.conf", f"[DEFAULT]\ntopic = {topic}\n{snippet}")
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        agent.stop()
        self.assertEqual(1, self.run_here("nova-sg", "is-up", "node").status)


class NovaConfTest(base.TestCase):
    def test_a_full_nova_conf(self):
        url = process.shared(mariadb.MariaDB).create_database()
        os.mkdir(self.path("logs"))
        self.config = self.write(
            "nova.conf",
            NOVA_CONF.format(
                secret=base.PASSWORD,
                state=self.state,
                logs=self.path("logs"),
                url=url,
            ),
        )
        self.do("db", "sync")
        agent = self.start("nova-sg-agent", "--host", "compute-11")
        self.wait_for_state("compute-11", "up")
        (row,) = json.loads(self.do("list", "-f", "json"))
        self.assertEqual(
            ("compute", "nova-compute"), (row["Topic"], row["Binary"])
        )
        result = self.finish(agent, signal.SIGTERM)
        self.assertEqual(0, result.status)
        self.assertEqual(["nova-sg-agent.log"], os.listdir(self.path("logs")))
        with open(self.path("logs/nova-sg-agent.log")) as log:
            text = log.read()
        self.check_words(text)
        # With debug it logs every option, except secrets.
        self.assertRegex(text, r" database.connection += \*\*\*\*")
        self.assertRegex(text, r" host += compute-11")
        self.assertNotIn(":secret@", text)
        self.assertFalse(os.path.exists(self.state))


class OnNativeThreads:
    """For a test case: the agent runs on native threads."""

    def configure(self, more="", **kwargs):
        super().configure(f"concurrency_backend = threading\n{more}", **kwargs)


@native_services
class NativeStopTest(OnNativeThreads, StopTest):
    def test_it_imports_no_eventlet(self):
        # What would be imported first tells.
        os.mkdir(self.path("first"))
        self.write("first/eventlet.py", f"open({self.path('told')!r}, 'w')\n")
        environment = self.environment | {"PYTHONPATH": self.path("first")}
        agent = self.agent("node", env=environment)
        wait_for(self.is_up, base.PATIENCE)
        self.assertFalse(os.path.exists(self.path("told")))
        agent.stop()


@native_services
class NativeReloadTest(OnNativeThreads, ReloadTest):
    pass
