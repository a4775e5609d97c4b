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

"""The observer of a group, over backends that fail and hang at will."""

import logging
import struct
import threading
import time
import unittest.mock

from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from nova_sg import observer as observers
from nova_sg import poller as pollers
from nova_sg.liveness import group, model
from nova_sg.liveness.model import (
    Attributes,
    Observation,
    Refresh,
    ServerOutage,
)
from tests import base
from tests.base import wait_for

LIMIT = 60.0
#: Seconds that a question takes at most while a backend hangs.
BOUND = 0.05


class Backend:
    """A driver that answers, raises or hangs as the test wants."""

    def __init__(self, name="fake"):
        self.name = name
        #: By host: the number of its last report.
        self.marks = {}
        self.forced = set()
        self.left = set()
        #: The error that observe() raises; None: it answers.
        self.error = None
        #: Cleared: observe() hangs.
        self.running = threading.Event()
        self.running.set()
        self.asked = 0
        self.wake = None
        #: The moments since which its server was asked about an outage.
        self.silent = []
        #: Its answer: a function of such a moment.
        self.tell = lambda since: None

    def observe(self, group):
        begun = time.monotonic()
        self.asked += 1
        self.running.wait()
        if self.error is not None:
            raise self.error
        return Refresh(
            self.name,
            begun,
            [
                Observation(
                    host,
                    mark,
                    begun,
                    attributes=Attributes(
                        forced_down=host in self.forced,
                        left=host in self.left,
                    ),
                )
                for host, mark in self.marks.items()
            ],
        )

    def follow(self, group, wake):
        self.wake = wake

    def unfollow(self, group, wake):
        self.wake = None

    def outage(self, group, since):
        self.silent.append(since)
        return self.tell(since)


class TestCase(base.TestCase):
    INTERVAL = 0.02

    def observe(self, *backends, limit=LIMIT, interval=10.0, **keywords):
        """Return an observer of backends; it ends with the test."""
        limits = model.Limits(limit, interval)
        observer = observers.Observer(
            "compute",
            backends,
            lambda: observers.Settings(limits, self.INTERVAL),
            **keywords,
        )
        # The cleanup that ends a hanging backend runs before this.
        self.addCleanup(observer.close)
        for backend in backends:
            self.addCleanup(backend.running.set)
        return observer

    def took(self, question, *arguments):
        """Return the seconds that a question takes, at best."""

        def measure():
            begun = time.monotonic()
            question(*arguments)
            return time.monotonic() - begun

        return base.quickest(measure, BOUND)


