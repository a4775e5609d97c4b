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
"""Members that are kept by several memcached servers at once."""

import errno
import os
import random
import socket
import subprocess
import sys
import threading
import time
import weakref
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.backends.memcached import (
    protocol,
    replicas,
    servers,
    values,
)
from nova_sg.servicegroup import process
from tests import LONG, base, single_mode
from tests.functional import mc

HOSTS = [f"node{number}" for number in range(5)]
ALL_UP = dict.fromkeys(HOSTS, "up")


class ThreeServersTest(mc.McTestCase):
    def setUp(self):
        super().setUp()
        self.start(3)
        self.raws = [self.raw(server) for server in self.servers]
        self.api = servicegroup.API()

    def states_by(self, server):
        """Return the state of each member by one server alone."""
        self.configure(server.address)
        try:
            return self.states()
        finally:
            self.configure(*(one.address for one in self.servers))

    def test_each_server_has_everything(self):
        members = self.join(*HOSTS)
        self.api.force_down("node1", "compute")
        self.api.leave("node2", "compute")
        expected = ALL_UP | {"node1": "down", "node2": "down"}
        before = [self.reported_at(raw, "node0") for raw in self.raws]
        self.assertNotIn(0.0, before)
        for server in self.servers:
            self.assertEqual(expected, self.states_by(server))
        members[0].tick()
        after = [self.reported_at(raw, "node0") for raw in self.raws]
        for earlier, later in zip(before, after, strict=True):
            self.assertLess(earlier, later)

    def test_forced_down_survives_restarts_one_after_the_other(self):
        self.join(*HOSTS, interval=0.1)
        self.api.force_down("node1", "compute")
        expected = ALL_UP | {"node1": "down"}
        for server in self.servers:
            server.restart()
            base.wait_for(
                lambda server=server: self.states_by(server) == expected,
                message="the server that came back empty has the mark",
            )
        self.assertEqual(expected, self.states())

    def test_forced_down_survives_a_restart_of_all_servers_at_once(self):
        self.join(*HOSTS, interval=0.1)
        # As another process does.
        self.driver().force_down("compute", "node1", True)
        expected = ALL_UP | {"node1": "down"}
        # With this report the member reads its mark.
        base.wait_for(
            lambda: all(self.reported_at(raw, "node1") for raw in self.raws)
        )
        for server in self.servers:
            server.kill()
        for server in self.servers:
            server.start()
        seen = set()

        def all_are_back():
            states = self.states()
            seen.add(states.get("node1"))
            return states == expected

        base.wait_for(all_are_back)
        self.assertNotIn("up", seen)

    def test_an_old_mark_on_an_unreachable_server_does_not_come_back(self):
        self.join(*HOSTS, interval=0.1)
        self.api.force_down("node1", "compute")
        frozen = self.servers[0]
        self.assertEqual("down", self.states_by(frozen)["node1"])
        frozen.freeze()
        self.api.force_down("node1", "compute", False)
        frozen.thaw()
        base.wait_for(lambda: self.states() == ALL_UP)
        base.wait_for(
            lambda: self.states_by(frozen) == ALL_UP,
            message="the server that was frozen has the new mark",
        )

    def test_nothing_is_lost_while_one_server_is_left(self):
        self.flags(service_down_time=10.0)
        self.join(*HOSTS, interval=0.1)
        self.wait_for_states(ALL_UP, process.shared())
        observed = self.collect(self.api)
        last = self.raws[2]

        def reports():
            return {host: self.reported_at(last, host) for host in HOSTS}

        for server in self.servers[:2]:
            server.kill()
            before = reports()
            base.wait_for(
                lambda before=before: all(
                    at > before[host] + 1 for host, at in reports().items()
                ),
                message="all report to the servers that are left",
            )
            self.assertEqual(ALL_UP, self.states())
            self.assertEqual(HOSTS, self.api.get_all("compute"))
        self.assertEqual([], observed)
        self.assertEqual([], self.logs.matching("Cannot report"))
        self.assertEqual([], self.logs.matching("Cannot ask"))

    def test_an_empty_server_gets_all_members_back(self):
        # Half of service_down_time would be the whole test.
        self.flags(service_down_time=600.0)
        members = self.join(*HOSTS)
        self.servers[1].kill()
        for member in members:
            member.tick()
        self.servers[1].start()
        # An empty server hides no member of the other ones.
        self.assertEqual(ALL_UP, self.states())
        self.assertEqual({}, self.states_by(self.servers[1]))

        def all_are_back():
            for member in members:
                member.tick()
            return self.states_by(self.servers[1]) == ALL_UP

        base.wait_for(all_are_back, message="all are listed there again")

    def test_force_down_and_forget_while_a_server_is_dead(self):
        self.join(*HOSTS)
        self.servers[0].kill()
        self.api.leave("node2", "compute")
        self.api.force_down("node1", "compute")
        self.api.forget("node2", "compute")
        self.assertEqual(
            {host: "up" for host in HOSTS if host != "node2"}
            | {"node1": "down"},
            self.states(),
        )

    def test_a_frozen_server_delays_a_call_by_one_time_out(self):
        timeout = 3.0
        self.flags(service_down_time=60.0)
        self.flags("memcache", socket_timeout=timeout)
        members = self.join(*HOSTS)
        self.assertEqual(HOSTS, self.api.get_all("compute"))
        frozen, raw = self.servers[1], self.raws[1]
        took = []

        def timed(work, *args):
            for _ in range(3):
                begun = time.monotonic()
                work(*args)
                took.append(time.monotonic() - begun)
                # The frozen server is tried again after a second.
                time.sleep(0.5)

        frozen.freeze()
        workers = [
            threading.Thread(target=timed, args=[member.tick])
            for member in members
        ]
        workers.append(
            threading.Thread(target=timed, args=[self._refresh_and_check])
        )
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(3 * len(workers), len(took))
        # No call waited for it twice.
        self.assertLess(max(took), 2 * timeout)
        self.assertGreater(max(took), timeout * 0.9, "no call asked it")
        self.assertEqual([], self.logs.matching("Cannot report"))
        frozen.thaw()
        before = {host: self.reported_at(raw, host) for host in HOSTS}

        def used_again():
            for member in members:
                member.tick()
            return all(
                self.reported_at(raw, host) > before[host] for host in HOSTS
            )

        base.wait_for(used_again, message="the thawed server gets reports")

        def asked_again():
            begun = int(raw.stats()["cmd_get"])
            self._refresh_and_check()
            return int(raw.stats()["cmd_get"]) > begun

        base.wait_for(asked_again, message="the thawed server is asked")

    def _refresh_and_check(self):
        self.api.refresh("compute")
        self.assertEqual(HOSTS, self.api.get_all("compute"))

    def test_a_frozen_server_delays_a_new_process_by_one_time_out(self):
        timeout = 3.0
        self.flags("memcache", socket_timeout=timeout)
        self.join(*HOSTS)
        self.servers[0].freeze()
        begun = time.monotonic()
        self.assertEqual(ALL_UP, self.states())
        self.assertLess(time.monotonic() - begun, 2 * timeout)


