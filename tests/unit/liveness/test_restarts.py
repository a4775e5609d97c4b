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

"""Members that are about to stop, or stopped a moment ago."""

import unittest

from nova_sg.liveness import explain, model
from tests.unit.liveness.observing import LIMIT, Observer, seen

GRACE = 30.0
CRASH_GRACE = 20.0


class RestartTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.observer = Observer()
        self.observer.limits = self.observer.limits._replace(
            restart_grace=GRACE, crash_grace=CRASH_GRACE
        )
        self.observer.refresh(100.0, {"h": 95.0})

    def assert_judged(self, state, cause, accepting):
        verdict = self.observer.group.members["h"].verdict
        self.assertEqual(
            (state, cause, accepting),
            (verdict.state, verdict.cause, verdict.accepting),
        )

    def reason(self, verdict, now):
        observer = self.observer
        return explain.explain(
            observer.group, "h", verdict, now, observer.limits
        )

    def test_a_draining_member_is_up_and_not_accepting(self):
        self.assert_judged("up", "reported", True)
        draining = [seen("h", 101.0, 101.0, draining=True)]
        self.observer.refresh(102.0, draining)
        self.assert_judged("up", "draining", False)
        self.assertEqual(
            "draining; last report 2.0 s ago",
            self.reason(model.DRAINING, 103.0),
        )
        # A draining member that is silent for too long is down.
        self.observer.refresh(101.0 + LIMIT + 0.1, draining)
        self.assert_judged("down", "silent", False)
        self.observer.refresh(170.0, [seen("h", 170.0, 170.0)])
        self.assert_judged("up", "reported", True)

    def test_a_member_that_stops_and_starts_again_is_never_down(self):
        left = [seen("h", 110.0, 110.0, left=True)]
        self.observer.refresh(112.0, left)
        self.assert_judged("up", "stopped", False)
        self.assertEqual(
            "stopped 12 s ago, may be restarting",
            self.reason(model.STOPPED, 122.0),
        )
        self.observer.refresh(115.0, [seen("h", 114.0, 114.0)])
        self.assert_judged("up", "reported", True)

    def test_a_member_that_stays_stopped_is_down_after_the_grace(self):
        left = [seen("h", 110.0, 110.0, left=True)]
        self.observer.refresh(112.0, left)
        self.observer.refresh(109.0 + GRACE, left)
        self.assert_judged("up", "stopped", False)
        self.observer.refresh(110.0 + GRACE + 0.1, left)
        self.assert_judged("down", "left", False)
        # From now on nothing but a report raises it.
        self.observer.refresh(111.0 + GRACE, left)
        self.assert_judged("down", "left", False)

    def test_a_crashed_member_is_down_after_a_shorter_grace(self):
        crashed = [seen("h", 110.0, 110.0, crashed=True)]
        self.observer.refresh(112.0, crashed)
        self.assert_judged("up", "restarting", False)
        self.assertEqual(
            "its process ended 5 s ago without leaving, may be restarting",
            self.reason(model.RESTARTING, 115.0),
        )
        self.observer.refresh(110.0 + CRASH_GRACE + 0.1, crashed)
        self.assert_judged("down", "crashed", False)

    def test_a_member_that_was_down_has_no_grace(self):
        """For example a service that hung, and that an operator stops."""
        self.observer.refresh(95.0 + LIMIT + 0.1, {"h": 95.0})
        self.assert_judged("down", "silent", False)
        left = [seen("h", 95.0, 95.0, left=True)]
        self.observer.refresh(157.0, left)
        self.assert_judged("down", "left", False)

    def test_a_member_that_left_long_ago_has_no_grace(self):
        """A new observer judges by the time at which it left."""
        observer = Observer()
        observer.limits = self.observer.limits
        for ago, cause in ((5.0, "stopped"), (500.0, "left")):
            at = 1000.0 - ago
            observer.refresh(1000.0, [seen(f"{ago}", at, at, left=True)])
            self.assertEqual(cause, observer.cause(f"{ago}"))

    def test_draining_in_one_of_several_backends_counts(self):
        """The record of a backend that cannot store draining counts less."""
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        observer.refresh(
            100.0, [seen("h", 70.0, 70.0, draining=True)], "mc"
        )
        # The draining is older than its last report.
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(
            110.0, [seen("h", 109.0, 109.0, draining=True)], "mc"
        )
        self.assertEqual("draining", observer.cause("h"))
        observer.refresh(111.0, {"h": 110.0}, "db")
        self.assertEqual("draining", observer.cause("h"))

    def test_a_draining_member_that_is_killed_has_the_grace(self):
        """Its session ends, and its process may be starting again."""
        for draining, moments in (
            # From the last refresh at which it had a session.
            (True, ((104.0, "draining"), (99.9 + GRACE, "draining"))),
            (True, ((104.0, "draining"), (100.1 + GRACE, "lost"))),
            (False, ((104.0, "lost"),)),
        ):
            about = {"draining": draining}
            observer = Observer("zk")
            observer.limits = self.observer.limits
            session = [seen("h", None, present=True, **about)]
            observer.refresh(100.0, session)
            for moment, cause in moments:
                observer.refresh(moment, [seen("h", None, lost=True, **about)])
                self.assertEqual(cause, observer.cause("h"))

    def test_the_next_process_has_no_grace(self):
        """It is judged by its own reports."""
        observer = Observer("mc")
        observer.limits = observer.limits._replace(restart_grace=2 * LIMIT)
        observer.refresh(100.0, [seen("h", 1, 99.0, draining=True)])
        observer.refresh(120.0, [seen("h", 2, 119.0)])
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(119.0 + LIMIT + 0.1, [seen("h", 2, 119.0)])
        self.assertEqual("silent", observer.cause("h"))

    def test_many_that_stop_are_no_mass_silence(self):
        observer = Observer(mass=model.MassRule(0.5, 4, 120.0))
        observer.limits = observer.limits._replace(restart_grace=GRACE)
        hosts = [f"h{number}" for number in range(6)]
        observer.refresh(100.0, dict.fromkeys(hosts, 99.0))
        left = [
            seen(host, 99.0, 99.0, left=host != "h0") for host in hosts
        ]
        observer.refresh(105.0, left)
        observer.refresh(99.0 + LIMIT + 0.1, left)
        # The dead member is not held because of them.
        self.assertEqual("silent", observer.cause("h0"))


if __name__ == "__main__":
    unittest.main()
