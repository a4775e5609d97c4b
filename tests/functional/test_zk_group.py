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

"""The zk driver while all servers work: joining, asking, events, leaving."""

import contextlib
import datetime
import importlib
import os
import signal
import subprocess
import threading
import time
from unittest import mock

import tests
from nova_sg import evzookeeper, exception, servicegroup, zookeeper
from nova_sg.backends.zookeeper import driver as zk_driver
from nova_sg.backends.zookeeper import names as znodes
from nova_sg.backends.zookeeper import watched
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from nova_sg.zookeeper import clib
from tests import single_mode
from tests.base import PATIENCE, wait_for
from tests.fixtures.process import free_port
from tests.functional import zk

_JARS = "/usr/share/java"
_JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


class GroupTest(zk.ZkTestCase):
    SERVERS = 3

    def test_join_ask_leave(self):
        self.join("one")
        self.join("two")
        self.assertEqual(["one", "two"], self.api.get_all("compute"))
        self.assertTrue(self.is_up("one"))
        self.api.leave("one", "compute")
        self.assertEqual(["two"], self.api.get_all("compute"))
        one, _ = self.api.members("compute")
        self.assertEqual(
            ("down", "left the group", "nova-compute", "zk"),
            (one.state, one.reason, one.binary, one.driver),
        )

        def two_is_seen_later():
            one, two = self.api.members("compute")
            return one.last_seen < two.last_seen

        wait_for(two_is_seen_later)

    def test_an_observer_sees_its_own_writes_though_watches_are_late(self):
        self.enterContext(mock.patch.object(watched, "ECHO_WAIT", 0.1))
        for host in ("one", "two"):
            self.join(host)
        wait_for(lambda: self.api.get_all("compute") == ["one", "two"])
        followed = process.shared().driver._groups["compute"]
        wait_for(lambda: None not in followed._sets())
        for monitor in followed._monitors:
            names = monitor.get_all()
            late = mock.patch.object(monitor, "get_all", return_value=names)
            self.enterContext(late)
        self.api.force_down("two", "compute")
        self.api.leave("one", "compute")
        for _ in range(3):
            self.api.refresh("compute")
            one, two = self.api.members("compute")
            self.assertEqual("left the group", one.reason)
            self.assertTrue(two.forced_down)

    def test_an_observer_sees_its_own_writes_at_once(self):
        self.api.watch("compute", print).cancel()
        for number in range(3):
            host = f"node{number}"
            self.join(host)
            self.assertIn(host, self.api.get_all("compute"))
            self.api.force_down(host, "compute")
            self.assertTrue(self.api.member("compute", host).forced_down)
            self.api.force_down(host, "compute", forced=False)
            self.assertFalse(self.api.member("compute", host).forced_down)
            self.api.leave(host, "compute")
            self.assertNotIn(host, self.api.get_all("compute"))
            self.api.forget(host, "compute")
            self.assertEqual([], self.api.members("compute"))

    def test_events(self):
        events = self.collect(self.api)
        service = self.join("one")

        def kinds():
            return [event.type for event in events]

        wait_for(lambda: kinds() == ["joined"], message="joined is told")
        self.api.leave("one", "compute")
        wait_for(lambda: kinds()[1:] == ["left"], message="left is told")
        self.api.join("one", "compute", service)
        wait_for(lambda: kinds()[2:] == ["joined"], message="it is back")
        self.zk.delete(f"{self.prefix}/compute/{self.znodes()[0]}")
        wait_for(lambda: kinds()[3:4] == ["down"], message="down is told")
        self.assertEqual(
            "its session with the backend ended", events[-1].reason
        )

    def test_a_member_that_left_is_not_raised_by_an_older_answer(self):
        """A refresh may ask the server, and be ahead of its watch."""
        seldom = mock.patch.dict(
            evzookeeper.membership.MembershipMonitor.__init__.__kwdefaults__,
            min_interval=2.0,
        )
        seldom.start()
        self.addCleanup(seldom.stop)
        path = f"{self.prefix}/compute"
        self.zk.ensure_path(path)
        for name in ("one@1", "two@1", "three@1"):
            self.zk.create(f"{path}/{name}", "", flags=zookeeper.EPHEMERAL)
        events = self.collect(self.api)
        self.assertEqual(3, len(self.api.members("compute")))
        ask = watched.WatchedGroup.ask

        def ask_later(group):
            with contextlib.suppress(zookeeper.NoNodeException):
                self.zk.delete(f"{path}/two@1")
            return ask(group)

        asking = mock.patch.object(watched.WatchedGroup, "ask", ask_later)
        asking.start()
        self.addCleanup(asking.stop)
        self.zk.delete(f"{path}/one@1")
        wait_for(lambda: len(events) == 2, message="both are gone")
        # There are many refreshes before the watch lists the members again,
        # and one after that.
        monitor = process.shared().driver._groups["compute"]._monitors[0]
        later = []

        def listed_again():
            later.extend(self.api.refresh("compute"))
            return len(monitor.get_all()) == 1

        wait_for(listed_again, message="the watch has listed again")
        later.extend(self.api.refresh("compute"))
        self.assertEqual([], later)
        self.assertEqual(
            [("left", "one"), ("left", "two")],
            sorted((event.type, event.host) for event in events),
        )

    def test_a_listing_from_before_a_leave_does_not_undo_it(self):
        self.join("one")
        self.wait_until_up("one")
        # The refresh that lists the member, and the one after it.
        listed, again = threading.Event(), threading.Event()
        go_on, end = threading.Event(), threading.Event()
        self.addCleanup(end.set)
        self.addCleanup(go_on.set)
        real = watched.WatchedGroup._list

        def list_slowly(group, path):
            members = path == znodes.group_path("compute")
            if members and listed.is_set():
                again.set()
                end.wait()
            found = real(group, path)
            if members and not listed.is_set():
                listed.set()
                go_on.wait()
            return found

        with (
            mock.patch.object(watched.WatchedGroup, "_list", list_slowly),
            mock.patch.object(
                watched.WatchedGroup,
                "names",
                lambda group, timeout: group.ask(),
            ),
        ):
            wait_for(listed.is_set, message="a refresh has listed the member")
            self.api.leave("one", "compute")
            go_on.set()
            wait_for(again.is_set, message="that refresh has ended")
            view = process.shared().view("compute")
            state = view.observer.verdict("one").state
            end.set()
        self.assertEqual("down", state)

    def test_odd_names(self):
        names = ["a/b", "..", ".hidden", "x@y", "höst", "50%", "a b"]
        for name in names:
            self.join(name, group="odd/group")
        self.assertEqual(sorted(names), self.api.get_all("odd/group"))
        self.assertEqual(["odd/group"], self.api.groups())

    def test_a_member_forgotten_by_others_is_remembered(self):
        """An operator's delete in zkCli does not remove a living member."""
        self.flags(service_down_time=1.0)
        self.join("one")
        name = self.znode("one")
        self.zk.delete(f"{self.prefix}/compute/{name}")
        wait_for(
            lambda: self.znodes() == [name], message="its znode is back"
        )

    def test_last_seen_is_the_last_refresh_that_found_it(self):
        member = self.start_member("one")
        self.wait_until_up("one")
        driver = process.load("zk")
        self.addCleanup(driver.close)

        def seen():
            (one,) = driver.observe("compute").observations
            return one.attributes.lost, one.last_seen

        self.assertFalse(seen()[0])
        refreshed = datetime.datetime.now(datetime.UTC)
        member.kill()
        self.wait_until_down("one")
        # The observer that saw it alive refreshes again only now.
        lost, last = seen()
        self.assertTrue(lost)
        self.assertLessEqual(last, refreshed)

    def test_last_seen_by_an_observer_that_comes_later(self):
        self.flags(service_down_time=1)
        self.join("one", interval=0.2)
        self.wait_until_up("one")

        def written():
            path = znodes.entry_path("compute", "one", "nova-compute")
            try:
                return self.zk.exists(path)["mtime"]
            except zookeeper.NoNodeException:
                return 0

        first = wait_for(written)
        wait_for(
            lambda: written() - first > 1500,
            20,
            "the znode of its last report is written again",
        )

    def test_an_interruption_is_not_lost(self):
        """The refresh that should bring it fails."""
        driver = process.load("zk")
        self.addCleanup(driver.close)
        self.join("one")
        followed = driver._groups["compute"]
        wait_for(lambda: driver.observe("compute").observations, PATIENCE)
        followed._session_event("suspended")
        with mock.patch.object(
            driver, "_read_group", side_effect=zookeeper.ZooKeeperException
        ):
            self.assertRaises(
                exception.BackendError, driver.observe, "compute"
            )
        self.assertTrue(driver.observe("compute").interrupted)
        self.assertFalse(driver.observe("compute").interrupted)

    def test_an_own_write_is_waited_for_after_a_failed_refresh(self):
        self.join("one")
        driver = process.shared().driver
        followed = driver._groups["compute"]
        driver.follow("compute", lambda: None)
        wait_for(lambda: followed.names(1) is not None, PATIENCE)
        path = znodes.group_path("compute")
        followed.wrote(path, "not there", True)
        with mock.patch.object(followed, "_sets", lambda: [None] * 3):
            self.assertIsNone(followed.names(0))
        begun = time.monotonic()
        followed.names(0)
        self.assertGreaterEqual(
            time.monotonic() - begun, watched.ECHO_WAIT / 2
        )

    def test_followers_are_woken_until_they_unfollow(self):
        self.api.watch("compute", print)
        shared = process.shared()
        followed = shared.driver._groups["compute"]
        wait_for(lambda: followed._wakes, PATIENCE)
        view = shared.view("compute")
        [poller] = view.observer._pollers
        shared.driver.follow("compute", poller._wake.set)
        self.assertEqual(1, len(followed._wakes))
        view.close()
        self.assertEqual([], followed._wakes)

    def test_a_process_can_leave_for_another_host(self):
        """The other host is dead, but its session has not ended yet."""
        member = self.start_member("one")
        member.signal(signal.SIGSTOP)
        self.api.leave("one", "compute")
        self.assertEqual([], self.znodes())
        self.assertEqual(
            "left the group", self.api.member("compute", "one").reason
        )

    def test_references(self):
        self.join("one")
        seen = self.api.member("compute", "one").last_seen
        reference = {
            "host": "one",
            "topic": "compute",
            "updated_at": None,
            "forced_down": False,
        }
        self.assertTrue(self.api.service_is_up(reference))
        self.assertLessEqual(seen, self.api.get_updated_time(reference))
        reference["forced_down"] = True
        self.assertFalse(self.api.service_is_up(reference))

    def test_forced_down_is_known_to_every_observer(self):
        self.join("one")
        self.wait_until_up("one")
        # Another observer, and another session.
        other = zk_driver.ZkDriver()
        self.addCleanup(other.close)
        other.force_down("compute", "one", True)
        self.wait_until_down("one")
        other.force_down("compute", "one", False)
        self.wait_until_up("one")
        with self.assertRaises(exception.MemberNotFound):
            other.force_down("compute", "no-such-host", True)
        with self.assertRaises(exception.MemberNotFound):
            other.forget("compute", "no-such-host")

    def test_forget(self):
        self.join("one")
        with self.assertRaises(exception.MemberIsUp):
            self.api.forget("one", "compute")
        self.api.force_down("one", "compute")
        with self.assertRaises(exception.MemberIsUp):
            self.api.forget("one", "compute")
        self.api.leave("one", "compute")
        self.api.forget("one", "compute")
        self.assertEqual([], self.api.members("compute"))
        for kind in ("members", "forced"):
            path = f"{self.prefix}/.{kind}/compute"
            self.assertEqual([], self.zk.get_children(path))

    def test_clock_steps_change_no_verdict(self):
        events = self.collect(self.api)
        self.join("one")
        self.wait_until_up("one")
        now = time.time
        for step in (3600 * 24, -3600 * 24):
            with mock.patch("time.time", lambda: now() + step):  # noqa: B023
                with zk.Poller(self.api, "one") as poller:
                    time.sleep(0.5)
                self.assertEqual(["up"], poller.states)
        self.assert_becomes(["joined"], lambda: [e.type for e in events])


