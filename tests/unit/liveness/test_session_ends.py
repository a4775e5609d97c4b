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

"""Sessions of many members that were cut off end one after the other."""

import unittest

from nova_sg.liveness import explain, model
from tests.unit.liveness.observing import Observer, seen

#: Seconds between the first and the last end of a session.
SPREAD = 3.0
MASS = model.MassRule(0.55, 4, 120.0)
#: Twenty members, the first five of them in one rack.
HOSTS = [f"h{number}" for number in range(20)]
RACK = HOSTS[:5]


class SessionEndsTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.observer = Observer("zk", mass=MASS)
        self.ended = set()
        self.hosts = HOSTS
        self.refresh(100.0)

    def refresh(self, asked, *ended):
        """Refresh after some sessions have ended; return the causes."""
        self.ended.update(ended)
        return self.observer.refresh(
            asked,
            [
                seen(
                    host,
                    None,
                    present=host not in self.ended,
                    lost=host in self.ended,
                    domain="rack" if host in RACK else None,
                )
                for host in self.hosts
            ],
            stamped=False,
            spread=SPREAD,
        )

    def test_a_rack_whose_sessions_end_within_the_spread_is_held(self):
        for number, host in enumerate(RACK):
            causes = self.refresh(110.0 + 0.7 * number, host)
            self.assertEqual({"reported"}, set(causes.values()))
        held = self.refresh(110.0 + SPREAD + 0.1)
        self.assertEqual("held", held[RACK[0]])
        # The others of the rack follow, and no other member.
        held = self.refresh(114.0 + SPREAD)
        self.assertEqual(
            dict.fromkeys(RACK, "held"),
            {
                host: cause
                for host, cause in held.items()
                if cause != "reported"
            },
        )
        # One that dies elsewhere is down meanwhile.
        self.refresh(120.0, "h9")
        self.assertEqual("lost", self.refresh(120.1 + SPREAD)["h9"])
        over = self.refresh(120.0 + SPREAD + MASS.hold)
        self.assertEqual("lost", over[RACK[0]])

    def test_a_group_whose_sessions_end_within_the_spread_is_held(self):
        for number, host in enumerate(HOSTS[:12]):
            self.refresh(110.0 + 0.25 * number, host)
        held = self.refresh(114.0 + SPREAD)
        self.assertEqual(
            dict.fromkeys(HOSTS[:12], "held"),
            {host: held[host] for host in HOSTS[:12]},
        )

    def test_a_single_member_is_down_after_the_spread(self):
        self.assertEqual("reported", self.refresh(110.0, "h7")["h7"])
        self.assertEqual("reported", self.refresh(109.9 + SPREAD)["h7"])
        group, limits = self.observer.group, self.observer.limits
        self.assertEqual(
            "its session with the backend ended; down in 1.0 s, unless the "
            "sessions of most others end with it",
            explain.explain(
                group, "h7", model.REPORTED, 109.0 + SPREAD, limits
            ),
        )
        # The observer's next refresh is due then.
        self.assertEqual(110.0 + SPREAD, group.next_deadline)
        self.assertEqual("lost", self.refresh(110.1 + SPREAD)["h7"])
        # From now on only a session raises it.
        self.assertEqual("lost", self.refresh(110.2 + SPREAD)["h7"])

    def test_a_member_that_joins_again_within_the_spread_is_never_down(self):
        self.refresh(110.0, "h7")
        self.ended.clear()
        self.assertEqual("reported", self.refresh(111.0)["h7"])
        self.assertEqual("reported", self.refresh(110.1 + SPREAD)["h7"])

    def test_there_is_no_wait_where_there_is_no_mass_silence(self):
        for mass in (model.NO_MASS_RULE, MASS._replace(min_members=21)):
            with self.subTest(mass):
                self.observer = Observer("zk", mass=mass)
                self.ended.clear()
                self.refresh(100.0)
                self.assertEqual("lost", self.refresh(110.0, "h7")["h7"])

    def test_a_new_observer_does_not_wait(self):
        self.observer = Observer("zk", mass=MASS)
        self.assertEqual("lost", self.refresh(100.0, "h7")["h7"])
        # Nor is one waited for that was down before.
        self.hosts = [*HOSTS, "late"]
        self.assertEqual("lost", self.refresh(101.0, "late")["late"])
