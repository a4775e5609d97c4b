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

"""Members of a group by the db driver: joining, leaving, operators'
commands, and malformed records.
"""

import os
import sqlite3
import time

from nova_sg import exception
from nova_sg.servicegroup import process
from tests.base import wait_for
from tests.functional import db


class MembersMixin:
    """Tests for every database."""

    def kinds(self, events, host):
        return [event.type for event in events if event.host == host]

    def wait_for_events(self, events, host, *kinds):
        wait_for(
            lambda: self.kinds(events, host) == list(kinds),
            message=lambda: f"{host}: {kinds}, got {events}",
        )

    def test_life_of_a_member(self):
        self.join("other")
        events = self.collect(self.api)
        self.join("one")
        self.wait_for_events(events, "one", "joined")
        self.assertTrue(self.is_up("one"))

        self.api.leave("one", "compute")
        # This process knows its own actions at once.
        self.assertFalse(self.is_up("one"))
        self.assertEqual(["other"], self.api.get_all("compute"))
        self.wait_for_events(events, "one", "joined", "left")

        self.join("one")
        self.assertTrue(self.is_up("one"))
        self.wait_for_events(events, "one", "joined", "left", "joined")
        self.assertEqual([], self.kinds(events, "other"))

    def test_a_refresh_brings_a_leave_and_keeps_last_seen(self):
        self.join("one")
        before = self.api.member("compute", "one")
        events = self.collect(self.api)
        # The observer is not told, as if another process had left.
        process.shared().reporter.leave("one", "compute")
        left = time.monotonic()
        wait_for(lambda: not self.is_up("one"))
        took = time.monotonic() - left
        # Refreshes are 0.05 s apart. By silence it would take DOWN_TIME.
        self.assertLess(took, self.DOWN_TIME / 4)

        after = self.api.member("compute", "one")
        self.assertEqual("down", after.state)
        self.assertEqual("left the group", after.reason)
        self.assertGreaterEqual(after.last_seen, before.last_seen)
        self.wait_for_events(events, "one", "left")
        self.assertEqual(after.last_seen, events[0].last_seen)
        time.sleep(0.5)
        # The next refresh brings no other event, and no report comes after
        # leaving.
        self.assertEqual(["left"], self.kinds(events, "one"))
        self.assertEqual(
            after.last_seen, self.api.member("compute", "one").last_seen
        )

    def test_a_member_can_leave_by_another_process(self):
        # This process has not joined it. Another one did, and crashed.
        self.join("one")
        self.stop_reports()
        self.assertTrue(self.is_up("one"))
        self.api.leave("one", "compute")
        self.assertFalse(self.is_up("one"))
        # To leave for an unknown member is no error.
        self.api.leave("no-such-host", "compute")

    def test_silence_and_return(self):
        self.flags(service_down_time=3.0)
        self.join("one")
        self.join("other")
        events = self.collect(self.api)
        stopped = time.monotonic()
        process.shared().reporter._by_service[id(self.members[0])].stop()
        self.wait_for_events(events, "one", "down")
        self.assertGreaterEqual(time.monotonic() - stopped, 2.0)
        member = self.api.member("compute", "one")
        self.assertRegex(member.reason, r"last report .* allowed are \d")
        self.assertGreater(member.age, 3.0)
        self.assertFalse(self.is_up("one"))

        self.join("one")
        self.wait_for_events(events, "one", "down", "up")
        self.assertEqual([], self.kinds(events, "other"))

    def test_force_down_and_unset(self):
        self.join("one")
        events = self.collect(self.api)
        self.api.force_down("one", "compute")
        self.assertFalse(self.is_up("one"))
        member = self.api.member("compute", "one")
        self.assertTrue(member.forced_down)
        self.assertEqual("forced down by an operator", member.reason)
        self.wait_for_events(events, "one", "down")
        # It goes on to report, and stays down.
        age = member.age
        wait_for(
            lambda: (
                self.api.member("compute", "one").last_seen > member.last_seen
            ),
            30,
        )
        self.assertFalse(self.is_up("one"), age)

        self.api.force_down("one", "compute", forced=False)
        self.assertTrue(self.is_up("one"))
        self.wait_for_events(events, "one", "down", "up")

        with self.assertRaisesRegex(exception.MemberNotFound, "no-such-host"):
            self.api.force_down("no-such-host", "compute")
        with self.assertRaisesRegex(exception.MemberNotFound, "volume"):
            self.api.force_down("one", "volume")

    def test_forget(self):
        self.join("one")
        self.join("other")
        with self.assertRaisesRegex(exception.MemberIsUp, "one"):
            self.api.forget("one", "compute")
        # It is forced down and still reports, so its record is needed.
        self.api.force_down("one", "compute")
        with self.assertRaisesRegex(exception.MemberIsUp, "one"):
            self.api.forget("one", "compute")
        self.api.force_down("one", "compute", forced=False)

        events = self.collect(self.api)
        self.api.leave("one", "compute")
        self.api.forget("one", "compute")
        hosts = [m.host for m in self.api.members("compute")]
        self.assertEqual(["other"], hosts)
        self.assertFalse(self.is_up("one"))
        with self.assertRaises(exception.MemberNotFound):
            self.api.member("compute", "one")
        with self.assertRaises(exception.MemberNotFound):
            self.api.forget("one", "compute")
        wait_for(lambda: self.kinds(events, "one")[-1:] == ["left"])

        # The record is deleted as Nova deletes it. Its name is free again.
        self.join("one")
        self.assertEqual(["one", "other"], self.api.get_all("compute"))
        self.wait_for_report("one", 2)

    def test_groups_are_apart(self):
        self.join("one")
        self.join("one", group="scheduler")
        self.join("two", group="scheduler")
        self.assertEqual(["compute", "scheduler"], self.api.groups())
        self.assertEqual(["one"], self.api.get_all("compute"))
        self.assertEqual(["one", "two"], self.api.get_all("scheduler"))
        self.assertEqual([], self.api.get_all("network"))
        self.api.leave("one", "scheduler")
        self.assertEqual(["one"], self.api.get_all("compute"))
        self.assertEqual(["two"], self.api.get_all("scheduler"))

    # -- malformed records

    def add_malformed_records(self):
        """Add malformed records; return the expected states, by host."""
        raise NotImplementedError

    def test_malformed_records_do_not_hide_other_members(self):
        self.join("one")
        expected = self.add_malformed_records()
        expected["one"] = "up"
        for _ in range(3):
            self.api.refresh("compute")
        members = {m.host: m for m in self.api.members("compute")}
        self.assertEqual(
            expected, {host: m.state for host, m in members.items()}
        )
        for host in expected:
            self.assertIs(expected[host] == "up", self.is_up(host))
        self.assertIn("compute", self.api.groups())
        # One warning for each record, however often it is read.
        warnings = self.logs.matching("services table record of", 30)
        unreadable = [host for host in expected if host.startswith("bad")]
        for host in unreadable:
            about = [text for text in warnings if f"of {host} has" in text]
            self.assertEqual(1, len(about), warnings)
        nameless = [text for text in warnings if "host's name" in text]
        self.assertEqual(self.NAMELESS, len(nameless), warnings)
        self.assertEqual(len(unreadable) + self.NAMELESS, len(warnings))

    def add(self, host, **values):
        """Add a record; None is NULL, and text after "=" is SQL."""
        values = {
            "host": host,
            "topic": "compute",
            "binary": "nova-compute",
            "report_count": 1,
            "deleted": 0,
            "last_seen_up": self.NOW,
            "created_at": self.NOW,
            **values,
        }
        names = ", ".join(f"`{name}`" for name in values)
        marks = ", ".join(
            value[1:] if str(value).startswith("=") else self.MARK
            for value in values.values()
        )
        self.sql(
            f"INSERT INTO services ({names}) VALUES ({marks})",
            *(v for v in values.values() if not str(v).startswith("=")),
        )

    def add_nulls(self):
        nothing = {"last_seen_up": None, "created_at": None}
        self.add("null-both", **nothing)
        self.add("null-seen", last_seen_up=None, report_count=0)
        self.add("null-created", created_at=None)
        self.add("null-binary", binary=None)
        self.add("null-flags", disabled=None, forced_down=None, version=None)
        self.add("no-member", deleted=None)
        self.add("no-group", topic=None)
        self.add(None)
        return {
            "null-both": "down",
            "null-seen": "up",
            "null-created": "up",
            "null-binary": "up",
            "null-flags": "up",
        }


