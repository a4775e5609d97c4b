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

"""Limits on what is done upon down events: numbers, domains, rates."""

import datetime
import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.actions import limits
from nova_sg.servicegroup import description, events

MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def event(host="h0", domain=None, at=0, kind=events.DOWN):
    return events.Event(
        kind,
        "compute",
        host,
        "compute",
        "nova-compute",
        MOMENT + datetime.timedelta(seconds=at),
        None,
        "why",
        "silent",
        domain,
    )


def member(host, state="up", cause=None, domain=None, disabled=False):
    cause = cause or {"up": "reported", "down": "silent"}.get(state, state)
    return description.Member(
        "compute",
        host,
        "compute",
        "nova-compute",
        state,
        None,
        None,
        "db",
        cause == "forced-down",
        disabled,
        None,
        "why",
        cause,
        domain,
    )


def group(down, size, **fields):
    return [
        member(f"h{i}", "down" if i < down else "up", **fields)
        for i in range(size)
    ]


def judge(**rules):
    for name in ("max_down", "max_down_per_domain"):
        if name in rules:
            rules[name] = limits.read_limit(rules[name])
    return limits.Limits(limits.Rules(**rules))


def causes(found):
    return [one.cause for one in found]


class LimitTest(unittest.TestCase):
    def test_numbers_and_shares(self):
        for text, size, most in (
            ("3", 1000, 3),
            ("0", 1000, 0),
            ("10%", 100, 10),
            ("10%", 99, 9),
            ("10 %", 30, 3),
            ("7%", 100, 7),
            ("29%", 100, 29),
            ("100%", 7, 7),
            # One at least, or nothing would ever be done.
            ("10%", 5, 1),
            ("0%", 5, 1),
        ):
            with self.subTest(f"{text} of {size}"):
                self.assertEqual(most, limits.read_limit(text).of(size))

    def test_what_is_no_limit(self):
        for text in ("", "%", "-1", "3.5", "101%", "three", "1e3", "\u0663"):
            with self.subTest(text), self.assertRaises(ValueError):
                limits.read_limit(text)

    @given(st.integers(0, 100), st.integers(0, 10_000))
    def test_a_share_is_exact(self, share, size):
        most = limits.read_limit(f"{share}%").of(size)
        self.assertEqual(max(1, share * size // 100), most)


class LimitsTest(unittest.TestCase):
    def test_without_limits(self):
        self.assertEqual([], judge().admit(event(), group(9, 9), 0))

    def test_the_members_that_are_down(self):
        for down, found in ((3, []), (4, [limits.MAX_DOWN])):
            with self.subTest(down):
                told = judge(max_down="3").admit(event(), group(down, 40), 0)
                self.assertEqual(found, causes(told))
        (told,) = judge(max_down="10%").admit(event(), group(40, 399), 0)
        self.assertEqual(
            "40 of 399 members are down; [events] max_down is 10%",
            told.reason,
        )

    def test_members_that_are_down_on_purpose_do_not_count(self):
        others = [
            member("forced", "down", "forced-down"),
            member("left", "down", "left"),
            member("unknown", "unknown", "unavailable"),
            member("held", "up", "held"),
        ]
        self.assertEqual(
            [],
            judge(max_down="1").admit(event(), [*group(1, 9), *others], 0),
        )
        # They are no part of the share either.
        taken_out = [
            member(f"out{i}", "down", "forced-down") for i in range(50)
        ]
        (told,) = judge(max_down="10%").admit(
            event(), [*group(3, 20), *taken_out], 0
        )
        self.assertIn("3 of 20 members", told.reason)

    def test_other_causes_of_down_count(self):
        for cause in ("silent", "lost", "crashed", "never-reported"):
            with self.subTest(cause):
                others = [member("other", "down", cause)]
                told = judge(max_down="1").admit(
                    event(), [*group(1, 9), *others], 0
                )
                self.assertEqual([limits.MAX_DOWN], causes(told))

    def test_disabled_members(self):
        members = [
            *(member(f"off{i}", "down", disabled=True) for i in range(9)),
            *group(1, 9),
        ]
        for skips, found in ((False, [limits.MAX_DOWN]), (True, [])):
            with self.subTest(skips):
                one = judge(max_down="1", skip_disabled=skips)
                self.assertEqual(found, causes(one.admit(event(), members, 0)))
                self.assertEqual(skips, one.skips(event("off3"), members))
                self.assertFalse(one.skips(event("h0"), members))

    def test_failure_domains(self):
        members = [
            *(member(f"a{i}", "down", domain="a") for i in range(3)),
            *(member(f"a{i}", domain="a") for i in range(3, 9)),
            *(member(f"b{i}", "down", domain="b") for i in range(2)),
            *(member(f"b{i}", domain="b") for i in range(2, 9)),
            *(member(f"none{i}", "down") for i in range(5)),
        ]
        one = judge(max_down_per_domain="2")
        (told,) = one.admit(event("a0", "a"), members, 0)
        self.assertEqual((limits.MAX_DOWN_PER_DOMAIN, "a"), told.what)
        self.assertEqual(
            "3 of 9 members of the failure domain a are down; [events] "
            "max_down_per_domain is 2",
            told.reason,
        )
        self.assertEqual([], one.admit(event("b0", "b"), members, 0))
        # Members that have no domain are no domain.
        self.assertEqual([], one.admit(event("none0"), members, 0))
        # The domain that it has now counts, not that of the event.
        self.assertEqual([], one.admit(event("b1", "a"), members, 0))

    def test_actions_an_hour(self):
        one = judge(max_per_hour=2)
        members = group(9, 9)
        for at, host, found in (
            (0, "h0", []),
            # A further attempt, or another handler.
            (1, "h0", []),
            (600, "h1", []),
            (3599, "h2", [limits.MAX_PER_HOUR]),
            # It goes on with what it has begun.
            (3599, "h1", []),
            (3600, "h2", []),
            (3601, "h3", [limits.MAX_PER_HOUR]),
            (4200, "h3", []),
        ):
            with self.subTest(f"{host} at {at}"):
                told = one.admit(event(host), members, at)
                self.assertEqual(found, causes(told))
        self.assertEqual([], judge().admit(event(), members, 0))

    def test_members_that_come_back_one_after_the_other(self):
        """The last of them are not acted upon: they are about to come back."""
        rules = limits.Rules(
            limits.read_limit("2"), limits.read_limit("2"), max_per_hour=5
        )
        one = limits.Limits(rules, settle=30)
        both = [limits.MAX_DOWN, limits.MAX_DOWN_PER_DOMAIN]
        for now, down, found in (
            (0, 5, both),
            (10, 3, both),
            (20, 2, both),
            (39.9, 1, both),
            (40, 1, []),
            # It begins anew.
            (41, 3, both),
            (50, 1, both),
            (71, 1, []),
        ):
            with self.subTest(f"{down} at {now}"):
                members = group(down, 9, domain="a")
                told = one.admit(event("h0", "a"), members, now)
                self.assertEqual(found, causes(told))
        # Another domain does not wait.
        one = limits.Limits(rules._replace(max_down=None), settle=30)
        members = group(3, 9, domain="a")
        self.assertTrue(one.admit(event("h0", "a"), members, 0))
        members = [*group(1, 9, domain="a"), member("b", "down", domain="b")]
        self.assertEqual([], one.admit(event("b", "b"), members, 1))

    def test_the_same_member_again(self):
        one = judge(max_per_hour=1)
        self.assertEqual([], one.admit(event(at=0), group(1, 9), 0))
        self.assertEqual(
            [limits.MAX_PER_HOUR],
            causes(one.admit(event(at=60), group(1, 9), 60)),
        )

    def test_what_is_not_done_does_not_count(self):
        one = judge(max_down="1", max_per_hour=1)
        for host in ("h0", "h1", "h2"):
            told = one.admit(event(host), group(3, 9), 0)
            self.assertEqual([limits.MAX_DOWN], causes(told))
        self.assertEqual([], one.admit(event("h2"), group(1, 9), 1))

    @given(
        st.lists(st.floats(0, 20_000), max_size=40).map(sorted),
        st.integers(0, 5),
    )
    def test_no_hour_has_more_actions(self, moments, most):
        one, done = judge(max_per_hour=most), []
        for number, now in enumerate(moments):
            if not one.admit(event(f"h{number}"), [], now):
                done.append(now)
        for begin in done:
            within = [at for at in done if begin <= at < begin + 3600]
            self.assertLessEqual(len(within), most)

    def test_the_event_of_a_suspension(self):
        (told,) = judge(max_down_per_domain="0").admit(
            event("a0", "a"), [member("a0", "down", domain="a")], 0
        )
        made = events.as_dict(limits.suspended(told, event("a0", "a")))
        self.assertEqual(
            {
                "type": "suspended",
                "group": "compute",
                "host": "",
                "topic": "compute",
                "binary": None,
                "at": "2026-01-01T00:00:00.000Z",
                "last_seen": None,
                "reason": told.reason,
                "cause": "max-down-per-domain",
                "failure_domain": "a",
                "disabled": False,
            },
            made,
        )
