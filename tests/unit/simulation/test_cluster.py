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

"""The rules' promises hold with several backends, servers and clocks."""

import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from nova_sg.liveness import model
from tests import LONG
from tests.unit.simulation import cluster as clusters
from tests.unit.simulation.cluster import Backend, Cluster, Oracle, Server
from tests.unit.simulation.world import Span

UNTIL = 900.0
TIMES = 20 if LONG else 1


def examples(number):
    """Return the settings of a test of so many examples."""
    return settings(max_examples=number * TIMES)
steps = st.sampled_from([1.0, 2.0, 5.0])
# The first refresh has nothing but stamps. It could be misled by clocks that
# differ by more than service_down_time less an interval.
skews = st.integers(-20, 20)
no_lag = st.just(0)


@st.composite
def spans(draw, longest, most):
    """Make spans with enough time between them for all members to report."""
    found, at = [], 100
    for _ in range(draw(st.integers(0, most))):
        begin = at + draw(st.integers(100, 250))
        at = begin + draw(st.integers(1, longest))
        found.append(Span(begin, at))
    return tuple(found)


@st.composite
def deaths(draw, members):
    dead = {}
    for number in draw(st.frozensets(st.integers(1, members - 1), max_size=3)):
        begin = draw(st.integers(100, 700))
        dead[number] = Span(begin, begin + draw(st.integers(1, 900)))
    return dead


@st.composite
def servers(draw, skew=skews, lag=no_lag):
    """Make one to three servers, some with clocks that are set."""
    return tuple(
        Server(
            draw(skew),
            tuple(
                (draw(st.integers(50, 800)), draw(st.integers(-600, 600)))
                for _ in range(draw(st.integers(0, 2)))
            ),
            draw(lag),
        )
        for _ in range(draw(st.integers(1, 3)))
    )


def watch(cluster, until=UNTIL, lag=0.0, watches=0.0):
    """Run a cluster and check it with an oracle after each refresh."""
    oracle = Oracle(cluster, lag, watches)
    while cluster.now < until:
        cluster.run(cluster.now + cluster.step, oracle.check)
        oracle.check_dead()


