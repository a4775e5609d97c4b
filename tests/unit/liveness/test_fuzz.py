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


"""What holds after any sequence of refreshes and outages."""

import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from nova_sg.backends import base
from nova_sg.liveness import detector, domains, explain, group, model
from nova_sg.liveness.model import (
    FORCED_DOWN,
    HELD,
    NEVER,
    Attributes,
    Observation,
    Outage,
    Refresh,
)
from tests import LONG

BACKENDS = ("db", "zk")
HOSTS = "abcde"
LIMITS = st.sampled_from(
    [
        model.Limits(60.0, 10.0),
        model.Limits(60.0, 10.0, model.MassRule(0.55, 3, 120.0)),
        model.Limits(10.0, 30.0, model.MassRule(1.0, 2, 0.0)),
        model.Limits(
            *(60.0, 10.0, model.MassRule(0.55, 2, 120.0)),
            domains=domains.Domains([("[ab]", "rack 1"), ("c", "rack 2")]),
        ),
    ]
)
# Seconds before or after the present, and values that are no moment.
SECONDS = st.one_of(
    st.integers(-150, 20).map(float),
    st.sampled_from([float("-inf"), float("inf"), 1e300]),
)
# check_refresh() refuses what is not a number.
NUMBERS = st.floats(allow_nan=False) | SECONDS
FACTS = (
    st.fixed_dictionaries(
        {},
        optional={
            "left": st.just(True),
            "crashed": st.just(True),
            "present": st.just(True),
            "lost": st.just(True),
            "vanished": st.just(True),
            "forced_down": st.just(True),
            "outage": st.tuples(NUMBERS, NUMBERS),
            "draining": st.just(True),
            "unwell": st.just("its disk is full"),
            "domain": st.sampled_from(["rack 1", "rack 2"]),
        },
    )
    .map(lambda fields: Attributes(**fields))
    .filter(
        # No driver reports that a member has a session and has left.
        lambda attributes: not (attributes.present and attributes.gone)
    )
)
PLAIN = st.just(Attributes())
OBSERVATIONS = st.lists(
    st.tuples(
        st.sampled_from(HOSTS),
        st.none() | st.integers(0, 6),
        st.none() | SECONDS,
        st.none() | SECONDS,
        st.one_of(PLAIN, PLAIN, FACTS),
    ),
    unique_by=lambda one: one[0],
    max_size=len(HOSTS),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(BACKENDS),
        st.sampled_from([0.0, 1.0, 10.0, 61.0, 150.0]),
        st.one_of(
            st.sampled_from(["fails", "own fails", "own works", "server"]),
            OBSERVATIONS,
            OBSERVATIONS,
            OBSERVATIONS,
        ),
        st.fixed_dictionaries(
            {
                "complete": st.booleans(),
                "interrupted": st.booleans(),
                "stamped": st.booleans(),
                "rejoin": st.sampled_from([0.0, 20.0]),
            }
        ),
    ),
    max_size=12,
)


def observe(now, observations):
    """Return observations whose moments are seconds before or after now."""
    return [
        Observation(
            host,
            number,
            None if reported is None else now + reported,
            None,
            None if registered is None else now + registered,
            attributes
            if attributes.outage is None
            else attributes._replace(
                outage=tuple(now + s for s in attributes.outage)
            ),
        )
        for host, number, reported, registered, attributes in observations
    ]


def tell(known, backend, what, now, seconds):
    """Take in an event that is no refresh."""
    if what == "fails":
        return known.refresh_failed(backend, now)
    if what == "own fails":
        return known.reports_fail(backend, "own", now - seconds, now)
    if what == "own works":
        return known.reports_work(backend, "own", now)
    return known.backend_out(backend, Outage(now - seconds, now))


