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

"""What members say in memcached of the time in which they could not report."""

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
        # What is shown is not that.
        self.flags("servicegroup", mass_silence_fraction=0.0)

    def test_who_begins_to_look_then_waits_for_the_rest(self):
        talking = ["a", "b", "c", "d"]
        silent = ["w", "x", "y", "z"]
        members = dict(
            zip(talking, self.join(*talking), strict=True)
        )
        self.join(*silent)
        begun = time.monotonic()
        self.server.freeze()
        # Nobody gets through, until all are silent for too long.
        while time.monotonic() < begun + self.DOWN_TIME + 3:
            for member in members.values():
                member.tick()
        self.server.thaw()
        for member in members.values():
            base.wait_for(
                lambda one=member: one.tick() or not one.model_disconnected,
                base.PATIENCE,
                "it reports again",
            )
        view = self.another().view("compute")
        found = {one.host: one for one in view.members()}
        for host in talking:
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
        # Dead as they are, that is not for ever.
        states = {}

        def told():
            for member in members.values():
                member.tick()
            view.refresh()
            states.update({one.host: one.state for one in view.members()})
            return all(states[host] == "down" for host in silent)

        base.wait_for(told, base.PATIENCE, lambda: f"down, not {states}")
        self.assertEqual({"up"}, {states[host] for host in talking})


class HearsayTest(mc.McTestCase):
    """Values as members would write them, and as they would not."""

    def setUp(self):
        super().setUp()
        self.raw_server = self.raw(self.start())
        self.codec = values.Codec(None)
        self.now = float(self.raw_server.stats()["time"])
        self.listed = collections.defaultdict(set)

    def write(self, host, silent_for, away=None):
        """Write what a member reported some seconds ago.

        :param away: what it says: seconds ago since and until when, or bytes
        """
        at = self.now - silent_for
        raw = b""
        if isinstance(away, bytes):
            raw, away = away, None
        elif away is not None:
            away = self.now - away[0], self.now - away[1]
        report = values.Report(values.UP, at, "nova-compute", away)
        index = values.index_key("compute", host)
        key = values.member_key("compute", host)
        self.listed[index].add(host)
        self.raw_server.set(
            index, self.codec.lines(index, self.listed[index])
        )
        self.raw_server.set(key, self.codec.report(key, report) + raw)

    def states_now(self):
        return self.states(self.another())

    def test_one_alone_excuses_nobody(self):
        self.write("dead", 130)
        self.write("quiet", 0)
        self.write("one", 0, away=(120, 5))
        expected = {"dead": "down", "quiet": "up", "one": "up"}
        self.assertEqual(expected, self.states_now())
        # Two of three do, and half of four, and no fewer.
        for host, away, dead in (
            ("two", (120, 5), "up"),
            ("third", None, "up"),
            ("fourth", None, "down"),
        ):
            self.write(host, 0, away)
            expected |= {"dead": dead, host: "up"}
            self.assertEqual(expected, self.states_now())

    def test_who_died_long_before_is_not_excused(self):
        self.write("dead", 200)
        self.write("one", 0, away=(120, 5))
        self.write("two", 0, away=(120, 5))
        self.assertEqual("down", self.states_now()["dead"])

    def test_what_cannot_be_is_ignored_with_one_warning(self):
        self.write("dead", 130)
        at = int(self.now * 1000)
        for number, away in enumerate(
            (
                b" away=nan-nan",
                b" away=-5-5",
                b" away=0-%d" % at,
                b" away=%d-%d" % (at - 120_000, at + 120_000),
                b" away=%d-%d" % (at, at - 120_000),
            )
        ):
            self.write(f"odd{number}", 0, away)
        shared = self.another()
        for _ in range(3):
            states = self.states(shared)
        self.assertEqual("down", states.pop("dead"))
        self.assertEqual({"up"}, set(states.values()))
        warned = self.logs.matching("a time without reports that cannot be")
        self.assertEqual(1, len(warned))
        self.assertIn("(5 such keys)", warned[0])


class OlderReadersTest(mc.McTestCase):
    def test_the_record_is_as_it_always_was(self):
        raw = self.raw(self.start())
        driver = self.driver()
        membership = self.membership("one")
        now = time.monotonic()
        membership.reported_outage = now - 30, now - 5
        driver.report(membership)
        value = raw.get(values.member_key("compute", "one"))
        self.assertRegex(value, rb"^1 up \d+ nova-compute away=\d+-\d+$")
        # Who knows no more than that finds this.
        record = raw.get(values.record_key("compute", "one"))
        self.assertRegex(record, rb"^1 up \d+ nova-compute$")
        driver.withdraw(membership)
        value = raw.get(values.member_key("compute", "one"))
        self.assertRegex(value, rb"^1 left \d+ nova-compute$")
