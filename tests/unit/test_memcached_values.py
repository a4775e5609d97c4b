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

"""Keys and values of memcached: only what is written can be read."""

import pickle
import re
import unittest

import hypothesis
from hypothesis import strategies as st

from nova_sg.backends.memcached import values

# Any Python string: control characters, lone surrogates, all planes.
ANY_CHARACTER = st.characters(codec=None)
NAMES = st.text(ANY_CHARACTER, min_size=1, max_size=40) | st.sampled_from(
    [
        "host",
        "host.example.org",
        "fe80::1",
        "with space",
        "two\nlines\r\n",
        "\0",
        "\x7f",
        "%41",
        "héros",
        "主机",
        "\N{GRINNING FACE}",
        "\udc80",
        "\ud800",
        "\ud83d\ude00",
        "x" * 5000,
        "主" * 5000,
    ]
)
KINDS = st.sampled_from(
    [values.UP, values.LEFT, values.CRASHED, values.GONE]
)
# Milliseconds since 1970, as far as the grammar allows.
MOMENTS = st.integers(0, 10**15 - 1)
SECRETS = st.none() | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=40
)
# A key that memcached takes.
KEY = re.compile(r"\A[!-~]{1,250}\Z")

OPEN = values.Codec(None)
SEALED = values.Codec("a secret")


class KeysTest(unittest.TestCase):
    def test_the_usual_key_is_the_legacy_drivers(self):
        self.assertEqual(
            "compute:node1", values.member_key("compute", "node1")
        )

    @hypothesis.given(NAMES, NAMES)
    def test_memcached_takes_every_key(self, group, host):
        for key in (
            values.member_key(group, host),
            values.record_key(group, host),
            values.index_key(group, host),
            values.forced_key(group),
            values.refresh_signal_key(group),
            *values.index_keys(group),
            values.GROUPS_KEY,
        ):
            self.assertRegex(key, KEY)

    @hypothesis.given(
        st.tuples(NAMES, NAMES) | st.tuples(st.text(":a"), st.text(":a")),
        st.tuples(NAMES, NAMES) | st.tuples(st.text(":a"), st.text(":a")),
    )
    @hypothesis.example(("a", "b:c"), ("a:b", "c"))
    @hypothesis.example(("a\0b", "c"), ("a", "b\0c"))
    @hypothesis.example(("a b", "c"), ("a", "b c"))
    def test_no_two_members_share_a_key(self, one, other):
        hypothesis.assume(one != other)
        for key in values.member_key, values.record_key:
            self.assertNotEqual(key(*one), key(*other))

    @hypothesis.given(NAMES, NAMES)
    @hypothesis.example("nova_sg", "g")
    def test_a_member_key_is_never_another_kind_of_key(self, group, host):
        taken = {
            values.GROUPS_KEY,
            values.forced_key(group),
            values.refresh_signal_key(group),
            values.record_key(group, host),
            *values.index_keys(group),
        }
        self.assertNotIn(values.member_key(group, host), taken)

    @hypothesis.given(NAMES, NAMES)
    def test_a_member_is_listed_in_a_part_of_the_index(self, group, host):
        self.assertIn(
            values.index_key(group, host), values.index_keys(group)
        )

    def test_the_parts_of_the_index_are_of_one_size(self):
        hosts = 10000
        sizes = dict.fromkeys(values.index_keys("compute"), 0)
        for number in range(hosts):
            sizes[values.index_key("compute", f"node{number:05}")] += 1
        self.assertLess(max(sizes.values()), 2 * hosts / len(sizes))
        self.assertGreater(min(sizes.values()), hosts / len(sizes) / 2)

    def test_groups_do_not_share_their_lists(self):
        one, other = "compute", "network"
        for key in values.forced_key, values.refresh_signal_key:
            self.assertNotEqual(key(one), key(other))
        self.assertFalse(
            set(values.index_keys(one)) & set(values.index_keys(other))
        )


