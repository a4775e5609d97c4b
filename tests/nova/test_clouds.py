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


"""A real Nova, with each driver.

Each class here is one Nova with its tests. The tests themselves are in
services, processes, several, unknown and computes. A Nova takes long to
start, so the short form has few of them: each driver once, each of Nova's
concurrency modes twice. The long form adds all other combinations, and stock
Nova.
"""

import tests
from tests.nova import (
    base,
    computes,
    health,
    processes,
    restarts,
    services,
    several,
    unknown,
)


class DbTest(
    services.Services,
    services.WaitingHeartbeat,
    computes.Computes,
    base.CloudTestCase,
):
    DRIVER, MODE = "db", "threads"


class McTest(
    processes.Processes,
    services.Services,
    services.Elsewhere,
    base.CloudTestCase,
):
    DRIVER, MODE = "mc", "threads"
    # Down at once, to tell leaving from silence.
    GRACE = 0
    SETTINGS = processes.Processes.SETTINGS | {
        "options": f"{base.QUIET}[servicegroup]\nrestart_grace = {GRACE}\n"
    }


class McRestartTest(
    health.Health,
    restarts.RestartDuringABuild,
    restarts.GuardedDeath,
    base.CloudTestCase,
):
    DRIVER, MODE = "mc", "eventlet"
    SETTINGS = {"options": base.QUIET + restarts.OPTIONS}


@tests.long_form
class DbRestartTest(
    restarts.CleanRestart,
    restarts.RestartDuringABuild,
    base.CloudTestCase,
):
    DRIVER, MODE = "db", "threads"
    SETTINGS = {"options": base.QUIET + restarts.OPTIONS}


class ZkTest(
    services.Services,
    services.WithoutControl,
    services.Elsewhere,
    processes.Forks,
    base.CloudTestCase,
):
    DRIVER = "zk"
    # The harder mode for forks: between two requests no green thread runs.
    MODE = "eventlet"
    SETTINGS = {"server": "uwsgi"}


class SeveralTest(
    restarts.CleanRestart,
    restarts.KilledWhileItDrains,
    restarts.RestartAfterADeath,
    several.Several,
    base.CloudTestCase,
):
    DRIVER, MODE = "zk", "threads"
    SETTINGS = {
        "options": several.Several.OPTIONS
        + restarts.OPTIONS
        # So ZooKeeper's answer is fresh, as with Nova's default times: most
        # questions need no record.
        + "view_refresh_interval = 1\n"
    }


@tests.long_form
class ZkHealthTest(health.Health, base.CloudTestCase):
    DRIVER, MODE = "zk", "threads"
    SETTINGS = {"options": base.QUIET + restarts.OPTIONS}


class McUnknownTest(unknown.Deleted, unknown.Unknown, base.CloudTestCase):
    DRIVER, MODE = "mc", "threads"


@tests.long_form
class ZkUnknownTest(unknown.Deleted, unknown.Unknown, base.CloudTestCase):
    DRIVER, MODE = "zk", "eventlet"


@tests.long_form
class LazyTest(processes.Forks, base.CloudTestCase):
    """An API of which each worker loads the application by itself."""

    DRIVER, MODE = "zk", "threads"
    SETTINGS = {"server": "uwsgi-lazy"}


class KilledAndWaitingHeartbeat(services.WaitingHeartbeat, services.Killed):
    """The tests that stock Nova passes, too."""


class ServicesAndWithoutControl(services.WithoutControl, services.Services):
    """All tests of a driver that needs no conductor."""


class ServicesAndWaitingHeartbeat(
    services.WaitingHeartbeat, services.Services, computes.Computes
):
    """All tests of a driver that reports by conductor."""


base.make_variants(
    globals(),
    ServicesAndWithoutControl,
    [("mc", "threads"), ("mc", "eventlet"), ("zk", "threads")],
)
base.make_variants(
    globals(), ServicesAndWaitingHeartbeat, [("db", "eventlet")]
)
base.make_variants(
    globals(),
    processes.Processes,
    [
        ("db", "threads"),
        ("db", "eventlet"),
        ("mc", "eventlet"),
        ("zk", "threads"),
        ("zk", "eventlet"),
    ],
)
base.make_variants(globals(), several.Several, [("zk", "eventlet")])
base.make_variants(
    globals(),
    restarts.DefaultTimes,
    [
        ("db", "threads"),
        ("db", "eventlet"),
        ("mc", "threads"),
        ("mc", "eventlet"),
        ("zk", "threads"),
        ("zk", "eventlet"),
    ],
)
# Stock Nova, to compare with.
base.make_variants(
    globals(),
    KilledAndWaitingHeartbeat,
    [("stock", "threads"), ("stock", "eventlet")],
)
