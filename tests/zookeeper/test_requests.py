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

"""The requests of the API, waited for and with completions.

The tests cover what ZooKeeper's own tests of its Python binding expect, and
new behaviour.
"""

import unittest

from nova_sg import zookeeper
from tests.zookeeper import base

READ = [{"perms": zookeeper.PERM_READ, "scheme": "world", "id": "anyone"}]


class CreateTest(base.TestCase):
    def test_create(self):
        self.assertEqual("/a", self.create("/a", "data"))
        self.assertEqual("data", zookeeper.get(self.handle, "/a")[0])

    def test_flags_default_to_persistent(self):
        zookeeper.create(self.handle, "/a", "", base.OPEN)
        stat = zookeeper.exists(self.handle, "/a")
        self.assertEqual(0, stat["ephemeralOwner"])

    def test_ephemeral_belongs_to_the_session(self):
        self.create("/a")
        stat = zookeeper.exists(self.handle, "/a")
        session_id, _ = zookeeper.client_id(self.handle)
        self.assertEqual(session_id & (1 << 64) - 1, stat["ephemeralOwner"])

    def test_sequence(self):
        flags = zookeeper.SEQUENCE | zookeeper.EPHEMERAL
        first = self.create("/a-", flags=flags)
        second = self.create("/a-", flags=flags)
        self.assertRegex(first, r"^/a-\d{10}$")
        self.assertLess(first, second)

    def test_long_path(self):
        path = "/" + "x" * 1000
        self.assertEqual(path, self.create(path))

    def test_existing(self):
        self.create("/a")
        with self.assertRaisesRegex(
                zookeeper.NodeExistsException, "node exists"):
            self.create("/a")

    def test_no_children_for_ephemerals(self):
        self.create("/a")
        with self.assertRaises(zookeeper.NoChildrenForEphemeralsException):
            self.create("/a/b")

    def test_no_parent(self):
        with self.assertRaises(zookeeper.NoNodeException):
            self.create("/a/b")

    def test_bad_flags(self):
        with self.assertRaises(zookeeper.BadArgumentsException):
            self.create("/a", flags=-1)

    def test_bad_paths(self):
        for path in ("", "a", "/a/", "/a//b", "/a\0b"):
            with (self.subTest(path),
                  self.assertRaises(zookeeper.BadArgumentsException)):
                self.create(path)

    def test_invalid_acls(self):
        for acl in (None, base.OPEN[0], "acl", [{"schema": "digest"}], [1],
                    [{"perms": "x", "scheme": "world", "id": "anyone"}],
                    [{"perms": 1 << 40, "scheme": "world", "id": "anyone"}],
                    [{"perms": 1, "scheme": None, "id": "anyone"}]):
            with (self.subTest(acl),
                  self.assertRaises(zookeeper.InvalidACLException)):
                zookeeper.create(self.handle, "/a", "", acl)

    def test_acreate(self):
        done = base.Recorder()
        rc = zookeeper.acreate(
            self.handle, "/a", "data", base.OPEN, zookeeper.EPHEMERAL, done)
        self.assertEqual(zookeeper.OK, rc)
        self.assertEqual((self.handle, zookeeper.OK, "/a"), done.wait())

    def test_acreate_existing(self):
        self.create("/a")
        done = base.Recorder()
        zookeeper.acreate(self.handle, "/a", "", base.OPEN, 0, done)
        self.assertEqual(
            (self.handle, zookeeper.NODEEXISTS, None), done.wait())


