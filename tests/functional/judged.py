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

"""Asking about one member, for tests of several drivers."""

from nova_sg import servicegroup
from tests.base import wait_for

MEMBER = {"topic": "compute", "host": "one"}


class Judged:
    """Asks about the member "one"; for a test case with a driver."""

    def setUp(self):
        super().setUp()
        self.start_backend()
        self.api = servicegroup.API()

    def start_backend(self):
        pass

    def judged(self):
        """Return the cause, whether it is up, and whether it accepts work."""
        member = self.api.member("compute", "one")
        return (
            member.cause,
            self.api.service_is_up(MEMBER),
            self.api.accepts(MEMBER),
        )

    def wait_for_verdict(self, *verdict):
        wait_for(lambda: self.judged() == verdict, message=self.judged)
