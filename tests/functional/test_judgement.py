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


"""Evidence of outages leads to verdicts, on real servers."""

import os
import time
from unittest import mock

from nova_sg import servicegroup
from nova_sg.backends import clock
from nova_sg.backends.memcached import values
from nova_sg.servicegroup import events, process
from tests import base
from tests.functional import db, mc


class OwnReportsTest(db.MariaDBTestCase):
    # On a busy machine a refresh takes seconds while reports connect anew.
    DOWN_TIME = 6.0
    # In an outage each report is a new connection, which takes long.
    INTERVAL = 0.5

    def tearDown(self):
        self.server.execute("SET GLOBAL read_only = 0")
        super().tearDown()

    def test_no_member_is_down_while_the_database_takes_no_reports(self):
        self.join("one", interval=self.INTERVAL)
        self.join("two", interval=self.INTERVAL)
        seen = self.collect(self.api)
        # It can still be read. Only this process's own reports fail.
        self.server.execute("SET GLOBAL read_only = 1")
        until = time.monotonic() + 2 * self.DOWN_TIME
        while time.monotonic() < until:
            self.assertTrue(self.is_up("one"))
            self.assertTrue(self.is_up("two"))
            time.sleep(0.05)
        member = self.api.member("compute", "one")
        self.assertRegex(member.reason, r"s of that without the backend")
        # Also by a new observer, which other views tell of the outage.
        self.assertEqual("up", self.state("one"))
        self.server.execute("SET GLOBAL read_only = 0")
        self.wait_for_report("one")
        self.wait_for_report("two")
        self.assertTrue(self.is_up("one"))
        self.assertEqual([], seen)

    def test_a_view_made_later_knows_of_the_outage(self):
        self.join("one", interval=self.INTERVAL)
        self.server.execute("SET GLOBAL read_only = 1")
        self.wait_for_log("Cannot report the state of one")
        time.sleep(2 * self.DOWN_TIME)
        self.assertEqual("up", self.state("one"))

    def wait_for_log(self, words):
        base.wait_for(lambda: self.logs.matching(words), 30, words)


class MassSilenceTest(db.MariaDBTestCase):
    DOWN_TIME = 6.0

    def setUp(self):
        super().setUp()
        self.flags("servicegroup", mass_silence_hold=600.0)
        self.names = [f"node{number}" for number in range(5)]
        for name in self.names:
            self.join(name)
        self.seen = self.collect(self.api)

    def kinds(self, host):
        return [event.type for event in self.seen if event.host == host]

    def wait_for_kinds(self, *kinds):
        base.wait_for(
            lambda: all(self.kinds(n) == list(kinds) for n in self.names),
            60,
            lambda: f"{kinds}, not {self.seen}",
        )

    def test_a_mass_silence_is_held_and_then_told(self):
        self.stop_reports()
        self.wait_for_kinds(events.HELD)
        held = self.api.member("compute", "node0")
        self.assertEqual(("up", "held"), (held.state, held.cause))
        self.assertRegex(
            held.reason,
            r"^last report \S+ s ago; held as up for .* s so "
            r"far, and for .* s more at most: \d of 5 members fell silent "
            r"within 6 s$",
        )
        begins = self.logs.matching("members of the group compute fell silent")
        self.assertEqual(1, len(begins))
        self.flags("servicegroup", mass_silence_hold=0.5)
        self.wait_for_kinds(events.HELD, events.DOWN)
        ends = self.logs.matching("Mass-silence hold ended for group compute")
        self.assertEqual(1, len(ends))
        self.assertIn("5 members are now down", ends[0])

    def test_held_members_that_report_again_were_never_down(self):
        self.stop_reports()
        self.wait_for_kinds(events.HELD)
        self.flags(service_down_time=60.0)
        for name in self.names:
            self.join(name)
        self.wait_for_kinds(events.HELD, events.UP)

    def test_no_member_is_held_if_the_rule_is_switched_off(self):
        self.flags("servicegroup", mass_silence_fraction=0.0)
        self.stop_reports()
        self.wait_for_kinds(events.DOWN)
        self.assertEqual([], self.logs.matching("are held as up"))

    def test_clean_leaves_are_not_held(self):
        for name in self.names:
            self.api.leave(name, "compute")
        self.wait_for_kinds(events.LEFT)