class MariaDBMembersTest(MembersMixin, db.MariaDBTestCase):
    NOW = "=UTC_TIMESTAMP(6)"
    MARK = "%s"
    NAMELESS = 1

    def add_malformed_records(self):
        expected = self.add_nulls()
        # Old servers accept any value.
        self.server.execute("SET GLOBAL sql_mode = ''")
        self.addCleanup(self.server.execute, "SET GLOBAL sql_mode = DEFAULT")
        zero = "0000-00-00 00:00:00"
        self.add("bad-zero-seen", last_seen_up=zero)
        self.add("bad-zero-both", last_seen_up=zero, created_at=zero)
        self.add("bad-day", last_seen_up="2026-00-31 12:00:00")
        # Disabled, as otherwise it is too old to be listed.
        self.add("early", last_seen_up="1000-01-01 00:00:00", disabled=True)
        late = "9999-12-31 23:59:59.999999"
        self.add("late", last_seen_up=late)
        self.add("late-both", last_seen_up=late, created_at=late)
        self.add("late-new", last_seen_up=None, created_at=late)
        self.add("flags", forced_down=2, disabled=-1)
        stored = self.value("last_seen_up", "bad-zero-seen")
        self.assertTrue(str(stored).startswith(zero), stored)
        return expected | {
            # It is judged by its registration.
            "bad-zero-seen": "up",
            "bad-zero-both": "down",
            "bad-day": "up",
            "early": "down",
            "late": "up",
            "late-both": "down",
            "late-new": "down",
            "flags": "down",
        }


