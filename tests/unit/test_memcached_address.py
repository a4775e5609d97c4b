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


"""The spellings of a memcached server's address."""

import unittest

from nova_sg.backends.memcached import address


class AddressTest(unittest.TestCase):
    def test_spellings_of_one_server(self):
        for texts, expected in (
            (("mc1", "mc1:11211", "[mc1]", "[mc1]:11211"), "mc1:11211"),
            (("inet:mc1", "inet:[mc1]:11211"), "inet:mc1:11211"),
            (("inet6:mc1:1", "inet6:[mc1]:1"), "inet6:mc1:1"),
            (
                ("[::1]:1", "inet6:[::1]:1", "inet:[::1]:1"),
                "[::1]:1",
            ),
            (
                ("[fe80::1%eth0]", "inet6:[fe80::1%eth0]:11211"),
                "[fe80::1%eth0]:11211",
            ),
            (("/run/mc.sock", "unix:/run/mc.sock"), "unix:/run/mc.sock"),
            (("unix:mc.sock",), "unix:mc.sock"),
        ):
            for text in texts:
                with self.subTest(text):
                    found = address.parse(text)
                    self.assertEqual(expected, str(found))
                    self.assertEqual(found, address.parse(str(found)))

    def test_all_else_is_refused(self):
        for text in (
            *("", " ", "::1", "::1:11211", "inet6:::1:1", "[]:1", "[::1"),
            *("[::1]x", "[::1]:", "[::1]:x", "mc1:", "mc1:x", "mc1:0"),
            *("mc1:65536", "mc1:1:2", "mc 1:1", "mc1:1 ", "tcp://mc1:1"),
            *("mc1/x:1", "unix:", "inet:", "inet7:mc1:1"),
        ):
            with self.subTest(text), self.assertRaises(ValueError):
                address.parse(text)
