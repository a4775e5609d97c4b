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

"""Outages that members report in memcached."""

import collections
import time

from nova_sg.backends.memcached import values
from tests import base
from tests.functional import mc


class AfterAnOutageTest(mc.McTestCase):
    DOWN_TIME = 8.0

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.flags(service_down_time=self.DOWN_TIME, report_interval=1.0)
        self.flags("memcache", socket_timeout=0.5)
        # Mass silence is not what this shows.
        self.flags("servicegroup", mass_silence_fraction=0.0)

    def test_a_new_observer_waits_for_members_that_are_still_silent(self):
        reporting = ["a", "b", "c", "d"]
        silent = ["w", "x", "y", "z"]
        # Their last reports must be older than those of the others.
        others = self.join(*silent)
        members = self.join(*reporting)
        for member in [*others, *members]:
            base.wait_for(
                lambda one=member: (
                    not one.model_disconnected or one.tick()
                ),
                message="the server has its report",
            )
        began = time.monotonic()
        self.server.freeze()
        # No report gets through until all are silent for too long.
        while time.monotonic() < began + self.DOWN_TIME + 3:
            for member in members:
                member.tick()
        self.server.thaw()
        for member in members:
            base.wait_for(
                lambda one=member: one.tick() or not one.model_disconnected,
                base.PATIENCE,
                "it reports again",
            )
        view = self.another().view("compute")
        found = {one.host: one for one in view.members()}
        for host in reporting:
            self.assertEqual("up", found[host].state)
            self.assertRegex(
                found[host].reason, "it says that it could not report for"
            )
        for host in silent:
            self.assertEqual("up", found[host].state, found[host].reason)
            self.assertIn(
                "(4 of 4 members that report again say so)",
                found[host].reason,
            )
        # They are dead, and found out in the end.
        states = {}

        def silent_are_down():
            for member in members:
                member.tick()
            view.refresh()
            states.update({one.host: one.state for one in view.members()})
            return all(states[host] == "down" for host in silent)

        base.wait_for(
            silent_are_down, base.PATIENCE, lambda: f"down, not {states}"
        )
        self.assertEqual({"up"}, {states[host] for host in reporting})


class WrittenReportsTest(mc.McTestCase):
    """Values as members write them, and as they never would."""

    def setUp(self):
        super().setUp()
        self.raw_server = self.raw(self.start())
        self.codec = values.Codec(None)
        self.now = float(self.raw_server.stats()["time"])
        self.listed = collections.defaultdict(set)

    def write(self, host, silent_for, outage=None):
        """Write what a member reported some seconds ago.

        :param outage: seconds ago since and until when, or bytes to append
        """
        at = self.now - silent_for
        raw = b""
        if isinstance(outage, bytes):
            raw, outage = outage, None
        elif outage is not None:
            outage = self.now - outage[0], self.now - outage[1]
        report = values.StoredReport(values.UP, at, "nova-compute", outage)
        index = values.index_key("compute", host)
        key = values.member_key("compute", host)
        self.listed[index].add(host)
        self.raw_server.set(
            index, self.codec.lines(index, self.listed[index])
        )
        self.raw_server.set(key, self.codec.write_report(key, report) + raw)

    def states_now(self):
        return self.states(self.another())

    def test_the_outage_of_a_single_member_excuses_no_other(self):
        self.write("dead", 130)
        self.write("quiet", 0)
        self.write("one", 0, outage=(120, 5))
        expected = {"dead": "down", "quiet": "up", "one": "up"}
        self.assertEqual(expected, self.states_now())
        # Two of three do, and half of four, and no fewer.
        for host, outage, dead in (
            ("two", (120, 5), "up"),
            ("third", None, "up"),
            ("fourth", None, "down"),
        ):
            self.write(host, 0, outage)
            expected |= {"dead": dead, host: "up"}
            self.assertEqual(expected, self.states_now())

    def test_a_member_that_died_long_before_is_not_excused(self):
        self.write("dead", 200)
        self.write("one", 0, outage=(120, 5))
        self.write("two", 0, outage=(120, 5))
        self.assertEqual("down", self.states_now()["dead"])

    def test_an_impossible_outage_is_ignored_with_one_warning(self):
        self.write("dead", 130)
        at = int(self.now * 1000)
        for number, outage in enumerate(
            (
                b" away=nan-nan",
                b" away=-5-5",
                b" away=0-%d" % at,
                b" away=%d-%d" % (at - 120_000, at + 120_000),
                b" away=%d-%d" % (at, at - 120_000),
            )
        ):
            self.write(f"odd{number}", 0, outage)
        shared = self.another()
        for _ in range(3):
            states = self.states(shared)
        self.assertEqual("down", states.pop("dead"))
        self.assertEqual({"up"}, set(states.values()))
        warned = self.logs.matching("an impossible outage")
        self.assertEqual(1, len(warned))
        self.assertIn("(5 such keys)", warned[0])


class OlderObserversTest(mc.McTestCase):
    def test_records_and_last_reports_never_have_an_outage(self):
        raw = self.raw(self.start())
        driver = self.driver()
        membership = self.membership("one")
        now = time.monotonic()
        membership.reported_outage = now - 30, now - 5
        driver.report(membership)
        value = raw.get(values.member_key("compute", "one"))
        self.assertRegex(value, rb"^1 up \d+ nova-compute away=\d+-\d+$")
        # An older observer refuses that, and reads this.
        record = raw.get(values.record_key("compute", "one"))
        self.assertRegex(record, rb"^1 up \d+ nova-compute$")
        driver.withdraw(membership)
        value = raw.get(values.member_key("compute", "one"))
        self.assertRegex(value, rb"^1 left \d+ nova-compute$")
