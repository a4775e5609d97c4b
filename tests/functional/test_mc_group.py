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
"""Members that are kept by one memcached server."""

import os
import threading
import time
from unittest import mock

from nova_sg import exception, servicegroup, threads
from nova_sg.backends.memcached import values
from nova_sg.servicegroup import process
from tests import base
from tests.functional import mc

ALL_UP = {"one": "up", "two": "up", "three": "up"}
HOSTS = list(ALL_UP)


class MembershipTest(mc.McTestCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.api = servicegroup.API()

    def test_members_that_joined_are_up(self):
        self.join(*HOSTS)
        self.join("elsewhere", group="network")
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))
        self.assertEqual(["elsewhere"], self.api.get_all("network"))
        self.assertEqual(ALL_UP, self.states())
        self.assertEqual(["compute", "network"], self.api.groups())
        ask = self.api.service_is_up
        self.assertIs(True, ask({"host": "one", "topic": "compute"}))
        self.assertIs(False, ask({"host": "one", "topic": "network"}))

    def test_what_observers_know_of_a_member(self):
        self.join("one")
        began = self.api.member("compute", "one").last_seen
        member = self.another().view("compute").member("one")
        self.assertEqual("one", member.host)
        self.assertEqual("compute", member.topic)
        self.assertEqual("nova-compute", member.binary)
        self.assertEqual("mc", member.driver)
        self.assertEqual(began, member.last_seen)
        self.assertFalse(member.forced_down)
        self.assertLess(member.age, 30)
        # memcached shows its clock in whole seconds, and counts them from
        # its own start.
        self.assertLess(abs(time.time() - began.timestamp()), 30)

    def test_a_silent_member_goes_down(self):
        self.flags(service_down_time=4.0)
        events = self.collect(self.api)
        one, two = self.join("one", "two")

        def two_is_down():
            one.tick()
            return self.states() == {"one": "up", "two": "down"}

        base.wait_for(two_is_down, message="two is down")
        base.wait_for(
            lambda: ("down", "two") in [(e.type, e.host) for e in events],
            message="watchers get the event",
        )
        self.assertNotIn(
            ("down", "one"), [(e.type, e.host) for e in events]
        )
        two.tick()
        self.wait_for_states({"one": "up", "two": "up"})

    def test_a_member_that_left_is_down_at_once(self):
        self.join(*HOSTS)
        before = self.api.member("compute", "two")
        events = self.collect(self.api)
        self.api.leave("two", "compute")
        self.assertEqual(ALL_UP | {"two": "down"}, self.states())
        after = self.another().view("compute").member("two")
        self.assertEqual("left the group", after.reason)
        self.assertGreaterEqual(after.last_seen, before.last_seen)
        base.wait_for(
            lambda: [(e.type, e.host) for e in events] == [("left", "two")],
            message="watchers get the event",
        )
        self.join("two")
        self.assertEqual(ALL_UP, self.states())

    def test_a_report_in_progress_does_not_bring_a_member_back(self):
        one = self.join("one")
        driver = process.shared().driver
        report = driver.report
        begun, go_on = threading.Event(), threading.Event()

        def slow_report(membership):
            begun.set()
            go_on.wait()
            report(membership)

        timer = threading.Thread(target=one.tick)
        leaving = threading.Thread(
            target=self.api.leave, args=["one", "compute"]
        )
        with mock.patch.object(driver, "report", slow_report):
            timer.start()
            self.assertTrue(begun.wait(base.PATIENCE))
            leaving.start()
            threads.join(leaving, 0.1)
            go_on.set()
            timer.join()
            leaving.join()
        one.tick()
        self.assertEqual({"one": "down"}, self.states())

    def test_a_member_is_forced_down_and_released(self):
        one = self.join("one", "two")[0]
        self.api.force_down("one", "compute")
        self.assertEqual({"one": "down", "two": "up"}, self.states())
        self.assertIs(
            True, self.another().view("compute").member("one").forced_down
        )
        one.tick()
        self.assertEqual({"one": "down", "two": "up"}, self.states())
        self.api.force_down("one", "compute", False)
        self.assertEqual({"one": "up", "two": "up"}, self.states())

    def test_only_members_can_be_forced_down(self):
        self.join("one")
        for forced in True, False:
            with self.assertRaises(exception.MemberNotFound):
                self.api.force_down("two", "compute", forced)
        self.assertEqual({"one": "up"}, self.states())

    def test_a_forgotten_member_joins_again(self):
        self.join(*HOSTS)
        observer = self.another()
        self.assertEqual(ALL_UP, self.states(observer))
        self.api.leave("two", "compute")
        self.api.forget("two", "compute")
        without = {"one": "up", "three": "up"}
        self.assertEqual(without, self.states())
        # An observer that knew the member drops it as well.
        self.wait_for_states(without, observer)
        self.join("two")
        self.assertEqual(ALL_UP, self.states())
        self.wait_for_states(ALL_UP, observer)

    def test_a_member_that_is_up_cannot_be_forgotten(self):
        self.join("one")
        with self.assertRaises(exception.MemberIsUp):
            self.api.forget("one", "compute")
        with self.assertRaises(exception.MemberNotFound):
            self.api.forget("two", "compute")
        self.assertEqual({"one": "up"}, self.states())

    def test_names_that_memcached_refuses_in_a_key(self):
        names = [
            "n" * 300,
            "n" * 20000,
            "with space",
            "héros",
            "主" * 100,
            "\N{GRINNING FACE}",
            "100%",
            "fe80::1",
            "a,b;c\"'",
        ]
        for group in "compute", "a group: " + "ü" * 100, "nova_sg":
            with self.subTest(group=group):
                self.join(*names, group=group)
                self.assertEqual(
                    dict.fromkeys(names, "up"), self.states(group=group)
                )
                for name in names:
                    self.assertTrue(
                        self.api.service_is_up(
                            {"host": name, "topic": group}
                        )
                    )
                self.assertIn(group, self.api.groups())

    def test_a_name_is_listed_once(self):
        raw = self.raw(self.servers[0])
        long = "h" * 3000
        self.flags(service_down_time=0.2)
        members = self.join("one", long)
        for member in members * 3:
            # The index is read again after half of service_down_time.
            time.sleep(0.15)
            member.tick()
        for host in "one", long:
            listed = raw.get(values.index_key("compute", host))
            self.assertEqual([host.encode()], listed.split())
        self.assertEqual(b"compute\n", raw.get(values.GROUPS_KEY))


