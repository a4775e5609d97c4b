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

"""How the fault suite compares an observer's answers with the truth."""

import tempfile
import unittest

from tests.faults import truth

HOSTS = ["a", "b"]


def polls(text, begin=0.0):
    """Return Answers, one a second, from words of letters."""
    return [
        truth.Answers(begin + number, begin + number + 0.01, letters)
        for number, letters in enumerate(text.split())
    ]


def alive():
    made = truth.Truth(HOSTS)
    made.alive(HOSTS, -10.0)
    return made


class ScoreTest(unittest.TestCase):
    def score(self, made, text, healed=0.0):
        return truth.score(made, polls(text), 0.0, healed, 100.0)

    def test_right_answers_bring_no_fault(self):
        score = self.score(alive(), "UU UU UU")
        self.assertEqual(
            truth.Score(answers=6, recovered=0.0, detected=None), score
        )

    def test_down_of_a_living_member_is_wrong(self):
        score = self.score(alive(), "UU DU DD UU")
        self.assertEqual(3, score.wrong_down)
        self.assertEqual({"a", "b"}, score.called_down)
        self.assertEqual([1.01, 2.01], score.wrong_at)

    def test_no_answer_is_not_wrong_but_counted(self):
        score = self.score(alive(), "UU ?? ?? UU")
        self.assertEqual(0, score.wrong_down)
        self.assertAlmostEqual(2.0, score.unanswered)

    def test_an_observer_that_does_not_ask_gives_no_answer(self):
        asked = [*polls("UU UU"), *polls("UU", begin=9.0)]
        score = truth.score(alive(), asked, 0.0, 0.0, 100.0)
        self.assertAlmostEqual(8.0, score.unanswered)

    def test_it_has_recovered_after_the_last_wrong_or_missing_answer(self):
        score = self.score(alive(), "DU DU UU D? UU UU", healed=1.0)
        self.assertAlmostEqual(2.01, score.recovered)

    def test_an_observer_that_is_wrong_at_the_end_has_not_recovered(self):
        self.assertIsNone(self.score(alive(), "UU UD").recovered)

    def test_the_time_until_a_death_is_found(self):
        made = alive()
        made.dead(["b"], 1.5, within=2.0)
        score = self.score(made, "UU UU UU UD UD")
        self.assertEqual((0, 0.0), (score.wrong_down, score.wrong_up))
        self.assertAlmostEqual(1.51, score.detected)

    def test_up_past_the_bound_is_wrong(self):
        made = alive()
        made.dead(["b"], 1.0, within=2.0)
        score = self.score(made, "UU UU UU UU UU UU UD")
        self.assertAlmostEqual(2.01, score.wrong_up)
        self.assertAlmostEqual(5.01, score.detected)

    def test_a_death_that_is_never_found(self):
        made = alive()
        made.dead(["b"], 1.0, within=1.0)
        self.assertEqual(float("inf"), self.score(made, "UU UU UU").detected)

    def test_up_is_not_wrong_before_the_backend_returns(self):
        made = alive()
        made.dead(["b"], 1.0, within=1.0)
        made.backend_returned(4.0, within=1.0)
        score = self.score(made, "UU UU UU UU UU UD UD", healed=4.0)
        self.assertEqual(0.0, score.wrong_up)
        self.assertAlmostEqual(1.01, score.detected)

    def test_a_member_that_has_just_joined_need_not_be_known(self):
        made = truth.Truth(HOSTS)
        made.alive(["a"], -10.0)
        made.alive(["b"], 1.0, within=1.5)
        score = self.score(made, "UD UD UD UU")
        self.assertEqual(0, score.wrong_down)
        score = self.score(made, "UD UD UD UD UU")
        self.assertEqual(1, score.wrong_down)

    def test_a_living_member_that_was_up_must_stay_up(self):
        made = truth.Truth(HOSTS)
        made.alive(["a"], -10.0)
        made.alive(["b"], 0.5, within=float("inf"))
        score = self.score(made, "UD UD UU UD UU")
        self.assertEqual(1, score.wrong_down)

    def test_a_member_that_comes_back_has_to_be_up_at_the_end(self):
        made = alive()
        made.dead(["b"], 0.5, within=1.0)
        made.alive(["b"], 3.0, within=float("inf"))
        score = self.score(made, "UU UD UD UD UD UU", healed=3.0)
        self.assertEqual(0, score.wrong_down)
        self.assertAlmostEqual(1.01, score.recovered)
        self.assertEqual("UU", made.letters())


class ReadTest(unittest.TestCase):
    def test_an_incomplete_line_is_left_out(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("1.000 1.010 UD\n1.050 1.0")
            file.flush()
            self.assertEqual(
                [truth.Answers(1.0, 1.01, "UD")], truth.read(file.name)
            )
