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

"""No question waits for a backend: all answers come from memory."""

import time
from unittest import mock

from nova_sg import exception, servicegroup
from nova_sg.servicegroup import process, reporter
from tests import base
from tests.functional import db, test_several

#: Seconds that a question takes at most.
BOUND = 0.05


class _Tests:
    def quickest(self, question):
        def measure():
            begun = time.monotonic()
            question()
            return time.monotonic() - begun

        return base.quickest(measure, BOUND)

    def check_questions(self):
        """Check that no kind of question waits."""
        api = self.api
        for name, question in {
            "is up": lambda: self.is_up("one"),
            "is not up": lambda: self.is_up("none"),
            "get_all": lambda: api.get_all("compute"),
            "members": lambda: api.members("compute"),
            "member": lambda: api.member("compute", "one"),
            "opinions": lambda: api.backend_states("compute", "one"),
            "get_updated_time": lambda: api.get_updated_time(
                {"host": "one", "topic": "compute", "updated_at": None}
            ),
            "another API": lambda: servicegroup.API().get_all("compute"),
        }.items():
            with self.subTest(name):
                self.assertLess(self.quickest(question), BOUND)

    def wait_until_a_refresh_hangs(self, number=0):
        """Wait until a refresh of the observer hangs."""
        observer = process.shared().view("compute").observer
        base.wait_for(lambda: observer._pollers[number].is_refreshing)


class DatabaseTest(_Tests, db.MariaDBTestCase):
    # The driver waits for an answer for a quarter of it.
    DOWN_TIME = 40.0

    def test_no_question_waits_while_the_database_hangs(self):
        self.join("one")
        self.assertTrue(self.is_up("one"))
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        self.wait_until_a_refresh_hangs()
        with mock.patch.object(reporter, "JOIN_WAIT", 0.1):
            self.join("two")
        self.check_questions()
        self.assertTrue(self.is_up("one"))


class SecondaryTest(_Tests, test_several.SeveralTestCase):
    def test_no_question_waits_while_the_secondary_hangs(self):
        # So long that a request to it hangs until the test ends.
        self.flags("memcache", socket_timeout=3600)
        self.join("one")
        self.assertTrue(self.is_up("one"))
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        self.wait_until_a_refresh_hangs(1)
        self.check_questions()
        # This process knows its own actions at once.
        self.api.force_down("one", "compute")
        self.assertFalse(self.is_up("one"))
        # The secondary may know that it is forced down, and so may others.
        with self.assertRaisesRegex(
            exception.BackendError, "Backend mc missed the command"
        ):
            self.api.force_down("one", "compute", forced=False)
        self.assertFalse(self.is_up("one"))
        self.server.thaw()
        self.api.force_down("one", "compute", forced=False)
        self.assertTrue(self.is_up("one"))
