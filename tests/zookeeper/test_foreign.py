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

"""What threads that are not Python's may do with the C library."""

import unittest

from nova_sg.zookeeper import clib, dispatch, offhub
from tests.base import wait_for


class ForeignThreadTest(unittest.TestCase):
    def test_the_library_is_used_without_a_lock(self):
        """Under eventlet it would be a green one; see clib.py."""
        library = clib.load()
        dispatch.start()
        found = []

        def use():
            for name in ("zookeeper_init", "zoo_state", "zoo_delete",
                         "zookeeper_close", "ZOO_CONNECTED_STATE"):
                getattr(library.zk, name)
            library.libc.usleep(1)
            return True

        # Starting a thread is Python's own business, and may wait.
        offhub.run(lambda: True, found.append)
        wait_for(lambda: found, message="a first job has ended")
        found.clear()
        # The lock under which cffi looks up what it does not know yet.
        with library.ffi._lock:
            offhub.run(use, found.append)
            wait_for(lambda: found, message="the job has ended")
