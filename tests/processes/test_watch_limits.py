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

"""nova-sg watch that does not act: limits, a pause, another that acts."""

import os
import re
import signal
import threading

from tests.fixtures.process import wait_for
from tests.processes import base, watching

# A line for each time that it runs.
ACT = """#!/bin/sh
cat > /dev/null
echo "$ACTOR $NOVA_SG_TYPE $NOVA_SG_HOST $NOVA_SG_ID" >> "$ACTS"
"""


class TestCase(watching.TestCase):
    def setUp(self):
        super().setUp()
        self.script = self.write("act", ACT)
        os.chmod(self.script, 0o700)

    @property
    def environment(self):
        return super().environment | {"ACTS": self.path("acts")}

    def acts(self):
        """Return what was done: (actor, type, host, id)."""
        try:
            with open(self.path("acts")) as file:
                return [tuple(line.split()) for line in file]
        except FileNotFoundError:
            return []

    def hosts(self, actor=None):
        """Return the hosts that were acted upon, each once."""
        return {
            host for name, _, host, _ in self.acts() if actor in (None, name)
        }

    def start_actor(self, name, *arguments):
        """Start to watch, as an actor of that name; its log is a file."""
        # What another one was tried with.
        self.execute("DELETE FROM services WHERE host LIKE 'new%'")
        log = self.path(f"{name}.log")
        with open(log, "w") as file:
            process = self.watch(
                *("--exec", self.script, "--only", "down", *arguments),
                env=self.environment | {"ACTOR": name},
                stderr=file,
            )
        process.log = log
        process.lines = self.lines
        return process

    def log(self, process):
        with open(process.log) as file:
            return file.read()

    def wait_for_log(self, process, words):
        wait_for(
            lambda: words in self.log(process),
            base.PATIENCE,
            lambda: f"{words} is logged: {self.log(process)}",
        )

    def end(self, process):
        process.send_signal(signal.SIGTERM)
        process.wait(base.PATIENCE)
        self.assertEqual(0, process.returncode)
        self.check_words(self.log(process))


class PauseTest(TestCase):
    def test_a_pause(self):
        process = self.start_actor("only")
        self.force("one", 1)
        wait_for(lambda: self.acts(), base.PATIENCE, "it acts")
        self.do("pause", "--reason", "moving the  racks")
        self.wait_for_log(process, "are paused since ")
        self.assertIn("(moving the racks)", self.log(process))
        self.assertRegex(
            self.run_here("nova-sg", "doctor").out,
            "(?m)^ok  actions: .*group compute: paused since .* racks",
        )
        # Printed, and not acted upon.
        self.force("two", 1)
        self.force("one", 0)
        self.assertEqual({"one"}, self.hosts())
        self.do("pause", "--for", "0")
        self.wait_for_log(process, "are no longer paused")
        wait_for(
            lambda: "two" in self.hosts(), base.PATIENCE, "two is acted upon"
        )
        # A member that came back meanwhile is not.
        self.do("pause")
        wait_for(
            lambda: self.log(process).count("are paused since ") == 2,
            base.PATIENCE,
            "it is paused again",
        )
        self.force("one", 1)
        self.force("one", 0)
        self.do("resume")
        wait_for(
            lambda: self.log(process).count("are no longer paused") == 2,
            base.PATIENCE,
            "it goes on",
        )
        self.force("two", 0)
        self.force("two", 1)
        wait_for(
            lambda: len(self.acts()) >= 3, base.PATIENCE, "two is down again"
        )
        self.end(process)
        self.assertEqual(
            ["one", "two", "two"], [host for _, _, host, _ in self.acts()]
        )
        self.assertNotIn("actions", self.run_here("nova-sg", "doctor").out)

    def test_a_pause_of_another_group(self):
        self.do("pause", "--group", "other")
        process = self.start_actor("only")
        self.force("one", 1)
        wait_for(lambda: self.acts(), base.PATIENCE, "it acts")
        self.assertNotIn("paused", self.log(process))


class OptionsTest(TestCase):
    def test_wrong_limits(self):
        for option, value in (
            ("max_down", "many"),
            ("max_down", "101%"),
            ("max_down_per_domain", "-1"),
        ):
            with self.subTest(f"{option} = {value}"):
                self.configure(f"[events]\n{option} = {value}\n")
                result = self.run_here("nova-sg", "watch", "--exec", "true")
                self.assertEqual(2, result.status)
                self.assertIn(f"[events] {option}: '{value}' is", result.err)

    def test_a_pause_that_no_other_process_would_see(self):
        self.configure("servicegroup_driver = mc\n")
        result = self.run_here("nova-sg", "pause")
        self.assertEqual(2, result.status)
        self.assertIn("memcached_servers names no server", result.err)


