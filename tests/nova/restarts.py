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

"""Tests of a compute that is stopped and started again, or dies.

What a client and an operator see is polled meanwhile, and a rule like that of
InstanceHA is applied to it.
"""

import datetime
import threading
import time
from concurrent import futures

from nova_sg.conf import servicegroup
from tests.fixtures import process
from tests.fixtures.novarig import cloud as novarig
from tests.nova import base

# Seconds between the refreshes of an observer.
REFRESH = next(
    opt.default
    for opt in servicegroup.SERVICEGROUP_OPTS
    if opt.name == "view_refresh_interval"
)

#: A busy machine may take far longer than service_down_time for a restart.
OPTIONS = """\
[DEFAULT]
# Up to 20 s of these are kept for other work than waiting for a build.
manager_shutdown_timeout = 80
graceful_shutdown_timeout = 90
[servicegroup]
restart_grace = 120
crash_grace = 6
"""


class Polling(threading.Thread):
    """Calls poll() again and again inside a with statement.

    :param gap: seconds between two polls
    """

    def __init__(self, cloud, gap):
        super().__init__(daemon=True)
        self._cloud = cloud
        self._gap = gap
        self._over = threading.Event()
        self._error = None
        self.polls = 0

    def run(self):
        try:
            while not self._over.wait(self._gap):
                self.poll()
                self.polls += 1
        except Exception as error:
            self._error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self.join()
        if self._error is not None:
            raise self._error

    def services(self):
        """Return what GET /os-services lists: computes, by their hosts."""
        answer = self._cloud.get("/os-services?binary=nova-compute")
        return {one["host"]: one for one in answer["services"]}


class Fencing(Polling):
    """Fences a compute that is listed down at two polls."""

    def __init__(self, cloud, gap):
        super().__init__(cloud, gap)
        self._down = set()
        #: When it fenced the compute, of time.monotonic().
        self.fenced = []

    def poll(self):
        found = self.services()
        down = {host for host in found if found[host]["state"] == "down"}
        if down & self._down:
            self.fenced.append(time.monotonic())
        self._down = down


class Questions(Polling):
    """Asks what a restart must not change.

    :param evacuated: an instance that an operator tries to evacuate
    """

    def __init__(self, cloud, evacuated):
        super().__init__(cloud, 0.1)
        self._evacuated = evacuated
        #: The states of the compute.
        self.states = []
        #: When, and how many seconds old its updated_at was then.
        self.ages = []
        #: The answers to "evacuate".
        self.evacuations = []
        #: When the scheduler was asked where to build, and its answer.
        self.placed = []

    def poll(self):
        service = self.services()[novarig.COMPUTE_HOST]
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        updated = datetime.datetime.fromisoformat(service["updated_at"])
        self.states.append(service["state"])
        self.ages.append((time.monotonic(), (now - updated).total_seconds()))
        if self.polls % 5 == 0:
            asked = time.monotonic()
            self.placed.append((asked, self._cloud.select_host()))
            self.evacuations.append(
                self._cloud.act(self._evacuated, "evacuate", {})
            )


