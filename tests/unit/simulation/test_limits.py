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

"""A rack that dies is not evacuated, and a host that dies alone is.

The members of a simulated cluster die, alone or with their rack. The events go
through the schedule and the limits, as in nova-sg watch.
"""

import datetime
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.actions import limits, schedule
from nova_sg.liveness import model
from nova_sg.servicegroup import description, events
from tests.unit.simulation.cluster import Backend, Cluster
from tests.unit.simulation.test_cluster import examples, steps
from tests.unit.simulation.world import INTERVAL, LIMIT, Span

UNTIL = 900.0
RACKS, PER_RACK = 5, 4
MEMBERS = RACKS * PER_RACK
MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Watch:
    """Acts upon the events of a cluster; notes when, by member."""

    def __init__(self, cluster, **rules):
        self.cluster = cluster
        self.acted = {}
        self.suspended = set()
        # As nova-sg watch has it by default.
        gather_for = 1.25 * INTERVAL + 2 * cluster.step
        self._limits = limits.Limits(limits.Rules(**rules), settle=gather_for)
        self._jobs = schedule.Schedule(
            [events.DOWN], 0, 3600, gather_for=gather_for
        )

    def run(self):
        while self.cluster.now < UNTIL:
            self.cluster.run(self.cluster.now + self.cluster.step, self._put)
            self._act()

    def _put(self, number, was, now):
        kind = {model.UP: events.UP, model.DOWN: events.DOWN}.get(now)
        if was is None or was == now or kind is None:
            return
        self._jobs.put(
            events.Event(
                kind,
                "compute",
                str(number),
                "compute",
                "nova-compute",
                MOMENT + datetime.timedelta(seconds=self.cluster.now),
                None,
                "why",
                domain=rack_of(number),
            ),
            self.cluster.now,
        )

    def _act(self):
        now = self.cluster.now
        members = [
            description.Member(
                *("compute", str(number), "compute", "nova-compute", state),
                *(None, None, "db", False, False, None, "why", "silent"),
                rack_of(number),
            )
            for number, (state, _) in self.cluster.states.items()
        ]
        down = {one.host for one in members if one.state == model.DOWN}
        while (job := self._jobs.take(now)) is not None:
            if job.event.host not in down:
                self._jobs.done(job)
            elif found := self._limits.admit(job.event, members, now):
                self.suspended.update(one.what for one in found)
                self._jobs.wait(job, now, 5)
            else:
                self._jobs.begin(job, now)
                self._jobs.done(job)
                self.acted.setdefault(int(job.event.host), []).append(now)


def rack_of(number):
    return f"rack{number // PER_RACK}"


@st.composite
def single_deaths(draw):
    """Hosts that die for good, one after the other; never the observer's."""
    hosts = draw(st.permutations(range(PER_RACK, MEMBERS)))
    # Two that are so far apart are never known at the same time.
    return {
        host: Span(200 + 30 * place, 2000)
        for place, host in enumerate(hosts[: draw(st.integers(1, 3))])
    }


class RackTest(unittest.TestCase):
    @examples(30)
    @given(
        st.integers(1, RACKS - 1),
        st.floats(100, 400),
        st.floats(0, INTERVAL / 4),
        st.sampled_from(["max_down", "max_down_per_domain"]),
        steps,
        st.integers(0, 10**6),
    )
    def test_not_one_member_of_a_rack_that_died(
        self, rack, at, spread, option, step, seed
    ):
        """They die within a moment, and are found within an interval."""
        first = rack * PER_RACK
        dead = {
            first + i: Span(at + spread * i / PER_RACK, 2000)
            for i in range(PER_RACK)
        }
        cluster = Cluster(MEMBERS, [Backend()], dead, step, seed)
        watch = Watch(cluster, **{option: limits.read_limit("3")})
        watch.run()
        found = {n for n, (s, _) in cluster.states.items() if s == model.DOWN}
        self.assertEqual(set(dead), found)
        self.assertEqual({}, watch.acted)
        self.assertTrue(watch.suspended)

    @examples(30)
    @given(single_deaths(), steps, st.integers(0, 10**6))
    def test_each_host_that_dies_alone(self, dead, step, seed):
        """Once, and in time."""
        cluster = Cluster(MEMBERS, [Backend()], dead, step, seed)
        watch = Watch(
            cluster,
            max_down=limits.read_limit("3"),
            max_down_per_domain=limits.read_limit("3"),
        )
        watch.run()
        self.assertEqual(set(dead), set(watch.acted))
        for host, span in dead.items():
            (moment,) = watch.acted[host]
            self.assertGreater(moment, span.begin + LIMIT - 1.1 * INTERVAL)
            self.assertLess(
                moment, span.begin + LIMIT + 1.25 * INTERVAL + 5 * step
            )
        self.assertEqual(set(), watch.suspended)

    @examples(30)
    @given(steps, st.integers(0, 10**6), st.integers(1, 5))
    def test_a_rate(self, step, seed, most):
        """Hosts that die one after the other, each alone."""
        dead = {4 + i: Span(100 + 40 * i, 2000) for i in range(8)}
        cluster = Cluster(MEMBERS, [Backend()], dead, step, seed)
        watch = Watch(cluster, max_per_hour=most)
        watch.run()
        self.assertEqual(list(range(4, 4 + most)), list(watch.acted))
        self.assertEqual({(limits.MAX_PER_HOUR, None)}, watch.suspended)

    @examples(20)
    @given(steps, st.integers(0, 10**6))
    def test_a_rack_that_comes_back_but_for_one_host(self, step, seed):
        """What stays down when the rest is back is acted upon."""
        dead = {4 + i: Span(200, 2000 if i == 0 else 500) for i in range(4)}
        cluster = Cluster(MEMBERS, [Backend()], dead, step, seed)
        watch = Watch(cluster, max_down=limits.read_limit("10%"))
        watch.run()
        self.assertEqual([4], list(watch.acted))
        self.assertGreater(watch.acted[4][0], 500)
