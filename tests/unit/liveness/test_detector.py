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

"""The detector's rule table, and the six rules of the judgement."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import explain, model
from nova_sg.liveness.model import Observation
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen

MASS = model.MassRule(0.55, 4, 2 * LIMIT)


class TableTest(unittest.TestCase):
    def test_the_verdict_of_one_refresh(self):
        asked = 1000.0
        late = asked - LIMIT - 0.1
        for verdict, observation in (
            ("reported", seen("h", 1, asked)),
            ("reported", seen("h", 1, asked - LIMIT)),
            ("silent", seen("h", 1, late)),
            # Written between the question and the answer.
            ("reported", seen("h", 1, asked + 0.2)),
            ("reported", seen("h", 1, asked + LIMIT)),
            # A stamp too far in the future is no report.
            ("never-reported", seen("h", 1, asked + LIMIT + 1)),
            ("registered", Observation("h", registered=asked - LIMIT)),
            ("never-reported", Observation("h", registered=late)),
            ("registered", Observation("h", 1, asked + 99, None, asked - 1)),
            ("never-reported", Observation("h", registered=asked + 99)),
            # A registration does not help a member that has reported.
            ("silent", Observation("h", 1, late, None, asked)),
            ("never-reported", Observation("h")),
            ("reported", seen("h", None, present=True)),
            ("lost", seen("h", None, lost=True)),
            ("left", seen("h", 1, asked, left=True)),
            ("left", seen("h", None, left=True)),
            ("left", seen("h", None, left=True, lost=True)),
            ("crashed", seen("h", 1, asked, crashed=True)),
            ("crashed", seen("h", 1, asked, crashed=True, lost=True)),
            ("forced-down", seen("h", 1, asked, forced_down=True)),
            ("forced-down", seen("h", 1, asked, left=True, forced_down=True)),
            ("forced-down", seen("h", None, crashed=True, forced_down=True)),
            ("forced-down", seen("h", None, lost=True, forced_down=True)),
            ("reported", seen("h", 1, asked, disabled=True)),
        ):
            with self.subTest(observation):
                self.assertEqual(
                    {"h": verdict}, Observer().refresh(asked, [observation])
                )

    def test_each_backend_has_the_newest_report_of_any_member(self):
        observer = Observer("db", "mc")

        def heard():
            return [one.last_report for one in observer.group.backends]

        never = model.NEVER
        self.assertEqual([never, never], heard())
        observer.refresh(100.0, [Observation("new", registered=99.0)])
        self.assertEqual([never, never], heard())
        observer.refresh(110.0, {"a": 95.0, "b": 103.0})
        self.assertEqual([103.0, never], heard())
        observer.refresh(120.0, {"a": 95.0, "b": 103.0})
        self.assertEqual([103.0, never], heard())
        # A new report is seen by its stamp, or without one by the change.
        observer.refresh(130.0, {"a": 125.0, "b": 103.0})
        self.assertEqual([125.0, never], heard())
        observer.refresh(140.0, [seen("a", 126.0)], complete=False)
        self.assertEqual([140.0, never], heard())
        # A member that leaves, or is removed, has not reported.
        observer.refresh(150.0, [seen("a", 126.0, left=True)])
        self.assertEqual([140.0, never], heard())
        observer.refresh(150.0, {"a": 149.0}, backend="mc")
        self.assertEqual([140.0, 149.0], heard())

    def test_every_member_is_unavailable_before_the_first_answer(self):
        observer = Observer()
        self.assertEqual("unavailable", observer.cause("h", 1.0))
        observer.fails(1.0)
        self.assertEqual("unavailable", observer.cause("h", 1.0))
        observer.refresh(2.0, [])
        self.assertEqual("not-a-member", observer.cause("h"))

    def test_members_are_unavailable_once_the_last_refresh_is_too_old(self):
        observer = Observer()
        observer.refresh(
            100.0,
            [
                seen("a", 1, 95.0),
                seen("b", 1, 30.0),
                seen("c", 1, 99.0, forced_down=True),
            ],
        )
        for now, expected in (
            (100.0 + LIMIT, ["reported", "silent", "forced-down"]),
            (100.1 + LIMIT, ["unavailable", "unavailable", "forced-down"]),
        ):
            self.assertEqual(
                expected, [observer.cause(host, now) for host in "abc"]
            )

    def test_a_member_that_left_is_up_with_its_next_report(self):
        observer = Observer()
        observer.refresh(100.0, [seen("h", 1, 99.0)])
        observer.refresh(102.0, [seen("h", 2, 101.0, left=True)])
        self.assertEqual("left", observer.cause("h"))
        self.assertEqual(
            {"h": "left"}, observer.refresh(104.0, [seen("h", 2, left=True)])
        )
        self.assertEqual(
            {"h": "reported"}, observer.refresh(106.0, [seen("h", 3, 105.0)])
        )

    def test_a_member_that_a_complete_answer_does_not_name_is_gone(self):
        observer = Observer()
        observer.refresh(1.0, {"a": 1.0, "b": 1.0})
        self.assertEqual({"b": "reported"}, observer.refresh(2.0, {"b": 1.0}))
        (change,) = observer.changes
        self.assertEqual(("a", None), (change.host, change.now))

    def test_a_member_that_an_incomplete_answer_does_not_name_stays(self):
        observer = Observer()
        observer.refresh(1.0, {"a": 1.0})
        for at, verdict in ((LIMIT, "reported"), (LIMIT + 1.1, "silent")):
            self.assertEqual(
                {"a": verdict}, observer.refresh(at, [], complete=False)
            )

    def test_a_refresh_brings_the_changes_of_verdicts(self):
        observer = Observer()
        causes = []
        for at, observations in (
            (1.0, [seen("h", 1, 1.0)]),
            (2.0, [seen("h", 1, 1.0, disabled=True)]),
            (3.0, [seen("h", 2, 2.5, forced_down=True)]),
            (65.0, [seen("h", 2, 2.5, forced_down=True)]),
            (66.0, [seen("h", 2, 2.5)]),
            (67.0, []),
        ):
            observer.refresh(at, observations)
            causes += [
                (
                    change.was and change.was.cause,
                    change.now and change.now.cause,
                )
                for change in observer.changes
            ]
        self.assertEqual(
            [
                (None, "reported"),
                ("reported", "forced-down"),
                ("forced-down", "silent"),
                ("silent", None),
            ],
            causes,
        )

    def test_a_report_that_the_backend_lost_still_counts(self):
        observer = Observer()
        observer.refresh(100.0, [seen("h", 5, 99.0)])
        gone = [seen("h", None, vanished=True)]
        for at, verdict in (
            (102.0, "reported"),
            (99.0 + LIMIT, "reported"),
            (99.1 + LIMIT, "silent"),
        ):
            self.assertEqual({"h": verdict}, observer.refresh(at, gone))
        # If the loss is found late, the member has time for one report.
        observer = Observer()
        observer.refresh(100.0, [seen("h", 5, 99.0)])
        for at, verdict in (
            (180.0, "vanished"),
            (180.0 + 1.5 * INTERVAL, "vanished"),
            (180.1 + 1.5 * INTERVAL, "silent"),
        ):
            self.assertEqual({"h": verdict}, observer.refresh(at, gone))
        # The old report, read from another server, is not new.
        self.assertEqual(
            {"h": "silent"}, observer.refresh(200.0, [seen("h", 5, 99.0)])
        )
        # And the backend may lose it once more.
        self.assertEqual({"h": "silent"}, observer.refresh(202.0, gone))
        self.assertEqual(
            {"h": "reported"}, observer.refresh(210.0, [seen("h", 6, 209.0)])
        )


class ChangeNotTimeTest(unittest.TestCase):
    """Rule 1: an observer knows of a report by a change, not by its time."""

    @given(
        st.lists(st.integers(-100_000, 100_000), min_size=50, max_size=50),
        st.integers(1, 12),
        st.integers(1, 40),
    )
    def test_wrong_stamps_change_no_verdict(self, skews, pace, dies):
        """Each report is stamped by a clock that is wrong by any amount."""
        observer = Observer()
        number, last = 1, 0.0
        observer.refresh(0.0, [seen("h", 1, 0.0)])
        for refresh in range(1, 50):
            now = float(refresh * pace)
            while last + INTERVAL <= now and number < dies:
                last += INTERVAL
                number += 1
            stamp = last + skews[number]
            verdict = observer.refresh(now, [seen("h", number, stamp)])["h"]
            # The time of a report is known to within two refreshes.
            if now <= last + LIMIT - pace:
                self.assertEqual("reported", verdict)
            elif now > last + LIMIT + pace:
                self.assertEqual("silent", verdict)

    def test_a_new_observer_waits_for_a_report_that_is_due(self):
        """The stamp of the last report may come from a slow clock."""
        observer = Observer()
        observer.refresh(100.0, {"h": 45.0})
        for at, verdict in ((115.0, "reported"), (115.1, "silent")):
            self.assertEqual({"h": verdict}, observer.refresh(at, {"h": 45.0}))
        # A stamp this old cannot be explained by a slow clock.
        self.assertEqual(
            {"h": "silent"}, Observer().refresh(100.0, {"h": 39.0})
        )

    def test_a_stamp_counts_if_it_is_between_two_refreshes(self):
        for stamp, report in ((150.0, 150.0), (90.0, 100.0), (220.0, 200.0)):
            observer = Observer()
            observer.refresh(100.0, [seen("h", 1, 99.0)])
            observer.refresh(200.0, [seen("h", 2, stamp)])
            self.assertEqual(report, observer.group.members["h"].report)

    def test_an_older_record_changes_nothing(self):
        """It comes from a server that lags."""
        observer = Observer()
        new, old = seen("h", 50, 100.0), seen("h", 47, 70.0, forced_down=True)
        observer.refresh(100.0, [new])
        for at in range(102, 162, 2):
            verdict = observer.refresh(float(at), [new if at % 4 else old])
            self.assertEqual(
                {"h": "reported" if at <= 160 else "silent"}, verdict
            )

    def test_reports_count_after_a_backup_was_restored(self):
        """Their numbers begin anew, with new stamps."""
        observer = Observer()
        observer.refresh(100.0, [seen("h", 500, 100.0)])
        for number in range(1, 20):
            at = 100.0 + number * INTERVAL
            observer.refresh(at, [seen("h", number, at)])
            self.assertEqual("reported", observer.cause("h"))

    def test_a_member_seen_for_the_first_time_is_judged_by_its_stamp(self):
        """A server that was unreachable may know more members."""
        observer = Observer()
        observer.refresh(100.0, [])
        observer.refresh(102.0, [seen("h", 1, 20.0), seen("i", 1, 90.0)])
        self.assertEqual("silent", observer.cause("h"))
        self.assertEqual("reported", observer.cause("i"))
        self.assertEqual(90.0, observer.group.members["i"].report)


class DownStaysDownTest(unittest.TestCase):
    """Rule 3: nothing but a new report raises a member that is down."""

    def test_a_late_report_with_an_exact_time_raises_no_member(self):
        """Such as a value that reaches memcached long after it was sent."""
        observer = Observer("mc")
        observer.refresh(100.0, [seen("h", 1, 99.0)], exact=True)
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(170.0, [seen("h", 1, 99.0)], exact=True)
        self.assertEqual("silent", observer.cause("h"))
        observer.refresh(172.0, [seen("h", 2, 108.0)], exact=True)
        self.assertEqual("silent", observer.cause("h"))
        observer.refresh(174.0, [seen("h", 3, 173.0)], exact=True)
        self.assertEqual("reported", observer.cause("h"))

    def setUp(self):
        super().setUp()
        self.observer = Observer()
        self.observer.refresh(100.0, {"h": 100.0, "own": 100.0})

    def test_an_outage_that_becomes_known_late_raises_no_member(self):
        self.assertEqual(
            {"h": "silent", "own": "reported"},
            self.observer.refresh(161.0, {"h": 100.0, "own": 155.0}),
        )
        # Only now the observer learns that its own reports have hung.
        self.observer.reports_fail(103.0, 160.0)
        for at in (162.0, 163.0):
            self.assertEqual(
                "silent",
                self.observer.refresh(at, {"h": 100.0, "own": 155.0})["h"],
            )
        self.observer.reports_work(160.0)
        for at in (164.0, 200.0):
            self.assertEqual(
                "silent",
                self.observer.refresh(at, {"h": 100.0, "own": at})["h"],
            )
        self.assertEqual(
            "reported",
            self.observer.refresh(202.0, {"h": 201.0, "own": 200.0})["h"],
        )

    def test_an_outage_that_becomes_known_in_time_excuses_a_member(self):
        self.observer.reports_fail(103.0, 103.0)
        for at in (161.0, 200.0):
            self.assertEqual(
                "reported",
                self.observer.refresh(at, {"h": 100.0, "own": 100.0})["h"],
            )

    def test_an_outage_that_the_server_reports_late_raises_no_member(self):
        self.observer.refresh(161.0, {"h": 100.0, "own": 155.0})
        self.observer.backend_out(101.0, 161.0)
        self.assertEqual(
            "silent",
            self.observer.refresh(162.0, {"h": 100.0, "own": 155.0})["h"],
        )

    def test_a_silent_member_stays_down_when_forced_down_is_unset(self):
        down = [seen("h", 100.0, 100.0, forced_down=True)]
        self.observer.refresh(161.0, down)
        self.assertEqual("forced-down", self.observer.cause("h"))
        self.observer.refresh(162.0, {"h": 100.0})
        self.assertEqual("silent", self.observer.cause("h"))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["refresh", "fail", "own fails", "own works", "server"]
                ),
                st.integers(1, 70),
            ),
            max_size=30,
        )
    )
    def test_no_evidence_of_an_outage_raises_a_member(self, events):
        observer = Observer()
        observer.refresh(0.0, {"h": 0.0, "other": 0.0})
        now, other, down = 0.0, 0.0, False
        for what, seconds in events:
            now += seconds
            if what == "refresh":
                other = now
                observer.refresh(now, {"h": 0.0, "other": other})
                state = observer.group.members["h"].unforced.state
                self.assertFalse(down and state == "up")
                down = state == "down"
            elif what == "fail":
                observer.fails(now)
            elif what == "own fails":
                observer.reports_fail(now - seconds, now)
            elif what == "own works":
                observer.reports_work(now)
            else:
                observer.backend_out(now - seconds, now)


class OutageTest(unittest.TestCase):
    """Rule 4: an outage of the backend counts against no member."""

    def setUp(self):
        super().setUp()
        self.observer = Observer()
        self.observer.refresh(100.0, {"alive": 95.0, "dead": 39.0})

    def states(self, now):
        return [
            self.observer.group.verdict(host, now, LIMIT).state
            for host in ("alive", "dead")
        ]

    def test_the_last_verdict_stands_for_service_down_time(self):
        self.observer.fails(102.0)
        self.assertEqual(["up", "down"], self.states(100.0 + LIMIT))
        self.assertEqual(["unknown", "unknown"], self.states(100.1 + LIMIT))

    def test_forced_down_is_known_without_the_backend(self):
        self.observer.refresh(101.0, [seen("alive", 95.0, forced_down=True)])
        self.observer.fails(102.0)
        self.assertEqual("forced-down", self.observer.cause("alive", 1e6))

    def test_a_living_member_has_its_whole_time_after_an_outage(self):
        self.observer.fails(102.0)
        back = 100.0 + 10 * LIMIT
        self.observer.refresh(back, {"alive": 95.0, "dead": 39.0})
        self.assertEqual(["up", "down"], self.states(back))
        # From now on it may be silent for the whole time once more.
        for at, state in ((back + LIMIT, "up"), (back + LIMIT + 0.1, "down")):
            self.observer.refresh(at, [], complete=False)
            self.assertEqual([state, "down"], self.states(at))

    def test_a_report_after_an_outage_counts_as_any_report(self):
        self.observer.fails(102.0)
        self.observer.refresh(500.0, {"alive": 95.0}, complete=False)
        self.observer.refresh(503.0, {"alive": 502.0}, complete=False)
        for at, state in ((502.0 + LIMIT, "up"), (502.1 + LIMIT, "down")):
            self.observer.refresh(at, [], complete=False)
            self.assertEqual([state, "down"], self.states(at))

    def test_outages_that_overlap_count_once(self):
        for span in ((110, 114), (112, 117), (130, 134), (109, 116)):
            self.observer.backend_out(*span)
        # From 95 to 167: 72 s, 12 of them without the backend.
        for at, state in ((167.0, "up"), (167.1, "down")):
            self.observer.refresh(at, [], complete=False)
            self.assertEqual([state, "down"], self.states(at))


class SessionTest(unittest.TestCase):
    """A backend with sessions, which knows by itself that a member lives."""

    def test_a_member_is_lost_when_its_session_ends(self):
        observer = Observer("zk")
        alive, ended = (
            [seen("h", None, present=True)],
            [seen("h", None, lost=True)],
        )
        for at in (100.0, 200.0, 300.0):
            self.assertEqual({"h": "reported"}, observer.refresh(at, alive))
        self.assertEqual({"h": "lost"}, observer.refresh(302.0, ended))
        # It was alive at the last refresh that found its session.
        self.assertEqual(300.0, observer.group.members["h"].report)
        self.assertEqual({"h": "reported"}, observer.refresh(304.0, alive))

    def test_a_single_session_that_ends_is_not_held(self):
        """The others are there: they are not about to fall silent."""
        observer = Observer("zk", mass=model.MassRule(0.55, 4, 120.0))
        alive = [seen(str(n), None, present=True) for n in range(20)]
        for at in range(100, 160, 2):
            observer.refresh(float(at), alive)
        ended = [seen("0", None, lost=True), *alive[1:]]
        self.assertEqual("lost", observer.refresh(159.0, ended)["0"])

    def test_after_an_outage_members_have_time_to_rejoin(self):
        observer = Observer("zk")
        alive = [seen("a", None, present=True), seen("b", None, present=True)]
        observer.refresh(100.0, [*alive, seen("c", None, lost=True)])
        observer.fails(102.0)
        ended = [seen(host, None, lost=True) for host in "abc"]
        back = {"a": "reported", "b": "reported", "c": "lost"}
        self.assertEqual(back, observer.refresh(150.0, ended, rejoin=20.0))
        self.assertEqual(back, observer.refresh(170.0, ended))
        self.assertEqual(
            {"a": "reported", "b": "lost", "c": "lost"},
            observer.refresh(170.1, [alive[0], *ended[1:]]),
        )

    def test_an_interruption_between_two_refreshes_gives_time_to_rejoin(self):
        observer = Observer("zk")
        observer.refresh(100.0, [seen("h", None, present=True)])
        ended = [seen("h", None, lost=True)]
        self.assertEqual(
            {"h": "reported"},
            observer.refresh(102.0, ended, interrupted=True, rejoin=5.0),
        )
        self.assertEqual({"h": "lost"}, observer.refresh(107.1, ended))

    def test_a_session_that_the_backend_does_not_know_yet(self):
        """It counts as a report at the last refresh that found it."""
        observer = Observer("zk")
        observer.refresh(100.0, [seen("h", None, present=True)])
        unsure = [seen("h", None)]
        observer.refresh(102.0, unsure)
        for at, verdict in ((160.0, "reported"), (160.1, "silent")):
            self.assertEqual({"h": verdict}, observer.refresh(at, unsure))

    def test_a_session_that_ended_before_the_first_refresh_is_lost(self):
        for interrupted in (False, True):
            observer = Observer("zk")
            ended = [seen("h", None, lost=True)]
            self.assertEqual(
                {"h": "lost"},
                observer.refresh(
                    100.0, ended, interrupted=interrupted, rejoin=8.0
                ),
            )

    def test_each_outage_gives_the_time_to_rejoin_anew(self):
        observer = Observer("zk")
        observer.refresh(100.0, [seen("h", None, present=True)])
        ended = [seen("h", None, lost=True)]
        for at in (105.0, 110.0, 115.0):
            self.assertEqual(
                {"h": "reported"},
                observer.refresh(at, ended, interrupted=True, rejoin=8.0),
            )
        self.assertEqual({"h": "reported"}, observer.refresh(123.0, ended))
        self.assertEqual({"h": "lost"}, observer.refresh(123.1, ended))
        # Another outage raises no member.
        self.assertEqual(
            {"h": "lost"},
            observer.refresh(130.0, ended, interrupted=True, rejoin=8.0),
        )

    @given(
        st.lists(
            st.tuples(
                st.floats(0.1, LIMIT),
                # What happened since the last refresh.
                st.sampled_from(["nothing", "interrupted", "failed"]),
                st.booleans(),
            ),
            min_size=1,
            max_size=30,
        ),
        st.floats(0, 20),
    )
    def test_only_a_session_raises_a_lost_member(self, steps, rejoin):
        observer = Observer("zk")
        at, was_down = 0.0, False
        for pause, happened, here in steps:
            at += pause
            if happened == "failed":
                observer.fails(at - 0.05)
            observer.refresh(
                at,
                [seen("h", None, present=here, lost=not here)],
                interrupted=happened == "interrupted",
                rejoin=rejoin,
            )
            down = observer.group.members["h"].unforced.state == "down"
            self.assertFalse(here and down)
            self.assertFalse(was_down and not here and not down)
            was_down = down

    @given(st.floats(0.1, 20), st.lists(st.floats(0.1, LIMIT), max_size=5))
    def test_a_member_that_does_not_rejoin_is_lost(self, rejoin, outages):
        """It is lost after the last outage and the time to rejoin."""
        observer = Observer("zk")
        at = 100.0
        observer.refresh(at, [seen("h", None, present=True)], rejoin=rejoin)
        ended = [seen("h", None, lost=True)]
        for pause in outages:
            at += pause
            observer.refresh(at, ended, interrupted=True, rejoin=rejoin)
        at += rejoin + 0.1
        self.assertEqual({"h": "lost"}, observer.refresh(at, ended))


class SeveralBackendsTest(unittest.TestCase):
    """Rule 5: observations are merged, not verdicts."""

    def setUp(self):
        super().setUp()
        self.observer = Observer("db", "mc")
        for backend in ("db", "mc"):
            self.observer.refresh(100.0, {"h": 100.0}, backend)

    def test_the_newest_report_in_any_backend_counts(self):
        self.observer.refresh(155.0, {"h": 150.0}, "mc")
        self.observer.refresh(170.0, {"h": 100.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        self.observer.refresh(211.0, {"h": 150.0}, "mc")
        self.assertEqual("silent", self.observer.cause("h"))

    def test_an_outage_of_one_backend_excuses_no_member(self):
        self.observer.fails(102.0, "db")
        self.observer.refresh(160.1, {"h": 100.0}, "mc")
        self.assertEqual("silent", self.observer.cause("h"))
        self.observer.refresh(170.0, {"h": 100.0}, "db")
        self.assertEqual("silent", self.observer.cause("h"))

    def test_an_outage_of_both_backends_excuses_a_member(self):
        for backend in ("db", "mc"):
            self.observer.fails(102.0, backend)
        self.observer.refresh(170.0, {"h": 100.0}, "mc")
        self.observer.refresh(171.0, {"h": 100.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        # A limit after the end of the outage, as this observer knows it.
        self.observer.refresh(231.1, {"h": 100.0}, "db")
        self.assertEqual("silent", self.observer.cause("h"))

    def test_an_older_report_to_another_backend_raises_no_member(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 100.0}, "db")
        observer.refresh(161.0, {"h": 100.0}, "db")
        self.assertEqual("silent", observer.cause("h"))
        # This report is newer than the one in db, but older than the verdict.
        observer.refresh(165.0, {"h": 130.0}, "mc")
        self.assertEqual("silent", observer.cause("h"))
        observer.refresh(167.0, {"h": 166.0}, "mc")
        self.assertEqual("reported", observer.cause("h"))

    def test_leaving_counts_if_it_is_newer_than_any_report(self):
        gone = [seen("h", 100.0, 100.0, left=True)]
        self.observer.refresh(105.0, gone, "mc")
        self.assertEqual("left", self.observer.cause("h"))
        self.observer.refresh(106.0, {"h": 100.0}, "db")
        self.assertEqual("left", self.observer.cause("h"))
        # It reports to the other backend again.
        self.observer.refresh(120.0, {"h": 119.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        self.observer.refresh(121.0, gone, "mc")
        self.assertEqual("reported", self.observer.cause("h"))

    def test_a_member_that_left_one_backend_long_ago_is_up_by_another(self):
        observer = Observer("db", "mc")
        observer.refresh(1000.0, [seen("h", 100.0, 100.0, left=True)], "mc")
        self.assertEqual("left", observer.cause("h"))
        observer.refresh(1000.0, {"h": 995.0}, "db")
        self.assertEqual("reported", observer.cause("h"))

    def test_forced_down_in_any_backend_counts(self):
        forced = [seen("h", 100.0, 100.0, forced_down=True)]
        self.observer.refresh(101.0, forced, "mc")
        self.observer.refresh(102.0, {"h": 101.0}, "db")
        self.assertEqual("forced-down", self.observer.cause("h"))
        self.observer.refresh(103.0, {"h": 100.0}, "mc")
        self.assertEqual("reported", self.observer.cause("h"))

    def test_a_member_is_gone_once_no_backend_knows_it(self):
        self.observer.refresh(101.0, [], "mc")
        self.assertEqual("reported", self.observer.cause("h"))
        self.assertEqual([], self.observer.changes)
        self.observer.refresh(102.0, [], "db")
        self.assertEqual("not-a-member", self.observer.cause("h"))

    def test_a_member_of_an_unreachable_backend_alone_is_unavailable(self):
        self.observer.refresh(101.0, {"h": 100.0, "other": 99.0}, "mc")
        self.observer.fails(102.0, "mc")
        self.observer.refresh(162.0, {"h": 161.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        self.assertEqual("unavailable", self.observer.cause("other"))


class MovingMemberTest(unittest.TestCase):
    """A backend that a member no longer reports to does not count for it."""

    def counts(self, observer):
        member = observer.group.members["h"]
        return observer.group.counts(member.histories, LIMIT)

    def check_unavailable(self, observer, last, db):
        """Check that the member is not down by db while mc is unreachable.

        :param last: when mc answered last, and the member's report there
        :param db: the member's observation in each refresh of db
        """
        self.assertEqual((False, True), self.counts(observer))
        observer.fails(last + 2.0, "mc")
        for at in (last + 2.0, last + LIMIT):
            observer.refresh(at, db, "db")
            self.assertEqual("reported", observer.cause("h", at))
        for at in (last + LIMIT + 0.1, last + 500.0):
            observer.refresh(at, db, "db")
            self.assertEqual("unavailable", observer.cause("h", at))
            self.assertEqual([], observer.changes)
        # It died meanwhile. The outage of mc excuses it until mc is back.
        back = last + 510.0
        observer.refresh(back, {"h": last}, "mc")
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(back + LIMIT + 0.1, {"h": last}, "mc")
        self.assertEqual("silent", observer.cause("h"))

    def test_a_backend_with_a_far_older_report_does_not_count(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        observer.refresh(160.0, {"h": 159.1}, "mc")
        self.assertEqual((False, True), self.counts(observer))
        # A report that is a little older counts.
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        observer.refresh(159.0, {"h": 159.0}, "mc")
        self.assertEqual((True, True), self.counts(observer))
        observer.refresh(200.0, {"h": 200.0}, "mc")
        self.check_unavailable(observer, 200.0, {"h": 99.0})

    def test_a_backend_that_it_left_before_does_not_count(self):
        observer = Observer("db", "mc")
        left = [seen("h", 99.0, 99.0, left=True)]
        observer.refresh(100.0, left, "db")
        observer.refresh(120.0, {"h": 120.0}, "mc")
        self.check_unavailable(observer, 120.0, left)

    def test_a_member_of_both_is_down_by_the_backend_that_answers(self):
        """It dies while mc is unreachable. If it lived, db would know."""
        observer = Observer("db", "mc")
        for backend in ("db", "mc"):
            observer.refresh(200.0, {"h": 200.0}, backend)
        observer.fails(202.0, "mc")
        for at, verdict in ((260.0, "reported"), (260.1, "silent")):
            observer.refresh(at, {"h": 200.0}, "db")
            self.assertEqual(verdict, observer.cause("h", at))

    def test_a_session_counts_up_to_the_last_refresh(self):
        for last, verdict in ((50.0, "silent"), (39.0, "unavailable")):
            observer = Observer("zk", "db")
            observer.refresh(100.0, [seen("h", None, present=True)], "zk")
            observer.refresh(100.0, {"h": last}, "db")
            observer.fails(102.0, "zk")
            observer.refresh(160.0, {"h": last}, "db")
            self.assertEqual("reported", observer.cause("h", 160.0))
            # If it reported to db, too, it is down by db.
            observer.refresh(160.1, {"h": last}, "db")
            self.assertEqual(verdict, observer.cause("h", 160.1))

    def _ended_session(self, reported, ended=110.0):
        """Return an observer of a member of zk and db that lost its session.

        :param reported: its last report to db before that
        """
        observer = Observer("zk", "db")
        observer.refresh(100.0, [seen("h", None, present=True)], "zk")
        observer.refresh(100.0, {"h": 95.0}, "db")
        observer.refresh(109.0, {"h": reported}, "db")
        observer.refresh(ended, [seen("h", None, lost=True)], "zk")
        return observer

    def test_lost_if_its_session_ended_and_its_next_report_is_overdue(self):
        due = 1.5 * INTERVAL
        observer = self._ended_session(105.0)
        self.assertEqual("reported", observer.cause("h"))
        lost = [seen("h", None, lost=True)]
        observer.refresh(110.0 + due, {"h": 105.0}, "db")
        observer.refresh(111.0 + due, lost, "zk")
        # The database has not been refreshed since then.
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(112.0 + due, {"h": 105.0}, "db")
        self.assertEqual("lost", observer.cause("h"))
        self.assertIn(
            "its session with the backend ended, and it has not reported to "
            "another since",
            explain.explain(
                observer.group, "h", model.LOST, 130.0, observer.limits
            ),
        )
        # A report to either backend raises it.
        observer.refresh(130.0, {"h": 129.0}, "db")
        self.assertEqual("reported", observer.cause("h"))

    def test_up_if_its_session_ended_and_it_goes_on_reporting(self):
        observer = self._ended_session(105.0)
        observer.refresh(116.0, {"h": 115.0}, "db")
        for at in range(117, 175):
            observer.refresh(
                float(at), [seen("h", None, lost=True)], "zk"
            )
            observer.refresh(float(at), {"h": 115.0}, "db")
            self.assertEqual("reported", observer.cause("h"), at)
        # A report gives it the whole service_down_time.
        observer.refresh(175.1, {"h": 115.0}, "db")
        self.assertEqual("silent", observer.cause("h"))

    def test_not_lost_while_the_other_backend_is_unreachable(self):
        observer = self._ended_session(105.0)
        observer.fails(110.0, "db")
        for at in range(111, 165):
            observer.refresh(
                float(at), [seen("h", None, lost=True)], "zk"
            )
            self.assertEqual("reported", observer.cause("h"), at)

    def test_an_old_session_raises_no_member_while_zk_is_unreachable(self):
        observer = Observer("zk", "db")
        observer.refresh(100.0, [seen("h", None, present=True)], "zk")
        for at in range(100, 300, 10):
            observer.refresh(float(at), {"h": min(at, 150.0)}, "db")
            if at > 100:
                observer.fails(float(at), "zk")
        self.assertEqual("silent", observer.cause("h"))
        # Now it is known that the session is still there.
        observer.refresh(300.0, [seen("h", None, present=True)], "zk")
        self.assertEqual("reported", observer.cause("h"))

    def test_unavailable_if_only_the_unreachable_backend_knows_it(self):
        for observations, verdict in (
            ({"h": 99.0}, "reported"),
            ({"h": 30.0}, "silent"),
        ):
            observer = Observer("db", "mc")
            observer.refresh(100.0, [], "db")
            observer.refresh(100.0, observations, "mc")
            self.assertEqual(verdict, observer.cause("h"))
            observer.fails(102.0, "mc")
            observer.refresh(170.0, [], "db")
            self.assertEqual("unavailable", observer.cause("h"))

    def test_forced_down_stays_while_its_backend_is_unreachable(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 100.0}, "db")
        forced = [seen("h", 100.0, 100.0, forced_down=True)]
        observer.refresh(101.0, forced, "mc")
        observer.fails(103.0, "mc")
        for at in (103.0, 500.0):
            observer.refresh(at, {"h": at}, "db")
            self.assertEqual("forced-down", observer.cause("h"))

    def test_a_report_to_any_backend_raises_a_member_that_is_down(self):
        for backend in ("db", "mc"):
            observer = Observer("db", "mc")
            for one in ("db", "mc"):
                observer.refresh(100.0, {"h": 100.0}, one)
            observer.fails(102.0, "db")
            observer.refresh(161.0, {"h": 100.0}, "mc")
            self.assertEqual("silent", observer.cause("h"))
            # db is back. Its outage no longer excuses a member.
            observer.refresh(163.0, {"h": 100.0}, "db")
            self.assertEqual("silent", observer.cause("h"))
            observer.refresh(165.0, {"h": 164.0}, backend)
            self.assertEqual("reported", observer.cause("h"))


class FirstRefreshTest(unittest.TestCase):
    """At the first refresh the server may be frozen, or a lagging replica."""

    def test_all_members_are_unknown_if_none_has_reported_lately(self):
        observer = Observer(mass=MASS)
        stale = {f"h{number}": 30.0 - number for number in range(5)}
        old = {"long-dead": -5000.0}
        first = observer.refresh(100.0, stale | old)
        self.assertEqual({"unwatched"}, set(first.values()))
        # A member reports. It is up, and the others are not known yet.
        stale["h1"] = 110.0
        verdicts = observer.refresh(111.0, stale | old)
        self.assertEqual("reported", verdicts.pop("h1"))
        self.assertEqual({"unwatched"}, set(verdicts.values()))
        # The observer has watched for long enough. Most members fell silent
        # together: that is mass silence, also to an observer that began
        # later.
        verdicts = observer.refresh(160.1, stale | old | {"h1": 159.0})
        self.assertEqual("reported", verdicts.pop("h1"))
        self.assertEqual("silent", verdicts.pop("long-dead"))
        self.assertEqual({"held"}, set(verdicts.values()))
        fell_first = min(stale.values()) + LIMIT
        verdicts = observer.refresh(
            fell_first + MASS.hold + 0.1, stale | old | {"h1": 205.0}
        )
        self.assertEqual("reported", verdicts.pop("h1"))
        self.assertEqual({"silent"}, set(verdicts.values()))

    def test_a_replica_that_lags_a_little_shows_the_dead(self):
        """At the time of the newest report all others are alive."""
        observer = Observer(mass=MASS)
        verdicts = observer.refresh(
            100.0,
            {"a": 45.0, "b": 42.0, "c": 39.0, "d": 36.0, "dead": -30.0},
        )
        self.assertEqual(
            {
                "a": "reported",
                "b": "reported",
                "c": "unwatched",
                "d": "unwatched",
                "dead": "silent",
            },
            verdicts,
        )

    def test_a_replica_that_lags_may_lack_a_member_s_first_report(self):
        observer = Observer(mass=MASS)
        reported = [seen(f"h{number}", 1, 45.0) for number in range(4)]
        verdicts = observer.refresh(
            100.0,
            [
                *reported,
                Observation("new", registered=10.0),
                Observation("long-dead", registered=-30.0),
            ],
        )
        self.assertEqual("unwatched", verdicts["new"])
        self.assertEqual("never-reported", verdicts["long-dead"])
        verdicts = observer.refresh(
            161.0,
            [
                *(seen(f"h{number}", 2, 160.0) for number in range(4)),
                Observation("new", registered=10.0),
            ],
        )
        self.assertEqual("never-reported", verdicts["new"])

    def test_members_of_a_small_group_are_down_at_the_first_refresh(self):
        observer = Observer(mass=MASS)
        verdicts = observer.refresh(100.0, {"a": 30.0, "b": 20.0})
        self.assertEqual({"silent"}, set(verdicts.values()))

    def test_one_recent_report_proves_the_silent_members_down(self):
        observer = Observer(mass=model.MassRule(0.9, 4, 120.0))
        reports = dict.fromkeys(["a", "b", "c", "d"], 30.0)
        verdicts = observer.refresh(100.0, reports | {"e": 95.0, "f": 93.0})
        self.assertEqual(
            ["silent"] * 4 + ["reported"] * 2, list(verdicts.values())
        )

    def test_members_that_left_or_are_forced_down_are_known_at_once(self):
        observer = Observer(mass=MASS)
        stale = [seen(f"h{number}", 1, 30.0) for number in range(4)]
        verdicts = observer.refresh(
            100.0,
            [
                *stale,
                seen("left", 1, 30.0, left=True),
                seen("forced", 1, 30.0, forced_down=True),
            ],
        )
        self.assertEqual("left", verdicts["left"])
        self.assertEqual("forced-down", verdicts["forced"])

    def test_a_backend_without_stamps_is_trusted_at_the_first_refresh(self):
        observer = Observer("zk", mass=MASS)
        lost = [seen(f"h{number}", None, lost=True) for number in range(5)]
        verdicts = observer.refresh(100.0, lost, stamped=False)
        self.assertEqual({"lost"}, set(verdicts.values()))
