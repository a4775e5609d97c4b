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

"""The spellings of [zookeeper] address."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from nova_sg.backends.zookeeper import address

HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True),
    st.ip_addresses(v=6).map(str),
)
SERVERS = st.tuples(HOSTS, st.none() | st.integers(1, 65535))
CHROOTS = st.lists(
    st.from_regex(r"[a-z0-9_.-]{1,8}", fullmatch=True), max_size=3
)


class AddressTest(unittest.TestCase):
    def test_examples(self):
        for text, expected, for_client in (
            ("zk1", "zk1:2181", "zk1:2181"),
            ("zk1,zk2:2182", "zk1:2181,zk2:2182", None),
            ("a:1 ,b:2", "a:1,b:2", None),
            (" a:1/nova/", "a:1/nova", None),
            ("a:1,", "a:1", None),
            ("a:1/openstack/nova", "a:1/openstack/nova", None),
            ("[::1]:2181/x", "[::1]:2181/x", "::1:2181/x"),
            ("[::1]", "[::1]:2181", "::1:2181"),
            ("::1:2181", "[::1]:2181", "::1:2181"),
        ):
            with self.subTest(text):
                found = address.read(text)
                self.assertEqual(expected, str(found))
                self.assertEqual(for_client or expected, found.for_client)

    def test_all_else_is_refused_with_the_remedy(self):
        for text in (
            *("", " ", ",", "/x", "zk://a:1", "a:1,,b:2", "a b:1", "-a:1"),
            *("a:", "a:x", "a:0", "a:70000", "a:-1", "a:1/x//y", "a:1/x:2"),
            *("a:1/x,b:2", "[::1", "[::1]x", "[::1]:x"),
        ):
            with (
                self.subTest(text),
                self.assertRaisesRegex(ValueError, "Write host:port"),
            ):
                address.read(text)

    @given(st.lists(SERVERS, min_size=1, max_size=5), CHROOTS)
    def test_what_is_right_is_read(self, servers, chroot):
        text = ",".join(
            (f"[{host}]" if ":" in host else host)
            + ("" if port is None else f":{port}")
            for host, port in servers
        )
        path = "".join(f"/{one}" for one in chroot)
        found = address.read(f" {text}, {path}/ ")
        self.assertEqual(
            [(host, port or 2181) for host, port in servers],
            list(found.servers),
        )
        self.assertEqual(path, found.chroot)
        self.assertEqual(found, address.read(str(found)))

    @given(st.text())
    def test_anything_is_read_or_refused(self, text):
        try:
            found = address.read(text)
        except ValueError:
            return
        self.assertEqual(found, address.read(str(found)))