class ExpiryTest(mc.McTestCase):
    def test_a_report_is_stored_for_service_down_time(self):
        raw = self.raw(self.start())
        for limit in 0.5, 1.0, 2.5, 60.0, 86400.0:
            with self.subTest(limit=limit):
                self.flags(service_down_time=limit)
                begun = time.monotonic()
                self.driver().report(self.membership("one"))
                left = raw.seconds_left("compute:one")
                took = time.monotonic() - begun
                self.assertGreaterEqual(left + took, limit)
                self.assertLessEqual(left, limit + 2)

    def test_a_report_does_not_expire_before_service_down_time(self):
        limit = 1.0
        self.flags(service_down_time=limit)
        raw = self.raw(self.start())
        driver = self.driver()
        began, lives = {}, {}
        # memcached counts in whole seconds from its own start: wherever a
        # report falls between two of them, it is kept long enough.
        for host in "a", "b", "c", "d":
            began[host] = time.monotonic()
            driver.report(self.membership(host))
            time.sleep(0.25)

        def all_vanished():
            for host in began.keys() - lives.keys():
                if raw.get(values.member_key("compute", host)) is None:
                    lives[host] = time.monotonic() - began[host]
            return len(lives) == len(began)

        base.wait_for(all_vanished, message="the reports expire")
        self.assertGreaterEqual(min(lives.values()), limit)

    def test_the_record_outlives_the_report(self):
        raw = self.raw(self.start())
        self.flags(service_down_time=1.0)
        self.join("one")
        self.assertGreater(
            raw.seconds_left(values.record_key("compute", "one")), 86400
        )
        base.wait_for(
            lambda: raw.get("compute:one") is None, 30, "the report is gone"
        )
        self.wait_for_states({"one": "down"})
        member = self.another().view("compute").member("one")
        self.assertIsNotNone(member.last_seen)


