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

"""force-down, forget and withdraw: what changes a member."""

import socket

from tests import single_mode
from tests.cli import base


@single_mode
class ChangeTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("one", 10)
        self.insert("two", 7200)

    def record(self, host):
        return self.execute(
            "SELECT forced_down, deleted, last_seen_up FROM services "
            "WHERE host = ?",
            host,
        )[0]

    def test_force_down_and_back(self):
        seen = self.record("one")[2]
        self.assertEqual("", self.do("force-down", "one"))
        self.assertEqual((1, 0, seen), self.record("one"))
        self.assertEqual(1, self.nova_sg("is-up", "one").status)
        self.assertEqual("", self.do("force-down", "one", "--unset"))
        self.assertEqual((0, 0, seen), self.record("one"))
        self.assertEqual(0, self.nova_sg("is-up", "one").status)

    def test_no_such_member(self):
        for command in ("force-down", "forget"):
            for arguments in (["nobody"], ["one", "--group", "cell"]):
                with self.subTest(command, arguments=arguments):
                    result = self.nova_sg(command, *arguments)
                    self.assertEqual((1, ""), (result.status, result.out))
                    self.assertRegex(result.err, "^The group .* has no member")

    #: What systemd says of the service.
    said: str | None = None

    @property
    def environment(self):
        more = {} if self.said is None else {"SERVICE_RESULT": self.said}
        return super().environment | more

    def test_withdraw(self):
        here = socket.gethostname()
        self.insert(here, 20)
        for arguments, host in ((["one"], "one"), ([], here)):
            self.assertEqual("", self.do("withdraw", *arguments))
            result = self.nova_sg("is-up", host)
            self.assertEqual(1, result.status)
            self.assertIn(
                "its process ended without leaving", self.do("show", host)
            )
        # One that is no member may be withdrawn, as a service that crashed
        # before it joined.
        self.assertEqual("", self.do("withdraw", "nobody"))

    def test_withdraw_what_systemd_says_has_crashed(self):
        result = self.nova_sg("withdraw", "one", "--if-crashed")
        self.assertEqual(2, result.status)
        self.assertIn("SERVICE_RESULT", result.err)
        for said, status in (("success", 0), ("signal", 1)):
            self.said = said
            self.assertEqual("", self.do("withdraw", "one", "--if-crashed"))
            self.assertEqual(status, self.nova_sg("is-up", "one").status)

    def test_forget(self):
        self.assertEqual("", self.do("forget", "two"))
        self.assertEqual(2, self.nova_sg("is-up", "two").status)
        self.assertEqual("one\n", self.do("list", "-f", "value", "-c", "Host"))
        # As in Nova, the record stays and is marked.
        self.assertNotEqual(0, self.record("two")[1])

    def test_forget_refuses_a_member_that_is_up(self):
        for forced in (False, True):
            if forced:
                self.do("force-down", "one")
            before = self.record("one")
            result = self.nova_sg("forget", "one")
            self.assertEqual((1, ""), (result.status, result.out))
            self.assertIn("one still reports to the group", result.err)
            self.assertEqual(before, self.record("one"))


    def test_forget_those_that_are_stale(self):
        for host, age in ("days", 3 * 86400), ("weeks", 30 * 86400):
            self.insert(host, age)
        self.insert("forced", 3 * 86400)
        self.do("force-down", "forced")
        # Not listed any more, but still there.
        listed = "days\nforced\none\ntwo\n"
        self.assertEqual(listed, self.do("list", "-f", "value", "-c", "Host"))
        stale = ["forget", "--stale", "2d"]
        self.assertEqual("days\nweeks\n", self.do(*stale, "--dry-run"))
        self.assertEqual(0, self.record("days")[1])
        self.assertEqual("weeks\n", self.do("forget", "--stale", "240h"))
        self.assertEqual("days\n", self.do(*stale))
        self.assertNotEqual(0, self.record("days")[1])
        self.assertEqual(
            "forced\none\ntwo\n",
            self.do("list", "-f", "value", "-c", "Host"),
        )
        self.assertEqual("", self.do(*stale))
        # Never one that is up.
        self.assertEqual("two\n", self.do("forget", "--stale", "0s"))

    def test_forget_removes_none_that_is_unknown(self):
        """All are silent, so the backend may be frozen."""
        for host in ("one", "two", "three", "four"):
            self.insert(host, 3 * 86400, topic="cell")
        result = self.nova_sg("forget", "--stale", "1h", "--group", "cell")
        self.assertEqual((0, ""), (result.status, result.out))
        self.assertEqual(
            "4 members of the group cell are unknown, and are not removed\n",
            result.err,
        )
        records = self.execute(
            "SELECT deleted FROM services WHERE topic = 'cell'"
        )
        self.assertEqual([(0,)] * 4, records)

    def test_forget_takes_a_host_or_an_age(self):
        for arguments in (
            [],
            ["one", "--stale", "7d"],
            ["--stale", "7"],
            ["--stale", "week"],
            ["--stale", "-1d"],
            ["two", "--dry-run"],
        ):
            with self.subTest(arguments=arguments):
                result = self.nova_sg("forget", *arguments)
                self.assertEqual((2, ""), (result.status, result.out))
        self.assertEqual(0, self.record("two")[1])