class Restarting:
    """What the tests share."""

    #: Seconds for which a build goes on after SIGTERM, at least.
    BUILD = 4

    @property
    def _gap(self):
        """Seconds between two polls of the fencing rule: InstanceHA's 15."""
        return self.cloud.service_down_time / 4

    def _restart(self, building=False, killed=False):
        """Stop the compute and start it again.

        :param building: whether it builds an instance meanwhile
        :param killed: whether it is killed while it waits for that
        """
        cloud = self.cloud
        self._wait_until_used()
        with cloud.instances():
            evacuated, draining, stopped = (
                cloud.make_instance() for _ in range(3)
            )
            built = self._begin_build() if building else None
            with (
                futures.ThreadPoolExecutor(1) as pool,
                Questions(cloud, evacuated) as questions,
            ):
                begun = time.monotonic()
                stopping = pool.submit(cloud.compute.stop)
                # Its RPC server has stopped, or does so now.
                cloud.delete(draining)
                if killed:
                    self._wait_until_avoided(questions, begun)
                    self.assertTrue(cloud.compute.is_running)
                    cloud.compute.kill()
                elif building:
                    self._wait_for_build(built)
                stopping.result()
                ended = time.monotonic()
                cloud.delete(stopped)
                # Deleted locally, it would be gone now. The other one may have
                # reached the compute before its RPC server was closed.
                waits = ("active", "deleting", False)
                self.assertEqual(waits, cloud.record(stopped))
                if cloud.record(draining) != waits:
                    self.assertTrue(cloud.deleted_by_compute(draining))
                # Long enough for a few answers.
                before = len(questions.evacuations)
                process.wait_for(
                    lambda: len(questions.evacuations) > before + 1,
                    message="the API answers while the compute is stopped",
                )
                starts = time.monotonic()
                self.restart_compute()
                self._wait_until_used()
            for instance in (draining, stopped):
                process.wait_for(
                    lambda instance=instance: cloud.record(instance)[2],
                    message="the compute deletes the instance",
                )
        self._check(questions, begun, ended, starts)

    def _begin_build(self):
        cloud = self.cloud
        # It may take a while until SIGTERM.
        built = cloud.build(self.BUILD + 2)
        process.wait_for(
            lambda: cloud.record(built)[:2] == ("building", "spawning"),
            message="the compute builds",
        )
        return built

    def _wait_until_avoided(self, questions, begun):
        process.wait_for(
            lambda: any(
                asked > begun and host is None
                for asked, host in questions.placed
            ),
            message="the scheduler avoids the compute",
        )

    def _wait_for_build(self, built):
        cloud = self.cloud
        self.assertEqual("spawning", cloud.record(built)[1])
        process.wait_for(
            lambda: cloud.record(built)[0] != "building",
            message="the build ends",
        )
        self.assertEqual(("active", None, False), cloud.record(built))
        self.assertTrue(cloud.compute.is_running, "it has waited")

    def _check(self, questions, begun, ended, starts):
        """Check what was seen.

        :param begun: when the compute got SIGTERM
        :param ended: when its process had ended
        :param starts: when the next process was started
        """
        self.assertEqual(
            {"up"},
            set(questions.states),
            f"ended after {ended - begun:.1f} s, started again after "
            f"{starts - begun:.1f} s; seconds after SIGTERM, state, age of "
            "updated_at: "
            + ", ".join(
                f"{moment - begun:.1f} {state} {age:.1f}"
                for state, (moment, age) in zip(
                    questions.states, questions.ages, strict=True
                )
            ),
        )
        for status, text in questions.evacuations:
            self.assertEqual(400, status, text)
            self.assertIn("is still in use", text)
        avoided = min(
            (asked for asked, host in questions.placed if host is None),
            default=float("inf"),
        )
        # A record cannot have that it drains, only that it has left.
        since = ended if self.DRIVER == "db" else begun
        self.assertLess(avoided, since + 1 + base.SLACK)
        # From then on it is avoided until it is back.
        answers = [
            host
            for asked, host in questions.placed
            if avoided <= asked < starts
        ]
        self.assertEqual([None] * len(answers), answers)
        self.assertGreater(len(answers), 0)
        waiting = max(age for moment, age in questions.ages if moment < ended)
        oldest = max(age for _, age in questions.ages)
        # It reports until its end.
        due = 2 * self.cloud.report_interval + REFRESH + base.SLACK
        self.assertLess(waiting, due)
        print(
            f"{self.DRIVER} {self.MODE}: restarted; SIGTERM to the end "
            f"{ended - begun:.1f} s, avoided after {avoided - begun:.1f} s, "
            f"asked {len(questions.states)} times, never down; updated_at "
            f"{waiting:.1f} s old at most until the end, {oldest:.1f} s later"
        )

    def _wait_until_used(self):
        process.wait_for(
            lambda: self.cloud.select_host() == novarig.COMPUTE_HOST,
            message="the scheduler takes the compute",
        )

    def _die(self, guarded):
        """Kill the compute; return seconds until it was down and fenced."""
        cloud = self.cloud
        bound = cloud.service_down_time
        if self.DRIVER == "zk" and not guarded:
            bound = novarig.SESSION_TIMEOUT / 1000
        bound += REFRESH + 1 + base.SLACK
        with Fencing(cloud, self._gap) as fencing:
            process.wait_for(lambda: fencing.polls, message="it is polled")
            cloud.compute.kill()
            begun = time.monotonic()
            down = cloud.wait_for_state("nova-compute", "down", bound + 30)
            self.assertLess(down, bound)
            process.wait_for(
                lambda: fencing.fenced,
                2 * self._gap + 30,
                "the dead host is fenced",
            )
            fenced = fencing.fenced[0] - begun
        self.assertLess(fenced, bound + 2 * self._gap + base.SLACK)
        print(
            f"{self.DRIVER} {self.MODE}: killed, guard "
            f"{'on' if guarded else 'off'}; down after {down:.1f} s, fenced "
            f"after {fenced:.1f} s"
        )
        return down, fenced

    def _guard(self):
        """Start the compute again with a crash guard."""
        cloud = self.cloud
        cloud.configure(
            "compute", self.DRIVER, "[servicegroup]\ncrash_guard = true\n"
        )
        self.addCleanup(cloud.configure, "compute", self.DRIVER)
        cloud.compute.kill()
        self.restart_compute()
        # The next test starts it again with its own configuration.
        self.addCleanup(cloud.compute.kill)


