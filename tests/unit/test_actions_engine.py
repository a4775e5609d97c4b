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

"""The threads that act, and what keeps them from it."""

import datetime
from unittest import mock

from nova_sg.actions import engine, gate, limits, permission, schedule
from nova_sg.backends.base import Driver, Lock
from nova_sg.servicegroup import description, events
from tests import base
from tests.base import wait_for

MOMENT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TYPES = (events.UP, events.DOWN, events.HELD, events.SUSPENDED)


def event(host, kind=events.DOWN):
    return events.Event(
        kind, "compute", host, "compute", None, MOMENT, MOMENT, "why", "silent"
    )


class Handler:
    """Notes what it is given; fails as often as it is told."""

    name = "the handler"
    longest = 1.0

    def __init__(self, failures=0):
        self.failures = failures
        self.acts = []

    def act(self, job):
        self.acts.append((job.event.type, job.event.host))
        if self.failures:
            self.failures -= 1
            raise engine.Failed("as it is told")

    def close(self):
        pass


class Group:
    """The members of a group, by what a test says of them."""

    def __init__(self, *hosts):
        self.down = set()
        self.disabled = set()
        self.hosts = hosts

    def members(self):
        return [
            description.Member(
                *("compute", host, "compute", None),
                "down" if host in self.down else "up",
                *(None, None, "db", False, host in self.disabled, None),
                *("why", "silent"),
            )
            for host in self.hosts
        ]

    def confirm(self, group, host):
        return host in self.down


class Locks(Driver):
    """A driver with a lock and a note that a test sets."""

    name = "test"
    holder = "me"
    note = ""
    clean = True
    before = ""

    def acquire(self, group, holder, seconds):
        renewed, self.before = self.before == self.holder, self.holder
        return Lock(self.holder, self.clean and not renewed, renewed)

    def read_note(self, group):
        return self.note

    def report(self, membership): ...
    def withdraw(self, membership): ...
    def observe(self, group): ...
    def groups(self): ...
    def force_down(self, group, host, forced): ...
    def forget(self, group, host): ...
    def check(self): ...
    def close(self): ...


class EngineTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.group = Group("a", "b", "c", "d")
        self.told = []
        self.enterContext(
            mock.patch.object(engine, "WAIT_PAUSE", 0.02)
        )
        self.enterContext(
            mock.patch.object(permission, "INTERVAL", 0.02)
        )

    def start(
        self, *handlers, driver=None, holder=None, retry_for=600, **rules
    ):
        """Start an engine; return it."""
        guard = gate.Gate(
            limits.Limits(limits.Rules(**rules)),
            self.group.members,
            self.told.append,
        )
        guard.permission = permission.Permission(
            driver or Locks(),
            "compute",
            holder,
            1.0,
            each=guard.review,
        )
        made = engine.Engine(
            handlers,
            lambda: schedule.Schedule(
                TYPES, 0, retry_for, confirm=guard.confirms
            ),
            2,
            self.group.confirm,
            guard,
        )
        guard.permission.start()
        self.addCleanup(made.close, 5)
        return made

    def put(self, made, *hosts):
        self.group.down.update(hosts)
        for host in hosts:
            made.put(event(host))

    def wait_for_acts(self, handler, *acts):
        wait_for(
            lambda: sorted(handler.acts) == sorted(acts),
            message=lambda: f"{acts}, not {handler.acts}",
        )

    def pass_by(self, made, handler):
        """Wait until the jobs so far have been tried several times."""
        for _ in range(5):
            before = len(handler.acts)
            made.put(event("", events.HELD))
            wait_for(lambda n=before: len(handler.acts) > n)

    def downs(self, handler):
        return [host for kind, host in handler.acts if kind == events.DOWN]

    def test_a_suspension_begins_and_ends(self):
        handler = Handler()
        made = self.start(handler, max_down=limits.read_limit("2"))
        self.put(made, "a", "b", "c")
        wait_for(lambda: self.told)
        self.pass_by(made, handler)
        self.assertEqual([], self.downs(handler))
        # Once, with the numbers.
        (told,) = self.told
        self.assertEqual(
            ("suspended", "", "max-down"), (told.type, told.host, told.cause)
        )
        self.assertIn("3 of 4 members are down", told.reason)
        self.assertEqual(1, len(self.logs.matching("are suspended: 3 of", 30)))
        # One is back: the others are acted upon, and it is not.
        self.group.down.discard("b")
        wait_for(lambda: sorted(self.downs(handler)) == ["a", "c"])
        self.assertEqual(1, len(self.logs.matching("no longer suspended", 30)))
        # Another one begins, and is told.
        self.put(made, "b", "d")
        wait_for(lambda: len(self.told) == 2)

    def test_a_suspension_without_jobs_ends_too(self):
        handler = Handler()
        made = self.start(handler, max_down=limits.read_limit("0"))
        self.put(made, "a")
        wait_for(lambda: self.told)
        self.group.down.clear()
        wait_for(lambda: self.logs.matching("no longer suspended", 30))
        self.put(made, "b")
        wait_for(lambda: len(self.told) == 2)

    def test_what_is_suspended_for_too_long_is_given_up(self):
        handler = Handler()
        made = self.start(
            handler, max_down=limits.read_limit("0"), retry_for=0.2
        )
        self.put(made, "a")
        wait_for(
            lambda: self.logs.matching(
                "Nothing is done by the handler upon down of a: it was not "
                "permitted within [events] retry_for (1 of 4 members are "
                "down; [events] max_down is 0)",
                40,
            )
        )
        self.assertEqual([], self.downs(handler))

    def test_an_event_counts_once_for_all_attempts_and_handlers(self):
        one, other = Handler(failures=1), Handler()
        made = self.start(one, other, max_per_hour=1)
        self.put(made, "a")
        wait_for(lambda: self.downs(one) == ["a", "a"])
        self.assertEqual(["a"], self.downs(other))
        self.assertEqual([], self.told)
        self.put(made, "b")
        wait_for(lambda: self.told)
        self.assertEqual("max-per-hour", self.told[0].cause)
        self.pass_by(made, other)
        self.assertEqual(["a"], self.downs(other))

    def test_a_failed_action_goes_on_when_the_hour_is_full(self):
        handler = Handler(failures=1)
        made = self.start(handler, max_per_hour=1)
        self.put(made, "a", "b")
        wait_for(lambda: self.told)
        wait_for(lambda: len(self.downs(handler)) == 2)
        self.assertEqual(1, len(set(self.downs(handler))))

    def test_disabled_members(self):
        handler = Handler()
        made = self.start(handler, skip_disabled=True)
        self.group.disabled.add("a")
        self.put(made, "a", "b")
        wait_for(lambda: self.downs(handler) == ["b"])
        wait_for(lambda: self.logs.matching("upon down of a, as it is"))
        # One that is disabled while it is acted upon is not left half done.
        self.group.disabled.clear()
        handler.failures = 1
        self.put(made, "c")
        wait_for(lambda: "c" in self.downs(handler))
        self.group.disabled.add("c")
        wait_for(lambda: self.downs(handler) == ["b", "c", "c"])

    def test_while_another_process_acts(self):
        handler, driver = Handler(), Locks()
        driver.holder = "other"
        made = self.start(handler, driver=driver, holder="me")
        wait_for(lambda: self.logs.matching("Another process acts upon"))
        self.put(made, "a", "b")
        made.put(event("c", events.UP))
        self.group.down.discard("b")
        # Left to the other one.
        wait_for(lambda: len(made._lanes[0]._jobs) == 2)
        # Only what was down before, and is still.
        driver.holder = "me"
        self.wait_for_acts(handler, (events.DOWN, "a"))
        made.put(event("d", events.UP))
        self.wait_for_acts(
            handler, (events.DOWN, "a"), (events.UP, "d")
        )

    def test_a_lock_that_is_not_relied_upon_yet_is_not_released(self):
        """The process that died before may still rely on it."""
        for clean, number in ((False, 0), (True, 1)):
            with self.subTest(clean):
                driver, released = Locks(), []
                driver.clean = clean
                driver.release = lambda *args, to=released: to.append(args)
                one = permission.Permission(driver, "compute", "me", 1.0)
                one.start()
                wait_for(
                    lambda n=number: len(
                        self.logs.matching("This process acts")
                    ) + len(self.logs.matching("takes over")) > n
                )
                one.close(release=True)
                self.assertEqual(number, len(released))

    def test_a_backend_that_fails(self):
        handler, driver = Handler(), Locks()
        driver.read_note = lambda group: 1 / 0
        made = self.start(handler, driver=driver)
        made.put(event("a", events.UP))
        wait_for(lambda: self.logs.matching("Unexpected error while reading"))
        self.assertEqual([], handler.acts)
        del driver.read_note
        self.wait_for_acts(handler, (events.UP, "a"))