class TroubleTest(mc.McTestCase):
    """The server is restarted, unreachable, or loses values."""

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.api = servicegroup.API()

    def test_no_member_goes_down_by_a_restart(self):
        self.flags(service_down_time=10.0)
        events = self.collect(self.api)
        self.join(*HOSTS, interval=0.2)
        # Observed in memcached, and not only known as they joined here.
        observer = process.shared().view("compute").observer
        base.wait_for(
            lambda: observer.group.members.keys() == set(HOSTS),
            message="all are observed",
        )
        self.wait_for_states(ALL_UP, process.shared())
        watcher = _Poller(self.api, HOSTS)
        self.addCleanup(watcher.stop)
        for _ in range(3):
            self.server.kill()
            self.server.start()
            # It is empty, and a new observer finds all again.
            self.wait_for_states(ALL_UP)
        watcher.stop()
        self.assertGreater(watcher.asked, 0)
        self.assertEqual([], watcher.answered_down)
        self.assertEqual(
            [], [e for e in events if e.type != "joined"], "transitions"
        )

    def test_members_are_listed_anew_by_the_next_report(self):
        # Half of service_down_time would be the whole test.
        self.flags(service_down_time=600.0)
        members = self.join(*HOSTS)
        self.server.restart()
        self.assertEqual({}, self.states())
        for member in members:
            member.tick()
        self.assertEqual(ALL_UP, self.states())

    def test_no_member_goes_down_by_a_long_outage(self):
        self.flags(service_down_time=3.0)
        events = self.collect(self.api)
        # These have not reported for a while when the server comes back.
        members = self.join(*HOSTS)
        self.api.get_all("compute")
        self.server.kill()

        def ask():
            return self.api.service_is_up({"host": "one", "topic": "compute"})

        began = time.monotonic()
        try:
            while time.monotonic() - began < base.PATIENCE:
                self.assertTrue(ask(), "the last state is kept")
                time.sleep(0.05)
            self.fail("questions are answered for ever")
        except exception.ServiceGroupUnavailable as error:
            self.assertIn(self.server.address, str(error))
        with self.assertRaises(exception.ServiceGroupUnavailable):
            self.api.get_all("compute")
        self.server.start()
        base.wait_for(
            lambda: self._answers(ask), message="the server answers"
        )
        self.assertTrue(ask())
        for member in members:
            member.tick()
        self.assertEqual(ALL_UP, self.states())
        self.assertNotIn("down", [event.type for event in events])

    @staticmethod
    def _answers(ask):
        try:
            ask()
        except exception.ServiceGroupUnavailable:
            return False
        return True

    def test_a_dead_member_goes_down_after_an_outage(self):
        self.flags(service_down_time=3.0)
        self.join("alive", interval=0.1)
        self.join("dead")
        observer = self.another()
        self.wait_for_states({"alive": "up", "dead": "up"}, observer)
        self.server.restart()
        self.wait_for_states({"alive": "up", "dead": "down"}, observer)

    def test_no_member_goes_down_by_eviction_of_its_report(self):
        raw = self.raw(self.server)
        members = self.join(*HOSTS)
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))
        for host in HOSTS:
            raw.delete(values.member_key("compute", host))
        # The observer has seen the reports, a new one finds the records.
        self.api.refresh("compute")
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))
        self.assertEqual(ALL_UP, self.states())
        for host in HOSTS:
            raw.delete(values.record_key("compute", host))
        self.api.refresh("compute")
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))
        for member in members:
            member.tick()
        self.assertEqual(ALL_UP, self.states())

    def test_members_survive_eviction_of_the_index(self):
        self.flags(service_down_time=3.0)
        raw = self.raw(self.server)
        self.join(*HOSTS, interval=0.1)
        self.wait_for_states(ALL_UP)
        events = self.collect(self.api)
        raw.delete(*values.index_keys("compute"), values.GROUPS_KEY)
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))
        self.api.refresh("compute")
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))
        # A new observer finds all again after half of service_down_time.
        self.wait_for_states(ALL_UP)
        base.wait_for(
            lambda: self.api.groups() == ["compute"],
            message="the group is listed again",
        )
        self.assertEqual([], events)

    def test_members_join_before_the_server_runs(self):
        # The timer's first report comes after 0.4 of it.
        self.flags(service_down_time=2.5)
        self.server.kill()
        began = time.monotonic()
        self.join(*HOSTS, interval=0.1)
        self.assertLess(time.monotonic() - began, base.PATIENCE / 2)
        with self.assertRaises(exception.ServiceGroupUnavailable) as caught:
            self.states()
        self.assertIn(self.server.address, str(caught.exception))
        self.server.start()
        self.wait_for_states(ALL_UP)
        self.assertEqual(sorted(HOSTS), self.api.get_all("compute"))

    def test_an_outage_is_logged_once_and_its_end_once(self):
        one = self.join("one")
        self.api.get_all("compute")
        for outage in 1, 2:
            with self.subTest(outage=outage):
                self.server.kill()
                for _ in range(5):
                    # No error leaves the timer.
                    one.tick()
                    self.api.refresh("compute")
                self.assertTrue(one.model_disconnected)
                self.assertEqual(
                    outage, len(self.logs.matching("Cannot report"))
                )
                self.assertEqual(
                    outage, len(self.logs.matching("Cannot refresh group"))
                )
                self.server.start()

                def works():
                    one.tick()
                    self.api.refresh("compute")
                    return not one.model_disconnected

                base.wait_for(works, message="reports get through")
                for _ in range(3):
                    works()
                self.assertEqual(
                    outage, len(self.logs.matching("is reported to"))
                )
                self.assertEqual(
                    outage, len(self.logs.matching("reachable again"))
                )
        self.assertEqual([], self.logs.matching("Traceback"))
        self.assertEqual([], self.logs.matching("Unexpected"))

    def test_no_error_leaves_a_timer(self):
        problems = (
            exception.BackendError("a test's"),
            OSError("a test's"),
            ValueError("a test's"),
            RuntimeError("a test's"),
        )
        for number, problem in enumerate(problems):
            # The log limits such messages of one member.
            one = self.join(f"host{number}")
            with self.subTest(problem=problem):
                with mock.patch.object(
                    process.shared().driver, "report", side_effect=problem
                ):
                    one.tick()
                    one.tick()
                self.assertTrue(one.model_disconnected)
                one.tick()
                self.assertFalse(one.model_disconnected)
        self.assertEqual(4, len(self.logs.matching("is reported to")))