class RemoteServerTest(mc.McTestCase):
    """One server: its answers, and what its errors say."""

    TIMEOUT = 1.0

    def remote(self, address):
        remote = servers.RemoteServer(address, self.TIMEOUT)
        self.addCleanup(remote.close)
        return remote

    def answering(self, *answers):
        """Return a server that gives each answer to one connection."""
        listener = self.enterContext(socket.create_server(("127.0.0.1", 0)))

        def serve():
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)
                    # Until the other side closes it.
                    while answer and connection.recv(1000):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        return self.remote(f"127.0.0.1:{listener.getsockname()[1]}")

    def assert_fails(self, remote, error):
        """Check the error, and that the server is then left alone."""
        message = f"memcached at {remote.address}: {error}"
        began = time.monotonic()
        for _ in range(2):
            failure = remote.get(["key"]).exception(base.PATIENCE)
            self.assertIsInstance(failure, exception.BackendError)
            self.assertRegex(str(failure), f"^{message}$")
        return time.monotonic() - began

    def test_the_error_says_why_there_is_no_connection(self):
        for address, number in (
            ("127.0.0.1:1", errno.ECONNREFUSED),
            (f"unix:{self.folder}/missing", errno.ENOENT),
        ):
            with self.subTest(address=address):
                self.assert_fails(
                    self.remote(address),
                    rf"cannot connect: \[Errno {number}\] .*",
                )

    def test_a_server_that_hangs_costs_one_time_out(self):
        server = self.start()
        remote = self.remote(server.address)
        self.assertEqual({}, remote.get(["key"]).result(base.PATIENCE))
        server.freeze()
        took = self.assert_fails(remote, "no answer within 1 s")
        self.assertGreaterEqual(took, self.TIMEOUT)
        self.assertLess(took, 2 * self.TIMEOUT)
        server.thaw()

    def test_a_connection_that_was_closed_is_replaced(self):
        server = self.start()
        remote = self.remote(server.address)
        remote.set("key", b"value").result(base.PATIENCE)
        self.assertEqual(1, remote.generation)
        server.restart()
        self.assertEqual({}, remote.get(["key"]).result(base.PATIENCE))
        self.assertEqual(2, remote.generation)

    def test_the_thread_ends_though_requests_go_on(self):
        server = self.start()
        remote = self.remote(server.address)
        remote.get(["key"]).result(base.PATIENCE)
        server.freeze()
        self.addCleanup(server.thaw)
        remote.get(["key"])
        base.wait_for(remote._in_use.locked)
        closing = threading.Thread(target=remote.close)
        closing.start()
        base.wait_for(lambda: None in remote._jobs)
        error = remote.get(["key"]).exception(base.PATIENCE)
        self.assertRegex(str(error), "closed by this process")
        server.thaw()
        base.wait_for(lambda: not remote._thread.is_alive())
        closing.join()

    def test_no_answer_is_kept(self):
        remote = self.remote(self.start().address)
        future = remote.get(["key"])
        future.result(base.PATIENCE)
        kept = weakref.ref(future)
        del future
        base.wait_for(lambda: kept() is None, message="the answer is freed")

    def test_answers_that_are_not_memcacheds(self):
        for answer, error in (
            (b"", "the server closed the connection"),
            (b"SERVER_ERROR busy\r\n", "unexpected answer b'SERVER_ERROR.*"),
            (b"VALUE key 0\r\n", "unexpected answer .*"),
            (b"VALUE key 0 x\r\n", ".*ValueError.*"),
        ):
            with self.subTest(answer=answer):
                remote = self.answering(answer)
                self.assertLess(
                    self.assert_fails(remote, error), self.TIMEOUT
                )

    def test_a_wrong_answer_does_not_spoil_the_next_one(self):
        remote = self.answering(
            b"ERROR\r\nEND\r\n", b"VALUE key 0 2\r\nok\r\nEND\r\n"
        )
        self.assert_fails(remote, "unexpected answer b'ERROR'")
        base.wait_for(
            lambda: remote.get(["key"]).exception(base.PATIENCE) is None,
            message="the server is tried again",
        )
        self.assertEqual(2, remote.generation)


