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


"""The verdicts that one of several backends alone would give."""

import unittest

from nova_sg.liveness import model, rules
from tests.unit.liveness.observing import LIMIT, Observer, seen

MASS = model.MassRule(0.55, 4, 2 * LIMIT)


def alone(observer, index):
    """Return the causes of the verdicts by one backend alone, by host."""
    group = rules.alone(observer.group, index, observer.limits)
    return {
        host: member.verdict.cause for host, member in group.members.items()
    }


class AloneTest(unittest.TestCase):
    def test_each_backend_judges_by_its_own_observations(self):
        observer = Observer("db", "mc")
        observer.refresh(
            100.0,
            [
                seen("both", 99.0, 99.0),
                seen("late", 30.0, 30.0),
                seen("forced", 99.0, 99.0),
                seen("left", 90.0, 90.0, left=True),
                seen("db", 99.0, 99.0),
            ],
            "db",
        )
        observer.refresh(
            102.0,
            [
                seen("both", 99.0, 99.0),
                seen("late", 101.0, 101.0),
                seen("forced", 99.0, 99.0, forced_down=True),
                seen("left", 99.0, 99.0),
                seen("mc", 30.0, 30.0),
            ],
            "mc",
        )
        self.assertEqual(
            {
                "both": "reported",
                "late": "silent",
                "forced": "reported",
                "left": "left",
                "db": "reported",
            },
            alone(observer, 0),
        )
        self.assertEqual(
            {
                "both": "reported",
                "late": "reported",
                "forced": "forced-down",
                "left": "reported",
                "mc": "silent",
            },
            alone(observer, 1),
        )

    def test_an_outage_of_one_backend_excuses_there(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        observer.refresh(100.0, {"h": 99.0}, "mc")
        observer.fails(102.0, "db")
        observer.refresh(155.0, {"h": 154.0}, "mc")
        observer.refresh(170.0, {"h": 99.0}, "db")
        self.assertEqual({"h": "reported"}, alone(observer, 0))
        self.assertEqual({"h": "reported"}, alone(observer, 1))
        observer.refresh(231.0, {"h": 99.0}, "db")
        self.assertEqual({"h": "silent"}, alone(observer, 0))

    def test_an_outage_raises_no_member_that_was_down(self):
        observer = Observer("db", "mc")
        for backend in ("db", "mc"):
            observer.refresh(100.0, {"h": 99.0}, backend)
        observer.fails(102.0, "db")
        observer.refresh(160.0, {"h": 99.0}, "mc")
        self.assertEqual("silent", observer.cause("h"))
        # db alone would excuse the time of its outage.
        observer.refresh(162.0, {"h": 99.0}, "db")
        self.assertEqual({"h": "silent"}, alone(observer, 0))
        observer.refresh(164.0, {"h": 163.0}, "db")
        self.assertEqual({"h": "reported"}, alone(observer, 0))
        self.assertEqual({"h": "silent"}, alone(observer, 1))

    def test_a_held_member_is_held_in_each_backend(self):
        observer = Observer("db", "mc", mass=MASS)
        reports = {f"h{number}": 99.0 for number in range(5)}
        for at in (100.0, 160.0):
            for backend in ("db", "mc"):
                observer.refresh(at, reports, backend)
        for index in (0, 1):
            self.assertEqual(
                dict.fromkeys(reports, "held"), alone(observer, index)
            )

    def test_alone_does_not_change_the_group(self):
        observer = Observer("db", "mc")
        observer.refresh(100.0, {"h": 99.0}, "db")
        before = observer.group
        group = rules.alone(observer.group, 1, observer.limits)
        self.assertEqual({}, group.members)
        self.assertEqual(["mc"], [one.name for one in group.backends])
        self.assertEqual(before, observer.group)
