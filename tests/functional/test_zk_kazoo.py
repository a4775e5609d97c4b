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

"""The tests of the zk driver on kazoo's transport."""

import tests
from tests.functional import test_zk_failures, test_zk_group


class _Kazoo:
    CLIENT = "kazoo"


class GroupTest(_Kazoo, test_zk_group.GroupTest):
    pass


class AccessTest(_Kazoo, test_zk_group.AccessTest):
    pass


class ManyProcessesTest(_Kazoo, test_zk_group.ManyProcessesTest):
    pass


class MemberFailureTest(_Kazoo, test_zk_failures.MemberFailureTest):
    test_a_member_whose_python_stands_still_stays_up = None


class WatchdogTest(_Kazoo, test_zk_failures.WatchdogTest):
    # kazoo's threads are green, too.
    KEEPS_SESSION = tests.MODE == "threads"


class EnsembleFailureTest(_Kazoo, test_zk_failures.EnsembleFailureTest):
    pass


class OutageTest(_Kazoo, test_zk_failures.OutageTest):
    pass