class DirectTest(mc.McTestCase):
    """Commands that their caller sends itself."""

    TIMEOUT = 1.0

    def setUp(self):
        super().setUp()
        self.start(2)
        self.remotes = [
            servers.RemoteServer(server.address, self.TIMEOUT)
            for server in self.servers
        ]
        self.replicas = replicas.Replicas(self.remotes, self.TIMEOUT)
        for remote in self.remotes:
            self.addCleanup(remote.close)
            remote.get(["key"]).result(base.PATIENCE)

    def set_all(self, value, key="key"):
        self.replicas.execute(
            dict.fromkeys(self.remotes, protocol.set_(key, value))
        )

    def get_all(self, key="key"):
        found = self.replicas.execute(
            dict.fromkeys(self.remotes, protocol.get([key]))
        )
        return [found[one].get(key) for one in self.remotes if one in found]

    def test_no_thread_is_needed(self):
        with mock.patch.object(
            servers.RemoteServer, "submit_all", side_effect=AssertionError
        ):
            self.set_all(b"1")
            self.assertEqual([b"1", b"1"], self.get_all())

    def test_a_connection_that_was_closed_is_replaced(self):
        self.set_all(b"1")
        self.servers[0].restart()
        self.set_all(b"2")
        self.assertEqual([b"2", b"2"], self.get_all())
        self.assertEqual([2, 1], [one.generation for one in self.remotes])

    def test_a_server_that_hangs_costs_one_time_out_and_is_left_alone(self):
        frozen = self.servers[0]
        frozen.freeze()
        self.addCleanup(frozen.thaw)
        took = []
        for _ in range(2):
            begun = time.monotonic()
            self.assertEqual([None], self.get_all())
            took.append(time.monotonic() - begun)
        self.assertGreaterEqual(took[0], 0.9 * self.TIMEOUT)
        self.assertLess(took[0], 2 * self.TIMEOUT)
        self.assertLess(took[1], self.TIMEOUT)
        self.assertEqual(2, len(took))
        with self.assertRaisesRegex(
            exception.BackendError, "no answer within 1 s"
        ):
            self.replicas.execute({self.remotes[0]: protocol.get(["key"])})

    def test_another_server_is_free_while_one_hangs(self):
        self.servers[0].freeze()
        self.addCleanup(self.servers[0].thaw)
        caller = threading.Thread(target=self.get_all)
        caller.start()
        base.wait_for(lambda: self.remotes[0]._in_use.locked())
        base.wait_for(
            lambda: not self.remotes[1]._in_use.locked(),
            message="the server that has answered is free again",
        )
        self.assertTrue(caller.is_alive(), "it waits for the other server")
        caller.join()

    def test_callers_at_the_same_time(self):
        count = 40
        answers = {}

        def work(number):
            key = f"key{number}"
            for step in range(20):
                value = b"%d-%d" % (number, step)
                self.set_all(value, key)
                answers[number, step] = self.get_all(key) == [value, value]

        workers = [
            threading.Thread(target=work, args=[number])
            for number in range(count)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(20 * count, len(answers))
        self.assertTrue(all(answers.values()))
        self.assertEqual([1, 1], [one.generation for one in self.remotes])

    def test_a_caller_that_is_interrupted_leaves_no_answer_behind(self):
        self.set_all(b"1")

        def interrupt(*args):
            raise KeyboardInterrupt()

        with (
            mock.patch.object(
                protocol.Connection, "read_all", side_effect=interrupt
            ),
            self.assertRaises(KeyboardInterrupt),
        ):
            self.get_all("other")
        self.assertEqual([b"1", b"1"], self.get_all())

    def test_a_command_that_is_refused_does_not_fail_the_others(self):
        remote = self.remotes[0]
        found = self.replicas.execute(
            {
                remote: protocol.set_("small", b"1"),
                (remote, "big"): protocol.set_("big", b"x" * 2_000_000),
                (remote, "after"): protocol.get(["small"]),
            }
        )
        self.assertEqual({"small": b"1"}, found[remote, "after"])
        self.assertNotIn((remote, "big"), found)
        with self.assertRaisesRegex(exception.BackendError, "not stored"):
            self.replicas.execute(
                {remote: protocol.set_("big", b"x" * 2_000_000)},
                {(remote, "beside"): protocol.get(["small"])},
            )

    def test_commands_are_refused_after_the_end(self):
        for remote in self.remotes:
            remote.close()
        with self.assertRaisesRegex(
            exception.BackendError, "closed by this process"
        ):
            self.get_all()


class ManyServersTest(mc.McTestCase):
    """Of five servers each group uses three."""

    GROUPS = [f"group{number}" for number in range(12)]

    def setUp(self):
        super().setUp()
        self.start(5)
        self.raws = [self.raw(server) for server in self.servers]

    def holders(self, group, host):
        """Return the indexes of the servers that have a host's report."""
        return [
            number
            for number, raw in enumerate(self.raws)
            if self.reported_at(raw, host, group)
        ]

    @single_mode
    def test_every_process_uses_the_same_three(self):
        used = {}
        for group in self.GROUPS:
            self.join("here", group=group)
            used[group] = self.holders(group, "here")
            self.assertEqual(3, len(used[group]))
        self.assertEqual(
            set(range(5)), {n for chosen in used.values() for n in chosen}
        )
        # Another process, with the servers in another order.
        addresses = [server.address for server in self.servers]
        random.Random(1).shuffle(addresses)
        join_elsewhere(addresses, ["there"], self.GROUPS)
        for group in self.GROUPS:
            self.assertEqual(used[group], self.holders(group, "there"))
            self.assertEqual(
                {"here": "up", "there": "up"}, self.states(group=group)
            )
        self.assertEqual(
            sorted(self.GROUPS), servicegroup.API().groups()
        )

    def test_nothing_is_lost_while_one_server_is_left(self):
        for group in self.GROUPS:
            self.join("here", group=group)
        for server in self.servers[:2]:
            server.kill()
        for group in self.GROUPS:
            self.assertEqual({"here": "up"}, self.states(group=group))
        self.assertEqual(
            sorted(self.GROUPS), servicegroup.API().groups()
        )


class ManyProcessesTest(mc.McTestCase):
    # Of each process.
    MEMBERS = 100 if LONG else 40

    def test_all_members_that_join_at_once_are_known(self):
        self.start(3)
        addresses = [server.address for server in self.servers]
        names = [
            [f"p{process}-node{number:03}" for number in range(self.MEMBERS)]
            for process in range(4)
        ]
        joining = [
            start_elsewhere(addresses, some, ["compute"]) for some in names
        ]
        for other in joining:
            self.addCleanup(other.kill)
        # All wait until each is ready.
        for other in joining:
            self.assertEqual("ready\n", other.stdout.readline())
        for other in joining:
            other.stdin.write("go\n")
            other.stdin.flush()
        for other in joining:
            finish(other)
        expected = {host: "up" for some in names for host in some}
        self.assertEqual(expected, self.states())
        # Each server alone has all of them.
        for server in self.servers:
            self.configure(server.address)
            self.assertEqual(expected, self.states())
            raw = self.raw(server)
            listed = b"".join(
                raw.get(key) or b"" for key in values.index_keys("compute")
            )
            self.assertEqual(
                sorted(expected), sorted(listed.decode().split())
            )


def start_elsewhere(addresses, hosts, groups):
    """Start a process that joins on command, and ends."""
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "tests.functional.mc_joiner"),
            *(",".join(part) for part in (addresses, hosts, groups)),
        ],
        env=os.environ | {"PYTHONHASHSEED": "random"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def join_elsewhere(addresses, hosts, groups):
    """Join groups in a process of its own, and wait for it to end."""
    other = start_elsewhere(addresses, hosts, groups)
    try:
        other.stdin.write("go\n")
        finish(other)
    finally:
        other.kill()


def finish(other):
    output, _ = other.communicate(timeout=120)
    if other.returncode != 0:
        raise AssertionError(f"the process that joins failed: {output}")
