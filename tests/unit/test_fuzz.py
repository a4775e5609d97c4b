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

"""Any input from outside is read, or refused with a clear error."""

import argparse
import collections
import configparser
import contextlib
import datetime
import importlib
import io
import logging
import pathlib
import tempfile
import unittest

from hypothesis import example, given
from hypothesis import strategies as st

from nova_sg import config, exception
from nova_sg.backends import base as drivers
from nova_sg.backends.db import records as db_records
from nova_sg.backends.zookeeper import names as znodes
from nova_sg.cmd import shell
from nova_sg.conf import CONF
from nova_sg.liveness import detector as detectors
from nova_sg.liveness import explain, group, model
from nova_sg.servicegroup import service_records

ROOT = pathlib.Path(__file__).parents[2]

# Any name of a znode, and names that are nearly those of a member.
ZNODES = st.one_of(
    st.text(),
    st.text("ab@%2EFf0.-/ \n\0é", max_size=20),
    st.builds(
        "{}@{}".format, st.text("a%2E.", max_size=8), st.text("0f@left")
    ),
)
HOSTS = st.text(min_size=1).filter(
    lambda name: name.isprintable() and "\ud800" not in name
)


def read(reader, name):
    """Return what a reader reads from a name; None: it refuses the name."""
    try:
        return reader(name)
    except ValueError:
        return None


class ZnodesTest(unittest.TestCase):
    @given(ZNODES)
    @example("@")
    @example("%@0")
    @example("a@b@left")
    @example("a@b@unwell")
    @example("a@b@domain@c")
    @example("a@b@domain@c/d")
    def test_any_name_of_a_znode_is_read_or_refused(self, name):
        host = read(znodes.read_member, name)
        if host is not None:
            # Each host has one name only.
            self.assertEqual(znodes.quote(host), name.rpartition("@")[0])
        entry = read(znodes.read_entry, name)
        if entry is not None:
            self.assertTrue(entry.host and entry.binary)
            self.assertTrue(znodes.is_of(name, entry.host))
        unquoted = read(znodes.unquote, name)
        if unquoted is not None:
            self.assertEqual(name, znodes.quote(unquoted))
        if host is not None and "/" not in name:
            self.assertTrue(znodes.is_of(name, host))

    @given(
        HOSTS,
        HOSTS,
        HOSTS,
        st.sampled_from(["", znodes.LEFT, znodes.CRASHED]),
        st.integers(0, 2**64 - 1),
    )
    def test_names_are_read_as_they_were_written(
        self, host, binary, text, kind, session
    ):
        name = znodes.member_name(host, session)
        self.assertNotIn("/", name)
        self.assertFalse(name.startswith("."))
        self.assertEqual(host, znodes.read_member(name))
        path = znodes.entry_path("group", host, binary, kind)
        self.assertEqual(
            (host, binary, kind, ""),
            znodes.read_entry(path.rpartition("/")[2]),
        )
        # What a member says of itself: any text, and found again.
        for said in (znodes.UNWELL, znodes.DOMAIN):
            end = znodes.said(said, text)
            path = znodes.entry_path("group", host, binary)
            self.assertEqual(
                (host, binary, said, text),
                znodes.read_entry(f"{path}@{end}".rpartition("/")[2]),
            )
            self.assertEqual([end, end], znodes.read_said(f"{end} x {end}"))


MOMENTS = st.one_of(
    st.none(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.text(max_size=30),
    st.datetimes().map(str),
    st.integers(),
    st.binary(max_size=10),
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=10)
)


LIMITS = model.Limits(60.0, 10.0)


class Quiet(unittest.TestCase):
    """Tests without the log: its warnings are not tested here."""

    def setUp(self):
        super().setUp()
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)


#: A row, with its columns in the order of db.queries.observe().
Row = collections.namedtuple(
    "Row",
    "now id host topic binary report_count last_seen_up created_at "
    "forced_down disabled disabled_reason",
)


