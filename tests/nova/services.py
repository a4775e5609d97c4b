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


"""Tests of services that join and leave, by the API and the scheduler."""

import datetime
import time

from nova_sg.conf import servicegroup
from tests.fixtures import nova, process
from tests.fixtures.novarig import cloud as novarig
from tests.fixtures.novarig import proc
from tests.nova import base

# Seconds between the refreshes of an observer.
REFRESH = next(
    opt.default
    for opt in servicegroup.SERVICEGROUP_OPTS
    if opt.name == "view_refresh_interval"
)

# The compute's name in Nova's messages.
SERVICE = f"Compute service of {novarig.COMPUTE_HOST}"
# What a service of Nova on eventlet logs when it starts.
MODE_LINE = "Eventlet based concurrency"


class Killed:
    """What Nova lists, and does, after a compute was killed."""

    def _bound(self):
        """Return the seconds within which a killed member is listed down."""
        if self.DRIVER == "zk":
            return novarig.SESSION_TIMEOUT / 1000 + 1
        down_time = self.cloud.service_down_time
        return down_time + (REFRESH if self.DRIVER == "mc" else 0) + 1

    def _evacuate(self, instance):
        return self.cloud.act(instance, "evacuate", {})

    def _live_migrate(self, instance):
        return self.cloud.act(
            instance,
            "os-migrateLive",
            {"host": None, "block_migration": "auto"},
        )

    def test_killed_and_started_again(self):
        cloud = self.cloud
        self.assertEqual(
            novarig.COMPUTE_HOST,
            process.wait_for(
                cloud.select_host, message="the scheduler finds the compute"
            ),
        )
        with cloud.instance() as instance:
            self.assertEqual(
                (400, f"{SERVICE} is still in use."), self._evacuate(instance)
            )
            status, text = self._live_migrate(instance)
            self.assertEqual(400, status)
            self.assertIn("No valid host", text)
            cloud.compute.kill()
            took = cloud.wait_for_state("nova-compute", "down")
            self.assertLess(took, self._bound() + base.SLACK)
            # The scheduler is another process with its own observer.
            process.wait_for(
                lambda: cloud.select_host() is None,
                REFRESH + base.SLACK,
                "the scheduler refuses the compute",
            )
            # Conductor is the one that asks, with its own observer, too.
            process.wait_for(
                lambda: (
                    self._live_migrate(instance)
                    == (400, f"{SERVICE} is unavailable at this time.")
                ),
                message="conductor refuses to migrate from the compute",
            )
            self.assertEqual((200, ""), self._evacuate(instance))
        came = self.restart_compute()
        if not self.DRIVER.startswith("stock"):
            # Nova's first report comes five seconds after it has joined.
            self.assertLess(came, REFRESH + base.SLACK - 0.5)
        self.assertEqual(
            novarig.COMPUTE_HOST,
            process.wait_for(
                cloud.select_host, message="the scheduler takes the compute"
            ),
        )
        print(
            f"{self.DRIVER} {self.MODE}: killed, listed down after "
            f"{took:.1f} s; joined, listed up after {came:.1f} s"
        )


