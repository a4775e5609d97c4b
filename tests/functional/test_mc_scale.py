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
"""Many members: what a refresh costs."""

from nova_sg.backends.memcached import forced_down, values
from nova_sg.servicegroup import process
from tests import base, single_mode
from tests.functional import mc

MEMBERS = 10000


class ScaleTest(mc.McTestCase):
    @single_mode
    def test_ten_thousand_members_are_refreshed_by_multi_gets(self):
        server = self.start(kind=mc.Verbose)
        hosts = [f"node{number:05}" for number in range(MEMBERS)]
        silent, lost, forced = hosts[:10], hosts[10:20], hosts[20:30]
        self._write(server, hosts, silent, lost, forced)
        shared = self.another()
        before = len(server.commands())
        sets = server.commands().count("set")
        states = self.states(shared)
        # A member that only the index knows has shown no life for a week.
        listed = [host for host in hosts if host not in lost]
        self.assertEqual(
            dict.fromkeys(listed, "up")
            | dict.fromkeys(silent + forced, "down"),
            states,
        )
        commands = server.commands()[before:]
        # One reads the clock, one the index; then a thousand reports at a
        # time; one reads the records of members without a report. No member
        # goes on to report, so the server may have been asked for an outage.
        self.assertIn(commands.count("stats"), (1, 2), commands)
        self.assertEqual(
            1 + MEMBERS // 1000 + 1, commands.count("get"), commands
        )
        # The second refresh of an observer sets its canary.
        self.assertLessEqual(commands.count("set"), 1, commands)
        self.assertEqual({"stats", "get"}, set(commands) - {"set"})
        # The next refresh reads every member again, but no clock.
        before = len(server.commands())
        shared.view("compute").refresh()
        self.assertEqual(
            ["get"] * (1 + MEMBERS // 1000 + 1),
            [
                one
                for one in server.commands()[before:]
                if one not in ("stats", "set")
            ],
        )
        base.wait_for(lambda: server.commands().count("set") == sets + 1)

    def _write(self, server, hosts, silent, lost, forced):
        """Write the values that members would have written."""
        raw = self.raw(server)
        codec = values.Codec(None)
        now = float(raw.stats()["time"])
        parts = {key: set() for key in values.index_keys("compute")}
        items = {}
        for host in hosts:
            parts[values.index_key("compute", host)].add(host)
            at = now - 3600 if host in silent else now
            report = values.StoredReport(values.UP, at, "nova-compute")
            if host not in lost:
                key = values.member_key("compute", host)
                items[key] = codec.write_report(key, report)
        for key, names in parts.items():
            items[key] = codec.lines(key, names)
        key = values.forced_key("compute")
        mark = forced_down.Mark(int(now * 1000), True)
        items[key] = forced_down.write(
            codec, key, dict.fromkeys(forced, mark)
        )
        raw.set_many(items)
        self.assertEqual(
            len(items), int(raw.stats()["curr_items"]), "all are stored"
        )

    def test_a_report_is_one_command(self):
        server = self.start(kind=mc.Verbose)
        one = self.join("one")
        before = len(server.commands())
        for _ in range(20):
            one.tick()
        self.assertEqual(["replace"] * 20, server.commands()[before:])

    def test_questions_are_answered_from_the_snapshot(self):
        server = self.start(kind=mc.Verbose)
        self.flags("servicegroup", view_refresh_interval=60.0)
        self.join(*(f"node{number}" for number in range(50)))
        view = process.shared().view("compute")
        self.assertTrue(view.is_up("node0"))
        before = len(server.commands())
        for number in range(50):
            self.assertTrue(view.is_up(f"node{number}"))
        self.assertEqual([], server.commands()[before:])
