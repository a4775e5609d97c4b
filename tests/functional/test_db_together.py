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

"""A refresh reads a whole group as one text, and falls back to its rows."""

from unittest import mock

from nova_sg.backends.db import driver, engine, queries
from nova_sg.servicegroup import process
from tests.functional import db


class TogetherTest(db.MariaDBTestCase):
    HOSTS = ("one", "two", "three")

    def setUp(self):
        super().setUp()
        self.statements = self.count_statements()

    def add(self, host, **values):
        values = {
            "host": host,
            "topic": "compute",
            "binary": "nova-compute",
            "report_count": 7,
            "deleted": 0,
            "disabled": 0,
            "forced_down": 0,
            **values,
        }
        names = ", ".join(f"`{name}`" for name in values)
        self.sql(
            f"INSERT INTO services ({names}, last_seen_up, created_at) "
            f"VALUES ({', '.join(['%s'] * len(values))}, "
            "UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
            *values.values(),
        )

    def refresh(self):
        """Refresh; return what is known, and how the table was read."""
        del self.statements[:]
        found = process.shared().driver.observe("compute")
        ways = [
            "text" if "GROUP_CONCAT" in one else "rows"
            for one in self.statements
            if "FROM services" in one
        ]
        return {one.host: one for one in found.observations}, ways

    def test_one_text(self):
        self.assertEqual(({}, ["text"]), self.refresh())
        for host in self.HOSTS:
            self.add(host, disabled_reason="wegen Müdigkeit, 'x' \\ 中")
        known, ways = self.refresh()
        self.assertEqual((set(self.HOSTS), ["text"]), (set(known), ways))
        again, _ = self.refresh()
        for host in self.HOSTS:
            self.assertIs(known[host], again[host])
        self.sql("UPDATE services SET report_count = 8 WHERE host = 'two'")
        self.sql("UPDATE services SET forced_down = 1 WHERE host = 'three'")
        again, _ = self.refresh()
        self.assertEqual(8, again["two"].report_number[1])
        self.assertTrue(again["three"].attributes.forced_down)
        self.assertIs(known["one"], again["one"])
        self.sql("DELETE FROM services WHERE host = 'one'")
        self.add("four")
        again, _ = self.refresh()
        self.assertEqual({"two", "three", "four"}, set(again))

    def check_rows(self):
        known, ways = self.refresh()
        self.assertEqual(set(self.HOSTS), set(known))
        self.assertEqual(["text", "rows"], ways)
        # For a while the text is not tried again.
        known, ways = self.refresh()
        self.assertEqual((set(self.HOSTS), ["rows"]), (set(known), ways))
        return known

    def test_a_value_with_a_separator(self):
        for host in self.HOSTS:
            self.add(host)
        reason = f"a{queries.VALUE_END}b{queries.RECORD_END}"
        self.sql(
            "UPDATE services SET disabled_reason = %s WHERE host = 'two'",
            reason,
        )
        known = self.check_rows()
        self.assertEqual(reason, known["two"].attributes.disabled_reason)
        self.sql("UPDATE services SET disabled_reason = NULL")
        with mock.patch.object(driver, "BY_ROWS", -1.0):
            process.shared().driver._by_rows_until.clear()
            self.assertEqual(["text"], self.refresh()[1])

    def test_a_server_that_cuts_texts_off(self):
        """As with a small max_allowed_packet, or a proxy between."""
        for host in self.HOSTS:
            self.add(host)
        self.server.execute("SET GLOBAL group_concat_max_len = 100")
        self.addCleanup(
            self.server.execute, "SET GLOBAL group_concat_max_len = DEFAULT"
        )
        process.shared().driver._database.connect_anew()
        with mock.patch.object(engine, "LONGEST_TEXT", 4):
            self.check_rows()

    def test_character_sets_that_cannot_be_mixed(self):
        self.sql(
            "ALTER TABLE services "
            "MODIFY topic VARCHAR(255) CHARACTER SET utf8mb3 "
            "COLLATE utf8mb3_unicode_ci, "
            "MODIFY `binary` VARCHAR(255) CHARACTER SET latin1 "
            "COLLATE latin1_german2_ci, "
            "MODIFY disabled_reason VARCHAR(255) CHARACTER SET utf8mb4 "
            "COLLATE utf8mb4_swedish_ci"
        )
        for host in self.HOSTS:
            self.add(host, binary="nova-ä", disabled_reason="中")
        known, ways = self.refresh()
        self.assertEqual((set(self.HOSTS), ["text"]), (set(known), ways))
        said = known["one"].attributes
        self.assertEqual(
            ("nova-ä", "中"), (said.binary, said.disabled_reason)
        )