class Services(Killed):
    """Tests of one driver in one mode."""

    #: For how many seconds a stopped service may be about to start again;
    #: None: service_down_time, the default.
    GRACE = None

    def test_a_service_that_stops_cleanly_is_down_after_the_grace(self):
        cloud = self.cloud
        begun = time.monotonic()
        cloud.compute.stop()
        took = cloud.wait_for_state("nova-compute", "down")
        # If it were known by its silence, it would take at least
        # service_down_time less the interval of one report.
        silence = cloud.service_down_time - cloud.report_interval
        if self.GRACE is None:
            # It counts from the last refresh before it left.
            self.assertGreater(
                time.monotonic() - begun, cloud.service_down_time - REFRESH
            )
            bound = cloud.service_down_time + REFRESH + base.SLACK
            self.assertLess(took, bound)
        else:
            self.assertLess(took, self.GRACE + silence - 0.5)
        [service] = cloud.get("/os-services?binary=nova-compute")["services"]
        self.assertIsNotNone(service["updated_at"])
        print(
            f"{self.DRIVER} {self.MODE}: stopped, listed down after "
            f"{took:.1f} s"
        )

    def test_updated_at_grows_with_reports(self):
        seen = [self._last_seen() for _ in range(2)]

        def grows():
            seen.append(self._last_seen())
            return seen[-1] > seen[0]

        process.wait_for(grows, message=lambda: f"updated_at grows: {seen}")
        age = datetime.datetime.now(datetime.UTC) - seen[-1]
        self.assertLess(abs(age.total_seconds()), self.cloud.service_down_time)

    def _last_seen(self):
        answer = self.cloud.get("/os-services?binary=nova-compute")
        [service] = answer["services"]
        if service["updated_at"] is None:
            # The record is new and has no report yet.
            return datetime.datetime.min.replace(tzinfo=datetime.UTC)
        moment = datetime.datetime.fromisoformat(service["updated_at"])
        return moment.replace(tzinfo=datetime.UTC)

    def test_how_many_statements_a_heartbeat_takes(self):
        """It counts the statements that write records, while all report."""
        mariadb = self.cloud.site.mariadb
        mariadb.execute("SET GLOBAL log_output = 'TABLE'")
        mariadb.execute("TRUNCATE mysql.general_log")
        mariadb.execute("SET GLOBAL general_log = 1")
        try:
            if self.DRIVER in ("mc", "zk"):
                time.sleep(5)
                self.assertEqual(0, _updates(mariadb))
            else:
                process.wait_for(
                    lambda: _updates(mariadb) > 5,
                    message="the services report",
                )
        finally:
            mariadb.execute("SET GLOBAL general_log = 0")

    def test_processes_have_few_connections(self):
        """Processes that report and ask have few connections."""
        cloud = self.cloud
        # Nova's computes have no access to the database.
        self.assertEqual(
            0, proc.connections(cloud.compute.pid, {cloud.site.mariadb.port})
        )
        if self.DRIVER == "db":
            return
        if self.DRIVER == "mc":
            servers = cloud.site.memcached
        else:
            servers = cloud.site.zookeeper.servers
        ports = {server.port for server in servers}
        expected = len(servers) if self.DRIVER == "mc" else 1
        self.assert_every_worker_lists("up")
        for pid in (cloud.compute.pid, *cloud.api_workers):
            self.assertEqual(expected, proc.connections(pid, ports))

    def test_no_module_is_imported_before_the_patching(self):
        cloud = self.cloud
        # Nova 31 does not.
        says_mode = MODE_LINE in nova.source("monkey_patch.py")
        for service in cloud.services:
            found = base.log_lines(service, "imported prior to")
            self.assertEqual([], found, service)
            if says_mode:
                green = base.log_lines(service, MODE_LINE)
                self.assertEqual(self.MODE == "eventlet", bool(green), service)


def _updates(mariadb):
    # Only statements that write.
    [[count]] = mariadb.execute(
        "SELECT COUNT(*) FROM mysql.general_log "
        "WHERE argument LIKE 'UPDATE services%%'"
    )
    return count


class WithoutControl:
    """Tests of drivers that need neither conductor nor RabbitMQ."""

    def test_rabbitmq_and_conductor_stop(self):
        cloud = self.cloud
        silence = cloud.service_down_time + REFRESH + 1
        cloud.site.rabbitmq.stop()
        self.assert_stays(
            "up", ("nova-conductor", "nova-scheduler", "nova-compute"), silence
        )
        cloud.site.rabbitmq.start()
        cloud.conductor.kill()
        self.assert_stays("up", ("nova-scheduler", "nova-compute"), silence)
        # No service reports by conductor, so none waits for its answer.
        self.assertEqual(0, cloud.messages("conductor"))
        # A compute that is killed now is down nevertheless. It does not rise
        # when conductor works off the messages that wait for it.
        cloud.compute.kill()
        cloud.wait_for_state("nova-compute", "down")
        cloud.conductor.start()
        cloud.wait_for_state("nova-conductor", "up")
        self.assert_stays("down", ["nova-compute"], 5)


class WaitingHeartbeat:
    """A heartbeat that reaches conductor after its sender's end."""

    def test_killed_while_its_heartbeat_waits(self):
        cloud = self.cloud
        cloud.conductor.kill()
        process.wait_for(
            lambda: cloud.messages("conductor"),
            message="a heartbeat waits for conductor",
        )
        cloud.compute.kill()
        cloud.wait_for_state("nova-compute", "down")
        cloud.conductor.start()
        begun = cloud.wait_for_state("nova-compute", "up", timeout=120)
        took = cloud.wait_for_state("nova-compute", "down")
        self.assertLess(took, cloud.service_down_time + base.SLACK)
        print(
            f"{self.DRIVER} {self.MODE}: dead, listed up {begun:.1f} s after "
            f"conductor's start, for {took:.1f} s"
        )


class Elsewhere:
    """The states of members that report by the db driver."""

    def test_members_that_report_elsewhere(self):
        path = self.cloud.configure(
            "elsewhere",
            self.DRIVER,
            "[DEFAULT]\nservice_down_time = 60\n"
            "[servicegroup]\nrestart_grace = 0\n",
        )
        found = base.run_script("elsewhere.py", "--config-file", path)
        self.assertEqual(
            {
                "never here, reports": True,
                "never here, comes over": True,
                "never here, silent": False,
                "never here, never reported": False,
                "here": True,
                "left, reported before": False,
                "left, reports since": True,
                "left, comes over again": True,
                "forced down, reports since": False,
            },
            found,
        )