class DomainHolds:
    """A failure domain that is cut off, for each driver."""

    DOWN_TIME = 6.0

    def setUp(self):
        super().setUp()
        self.flags("servicegroup", mass_silence_hold=600.0)
        self.flags(service_down_time=self.DOWN_TIME)
        self.start_backend()
        self.services = {}
        self.api = servicegroup.API()
        for number in range(15):
            name, rack = f"node{number}", f"rack {number // 5}"
            self.tell(rack)
            self.services[name] = self.join(name, interval=0.1)
        self.seen = self.collect(self.api)
        self.addCleanup(self.cut, set())

    def start_backend(self):
        pass

    def cut(self, hosts):
        """Have these members fall silent, and no other."""
        for host, service in self.services.items():
            if host in hosts:
                service.tg.moving.clear()
            else:
                service.tg.moving.set()

    def told(self):
        return {(event.host, event.type) for event in self.seen}

    def test_a_rack_is_held_and_a_dead_host_elsewhere_is_down(self):
        rack = {f"node{number}" for number in range(5)}
        self.cut({*rack, "node9"})
        expected = {(host, "held") for host in rack} | {("node9", "down")}
        self.assert_becomes(expected, self.told)
        held = self.api.member("compute", "node0")
        self.assertEqual(
            ("up", "held", "rack 0"), (held.state, held.cause, held.domain)
        )
        self.assertRegex(
            held.reason,
            r"more at most: \d of 5 members of the failure domain rack 0 fell "
            r"silent within 6 s$",
        )
        dead = self.api.member("compute", "node9")
        self.assertEqual(("down", "rack 1"), (dead.state, dead.domain))
        self.assertEqual(
            {"rack 0", "rack 1"}, {event.domain for event in self.seen}
        )
        begins = self.logs.matching(
            "of 5 members of the failure domain rack 0 of the group compute "
            "fell silent within 6 s and are held as up for 600 s at most"
        )
        self.assertEqual(1, len(begins))
        self.flags("servicegroup", mass_silence_hold=0.5)
        expected |= {(host, "down") for host in rack}
        self.assert_becomes(expected, self.told)
        ends = self.logs.matching(
            "Mass-silence hold ended for failure domain rack 0 of group "
            "compute: 5 members are now down"
        )
        self.assertEqual(1, len(ends))


class DbDomainTest(DomainHolds, db.MariaDBTestCase):
    """The observer's map names the domains."""

    def start_backend(self):
        path = os.path.join(self.folder, "domains")
        with open(path, "w", encoding="utf-8") as file:
            file.write("node[0-4] rack 0\nnode[5-9] rack 1\nnode* rack 2\n")
        self.flags("servicegroup", failure_domain_map=path)
        process.reset()

    def tell(self, rack):
        pass


class McDomainTest(DomainHolds, mc.McTestCase):
    """Each member reports its domain."""

    def start_backend(self):
        self.start()

    def tell(self, rack):
        self.flags("servicegroup", failure_domain=rack)


class ForgetfulMemcachedTest(mc.McTestCase):
    def test_a_member_whose_report_was_lost_has_time_for_the_next(self):
        raw = self.raw(self.start())
        self.flags(service_down_time=5.0, report_interval=4.0)
        driver = self.driver()
        membership = self.membership("one")
        driver.report(membership)
        view = self.another().view("compute")
        view.refresh()
        self.assertEqual("up", view.recall("one").state)
        # This observer has not refreshed for a while. Meanwhile the member
        # has reported, and memcached has lost that report.
        time.sleep(5.5)
        for key in (
            values.member_key("compute", "one"),
            values.record_key("compute", "one"),
            values.index_key("compute", "one"),
        ):
            raw.delete(key)
        view.refresh()
        found = view.recall("one")
        self.assertEqual(("up", "vanished"), (found.state, found.cause))
        self.assertIn("the backend has lost its later reports", found.reason)

        def down():
            view.refresh()
            return view.recall("one").state == "down"

        base.wait_for(down, 60, "it does not report, and is down")
        driver.report(membership)
        view.refresh()
        self.assertEqual("up", view.recall("one").state)


class ServerClockTest(mc.McTestCase):
    """When the time of a memcached server is read again."""

    def setUp(self):
        super().setUp()
        self.server = self.start(kind=mc.Verbose)
        self.view = self.another().view("compute")
        self.view.refresh()

    def reads_of_a_refresh(self):
        """Refresh; return how often that read the server's clock."""
        before = len(self.server.commands())
        self.view.refresh()
        return self.server.commands()[before:].count("stats")

    def test_it_is_read_after_the_host_slept_or_its_clock_was_set(self):
        self.assertEqual(0, self.reads_of_a_refresh())
        now = clock.Clocks.read()
        for leapt in (
            now._replace(asleep=now.asleep + 600),
            now._replace(wall=now.wall - 3600),
        ):
            with mock.patch.object(clock.Clocks, "read", lambda c=leapt: c):
                self.assertEqual(1, self.reads_of_a_refresh())
                self.assertEqual(0, self.reads_of_a_refresh())

    def test_it_is_read_when_a_report_seems_to_be_in_the_future(self):
        raw = self.raw(self.server)
        codec = values.Codec(None)
        index = values.index_key("compute", "one")
        key = values.member_key("compute", "one")
        at = float(raw.stats()["time"]) + 30
        report = values.StoredReport(values.UP, at, "nova-compute")
        raw.set(index, codec.lines(index, ["one"]))
        raw.set(key, codec.write_report(key, report))
        self.assertEqual(1, self.reads_of_a_refresh())
        # The member's time is wrong, so the server is asked only once.
        self.assertEqual(0, self.reads_of_a_refresh())
