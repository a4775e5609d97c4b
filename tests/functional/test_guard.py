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

"""The crash guard: members whose process ends without leaving."""

import errno
import json
import logging
import os
import re
import signal
import sqlite3
import threading
import time
from unittest import mock

from nova_sg import servicegroup
from nova_sg.backends.memcached import values as mc_values
from nova_sg.guard import main, orders
from nova_sg.servicegroup import process as shared_by_process
from tests import base, single_mode
from tests.base import wait_for
from tests.functional import db, mc, zk

CRASHED = "its process ended without leaving the group"
# service_down_time: no member falls by silence during a test. It is also how
# long a guard goes on to try if a failed test has ended its server.
LONG = 300.0
# The memory that a guard may use, in KiB.
MEMORY = 15 * 1024


def _status(pid):
    """Return the status of a process as in proc(5); {}: it does not exist."""
    try:
        with open(f"/proc/{pid}/status") as status:
            found = dict(line.split(":\t", 1) for line in status)
    except (FileNotFoundError, ProcessLookupError):
        return {}
    # A zombie has ended: only its parent does not know yet.
    return {} if found["State"].startswith("Z") else found


def _guards_of(pid):
    """Return the process ids of the guards that a process has started."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        status = _status(entry)
        name = status.get("Name", "").strip()
        if name == "nova-sg-guard" and int(status["PPid"]) == pid:
            found.append(int(entry))
    return found


class _Guarded:
    """Processes with guarded members. A subclass has a test case with:

    options()           the options that a process needs to join, by section
    make_unreachable()  has the backend not answer; returns a function that
                        has it answer again

    The guard is a process of its own, and does not depend on the mode. The
    mode matters for how its service starts it and sends it orders.
    """

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=LONG)
        self.api = servicegroup.API()
        self.started = False

    def start(self, *hosts, **options):
        """Start a process with members."""
        settings = self.options()
        for section, values in options.items():
            settings.setdefault(section, {}).update(values)
        process = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        if not self.started:
            # Runs after all processes have ended.
            self.addCleanup(self.assert_no_file_is_left)
        self.started = True
        self.addCleanup(self.end, process)
        process.expect("ready", 120)
        for host in hosts:
            self.join(process, host)
        return process

    def end(self, process):
        """End a process, and its guard before its server ends."""
        guards = _guards_of(process.pid)
        process.close()
        for guard in guards:
            self.wait_for_end(guard)

    def assert_no_file_is_left(self):
        def found():
            return [
                name
                for name in os.listdir(self.folder)
                if name.startswith("nova-sg-guard")
            ]

        # A guard removes the file after the member is withdrawn.
        wait_for(lambda: not found(), 60, lambda: f"no file: {found()}")

    def join(self, process, host):
        process.tell(f"join {host}")
        self.wait_for_reason(host, "last report")

    def guard_of(self, process):
        """Wait for a process's guard; return its process id."""
        (guard,) = wait_for(
            lambda: _guards_of(process.pid), 60, "there is a guard"
        )
        return guard

    def wait_for_end(self, guard):
        wait_for(lambda: not _status(guard), 60, "the guard ends")

    def reason(self, host):
        self.api.refresh("compute")
        members = {m.host: m for m in self.api.members("compute")}
        return members[host].reason if host in members else ""

    def wait_for_reason(self, host, words):
        wait_for(
            lambda: words in self.reason(host),
            60,
            lambda: f"{host}: {words}, not {self.reason(host)}",
        )