class QuestionTest(TestCase):
    def test_the_first_question_waits_for_an_answer(self):
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend)
        self.assertEqual("reported", observer.verdict("one").cause)
        self.assertEqual("not-a-member", observer.verdict("two").cause)

    def test_members_that_this_process_stopped(self):
        backend = Backend()
        backend.marks.update(dict.fromkeys(("one", "forced", "silent"), 1))
        backend.forced.add("forced")
        observer = self.observe(backend, limit=0.5)
        observer.verdict("one")
        wait_for(
            lambda: observer.judge("silent").state == model.DOWN,
            message="it is silent for too long",
        )
        backend.marks["one"] = 2
        wait_for(lambda: observer.judge("one").state == model.UP)
        backend.running.clear()
        for host, cause in (
            ("one", "stopped"),
            ("forced", "forced-down"),
            # It was down before.
            ("silent", "left"),
        ):
            observer.note_own_action(host, model.STOPPED)
            self.assertEqual(cause, observer.judge(host).cause)

    def test_a_poller_that_stood_still_refreshes_before_an_answer(self):
        """In uWSGI, for one, no thread runs between two requests."""
        backend = Backend()
        backend.marks["one"] = 1
        backend.marks["two"] = 1
        stopped, goes_on = threading.Event(), threading.Event()
        self.addCleanup(goes_on.set)

        def stand_still(since):
            stopped.set()
            goes_on.wait()

        observer = self.observe(backend, interval=0.01)
        observer.verdict("one")
        backend.tell = stand_still
        self.assertTrue(stopped.wait(base.PATIENCE))
        # The poller does not learn of this.
        backend.left.add("one")
        time.sleep(pollers.LATE + 0.1)
        with unittest.mock.patch.object(
            observers, "SHORT_TURN", base.PATIENCE
        ):
            threading.Timer(0.01, goes_on.set).start()
            self.assertEqual("left", observer.verdict("one").cause)

    def test_no_question_waits_for_a_backend_that_hangs(self):
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend)
        observer.verdict("one")
        backend.running.clear()
        asked = backend.asked
        wait_for(lambda: backend.asked > asked, message="a refresh hangs")
        self.assertLess(self.took(observer.verdict, "one"), BOUND)
        # Nor after an action of this process.
        observer.note_own_action("one", model.LEFT)
        self.assertLess(self.took(observer.verdict, "one"), BOUND)
        self.assertEqual("left", observer.verdict("one").cause)

    def test_a_refresh_during_a_question_does_not_hide_an_own_action(self):
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend)
        observer.verdict("one")
        backend.running.clear()
        observer.note_own_action("one", model.LEFT)
        judged = group.Group.verdict

        def verdict(*arguments):
            answer = judged(*arguments)
            # Right now a refresh shows the action.
            backend.left.add("one")
            backend.running.set()
            wait_for(lambda: not observer.own_actions)
            return answer

        with unittest.mock.patch.object(group.Group, "verdict", verdict):
            self.assertEqual("left", observer.judge("one").cause)

    def test_a_backend_that_hangs_delays_no_other(self):
        first, second = Backend("first"), Backend("second")
        first.marks["one"] = second.marks["one"] = 1
        observer = self.observe(first, second)
        observer.verdict("one")
        first.running.clear()
        second.marks["two"] = 1
        wait_for(
            lambda: observer.verdict("two").cause == "reported",
            message="the other backend's answer counts",
        )
        self.assertLess(self.took(observer.verdict, "one"), BOUND)

    def test_any_error_of_a_backend_is_a_failed_refresh(self):
        for error, words in (
            (RuntimeError("no PyNaCl"), "RuntimeError: no PyNaCl"),
            (AssertionError(), "AssertionError"),
            (struct.error("unpack"), "error: unpack"),
            (KeyError("host"), "KeyError: 'host'"),
        ):
            with self.subTest(words):
                backend = Backend()
                backend.marks["one"] = 1
                observer = self.observe(backend, limit=0.5)
                self.assertEqual("reported", observer.verdict("one").cause)
                backend.error = error
                wait_for(lambda o=observer: o.trouble())
                # The last answer has to become too old for that.
                self.assert_becomes(
                    "unavailable", lambda o=observer: o.verdict("one").cause
                )
                self.assertEqual(
                    f"the driver fake: {words}", observer.trouble()
                )
                backend.error = None
                self.assert_becomes(
                    "reported", lambda o=observer: o.verdict("one").cause
                )
                self.assertEqual("", observer.trouble())
        # One line when it begins, one when it ends.
        wait_for(lambda: len(self.logs.matching("reachable again")) >= 4)
        self.assertEqual(4, len(self.logs.matching("Cannot refresh group")))
        self.assertEqual(4, len(self.logs.matching("reachable again")))

    def test_a_backend_that_reports_changes_is_refreshed_at_once(self):
        backend = Backend()
        observer = self.observe(backend)
        observer._read_settings = lambda: observers.Settings(
            model.Limits(2 * 3600.0, 10.0), 3600.0
        )
        observer.verdict("one")
        wait_for(lambda: backend.wake is not None)
        backend.marks["one"] = 1
        backend.wake()
        self.assert_becomes("reported", lambda: observer.verdict("one").cause)

    def test_an_own_action_counts_until_it_is_observed(self):
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend)
        observer.verdict("one")
        backend.running.clear()
        observer.note_own_action("new", model.REPORTED)
        observer.note_own_action("one", model.FORCED_DOWN)
        self.assertEqual("reported", observer.verdict("new").cause)
        self.assertEqual("forced-down", observer.verdict("one").cause)
        # A later refresh of the backend counts more.
        backend.running.set()
        self.assert_becomes(
            ("not-a-member", "reported"),
            lambda: (
                observer.verdict("new").cause,
                observer.verdict("one").cause,
            ),
        )

    def test_changes_come_in_order_and_none_of_the_first_refresh(self):
        changes = []
        listener = observers.Listener()
        listener.changed = lambda group, found: changes.extend(found)
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend, listener=listener)
        observer.verdict("one")
        backend.forced.add("one")
        wait_for(lambda: len(changes) == 1)
        backend.forced.clear()
        wait_for(lambda: len(changes) == 2)
        self.assertEqual(
            [("reported", "forced-down"), ("forced-down", "reported")],
            [(change.was.cause, change.now.cause) for change in changes],
        )

    def test_it_stops_refreshing_when_there_are_no_questions(self):
        backend = Backend()
        observer = self.observe(backend)
        observer.verdict("one")
        with unittest.mock.patch.object(observers, "IDLE", 0.05):
            self.assert_no_thread_named("nova-sg-observe")
        asked = backend.asked
        observer.verdict("one")
        wait_for(lambda: backend.asked > asked, message="it asks again")


def read_only(since):
    return ServerOutage(since, time.monotonic(), "it is read-only")


