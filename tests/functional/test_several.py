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

"""Several backends at the same time: a database and memcached."""

import contextlib
import threading
import time
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import disagreements, process, reporter
from nova_sg.servicegroup.shared import Shared
from tests import base
from tests.base import wait_for
from tests.fixtures.memcached import Memcached


class SeveralTestCase(base.TestCase):
    """The embedded database first, one memcached second.

    :ivar server: the memcached
    """

    DOWN_TIME = 20.0

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=self.DOWN_TIME, report_interval=0.1)
        self.enterContext(
            mock.patch.object(reporter, "INITIAL_REPORTING_DELAY", 0.1)
        )
        self.enterContext(mock.patch.object(reporter, "JOIN_WAIT", 60))
        self.server = self.enterContext(Memcached())
        self.addCleanup(process.reset)
        self.flags(memcached_servers=[self.server.address])
        self.flags(servicegroup_driver="db")
        self.flags(
            "servicegroup",
            view_refresh_interval=0.05,
            secondary_drivers=["mc"],
        )
        self.api = servicegroup.API()

    def join(self, host, group="compute"):
        member = base.Member(host, topic=group)
        self.api.join(host, group, member)
        return member

    def is_up(self, host, group="compute"):
        return self.api.service_is_up({"host": host, "topic": group})

    def alone(self, name, host, group="compute"):
        """Return a Member by one driver alone; None: it has no such one."""
        shared = Shared(process.load(name))
        try:
            return shared.view(group).member(host)
        except exception.MemberNotFound:
            return None
        finally:
            shared.close()

    def state(self, name, host):
        member = self.alone(name, host)
        return member and member.state

    def wait_for_state(self, name, host, state):
        wait_for(
            lambda: self.state(name, host) == state,
            message=f"{host} is {state} by {name}",
        )

    @contextlib.contextmanager
    def drivers(self, primary, *secondaries):
        """Return an API that uses other drivers."""
        before = CONF.servicegroup_driver, CONF.servicegroup.secondary_drivers
        self._choose(primary, secondaries)
        try:
            yield servicegroup.API()
        finally:
            self._choose(*before)

    def _choose(self, primary, secondaries):
        CONF.set_override("servicegroup_driver", primary)
        CONF.set_override(
            "secondary_drivers", list(secondaries), "servicegroup"
        )

    def join_only(self, driver, host):
        """Have a member report to one driver; return the API for it."""
        with self.drivers(driver) as api:
            api.join(host, "compute", base.Member(host))
            return api

    def stop_reports(self):
        for shared in list(process._shared.values()):
            shared.stop_reports()
        self.assert_no_thread_named("nova-sg-report")


