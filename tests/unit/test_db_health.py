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

"""The outages that follow from what a database server reports of itself."""

import unittest

from nova_sg.backends.db import health
from nova_sg.backends.db.health import Asked, Cluster, Health, Replica
from nova_sg.liveness.model import Limits
from tests import single_mode

LIMITS = Limits(60.0, 10.0)
PATIENCE = 10.0
WELL = Health(
    read_only=False,
    replica=None,
    replica_known=True,
    cluster=None,
    waiting=0.0,
)
NODE = Cluster(True, health.SYNCED, "Synced", 0, 0)
# The moments of the last report, and of the question to the server.
SINCE, NOW = 1000.0, 1030.0


def judge(now=NOW, before=None, since=SINCE, **fields):
    return health.judge(
        Asked(now, WELL._replace(**fields)), before, since, PATIENCE, LIMITS
    )


def node(**fields):
    return WELL._replace(cluster=NODE._replace(**fields))


@single_mode
class JudgeTest(unittest.TestCase):
    def test_the_outage_that_follows_from_one_answer(self):
        for reason, begin, fields in (
            (None, None, {}),
            (None, None, {"waiting": PATIENCE / 2 - 0.1}),
            ("reports wait in the server", SINCE, {"waiting": PATIENCE / 2}),
            ("it is read-only", SINCE, {"read_only": True}),
            (None, None, {"read_only": True, "replica": Replica(True, 15.0)}),
            (
                "it is read-only and 25 s behind",
                NOW - 25.0 - 1.0,
                {"read_only": True, "replica": Replica(True, 25.0)},
            ),
            ("it is 16 s behind", NOW - 17.0, {"replica": Replica(True, 16)}),
            # Only the time after the last report counts.
            ("it is 99 s behind", SINCE, {"replica": Replica(True, 99.0)}),
            (
                "it is read-only, and its replication does not run",
                SINCE,
                {"read_only": True, "replica": Replica(False, None)},
            ),
            (
                "it is read-only, and its replication does not run",
                SINCE,
                {"read_only": True, "replica": Replica(False, 0.0)},
            ),
            # The primary of today may have been a replica once.
            (None, None, {"replica": Replica(False, None)}),
            (None, None, {"cluster": NODE}),
            (
                "its cluster node is not ready (Initialized)",
                SINCE,
                {"cluster": Cluster(False, 0, "Initialized", 0, 0)},
            ),
            (
                "its cluster node is not synced (Donor/Desynced)",
                SINCE,
                {"cluster": Cluster(True, 2, "Donor/Desynced", 7, 0)},
            ),
            # For how long it was paused before is not known.
            (None, None, {"cluster": NODE._replace(paused=10**15)}),
        ):
            with self.subTest(fields):
                found = judge(**fields)
                if reason is None:
                    self.assertIsNone(found)
                else:
                    self.assertIn(reason, found.reason)
                    self.assertEqual((begin, NOW), found[:2])

    def test_weak_evidence_excuses_for_a_limited_time(self):
        donor = NODE._replace(state=2, called="Donor/Desynced")
        for fields in (
            {"read_only": True, "replica_known": False},
            {"cluster": donor},
        ):
            with self.subTest(fields):
                found = judge(now=SINCE + 120.0, **fields)
                self.assertEqual((SINCE, SINCE + 120.0), found[:2])
                self.assertIsNone(judge(now=SINCE + 120.1, **fields))
        # Certain evidence has no limit.
        for fields in (
            {"read_only": True},
            {"cluster": donor._replace(waiting=1)},
            {"waiting": 9.0, "read_only": True, "replica_known": False},
        ):
            with self.subTest(fields):
                found = judge(now=SINCE + 9999.0, **fields)
                self.assertEqual((SINCE, SINCE + 9999.0), found[:2])

    def test_a_cluster_paused_by_flow_control_is_an_outage(self):
        second = 10**9
        for paused, at, expected in (
            (5 * second, NOW - 10.0, NOW - 10.0),
            (5 * second - 1, NOW - 10.0, None),
            # Part of the pause may have been before the last report.
            (99 * second, SINCE - 1.0, None),
            (0, NOW - 10.0, None),
            # Both answers are of the same moment.
            (0, NOW, None),
        ):
            with self.subTest(paused=paused, at=at):
                found = judge(
                    before=Asked(at, node(paused=10**16)),
                    cluster=NODE._replace(paused=10**16 + paused),
                )
                if expected is None:
                    self.assertIsNone(found)
                else:
                    self.assertEqual((expected, NOW), found[:2])
                    self.assertIn("for 5.0 s of 10.0 s", found.reason)
        # Another node.
        other = Asked(NOW - 9, node(node="other"))
        paused = NODE._replace(paused=5 * second)
        self.assertIsNone(judge(before=other, cluster=paused))
        # It joined the cluster meanwhile.
        self.assertIsNone(judge(before=Asked(NOW - 9, WELL), cluster=NODE))