class RowsTest(Quiet):
    def setUp(self):
        super().setUp()
        # Only the reader of rows: there is no database.
        self.reader = db_records.Reader()
        self.reader.clock.sample(0.0, 0.001, 1e9)

    @given(
        st.builds(
            Row,
            now=st.just(datetime.datetime(2026, 1, 1)),
            id=st.integers(),
            host=st.one_of(VALUES, st.binary(max_size=5)),
            topic=VALUES,
            binary=VALUES,
            report_count=VALUES,
            last_seen_up=MOMENTS,
            created_at=MOMENTS,
            forced_down=VALUES,
            disabled=VALUES,
            disabled_reason=VALUES,
        )
    )
    def test_any_row_is_read_or_refused(self, row):
        if not self.reader.named(row):
            self.assertNotIsInstance(row.host, str)
            return
        observation = self.reader.observation(100.0, row)
        self.assertEqual(row.host, observation.host)
        refresh = model.Refresh("db", 100.0, [observation])
        drivers.check_refresh(refresh)
        known, _ = detectors.step(group.new("db"), refresh, LIMITS)
        verdict = known.verdict(row.host, 100.0, 60.0)
        self.assertIn(verdict.state, ("up", "down"))
        self.assertTrue(
            explain.explain(known, row.host, verdict, 100.0, LIMITS)
        )

    @given(
        st.dictionaries(
            st.sampled_from(
                ["last_seen_up", "created_at", "report_count", "updated_at"]
            ),
            st.one_of(MOMENTS, VALUES),
        )
    )
    def test_any_record_of_nova_is_read_or_refused(self, record):
        record = {"host": "h", "topic": "t"} | record
        reference = self.reader.read(record)
        if reference is not None:
            judge = service_records.ServiceRecords()
            for now in (100.0, 101.0):
                verdict = judge.judge(("t", "h"), reference, now, LIMITS)
                self.assertIn(verdict.state, ("up", "down"))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.none(), max_size=2),
    st.tuples(st.floats(), st.floats()),
    st.datetimes(),
)


@st.composite
def mostly(draw, good, rate=12):
    """Draw a right value, and now and then anything else."""
    return draw(JUNK if draw(st.integers(1, rate)) == 1 else good)


SECONDS = st.none() | st.floats(-1000, 1000)
SAID = mostly(
    st.builds(
        model.Attributes,
        topic=st.just("t"),
        binary=st.just("b"),
        disabled_reason=st.none(),
        present=st.just(False),
        outage=mostly(st.none() | st.tuples(st.floats(), st.floats())),
    )
)
OBSERVED = mostly(
    st.builds(
        model.Observation,
        host=mostly(st.sampled_from("abc")),
        report_number=st.none() | st.integers(0, 3),
        reported=mostly(SECONDS),
        registered=mostly(SECONDS),
        last_seen=mostly(st.none() | st.datetimes()),
        attributes=SAID,
    )
)
REFRESHES = mostly(
    st.builds(
        model.Refresh,
        backend=st.just("fake"),
        asked=mostly(st.floats(0, 1000)),
        observations=mostly(st.lists(OBSERVED, max_size=3)),
        answered=st.none(),
        rejoin=mostly(st.floats(0, 10)),
        changes=mostly(st.none()),
    )
)


class Answering(drivers.Driver):
    """A driver whose observe() returns anything."""

    name = "fake"
    answer = None

    def observe(self, group):
        return self.answer


# No other method of the driver is used.
Answering.__abstractmethods__ = frozenset()


class RefreshTest(unittest.TestCase):
    @given(REFRESHES)
    def test_any_answer_of_a_driver_is_used_or_refused(self, answer):
        """It is refused as a whole."""
        driver = Answering()
        driver.answer = answer
        try:
            refresh = driver.observe("compute")
        except exception.BackendError as error:
            self.assertIn("the driver fake", str(error))
            with self.assertRaises((TypeError, ValueError)):
                drivers.check_refresh(answer)
            return
        self.assertIs(answer, refresh)
        self.assertIs(answer, drivers.check_refresh(answer))
        for one in refresh.observations:
            self.assertIsInstance(one.host, str)
            self.assertIsInstance(one.attributes, model.Attributes)
        known, _ = detectors.step(group.new("fake"), refresh, LIMITS)
        self.assertEqual(
            {one.host for one in refresh.observations}, set(known.members)
        )

    def test_wrong_answers_of_a_driver_are_refused(self):
        plain = model.Observation("h")
        for answer in (
            None,
            [],
            [plain],
            model.Refresh("fake", None, []),
            model.Refresh("fake", float("nan"), []),
            model.Refresh("fake", 1.0, None),
            model.Refresh("fake", 1.0, (plain,)),
            model.Refresh("fake", 1.0, [None]),
            model.Refresh("fake", 1.0, [tuple(plain)]),
            model.Refresh("fake", 1.0, [], rejoin=None),
            model.Refresh("fake", 1.0, [], changes=[]),
            model.Refresh(
                "fake", 1.0, [], changes=model.Changes(1, 2, [None], [])
            ),
            model.Refresh(
                "fake", 1.0, [], changes=model.Changes(1, 2, [], [None])
            ),
            model.Refresh(
                "fake",
                1.0,
                [],
                complete=False,
                changes=model.Changes(1, 2, [], []),
            ),
            model.Refresh("fake", 1.0, [plain._replace(host=None)]),
            model.Refresh("fake", 1.0, [plain, plain._replace(host=b"h")]),
            model.Refresh("fake", 1.0, [plain._replace(reported="1")]),
            model.Refresh("fake", 1.0, [plain._replace(reported=LIMITS)]),
            model.Refresh(
                "fake", 1.0, [plain._replace(registered=float("nan"))]
            ),
            model.Refresh("fake", 1.0, [plain._replace(last_seen=1.0)]),
            model.Refresh("fake", 1.0, [plain._replace(attributes=None)]),
            model.Refresh(
                "fake",
                1.0,
                [plain._replace(attributes=model.Attributes(outage=1.0))],
            ),
        ):
            with (
                self.subTest(answer),
                self.assertRaises((TypeError, ValueError)),
            ):
                drivers.check_refresh(answer)


