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

"""One verdict, of several backends'."""

import unittest
from types import SimpleNamespace

from nova_sg.servicegroup import detector
from nova_sg.servicegroup.several import compare, judgement

UP, DOWN = detector.REPORTED, detector.SILENT
FORCED, NOBODY = detector.FORCED_DOWN, detector.NOT_A_MEMBER
UNAVAILABLE = detector.UNAVAILABLE


class View:
    """A view that says what it is told to: of the member "it".

    :param how: "answers", "fails", or "silent", for longer than
        service_down_time
    """

    def __init__(self, name, verdict=None, how="answers"):
        self.name = name
        self.how = how
        self.report = 0.0
        self.says(verdict)

    def says(self, verdict):
        self.last_verdicts = {"it": verdict} if verdict else {}

    def answering(self):
        return self.how == "answers"

    def available(self):
        return self.how != "silent"

    def reported_since(self, host, moment):
        return self.report > moment


def make(primary, *others):
    secondaries = [
        SimpleNamespace(view=view, comparer=compare.Comparer())
        for view in others
    ]
    return judgement.Judgement(primary, secondaries), secondaries


class JudgementTest(unittest.TestCase):
    def check(self, *cases):
        for *views, name, verdict in cases:
            with self.subTest(views):
                primary, *others = (
                    View(str(place), *args)
                    for place, args in enumerate(views)
                )
                judge, _ = make(primary, *others)
                view, found = judge.judge("it")
                self.assertEqual((name, verdict), (view.name, found))

    def test_the_primary_while_it_answers(self):
        self.check(
            ([UP], [UP], "0", UP),
            ([UP], [DOWN], "0", UP),
            ([DOWN], [UP], "0", DOWN),
            ([UP], [None], "0", UP),
            ([None], [None], "0", NOBODY),
            ([UP], [UP, "fails"], "0", UP),
        )

    def test_the_first_that_can_while_it_does_not(self):
        self.check(
            ([UP, "fails"], [DOWN], "1", DOWN),
            ([DOWN, "fails"], [UP], "1", UP),
            ([UP, "fails"], [DOWN], [UP], "1", DOWN),
            ([UP, "fails"], [DOWN, "fails"], [UP], "2", UP),
            ([UP, "fails"], [None], [DOWN], "2", DOWN),
            ([UP, "silent"], [DOWN], "1", DOWN),
            ([None, "silent"], [UP], "1", UP),
            # Nobody who knows better: the last verdict of the first stands.
            ([UP, "fails"], [None], "0", UP),
            ([UP, "fails"], [DOWN, "fails"], "0", UP),
            ([None, "fails"], [None], "0", NOBODY),
            ([UP, "silent"], [DOWN, "fails"], "1", DOWN),
            ([UP, "silent"], [DOWN, "silent"], "0", UNAVAILABLE),
            ([UP, "silent"], [None], "0", UNAVAILABLE),
        )

    def test_who_has_not_come_over_yet(self):
        self.check(
            ([None], [UP], "1", UP),
            ([None], [DOWN], [UP], "2", UP),
            ([None], [DOWN], "1", DOWN),
            ([None], [UP, "fails"], "1", UP),
            ([None], [UP, "silent"], "1", UNAVAILABLE),
            ([None], [DOWN, "silent"], "1", DOWN),
        )

    def test_an_operator_counts_everywhere(self):
        self.check(
            ([FORCED], [UP], "0", FORCED),
            ([UP], [FORCED], "1", FORCED),
            ([UP], [UP], [FORCED], "2", FORCED),
            # Also the last that was heard of the primary.
            ([FORCED, "silent"], [UP], "0", FORCED),
            ([UP, "fails"], [FORCED], "1", FORCED),
            # Taken back, where a secondary could not be told.
            ([UP], [FORCED, "fails"], "0", UP),
        )

    def test_who_contradicted_before_is_not_believed(self):
        for first, second, changed in (
            (UP, DOWN, UP),
            (DOWN, UP, DOWN),
        ):
            with self.subTest(first):
                primary, other = View("0", first), View("1", second)
                judge, [secondary] = make(primary, other)
                secondary.comparer.compare(
                    0.0, 10.0, primary.last_verdicts, other.last_verdicts
                )
                primary.how = "fails"
                self.assertEqual((primary, first), judge.judge("it"))
                primary.how = "silent"
                self.assertEqual((primary, UNAVAILABLE), judge.judge("it"))
                # It changes its mind: that is news.
                other.says(changed)
                self.assertEqual((other, changed), judge.judge("it"))

    def test_who_fell_while_the_primary_was_away_does_not_rise(self):
        primary, other = View("0", UP), View("1", UP)
        judge, _ = make(primary, other)
        judge.note_the_fallen(0.0)
        primary.how = "fails"
        judge.note_the_fallen(1.0)
        self.assertFalse(judge.fell("it"))
        other.says(DOWN)
        judge.note_the_fallen(2.0)
        self.assertTrue(judge.fell("it"))
        # The primary is back, and excuses a silence that was not its fault.
        primary.how = "answers"
        judge.note_the_fallen(3.0)
        self.assertEqual((other, DOWN), judge.judge("it"))
        # By its own rules it finds out, too.
        primary.says(DOWN)
        judge.note_the_fallen(4.0)
        self.assertFalse(judge.fell("it"))
        self.assertEqual((primary, DOWN), judge.judge("it"))

    def test_a_report_brings_it_back(self):
        for case in ("to the primary", "to the secondary", "the other fails"):
            with self.subTest(case):
                primary, other = View("0", UP, "fails"), View("1", DOWN)
                judge, _ = make(primary, other)
                judge.note_the_fallen(2.0)
                primary.how = "answers"
                self.assertEqual((other, DOWN), judge.judge("it"))
                if case == "to the primary":
                    primary.report = 3.0
                elif case == "to the secondary":
                    other.says(UP)
                else:
                    other.how = "fails"
                self.assertEqual((primary, UP), judge.judge("it"))
                judge.note_the_fallen(4.0)
                self.assertFalse(judge.fell("it"))
