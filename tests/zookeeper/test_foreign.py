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

"""Threads that Python did not start, and the C library."""

import unittest

from nova_sg.zookeeper import clib, dispatch, offhub
from tests.base import wait_for


class ForeignThreadTest(unittest.TestCase):
    def test_the_library_is_used_without_a_lock(self):
        """Under eventlet a lock would be green; see clib.py."""
        library = clib.load()
        dispatch.start()
        found = []

        def use():
            for name in ("zookeeper_init", "zoo_state", "zoo_delete",
                         "zookeeper_close", "ZOO_CONNECTED_STATE"):
                getattr(library.zk, name)
            library.libc.usleep(1)
            return True

        # The first job starts the thread, for which Python may take locks.
        offhub.run(lambda: True, found.append)
        wait_for(lambda: found, message="a first job has ended")
        found.clear()
        # cffi takes this lock to look up a function for the first time.
        with library.ffi._lock:
            offhub.run(use, found.append)
            wait_for(lambda: found, message="the job has ended")