class ReportsTest(SeveralTestCase):
    def test_reports_go_to_all_drivers(self):
        self.join("one")
        for name in ("db", "mc"):
            self.wait_for_state(name, "one", "up")
            seen = self.alone(name, "one").last_seen
            wait_for(
                lambda name=name, seen=seen: (
                    self.alone(name, "one").last_seen > seen
                ),
                message=f"reports to {name} go on",
            )
        self.api.leave("one", "compute")
        for name in ("db", "mc"):
            self.assertEqual("down", self.state(name, "one"))
        self.assert_no_thread_named("nova-sg-report")

    def test_the_primary_may_be_named_twice(self):
        with self.drivers("db", "mc", "db", "mc"):
            self.assertEqual(["db", "mc"], process.shared().names)

    def test_a_secondary_that_cannot_be_loaded_is_not_used(self):
        with self.drivers("db", "zk", "mc") as api:
            api.join("one", "compute", base.Member("one"))
            self.assertTrue(api.get_all("compute"))
            self.wait_for_state("mc", "one", "up")
            [text] = self.logs.matching("secondary driver zk is not used", 40)
            self.assertIn("[zookeeper] address", text)
            api.leave("one", "compute")

    def test_an_unknown_secondary_is_refused(self):
        path = f"{self.folder}/nova-sg.conf"
        with open(path, "w") as file:
            file.write("[servicegroup]\nsecondary_drivers = mc, mq\n")
        CONF.clear_override("secondary_drivers", "servicegroup")
        CONF(["--config-file", path], project="nova-sg")
        with self.assertRaisesRegex(
            exception.ConfigError, r"\[servicegroup\] secondary_drivers.*mq"
        ):
            servicegroup.API()

    def test_a_secondary_that_hangs_delays_no_report_to_others(self):
        # So long that a request to it hangs until the test ends.
        self.flags("memcache", socket_timeout=3600)
        reporter.JOIN_WAIT = 1
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        member = self.join("one")
        self.assertTrue(self.is_up("one"))
        seen = self.alone("db", "one").last_seen
        wait_for(
            lambda: self.alone("db", "one").last_seen > seen,
            30,
            "the database has the report",
        )
        # To the service the report has succeeded.
        self.assertFalse(member.model_disconnected)
        self.api.leave("one", "compute")
        self.assertFalse(self.is_up("one"))
        [text] = self.logs.matching("through the secondary driver mc", 30)
        self.assertIn("There one goes down by silence", text)

    def test_a_primary_that_hangs_delays_no_secondary(self):
        reporter.JOIN_WAIT = 1
        with self.drivers("mc", "db") as api:
            api.join("one", "compute", base.Member("one"))
            self.wait_for_state("db", "one", "up")
            self.server.freeze()
            time.sleep(CONF.report_interval)
            for _ in range(3):
                seen = self.alone("db", "one").last_seen
                wait_for(
                    lambda seen=seen: self.alone("db", "one").last_seen > seen,
                    message="the database has the report",
                )
            self.server.thaw()

    def test_a_member_whose_timer_stands_still_is_down_in_all_drivers(self):
        # No backend gets a report.
        self.flags(service_down_time=2.5)
        member = base.Member("one")
        timer = mock.Mock(stop=lambda: None)
        ticks = []

        def add_timer_args(interval, callback, args, initial_delay=0):
            ticks.append(lambda: callback(*args))
            return timer

        member.tg = mock.Mock(add_timer_args=add_timer_args)
        self.api.join("one", "compute", member)
        for name in ("db", "mc"):
            self.wait_for_state(name, "one", "up")
        for name in ("db", "mc"):
            self.wait_for_state(name, "one", "down")
        ticks[0]()
        for name in ("db", "mc"):
            self.wait_for_state(name, "one", "up")