class _Tests(_Guarded):
    """Tests for every driver."""

    def test_members_of_a_killed_process_are_down_at_once(self):
        events = self.collect(self.api)
        process = self.start("one", "two")
        guard = self.guard_of(process)
        # A child that lives on does not keep the member up.
        process.tell("fork")
        process.expect("done: fork")
        child = int(re.search(r"child (\d+)\.", process.output())[1])
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.assertLess(int(_status(guard)["VmRSS"].split()[0]), MEMORY)
        self.assertEqual(guard, os.getsid(guard))
        # systemd sends it to all processes of a service.
        os.kill(guard, signal.SIGTERM)
        process.kill()
        self.wait_for_reason("one", CRASHED)
        self.wait_for_reason("two", CRASHED)
        self.wait_for_end(guard)
        wait_for(
            lambda: [e.host for e in events if e.type == "down"].count("one"),
            message="an event",
        )
        self.assertNotIn("left", [event.type for event in events])
        self.assertIn("one in the group compute", process.output())
        # The member can join again.
        again = self.start("one")
        self.assertEqual(CRASHED, self.reason("two"))
        again.tell("leave one")
        self.wait_for_reason("one", "left the group")

    @single_mode
    def test_a_member_that_joined_again_is_not_withdrawn(self):
        first, second = self.start("one"), self.start()
        guard = self.guard_of(first)
        first.kill()
        second.tell("join one")
        second.expect("done: join")
        self.wait_for_end(guard)
        self.wait_for_reason("one", "last report")
        # Now it is watched by its new process's guard.
        guard = self.guard_of(second)
        second.kill()
        self.wait_for_reason("one", CRASHED)
        self.wait_for_end(guard)

    @single_mode
    def test_a_guard_tries_while_the_backend_is_unreachable(self):
        process = self.start("one")
        hasty = self.start("two", DEFAULT={"service_down_time": 2.0})
        guards = self.guard_of(process), self.guard_of(hasty)
        make_reachable = self.make_unreachable()
        process.kill()
        hasty.kill()
        # A guard tries for service_down_time, and no longer.
        self.wait_for_end(guards[1])
        self.assertIn("could not be withdrawn", hasty.output())
        self.assertTrue(_status(guards[0]))
        make_reachable()
        self.wait_for_reason("one", CRASHED)
        self.wait_for_end(guards[0])

    @single_mode
    def test_a_member_of_two_processes_is_down_when_both_have_ended(self):
        first, second = self.start("one"), self.start("one")
        guard = self.guard_of(first)
        self.guard_of(second)
        second.expect("done: join")
        events = self.collect(self.api)
        first.kill()
        self.wait_for_end(guard)
        self.assertIn("last report", self.reason("one"))
        self.assertEqual([], events)
        # A guard withdraws only reports of its own process.
        seen = self.api.member("compute", "one").last_seen
        wait_for(
            lambda: self.reason("one")
            and self.api.member("compute", "one").last_seen > seen,
            60,
            "the second has reported",
        )
        second.kill()
        self.wait_for_reason("one", CRASHED)


class _ProcessTests(_Tests):
    """Tests that need not run with every driver."""

    @single_mode
    def test_a_member_that_left_is_not_withdrawn(self):
        process = self.start("one", "two")
        guard = self.guard_of(process)
        process.tell("leave one")
        process.expect("done: leave")
        process.signal(signal.SIGSEGV)
        process.wait()
        self.wait_for_reason("two", CRASHED)
        self.wait_for_end(guard)
        self.assertEqual("left the group", self.reason("one"))

    def test_a_guard_that_is_killed_is_replaced(self):
        process = self.start("one")
        guard = self.guard_of(process)
        for _ in range(2):
            os.kill(guard, signal.SIGKILL)
            self.wait_for_end(guard)
            guard = self.guard_of(process)
        self.assertEqual(1, process.output().count("starting another"))
        process.kill()
        self.wait_for_reason("one", CRASHED)


class McTest(_ProcessTests, mc.McTestCase):
    def setUp(self):
        super().setUp()
        mc.McTestCase.start(self, 2)
        self.flags("memcache", memcache_secret_key="s3cret")

    def options(self):
        return {
            "DEFAULT": {
                "servicegroup_driver": "mc",
                "memcached_servers": [s.address for s in self.servers],
                "service_down_time": LONG,
                "state_path": self.folder,
            },
            "memcache": {"memcache_secret_key": "s3cret"},
        }

    def test_observers_that_rarely_refresh_are_told_of_a_crash(self):
        self.flags("servicegroup", view_refresh_interval=3600)
        events = self.collect(self.api)
        process = self.start("one", "two")
        guard = self.guard_of(process)
        raw = self.raw(self.servers[0])
        key = mc_values.refresh_signal_key("compute")
        wait_for(lambda: raw.get(key), 60, "there is what tells of it")
        # What keeps it knows of no crash for longer than members care.
        self.assertLessEqual(raw.seconds_left(key), 2 * LONG)
        self.api.refresh("compute")
        # One server may be down.
        self.servers[1].stop()
        process.kill()
        for host in "one", "two":
            wait_for(
                lambda host=host: ("down", host)
                in [(event.type, event.host) for event in events],
                60,
                f"an event for {host}",
            )
        self.assertEqual(
            {"crashed"}, {e.cause for e in events if e.type == "down"}
        )
        # The guard goes on until each server has it.
        self.assertTrue(_status(guard))
        self.servers[1].start()
        self.wait_for_end(guard)

    def make_unreachable(self):
        for server in self.servers:
            server.freeze()

        def back():
            for server in self.servers:
                server.thaw()

        return back