class LockTest(TestCase):
    def test_one_of_two_acts(self):
        self.configure(
            "[events]\nlock = true\ntime_limit = 1\n", service_down_time=6
        )
        first = self.start_actor("first")
        self.insert("a", 0)
        wait_for(lambda: "a" in self.hosts(), base.PATIENCE, "it acts")
        second = self.start_actor("second")
        self.insert("b", 0)
        wait_for(lambda: "b" in self.hosts(), base.PATIENCE, "it acts again")
        self.wait_for_line(second, "down b ")
        self.assertEqual(set(), self.hosts("second"))
        first.kill()
        first.wait()
        self.insert("c", 0)
        wait_for(
            lambda: "c" in self.hosts("second"),
            base.PATIENCE,
            "the other one acts",
        )
        self.assertIn("takes over the actions", self.log(second))
        # It has seen b go down, and cannot know what became of that: it does
        # it again, by the same id.
        wait_for(
            lambda: "b" in self.hosts("second"), base.PATIENCE, "b, too"
        )
        ids = {key for _, _, host, key in self.acts() if host == "b"}
        self.assertEqual(1, len(ids))
        # One that ends in order hands over at once.
        third = self.start_actor("third")
        self.end(second)
        self.wait_for_log(third, "This process acts upon events")
        self.assertNotIn("takes over", self.log(third))
        self.insert("d", 0)
        wait_for(
            lambda: "d" in self.hosts("third"), base.PATIENCE, "it acts"
        )
        self.end(third)

    def wait_for_line(self, process, words):
        seen = []

        def sees():
            process.lines.wait(0.1)
            seen.extend(process.lines.take())
            return any(words in line for line in seen)

        wait_for(sees, base.PATIENCE, lambda: f"{words} is in {seen}")


class RackTest(TestCase):
    """A group of 400, of which the test reports in bulk."""

    SIZE, RACK = 400, 40
    #: Seconds between two reports, and until a member is down.
    INTERVAL, DOWN_TIME = 3, 15

    def setUp(self):
        super().setUp()
        self.execute("DELETE FROM services")
        self.execute(
            "INSERT INTO services (host, topic, binary, created_at, "
            "last_seen_up, report_count, deleted, disabled, forced_down) "
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL "
            "SELECT i + 1 FROM n WHERE i < ?) "
            "SELECT printf('n%03d', i), 'compute', 'nova-compute', "
            "strftime('%Y-%m-%d %H:%M:%f000', 'now'), "
            "strftime('%Y-%m-%d %H:%M:%f000', 'now'), 7, 0, 0, 0 FROM n",
            self.SIZE - 1,
        )
        #: The hosts that no longer report: those before this number.
        self.dead = 0
        self._stopped = threading.Event()
        thread = threading.Thread(target=self._report, daemon=True)
        thread.start()
        self.addCleanup(thread.join, base.PATIENCE)
        self.addCleanup(self._stopped.set)

    def _report(self):
        """Report for a part of the hosts at a time, each in its turn."""
        parts = 10
        turn = 0
        while not self._stopped.wait(self.INTERVAL / parts):
            turn += 1
            self.execute(
                "UPDATE services SET report_count = report_count + 1, "
                "last_seen_up = strftime('%Y-%m-%d %H:%M:%f000', 'now') "
                "WHERE host >= ? AND host LIKE 'n%' AND id % ? = ?",
                *(f"n{self.dead:03}", parts, turn % parts),
            )

    def start_limited(self):
        self.configure(
            "[events]\nmax_down = 5%\nmax_per_hour = 2\n",
            report_interval=self.INTERVAL,
            service_down_time=self.DOWN_TIME,
        )
        return self.start_actor("only")

    def test_a_rack_dies(self):
        """40 of 400 within some seconds: not one of them is acted upon."""
        process = self.start_limited()
        self.dead = self.RACK
        seen = []

        def printed(words):
            self.lines.wait(0.1)
            seen.extend(self.lines.take())
            return [line for line in seen if re.search(words, line)]

        wait_for(
            lambda: len(printed(" down n")) == self.RACK,
            base.PATIENCE,
            "the rack is down",
        )
        wait_for(
            lambda: printed(" suspended "), base.PATIENCE, "that is said"
        )
        # With those by which the watch was seen to begin.
        ((size,),) = self.execute("SELECT count(*) FROM services")
        self.assertIn(
            f"suspended (40 of {size} members are down; "
            "[events] max_down is 5%)",
            printed(" suspended ")[0],
        )
        # The rack comes back.
        self.dead = 0
        self.wait_for_log(process, "no longer suspended")
        wait_for(
            lambda: len(printed(" up n")) == self.RACK,
            base.PATIENCE,
            "all are up",
        )
        self.assertEqual(set(), self.hosts())
        self.assertEqual(1, len(printed(" suspended ")))
        # Three that die later are acted upon, but not more than are wanted.
        self.dead = 3
        wait_for(lambda: len(self.acts()) == 2, base.PATIENCE, "two are")
        wait_for(
            lambda: len(printed(" suspended ")) == 2,
            base.PATIENCE,
            "the third is not",
        )
        self.assertIn("max_per_hour is 2", printed(" suspended ")[1])
        self.assertEqual(2, len(self.acts()))
        self.end(process)
