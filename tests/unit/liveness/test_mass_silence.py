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


"""Mass silence: most of a group falls silent at once."""

import random
import unittest

from nova_sg.liveness import domains, explain, mass_silence, model
from nova_sg.liveness.model import HELD, LOST, REPORTED, SILENT
from tests.unit.liveness.observing import INTERVAL, LIMIT, Observer, seen

HOLD = 2 * LIMIT
RULE = model.MassRule(0.55, 4, HOLD)


class Group:
    """Members that report in time until they fall silent."""

    def __init__(
        self,
        members,
        rule=RULE,
        domain=lambda number: None,
        server=lambda number: None,
    ):
        self.rng = random.Random(members)
        self.observer = Observer(mass=rule)
        self.said = {
            f"h{n}": {"domain": domain(n), "server": server(n)}
            for n in range(members)
        }
        self.now = 0.0
        self.last = {}
        self.silent_from = {}
        for number in range(members):
            self.last[f"h{number}"] = -self.rng.uniform(0, INTERVAL)
        self.refresh()

    def silence(self, hosts, at=None):
        for host in hosts:
            self.silent_from[host] = self.now if at is None else at

    def refresh(self, **attributes):
        observations = []
        for host, last in self.last.items():
            until = min(self.now, self.silent_from.get(host, self.now))
            while last + INTERVAL * 1.1 <= until:
                last += self.rng.uniform(0.9, 1.1) * INTERVAL
            self.last[host] = last
            said = self.said[host] | attributes.get(host, {})
            observations.append(seen(host, last, last, **said))
        self.observer.refresh(self.now, observations)
        return self.observer.changes

    def run(self, until, step=2.0, **attributes):
        """Refresh until a moment; return (moment, host, verdict) of changes.

        :param attributes: by host: fields of Attributes
        """
        changed = []
        while self.now + step <= until:
            self.now += step
            changed += [
                (self.now, one.host, one.now)
                for one in self.refresh(**attributes)
            ]
        return changed

    @property
    def hold(self):
        return self.observer.group.mass.holds.get(mass_silence.GROUP)

    def states(self):
        return {
            host: member.verdict.state
            for host, member in self.observer.group.members.items()
        }

    def down(self):
        return {host for host, state in self.states().items() if state != "up"}

    def hosts(self, count):
        return [f"h{number}" for number in range(count)]