class ReportTest(unittest.TestCase):
    @hypothesis.given(
        SECRETS,
        NAMES,
        KINDS,
        MOMENTS,
        NAMES,
        st.none() | st.tuples(MOMENTS, MOMENTS),
    )
    def test_a_written_value_is_read_back(
        self, secret, key, kind, at, binary, outage
    ):
        codec = values.Codec(secret)
        key = values.member_key("compute", key)
        if outage is not None:
            outage = outage[0] / 1000, outage[1] / 1000
        report = values.StoredReport(kind, at / 1000, binary, outage)
        value = codec.write_report(key, report)
        self.assertRegex(value, rb"\A[ -~]+\Z")
        self.assertEqual(report, codec.read_report(key, value))

    def test_a_usual_report_is_short(self):
        report = values.StoredReport(values.UP, 1790000000.123, "nova-compute")
        value = OPEN.write_report("compute:node1", report)
        self.assertEqual(b"1 up 1790000000123 nova-compute", value)

    def test_a_report_with_an_outage(self):
        report = values.StoredReport(
            values.UP, 1790000000.123, "nova-compute", (1789999000.0, 1.5e9)
        )
        value = OPEN.write_report("compute:node1", report)
        self.assertEqual(
            b"1 up 1790000000123 nova-compute away=1789999000000-"
            b"1500000000000",
            value,
        )
        self.assertFalse(report.outage_is_possible)

    def test_which_outages_are_possible(self):
        for text, possible in (
            (b"", True),
            (b" away=1789999000000-1789999900000", True),
            (b" away=1789999000000-1790000000123", True),
            # As long as a record stays, and longer.
            (b" away=1789395200123-1790000000123", True),
            (b" away=1789395200122-1790000000123", False),
            (b" away=0-1790000000000", False),
            # From the future, backwards, of no length.
            (b" away=1789999000000-1790000000124", False),
            (b" away=1790000000001-1790000000000", False),
            (b" away=1790000000000-1790000000000", False),
            (b" away=", False),
            (b" away=1789999000000", False),
            (b" away=nan-nan", False),
            (b" away=1789999000000-nan", False),
            (b" away=-5-5", False),
            (b" away=1e3-1e4", False),
            (b" away=01789999000000-1790000000000", False),
            (b" away=1789999000000-inf", False),
            (b" away=" + b"9" * 5000 + b"-" + b"9" * 5001, False),
        ):
            with self.subTest(text=text[:40]):
                value = b"1 up 1790000000123 nova-compute" + text
                report = OPEN.read_report("compute:node1", value)
                # The rest of the report is valid.
                self.assertEqual(1790000000.123, report.at)
                self.assertEqual("nova-compute", report.binary)
                self.assertEqual(possible, report.outage_is_possible)

    def test_values_that_are_no_reports_are_refused(self):
        for value in (
            b"",
            b" ",
            b"1",
            b"None",
            b"1 up 5",
            b"1 up 5 ",
            b"1 up  nova-compute",
            b"1 up x nova-compute",
            b"1 up -5 nova-compute",
            b"1 up 5.0 nova-compute",
            b"1 up 1e3 nova-compute",
            b"1 up 05 nova-compute",
            b"1 up 1000000000000000 nova-compute",
            b"1 up \xd9\xa1 nova-compute",
            b"2 up 5 nova-compute",
            b"1 down 5 nova-compute",
            b"1 UP 5 nova-compute",
            b" 1 up 5 nova-compute",
            b"1 up 5 nova-compute ",
            b"1 up 5 nova compute",
            b"1 up 5 nova-compute away",
            b"1 up 5 nova-compute away=1-2 ",
            b"1 up 5 nova-compute away=1-2 away=1-2",
            b"1 up 5 nova-compute  away=1-2",
            b"1 up 5 nova-compute away=1-2\n",
            b"1 up 5 nova-compute\n",
            b"1 up 5 nova-compute\r\n",
            b"1\tup\t5\tnova-compute",
            b"1 up 5 nova/compute",
            b"1 up 5 nova%2dcompute",
            b"1 up 5 nova%2Dcompute",
            b"1 up 5 nova%",
            b"1 up 5 %FF",
            b"1 up 5 %ED%A0",
            b"1 up 5 h\xc3\xa9ros",
            b"1 up 5 nova-compute\0",
            b"x" * 1024 * 1024,
            pickle.dumps("1 up 5 nova-compute"),
            pickle.dumps(values.StoredReport(values.UP, 5.0, "nova-compute")),
            "1 up 5 nova-compute".encode("utf-16"),
        ):
            with self.subTest(value=value[:40]):
                with self.assertRaises(ValueError):
                    OPEN.read_report("compute:node1", value)

    @hypothesis.given(
        st.binary(max_size=200)
        | st.from_regex(rb"1 (up|left) [0-9]{1,16} [ -~]{1,20}")
        | st.from_regex(
            rb"\A1 up [1-9][0-9]{12} a away=[0-9]{1,16}-[0-9]{1,16}\Z"
        )
        | st.from_regex(rb"\A1 up [1-9][0-9]{12} a away=[ -~]{,20}\Z")
    )
    def test_a_value_that_would_not_be_written_is_refused(self, value):
        key = "compute:node1"
        try:
            report = OPEN.read_report(key, value)
        except ValueError:
            return
        if not report.outage_is_possible:
            report = report._replace(outage=None)
            value = value.partition(b" away=")[0]
        self.assertEqual(value, OPEN.write_report(key, report))


