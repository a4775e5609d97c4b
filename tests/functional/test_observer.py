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

"""The observer of a group, over backends that do what they want."""

import struct
import threading
import time
import unittest.mock

from hypothesis import HealthCheck, settings, stateful
from hypothesis import strategies as st

from nova_sg import observer as observers
from nova_sg.liveness import model
from nova_sg.liveness.model import Facts, Observation, Refresh
from tests import base
from tests.base import wait_for

LIMIT = 60.0
#: Seconds that a question takes at most while a backend hangs.
BOUND = 0.05


class Backend:
    """A driver that answers, raises or hangs, as it is told."""

    def __init__(self, name="fake"):
        self.name = name
        #: By host: the number of its last report.
        self.marks = {}
        self.forced = set()
        #: What observe() raises; None: it answers.
        self.error = None
        #: Cleared: it hangs.
        self.running = threading.Event()
        self.running.set()
        self.asked = 0
        self.wake = None

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
                    facts=Facts(forced_down=host in self.forced),
                )
                for host, mark in self.marks.items()
            ],
        )

    def follow(self, group, wake):
        self.wake = wake

    def unfollow(self, group, wake):
        self.wake = None


class TestCase(base.TestCase):
    INTERVAL = 0.02

    def observe(self, *backends, limit=LIMIT, **keywords):
        """Return an observer of backends; it ends with the test."""
        limits = model.Limits(limit, 10.0)
        observer = observers.Observer(
            "compute",
            backends,
            lambda: observers.Settings(limits, self.INTERVAL),
            **keywords,
        )
        # Whatever hangs is to end first.
        self.addCleanup(observer.close)
        for backend in backends:
            self.addCleanup(backend.running.set)
        return observer

    def took(self, question, *arguments):
        """Return the seconds that a question takes, the least of some."""

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

    def test_no_question_waits_for_a_backend_that_hangs(self):
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend)
        observer.verdict("one")
        backend.running.clear()
        asked = backend.asked
        wait_for(lambda: backend.asked > asked, message="it is being asked")
        self.assertLess(self.took(observer.verdict, "one"), BOUND)
        # Nor after what this process did itself.
        observer.note_own("one", model.LEFT)
        self.assertLess(self.took(observer.verdict, "one"), BOUND)
        self.assertEqual("left", observer.verdict("one").cause)

    def test_one_that_hangs_delays_no_other(self):
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

    def test_whatever_a_backend_raises_is_no_answer(self):
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
                # By age alone.
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
        self.assertEqual(4, len(self.logs.matching("Cannot refresh group")))
        self.assertEqual(4, len(self.logs.matching("reachable again")))

    def test_a_backend_that_tells(self):
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

    def test_what_this_process_did_counts_until_it_is_observed(self):
        backend = Backend()
        backend.marks["one"] = 1
        observer = self.observe(backend)
        observer.verdict("one")
        backend.running.clear()
        observer.note_own("new", model.REPORTED)
        observer.note_own("one", model.FORCED_DOWN)
        self.assertEqual("reported", observer.verdict("new").cause)
        self.assertEqual("forced-down", observer.verdict("one").cause)
        # The backend knows better, once it is asked later than that.
        backend.running.set()
        self.assert_becomes(
            ("not-a-member", "reported"),
            lambda: (
                observer.verdict("new").cause,
                observer.verdict("one").cause,
            ),
        )

    def test_changes_are_told_in_order_and_not_of_the_first_refresh(self):
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

    def test_it_stops_to_ask_when_there_are_no_questions(self):
        backend = Backend()
        observer = self.observe(backend)
        observer.verdict("one")
        with unittest.mock.patch.object(observers, "IDLE", 0.05):
            self.assert_no_thread_named("nova-sg-observe")
        asked = backend.asked
        observer.verdict("one")
        wait_for(lambda: backend.asked > asked, message="it asks again")


class Machine(stateful.RuleBasedStateMachine):
    """The observer of two backends, which do anything at any time."""

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
        self.observer.note_own(host, model.LEFT)

    @stateful.invariant()
    def questions_are_answered(self):
        begun = time.monotonic()
        for host in ("one", "two", "always", "never"):
            self.observer.verdict(host)
        # Each backend that hangs does so for ever.
        assert time.monotonic() - begun < 5.0

    def teardown(self):
        """Whatever came before: where both answer, the truth is known."""
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
