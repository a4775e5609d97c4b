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

"""wait: its output and exit status."""

from tests import single_mode
from tests.cli import base


@single_mode
class WaitTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("one", 10)
        self.insert("two", 7200)

    def test_what_is_so_already(self):
        for host, state in (("one", "up"), ("two", "down")):
            result = self.nova_sg(
                "wait", host, "--for", state, "--timeout", "0"
            )
            self.assertEqual(
                (0, "", ""), (result.status, result.out, result.err)
            )

    def test_what_does_not_come(self):
        for host, state, words in (
            ("one", "down", r"it is up: last report \d+\.\d s ago"),
            ("two", "up", r"it is down: last report .*, allowed are 3600 s"),
            ("three", "up", "The group compute has no member three"),
        ):
            with self.subTest(host):
                result = self.nova_sg(
                    "wait", host, "--for", state, "--timeout", "0.5"
                )
                self.assertEqual((1, ""), (result.status, result.out))
                self.assertRegex(
                    result.err,
                    rf"^{host} is not {state} after 0.5 s: {words}\n$",
                )

    def test_an_unreachable_backend(self):
        self.configure(
            "servicegroup_driver = mc\nmemcached_servers = 127.0.0.1:1"
        )
        result = self.nova_sg("wait", "one", "--for", "up", "--timeout", "0")
        self.assertEqual((1, ""), (result.status, result.out))
        self.assertIn("cannot connect", result.err)

    def test_wrong_arguments(self):
        for arguments, words in (
            (["one"], "required: --for"),
            (["one", "--for", "unknown"], "invalid choice"),
            (["one", "--for", "up", "--timeout", "soon"], "'soon' is not a"),
            (["one", "--for", "up", "--timeout", "-1"], "'-1' is not a"),
        ):
            with self.subTest(arguments):
                result = self.nova_sg("wait", *arguments)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertIn(words, result.err)
