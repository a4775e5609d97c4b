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

"""The C library: its constants, and the error if it is missing."""

import os
import re
import tempfile
import unittest

from nova_sg import zookeeper
from nova_sg.zookeeper import clib, constants, exceptions
from tests.zookeeper import base


class LibraryTest(unittest.TestCase):
    def test_constants(self):
        library = clib.load()
        compared = 0
        for name in dir(library.zk):
            if name.startswith("ZOO_"):
                with self.subTest(name):
                    self.assertEqual(
                        getattr(library.zk, name),
                        getattr(zookeeper, name[len("ZOO_"):]))
                    compared += 1
        self.assertGreater(compared, 15)

    def test_return_codes(self):
        for code, exception in exceptions.BY_CODE.items():
            with self.subTest(exception.__name__):
                self.assertTrue(
                    issubclass(exception, zookeeper.ZooKeeperException))
                self.assertIs(
                    exception, getattr(zookeeper, exception.__name__))
                self.assertEqual(code, getattr(zookeeper, _name(exception)))
        self.assertEqual("no node", zookeeper.zerror(zookeeper.NONODE))
        self.assertEqual("ok", zookeeper.zerror(zookeeper.OK))

    def test_unknown_return_code(self):
        self.assertIs(
            zookeeper.ZooKeeperException,
            type(exceptions.for_code(-99999, "x")))

    def test_version(self):
        self.assertRegex(zookeeper.__version__, r"^\d\.\d\.\d")
        self.assertEqual(constants.__version__, zookeeper.__version__)


def _name(exception):
    """Return the name of an exception's return code."""
    return exception.__name__.removesuffix("Exception").upper()


class MissingTest(unittest.TestCase):
    PROGRAM = """
import sys
from nova_sg.zookeeper import clib
clib.SONAME = "libnot_there.so.2"
from nova_sg import evzookeeper, zookeeper
zookeeper.PERM_ALL, zookeeper.NoNodeException, evzookeeper.ZKSession
for call in (lambda: zookeeper.init("127.0.0.1:1"),
             lambda: zookeeper.zerror(0),
             lambda: zookeeper.set_debug_level(1),
             lambda: zookeeper.set_log_stream(sys.stdout),
             lambda: zookeeper.deterministic_conn_order(1),
             lambda: zookeeper.init_ssl("", "")):
    try:
        call()
    except zookeeper.LibraryNotFound as exc:
        assert isinstance(exc, ImportError)
        print(exc)
    else:
        sys.exit(1)
"""

    def test_one_clear_error_when_used(self):
        status, output, _ = base.run_python(self.PROGRAM)
        self.assertEqual(0, status, output)
        self.assertEqual(1, len(set(output.splitlines())), output)
        self.assertIn("libzookeeper-mt2", output)
        self.assertIn("libnot_there.so.2", output)

    def test_without_cffi(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "cffi.py")
            with open(path, "w") as module:
                module.write("raise ImportError('no cffi')")
            status, output, _ = base.run_python(
                f"import sys\nsys.path.insert(0, {folder!r})\n"
                + self.PROGRAM)
        self.assertEqual(0, status, output)
        self.assertIn("cffi is not installed", output)
        self.assertTrue(re.search("libzookeeper-mt2", output))


if __name__ == "__main__":
    unittest.main()
