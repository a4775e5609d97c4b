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

"""Any error of a driver, or any wrong answer, is a failed report or refresh.

A fake driver raises and returns what no real driver does yet.
"""

import struct
import threading
import time
from unittest import mock

from nova_sg import exception, metrics, observer, poller, servicegroup, trouble
from nova_sg.backends import base as drivers
from nova_sg.liveness.model import Observation, Outage, Refresh, ServerOutage
from nova_sg.servicegroup import process
from tests.base import Member, TestCase, wait_for
from tests.functional.test_metrics import value

REFRESH_TROUBLE = "Cannot refresh group compute"
REFRESH_AGAIN = "reachable again; monitoring group compute"
REPORT_TROUBLE = "Cannot report the state of one"
REPORT_AGAIN = "The state of one is reported to the group compute again"


class Fake(drivers.Driver):
    """A driver that keeps members in memory, and fails as a test wants."""

    name = "db"
    characteristics = drivers.Characteristics("", "", "")

    def __init__(self):
        self.members = {}
        self.error = None
        self.answer = None
        self.calls = 0

    def _ask(self):
        self.calls += 1
        error = self.error() if callable(self.error) else self.error
        if error is not None:
            raise error

    def report(self, membership):
        self._ask()
        self.members[membership.host] = time.monotonic()

    def withdraw(self, membership):
        self._ask()
        self.members.pop(membership.host, None)

    def observe(self, group):
        self._ask()
        if self.answer is not None:
            return self.answer()
        now = time.monotonic()
        found = [
            Observation(host, at, reported=at)
            for host, at in self.members.items()
        ]
        return Refresh(self.name, now, found)

    def outage(self, group, since):
        self._ask()
        return None if self.answer is None else self.answer()

    def groups(self):
        self._ask()
        return ["compute"] if self.answer is None else self.answer()

    def force_down(self, group, host, forced):
        self._ask()
        if host not in self.members:
            raise exception.MemberNotFound(host)

    def forget(self, group, host):
        self._ask()

    def check(self):
        self._ask()
        yield drivers.Finding(True, "fake", "well")

    def close(self):
        self._ask()


def refresh(**fields):
    now = time.monotonic()
    new = Observation("new", 1, reported=now)._replace(**fields)
    return Refresh("db", now, [new])


GARBAGE = {
    "none": lambda: 0,
    "no list": lambda: refresh()._replace(observations=None),
    "no observations": lambda: refresh()._replace(observations=[("new", 0.0)]),
    "no time of asking": lambda: refresh()._replace(asked=None),
    "no name": lambda: refresh(host=None),
    "no attributes": lambda: refresh(attributes=None),
    "a report in words": lambda: refresh(reported="yesterday"),
    "a report at no time": lambda: refresh(reported=float("nan")),
    "a date in words": lambda: refresh(last_seen="yesterday"),
    "half of them": lambda: refresh()._replace(
        observations=[*refresh().observations, None]
    ),
}

ERRORS = {
    "RuntimeError": lambda: RuntimeError("an error of a library"),
    "AssertionError": lambda: AssertionError(),
    "struct.error": lambda: struct.error("unpack requires 4 bytes"),
    "OSError": lambda: FileNotFoundError(2, "No such file or directory"),
    "an option": lambda: exception.ConfigError("[x] y: is wrong"),
}


class FakeTestCase(TestCase):
    DOWN_TIME = 1.0

    def setUp(self):
        super().setUp()
        metrics.start_afresh()
        self.flags(service_down_time=self.DOWN_TIME, report_interval=0.1)
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.driver = Fake()
        before = dict(process._makers)
        self.addCleanup(process._makers.update, before)
        self.addCleanup(process._makers.pop, "db", None)
        process.use("db", lambda: self.driver)
        self.api = servicegroup.API()
        self.addCleanup(setattr, self.driver, "error", None)

    def join(self, host):
        member = Member(host)
        self.api.join(host, "compute", member)
        self.addCleanup(self._check_timer, member)
        return member

    def _check_timer(self, member):
        process.reset()
        self.assertEqual([], member.tg.raised)

    def is_up(self, host):
        return self.api.service_is_up({"host": host, "topic": "compute"})

    def is_unknown(self, host):
        try:
            self.is_up(host)
        except exception.ServiceGroupUnavailable:
            return True
        return False