class PromisesTest(unittest.TestCase):
    @examples(40)
    @given(st.data(), st.integers(2, 8), steps, st.integers(0, 10**6))
    def test_no_verdict_depends_on_the_clocks_of_servers(
        self, data, members, step, seed
    ):
        """The clocks differ, and are set."""
        backend = Backend(data.draw(servers()))
        watch(
            Cluster(members, [backend], data.draw(deaths(members)), step, seed)
        )

    @examples(25)
    @given(st.data(), st.integers(2, 8), steps, st.integers(0, 10**6))
    def test_a_lagging_server_delays_down_by_its_lag_at_most(
        self, data, members, step, seed
    ):
        behind = st.integers(0, 25)
        backend = Backend(data.draw(servers(no_lag, behind)))
        lag = max(server.lag for server in backend.servers)
        dead = data.draw(deaths(members))
        cluster = Cluster(members, [backend], dead, step, seed)
        watch(cluster, lag=lag)

    @examples(40)
    @given(st.data(), st.integers(2, 8), steps, st.integers(0, 10**6))
    def test_outages_of_one_backend(self, data, members, step, seed):
        backend = Backend(
            data.draw(servers()),
            data.draw(spans(300, 2)),
            data.draw(spans(100, 2)),
        )
        watch(
            Cluster(members, [backend], data.draw(deaths(members)), step, seed)
        )

    @examples(40)
    @given(
        st.data(),
        st.integers(2, 8),
        st.integers(2, 3),
        steps,
        st.integers(0, 10**6),
    )
    def test_outages_of_several_backends(
        self, data, members, number, step, seed
    ):
        """Only the time in which all backends are out excuses a member."""
        backends = [
            Backend(
                data.draw(servers()),
                data.draw(spans(300, 2)),
                data.draw(spans(100, 1)),
            )
            for _ in range(number)
        ]
        watch(
            Cluster(members, backends, data.draw(deaths(members)), step, seed)
        )

    @examples(30)
    @given(st.data(), st.integers(2, 8), steps, st.integers(0, 10**6))
    def test_a_report_that_is_not_new_raises_no_member(
        self, data, members, step, seed
    ):
        """Whatever its stamp is."""
        dead = data.draw(deaths(members))
        # Ghosts of the dead, once their last report is known, and of some
        # living members.
        ghosts = {
            number: (Span(span.begin + 2 * step, span.end),)
            for number, span in dead.items()
        }
        for number in data.draw(st.frozensets(st.integers(1, members - 1))):
            ghosts.setdefault(number, data.draw(spans(100, 2)))
        backend = Backend((Server(),), data.draw(spans(300, 1)), (), ghosts)
        # A ghost may hide a new report.
        lag = max(
            (
                span.end - span.begin
                for number, found in ghosts.items()
                for span in found
                if number not in dead
            ),
            default=0.0,
        )
        watch(Cluster(members, [backend], dead, step, seed), lag=lag)

    @examples(40)
    @given(
        st.data(),
        st.integers(2, 8),
        st.integers(1, 2),
        steps,
        st.integers(0, 10**6),
    )
    def test_an_observer_that_begins_later(
        self, data, members, number, step, seed
    ):
        """Its first refresh has nothing but stamps."""
        begin = float(data.draw(st.integers(100, 600)))
        # The first refresh judges a dead member by its stamp alone, which is
        # wrong by as much as the clocks are.
        dead = data.draw(st.just({}) | deaths(members))
        backends = []
        for _ in range(number):
            clocks = tuple(
                Server(0 if dead else data.draw(skews))
                for _ in range(data.draw(st.integers(1, 3)))
            )
            later = [
                tuple(
                    span
                    for span in data.draw(spans(200, 2))
                    if span.begin > begin + step
                )
                for _ in range(2)
            ]
            backends.append(Backend(clocks, *later))
        cluster = Cluster(members, backends, dead, step, seed, begin)
        watch(cluster, watches=begin)

    @examples(40)
    @given(
        st.data(),
        st.integers(8, 12),
        st.integers(20, 300),
        st.floats(0.0, 0.9),
        steps,
        st.integers(0, 10**6),
    )
    def test_an_observer_that_begins_while_the_backend_is_read_only(
        self, data, members, length, part, step, seed
    ):
        """All reports are old. It calls no living member down."""
        frozen = Span(200.0, 200.0 + length)
        begin = 200.0 + part * (length - step)
        dead = data.draw(deaths(members))
        backend = Backend((Server(),), (), (frozen,))
        rule = model.MassRule(0.55, 4, 120.0)
        cluster = Cluster(members, [backend], dead, step, seed, begin, rule)
        watch(cluster, watches=begin)


class OracleTest(unittest.TestCase):
    """The oracle finds wrong verdicts, or its silence would prove nothing."""

    def cluster(self, *servers, dead=None):
        return Cluster(5, [Backend(servers)], dead or {}, 2.0, 1)

    def test_it_finds_a_living_member_that_is_called_down(self):
        cluster = self.cluster(Server())
        cluster.judge.service_down_time = 20.0
        cluster.reports[0, 3] = [
            report
            for report in cluster.reports[0, 3]
            if not 300 <= report.at < 330
        ]
        with self.assertRaisesRegex(clusters.Wrong, "3 down at"):
            watch(cluster)

    def test_it_finds_a_dead_member_that_stays_up(self):
        cluster = self.cluster(Server(), dead={3: Span(300, 9000)})
        cluster.judge.service_down_time = 200.0
        with self.assertRaisesRegex(clusters.Wrong, "3, dead .* is up"):
            watch(cluster)

    def test_it_finds_a_dead_member_that_rises(self):
        cluster = self.cluster(Server(), dead={3: Span(300, 9000)})
        oracle = Oracle(cluster)
        cluster.run(400.0, oracle.check)
        with self.assertRaisesRegex(clusters.Wrong, "3 rises at"):
            oracle.check(3, "down", "up")