class RememberedReportTest(unittest.TestCase):
    """A codec that has read such a report before reads it no differently."""

    @hypothesis.given(
        st.one_of(
            st.binary(max_size=30),
            st.from_regex(rb"[0-9]{0,17}", fullmatch=True),
            st.sampled_from([b"0", b"00", b"01", b"+1", b" 1", b"1 ", b"1_0"]),
        ),
        st.sampled_from([b"1", b"01", b"2"]),
        st.sampled_from([b"nova-compute", b"nova", b"a b=c", b"n away=1-2"]),
    )
    def test_it_is_as_strict(self, at, version, rest):
        warm, cold = values.Codec(None), values.Codec(None)
        for one in b"nova-compute", b"nova", b"a b=c", b"n away=1-2":
            warm.read_report("k", b"1 up 1700000000123 " + one)
        value = version + b" up " + at + b" " + rest
        found = []
        for codec in warm, cold:
            try:
                found.append(codec.read_report("k", value))
            except ValueError as error:
                found.append(str(error))
        self.assertEqual(found[1], found[0])

    def test_the_time_is_the_new_one(self):
        codec = values.Codec(None)
        one = codec.read_report("k", b"1 up 1700000000123 nova domain=r")
        other = codec.read_report("k", b"1 up 1700000000999 nova domain=r")
        self.assertEqual(one._replace(at=1700000000.999), other)


class ListTest(unittest.TestCase):
    @hypothesis.given(SECRETS, NAMES, st.sets(NAMES, max_size=5))
    def test_a_written_value_is_read_back(self, secret, group, names):
        codec = values.Codec(secret)
        key = values.forced_key(group)
        written = codec.lines(key, names)
        self.assertEqual((names, 0), codec.read_lines(key, written))

    @hypothesis.given(SECRETS, st.lists(NAMES, max_size=5))
    def test_appended_lines_make_a_list(self, secret, names):
        codec = values.Codec(secret)
        written = b"".join(codec.line("nova_sg:g", name) for name in names)
        self.assertEqual(len(names), written.count(b"\n"))
        self.assertEqual(
            (set(names), 0), codec.read_lines("nova_sg:g", written)
        )

    @hypothesis.given(SECRETS, st.sets(NAMES, min_size=1, max_size=5))
    def test_the_order_of_names_does_not_matter(self, secret, names):
        codec = values.Codec(secret)
        self.assertEqual(
            codec.lines("nova_sg:g", sorted(names)),
            codec.lines("nova_sg:g", sorted(names, reverse=True)),
        )

    def test_lines_that_are_no_names_are_counted(self):
        for value, names, refused in (
            (b"", set(), 0),
            (b"\n\n", set(), 0),
            (b"one", {"one"}, 0),
            (b"one\ntwo\n", {"one", "two"}, 0),
            (b"one\none\n", {"one"}, 0),
            (b"one\nwith space\ntwo\n", {"one", "two"}, 1),
            (b"one\r\ntwo\n", {"two"}, 1),
            (b"one\n%zz\n%FF\n%4\n", {"one"}, 3),
            (b"one\n\xff\xfe\n\0\n", {"one"}, 2),
            (b"two\n" + pickle.dumps("one\n"), {"two"}, None),
        ):
            with self.subTest(value=value):
                found = OPEN.read_lines("nova_sg:g", value)
                self.assertEqual(names, found[0])
                if refused is None:
                    self.assertGreater(found[1], 0)
                else:
                    self.assertEqual(refused, found[1])

    @hypothesis.given(st.binary(max_size=200))
    def test_a_value_that_would_not_be_written_is_refused(self, value):
        names, refused = OPEN.read_lines("nova_sg:g", value)
        lines = set(value.split(b"\n")) - {b""}
        good = {OPEN.line("nova_sg:g", name)[:-1] for name in names}
        self.assertLessEqual(good, lines)
        self.assertEqual(len(lines - good), refused)