class SQLiteMembersTest(MembersMixin, db.TestCase):
    NOW = "=strftime('%Y-%m-%d %H:%M:%f', 'now')"
    MARK = "?"
    NAMELESS = 2

    def sql(self, statement, *parameters):
        path = os.path.join(self.folder, "nova-sg.sqlite")
        link = sqlite3.connect(path, timeout=30)
        try:
            with link:
                return link.execute(statement, parameters).fetchall()
        finally:
            link.close()

    def wait_for_report(self, host, more):
        seen = set()
        wait_for(
            lambda: (
                seen.add(self.api.member("compute", host).last_seen)
                or len(seen) > more
            ),
            30,
        )

    def add_malformed_records(self):
        # SQLite keeps any value in any column.
        expected = self.add_nulls()
        self.add("bad-text", last_seen_up="yesterday, about noon")
        self.add("bad-both", last_seen_up="", created_at="never")
        self.add("bad-number", last_seen_up=1234567890)
        self.add("bad-float", last_seen_up=0.5)
        self.add("bad-bytes", last_seen_up=b"\xff\x00")
        self.add("bad-edge", last_seen_up="0001-01-01T00:00:00+14:00")
        # Disabled, as otherwise it is too old to be listed.
        self.add("early", last_seen_up="0001-01-01 00:00:00", disabled=True)
        self.add("late", last_seen_up="9999-12-31 23:59:59.999999")
        self.add("flags", forced_down="perhaps", disabled="", version="new")
        self.add("count", report_count="many")
        self.add(b"\xff\xfe")
        return expected | {
            "bad-text": "up",
            "bad-both": "down",
            "bad-number": "up",
            "bad-float": "up",
            "bad-bytes": "up",
            "bad-edge": "up",
            "early": "down",
            "late": "up",
            "flags": "down",
            "count": "up",
        }