class AnyEventsTest(unittest.TestCase):
    @settings(max_examples=2000 if LONG else 100)
    @given(EVENTS, LIMITS)
    def test_any_events(self, events, limits):
        known, now = group.new(*BACKENDS), 1000.0
        for backend, seconds, what, flags in events:
            now += seconds
            if isinstance(what, str):
                known = tell(known, backend, what, now, seconds)
                continue
            refresh = Refresh(backend, now, observe(now, what), **flags)
            before = known
            base.check_refresh(refresh)
            known, changes = detector.step(before, refresh, limits)
            self.check_changes(before, known, changes)
            self.check_members(before, known, refresh)
            self.check_holds(known)
            self.check_questions(known, now, limits)
            self.check_order(before, known, refresh, limits)
            again, changes = detector.step(known, refresh, limits)
            # The same refresh once more changes nothing. There are two
            # exceptions: own reports that fail are weighed by the members
            # that were up before, and an interruption is another outage.
            if not refresh.interrupted and not any(
                one.failing_reports for one in known.backends
            ):
                self.assertEqual([], changes, "the same refresh once more")
            self.check_none_rises(changes)
            self.check_time_alone(again, backend, now, limits)

    def check_changes(self, before, after, changes):
        """The changes lead from the verdicts before to those after."""
        verdicts = {
            host: member.verdict for host, member in before.members.items()
        }
        for host, was, now, _ in changes:
            self.assertEqual(verdicts.pop(host, None), was)
            if now is not None:
                verdicts[host] = now
        self.assertEqual(
            {host: member.verdict for host, member in after.members.items()},
            verdicts,
        )

    def check_members(self, before, after, refresh):
        """Forced down counts; only a new report raises; none gets older."""
        index = after.place(refresh.backend)
        named = {one.host: one for one in refresh.observations}
        for host, member in after.members.items():
            self.assertTrue(any(member.histories))
            if refresh.complete:
                self.assertEqual(
                    host in named, member.histories[index] is not None
                )
            forced = any(
                seen is not None and seen.observation.attributes.forced_down
                for seen in member.histories
            )
            self.assertEqual(forced, member.verdict is FORCED_DOWN)
            if member.silent_since > NEVER:
                self.assertEqual("down", member.unforced.state)
            was = before.members.get(host)
            if was is None:
                continue
            if was.silent_since > NEVER and member.unforced.state == "up":
                # It has a report that is newer than the verdict.
                one = named.get(host)
                new = one is not None and (
                    one.attributes.present
                    or was.histories[index] is None
                    or one.report_number
                    not in (None, was.histories[index].report_number)
                )
                self.assertTrue(
                    new or member.report > was.silent_since, member
                )
            if (
                was.histories[index] is None
                or member.histories[index] is not None
            ):
                self.assertGreaterEqual(
                    after.last_report(member), before.last_report(was)
                )

    def check_holds(self, known):
        """Each held member is in one hold, and each hold has a member."""
        held = {
            host
            for host, member in known.members.items()
            if member.unforced is HELD
        }
        self.assertEqual(held, known.mass.held.keys())
        self.assertEqual(
            known.mass.holds.keys(), set(known.mass.held.values())
        )

    def check_questions(self, known, now, limits):
        """Every verdict has a sentence, and ends with age."""
        limit = limits.service_down_time
        for host in (*HOSTS, "other"):
            for later in (0.0, limit, 2 * limit):
                moment = now + later
                verdict = known.verdict(host, moment, limit)
                self.assertTrue(
                    explain.explain(known, host, verdict, moment, limits)
                )
                member = known.members.get(host)
                if member is not None and member.forced_down:
                    self.assertIs(FORCED_DOWN, verdict)
                elif later > limit:
                    self.assertEqual("unknown", verdict.state)

    def check_order(self, before, known, refresh, limits):
        """The order of observations makes no difference."""
        other = refresh._replace(observations=refresh.observations[::-1])
        found, _ = detector.step(before, other, limits)
        self.assertEqual(known.members, found.members)

    def check_time_alone(self, known, backend, now, limits):
        """Neither time nor an outage known late raises a dead member."""
        out = known
        for name in BACKENDS:
            out = out.backend_out(name, Outage(now - 500.0, now))
        for begin in (known, out):
            for later in (1.0, limits.service_down_time + 1.0):
                empty = Refresh(backend, now + later, [], complete=False)
                _, changes = detector.step(begin, empty, limits)
                self.check_none_rises(changes)

    def check_none_rises(self, changes):
        for host, was, verdict, _ in changes:
            self.assertFalse(
                was.state == "down" and verdict.state == "up", host
            )
