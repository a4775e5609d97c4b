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

"""The example that fences and evacuates: etc/events/fence-and-evacuate.

The programs that it calls are stand-ins that record their calls.
"""

import datetime
import os
import pathlib
import signal
import subprocess

from tests.fixtures.process import wait_for
from tests.processes import base, watching

SCRIPT = pathlib.Path(__file__).parents[2] / "etc/events/fence-and-evacuate"

# A host named "dead" answers no ping. Its power is off at the second question.
# The first list of servers fails. Then there are three servers, one of which
# cannot be evacuated at first.
STAND_IN = """#!/bin/sh
called="${0##*/} $*"
echo "$called" >> "$CALLS"
case $called in
ping*dead*) exit 1 ;;
ping*nameless*) exit 2 ;;
ipmitool*stubborn*status) echo Chassis Power is on ;;
ipmitool*status)
    [ -e "$CALLS.off" ] && echo Chassis Power is off && exit
    : > "$CALLS.off"
    echo Chassis Power is on
    ;;
"openstack server list"*)
    [ -e "$CALLS.listed" ] || { : > "$CALLS.listed"; exit 1; }
    for server in a b c; do
        [ -e "$CALLS.$server" ] || echo "$server"
    done
    ;;
"openstack server evacuate b")
    [ -e "$CALLS.refused" ] || { : > "$CALLS.refused"; exit 1; }
    : > "$CALLS.b"
    ;;
"openstack server evacuate "*) : > "$CALLS.$3" ;;
esac
"""
NAMES = ("ping", "logger", "ipmitool", "openstack", "sleep")

# For how many seconds a member has to be down before the script runs.
DOWN_FOR = 4

WITNESS = "ping -c 3 -W 2 {}.mgmt.example.org"
BOARD = "ipmitool -I lanplus -H {}.bmc.example.org -U fence -E chassis power"


