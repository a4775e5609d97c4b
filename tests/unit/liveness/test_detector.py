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

"""The rule table, and the six rules of the judgement."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.liveness import explain, model
from nova_sg.liveness.model import Observation
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen

MASS = model.MassRule(0.55, 4, 2 * LIMIT)


class TableTest(unittest.TestCase):
    def test_one_refresh(self):
        asked = 1000.0
        late = asked - LIMIT - 0.1
        for verdict, observation in (
            ("reported", seen("h", 1, asked)),
            ("reported", seen("h", 1, asked - LIMIT)),
            ("silent", seen("h", 1, late)),
            # Written between the question and the answer.
            ("reported", seen("h", 1, asked + 0.2)),
            ("reported", seen("h", 1, asked + LIMIT)),
            # A stamp from the future is not believed.
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

    def test_the_newest_report_of_any_member(self):
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
        # A report that is seen to have come, by the stamp and without one.
        observer.refresh(130.0, {"a": 125.0, "b": 103.0})
        self.assertEqual([125.0, never], heard())
        observer.refresh(140.0, [seen("a", 126.0)], complete=False)
        self.assertEqual([140.0, never], heard())
        # Leaving is no report, nor is it for one to be removed.
        observer.refresh(150.0, [seen("a", 126.0, left=True)])
        self.assertEqual([140.0, never], heard())
        observer.refresh(150.0, {"a": 149.0}, backend="mc")
        self.assertEqual([140.0, 149.0], heard())

    def test_without_an_answer_nothing_is_known(self):
        observer = Observer()
        self.assertEqual("unavailable", observer.cause("h", 1.0))
        observer.fails(1.0)
        self.assertEqual("unavailable", observer.cause("h", 1.0))
        observer.refresh(2.0, [])
        self.assertEqual("not-a-member", observer.cause("h"))

    def test_unavailable_is_a_matter_of_age_alone(self):
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

    def test_leaving_ends_with_the_next_report(self):
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

    def test_a_member_that_a_complete_answer_does_not_name(self):
        observer = Observer()
        observer.refresh(1.0, {"a": 1.0, "b": 1.0})
        self.assertEqual({"b": "reported"}, observer.refresh(2.0, {"b": 1.0}))
        (change,) = observer.changes
        self.assertEqual(("a", None), (change.host, change.now))

    def test_a_member_that_an_incomplete_answer_does_not_name(self):
        observer = Observer()
        observer.refresh(1.0, {"a": 1.0})
        for at, verdict in ((LIMIT, "reported"), (LIMIT + 1.1, "silent")):
            self.assertEqual(
                {"a": verdict}, observer.refresh(at, [], complete=False)
            )

    def test_changes(self):
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

    def test_a_backend_that_lost_a_report(self):
        observer = Observer()
        observer.refresh(100.0, [seen("h", 5, 99.0)])
        gone = [seen("h", None, vanished=True)]
        for at, verdict in (
            (102.0, "reported"),
            (99.0 + LIMIT, "reported"),
            (99.1 + LIMIT, "silent"),
        ):
            self.assertEqual({"h": verdict}, observer.refresh(at, gone))
        # Found late, it has time for one report.
        observer = Observer()
        observer.refresh(100.0, [seen("h", 5, 99.0)])
        for at, verdict in (
            (180.0, "vanished"),
            (180.0 + 1.5 * INTERVAL, "vanished"),
            (180.1 + 1.5 * INTERVAL, "silent"),
        ):
            self.assertEqual({"h": verdict}, observer.refresh(at, gone))
        # The old report, read from another server, is none.
        self.assertEqual(
            {"h": "silent"}, observer.refresh(200.0, [seen("h", 5, 99.0)])
        )
        # And the backend may lose it once more.
        self.assertEqual({"h": "silent"}, observer.refresh(202.0, gone))
        self.assertEqual(
            {"h": "reported"}, observer.refresh(210.0, [seen("h", 6, 209.0)])
        )


class ChangeNotTimeTest(unittest.TestCase):
    """Rule 1: a report is seen by what changed."""

    @given(
        st.lists(st.integers(-100_000, 100_000), min_size=50, max_size=50),
        st.integers(1, 12),
        st.integers(1, 40),
    )
    def test_whatever_the_clocks_say(self, skews, pace, dies):
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
            # It is known to within two refreshes when it reported.
            if now <= last + LIMIT - pace:
                self.assertEqual("reported", verdict)
            elif now > last + LIMIT + pace:
                self.assertEqual("silent", verdict)

    def test_a_new_observer_waits_for_a_report_that_is_due(self):
        """Its stamp may come from a clock that is behind."""
        observer = Observer()
        observer.refresh(100.0, {"h": 45.0})
        for at, verdict in ((115.0, "reported"), (115.1, "silent")):
            self.assertEqual({"h": verdict}, observer.refresh(at, {"h": 45.0}))
        # Too old for one that may be off by less than that.
        self.assertEqual(
            {"h": "silent"}, Observer().refresh(100.0, {"h": 39.0})
        )

    def test_a_stamp_refines_between_two_refreshes(self):
        for stamp, report in ((150.0, 150.0), (90.0, 100.0), (220.0, 200.0)):
            observer = Observer()
            observer.refresh(100.0, [seen("h", 1, 99.0)])
            observer.refresh(200.0, [seen("h", 2, stamp)])
            self.assertEqual(report, observer.group.members["h"].report)

    def test_a_server_that_is_behind(self):
        """An older record is no report, and says nothing new."""
        observer = Observer()
        new, old = seen("h", 50, 100.0), seen("h", 47, 70.0, forced_down=True)
        observer.refresh(100.0, [new])
        for at in range(102, 162, 2):
            verdict = observer.refresh(float(at), [new if at % 4 else old])
            self.assertEqual(
                {"h": "reported" if at <= 160 else "silent"}, verdict
            )

    def test_a_backup_that_was_restored(self):
        """The numbers begin anew, with stamps that are new."""
        observer = Observer()
        observer.refresh(100.0, [seen("h", 500, 100.0)])
        for number in range(1, 20):
            at = 100.0 + number * INTERVAL
            observer.refresh(at, [seen("h", number, at)])
            self.assertEqual("reported", observer.cause("h"))

    def test_a_new_member_with_an_old_stamp(self):
        """As a server that was away shows it, which knows more members."""
        observer = Observer()
        observer.refresh(100.0, [])
        observer.refresh(102.0, [seen("h", 1, 20.0), seen("i", 1, 90.0)])
        self.assertEqual("silent", observer.cause("h"))
        self.assertEqual("reported", observer.cause("i"))
        self.assertEqual(90.0, observer.group.members["i"].report)


class DownStaysDownTest(unittest.TestCase):
    """Rule 3: nothing but a report raises a member that was down."""

    def test_a_late_report_with_an_exact_time(self):
        """As a value that is set in memcached long after it was written."""
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

    def test_an_outage_that_is_told_late(self):
        self.assertEqual(
            {"h": "silent", "own": "reported"},
            self.observer.refresh(161.0, {"h": 100.0, "own": 155.0}),
        )
        # Found now: own reports hung before that.
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

    def test_an_outage_that_is_told_in_time(self):
        self.observer.reports_fail(103.0, 103.0)
        for at in (161.0, 200.0):
            self.assertEqual(
                "reported",
                self.observer.refresh(at, {"h": 100.0, "own": 100.0})["h"],
            )

    def test_what_the_server_tells_late(self):
        self.observer.refresh(161.0, {"h": 100.0, "own": 155.0})
        self.observer.backend_out(101.0, 161.0)
        self.assertEqual(
            "silent",
            self.observer.refresh(162.0, {"h": 100.0, "own": 155.0})["h"],
        )

    def test_an_operator_takes_a_word_back(self):
        down = [seen("h", 100.0, 100.0, forced_down=True)]
        self.observer.refresh(161.0, down)
        self.assertEqual("forced-down", self.observer.cause("h"))
        self.observer.refresh(162.0, {"h": 100.0})
        self.assertEqual("silent", self.observer.cause("h"))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["look", "fail", "own fails", "own works", "server"]
                ),
                st.integers(1, 70),
            ),
            max_size=30,
        )
    )
    def test_whatever_is_told(self, told):
        observer = Observer()
        observer.refresh(0.0, {"h": 0.0, "other": 0.0})
        now, other, down = 0.0, 0.0, False
        for what, seconds in told:
            now += seconds
            if what == "look":
                other = now
                observer.refresh(now, {"h": 0.0, "other": other})
                state = observer.group.members["h"].life.state
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
    """Time without the backend counts against no member."""

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

    def test_time_without_the_backend_counts_against_no_member(self):
        self.observer.fails(102.0)
        back = 100.0 + 10 * LIMIT
        self.observer.refresh(back, {"alive": 95.0, "dead": 39.0})
        self.assertEqual(["up", "down"], self.states(back))
        # From now on it has the whole time once more.
        for at, state in ((back + LIMIT, "up"), (back + LIMIT + 0.1, "down")):
            self.observer.refresh(at, [], complete=False)
            self.assertEqual([state, "down"], self.states(at))

    def test_a_report_after_the_backend_is_back_counts_as_usual(self):
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
    """A backend that knows by itself that a member is alive."""

    def test_a_session_that_ends(self):
        observer = Observer("zk")
        alive, ended = (
            [seen("h", None, present=True)],
            [seen("h", None, lost=True)],
        )
        for at in (100.0, 200.0, 300.0):
            self.assertEqual({"h": "reported"}, observer.refresh(at, alive))
        self.assertEqual({"h": "lost"}, observer.refresh(302.0, ended))
        # It was alive when it was seen last.
        self.assertEqual(300.0, observer.group.members["h"].report)
        self.assertEqual({"h": "reported"}, observer.refresh(304.0, alive))

    def test_one_of_many_sessions_that_ends(self):
        """The others have theirs: they are not about to fall silent."""
        observer = Observer("zk", mass=model.MassRule(0.55, 4, 120.0))
        alive = [seen(str(n), None, present=True) for n in range(20)]
        for at in range(100, 160, 2):
            observer.refresh(float(at), alive)
        ended = [seen("0", None, lost=True), *alive[1:]]
        self.assertEqual("lost", observer.refresh(159.0, ended)["0"])

    def test_after_an_outage_members_have_time_to_come_back(self):
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

    def test_an_interruption_that_no_refresh_met(self):
        observer = Observer("zk")
        observer.refresh(100.0, [seen("h", None, present=True)])
        ended = [seen("h", None, lost=True)]
        self.assertEqual(
            {"h": "reported"},
            observer.refresh(102.0, ended, interrupted=True, rejoin=5.0),
        )
        self.assertEqual({"h": "lost"}, observer.refresh(107.1, ended))

    def test_what_the_backend_does_not_know_yet(self):
        """Neither alive nor ended: as any backend that keeps reports."""
        observer = Observer("zk")
        observer.refresh(100.0, [seen("h", None, present=True)])
        unsure = [seen("h", None)]
        observer.refresh(102.0, unsure)
        for at, verdict in ((160.0, "reported"), (160.1, "silent")):
            self.assertEqual({"h": verdict}, observer.refresh(at, unsure))

    def test_a_session_that_was_never_seen(self):
        for interrupted in (False, True):
            observer = Observer("zk")
            ended = [seen("h", None, lost=True)]
            self.assertEqual(
                {"h": "lost"},
                observer.refresh(
                    100.0, ended, interrupted=interrupted, rejoin=8.0
                ),
            )

    def test_outages_in_a_row_do_not_end_the_time_to_come_back(self):
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
        # The next outage raises no member.
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
    def test_only_a_session_raises_one_that_was_lost(self, steps, rejoin):
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
            down = observer.group.members["h"].life.state == "down"
            self.assertFalse(here and down)
            self.assertFalse(was_down and not here and not down)
            was_down = down

    @given(st.floats(0.1, 20), st.lists(st.floats(0.1, LIMIT), max_size=5))
    def test_one_that_does_not_come_back_is_lost(self, rejoin, outages):
        """After the last outage and the time to come back."""
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

    def test_the_newest_report_counts(self):
        self.observer.refresh(155.0, {"h": 150.0}, "mc")
        self.observer.refresh(170.0, {"h": 100.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        self.observer.refresh(211.0, {"h": 150.0}, "mc")
        self.assertEqual("silent", self.observer.cause("h"))

    def test_an_outage_of_one_excuses_nothing(self):
        self.observer.fails(102.0, "db")
        self.observer.refresh(160.1, {"h": 100.0}, "mc")
        self.assertEqual("silent", self.observer.cause("h"))
        self.observer.refresh(170.0, {"h": 100.0}, "db")
        self.assertEqual("silent", self.observer.cause("h"))

    def test_an_outage_of_both_does(self):
        for backend in ("db", "mc"):
            self.observer.fails(102.0, backend)
        self.observer.refresh(170.0, {"h": 100.0}, "mc")
        self.observer.refresh(171.0, {"h": 100.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        # A limit after the end, as this observer knows it.
        self.observer.refresh(231.1, {"h": 100.0}, "db")
        self.assertEqual("silent", self.observer.cause("h"))

    def test_an_older_report_elsewhere_raises_nothing(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 100.0}, "db")
        observer.refresh(161.0, {"h": 100.0}, "db")
        self.assertEqual("silent", observer.cause("h"))
        # It had reported there later, and before it was called down.
        observer.refresh(165.0, {"h": 130.0}, "mc")
        self.assertEqual("silent", observer.cause("h"))
        observer.refresh(167.0, {"h": 166.0}, "mc")
        self.assertEqual("reported", observer.cause("h"))

    def test_leaving_counts_wherever_it_was_heard_last(self):
        gone = [seen("h", 100.0, 100.0, left=True)]
        self.observer.refresh(105.0, gone, "mc")
        self.assertEqual("left", self.observer.cause("h"))
        self.observer.refresh(106.0, {"h": 100.0}, "db")
        self.assertEqual("left", self.observer.cause("h"))
        # It reports to the other one again.
        self.observer.refresh(120.0, {"h": 119.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        self.observer.refresh(121.0, gone, "mc")
        self.assertEqual("reported", self.observer.cause("h"))

    def test_a_new_observer_of_a_member_that_left_one_long_ago(self):
        observer = Observer("db", "mc")
        observer.refresh(1000.0, [seen("h", 100.0, 100.0, left=True)], "mc")
        self.assertEqual("left", observer.cause("h"))
        observer.refresh(1000.0, {"h": 995.0}, "db")
        self.assertEqual("reported", observer.cause("h"))

    def test_an_operators_word_counts_in_any(self):
        forced = [seen("h", 100.0, 100.0, forced_down=True)]
        self.observer.refresh(101.0, forced, "mc")
        self.observer.refresh(102.0, {"h": 101.0}, "db")
        self.assertEqual("forced-down", self.observer.cause("h"))
        self.observer.refresh(103.0, {"h": 100.0}, "mc")
        self.assertEqual("reported", self.observer.cause("h"))

    def test_a_member_that_one_does_not_know_any_more(self):
        self.observer.refresh(101.0, [], "mc")
        self.assertEqual("reported", self.observer.cause("h"))
        self.assertEqual([], self.observer.changes)
        self.observer.refresh(102.0, [], "db")
        self.assertEqual("not-a-member", self.observer.cause("h"))

    def test_a_member_of_one_that_does_not_answer(self):
        self.observer.refresh(101.0, {"h": 100.0, "other": 99.0}, "mc")
        self.observer.fails(102.0, "mc")
        self.observer.refresh(162.0, {"h": 161.0}, "db")
        self.assertEqual("reported", self.observer.cause("h"))
        self.assertEqual("unavailable", self.observer.cause("other"))


class MovingMemberTest(unittest.TestCase):
    """A backend that a member no longer reports to does not count for it."""

    def counts(self, observer):
        member = observer.group.members["h"]
        return observer.group.counts(member.seen, LIMIT)

    def check_unavailable(self, observer, last, db):
        """Check that no working of db makes it down while mc is out.

        :param last: when mc answered last, and its report there
        :param db: what db says of it, in any refresh
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
        # It died meanwhile: mc is back, and was at fault until then.
        back = last + 510.0
        observer.refresh(back, {"h": last}, "mc")
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(back + LIMIT + 0.1, {"h": last}, "mc")
        self.assertEqual("silent", observer.cause("h"))

    def test_its_report_there_is_far_older(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        observer.refresh(160.0, {"h": 159.1}, "mc")
        self.assertEqual((False, True), self.counts(observer))
        # Not so far.
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        observer.refresh(159.0, {"h": 159.0}, "mc")
        self.assertEqual((True, True), self.counts(observer))
        observer.refresh(200.0, {"h": 200.0}, "mc")
        self.check_unavailable(observer, 200.0, {"h": 99.0})

    def test_it_left_there_before_it_reported_elsewhere(self):
        observer = Observer("db", "mc")
        left = [seen("h", 99.0, 99.0, left=True)]
        observer.refresh(100.0, left, "db")
        observer.refresh(120.0, {"h": 120.0}, "mc")
        self.check_unavailable(observer, 120.0, left)

    def test_a_member_of_both(self):
        """It dies while mc is out: db would have its reports."""
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
            # Where it reported to db too, it should do so now.
            observer.refresh(160.1, {"h": last}, "db")
            self.assertEqual(verdict, observer.cause("h", 160.1))

    def _ended_session(self, reported, ended=110.0):
        """Return an observer of a member of zk and db that lost a session.

        :param reported: when it reported to db last before that
        """
        observer = Observer("zk", "db")
        observer.refresh(100.0, [seen("h", None, present=True)], "zk")
        observer.refresh(100.0, {"h": 95.0}, "db")
        observer.refresh(109.0, {"h": reported}, "db")
        observer.refresh(ended, [seen("h", None, lost=True)], "zk")
        return observer

    def test_its_session_ended_and_the_next_report_does_not_come(self):
        due = 1.5 * INTERVAL
        observer = self._ended_session(105.0)
        self.assertEqual("reported", observer.cause("h"))
        lost = [seen("h", None, lost=True)]
        observer.refresh(110.0 + due, {"h": 105.0}, "db")
        observer.refresh(111.0 + due, lost, "zk")
        # What the database has to say since then is not known yet.
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
        # A report to either raises it.
        observer.refresh(130.0, {"h": 129.0}, "db")
        self.assertEqual("reported", observer.cause("h"))

    def test_its_session_ended_and_it_goes_on_reporting(self):
        observer = self._ended_session(105.0)
        observer.refresh(116.0, {"h": 115.0}, "db")
        for at in range(117, 175):
            observer.refresh(
                float(at), [seen("h", None, lost=True)], "zk"
            )
            observer.refresh(float(at), {"h": 115.0}, "db")
            self.assertEqual("reported", observer.cause("h"), at)
        # It has all the time that a report gives.
        observer.refresh(175.1, {"h": 115.0}, "db")
        self.assertEqual("silent", observer.cause("h"))

    def test_its_session_ended_while_the_other_does_not_answer(self):
        observer = self._ended_session(105.0)
        observer.fails(110.0, "db")
        for at in range(111, 165):
            observer.refresh(
                float(at), [seen("h", None, lost=True)], "zk"
            )
            self.assertEqual("reported", observer.cause("h"), at)

    def test_a_session_raises_none_while_its_backend_is_unreachable(self):
        observer = Observer("zk", "db")
        observer.refresh(100.0, [seen("h", None, present=True)], "zk")
        for at in range(100, 300, 10):
            observer.refresh(float(at), {"h": min(at, 150.0)}, "db")
            if at > 100:
                observer.fails(float(at), "zk")
        self.assertEqual("silent", observer.cause("h"))
        # It was there when zk answered last, and is known to be there now.
        observer.refresh(300.0, [seen("h", None, present=True)], "zk")
        self.assertEqual("reported", observer.cause("h"))

    def test_one_that_has_not_come_over_yet(self):
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

    def test_an_operators_word_in_one_that_does_not_answer(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 100.0}, "db")
        forced = [seen("h", 100.0, 100.0, forced_down=True)]
        observer.refresh(101.0, forced, "mc")
        observer.fails(103.0, "mc")
        for at in (103.0, 500.0):
            observer.refresh(at, {"h": at}, "db")
            self.assertEqual("forced-down", observer.cause("h"))

    def test_it_takes_a_report_to_any_to_be_up_again(self):
        for backend in ("db", "mc"):
            observer = Observer("db", "mc")
            for one in ("db", "mc"):
                observer.refresh(100.0, {"h": 100.0}, one)
            observer.fails(102.0, "db")
            observer.refresh(161.0, {"h": 100.0}, "mc")
            self.assertEqual("silent", observer.cause("h"))
            # db is back: this excuses nothing any more.
            observer.refresh(163.0, {"h": 100.0}, "db")
            self.assertEqual("silent", observer.cause("h"))
            observer.refresh(165.0, {"h": 164.0}, backend)
            self.assertEqual("reported", observer.cause("h"))