@single_mode
class ToolsTest(zk.ZkTestCase):
    """Operators' programs."""

    def test_ls_in_zookeepers_own_shell(self):
        """With the prefix of the legacy driver, below a chroot."""
        chroot = self.ensemble.address + self.prefix
        self.flags(
            "zookeeper", address=chroot, sg_prefix="/servicegroups"
        )
        self.join("node1")
        member = self.start_member(
            "node2",
            zookeeper={"address": chroot, "sg_prefix": "/servicegroups"},
        )
        expected = sorted(
            self.zk.get_children(f"{self.prefix}/servicegroups/compute")
        )
        self.assertEqual(
            ["node1", "node2"], [n.partition("@")[0] for n in expected]
        )
        self.assertEqual(expected, self._ls(chroot))
        member.kill()
        self.api.leave("node1", "compute")
        self.assertEqual(["node2"], [n[:5] for n in self._ls(chroot)])

    def _ls(self, address):
        jars = ("zookeeper", "slf4j-log4j12", "log4j-1.2", "commons-cli")
        said = os.path.join(self.folder, "ls")
        shell = self.start_java(
            said,
            *("-cp", ":".join(f"{_JARS}/{jar}.jar" for jar in jars)),
            "org.apache.zookeeper.ZooKeeperMain",
            *("-server", address, "ls", "/servicegroups/compute"),
        )
        wait_for(lambda: shell.poll() is not None, message="zkCli ends")
        with open(said) as output:
            line = [x for x in output if x.startswith("[")][-1]
        return [name for name in line.strip("[]\n").split(", ") if name]

    def start_java(self, said, *arguments):
        with open(said, "w") as output:
            process = subprocess.Popen(
                # With options that keep it from writing to /tmp.
                ["java", *_JAVA_OPTIONS, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(process.kill)
        return process

    def nova_sg(self, config, *arguments, status=0):
        program = self.start_process(
            "-m", "nova_sg.cmd.shell", "--config-file", config, *arguments
        )
        self.assertEqual(status, program.wait(), program.output())
        return program.output()

    def test_agent_and_command_line(self):
        config = self.write_config()
        watch = self.start_process(
            *("-m", "nova_sg.cmd.shell", "--config-file", config),
            *("watch", "-f", "json"),
        )
        agent = self.start_process(
            *("-m", "nova_sg.cmd.agent", "--config-file", config),
            *("--host", "node1"),
        )
        self.nova_sg(
            config, "wait", "node1", "--for", "up", "--timeout", "30"
        )
        self.assertEqual("up\n", self.nova_sg(config, "is-up", "node1"))
        self.assertEqual(
            "node1 compute nova-compute up\n",
            self.nova_sg(
                config,
                *("list", "-f", "value"),
                *("-c", "Host", "-c", "Topic", "-c", "Binary", "-c", "State"),
            ),
        )
        self.nova_sg(config, "forget", "node1", status=1)
        self.nova_sg(config, "force-down", "node1")
        self.nova_sg(config, "is-up", "node1", status=1)
        self.nova_sg(config, "force-down", "node1", "--unset")
        self.nova_sg(config, "is-up", "node1")
        self.assertEqual(1, len(self.znodes()))
        agent.signal(signal.SIGTERM)
        self.assertEqual(0, agent.wait(), agent.output())
        # It has left, so its session did not have to end first.
        self.assertEqual([], self.znodes())
        watch.expect('"left"')
        shown = self.nova_sg(
            config,
            *("show", "node1", "-f", "value"),
            *("-c", "State", "-c", "Reason", "-c", "Last Seen", "-c", "Age"),
        )
        state, seen, age, reason = shown.splitlines()
        self.assertRegex(age, r"^\d+\.\d")
        self.assertEqual(("down", "left the group"), (state, reason))
        self.assertRegex(seen, r"^20\d\d-")
        self.nova_sg(config, "forget", "node1")
        self.assertEqual("", self.nova_sg(config, "list", "-f", "value"))
        self.assertNotIn("Traceback", agent.output())

    def test_doctor_knows_an_ensemble(self):
        self.ensemble = zk.ensemble(3)
        config = self.write_config()
        doctor = self.nova_sg(config, "doctor")
        for server in self.ensemble.servers:
            self.assertIn(f"{server.address}: {server.mode}, ", doctor)
        # One that is cut off would keep its clients for 5 s.
        self.RECV_TIMEOUT = 7000
        said = self.nova_sg(self.write_config(), "doctor", status=1)
        self.assertEqual(3, said.count("in a small group they would"), said)
        self.assertIn("recv_timeout to 7500 or more", said)
        # It finds a server that is down.
        self.ensemble.servers[0].stop()
        self.addCleanup(zk.ensemble, 3)
        said = self.nova_sg(config, "doctor", status=1)
        address = self.ensemble.servers[0].address
        self.assertIn(f"BAD ZooKeeper server {address}: no answer", said)

    def test_no_member_is_down_during_a_reload(self):
        config = self.write_config()
        agent = self.start_process(
            *("-m", "nova_sg.cmd.agent", "--config-file", config),
            *("--host", "node1"),
        )
        self.wait_until_up("node1")
        before = self.znodes()
        with zk.Poller(self.api, "node1") as poller:
            agent.signal(signal.SIGHUP)
            wait_for(
                lambda: self.znodes() not in (before, []),
                message=lambda: f"a new session joins: {agent.output()}",
            )
            wait_for(
                lambda: len(self.znodes()) == 1, message="the old one ends"
            )
        self.assertEqual(["up"], poller.states)


@single_mode
class OptionsTest(zk.ZkTestCase):
    def refused(self, words):
        with self.assertRaisesRegex(exception.ConfigError, words):
            process.shared()

    def test_a_missing_address_is_refused(self):
        self.flags("zookeeper", address=None)
        self.refused(r"^\[zookeeper\] address: ")

    def test_other_spellings_of_the_address_are_refused(self):
        for address, words in (
            ("zk://a:1", "is a URL"),
            ("a:1,,b:2", "is no server"),
            ("a:x", "the port in 'a:x' is no number"),
            ("a:70000", "1 to 65535"),
            ("a:1/x//y", "the path '/x//y'"),
            ("a:1/x,b:2", "the path '/x,b:2'"),
            ("[::1", "closing bracket"),
            (" , ", "names no server"),
        ):
            with self.subTest(address):
                self.flags("zookeeper", address=address)
                self.refused(rf"^\[zookeeper\] address: .*{words}.*host:port")

    def test_blanks_and_ends_of_the_address_do_not_matter(self):
        [server] = self.ensemble.servers
        self.flags(
            "zookeeper", address=f" 127.0.0.1:{server.port} , {self.prefix}/ "
        )
        self.join("one")
        self.assertTrue(self.is_up("one"))

    def test_a_path_that_does_not_exist_is_created(self):
        path = f"{self.prefix}/openstack/nova"
        self.flags("zookeeper", address=self.ensemble.address + path)
        driver = process.load("zk")
        self.addCleanup(driver.close)
        [missing] = [one for one in driver.check() if not one.ok]
        self.assertIn(f"{path} does not exist", missing.text)
        self.join("one")
        self.assertTrue(self.is_up("one"))
        self.assertEqual([], self.api.get_all("other"))
        self.assertTrue(self.zk.exists(path))
        self.assertTrue(all(one.ok for one in driver.check()))

    def test_without_a_server_there_are_few_lines(self):
        """The C client has some thirty a second."""
        self.flags("zookeeper", address=f"127.0.0.1:{free_port()}")
        config = os.path.join(self.folder, "nova-sg.conf")
        with open(config, "w") as written:
            written.write(
                "[DEFAULT]\n"
                "servicegroup_driver = zk\n"
                f"state_path = {self.folder}\n"
                "report_interval = 1\n"
                "service_down_time = 6\n"
                "log_transitions = true\n"
                f"[zookeeper]\naddress = {CONF.zookeeper.address}\n"
            )
        agent = self.start_process(
            *("-m", "nova_sg.cmd.agent", "--config-file", config),
            environment={"HOME": self.folder},
        )
        listed = self.start_process(
            *("-m", "nova_sg.cmd.shell", "--config-file", config, "list"),
            environment={"HOME": self.folder},
        )
        self.assertEqual(2, listed.wait())
        self.assertEqual(
            f"ZooKeeper at {CONF.zookeeper.address}: no server is connected",
            listed.output().strip(),
        )
        agent.expect("Cannot report the state of", 30)
        agent.expect("Cannot refresh group", 30)
        # Reports and refreshes go on to fail.
        time.sleep(5)
        self.assertLessEqual(len(agent.output().splitlines()), 6)

    def test_sg_creator_without_digest_is_refused(self):
        self.flags("zookeeper", acl="creator")
        self.refused(r"^\[zookeeper\] digest: ")

    def test_a_missing_library_is_refused(self):
        """Only the zk driver needs it."""
        with (
            mock.patch.object(clib, "SONAME", "libnotthere.so.2"),
            mock.patch.object(clib, "_loaded", {}),
        ):
            self.refused("libzookeeper-mt2")
            self.flags(servicegroup_driver="db")
            self.api = servicegroup.API()
            self.join("one")
            self.assertTrue(self.is_up("one"))

    def test_the_legacy_configuration_is_understood(self):
        """The example of the specification, with its quotes."""
        config = os.path.join(self.folder, "nova.conf")
        with open(config, "w") as written:
            written.write(
                "[DEFAULT]\n"
                "# Driver for the ServiceGroup service\n"
                'servicegroup_driver="zk"\n'
                "\n"
                "[zookeeper]\n"
                'address="192.168.2.1:2181,192.168.2.2:2181,'
                '192.168.2.3:2181"\n'
            )
        agent = self.start_process(
            *("-m", "nova_sg.cmd.shell", "--config-file", config, "is-up"),
            "node1",
            environment={"HOME": self.folder},
        )
        self.assertEqual(2, agent.wait())
        self.assertIn(
            "ZooKeeper at 192.168.2.1:2181,192.168.2.2:2181,"
            "192.168.2.3:2181: no server is connected",
            agent.output(),
        )
        self.assertNotIn("Traceback", agent.output())

    def test_prefix(self):
        self.flags("zookeeper", sg_prefix=f"{self.prefix}/a/b")
        self.join("one")
        names = self.zk.get_children(f"{self.prefix}/a/b/compute")
        self.assertEqual(1, len(names))
        self.assertRegex(names[0], "^one@[0-9a-f]+$")


class AccessTest(zk.ZkTestCase):
    def setUp(self):
        super().setUp()
        self.flags("zookeeper", acl="creator", digest="nova:secret")

    def test_clients_without_the_digest_can_only_read(self):
        self.join("one")
        self.api.force_down("one", "compute")
        self.api.force_down("one", "compute", forced=False)
        znode = f"compute/{self.znode('one')}"
        for path in (
            "compute",
            ".members/compute",
            ".members/compute/one@nova-compute",
            ".forced/compute",
            znode,
        ):
            path = f"{self.prefix}/{path}"
            with self.subTest(path=path):
                self.zk.get(path)
                self.zk.get_children(path)
                for write in (
                    lambda: self.zk.set(path, "x"),  # noqa: B023
                    lambda: self.zk.delete(path),  # noqa: B023
                    lambda: self.zk.create(f"{path}/x", ""),  # noqa: B023
                ):
                    with self.assertRaises(
                        (
                            zookeeper.NoAuthException,
                            # The server checks this before the permission.
                            zookeeper.NotEmptyException,
                            zookeeper.NoChildrenForEphemeralsException,
                        )
                    ):
                        write()
        # A client with the right digest can.
        self.api.leave("one", "compute")
        self.api.forget("one", "compute")

    def test_a_service_without_the_digest_can_observe_but_not_join(self):
        self.join("one")
        process.reset()
        self.flags("zookeeper", acl="open", digest="nova:wrong")
        service = self.join("two")
        wait_for(
            lambda: self.logs.matching("Cannot report the state of two"),
            message="the log has that two cannot join",
        )
        self.assertTrue(service.model_disconnected)
        names = [n.partition("@")[0] for n in self.znodes()]
        self.assertNotIn("two", names)
        self.assertEqual(
            ["one"], [m.host for m in self.api.members("compute")]
        )


class HostileTest(zk.ZkTestCase):
    def test_foreign_znodes_are_ignored_with_one_warning(self):
        self.join("one")
        events = self.collect(self.api)
        foreign = {
            "compute": ["plain", "one@", "@ff", "%FF@1", "a b@1", "x%00@1"],
            ".members/compute": ["plain", "a@b@c", "%FE@nova-compute", "@"],
            ".forced/compute": ["a%0Ab"],
            "": ["%FD"],
        }
        self.zk.ensure_path(f"{self.prefix}/.forced/compute")
        for path, names in foreign.items():
            for name in names:
                path_to_it = f"{self.prefix}/{path}".rstrip("/")
                self.zk.create(f"{path_to_it}/{name}", b"\xff\0" * 250_000)
        self.join("two")
        wait_for(
            lambda: [event.host for event in events] == ["two"],
            message="an event of two, and no other",
        )
        for _ in range(2):
            self.assertEqual(["one", "two"], self.api.get_all("compute"))
            members = self.api.members("compute")
            self.assertEqual(["one", "two"], [m.host for m in members])
            self.assertEqual(["compute"], self.api.groups())
            self.api.refresh("compute")
            for names in foreign.values():
                for name in names:
                    words = f"Ignored the znode {name!r}:"
                    # Watches of several paths come in any order.
                    wait_for(
                        lambda: self.logs.matching(words),  # noqa: B023
                        message=words,
                    )
                    self.assertEqual(1, len(self.logs.matching(words)), words)


class ManyProcessesTest(zk.ZkTestCase):
    def test_a_member_of_two_processes_is_up_while_one_lives(self):
        first = self.start_member("one")
        second = self.start_member("one")
        self.assertEqual(2, len(self.znodes()))
        with zk.Poller(self.api, "one") as poller:
            first.kill()
            wait_for(
                lambda: len(self.znodes()) == 1, message="the first is gone"
            )
            third = self.start_member("one")
            second.tell("leave")
            second.expect("done: leave")
            self.assertEqual(1, len(self.znodes()))
            wait_for(lambda: len(self.znodes()) == 1)
        self.assertEqual(["up"], poller.states)
        third.tell("end")
        self.wait_until_down("one")
        self.assertEqual(0, third.wait(), third.output())

    def test_fork_after_the_api_was_made(self):
        """The parent has joined, too: parent and child are two members."""
        self.join("one")
        self.assertTrue(self.is_up("one"))
        child = os.fork()
        if not child:
            status = 1
            try:
                if tests.MODE == "eventlet":
                    # oslo.service does so: the child gets its own epoll.
                    hubs = importlib.import_module("eventlet.hubs")
                    hubs.use_hub()
                self.join("one")
                self.join("child")
                wait_for(lambda: self.is_up("child") and self.is_up("one"))
                api = servicegroup.API()
                wait_for(lambda: "child" in api.get_all("compute"))
                status = 0
            finally:
                os._exit(status)
        statuses = []

        def ended():
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                statuses.append(status)
            return pid

        wait_for(ended, 2 * PATIENCE, "the child ends")
        self.assertEqual([0], statuses)
        self.assertEqual(2, [n[:4] for n in self.znodes()].count("one@"))
        self.assertTrue(self.is_up("one"))