class _DbTests(_Tests):
    def setUp(self):
        super().setUp()
        self.flags(servicegroup_driver="db")

    def options(self):
        return {
            "DEFAULT": {
                "servicegroup_driver": "db",
                "service_down_time": LONG,
                "state_path": self.folder,
            },
        }


class MariaDBTest(_DbTests, db.MariaDBTestCase):
    def options(self):
        found = super().options()
        found["database"] = {"connection": self.url}
        return found

    def make_unreachable(self):
        self.server.freeze()
        return self.server.thaw

    def unread(self):
        """Whether bytes wait in the kernel that the server has not read."""
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in list(table)[1:]]
        return any(
            int(local.partition(":")[2], 16) == self.server.port
            and state == "01"
            and int(queues.partition(":")[2], 16)
            for _, local, _, state, queues, *_ in rows
        )

    @single_mode
    def test_a_report_under_way_raises_no_killed_member(self):
        process = self.start("one")
        guard = self.guard_of(process)
        before = self.value("report_count", "one")
        # This process refreshes no more: only reports are sent.
        shared_by_process.reset()
        back = self.make_unreachable()
        wait_for(self.unread, 30, "a report has been sent")
        process.kill()
        died = time.monotonic()
        wait_for(
            lambda: int(_status(guard)["Threads"]) > 1,
            30,
            "the guard tries to mark the record",
        )
        os.kill(guard, signal.SIGSTOP)
        # The server executes the report after its process has ended, by more
        # than two clocks may differ.
        wait_for(lambda: time.monotonic() > died + 0.2)
        back()
        wait_for(
            lambda: self.value("report_count", "one") > before,
            30,
            "the late report arrives",
        )
        os.kill(guard, signal.SIGCONT)
        self.wait_for_reason("one", CRASHED)
        self.wait_for_end(guard)


class EmbeddedTest(_DbTests, db.TestCase):
    test_a_member_that_joined_again_is_not_withdrawn = None
    test_a_member_of_two_processes_is_down_when_both_have_ended = None

    def make_unreachable(self):
        path = os.path.join(self.folder, "nova-sg.sqlite")
        link = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(link.close)
        link.execute("BEGIN EXCLUSIVE")
        return link.rollback


class _Zk(_Guarded, zk.ZkTestCase):
    # No member falls by the end of its session during a test.
    RECV_TIMEOUT = 40000

    def options(self):
        return {
            "DEFAULT": {
                "servicegroup_driver": "zk",
                "service_down_time": LONG,
                "state_path": self.folder,
            },
            "zookeeper": {
                **self.access(),
                "recv_timeout": self.RECV_TIMEOUT,
                "sg_prefix": self.prefix,
                "sg_retry_interval": 1,
            },
        }

    def access(self):
        options = super().access()
        return {**options, "address": options["address"] + "/guarded"}

    def setUp(self):
        super().setUp()
        self.flags("zookeeper", digest="nova:s3cret", acl="creator")

    def make_unreachable(self):
        for server in self.ensemble.servers:
            server.freeze()

        def back():
            for server in self.ensemble.servers:
                server.thaw()

        return back


class ZkTest(_ProcessTests, _Zk):
    pass


@single_mode
class ManyMembersTest(_Zk):
    """Members of one session, which a guard withdraws together."""

    def test_a_new_guard_knows_all_of_many_members(self):
        hosts = [f"n{number:03}" for number in range(300)]
        process = self.start(DEFAULT={"report_interval": 1.0})
        process.tell("join " + " ".join(hosts))
        process.expect("done: join", 60)
        guard = self.guard_of(process)
        os.kill(guard, signal.SIGKILL)
        self.wait_for_end(guard)
        guard = self.guard_of(process)
        process.tell(f"leave {hosts[0]}")
        process.expect("done: leave")
        process.kill()
        self.wait_for_end(guard)

        def crashed():
            self.api.refresh("compute")
            members = self.api.members("compute")
            return {m.host for m in members if m.reason == CRASHED}

        wait_for(
            lambda: crashed() == set(hosts[1:]),
            60,
            lambda: f"{len(crashed())} have crashed",
        )
        # No line has all their names.
        self.assertLess(max(map(len, process.output().splitlines())), 500)


