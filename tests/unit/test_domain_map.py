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

"""The file with the failure domains of members."""

import os

from nova_sg import exception
from nova_sg.servicegroup import domain_map
from tests import base


class DomainMapTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.folder, "domains")
        self.flags("servicegroup", failure_domain_map=self.path)
        self.map = domain_map.DomainMap()

    def write(self, *lines):
        with open(self.path, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def domains(self, *hosts):
        current = self.map.current()
        return [current.of_host(host) for host in hosts]

    def test_hosts_patterns_comments_and_blank_lines(self):
        self.write(
            "# the racks of room 1",
            "",
            "compute1 rack 1",
            "  compute2\track 2  ",
            "   # a comment",
            "c*  room 1",
        )
        self.map.check()
        self.assertEqual(
            ["rack 1", "rack 2", "room 1", None],
            self.domains("compute1", "compute2", "c3", "other"),
        )

    def test_without_a_map_no_host_has_a_domain(self):
        self.flags("servicegroup", failure_domain_map=None)
        self.map.check()
        self.assertEqual([None], self.domains("compute1"))

    def test_a_file_that_changes_is_read_again(self):
        self.write("one rack1")
        self.map.check()
        same = self.map.current()
        self.assertIs(same, self.map.current())
        self.write("one rack2", "two rack1")
        self.assertEqual(["rack2", "rack1"], self.domains("one", "two"))
        # Another file of the same size and time takes its place.
        other = f"{self.path}.new"
        with open(other, "w", encoding="utf-8") as file:
            file.write("one rack3\ntwo rack1\n")
        found = os.stat(self.path)
        os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.replace(other, self.path)
        self.assertEqual(["rack3"], self.domains("one"))

    def test_a_missing_file_at_the_start(self):
        with self.assertRaises(exception.ConfigError) as caught:
            self.map.check()
        self.assertEqual(
            f"[servicegroup] failure_domain_map: {self.path}: No such file or "
            "directory. Correct its name, or its owner or mode",
            str(caught.exception),
        )

    def test_a_pipe_is_not_waited_for(self):
        os.mkfifo(self.path)
        with self.assertRaisesRegex(
            exception.ConfigError, "this is not a regular file"
        ):
            self.map.check()

    def test_a_wrong_line_at_the_start(self):
        for line, why in (
            ("compute1", "there is no domain after the host"),
            ("compute1   ", "there is no domain after the host"),
            (
                f"compute1 {'x' * 65}",
                "a domain has at most 64 characters, all of them ASCII",
            ),
            (
                "compute1 r\u00e4ck",
                "a domain has at most 64 characters, all of them ASCII",
            ),
        ):
            self.write("# racks", "one rack1", line)
            with self.assertRaises(exception.ConfigError) as caught:
                domain_map.DomainMap().check()
            self.assertEqual(
                f"[servicegroup] failure_domain_map: {self.path}, line 3: "
                f"{why}. Write HOST DOMAIN, PATTERN DOMAIN, or # and a "
                "comment",
                str(caught.exception),
            )

    def test_the_last_good_map_stays_in_use(self):
        self.write("one rack1")
        self.map.check()
        self.write("one")
        for _ in range(3):
            self.assertEqual(["rack1"], self.domains("one"))
        os.unlink(self.path)
        self.assertEqual(["rack1"], self.domains("one"))
        [logged] = self.logs.matching("Cannot read the failure domains")
        self.assertIn(f"{self.path}, line 1: there is no domain", logged)
        # A child process of this one begins with the map that is in use.
        self.map.check()
        self.write("one rack2")
        self.assertEqual(["rack2"], self.domains("one"))
        self.assertEqual(
            1, len(self.logs.matching("Read the failure domains from"))
        )

    def test_ten_thousand_hosts(self):
        self.write(*(f"host{n} rack{n // 40}" for n in range(10_000)))
        self.map.check()
        self.assertEqual(
            ["rack0", "rack249", None],
            self.domains("host39", "host9999", "host10000"),
        )