class VerdictsTest(SeveralTestCase):
    """memcached first, which a test can kill, and the database second."""

    def setUp(self):
        super().setUp()
        self._choose("mc", ["db"])
        self.api = servicegroup.API()

    def member(self, host):
        return self.api.member("compute", host)

    def test_a_member_of_the_secondary_alone_is_judged_by_it(self):
        api = self.join_only("db", "one")
        self.join("two")
        self.assertTrue(self.is_up("one"))
        self.assertEqual(["one", "two"], self.api.get_all("compute"))
        one, two = self.api.members("compute")
        self.assertEqual(("db", "mc"), (one.driver, two.driver))
        self.assertIn("by db, as mc does not know it yet", one.reason)
        self.assertFalse(self.is_up("three"))
        api.leave("one", "compute")
        wait_for(lambda: not self.is_up("one"), message="one is down")

    def test_the_secondary_is_used_while_the_primary_is_down(self):
        self.flags(service_down_time=6.0)
        self.api = servicegroup.API()
        stays, _ = self.join("stays"), self.join("dies")
        events = self.collect(self.api)
        wait_for(lambda: self.is_up("stays") and self.is_up("dies"))
        for host in ("stays", "dies"):
            self.wait_for_state("db", host, "up")
        self.server.kill()
        # Longer than the primary's last verdicts stand.
        end = time.monotonic() + 1.5 * CONF.service_down_time
        while time.monotonic() < end:
            self.assertTrue(self.is_up("stays"))
            self.assertEqual(2, len(self.api.get_all("compute")))
            time.sleep(0.05)
        self.assertEqual("db", self.member("stays").driver)
        self.assertIn("mc cannot be asked", self.member("stays").reason)
        # It stops reporting, without leaving, while the primary is down.
        for one in process.shared()._reporters.values():
            for joined in one._by_service.values():
                if joined.membership.host == "dies":
                    joined.stop()
        wait_for(lambda: not self.is_up("dies"), message="dies is down")
        self.assertTrue(self.is_up("stays"))
        self.server.start()
        wait_for(
            lambda: self.member("stays").driver == "mc", message="mc is back"
        )
        for _ in range(20):
            self.assertFalse(self.is_up("dies"))
            self.assertTrue(self.is_up("stays"))
            time.sleep(0.05)
        wait_for(lambda: events)
        self.assertEqual(
            [("down", "dies")], [(one.type, one.host) for one in events]
        )
        wait_for(lambda: not stays.model_disconnected)

    def test_a_secondary_that_the_member_left_is_not_used(self):
        self.flags(service_down_time=3.0)
        self.api = servicegroup.API()
        # It has left the database, and reports to the primary alone.
        api = self.join_only("db", "one")
        api.leave("one", "compute")
        self.join_only("mc", "one")
        wait_for(lambda: self.member("one").driver == "mc")
        wait_for(lambda: self.is_up("one"))
        self.server.kill()
        answers = set()

        def unavailable():
            try:
                answers.add(self.is_up("one"))
            except exception.ServiceGroupUnavailable as error:
                self.assertIn("mc: ", str(error))
                return True
            return False

        wait_for(unavailable, message="its state is unknown")
        self.assertEqual({True}, answers)

    def test_an_observer_that_begins_while_the_primary_is_down(self):
        self.join_only("db", "one")
        self.server.kill()
        self.assertTrue(self.is_up("one"))
        self.assertEqual("db", self.member("one").driver)
        self.assertEqual(["compute"], self.api.groups())

    def test_forced_down_in_any_driver_counts(self):
        self.join("one")
        self.wait_for_state("db", "one", "up")
        self.api.force_down("one", "compute")
        self.assertFalse(self.is_up("one"))
        for name in ("mc", "db"):
            self.assertTrue(self.alone(name, "one").forced_down)
        self.api.force_down("one", "compute", forced=False)
        self.assertTrue(self.is_up("one"))
        with self.drivers("db") as api:
            api.force_down("one", "compute")
        wait_for(lambda: not self.is_up("one"), message="forced down by db")
        self.assertEqual("db", self.member("one").driver)

    def test_a_command_that_a_driver_missed_is_warned_of(self):
        self._choose("db", ["mc"])
        self.api = servicegroup.API()
        self.join("one")
        self.wait_for_state("mc", "one", "up")
        self.server.kill()
        self.api.force_down("one", "compute")
        self.assertFalse(self.is_up("one"))
        [text] = self.logs.matching("mc missed the command for member one", 30)
        self.assertIn("Repeat the command when mc is reachable", text)
        with self.assertRaisesRegex(exception.MemberNotFound, "two"):
            self.api.force_down("two", "compute")

    def test_a_command_that_needs_all_drivers_fails_if_one_missed_it(self):
        self._choose("db", ["mc"])
        self.api = servicegroup.API()
        self.join("one")
        self.wait_for_state("mc", "one", "up")
        self.api.force_down("one", "compute")
        # Of each backend: it has to be known that mc was told.
        process.shared().view("compute").refresh()
        self.server.kill()
        # It is forced down by mc still.
        with self.assertRaisesRegex(
            exception.BackendError,
            "mc missed the command for member one.*Repeat the command",
        ):
            self.api.force_down("one", "compute", forced=False)
        # The primary was told.
        self.assertFalse(self.alone("db", "one").forced_down)
        self.assertFalse(self.is_up("one"))
        # Otherwise it may have left db before its last report to mc: it would
        # have moved there.
        process.shared().view("compute").refresh()
        self.api.leave("one", "compute")
        with self.assertRaisesRegex(
            exception.BackendError, "mc missed the command for member one"
        ):
            self.api.forget("one", "compute")
        # A member that no backend knows is no more known for that.
        with self.assertRaises(exception.BackendError):
            self.api.force_down("two", "compute", forced=False)

    def test_forget(self):
        api = self.join_only("db", "one")
        with self.assertRaises(exception.MemberIsUp):
            self.api.forget("one", "compute")
        api.leave("one", "compute")
        self.join("two")
        self.api.leave("two", "compute")
        for host in ("one", "two"):
            self.api.forget(host, "compute")
        self.assertEqual([], self.api.members("compute"))
        with self.assertRaises(exception.MemberNotFound):
            self.api.forget("one", "compute")

    def test_the_states_by_each_driver_are_listed(self):
        self.join_only("db", "one")
        mc, db = self.api.backend_states("compute", "one")
        self.assertEqual(("mc", None), mc[:2])
        self.assertEqual(("db", "up"), (db.driver, db.member.state))
        self.server.kill()
        wait_for(lambda: self.api.backend_states("compute", "one")[0].trouble)