class _Poller:
    """Asks all the time whether members are up."""

    def __init__(self, api, hosts):
        self.asked = 0
        self.answered_down = []
        self._api = api
        self._hosts = hosts
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stopped.wait(0.02):
            for host in self._hosts:
                self.asked += 1
                if not self._api.service_is_up(
                    {"host": host, "topic": "compute"}
                ):
                    self.answered_down.append(host)

    def stop(self):
        self._stopped.set()
        self._thread.join()


class ClockTest(mc.McTestCase):
    """The wall clock of a process is set while it runs, or was wrong."""

    def shift(self, seconds):
        real = time.time
        patch = mock.patch("time.time", lambda: real() + seconds)
        patch.start()
        return patch.stop

    def test_a_step_of_the_clock_changes_no_state(self):
        self.start()
        self.flags(service_down_time=3.0)
        api = servicegroup.API()
        self.join("one", "two", interval=0.1)
        silent = self.join("silent")
        observer = self.another()
        self.wait_for_states(
            {"one": "up", "two": "up", "silent": "up"}, observer
        )
        events = self.collect(api)
        for seconds in 3600, -3600:
            with self.subTest(seconds=seconds):
                stop = self.shift(seconds)
                try:
                    self._check(silent, observer)
                finally:
                    stop()
                self.wait_for_states(
                    {"one": "up", "two": "up", "silent": "down"}, observer
                )
        changed = {event.host for event in events if event.type == "down"}
        self.assertLessEqual(changed, {"silent"})

    def _check(self, silent, observer):
        # Members that report stay up for each observer, and the silent one
        # goes down no later, and no sooner.
        began = time.monotonic()
        silent.tick()
        up = {"one": "up", "two": "up", "silent": "up"}
        self.assertEqual(up, self.states())
        self.wait_for_states(up, observer)
        self.wait_for_states(up | {"silent": "down"}, observer)
        self.assertGreater(time.monotonic() - began, 1.0)
        self.wait_for_states(up | {"silent": "down"})

    def test_a_clock_that_is_wrong_from_the_beginning(self):
        self.start()
        for seconds in 3600, -3600:
            with self.subTest(seconds=seconds):
                name = f"off-by{seconds}"
                stop = self.shift(seconds)
                try:
                    self.driver().report(self.membership(name))
                    self.assertEqual("up", self.states()[name])
                finally:
                    stop()
                self.assertEqual("up", self.states()[name])
                member = self.another().view("compute").member(name)
                self.assertLess(
                    abs(member.last_seen.timestamp() - time.time()), 60
                )

    def test_a_step_with_the_in_process_store(self):
        self.configure()
        self.flags(service_down_time=1.5)
        for seconds in 3600, -3600:
            with self.subTest(seconds=seconds):
                one = self.join("one")
                shared = process.shared()
                stop = self.shift(seconds)
                try:
                    one.tick()
                    self.wait_for_states({"one": "up"}, shared)
                    self.wait_for_states({"one": "down"}, shared)
                finally:
                    stop()


