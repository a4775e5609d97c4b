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

"""Every format of list and show, and the answers of is-up."""

import csv
import datetime
import io
import json

import yaml

from tests import single_mode
from tests.cli import base

COLUMNS = [
    "Host",
    "Topic",
    "Binary",
    "State",
    "Last Seen",
    "Age",
    "Forced Down",
    "Reason",
]


@single_mode
class MembersTest(base.TestCase):
    """list and show: one of each kind of members, in every format."""

    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("up", 30)
        self.insert("silent", 7201)
        self.insert("gone", 40, report_count=0)
        self.insert("fenced", 50, forced_down=1)
        self.insert(
            "drained", 60, disabled=1, disabled_reason="new disk, thursday"
        )
        self.insert("boss", 70, topic="conductor", binary="nova-conductor")

    def check_age(self, age, at_least):
        self.assertGreaterEqual(age, at_least)
        self.assertLess(age, at_least + base.PATIENCE)

    def test_json(self):
        rows = json.loads(self.do("list", "-f", "json"))
        for row in rows:
            self.assertEqual(COLUMNS, list(row))
            seen = datetime.datetime.fromisoformat(row["Last Seen"])
            age = datetime.datetime.now(datetime.UTC) - seen
            self.assertRegex(row["Last Seen"], r"T\d\d:\d\d:\d\d\.\d{3}Z$")
            self.check_age(age.total_seconds(), row["Age"] - 1)
        rows = {row["Host"]: row for row in rows}
        self.assertEqual(
            ["drained", "fenced", "gone", "silent", "up", "boss"], list(rows)
        )
        for host, state, forced, age, reason in (
            ("up", "up", False, 30, "^$"),
            (
                "silent",
                "down",
                False,
                7201,
                r"^last report 72\d\d\.\d s ago, allowed are 3600 s$",
            ),
            ("gone", "down", False, 40, "^left the group$"),
            ("fenced", "down", True, 50, "^forced down by an operator$"),
            ("drained", "up", False, 60, "^disabled: new disk, thursday$"),
            ("boss", "up", False, 70, "^$"),
        ):
            with self.subTest(host):
                row = rows[host]
                self.assertEqual(state, row["State"])
                self.assertIs(forced, row["Forced Down"])
                self.check_age(row["Age"], age)
                self.assertRegex(row["Reason"], reason)
        self.assertEqual(
            ("compute", "nova-compute", "conductor", "nova-conductor"),
            (
                rows["up"]["Topic"],
                rows["up"]["Binary"],
                rows["boss"]["Topic"],
                rows["boss"]["Binary"],
            ),
        )

    def test_every_format_says_the_same(self):
        expected = [
            [row["Host"], row["State"], row["Last Seen"]]
            for row in json.loads(self.do("list", "-f", "json"))
        ]
        columns = ("-c", "Host", "-c", "State", "-c", "Last Seen")
        listed = {
            kind: self.do("list", "-f", kind, *columns)
            for kind in ("csv", "yaml", "value", "table")
        }
        header, *rows = csv.reader(io.StringIO(listed["csv"]))
        self.assertEqual(["Host", "State", "Last Seen"], header)
        self.assertEqual(expected, rows)
        rows = yaml.safe_load(listed["yaml"])
        self.assertEqual(
            expected, [[r["Host"], r["State"], r["Last Seen"]] for r in rows]
        )
        rows = [line.split() for line in listed["value"].splitlines()]
        self.assertEqual(expected, rows)
        header, *rows = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in listed["table"].splitlines()
            if line.startswith("|")
        ]
        self.assertEqual(["Host", "State", "Last Seen"], header)
        # To the second, and readable.
        self.assertEqual(
            [[h, s, f"{t[:10]} {t[11:19]} UTC"] for h, s, t in expected], rows
        )

    def test_table_of_everything(self):
        lines = self.do("list").splitlines()
        header = [cell.strip() for cell in lines[1].split("|")[1:-1]]
        self.assertEqual(COLUMNS, header)
        text = "\n".join(lines)
        self.assertRegex(text, r"\| up +\| compute +\| nova-compute +\| up ")
        # Ages are in a unit that fits.
        self.assertRegex(text, r"\| silent .* UTC +\| 2 h ")
        self.assertRegex(text, r"\| up .* UTC +\| \d+\.\d s ")
        self.assertRegex(text, r"\| fenced .* \| True +\| forced down by")

    def test_groups(self):
        names = ("list", "-f", "value", "-c", "Host")
        members = self.do(*names).split()
        self.assertIn("boss", members)
        self.assertEqual(members, self.do(*names, "--all").split())
        self.assertEqual(
            ["boss"], self.do(*names, "--group", "conductor").split()
        )
        self.assertEqual([], self.do(*names, "--group", "none").split())
        empty = self.nova_sg("list", "--group", "none")
        self.assertEqual(
            (0, "", "There are no members in the group none\n"),
            (empty.status, empty.out.strip(), empty.err),
        )
        refused = self.nova_sg("list", "--all", "--group", "compute")
        self.assertEqual(2, refused.status)
        self.assertIn("not allowed with", refused.err)

    def test_failure_domains(self):
        racks = self.write("racks", "[ud]* rack 1\nsilent rack 2\n")
        self.configure(f"[servicegroup]\nfailure_domain_map = {racks}")
        rows = json.loads(self.do("list", "--long", "-f", "json"))
        self.assertEqual([*COLUMNS, "Failure Domain"], list(rows[0]))
        self.assertEqual(
            {
                "drained": "rack 1",
                "fenced": "",
                "gone": "",
                "silent": "rack 2",
                "up": "rack 1",
                "boss": "",
            },
            {row["Host"]: row["Failure Domain"] for row in rows},
        )
        shown = ("show", "silent", "-f", "value", "-c", "Failure Domain")
        self.assertEqual("rack 2\n", self.do(*shown))

    def test_a_wrong_map_of_failure_domains(self):
        for text, words in (
            (None, "No such file or directory. Correct its name"),
            ("up\n", "line 1: there is no domain after the host. Write"),
        ):
            path = self.path("racks")
            if text is not None:
                self.write("racks", text)
            self.configure(f"[servicegroup]\nfailure_domain_map = {path}")
            result = self.nova_sg("list")
            self.assertEqual((2, ""), (result.status, result.out))
            self.assertIn(
                f"[servicegroup] failure_domain_map: {path}", result.err
            )
            self.assertIn(words, result.err)

    def test_unknown_column(self):
        result = self.nova_sg("list", "-c", "Hots")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("No recognized column names in ['Hots']", result.err)

    def test_show(self):
        shown = json.loads(self.do("show", "drained", "-f", "json"))
        self.check_age(shown.pop("Age"), 60)
        self.assertRegex(shown.pop("Last Seen"), r"^\d{4}-\d\d-\d\dT.*Z$")
        self.assertRegex(shown.pop("Reason"), r"^last report \d+\.\d s ago$")
        self.assertEqual(
            {
                "Host": "drained",
                "Topic": "compute",
                "Binary": "nova-compute",
                "State": "up",
                "Forced Down": False,
                "Disabled": True,
                "Disabled Reason": "new disk, thursday",
                "Failure Domain": "",
                "Driver": "db",
            },
            shown,
        )

    def test_show_in_every_format(self):
        chosen = ("show", "boss", "--group", "conductor", "-c", "State")
        for kind, expected in (
            ("json", '{\n  "State": "up"\n}'),
            ("yaml", "State: up"),
            ("value", "up"),
            ("shell", 'state="up"'),
        ):
            with self.subTest(kind):
                shown = self.do(*chosen, "-f", kind)
                self.assertEqual(expected, shown.strip())
        self.assertRegex(self.do(*chosen), r"\| State +\| up +\|")

    def test_show_no_such_member(self):
        result = self.nova_sg("show", "boss")
        self.assertEqual((1, ""), (result.status, result.out))
        self.assertEqual("The group compute has no member boss\n", result.err)

    def test_is_up(self):
        for host, words, status in (
            ("up", "up", 0),
            ("drained", "up", 0),
            ("silent", "down", 1),
            ("gone", "down", 1),
            ("fenced", "down", 1),
        ):
            with self.subTest(host):
                result = self.nova_sg("is-up", host)
                self.assertEqual(
                    (status, f"{words}\n", ""),
                    (result.status, result.out, result.err),
                )

    def test_is_up_in_another_group(self):
        group = ("--group", "conductor")
        self.assertEqual("up\n", self.do("is-up", "boss", *group))
        self.configure("topic = conductor")
        self.assertEqual("up\n", self.do("is-up", "boss"))


