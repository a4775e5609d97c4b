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

"""Only the database's clock stamps reports and measures their age."""

import datetime
import time
from unittest import mock

import sqlalchemy as sa
from oslo_utils import timeutils

from nova_sg.servicegroup import process
from tests.base import wait_for
from tests.functional import db

DAY = 86400.0
RIGHT = time.time


class ClockTest(db.MariaDBTestCase):
    def set_wall_clock(self, step):
        """Set this process's wall clock so many seconds off."""

        def wrong():
            return RIGHT() + step

        def wrong_utcnow(with_timezone=False):
            now = datetime.datetime.fromtimestamp(wrong(), datetime.UTC)
            return now if with_timezone else now.replace(tzinfo=None)

        self.enterContext(mock.patch.object(time, "time", wrong))
        self.enterContext(mock.patch.object(timeutils, "utcnow", wrong_utcnow))

    def set_database_clock(self, step):
        """Set the database's clock so many seconds off.

        A server has its machine's clock. Only the clock of a session can be
        set, and it stands still then. So it is set before every statement.
        """
        if hasattr(self, "step"):
            self.step = step
            return
        self.step = step

        def set_session_clock(connection, cursor, *more):
            cursor.execute(f"SET timestamp = {RIGHT() + self.step:.6f}")

        sa.event.listen(
            process.shared().driver._database.engine,
            "before_cursor_execute",
            set_session_clock,
        )

    def assert_stamped_now(self, host):
        """Check that the last report has a stamp of the right time."""
        age = self.value(
            "TIMESTAMPDIFF(MICROSECOND, last_seen_up, UTC_TIMESTAMP(6)) / 1e6",
            host,
        )
        # Its own estimate of the server's clock is not exact.
        self.assertGreater(age, -1)
        self.assertLess(age, self.DOWN_TIME)

    def assert_sane(self, host):
        member = self.api.member("compute", host)
        self.assertEqual("up", member.state)
        self.assertLess(member.age, self.DOWN_TIME)
        self.assertTrue(self.is_up(host))

    def test_stamps_have_microseconds(self):
        precisions = self.sql(
            "SELECT column_name, datetime_precision "
            "FROM information_schema.columns WHERE table_schema = %s "
            "AND table_name = 'services' AND data_type = 'datetime'",
            self.name,
        )
        self.assertEqual(
            {
                "created_at": 6,
                "updated_at": 6,
                "deleted_at": 6,
                "last_seen_up": 6,
            },
            dict(precisions),
        )
        self.join("one", interval=0.05)
        moments = set()
        wait_for(
            lambda: (
                moments.add(self.value("last_seen_up", "one"))
                or len(moments) >= 5
            ),
            30,
        )
        # That all of them are whole seconds by chance happens once in
        # 10 ** 30 runs.
        self.assertTrue(any(moment.microsecond for moment in moments))
        seen = self.api.member("compute", "one").last_seen
        self.assertEqual(datetime.UTC, seen.tzinfo)

    def test_a_wrong_wall_clock_changes_nothing(self):
        for step in (-DAY, DAY):
            with self.subTest(step=step):
                host = f"host{step:+.0f}"
                self.set_wall_clock(step)
                self.join(host)
                self.wait_for_report(host, 2)
                self.assert_stamped_now(host)
                self.assert_sane(host)

    def test_a_step_of_the_wall_clock_changes_nothing(self):
        self.join("one")
        events = self.collect(self.api)
        seen = self.value("last_seen_up", "one")
        for step in (DAY, -DAY):
            self.set_wall_clock(step)
            self.wait_for_report("one", 3)
            self.assert_stamped_now("one")
            self.assert_sane("one")
            # The scheduler asks so: with a record, and without a query.
            seen, created = self.sql(
                "SELECT last_seen_up, created_at FROM services"
            )[0]
            record = {"host": "one", "topic": "compute", "report_count": 1}
            record |= {"last_seen_up": seen, "created_at": created}
            self.assertTrue(self.api.service_is_up(record))
        self.assertEqual([], events)

    def test_a_wrong_clock_of_the_database_changes_no_verdict(self):
        for step in (-DAY, DAY):
            with self.subTest(step=step):
                host = f"host{step:+.0f}"
                self.set_database_clock(step)
                self.join(host)
                self.wait_for_report(host, 2)
                self.api.refresh("compute")
                self.assert_sane(host)
                # The date that is shown is the database's.
                off = self.api.member(
                    "compute", host
                ).last_seen - datetime.datetime.now(datetime.UTC)
                self.assertAlmostEqual(step, off.total_seconds(), delta=60)

    def test_a_step_of_the_databases_clock_changes_no_verdict(self):
        self.set_database_clock(0)
        self.join("one")
        dead = self.join("dead")
        self.wait_for_report("dead")
        self.assertEqual(["dead", "one"], self.api.get_all("compute"))
        events = self.collect(self.api)
        for step in (3600, -3600, 30 * DAY, 0):
            self.set_database_clock(step)
            self.wait_for_report("one", 5)
            self.assert_sane("one")
        self.assertEqual([], events)

        # And no dead member stays up because of it.
        dead.report_interval = 0
        process.shared().reporter._by_service[id(dead)].stop()
        self.flags(service_down_time=4.0)
        self.wait_for_state("down", "dead")
        for step in (3600, 0):
            self.set_database_clock(step)
            self.wait_for_report("one", 5)
            self.assertEqual("down", self.state("dead"))
            self.assert_sane("one")
        self.assertEqual(
            [("down", "dead")], [(e.type, e.host) for e in events]
        )

    def test_after_a_step_the_database_is_asked_for_the_time(self):
        driver = process.shared().driver
        record = {
            "host": "one",
            "topic": "compute",
            "last_seen_up": timeutils.utcnow(),
        }
        self.assertTrue(self.api.service_is_up(record))
        self.assertFalse(driver._records.clock.synced)
        self.set_wall_clock(3600.0)
        self.assertTrue(self.api.service_is_up(record))
        wait_for(lambda: driver._records.clock.synced, 30, "the clock is read")
        self.assertTrue(self.api.service_is_up(record))