class ManyMembersTest(TestCase):
    """A refresh of many members stops no other thread until it is through."""

    MEMBERS = 10_000

    def test_other_threads_run_and_see_the_group_before(self):
        backend = Backend()
        backend.marks = {f"node{i}": 1 for i in range(self.MEMBERS)}
        observer = self.observe(backend)
        observer.watched = True
        first, last = "node0", f"node{self.MEMBERS - 1}"
        for forced in ((), backend.marks):
            with self.subTest(forced=bool(forced)):
                before = observer.group
                backend.forced = set(forced)
                answered = threading.Event()
                ask = backend.observe

                def observe(group, ask=ask, answered=answered):
                    answer = ask(group)
                    answered.set()
                    return answer

                backend.observe = observe
                refreshing = threading.Thread(
                    target=observer.refresh, args=[base.PATIENCE]
                )
                refreshing.start()
                answered.wait(base.PATIENCE)
                turns = 0
                while (group := observer.group) is before:
                    turns += 1
                    time.sleep(0)
                # At each of them the group is the whole one of before; and
                # here the whole one of now.
                seen = {group.members[host].verdict for host in (first, last)}
                self.assertEqual(
                    {model.FORCED_DOWN if forced else model.REPORTED}, seen
                )
                self.assertEqual(self.MEMBERS, len(group.members))
                self.assertGreater(turns, 10)
                refreshing.join()
                backend.observe = ask


class ServerTest(TestCase):
    """Outages that a backend's server reports while no member reports."""

    LIMIT = 1.0
    TAKES_NONE = "takes no reports of the group compute: it is read-only"
    OVER = "no longer shows an outage for the group compute"

    def start(self, *hosts, **keywords):
        self.backend = Backend()
        for host in hosts:
            self.backend.marks[host] = 1
        self.observer = self.observe(
            self.backend, limit=self.LIMIT, interval=0.1, **keywords
        )
        self.observer.verdict(hosts[0])

    def cause(self, host):
        return self.observer.verdict(host).cause

    def refreshes(self, number):
        asked = self.backend.asked
        wait_for(lambda: self.backend.asked >= asked + number)

    def test_members_do_not_fall_while_the_server_reports_an_outage(self):
        self.start("one", "two")
        self.backend.tell = read_only
        heard = self.observer.group.backends[0].last_report
        give_up = time.monotonic() + 2.5 * self.LIMIT
        while time.monotonic() < give_up:
            self.assertEqual("reported", self.cause("one"))
            self.assertEqual("reported", self.cause("two"))
            time.sleep(0.02)
        self.assertEqual({heard}, set(self.backend.silent))
        [line] = self.logs.matching(self.TAKES_NONE)
        self.assertIn("The backend fake", line)
        self.assertEqual([], self.logs.matching(self.OVER))
        # It works again. From now on the dead have one limit.
        over = time.monotonic()
        self.backend.tell = lambda since: None
        self.assert_becomes(("silent",) * 2, lambda: self.causes())
        self.assertGreater(time.monotonic(), over + 0.8 * self.LIMIT)
        self.assertEqual(1, len(self.logs.matching(self.OVER)))

    def causes(self):
        return self.cause("one"), self.cause("two")

    def test_a_members_report_ends_the_outage(self):
        self.start("one", "two")
        self.backend.tell = read_only
        wait_for(lambda: self.logs.matching(self.TAKES_NONE))
        limits = model.Limits(LIMIT, 10.0)
        self.observer._read_settings = lambda: observers.Settings(
            limits, self.INTERVAL
        )
        self.backend.marks["one"] = 2
        wait_for(lambda: self.logs.matching(self.OVER))
        self.backend.silent.clear()
        self.refreshes(3)
        self.assertEqual([], self.backend.silent)

    def test_reports_of_a_single_member_wait_again_and_again(self):
        """The pause from one to the next does not end the outage.

        With 10 s for an answer a report begins every 20 s, and is seen to
        wait in the second half of its 10 s.
        """
        self.start("one", "two")
        limits = model.Limits(60.0, 10.0)
        poller = self.observer._pollers[0]
        self.observer.close()
        self.observer.settings = observers.Settings(limits, 2.0)
        for asked in range(0, 200, 2):
            told = read_only(0.0) if 5 <= asked % 20 < 10 else None
            poller._tell_outage(float(asked), told, reports=False)
        self.assertEqual(1, len(self.logs.matching(self.TAKES_NONE)))
        self.assertEqual([], self.logs.matching(self.OVER))

    def test_the_server_is_not_asked_about_a_single_member(self):
        for hosts, left in (
            (["one"], []),
            (["one", "two"], ["two"]),
        ):
            with self.subTest(hosts=hosts, left=left):
                self.start(*hosts)
                self.backend.left.update(left)
                wait_for(lambda: self.cause("one") == "silent")
                self.refreshes(2)
                if not left:
                    self.assertEqual([], self.backend.silent)
                self.backend.silent.clear()
                self.refreshes(3)
                self.assertEqual([], self.backend.silent)

    def test_the_server_is_not_asked_while_a_member_reports(self):
        self.start("one", "two")
        stopped = threading.Event()
        self.addCleanup(stopped.set)
        limits = model.Limits(self.LIMIT, self.LIMIT)
        self.observer._read_settings = lambda: observers.Settings(
            limits, self.INTERVAL
        )
        self.refreshes(2)
        self.backend.silent.clear()
        give_up = time.monotonic() + 60
        while self.cause("two") != "silent" and time.monotonic() < give_up:
            self.backend.marks["one"] += 1
            time.sleep(0.02)
        self.assertEqual("silent", self.cause("two"))
        self.assertEqual([], self.backend.silent)

    def test_an_error_of_the_server_is_no_evidence(self):
        self.start("one", "two")

        def fail(since):
            raise RuntimeError("no privilege")

        self.backend.tell = fail
        self.assert_becomes(("silent",) * 2, lambda: self.causes())
        self.assertGreater(len(self.backend.silent), 3)
        [line] = self.logs.matching("no privilege")
        self.assertEqual([], self.logs.matching("", logging.WARNING))
        self.assertEqual("", self.observer.trouble())

    def test_a_server_that_does_not_answer_delays_no_question(self):
        self.start("one", "two")
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        self.backend.tell = lambda since: go_on.wait() and None
        wait_for(lambda: self.backend.silent)
        self.assertLess(self.took(self.cause, "one"), BOUND)
        # Its server is being asked. No question waits for the answer.
        begun = time.monotonic()
        self.observer.keep_fresh()
        self.assertLess(time.monotonic() - begun, self.LIMIT)

    def test_only_the_time_since_the_last_report_is_excused(self):
        self.start("one", "two")
        self.backend.tell = lambda since: ServerOutage(
            since - 99.0, time.monotonic() + 99.0, "it is read-only"
        )
        wait_for(lambda: self.observer.group.backends[0].outages)
        [outage] = self.observer.group.backends[0].outages
        self.assertEqual(self.backend.silent[0], outage.begin)
        self.assertLessEqual(outage.end, time.monotonic())