class MassSilenceTest(unittest.TestCase):
    def test_members_are_held_while_most_are_silent(self):
        for members, silent in ((4, 3), (9, 5), (100, 55), (100, 100)):
            with self.subTest(members=members, silent=silent):
                group = Group(members)
                group.run(100.0)
                group.silence(group.hosts(silent))
                changed = group.run(100.0 + LIMIT + HOLD - 12)
                self.assertEqual(
                    {HELD}, {verdict for _, _, verdict in changed}
                )
                self.assertEqual(silent, len(changed))
                self.assertEqual(set(), group.down())
                self.assertIsNotNone(group.hold)

    def test_the_silent_members_are_down_after_the_hold(self):
        group = Group(20)
        group.silence(group.hosts(15))
        group.run(LIMIT + HOLD + 12.0)
        self.assertEqual(set(group.hosts(15)), group.down())
        self.assertIsNone(group.hold)
        # That does not change any more.
        self.assertEqual([], group.run(5000.0))

    def test_the_silence_of_a_minority_is_not_held(self):
        for members, silent in ((3, 3), (4, 2), (100, 54)):
            with self.subTest(members=members, silent=silent):
                group = Group(members)
                group.silence(group.hosts(silent))
                group.run(LIMIT + 6.0)
                self.assertEqual(set(group.hosts(silent)), group.down())

    def test_the_hold_can_be_switched_off(self):
        group = Group(20, RULE._replace(fraction=0.0))
        group.silence(group.hosts(20))
        group.run(LIMIT + 6.0)
        self.assertEqual(set(group.hosts(20)), group.down())

    def test_members_that_fall_silent_one_by_one_are_not_held(self):
        group = Group(20)
        for number in range(20):
            group.silence([f"h{number}"], at=number * LIMIT)
        changed = group.run(25 * LIMIT)
        self.assertEqual([SILENT] * 20, [verdict for _, _, verdict in changed])

    def test_members_that_were_down_before_do_not_count(self):
        group = Group(10)
        group.silence(group.hosts(5))
        group.run(500.0)
        # Three of the five that are up.
        group.silence(["h5", "h6", "h7"])
        changed = group.run(500.0 + LIMIT + 8)
        self.assertEqual([HELD] * 3, [verdict for _, _, verdict in changed])

    def test_a_member_that_left_is_down_at_once_and_does_not_count(self):
        group = Group(10)
        group.run(50.0)
        group.silence(group.hosts(10))
        left = {host: {"left": True} for host in group.hosts(7)}
        group.run(52.0, **left)
        self.assertEqual(set(group.hosts(7)), group.down())
        # The three others are too few for a mass silence.
        group.run(50.0 + LIMIT + 6, **left)
        self.assertEqual(set(group.hosts(10)), group.down())

    def test_a_member_forced_down_is_not_held_and_does_not_count(self):
        group = Group(6)
        group.silence(group.hosts(6))
        forced = {host: {"forced_down": True} for host in group.hosts(3)}
        group.run(LIMIT + 6, **forced)
        self.assertEqual(set(group.hosts(6)), group.down())

    def test_a_held_member_that_reports_again_was_never_down(self):
        group = Group(10)
        group.silence(group.hosts(8))
        group.run(LIMIT + 20.0)
        group.silent_from.clear()
        for host in group.hosts(8):
            group.last[host] = group.now
        changed = group.run(LIMIT + 26.0)
        self.assertEqual(
            [REPORTED] * 8, [verdict for _, _, verdict in changed]
        )
        self.assertIsNone(group.hold)

    def test_a_member_that_dies_during_the_hold_is_found_when_it_ends(self):
        group = Group(20)
        group.silence(group.hosts(15))
        group.run(LIMIT + 30.0)
        group.silence(["h19"])
        group.run(LIMIT + HOLD + 12.0)
        self.assertIn("h19", group.down())

    def test_a_new_observer_holds_until_the_same_moment(self):
        group = Group(20)
        group.run(100.0)
        group.silence(group.hosts(15))
        group.run(100.0 + LIMIT + 60.0)
        newcomer = Observer(mass=RULE)
        newcomer.refresh(group.now, group.last)
        self.assertEqual("held", newcomer.cause("h0"))
        # Both observers find the same begin, and so the same end.
        self.assertAlmostEqual(
            group.hold.since,
            newcomer.group.mass.holds[mass_silence.GROUP].since,
            delta=2.0,
        )
        newcomer.refresh(100.0 + LIMIT + HOLD + 2, [], complete=False)
        self.assertEqual("silent", newcomer.cause("h0"))

    def test_a_mass_silence_of_long_ago_is_not_held(self):
        observer = Observer(mass=RULE)
        old = 1000.0 - LIMIT - HOLD - 1
        stale = {f"h{number}": old for number in range(9)}
        # The member that reports shows that the backend is not frozen.
        verdicts = observer.refresh(1000.0, {**stale, "alive": 995.0})
        self.assertEqual("reported", verdicts.pop("alive"))
        self.assertEqual({"silent"}, set(verdicts.values()))

    def test_members_whose_sessions_end_at_once_are_held(self):
        for lost, verdicts in (
            (8, (HELD, HELD, LOST)),
            # Half of the members are too few.
            (5, (LOST, LOST, LOST)),
        ):
            observer = Observer("zk", mass=RULE)
            there = [
                seen(f"h{number}", None, present=True) for number in range(10)
            ]
            ended = [
                seen(f"h{number}", None, lost=True) for number in range(lost)
            ]
            # The sessions end at some moment between two refreshes.
            observer.refresh(109.0, there)
            for at, verdict in zip(
                (110.0, 109.0 + HOLD, 110.1 + HOLD), verdicts, strict=True
            ):
                causes = observer.refresh(at, [*ended, *there[lost:]])
                self.assertEqual(
                    lost, list(causes.values()).count(verdict.cause)
                )

    def test_every_member_that_counts_for_a_mass_silence_is_held(self):
        # Refreshes are rare. The first member fell silent before the others,
        # and too few fell silent around its own moment.
        observer = Observer(mass=RULE)
        reports = {"first": 40.0}
        reports |= {f"second{number}": 68.0 for number in range(5)}
        reports |= {f"third{number}": 80.0 for number in range(5)}
        observer.refresh(81.0, reports)
        verdicts = observer.refresh(141.0, reports)
        self.assertLessEqual(set(verdicts.values()), {"held", "reported"})
        self.assertEqual("held", verdicts["first"])

    def test_an_outage_during_the_hold_prolongs_it(self):
        group = Group(10)
        group.silence(group.hosts(10))
        group.run(LIMIT + 20.0)
        group.observer.fails(group.now + 1)
        group.now += 300.0
        group.refresh()
        self.assertEqual(set(), group.down())
        group.run(group.now + HOLD)
        self.assertEqual(set(group.hosts(10)), group.down())