class AnyErrorTest(FakeTestCase):
    def test_verdicts_end_after_any_error(self):
        member = self.join("one")
        wait_for(lambda: self.is_up("one"))
        for name, error in ERRORS.items():
            with self.subTest(name):
                self.logs.records.clear()
                observer = process.shared().view("compute").observer
                [poller] = observer._pollers
                poller._log = trouble.TroubleLog()
                self.driver.error = error
                wait_for(lambda: self.is_unknown("one"), 5 * self.DOWN_TIME)
                [backend] = observer.group.backends
                self.assertGreater(
                    time.monotonic() - backend.refreshed, 0.9 * self.DOWN_TIME
                )
                for ask in (self.api.members, self.api.get_all):
                    with self.assertRaises(
                        exception.ServiceGroupUnavailable
                    ) as caught:
                        ask("compute")
                    words = exception.describe(error())
                    self.assertIn(words, str(caught.exception))
                self.assertEqual([], self.api.refresh("compute"))
                self.assertEqual(
                    0, value("nova_sg_backend_answering", group="compute")
                )
                wait_for(lambda: member.model_disconnected)
                wait_for(lambda: self.logs.matching(REFRESH_TROUBLE))
                [line] = self.logs.matching(REFRESH_TROUBLE)
                self.assertIn(words, line)
                self.driver.error = None
                wait_for(lambda: self._answers("one"))
                wait_for(lambda: not member.model_disconnected)
                wait_for(lambda: self.logs.matching(REFRESH_AGAIN))
                self.assertEqual(1, len(self.logs.matching(REFRESH_AGAIN)))
                self._check_tracebacks()

    def _answers(self, host):
        return not self.is_unknown(host) and self.is_up(host)

    def _check_tracebacks(self):
        traced = [one for one in self.logs.records if one.exc_info]
        # One of a refresh, and one of a report.
        self.assertLessEqual(len(traced), 2)
        self.assertEqual(
            {"DEBUG"} if traced else set(), {one.levelname for one in traced}
        )
        self.assertEqual([], self.logs.matching("", 40))

    def test_a_wrong_answer_is_a_failed_refresh(self):
        self.join("one")
        # On a busy machine its report may be a second old.
        wait_for(lambda: self.is_up("one"))
        view = process.shared().view("compute")
        for name, answer in GARBAGE.items():
            with self.subTest(name):
                self.driver.answer = answer
                failures = view.refresh_statuses()[0].failures
                wait_for(
                    lambda f=failures: view.refresh_statuses()[0].failures > f
                )
                self.assertFalse(view.answering())
                self.assertTrue(view.trouble)
                self.assertFalse(view.knows("new"))
        wait_for(lambda: self.is_unknown("one"), 5 * self.DOWN_TIME)
        with self.assertRaises(exception.BackendError):
            self.api.groups()
        self.driver.answer = None
        wait_for(lambda: self._answers("one"))
        self.assertEqual(["compute"], self.api.groups())

    def test_any_error_becomes_a_backend_error(self):
        self.driver.error = RuntimeError("as a library has it")
        for call in (
            self.api.groups,
            lambda: self.api.leave("one", "compute"),
            lambda: self.api.force_down("one", "compute"),
            lambda: self.driver.forget("compute", "one"),
            lambda: self.driver.outage("compute", 0.0),
            self.driver.check,
        ):
            with self.assertRaisesRegex(
                exception.UnexpectedError,
                "the driver db: RuntimeError: as a library has it",
            ) as caught:
                call()
            self.assertIsInstance(caught.exception.__cause__, RuntimeError)
        self.driver.error = None
        with self.assertRaises(exception.MemberNotFound):
            self.api.force_down("no-such-host", "compute")
        self.assertEqual(["well"], [one.text for one in self.driver.check()])

    def test_a_malformed_outage_of_a_server_is_not_used(self):
        for answer in (
            "it is read-only",
            Outage(0.0, 1.0),
            ServerOutage(None, 1.0, "it is read-only"),
            ServerOutage(0.0, float("nan"), "it is read-only"),
            ServerOutage(0.0, 1.0, None),
        ):
            with self.subTest(answer):
                self.driver.answer = lambda answer=answer: answer
                with self.assertRaises(exception.UnexpectedError):
                    self.driver.outage("compute", 0.0)
        answer = ServerOutage(0.0, 1, "it is read-only")
        self.driver.answer = lambda: answer
        self.assertIs(answer, self.driver.outage("compute", 0.0))

    def test_an_error_while_closing_a_driver_is_logged(self):
        self.assertEqual(["compute"], self.api.groups())
        self.driver.error = RuntimeError("as a library has it")
        process.reset()
        self.assertEqual(
            1, len(self.logs.matching("Could not close the driver db"))
        )

    def test_errors_that_come_and_go_do_not_flood_the_log(self):
        turns = iter(range(10**9))
        lock = threading.Lock()

        def error():
            with lock:
                return RuntimeError("odd") if next(turns) % 2 else None

        self.join("one")
        # On a busy machine its report may be a second old.
        wait_for(lambda: self.is_up("one"))
        self.driver.error = error
        calls = self.driver.calls
        wait_for(lambda: self.driver.calls > calls + 60)
        for begin, end in (
            (REFRESH_TROUBLE, REFRESH_AGAIN),
            (REPORT_TROUBLE, REPORT_AGAIN),
        ):
            begun = len(self.logs.matching(begin))
            self.assertLessEqual(begun, trouble.MOST)
            self.assertLessEqual(len(self.logs.matching(end)), begun)