class DisagreementsTest(SeveralTestCase):
    def now(self):
        """Return the metrics: {(secondary, kind): (members, total)}."""
        found = process.all_disagreements()
        return {one[2:4]: one[4:] for one in found if one.total}

    def test_disagreements_are_counted_and_logged(self):
        self.flags(service_down_time=2.5, report_interval=0.1)
        self.api = servicegroup.API()
        self.join("both")
        api = self.join_only("db", "one")
        self.join_only("mc", "two")
        with mock.patch.object(disagreements, "LOG_EVERY", 0):
            self.collect(self.api)
            wait_for(lambda: len(self.now()) == 2, 60, lambda: str(self.now()))
            self.assertEqual(
                {
                    ("mc", "up-unknown"): (1, 1),
                    ("mc", "unknown-up"): (1, 1),
                },
                self.now(),
            )
            wait_for(
                lambda: self.logs.matching(
                    "1 not known to db, up by mc; 1 up by db, not known", 30
                ),
                30,
            )
            # It moves to the other driver. That ends the disagreement at
            # once.
            api.leave("one", "compute")
            with self.drivers("db", "mc") as api:
                api.join("one", "compute", base.Member("one"))
                api.join("two", "compute", base.Member("two"))
            wait_for(lambda: [n for n, _ in self.now().values()] == [0, 0])
            wait_for(lambda: self.logs.matching("and mc agree again on"))
        self.assertEqual([1, 1], [total for _, total in self.now().values()])

    def test_a_member_that_dies_is_no_disagreement(self):
        self.flags(service_down_time=2.5, report_interval=0.1)
        self.api = servicegroup.API()
        self.join("one")
        events = self.collect(self.api)
        wait_for(lambda: self.is_up("one"))
        self.stop_reports()
        wait_for(lambda: not self.is_up("one"))
        self.wait_for_state("mc", "one", "down")
        self.assertEqual({}, self.now())
        wait_for(lambda: events)
        self.assertEqual(["down"], [one.type for one in events])
        self.assertEqual([], self.logs.matching("disagree"))


class ThreadsTest(SeveralTestCase):
    def test_no_thread_is_left_behind(self):
        self.join("one")
        self.collect(self.api)
        self.is_up("one")
        process.reset()
        self.assert_no_thread_named("nova-sg")

    def test_one_driver_needs_no_more_threads(self):
        with self.drivers("db") as api:
            api.join("one", "compute", base.Member("one"))
            self.assertTrue(
                api.service_is_up({"host": "one", "topic": "compute"})
            )
            names = [thread.name for thread in threading.enumerate()]
            self.assertFalse(
                [n for n in names if "compare" in n or "secondary" in n]
            )
