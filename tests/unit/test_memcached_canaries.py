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


"""What an observer takes for a server that was wiped."""

import concurrent.futures
import unittest

from nova_sg.backends.memcached import canaries
from nova_sg.conf import CONF

GROUP = "compute"


class Server:
    """A server that stores nothing, or answers that it did."""

    def __init__(self):
        self.requests = []

    def set(self, key, value, expire):
        self.requests.append(concurrent.futures.Future())
        return self.requests[-1]

    def store(self):
        self.requests[-1].set_result(None)


class CanariesTest(unittest.TestCase):
    def setUp(self):
        super().setUp()
        CONF([], project="nova-sg", default_config_files=[])
        self.addCleanup(CONF.reset)
        self.servers = [Server(), Server()]
        self.canaries = canaries.Canaries()
        self.canaries.key(GROUP)
        self.now = 100.0

    def refresh(self, *found):
        """Refresh; each server has the canary, has not, or does not answer.
        """
        self.now += 10.0
        answers = dict(zip(self.servers, found, strict=True))
        self.canaries.refreshed(
            GROUP,
            self.now,
            self.servers,
            {s: one for s, one in answers.items() if one is not None},
        )
        return self.canaries.wiped(GROUP, 0.0)

    def begin(self):
        self.assertIsNone(self.refresh(False, False))
        self.assertEqual([], self.servers[0].requests)
        self.assertIsNone(self.refresh(False, False))
        for server in self.servers:
            server.store()

    def test_all_servers_were_wiped(self):
        self.begin()
        self.assertIsNone(self.refresh(True, True))
        found = self.refresh(False, False)
        self.assertEqual((130.0, 140.0), found[:2])
        for server in self.servers:
            server.store()
        # Again without a pause.
        self.assertEqual((130.0, 150.0), self.refresh(False, False)[:2])
        self.assertIsNone(self.canaries.wiped(GROUP, 150.0))
        for server in self.servers:
            server.store()
        self.refresh(True, True)
        self.assertEqual((160.0, 170.0), self.refresh(False, False)[:2])

    def test_one_server_may_have_the_reports(self):
        for found in (True, False), (None, False), (None, None):
            with self.subTest(found=found):
                self.setUp()
                self.begin()
                self.assertIsNone(self.refresh(*found))

    def test_a_server_that_has_not_stored_it_says_nothing(self):
        self.refresh(False, False)
        self.refresh(False, False)
        self.servers[0].store()
        self.assertIsNone(self.refresh(False, False))