class Machine(stateful.RuleBasedStateMachine):
    """The observer of two backends, to which anything happens."""

    def __init__(self):
        super().__init__()
        self.backends = [Backend("first"), Backend("second")]
        for backend in self.backends:
            backend.marks["always"] = 1
        limits = model.Limits(LIMIT, 10.0)
        self.observer = observers.Observer(
            "compute",
            self.backends,
            lambda: observers.Settings(limits, 0.01),
        )
        self.observer.verdict("always")

    which = st.integers(0, 1)

    @stateful.rule(which=which, host=st.sampled_from(["one", "two"]))
    def report(self, which, host):
        marks = self.backends[which].marks
        marks[host] = marks.get(host, 0) + 1

    @stateful.rule(which=which)
    def force_down(self, which):
        self.backends[which].forced ^= {"always"}

    @stateful.rule(
        which=which,
        error=st.sampled_from(
            [RuntimeError("x"), OSError(5, "y"), ValueError(), None]
        ),
    )
    def fail(self, which, error):
        self.backends[which].error = error

    @stateful.rule(which=which)
    def hang(self, which):
        self.backends[which].running.clear()

    @stateful.rule(which=which)
    def go_on(self, which):
        self.backends[which].running.set()

    @stateful.rule(host=st.sampled_from(["one", "two", "always"]))
    def leave(self, host):
        self.observer.note_own_action(host, model.LEFT)

    @stateful.invariant()
    def questions_are_answered(self):
        begun = time.monotonic()
        for host in ("one", "two", "always", "never"):
            self.observer.verdict(host)
        # A backend that hangs does so for ever.
        assert time.monotonic() - begun < 5.0

    def teardown(self):
        """Check that the truth is known once both backends answer."""
        for backend in self.backends:
            backend.error = None
            backend.running.set()
        assert self.observer.refresh(base.PATIENCE)
        assert self.observer.refresh(base.PATIENCE)
        assert self.observer.trouble() == ""
        forced = any(backend.forced for backend in self.backends)
        expected = "forced-down" if forced else "reported"
        assert self.observer.verdict("always").cause == expected
        for host in ("one", "two"):
            known = any(host in backend.marks for backend in self.backends)
            expected = "reported" if known else "not-a-member"
            assert self.observer.verdict(host).cause == expected
        self.observer.close()


MachineTest = Machine.TestCase
MachineTest.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