@single_mode
class ClusterTest(unittest.TestCase):
    def test_a_server_without_a_cluster(self):
        # MariaDB's answer.
        self.assertIsNone(
            health.cluster({"wsrep_ready": "OFF", "wsrep_cluster_size": "0"})
        )
        self.assertIsNone(health.cluster({}))

    def test_the_state_of_a_donor_is_read(self):
        self.assertEqual(
            Cluster(True, 2, "Donor/Desynced", 12, 3456, "4f1c"),
            health.cluster(
                {
                    "wsrep_ready": "ON",
                    "wsrep_local_state": "2",
                    "wsrep_local_state_comment": "Donor/Desynced",
                    "wsrep_local_recv_queue": "12",
                    "wsrep_flow_control_paused_ns": "3456",
                    "wsrep_gcomm_uuid": "4f1c",
                }
            ),
        )


@single_mode
class ReplicaTest(unittest.TestCase):
    MARIADB = {
        "Connection_name": "one",
        "Slave_IO_Running": "Yes",
        "Slave_SQL_Running": "Yes",
        "Seconds_Behind_Master": 3,
    }
    MYSQL = {
        "Replica_IO_Running": "Yes",
        "Replica_SQL_Running": "Yes",
        "Seconds_Behind_Source": 3,
    }

    def test_the_state_of_a_replica_is_read(self):
        self.assertIsNone(health.replica_of([]))
        for row in self.MARIADB, self.MYSQL:
            self.assertEqual(Replica(True, 3.0), health.replica_of([row]))
            stopped = {**row, list(row)[-2]: "No", list(row)[-1]: None}
            self.assertEqual(
                Replica(False, None), health.replica_of([stopped])
            )

    def test_of_several_sources_the_one_with_most_lag_counts(self):
        other = {**self.MARIADB, "Seconds_Behind_Master": 25}
        both = [self.MARIADB, other]
        self.assertEqual(Replica(True, 25.0), health.replica_of(both))
        connecting = {**other, "Slave_IO_Running": "Connecting"}
        self.assertEqual(
            Replica(False, 25.0), health.replica_of([connecting, self.MARIADB])
        )


@single_mode
class TroubleTest(unittest.TestCase):
    def test_the_description_of_a_servers_trouble(self):
        for expected, fields in (
            ("", WELL),
            ("", node()),
            ("", WELL._replace(replica=Replica(True, 15.0))),
            ("", WELL._replace(replica=Replica(False, None))),
            ("25 s behind", WELL._replace(replica=Replica(True, 25.0))),
            ("read-only", WELL._replace(read_only=True)),
            (
                "read-only and 25 s behind",
                WELL._replace(read_only=True, replica=Replica(True, 25.0)),
            ),
            (
                "read-only and its replication does not run",
                WELL._replace(read_only=True, replica=Replica(False, None)),
            ),
            (
                "not synced with its cluster (Donor/Desynced) and reports "
                "wait in it for 3.0 s",
                node(state=2, called="Donor/Desynced")._replace(waiting=3.0),
            ),
            (
                "not ready (Initialized)",
                node(ready=False, called="Initialized"),
            ),
        ):
            with self.subTest(expected):
                self.assertEqual(expected, health.trouble(fields, LIMITS))