class StandIns(base.TestCase):
    """Stand-ins for the programs, and their calls."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("bin"))
        for name in NAMES:
            os.chmod(self.write(f"bin/{name}", STAND_IN), 0o700)

    @property
    def environment(self):
        around = super().environment
        return around | {
            "PATH": f"{self.path('bin')}:{around['PATH']}",
            "CALLS": self.path("calls"),
            "EVACUATED": self.path("evacuated"),
        }

    def calls(self, words=""):
        """Return the calls that have words in them."""
        try:
            with open(self.path("calls")) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if words in line]


class ScriptTest(StandIns):
    """The script, run for one event."""

    def run_script(self, host, kind="down", cause="silent"):
        """Return its exit status, and the programs that it has called."""
        before = len(self.calls())
        told = {"HOST": host, "TYPE": kind, "CAUSE": cause, "REASON": "why"}
        ended = subprocess.run(
            [SCRIPT],
            env=self.environment
            | {f"NOVA_SG_{name}": told[name] for name in told},
            capture_output=True,
            timeout=base.PATIENCE,
        )
        called = [call.split()[0] for call in self.calls()[before:]]
        return ended.returncode, called

    def test_the_script_ignores_other_events(self):
        for host, kind, cause, status, called in (
            ("dead", "held", "held", 0, []),
            ("dead", "up", "reported", 0, []),
            ("", "suspended", "max-down", 0, ["logger"]),
            ("dead", "down", "crashed", 0, ["logger"]),
            ("dead", "down", "forced-down", 0, ["logger"]),
            ("dead", "down", "never-reported", 0, ["logger"]),
            ("alive", "down", "silent", 0, ["ping", "logger"]),
            ("nameless", "down", "lost", 2, ["ping"]),
        ):
            with self.subTest(f"{host} {kind} {cause}"):
                self.assertEqual(
                    (status, called), self.run_script(host, kind, cause)
                )

    def test_the_script_refuses_too_many_evacuations(self):
        os.mkdir(self.path("evacuated"))
        for number in range(3):
            self.write(f"evacuated/other{number}", "")
        self.assertEqual((0, ["ping", "logger"]), self.run_script("dead"))
        # A host that is among them is tried again.
        self.write("evacuated/dead", "")
        self.assertIn("ipmitool", self.run_script("dead")[1])

    def test_the_script_fails_if_the_host_is_not_off(self):
        status, called = self.run_script("dead-and-stubborn")
        self.assertEqual(1, status)
        self.assertEqual(60, called.count("sleep"))
        self.assertNotIn("openstack", called)


class WatchTest(StandIns, watching.TestCase):
    """The script, run by nova-sg watch."""

    def start_to_watch(self, options):
        self.configure(
            f"[events]\nparallel = 1\n[servicegroup]\n{options}",
            service_down_time=2,
        )
        self.seen = []
        return self.watch(
            *("--exec", str(SCRIPT), "--only", "down"),
            *("--for", str(DOWN_FOR)),
        )

    def find(self, words):
        """Wait for a line of nova-sg watch; return its time."""

        def found():
            self.lines.wait(0.1)
            self.seen.extend(self.lines.take())
            return [line for line in self.seen if f" {words} " in line]

        line = wait_for(
            found, base.PATIENCE, lambda: f"{words} is in {self.seen}"
        )[-1]
        return datetime.datetime.fromisoformat(line.split()[0])

    def let_pass(self):
        """Wait until all events that are due by now have been acted upon."""
        # A member whose event is the last one. The script finds it alive.
        self.insert("marker", 0)
        self.find("joined marker")
        self.execute(
            "UPDATE services SET forced_down = 1 WHERE host = 'marker'"
        )
        wait_for(
            lambda: self.calls(" marker: "),
            base.PATIENCE,
            "the marker's event has been acted upon",
        )

    def comes_back(self, host):
        """Have an agent go down and up; return whether it was in time."""
        agent = self.agent(host)
        self.find(f"joined {host}")
        agent.process.send_signal(signal.SIGSTOP)
        down = self.find(f"down {host}")
        agent.process.send_signal(signal.SIGCONT)
        return (self.find(f"up {host}") - down).total_seconds() < DOWN_FOR - 1

    def test_a_dead_host_and_one_that_comes_back(self):
        # No member is held although several, which have no agent, fall silent
        # at the same time.
        process = self.start_to_watch("mass_silence_min_members = 1000")
        dead = self.agent("dead")
        self.find("joined dead")
        # On a slow machine a member may take too long, and is down then.
        back = next(
            host
            for host in ("back1", "back2", "back3")
            if self.comes_back(host)
        )
        self.assertEqual([], self.calls("dead"))
        dead.kill()
        self.find("down dead")
        self.let_pass()
        wait_for(
            lambda: self.calls("evacuate b")[1:],
            base.PATIENCE,
            lambda: f"all are evacuated: {self.calls()}",
        )
        words = self.end(process)
        self.assertIn("fence-and-evacuate failed for down of dead", words)
        witness, board = WITNESS.format("dead"), BOARD.format("dead")
        down = "openstack compute service set --down dead nova-compute"
        servers = (
            "openstack server list --all-projects --host dead -f value -c ID"
        )
        evacuate = "openstack server evacuate"
        # Two calls more: for the list that failed, and for b.
        self.assertEqual(
            [
                *(witness, f"{board} off", f"{board} status"),
                *(f"{board} status", down, servers),
                *(witness, f"{board} off", f"{board} status", down, servers),
                *(f"{evacuate} a", f"{evacuate} b", f"{evacuate} c"),
                *(witness, f"{board} off", f"{board} status", down, servers),
                f"{evacuate} b",
            ],
            [
                call
                for call in self.calls()
                if " dead" in call or call.startswith(evacuate)
                if not call.startswith("logger ")
            ],
        )
        self.assertEqual([], self.calls(back))
        # They have no agent and answer a ping: an operator has to decide.
        self.assertEqual(
            {"dead"}, {call.split()[4][:4] for call in self.calls("ipmitool")}
        )

    def test_held_members_are_not_evacuated(self):
        process = self.start_to_watch("mass_silence_hold = 3600")
        hosts = [f"dead{number}" for number in range(6)]
        for host in hosts:
            self.insert(host, 0)
            self.find(f"joined {host}")
        self.execute(
            "UPDATE services SET last_seen_up = "
            "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
        )
        for host in hosts:
            self.find(f"held {host}")
        self.let_pass()
        self.end(process)
        for host in hosts:
            self.assertEqual([], self.calls(host))
