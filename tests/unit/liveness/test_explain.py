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

"""The sentence that explains a verdict."""

import unittest

from nova_sg.liveness import explain, model
from nova_sg.liveness.model import Observation
from tests.unit.liveness.observing import Observer, seen


def sentence(observer, host="h", now=None):
    """Return the sentence about a member, now or at the last refresh."""
    if now is None:
        now = observer.group.refreshed
    verdict = observer.group.verdict(host, now, 60.0)
    return explain.explain(observer.group, host, verdict, now, observer.limits)


class SentenceTest(unittest.TestCase):
    def test_the_sentences_after_one_refresh(self):
        for expected, observation in (
            ("last report 4.2 s ago", seen("h", 1, 95.8)),
            ("last report 70.0 s ago, allowed are 60 s", seen("h", 1, 30.0)),
            (
                "registered 9.0 s ago, no report yet",
                Observation("h", registered=91.0),
            ),
            (
                "registered 90.0 s ago, no report yet, allowed are 60 s",
                Observation("h", registered=10.0),
            ),
            ("never reported", Observation("h")),
            ("left the group", seen("h", 1, 95.0, left=True)),
            (
                "its process ended without leaving the group",
                seen("h", 1, 95.0, crashed=True),
            ),
            (
                "its session with the backend ended",
                seen("h", None, lost=True),
            ),
            ("forced down by an operator", seen("h", 1, forced_down=True)),
        ):
            with self.subTest(expected):
                observer = Observer()
                observer.refresh(100.0, [observation])
                self.assertEqual(expected, sentence(observer))

    def test_the_sentences_without_an_answer(self):
        observer = Observer()
        observer.fails(10.0)
        self.assertEqual(
            "the backend has never answered", sentence(observer, now=20.0)
        )
        observer.refresh(100.0, {"h": 99.0})
        self.assertEqual(
            "not a member of the group", sentence(observer, "other")
        )
        observer.fails(102.0)
        self.assertEqual(
            "last report 21.0 s ago; the backend has not answered for "
            "20.0 s: this is the last known state",
            sentence(observer, now=120.0),
        )
        self.assertEqual(
            "the backend has not answered for 70.0 s, longer than 60 s",
            sentence(observer, now=170.0),
        )

    def test_an_outage_that_excuses_a_silence(self):
        observer = Observer()
        observer.refresh(100.0, {"h": 100.0})
        observer.fails(102.0)
        observer.refresh(170.0, {"h": 100.0})
        self.assertEqual(
            "last report 70.0 s ago; 70.0 s of that without the backend, so "
            "it may be silent for 60.0 s more",
            sentence(observer),
        )
        observer.refresh(240.0, {"h": 100.0})
        self.assertEqual(
            "last report 140.0 s ago, allowed are 60 s, and 70.0 s without "
            "the backend do not count",
            sentence(observer),
        )

    def test_an_outage_that_became_known_too_late(self):
        observer = Observer()
        observer.refresh(100.0, {"h": 100.0, "own": 100.0})
        observer.refresh(161.0, {"h": 100.0, "own": 155.0})
        observer.reports_fail(103.0, 160.0)
        observer.reports_work(160.0)
        observer.refresh(163.0, {"h": 100.0, "own": 163.0})
        self.assertEqual(
            "last report 63.0 s ago, allowed are 60 s; it was down before "
            "the outage of the backend was known",
            sentence(observer),
        )

    def test_reported_outages(self):
        observer = Observer()
        reports = dict.fromkeys(["h", "a", "b", "c"], 100.0)
        observer.refresh(100.0, reports)
        said = [
            seen(host, 170.0, 170.0, outage=(105.0, 165.0)) for host in "abc"
        ]
        observer.refresh(170.0, [*said, seen("h", 100.0, 100.0)])
        self.assertEqual(
            "last report 0.0 s ago; it says that it could not report for "
            "60.0 s until 5.0 s ago",
            sentence(observer, "a"),
        )
        self.assertEqual("reported", observer.cause("h"))
        observer.refresh(226.0, [*said, seen("h", 100.0, 100.0)])
        self.assertEqual(
            "last report 126.0 s ago, allowed are 60 s, and 60.0 s without "
            "the backend do not count (3 of 3 members that report again say "
            "so)",
            sentence(observer),
        )

    def test_a_report_that_the_backend_lost(self):
        observer = Observer()
        observer.refresh(100.0, [seen("h", 5, 99.0)])
        observer.refresh(180.0, [seen("h", None, vanished=True)])
        self.assertEqual(
            "last report 81.0 s ago; the backend has lost its later "
            "reports, the next one is due in 15.0 s at the latest",
            sentence(observer),
        )

    def test_mass_silence(self):
        mass = model.MassRule(0.55, 4, 120.0)
        observer = Observer(mass=mass)
        observer.refresh(100.0, {f"h{n}": 95.0 + n for n in range(5)})
        observer.refresh(158.0, {f"h{n}": 95.0 + n for n in range(5)})
        self.assertEqual(
            "last report 63.0 s ago; held as up for 3.0 s so far, and for "
            "117.0 s more at most: 5 of 5 members fell silent within 60 s",
            sentence(observer, "h0"),
        )
        observer = Observer(mass=mass)
        reports = [
            seen(f"h{n}", n, 95.0 + n, domain="rack 7" if n < 4 else None)
            for n in range(9)
        ]
        observer.refresh(105.0, reports)
        alive = [seen(f"h{n}", 157 + n, 157.0) for n in range(4, 9)]
        observer.refresh(158.0, [*reports[:4], *alive])
        self.assertEqual(
            "last report 63.0 s ago; held as up for 3.0 s so far, and for "
            "117.0 s more at most: 4 of 4 members of the failure domain "
            "rack 7 fell silent within 60 s",
            sentence(observer, "h0"),
        )
        observer = Observer(mass=mass)
        observer.refresh(200.0, {f"h{n}": 95.0 + n for n in range(5)})
        self.assertEqual(
            "last report 115.0 s ago, and no other member reported later "
            "than 15 s before this observer began: the backend may be "
            "behind; known in 50.0 s at the latest",
            sentence(observer, "h0", now=210.0),
        )