class InProcessTest(mc.McTestCase):
    """memcached_servers = <None>: the process is its own memcached."""

    def setUp(self):
        super().setUp()
        self.configure("<None>")
        self.api = servicegroup.API()

    def test_the_life_of_a_member(self):
        self.flags(service_down_time=1.5)
        one, _ = self.join("one", "two")
        shared = process.shared()
        self.assertEqual({"one": "up", "two": "up"}, self.states(shared))

        def two_is_down():
            one.tick()
            return self.states(shared) == {"one": "up", "two": "down"}

        base.wait_for(two_is_down, message="two is down")
        self.api.force_down("one", "compute")
        self.assertEqual([], self.api.get_all("compute"))
        self.api.force_down("one", "compute", False)
        one.tick()
        self.assertEqual(["one"], self.api.get_all("compute"))
        self.api.leave("one", "compute")
        self.assertEqual([], self.api.get_all("compute"))
        base.wait_for(
            lambda: self.api.member("compute", "two").age > 2.0,
            message="two has been silent for long",
        )
        self.api.forget("two", "compute")
        self.assertEqual({"one": "down"}, self.states(shared))
        self.assertEqual(["compute"], self.api.groups())

    def test_a_member_with_a_restart_grace(self):
        self.flags("servicegroup", restart_grace=60.0)
        one = self.join("one")
        self.assertFalse(one.model_disconnected)
        self.api.leave("one", "compute")
        self.assertEqual("stopped", self.api.member("compute", "one").cause)

    def test_another_process_sees_no_member(self):
        self.join("one")
        self.assertEqual(["one"], self.api.get_all("compute"))
        self.assertEqual({}, self.states())


class CloseTest(mc.McTestCase):
    def test_threads_and_sockets_are_closed(self):
        servers = self.start(3)
        raws = [self.raw(server) for server in servers]
        connections = [_connections(raw) for raw in raws]
        for _ in range(3):
            threads = threading.active_count()
            sockets = _sockets()
            api = servicegroup.API()
            watch = api.watch("compute", lambda event: None)
            self.join(*HOSTS, interval=0.1)
            self.assertEqual(sorted(HOSTS), api.get_all("compute"))
            self.assertLess(
                connections, [_connections(raw) for raw in raws]
            )
            watch.cancel()
            process.reset()
            self.assert_no_thread_named("nova-sg-")
            base.wait_for(
                lambda expected=threads: threading.active_count() <= expected,
                message="no thread is left",
            )
            self.assertEqual(sockets, _sockets())
            base.wait_for(
                lambda: connections == [_connections(raw) for raw in raws],
                message="the servers see the connections end",
            )

    def test_close_does_not_wait_for_a_hung_server(self):
        server = self.start()
        self.flags(service_down_time=2.5)
        self.flags("memcache", socket_timeout=1.0)
        self.join("one", interval=0.1)
        server.freeze()
        base.wait_for(
            lambda: self.logs.matching("Cannot report"),
            message="reports are stuck",
        )
        began = time.monotonic()
        process.reset()
        self.assertLess(time.monotonic() - began, base.PATIENCE / 2)
        self.assert_no_thread_named("nova-sg-")


def _connections(raw):
    return int(raw.stats()["curr_connections"])


def _sockets():
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        found += kind.startswith("socket:")
    return found
