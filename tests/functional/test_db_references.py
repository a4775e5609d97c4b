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

"""service_is_up() with a services record of the asker makes no query.

The configured database does not exist, so that a query is an error.
"""

import datetime
import time
from unittest import mock

from oslo_utils import timeutils

from nova_sg import exception, servicegroup
from nova_sg.servicegroup import process
from tests import base, single_mode
from tests.fixtures.process import free_port

NOW = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456)
DOWN_TIME = 15


def ago(seconds):
    return NOW - datetime.timedelta(seconds=seconds)


class NovaLike:
    """A record like Nova's Service object: an unset field is an error."""

    FIELDS = {
        "host",
        "topic",
        "binary",
        "created_at",
        "updated_at",
        "last_seen_up",
        "report_count",
        "forced_down",
    }

    def __init__(self, **values):
        self._values = values

    def __getitem__(self, name):
        return self._values[name]

    def get(self, name, *default):
        if name not in self.FIELDS:
            raise AttributeError(name)
        if name not in self._values and default:
            return default[0]
        return self._values[name]


class RecordTestCase(base.TestCase):
    """Tests without a database."""

    def setUp(self):
        super().setUp()
        self.flags(service_down_time=DOWN_TIME, report_interval=1)
        self.flags(
            "database",
            connection=f"mysql+pymysql://none@127.0.0.1:{free_port()}/no",
        )


@single_mode
class ReferenceTest(RecordTestCase):
    def setUp(self):
        super().setUp()
        self.api = servicegroup.API()
        self.enterContext(mock.patch.object(timeutils, "utcnow", self.utcnow))

    @staticmethod
    def utcnow(with_timezone=False):
        return NOW.replace(tzinfo=datetime.UTC) if with_timezone else NOW

    def is_up(self, **values):
        """Return whether it is up; check that all kinds of records agree."""
        record = {"host": "one", "topic": "compute", **values}
        verdict = self.api.service_is_up(record)
        nova_like = NovaLike(**{"forced_down": False, **record})
        self.assertIs(verdict, self.api.service_is_up(nova_like))
        self.assertEqual([], self.logs.matching("", 30), "a query failed")
        return verdict

    def test_a_query_is_an_error(self):
        # Otherwise the other tests would prove nothing.
        with self.assertRaises(exception.ServiceGroupUnavailable):
            self.api.service_is_up({"host": "one", "topic": "compute"})

    def test_a_question_makes_no_connection(self):
        with mock.patch("sqlalchemy.create_engine") as create_engine:
            self.assertTrue(self.is_up(last_seen_up=NOW))
            create_engine.assert_not_called()
            # A connection would have come from here.
            with self.assertRaises(Exception):  # noqa: B017
                process.shared().driver.observe("compute")
            create_engine.assert_called()

    def test_up_for_service_down_time_after_the_last_report(self):
        for age, up in (
            (0, True),
            (DOWN_TIME - 0.000001, True),
            (DOWN_TIME, True),
            (DOWN_TIME + 0.000001, False),
            (DOWN_TIME + 1, False),
            (86400, False),
            # A moment in the future counts as far from now as one before.
            (-1, True),
            (-DOWN_TIME, True),
            (-DOWN_TIME - 0.000001, False),
            (-86400, False),
        ):
            with self.subTest(age=age):
                self.assertIs(up, self.is_up(last_seen_up=ago(age)))

    def test_a_moment_may_be_text_or_a_datetime(self):
        berlin = datetime.timezone(datetime.timedelta(hours=1))
        for age, up in ((DOWN_TIME, True), (DOWN_TIME + 1, False)):
            moment = ago(age)
            utc = moment.replace(tzinfo=datetime.UTC)
            for spelling in (
                moment,
                utc,
                utc.astimezone(berlin),
                moment.isoformat(),
                moment.isoformat(" "),
                utc.isoformat(),
                utc.isoformat().replace("+00:00", "Z"),
                utc.astimezone(berlin).isoformat(),
            ):
                with self.subTest(spelling=spelling):
                    self.assertIs(up, self.is_up(last_seen_up=spelling))

    def test_a_record_without_a_report_counts_from_its_creation(self):
        for age, up in ((0, True), (DOWN_TIME, True), (DOWN_TIME + 1, False)):
            with self.subTest(age=age):
                created = ago(age)
                self.assertIs(
                    up, self.is_up(last_seen_up=None, created_at=created)
                )
                self.assertIs(up, self.is_up(created_at=created))

    def test_a_report_counts_instead_of_the_creation(self):
        self.assertTrue(self.is_up(created_at=ago(86400), last_seen_up=ago(1)))
        self.assertFalse(
            self.is_up(created_at=ago(1), last_seen_up=ago(86400))
        )

    def test_updated_at_is_no_report(self):
        # It also changes when an operator disables a dead service.
        self.assertFalse(
            self.is_up(updated_at=NOW, last_seen_up=ago(DOWN_TIME + 1))
        )

    def test_forced_down_wins(self):
        self.assertFalse(self.is_up(last_seen_up=NOW, forced_down=True))
        self.assertTrue(self.is_up(last_seen_up=NOW, forced_down=False))
        self.assertTrue(self.is_up(last_seen_up=NOW, forced_down=None))

    def test_a_member_that_left_is_down(self):
        self.assertFalse(self.is_up(last_seen_up=NOW, report_count=0))
        self.assertTrue(self.is_up(last_seen_up=NOW, report_count=1))
        # A new record, which has not reported yet, has the same number.
        self.assertTrue(
            self.is_up(last_seen_up=None, created_at=NOW, report_count=0)
        )

    def test_updated_time_is_the_records_own(self):
        for updated in (NOW, "2026-03-01T12:00:00.000000", None):
            record = {"host": "one", "topic": "compute"}
            record |= {"updated_at": updated, "last_seen_up": NOW}
            self.assertEqual(updated, self.api.get_updated_time(record))
        self.assertEqual([], self.logs.matching("", 30), "a query failed")