class DeleteTest(base.TestCase):
    def test_delete(self):
        self.create("/a")
        self.assertEqual(zookeeper.OK, zookeeper.delete(self.handle, "/a"))
        self.assertEqual([], zookeeper.get_children(self.handle, "/"))

    def test_absent(self):
        with self.assertRaises(zookeeper.NoNodeException):
            zookeeper.delete(self.handle, "/a")

    def test_version(self):
        self.create("/a")
        with self.assertRaises(zookeeper.BadVersionException):
            zookeeper.delete(self.handle, "/a", 5)
        zookeeper.delete(self.handle, "/a", 0)

    def test_not_empty(self):
        self.create("/a", flags=0)
        self.create("/a/b")
        with self.assertRaises(zookeeper.NotEmptyException):
            zookeeper.delete(self.handle, "/a")

    def test_adelete(self):
        self.create("/a")
        done = base.Recorder()
        zookeeper.adelete(self.handle, "/a", -1, done)
        self.assertEqual((self.handle, zookeeper.OK), done.wait())
        zookeeper.adelete(self.handle, "/a", -1, done)
        self.assertEqual((self.handle, zookeeper.NONODE), done.wait(2))


class ExistsTest(base.TestCase):
    def test_exists(self):
        self.create("/a", "four")
        stat = zookeeper.exists(self.handle, "/a", None)
        self.assertEqual(4, stat["dataLength"])
        self.assertEqual(
            {"czxid", "mzxid", "ctime", "mtime", "version", "cversion",
             "aversion", "ephemeralOwner", "dataLength", "numChildren",
             "pzxid"}, set(stat))

    def test_absent(self):
        self.assertIsNone(zookeeper.exists(self.handle, "/a", None))

    def test_aexists(self):
        self.create("/a")
        done = base.Recorder()
        zookeeper.aexists(self.handle, "/a", None, done)
        handle, rc, stat = done.wait()
        self.assertEqual((self.handle, zookeeper.OK), (handle, rc))
        self.assertEqual(zookeeper.exists(self.handle, "/a"), stat)
        zookeeper.aexists(self.handle, "/b", None, done)
        self.assertEqual(
            (self.handle, zookeeper.NONODE, None), done.wait(2))


class DataTest(base.TestCase):
    def test_get_and_set(self):
        self.create("/a", "on")
        value, stat = zookeeper.get(self.handle, "/a", None)
        self.assertEqual("on", value)
        self.assertEqual(zookeeper.OK, zookeeper.set(
            self.handle, "/a", "off", stat["version"]))
        value, stat = zookeeper.get(self.handle, "/a", None)
        self.assertEqual(("off", 1), (value, stat["version"]))
        with self.assertRaises(zookeeper.BadVersionException):
            zookeeper.set(self.handle, "/a", "x", stat["version"] + 1)

    def test_set2(self):
        self.create("/a")
        stat = zookeeper.set2(self.handle, "/a", "data", 0)
        self.assertEqual(zookeeper.exists(self.handle, "/a"), stat)

    def test_empty(self):
        self.create("/a", "")
        self.assertEqual("", zookeeper.get(self.handle, "/a")[0])

    def test_absent(self):
        with self.assertRaises(zookeeper.NoNodeException):
            zookeeper.get(self.handle, "/a")
        done = base.Recorder()
        zookeeper.aget(self.handle, "/a", None, done)
        self.assertEqual(
            (self.handle, zookeeper.NONODE, None, None), done.wait())

    def test_large(self):
        data = "A" * (1024 * 1023)
        self.create("/a", data)
        self.assertEqual(data, zookeeper.get(self.handle, "/a")[0])

    def test_buffer_length(self):
        self.create("/a", "0123456789")
        self.assertEqual(
            "01234", zookeeper.get(self.handle, "/a", None, 5)[0])
        self.assertEqual(
            "0123456789", zookeeper.get(self.handle, "/a", None, 500)[0])

    def test_any_bytes_survive(self):
        for data in (bytes(range(256)), "\u00e4\u20ac\U0001f600".encode(),
                     b"\0", b"\xff\xfe"):
            zookeeper.create(self.handle, "/a", data, base.OPEN)
            value, _ = zookeeper.get(self.handle, "/a")
            self.assertEqual(
                data, value.encode("utf-8", "surrogateescape"))
            zookeeper.create(self.handle, "/b", value, base.OPEN)
            self.assertEqual(value, zookeeper.get(self.handle, "/b")[0])
            zookeeper.delete(self.handle, "/a")
            zookeeper.delete(self.handle, "/b")

    def test_bytes_and_str_are_the_same(self):
        zookeeper.create(
            self.handle, b"/\xc3\xa4", bytearray(b"x"), base.OPEN)
        self.assertEqual("x", zookeeper.get(self.handle, "/\u00e4")[0])
        self.assertEqual(
            ["\u00e4"], zookeeper.get_children(self.handle, b"/"))

    def test_neither_bytes_nor_str(self):
        for value in (None, 1, ["x"]):
            with self.subTest(value), self.assertRaises(TypeError):
                self.create("/a", value)

    def test_aget_and_aset(self):
        self.create("/a", "on")
        done = base.Recorder()
        zookeeper.aset(self.handle, "/a", "off", -1, done)
        handle, rc, stat = done.wait()
        self.assertEqual((self.handle, zookeeper.OK), (handle, rc))
        self.assertEqual(1, stat["version"])
        zookeeper.aget(self.handle, "/a", None, done)
        self.assertEqual(
            (self.handle, zookeeper.OK, "off", stat), done.wait(2))


class ChildrenTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.create("/a", flags=0)

    def test_get_children(self):
        self.assertEqual([], zookeeper.get_children(self.handle, "/a"))
        self.create("/a/b")
        self.create("/a/c")
        self.assertEqual(
            ["b", "c"], sorted(zookeeper.get_children(self.handle, "/a")))

    def test_aget_children(self):
        self.create("/a/b")
        done = base.Recorder()
        zookeeper.aget_children(self.handle, "/a", None, done)
        self.assertEqual((self.handle, zookeeper.OK, ["b"]), done.wait())
        zookeeper.aget_children(self.handle, "/x", None, done)
        self.assertEqual(
            (self.handle, zookeeper.NONODE, []), done.wait(2))


class AclTest(base.TestCase):
    def test_get_and_set(self):
        self.create("/a")
        stat, acl = zookeeper.get_acl(self.handle, "/a")
        self.assertEqual(base.OPEN, acl)
        self.assertEqual(0, stat["aversion"])
        with self.assertRaises(zookeeper.InvalidACLException):
            zookeeper.set_acl(self.handle, "/a", -1, READ[0])
        zookeeper.set_acl(self.handle, "/a", 0, READ)
        self.assertEqual(READ, zookeeper.get_acl(self.handle, "/a")[1])

    def test_aget_acl_and_aset_acl(self):
        self.create("/a")
        done = base.Recorder()
        zookeeper.aget_acl(self.handle, "/a", done)
        handle, rc, acl, stat = done.wait()
        self.assertEqual((self.handle, zookeeper.OK), (handle, rc))
        self.assertEqual(base.OPEN, acl)
        self.assertEqual(0, stat["aversion"])
        zookeeper.aset_acl(self.handle, "/a", -1, READ, done)
        self.assertEqual((self.handle, zookeeper.OK), done.wait(2))
        self.assertEqual(READ, zookeeper.get_acl(self.handle, "/a")[1])

    def test_digest(self):
        done = base.Recorder()
        zookeeper.add_auth(self.handle, "digest", "user:secret", done)
        self.assertEqual((self.handle, zookeeper.OK), done.wait())
        everything = [
            {"perms": zookeeper.PERM_ALL, "scheme": "auth", "id": ""}]
        zookeeper.create(self.handle, "/a", "secret", everything)
        other = self.connect()
        with self.assertRaises(zookeeper.NoAuthException):
            zookeeper.get(other, "/a")
        zookeeper.add_auth(other, "digest", b"user:secret", None)
        self.assertEqual("secret", zookeeper.get(other, "/a")[0])


class SyncTest(base.TestCase):
    def test_async_under_both_names(self):
        done = base.Recorder()
        for function in (getattr(zookeeper, "async"), zookeeper.async_):
            self.assertEqual(zookeeper.OK, function(self.handle, "/"))
            function(self.handle, "/", done)
        self.assertEqual((self.handle, zookeeper.OK, "/"), done.wait(2))


if __name__ == "__main__":
    unittest.main()