def rack(number):
    """Return the domain of a member: ten in each rack."""
    return f"rack{number // 10}"


def server(number):
    """Return the server of a member: every third one is at the same."""
    return f"192.0.2.{number % 3}:2181"


class ServerTest(unittest.TestCase):
    """The members of a server of the backend are judged by themselves."""

    def setUp(self):
        self.group = Group(30, domain=rack, server=server)
        self.members = {f"h{n}" for n in range(0, 30, 3)}

    def holds(self):
        return set(self.group.observer.group.mass.holds)

    def test_members_of_a_server_that_is_cut_off_are_held(self):
        group = self.group
        group.silence(self.members)
        # A dead host elsewhere, and later one more of this server.
        group.silence(["h1"])
        group.run(LIMIT + 20.0)
        self.assertEqual({"h1"}, group.down())
        [held] = self.holds()
        self.assertIsInstance(held, mass_silence.Server)
        self.assertEqual("192.0.2.0:2181", held)
        self.assertIn(
            "10 of 10 members of the server 192.0.2.0:2181 fell silent",
            explain.explain(
                group.observer.group,
                "h3",
                HELD,
                group.now,
                group.observer.limits,
            ),
        )
        # They are at another server now, and report again.
        group.silent_from = {"h1": 0.0}
        for host in self.members:
            group.said[host]["server"] = "192.0.2.2:2181"
        group.run(LIMIT + 40.0)
        self.assertEqual(set(), self.holds())
        self.assertEqual({"h1"}, group.down())

    def test_they_are_down_after_the_hold(self):
        self.group.silence(self.members)
        self.group.run(LIMIT + HOLD + 12.0)
        self.assertEqual(self.members, self.group.down())
        self.assertEqual(set(), self.holds())

    def test_a_minority_of_them_is_not_held(self):
        some = sorted(self.members)[:5]
        self.group.silence(some)
        self.group.run(LIMIT + 6.0)
        self.assertEqual(set(some), self.group.down())

    def test_a_rack_that_is_a_part_of_them_is_held_once(self):
        """Both parts of the group are silent."""
        rack = {f"h{n}" for n in range(10)}
        self.group.silence(self.members | rack)
        self.group.run(LIMIT + 20.0)
        self.assertEqual(set(), self.group.down())
        held = self.group.observer.group.mass.held
        self.assertEqual(self.members | rack, held.keys())
        self.assertEqual({"rack0", "192.0.2.0:2181"}, self.holds())