class FirstRefreshTest(unittest.TestCase):
    """The server may be frozen, or a replica that lags."""

    def test_not_one_has_reported(self):
        observer = Observer(mass=MASS)
        stale = {f"h{number}": 30.0 - number for number in range(5)}
        old = {"long-dead": -5000.0}
        first = observer.refresh(100.0, stale | old)
        self.assertEqual({"unwatched"}, set(first.values()))
        # One reports: it is up, the others are not known yet.
        stale["h1"] = 110.0
        verdicts = observer.refresh(111.0, stale | old)
        self.assertEqual("reported", verdicts.pop("h1"))
        self.assertEqual({"unwatched"}, set(verdicts.values()))
        # Watched for long enough: now it is known. That most of them fell
        # silent together is mass silence, to an observer that was there when
        # it began, and to this one.
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

    def test_a_replica_that_lags_a_little(self):
        """As of the newest report all are alive, but for the dead."""
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

    def test_small_groups_are_judged_as_ever(self):
        observer = Observer(mass=MASS)
        verdicts = observer.refresh(100.0, {"a": 30.0, "b": 20.0})
        self.assertEqual({"silent"}, set(verdicts.values()))

    def test_one_that_reports_proves_the_rest_dead(self):
        observer = Observer(mass=model.MassRule(0.9, 4, 120.0))
        reports = dict.fromkeys(["a", "b", "c", "d"], 30.0)
        verdicts = observer.refresh(100.0, reports | {"e": 95.0, "f": 93.0})
        self.assertEqual(
            ["silent"] * 4 + ["reported"] * 2, list(verdicts.values())
        )

    def test_who_left_or_is_forced_down_is_known(self):
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

    def test_a_backend_without_stamps_is_no_replica(self):
        observer = Observer("zk", mass=MASS)
        lost = [seen(f"h{number}", None, lost=True) for number in range(5)]
        verdicts = observer.refresh(100.0, lost, stamped=False)
        self.assertEqual({"lost"}, set(verdicts.values()))