class BusyGuardTest(base.TestCase):
    """A guard that does not read its orders for a moment, or at all."""

    ORDER = {"backend": "mc", "members": {("one", "compute", ""): None}}
    # More than the socket can hold.
    COUNT = 2000

    def setUp(self):
        super().setUp()
        self.supervisor = orders.Supervisor()
        self.addCleanup(self.end)
        self.supervisor.tell(0, dict(self.ORDER))
        self.guard = self.supervisor._process
        os.kill(self.guard.pid, signal.SIGSTOP)

    def end(self):
        self.supervisor._process.kill()
        self.supervisor._process.wait()
        self.supervisor._link.close()

    def tell_all(self):
        for number in range(1, self.COUNT):
            self.supervisor.tell(number, dict(self.ORDER))

    def test_it_is_kept_if_it_reads_soon(self):
        self.enterContext(mock.patch.object(orders, "_TAKES", 60.0))
        later = threading.Timer(0.5, self.guard.send_signal, [signal.SIGCONT])
        later.start()
        self.tell_all()
        later.join()
        self.assertIs(self.guard, self.supervisor._process)

    def test_it_is_replaced_if_it_does_not_read(self):
        self.enterContext(mock.patch.object(orders, "_TAKES", 0.2))
        self.tell_all()
        self.assertIsNot(self.guard, self.supervisor._process)
        self.assertEqual(-signal.SIGKILL, self.guard.poll())


@single_mode
class LockTest(base.TestCase):
    """The lock file by which a guard knows that no other process joined."""

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "not", "yet", "there")

    def hold(self):
        lock = orders._Lock(self.path)
        self.addCleanup(lock.release)
        return lock

    def take(self):
        """Return whether a guard may act, without waiting for its turn."""
        lock = main._Lock(self.path)
        try:
            return lock.take(0)
        finally:
            lock.close()

    def test_the_last_process_removes_the_file(self):
        first, second = self.hold(), self.hold()
        first.release()
        first.release()
        self.assertFalse(self.take())
        self.assertTrue(os.path.exists(self.path))
        second.release()
        self.assertFalse(os.path.exists(self.path))

    def test_a_guard_removes_the_file_of_a_crashed_process(self):
        crashed = self.hold()
        guard = main._Lock(self.path)
        self.addCleanup(guard.close)
        # The kernel does no more when a process ends.
        os.close(crashed._descriptor)
        orders._supervisor().locks.discard(crashed._descriptor)
        crashed._descriptor = None
        self.assertTrue(guard.take(0))
        # Another process tries at this moment, and goes on without the file.
        self.hold().release()
        self.assertTrue(os.path.exists(self.path))
        guard.remove()
        self.assertFalse(os.path.exists(self.path))

    def test_the_file_is_removed_and_made_anew_while_a_guard_waits(self):
        first = self.hold()
        guard = main._Lock(self.path)
        self.addCleanup(guard.close)
        first.release()
        second = self.hold()
        self.assertFalse(guard.take(0))
        second.release()
        self.assertTrue(guard.take(0))
        guard.remove()

    def test_the_file_is_removed_while_a_process_opens_it(self):
        opened = os.open
        removed = []

        def open_late(path, *arguments):
            descriptor = opened(path, *arguments)
            if not removed:
                removed.append(path)
                os.unlink(path)
            return descriptor

        with mock.patch.object(os, "open", open_late):
            self.hold()
        self.assertEqual([self.path], removed)
        self.assertFalse(self.take())

    def test_members_join_without_the_file_if_it_cannot_be_made(self):
        with open(os.path.join(self.folder, "not"), "w"):
            pass
        self.hold().release()
        self.assertTrue(self.take())


class ImpossibleTest(db.TestCase):
    """A guard that cannot start, or act, brings one warning."""

    def setUp(self):
        super().setUp()
        self.flags("servicegroup", crash_guard=True)
        # No guard of other tests is left.
        self.enterContext(
            mock.patch.object(orders, "_the_supervisor", orders.Supervisor())
        )

    def warnings(self, words):
        return self.logs.matching(words, logging.WARNING)

    def test_a_kernel_without_pidfds_is_warned_of(self):
        error = OSError(errno.ENOSYS, "Function not implemented")
        with mock.patch.object(os, "pidfd_open", side_effect=error):
            self.join("one")
            self.join("two")
            self.wait_for_state("up", "one")
        (words,) = self.warnings("The crash guard cannot be started")
        self.assertIn("Linux 5.3", words)
        self.assertIn("Function not implemented", words)

    def test_records_of_nova_are_warned_of(self):
        for host in ("one", "two"):
            member = base.Member(host)
            member.service_ref = mock.MagicMock(report_count=1)
            self.members.append(member)
            self.api.join(host, "compute", member)
            wait_for(
                lambda ref=member.service_ref: ref.save.called,
                message="a report",
            )
        (words,) = self.warnings("crash_guard has no effect with")
        self.assertIn("the driver db:", words)
        self.assertIn("inside Nova", words)
        self.assertEqual([], _guards_of(os.getpid()))