class DomainTest(unittest.TestCase):
    """Each failure domain is judged by itself, as well as the group."""

    def holds(self, group):
        return set(group.observer.group.mass.holds)

    def test_a_rack_that_is_cut_off_is_held_and_then_down(self):
        for silent in (6, 10):
            with self.subTest(silent=silent):
                group = Group(100, domain=rack)
                group.run(100.0)
                group.silence(group.hosts(silent))
                changed = group.run(100.0 + LIMIT + HOLD - 12)
                self.assertEqual([HELD] * silent, [c[2] for c in changed])
                self.assertEqual({"rack0"}, self.holds(group))
                [held] = group.observer.group.mass.holds.values()
                self.assertEqual((silent, 10), (held.silent, held.members))
                group.run(100.0 + LIMIT + HOLD + 12)
                self.assertEqual(set(group.hosts(silent)), group.down())
                self.assertEqual(set(), self.holds(group))
                self.assertEqual([], group.run(5000.0))

    def test_a_dead_host_elsewhere_is_down_at_once(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(10))
        group.silence(["h42"])
        group.run(LIMIT + 2.0)
        self.assertEqual({"h42"}, group.down())
        # So is one that dies while the rack is held.
        group.silence(["h77"])
        group.run(2 * LIMIT + 4.0)
        self.assertEqual({"h42", "h77"}, group.down())
        self.assertEqual({"rack0"}, self.holds(group))

    def test_a_minority_of_a_rack_is_not_held(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(5))
        group.run(LIMIT + 6.0)
        self.assertEqual(set(group.hosts(5)), group.down())

    def test_a_small_domain_is_not_held(self):
        group = Group(30, domain=lambda n: "pair" if n < 3 else None)
        group.silence(group.hosts(3))
        group.run(LIMIT + 6.0)
        self.assertEqual(set(group.hosts(3)), group.down())

    def test_members_without_a_domain_are_none(self):
        # Half of the group have no domain, and fall silent together.
        group = Group(40, domain=lambda n: None if n < 20 else rack(n))
        group.silence(group.hosts(20))
        group.run(LIMIT + 6.0)
        self.assertEqual(set(group.hosts(20)), group.down())

    def test_the_holds_of_several_domains_are_independent(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(10))
        group.silence([f"h{n}" for n in range(10, 20)], at=LIMIT + 30.0)
        group.run(2 * LIMIT + 40.0)
        self.assertEqual({"rack0", "rack1"}, self.holds(group))
        self.assertEqual(set(), group.down())
        # The first rack is back, the second one stays silent.
        group.silent_from = {
            host: at for host, at in group.silent_from.items() if at
        }
        group.run(2 * LIMIT + 60.0)
        self.assertEqual({"rack1"}, self.holds(group))
        group.run(2 * LIMIT + 30.0 + HOLD + 12.0)
        self.assertEqual({f"h{n}" for n in range(10, 20)}, group.down())

    def test_each_hold_ends_by_itself(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(10))
        group.silence([f"h{n}" for n in range(10, 20)], at=LIMIT + 30.0)
        group.run(LIMIT + HOLD + 12.0)
        self.assertEqual(set(group.hosts(10)), group.down())
        self.assertEqual({"rack1"}, self.holds(group))

    def test_a_domain_rests_after_its_hold(self):
        # Without a rest the last member would be held: it fell silent with
        # the others.
        rule = RULE._replace(hold=12.0)
        group = Group(100, rule, domain=rack)
        group.silence(group.hosts(9))
        group.silence(["h9"], at=20.0)
        # Another rack does not rest.
        group.silence([f"h{n}" for n in range(10, 20)], at=20.0)
        changed = group.run(LIMIT + 26.0)
        held = {host for _, host, verdict in changed if verdict is HELD}
        self.assertNotIn("h9", held)
        self.assertLessEqual({f"h{n}" for n in range(10, 20)}, held)
        self.assertLessEqual(set(group.hosts(10)), group.down())

    def test_the_domains_rest_after_a_hold_of_the_group(self):
        group = Group(100, RULE._replace(hold=12.0), domain=rack)
        group.silence(group.hosts(59))
        group.silence(["h59"], at=25.0)
        # A rack that had no part in it does not rest.
        group.silence([f"h{n}" for n in range(90, 100)], at=25.0)
        changed = group.run(LIMIT + 33.0)
        held = {host for _, host, verdict in changed if verdict is HELD}
        self.assertNotIn("h59", held)
        self.assertLessEqual({f"h{n}" for n in range(90, 100)}, held)
        self.assertIn("h59", group.down())

    def test_most_of_the_group_is_one_hold(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(60))
        group.run(LIMIT + 20.0)
        self.assertEqual({mass_silence.GROUP}, self.holds(group))
        # A member of another rack that falls meanwhile is part of it.
        group.silence(["h99"], at=10.0)
        group.run(LIMIT + 30.0)
        self.assertEqual(set(), group.down())
        group.run(LIMIT + HOLD + 12.0)
        self.assertEqual({*group.hosts(60), "h99"}, group.down())
        self.assertEqual(set(), self.holds(group))

    def test_the_hold_of_a_rack_stays_its_own_in_one_of_the_group(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(10))
        group.silence([f"h{n}" for n in range(10, 80)], at=LIMIT + 30.0)
        group.run(2 * LIMIT + 40.0)
        self.assertEqual({mass_silence.GROUP, "rack0"}, self.holds(group))
        group.run(LIMIT + HOLD + 12.0)
        # It is not held again by the other.
        self.assertEqual(set(group.hosts(10)), group.down())
        self.assertEqual({mass_silence.GROUP}, self.holds(group))

    def test_the_domain_that_a_held_member_reports_may_change(self):
        group = Group(100, domain=rack)
        group.silence(group.hosts(10))
        group.run(LIMIT + 6.0)
        self.assertEqual({"rack0"}, self.holds(group))
        group.said["h3"]["domain"] = "rack5"
        group.run(LIMIT + HOLD - 12.0)
        self.assertEqual(set(), group.down())
        group.run(LIMIT + HOLD + 12.0)
        self.assertEqual(set(group.hosts(10)), group.down())

    def test_the_first_refresh_holds_a_rack(self):
        group = Group(100, domain=rack)
        group.run(100.0)
        group.silence(group.hosts(10))
        group.run(100.0 + LIMIT + 60.0)
        newcomer = Observer(mass=RULE)
        newcomer.refresh(
            group.now,
            [
                seen(host, last, last, **group.said[host])
                for host, last in group.last.items()
            ],
        )
        self.assertEqual("held", newcomer.cause("h0"))
        self.assertAlmostEqual(
            group.observer.group.mass.holds["rack0"].since,
            newcomer.group.mass.holds["rack0"].since,
            delta=2.0,
        )
        newcomer.refresh(100.0 + LIMIT + HOLD + 2, [], complete=False)
        self.assertEqual("silent", newcomer.cause("h0"))

    def test_a_dead_group_of_long_ago_does_not_hide_a_rack(self):
        # Most members died long ago; one rack fell silent a moment ago.
        old = 1000.0 - LIMIT - HOLD - 60.0
        reports = {f"h{n}": old for n in range(70)}
        reports |= {f"h{n}": 1000.0 - LIMIT - 5.0 for n in range(70, 80)}
        reports |= {f"h{n}": 995.0 for n in range(80, 100)}
        observer = Observer(mass=RULE)
        causes = observer.refresh(
            1000.0,
            [
                seen(host, at, at, domain=rack(int(host[1:])))
                for host, at in reports.items()
            ],
        )
        held = {host for host, cause in causes.items() if cause == "held"}
        self.assertEqual({f"h{n}" for n in range(70, 80)}, held)

    def test_sessions_of_a_rack_that_end_at_once_are_held(self):
        observer = Observer("zk", mass=RULE)

        def refresh(at, lost):
            causes = observer.refresh(
                at,
                [
                    seen(
                        f"h{n}",
                        None,
                        present=n not in lost,
                        lost=n in lost,
                        domain=rack(n),
                    )
                    for n in range(40)
                ],
            )
            return {
                int(host[1:]): cause
                for host, cause in causes.items()
                if cause != "reported"
            }

        refresh(100.0, set())
        cut = set(range(10))
        self.assertEqual(dict.fromkeys(cut, "held"), refresh(102.0, cut))
        # A rack that was held before does not count as one that falls now:
        # 16 of 40 fall here, and 6 of a rack.
        now = refresh(150.0, cut | {*range(10, 16), *range(20, 24)})
        lost = {n for n, cause in now.items() if cause == "lost"}
        self.assertEqual(set(range(20, 24)), lost)
        self.assertEqual({"rack0", "rack1"}, set(observer.group.mass.holds))
        now = refresh(102.1 + HOLD, cut)
        self.assertEqual(dict.fromkeys(cut, "lost"), now)

    def test_the_map_names_the_domains_of_members_that_report_none(self):
        group = Group(100)
        group.observer.limits = group.observer.limits._replace(
            domains=domains.Domains([("h?", "rack0")])
        )
        group.silence(group.hosts(10))
        group.silence(["h42"])
        group.run(LIMIT + 6.0)
        self.assertEqual({"h42"}, group.down())
        self.assertEqual({"rack0"}, self.holds(group))

    def test_a_memcached_that_forgot_still_knows_the_domain(self):
        observer = Observer("mc", mass=RULE)
        hosts = [f"h{n}" for n in range(20)]
        observer.refresh(
            100.0, [seen(h, 1, 99.0, domain="rack0") for h in hosts[:5]]
            + [seen(h, 1, 99.0) for h in hosts[5:]],
        )
        forgot = [seen(h, None, vanished=True) for h in hosts[:5]]
        for at in (155.0, 175.0):
            observer.refresh(
                at, [*forgot, *(seen(h, at, at) for h in hosts[5:])]
            )
        self.assertEqual({"rack0"}, set(observer.group.mass.holds))
        self.assertEqual("held", observer.cause("h0"))


