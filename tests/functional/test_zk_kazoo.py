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

"""The tests of the zk driver on kazoo's transport.

Each runs in one mode, as the modes differ below the driver, where the tests
of evzookeeper run in both. What depends on the client the least is in the long
form alone.
"""

import time

import tests
from nova_sg.conf import CONF
from tests import green_mode, long_form, single_mode
from tests.base import wait_for
from tests.functional import (
    test_deleted,
    test_guard,
    test_health,
    test_locks,
    test_metrics,
    test_names,
    test_permission,
    test_restarts,
    test_stale,
    test_unwell,
    test_zk_failures,
    test_zk_group,
    test_zk_load,
    zk,
)


class _Kazoo:
    CLIENT = "kazoo"


@green_mode
class GroupTest(_Kazoo, test_zk_group.GroupTest):
    pass


@single_mode
class AccessTest(_Kazoo, test_zk_group.AccessTest):
    def test_the_digest_is_not_logged(self):
        """kazoo logs each request at DEBUG, also those with passwords."""
        self.join("one")
        self.wait_until_up("one")
        self.assertTrue(self.logs.matching("Zookeeper connection established"))
        self.assertEqual([], self.logs.matching("secret"))


@long_form
@green_mode
class HostileTest(_Kazoo, test_zk_group.HostileTest):
    pass


@long_form
@green_mode
class ManyProcessesTest(_Kazoo, test_zk_group.ManyProcessesTest):
    pass


@single_mode
class MemberFailureTest(_Kazoo, test_zk_failures.MemberFailureTest):
    test_a_member_whose_python_stands_still_stays_up = None

    def test_a_member_whose_python_stands_still_comes_back(self):
        """kazoo cannot ping meanwhile: what the C client is there for."""
        member = self.start_member("one")
        before = self.znodes()
        with zk.Poller(self.api, "one") as poller:
            begun = time.monotonic()
            member.tell("freeze 9")
            self.wait_until_down("one")
            down = time.monotonic() - begun
            self.assertNotIn("done", member.output())
            member.expect("done: freeze")
            over = time.monotonic()
            wait_for(
                lambda: poller.states[-1] == "up", message="it is up again"
            )
            up = time.monotonic() - over
        zk.print_figure(
            f"interpreter lock held for 9 s: down after {down:.1f} s, up "
            f"{up:.1f} s after that"
        )
        self.assertEqual(["up", "down: one", "up"], poller.states)
        self.assertNotEqual(before, self.znodes())


@green_mode
class WatchdogTest(_Kazoo, test_zk_failures.WatchdogTest):
    # kazoo's threads are green, too.
    KEEPS_SESSION = False


@long_form
@green_mode
class EnsembleFailureTest(_Kazoo, test_zk_failures.EnsembleFailureTest):
    pass


@single_mode
class OutageTest(_Kazoo, test_zk_failures.OutageTest):
    pass


@long_form
@green_mode
class LeakTest(_Kazoo, test_zk_load.LeakTest):
    pass


@long_form
@single_mode
class CrowdTest(_Kazoo, test_zk_load.CrowdTest):
    pass


@long_form
@green_mode
class QuestionsTest(_Kazoo, test_zk_load.QuestionsTest):
    pass


@single_mode
class GuardTest(_Kazoo, test_guard.ZkTest):
    pass


@long_form
@green_mode
class RestartsTest(_Kazoo, test_restarts.ZkTest):
    pass


@long_form
@single_mode
class LocksTest(_Kazoo, test_locks.ZkTest):
    pass


@long_form
@green_mode
class HealthTest(_Kazoo, test_health.ZkTest):
    pass


@long_form
@single_mode
class NamesTest(_Kazoo, test_names.ZkTest):
    pass


@long_form
@green_mode
class DeletedTest(_Kazoo, test_deleted.ZkTest):
    pass


@long_form
@single_mode
class PermissionTest(_Kazoo, test_permission.ZkTest):
    pass


@long_form
@single_mode
class UnwellTest(_Kazoo, test_unwell.ZkTest):
    pass


@long_form
@green_mode
class StaleTest(_Kazoo, test_stale.ZkTest):
    pass


@single_mode
class OptionsTest(_Kazoo, zk.ZkTestCase):
    def test_ipv6(self):
        """An IPv6 address has brackets for kazoo, and none for C."""
        self.flags("zookeeper", address="[::1]:1,127.0.0.1:1")
        self.join("one")
        wait_for(
            lambda: self.logs.matching(
                "ZooKeeper at [::1]:1,127.0.0.1:1: no server is connected: "
            ),
            message="both are tried",
        )

    def test_a_path_that_does_not_exist_is_created(self):
        address = f"{CONF.zookeeper.address}{self.prefix}/below"
        self.flags("zookeeper", address=address)
        self.join("one")
        self.wait_until_up("one")


if tests.MODE == "threads":

    class MetricsTest(_Kazoo, test_metrics.SessionTest):
        pass