class LateRefreshTest(FakeTestCase):
    # A busy machine may let a thread wait for a second.
    DOWN_TIME = 2.0

    def test_an_idle_view_refreshes_before_it_answers(self):
        self.driver.members["one"] = time.monotonic()
        view = process.shared().view("compute")
        for ask in (
            view.members,
            lambda: view.member("one"),
            view.hosts_up,
            lambda: view.is_up("one"),
            lambda: view.backend_states("one"),
        ):
            view.refresh()
            # The view is idle: no question has come for a while.
            with mock.patch.object(observer, "IDLE", 0.05):
                wait_for(view.observer.unavailable)
            self.driver.members["one"] = time.monotonic()
            ask()
            self.assertFalse(view.observer.unavailable())

    def test_a_view_whose_thread_gets_no_turn_still_refreshes(self):
        self.flags("servicegroup", view_refresh_interval=0.05)
        self.driver.members["one"] = time.monotonic()
        self.assertTrue(self.is_up("one"))
        view = process.shared().view("compute")
        # It runs only while a question waits. In uWSGI no thread runs
        # between two requests.
        turn = threading.Event()
        self.addCleanup(turn.set)
        [only] = view.observer._pollers
        sleep = time.sleep

        def wait(pause):
            # Other threads get a turn, too.
            sleep(0.001)
            turn.wait()

        only._wake.wait = wait

        def give_turn(seconds):
            turn.set()
            sleep(seconds)
            turn.clear()

        waiting = mock.Mock(wraps=time, sleep=give_turn)
        for module in observer, poller:
            self.enterContext(mock.patch.object(module, "time", waiting))
        give_up = time.monotonic() + 2 * self.DOWN_TIME
        while time.monotonic() < give_up:
            reported = time.monotonic()
            self.driver.members["one"] = reported
            answers = self.is_up("one"), self.api.get_all("compute")
            # If the whole machine stood still, the report is too old.
            if time.monotonic() - reported < self.DOWN_TIME / 2:
                self.assertEqual((True, ["one"]), answers)
            time.sleep(0.02)

    def test_a_view_that_rarely_refreshes_still_answers(self):
        # Refreshes are rarer than verdicts may be old.
        self.flags("servicegroup", view_refresh_interval=3600)
        self.driver.members["one"] = time.monotonic()
        self.assertTrue(self.is_up("one"))
        view = process.shared().view("compute")
        give_up = time.monotonic() + 2 * self.DOWN_TIME
        while time.monotonic() < give_up:
            self.driver.members["one"] = time.monotonic()
            self.assertFalse(view.observer.unavailable())
            time.sleep(0.02)
