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

"""[DEFAULT] servicegroup_driver and [servicegroup]."""

from oslo_config import cfg, types

DRIVERS = [
    ("db", "the services table of a database"),
    ("mc", "memcached"),
    ("zk", "ZooKeeper"),
]

DEFAULT_OPTS = [
    cfg.StrOpt(
        "servicegroup_driver",
        default="db",
        choices=DRIVERS,
        help="""
The backend that members report to and observers refresh from.

Related options:

* service_down_time: how long a member may be silent.
* [servicegroup] secondary_drivers: further backends.
* [database] connection, for db.
* memcached_servers, for mc.
* [zookeeper] address, for zk.
""",
    ),
]

SERVICEGROUP_OPTS = [
    cfg.ListOpt(
        "secondary_drivers",
        item_type=types.String(
            choices=[name for name, _ in DRIVERS], quotes=True
        ),
        default=[],
        help="""
More drivers, separated by commas: members report to each of these as well,
and what an operator orders goes to each. There is one verdict over a member,
made of what all backends say: its newest report in any of them counts.

Made for moving from one backend to another while everything runs: see "From
one backend to another" in the documentation. servicegroup_driver may be
named here, too; it is left out then.

Related options:

* servicegroup_driver: the primary driver.
""",
    ),
    cfg.FloatOpt(
        "view_refresh_interval",
        default=2,
        min=0.05,
        help="""
Seconds between two refreshes from the backend by a process that watches a
group or asks about its members. Answers come from memory. There are at least
two refreshes in service_down_time: an older answer is no answer.

A refresh that takes long is repeated less often: at most a tenth of the time
is spent on it.
""",
    ),
    cfg.FloatOpt(
        "mass_silence_fraction",
        default=0.55,
        min=0,
        max=1,
        help="""
When at least this part of a group falls silent within one service_down_time,
the verdicts are held: these members stay up for mass_silence_hold seconds
more at most. So many nodes hardly die at once; a switch or a firewall between
them and the backend does. 0: never hold.
""",
    ),
    cfg.IntOpt(
        "mass_silence_min_members",
        default=4,
        min=1,
        help="""
Groups in which fewer members were up are judged without regard to
mass_silence_fraction.
""",
    ),
    cfg.FloatOpt(
        "mass_silence_hold",
        min=0,
        help="""
Seconds for which verdicts are held at most. Then the members that are still
silent are down. By default twice service_down_time.
""",
    ),
    cfg.FloatOpt(
        "restart_grace",
        min=0,
        help="""
Seconds for which a member that was stopped on purpose may be starting again.
Until then it is up, and no new work is placed there; then it is down.

By default service_down_time where the members are Nova's services, and 0 for
others. Nova allows to evacuate the instances of a service that is down, and
deletes instances there without it. 0: it is down at once.
""",
    ),
    cfg.FloatOpt(
        "crash_grace",
        min=0,
        help="""
The same for a member whose process ended without leaving, as its crash guard
saw: its host, and the instances on it, may well be alive. 0: it is down at
once, and may be evacuated.
""",
    ),
    cfg.BoolOpt(
        "coalesce_reports",
        default=False,
        help="""
Whether a Nova process that has a database, nova-conductor above all, writes
the heartbeats that reach it within 0.2 seconds together, by one statement.

Otherwise each is read and written by itself, as Nova does. Needs MariaDB 10.6
or MySQL 8.0. nova-sg-agent has no use for it.
""",
    ),
    cfg.BoolOpt(
        "recreate_missing_record",
        default=False,
        help="""
Whether a service whose record was deleted while it runs creates it again.

By default it says so in its log and stays out until it is restarted, as Nova
does: whoever deleted the record meant it.
""",
    ),
    cfg.BoolOpt(
        "crash_guard",
        default=False,
        help="""
Whether a small process beside the service withdraws what the service has
joined, at once, should it end without leaving: be killed, or crash.

Without it the backend notices only by the service's silence. What is seen
down so is the service: its host, and the instances on it, may well be alive.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": DEFAULT_OPTS, "servicegroup": SERVICEGROUP_OPTS}