@single_mode
class WallClockTest(RecordTestCase):
    """Records that are judged by the host's clock, without a database."""

    def setUp(self):
        super().setUp()
        self.right = time.time
        self.step = 0.0
        self.enterContext(
            mock.patch.object(time, "time", lambda: self.right() + self.step)
        )
        self.enterContext(mock.patch.object(timeutils, "utcnow", self.utcnow))
        self.api = servicegroup.API()
        process.shared()

    def utcnow(self, with_timezone=False):
        now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
        return now if with_timezone else now.replace(tzinfo=None)

    def is_up(self, age, clock=0.0):
        """Judge a record that was written age seconds ago.

        :param clock: by how many seconds the writer's clock was wrong
        """
        seen = datetime.datetime.fromtimestamp(
            self.right() + clock - age, datetime.UTC
        )
        record = {"host": "one", "topic": "compute"}
        return self.api.service_is_up(
            {**record, "last_seen_up": seen.replace(tzinfo=None)}
        )

    def test_a_step_of_the_clock_changes_no_verdict(self):
        for self.step in (0.0, 3600.0, -3600.0, 0.0, 86400.0):
            with self.subTest(step=self.step):
                self.assertTrue(self.is_up(0.5))
                self.assertTrue(self.is_up(DOWN_TIME - 1))
                self.assertFalse(self.is_up(DOWN_TIME + 1))
                self.assertFalse(self.is_up(3600 + DOWN_TIME + 1))

    def test_a_clock_that_was_slow_and_is_set_changes_no_verdict(self):
        # The process began with a clock an hour behind.
        process.shared().driver._records.wall._right -= 3600
        self.assertTrue(self.is_up(0.5))
        self.assertFalse(self.is_up(3600 + DOWN_TIME + 1))

    def test_a_set_clock_is_trusted_after_a_while(self):
        self.step = 3600.0
        self.assertTrue(self.is_up(0.5))
        process.shared().driver._records.wall._set -= 3600
        self.assertFalse(self.is_up(0.5))
        self.assertTrue(self.is_up(0.5, clock=3600.0))