class LengthTest(unittest.TestCase):
    """A name that is too long to be read is not written."""

    def test_the_longest_name_is_read_back(self):
        for name in (
            "x" * values.MAX_NAME_LENGTH,
            "é" * (values.MAX_NAME_LENGTH // len("%C3%A9")),
        ):
            report = values.StoredReport(values.UP, 5.0, name)
            for codec in OPEN, SEALED:
                value = codec.write_report("key", report)
                self.assertEqual(report, codec.read_report("key", value))
                line = codec.line("key", name)
                self.assertEqual(({name}, 0), codec.read_lines("key", line))

    def test_a_longer_name_is_refused(self):
        for name in (
            "x" * (values.MAX_NAME_LENGTH + 1),
            "é" * values.MAX_NAME_LENGTH,
        ):
            with self.assertRaisesRegex(ValueError, "too long"):
                OPEN.line("key", name)
            report = values.StoredReport(values.UP, 5.0, name)
            with self.assertRaisesRegex(ValueError, "too long"):
                OPEN.write_report("key", report)
        long = b"x" * (values.MAX_NAME_LENGTH + 1)
        self.assertEqual((set(), 1), OPEN.read_lines("key", long))
        with self.assertRaises(ValueError):
            OPEN.read_report("key", b"1 up 5 " + long)


class SecretTest(unittest.TestCase):
    """A value without the right authentication code is refused."""

    KEY = "compute:node1"
    REPORT = values.StoredReport(values.UP, 1790000000.123, "nova-compute")

    def setUp(self):
        super().setUp()
        self.value = SEALED.write_report(self.KEY, self.REPORT)

    def refuse(self, codec, key, value):
        with self.assertRaises(ValueError):
            codec.read_report(key, value)

    def test_the_right_code_is_accepted(self):
        self.assertEqual(
            self.REPORT,
            values.Codec("a secret").read_report(self.KEY, self.value),
        )

    def test_every_changed_byte_is_noticed(self):
        for place in range(len(self.value)):
            for change in 0x01, 0x20, 0x80:
                with self.subTest(place=place, change=change):
                    value = bytearray(self.value)
                    value[place] ^= change
                    self.refuse(SEALED, self.KEY, bytes(value))

    def test_every_cut_and_addition_is_noticed(self):
        for value in (
            *(self.value[:end] for end in range(len(self.value))),
            *(self.value[start:] for start in range(1, len(self.value))),
            self.value + b" ",
            self.value + b"0",
            self.value + b"\n",
            b" " + self.value,
            self.value * 2,
            self.value.upper(),
        ):
            with self.subTest(value=value):
                self.refuse(SEALED, self.KEY, value)

    def test_the_value_of_another_key_is_refused(self):
        self.refuse(SEALED, "compute:node2", self.value)
        self.refuse(
            SEALED, values.record_key("compute", "node1"), self.value
        )

    def test_the_value_of_another_secret_is_refused(self):
        self.refuse(values.Codec("a secreT"), self.KEY, self.value)

    def test_a_value_without_a_code_is_refused(self):
        self.refuse(SEALED, self.KEY, OPEN.write_report(self.KEY, self.REPORT))

    def test_a_value_with_a_code_is_refused_without_a_secret(self):
        self.refuse(OPEN, self.KEY, self.value)

    def test_no_secret_and_an_empty_one_are_the_same(self):
        # Any program could make a code with an empty key.
        self.assertEqual(
            OPEN.write_report(self.KEY, self.REPORT),
            values.Codec("").write_report(self.KEY, self.REPORT),
        )

    @hypothesis.given(SECRETS, SECRETS, NAMES, NAMES)
    def test_no_report_can_be_read_with_another_secret(
        self, secret, other, host, binary
    ):
        hypothesis.assume(secret != other)
        key = values.member_key("compute", host)
        report = values.StoredReport(values.UP, 1790000000.123, binary)
        value = values.Codec(secret).write_report(key, report)
        self.refuse(values.Codec(other), key, value)

    @hypothesis.given(st.binary(max_size=200))
    def test_random_bytes_are_refused(self, value):
        self.refuse(SEALED, self.KEY, value)

    def test_a_list_loses_only_lines_that_are_not_authentic(self):
        mine = SEALED.line("nova_sg:g", "mine")
        others = values.Codec("another").line("nova_sg:g", "others")
        unsigned = OPEN.line("nova_sg:g", "unsigned")
        moved = SEALED.line("nova_sg:f:0", "moved")
        self.assertEqual(
            ({"mine"}, 3),
            SEALED.read_lines(
                "nova_sg:g", others + mine + unsigned + moved
            ),
        )

    @hypothesis.given(st.binary(max_size=200))
    def test_random_bytes_are_no_names(self, value):
        names, _ = SEALED.read_lines("nova_sg:g", value)
        self.assertEqual(set(), names)

    def test_no_value_shows_the_secret(self):
        secret = "correct-horse"
        value = values.Codec(secret).write_report(self.KEY, self.REPORT)
        self.assertNotIn(secret.encode(), value)