class CleanRestart(Restarting):
    def test_a_clean_restart(self):
        """Nothing is done to its instances; the scheduler avoids it."""
        with Fencing(self.cloud, self._gap) as fencing:
            self._restart()
        self.assertEqual([], fencing.fenced)


class RestartAfterADeath(Restarting):
    def test_a_clean_restart_after_a_death(self):
        """That the compute was down once does not matter any more."""
        self.cloud.compute.kill()
        self.cloud.wait_for_state("nova-compute", "down")
        self.restart_compute()
        self.cloud.wait_for_state("nova-compute", "up")
        self._restart()


class RestartDuringABuild(Restarting):
    def test_a_restart_during_a_build(self):
        """The build is done, and the same holds while the compute waits."""
        with Fencing(self.cloud, self._gap) as fencing:
            self._restart(building=True)
        self.assertEqual([], fencing.fenced)


class KilledWhileItDrains(Restarting):
    def test_killed_while_it_drains(self):
        """The same, as systemd kills it if a build takes too long."""
        with Fencing(self.cloud, self._gap) as fencing:
            self._restart(building=True, killed=True)
        self.assertEqual([], fencing.fenced)


class GuardedDeath(Restarting):
    def test_a_death_that_a_guard_sees(self):
        """It may be starting again, for crash_grace; then it is down."""
        self._guard()
        self._die(guarded=True)


class DefaultTimes(Restarting):
    """The same at the times that Nova has by default."""

    RESTARTS = 10
    BUILD = 20
    SETTINGS = {
        "report_interval": 10,
        "service_down_time": 60,
        "options": base.QUIET
        + "[DEFAULT]\n"
        "manager_shutdown_timeout = 160\n"
        "graceful_shutdown_timeout = 180\n",
    }

    def setUp(self):
        super().setUp()
        # It waits for a build for up to manager_shutdown_timeout.
        self.cloud.compute.STOP_TIMEOUT = 200

    def test_restarts_and_deaths(self):
        with Fencing(self.cloud, self._gap) as fencing:
            for number in range(self.RESTARTS):
                self._restart(building=number % 2 == 1)
            if self.DRIVER != "db":
                # A record cannot have that it drains.
                self._restart(building=True, killed=True)
        self.assertEqual([], fencing.fenced)
        self.assertGreater(fencing.polls, self.RESTARTS)
        print(
            f"{self.DRIVER} {self.MODE}: {self.RESTARTS} restarts, "
            f"{fencing.polls} polls, fenced: 0"
        )
        self._die(guarded=False)
        self.restart_compute()
        if self.DRIVER != "db":
            self._guard()
            self._die(guarded=True)