class DomainsTest(unittest.TestCase):
    """The map of failure domains."""

    def test_the_first_line_that_matches_counts(self):
        found = domains.Domains(
            [
                ("r1-7", "special"),
                ("r1-*", "rack 1"),
                ("r1-8", "never"),
                ("r2-1", "exact"),
                ("r2-1", "twice"),
                ("R[34]-?", "rack 3 or 4"),
            ]
        )
        for host, domain in (
            ("r1-7", "special"),
            ("r1-8", "rack 1"),
            ("r1-", "rack 1"),
            ("r2-1", "exact"),
            ("R4-x", "rack 3 or 4"),
            ("r4-x", None),
            ("other", None),
        ):
            for _ in range(2):
                self.assertEqual(domain, found.of_host(host), host)
        self.assertIsNone(domains.NO_DOMAINS.of_host("r1-7"))

    def test_what_a_member_reports_counts_first(self):
        observer = Observer()
        observer.refresh(
            1.0, [seen("a", 1, 1.0, domain="own"), seen("b", 1, 1.0)]
        )
        found = domains.Domains([("*", "map")])
        members = observer.group.members
        self.assertEqual("own", found.of(members["a"]))
        self.assertEqual("map", found.of(members["b"]))

    def test_of_several_backends_the_newest_report_counts(self):
        observer = Observer("mc", "zk")
        observer.refresh(10.0, [seen("a", 1, 9.0, domain="old")], "mc")
        observer.refresh(20.0, [seen("a", 1, 19.0, domain="new")], "zk")
        member = observer.group.members["a"]
        self.assertEqual("new", domains.NO_DOMAINS.of(member))
        # A backend that has no room for it says nothing.
        observer.refresh(30.0, [seen("a", 2, 29.0)], "mc")
        member = observer.group.members["a"]
        self.assertEqual("new", domains.NO_DOMAINS.of(member))