OPTIONS = st.sampled_from(
    [
        "servicegroup_driver",
        "secondary_drivers",
        "report_interval",
        "service_down_time",
        "memcached_servers",
        "state_path",
        "connection",
        "address",
        "recv_timeout",
        "host",
        "config_source",
    ]
)
LINES = st.one_of(
    st.sampled_from(
        ["[DEFAULT]", "[servicegroup]", "[database]", "[zookeeper]"]
    ),
    st.builds("{} = {}".format, OPTIONS, st.text(max_size=12)),
    st.builds(
        "{} = {}".format,
        OPTIONS,
        st.sampled_from(["$host", "$$", "$state_path/x", "-1", "nan", "inf"]),
    ),
    st.text(max_size=20),
)


class ConfigurationTest(Quiet):
    def setUp(self):
        super().setUp()
        self.addCleanup(CONF.reset)
        self.path = tempfile.NamedTemporaryFile("wb", suffix=".conf")
        self.addCleanup(self.path.close)

    def parse(self, data):
        self.path.seek(0)
        self.path.truncate()
        self.path.write(data)
        self.path.flush()
        CONF.reset()
        try:
            config.parse(["--config-file", self.path.name], "nova-sg")
        except exception.ConfigError as error:
            self.assertTrue(str(error))

    @given(st.lists(LINES, max_size=8))
    def test_any_lines_of_options_are_read_or_refused(self, lines):
        text = "\n".join(["[DEFAULT]", *lines])
        self.parse(text.encode("utf-8", "surrogatepass"))

    @given(st.binary(max_size=200))
    def test_any_file_is_read_or_refused(self, data):
        self.parse(data)


def commands():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    points = setup["entry_points"]["nova_sg.cli"].strip().splitlines()
    for line in points:
        name, _, where = line.partition(" = ")
        module, _, attribute = where.partition(":")
        yield (
            name.replace("_", " "),
            getattr(importlib.import_module(module), attribute),
        )


WORDS = st.one_of(
    st.sampled_from(
        [
            *("--group", "--all", "--for", "up", "down", "--timeout", "-1"),
            *("5", "nan", "-f", "json", "table", "-c", "Host", "--unset"),
            *("--sort-column", "--max-width", "--", "-", "--config-file"),
        ]
    ),
    st.text(max_size=10),
)


class CommandLineTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.shell = shell.Shell()
        self.parsers = {
            name: command(self.shell, None).get_parser(name)
            for name, command in commands()
        }

    @given(st.data(), st.lists(WORDS, max_size=6))
    def test_any_arguments_of_a_command_are_read_or_refused(self, data, words):
        name = data.draw(st.sampled_from(sorted(self.parsers)))
        parser = self.parsers[name]
        heard = io.StringIO()
        with (
            contextlib.redirect_stdout(heard),
            contextlib.redirect_stderr(heard),
        ):
            try:
                parsed = parser.parse_args(words)
            except SystemExit as end:
                # It has printed its help, or an error.
                self.assertIn(end.code, (0, 2))
                self.assertIn("usage", heard.getvalue())
            else:
                self.assertIsInstance(parsed, argparse.Namespace)