@single_mode
class UnknownStateTest(base.TestCase):
    """is-up ends with 2, never with 1, which means that a member is down."""

    def check(self, *arguments, words, out="unknown\n", **kwargs):
        result = self.nova_sg("is-up", *arguments, **kwargs)
        self.assertEqual((2, out), (result.status, result.out), result.err)
        self.assertIn(words, result.err)

    def test_unknown_member(self):
        self.check("nobody", words="The group compute has no member nobody")

    def test_unreachable_database(self):
        url = f"mysql+pymysql://nova:{base.PASSWORD}@127.0.0.1:1/nova"
        self.configure(f"[database]\nconnection = {url}")
        self.check("one", words="nova:***@127.0.0.1:1/nova: Can't connect")

    def test_unreachable_memcached(self):
        self.configure(
            "servicegroup_driver = mc\nmemcached_servers = 127.0.0.1:1"
        )
        self.check("one", words="memcached at 127.0.0.1:1: cannot connect")

    def test_no_table(self):
        path = self.path("empty.sqlite")
        self.configure(f"[database]\nconnection = sqlite:///{path}")
        self.check("one", words="create it with: nova-sg db sync")

    def test_wrong_value(self):
        self.configure("topic = compute\nservice_down_time = soon")
        self.check("one", words="[DEFAULT] service_down_time", out="")

    def test_wrong_arguments(self):
        self.check(words="required: HOST", out="")
        self.check("one", "--no-such", words="unrecognized", out="")

    def test_missing_file(self):
        self.config = self.path("no-such.conf")
        self.check("one", words=f"config files: {self.config}", out="")

