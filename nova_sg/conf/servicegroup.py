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

import importlib.metadata
from typing import Any

from oslo_config import cfg, types

DRIVERS = [
    ("db", "the services table of a database"),
    ("mc", "memcached"),
    ("zk", "ZooKeeper"),
]

#: Where packages name their drivers: a group of entry points.
NAMESPACE = "nova_sg.servicegroup.drivers"


def installed() -> set[str]:
    """Return the names of all drivers, also of those of other packages."""
    return {
        one.name for one in importlib.metadata.entry_points(group=NAMESPACE)
    }


class DriverName(types.String):
    """One of DRIVERS, or the driver of another package."""

    def __init__(self, quotes: bool = False) -> None:
        super().__init__(choices=DRIVERS, quotes=quotes)

    def __call__(self, value: Any) -> str:
        try:
            return super().__call__(value)
        except ValueError:
            name = str(value).strip("\"'" if self.quotes else None)
            # Looking for them takes time, so only now.
            found = installed()
            if name not in found:
                raise ValueError(
                    f"there is no driver {name!r}. Use "
                    f"{', '.join(sorted(found | dict(DRIVERS).keys()))}, or "
                    "install the package that has it"
                ) from None
            return name


#: What an unknown state is taken for, see when_unknown.
RAISE, LAST_VERDICT = "raise", "last_verdict"
WHEN_UNKNOWN = [
    (RAISE, "the request fails"),
    (LAST_VERDICT, "the last known state is used, however old it is"),
]

DEFAULT_OPTS = [
    cfg.Opt(
        "servicegroup_driver",
        type=DriverName(),
        default="db",
        help="""
The backend that members report to and observers refresh from. It may also be
the name of a driver that another package has.

The default needs nothing but Nova's database. mc takes the reports off the
database; zk finds a dead host by the end of its session.

Related options:

* service_down_time: seconds without a report after which a member is down.
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
        item_type=DriverName(quotes=True),
        default=[],
        help="""
Further backends, separated by commas. Members report to each of them as
well, and commands of operators go to each. A member has one verdict, made
of what all backends report: its newest report in any of them counts.

By default there are none. Set it to move from one backend to another while
everything runs: see "From one backend to another" in the documentation.

Related options:

* servicegroup_driver: the primary driver. It is ignored in this list.
""",
    ),
    cfg.FloatOpt(
        "view_refresh_interval",
        default=2,
        min=0.05,
        help="""
Seconds between two refreshes of a group, in each process that observes it.
Between them questions are answered from memory. There are at least two
refreshes in service_down_time, whatever the value. If a refresh takes long,
the next one is delayed: refreshes take at most a tenth of the time.

The default shows a change within two seconds. Raise it if many observers
are a load for the backend.
""",
    ),
    cfg.FloatOpt(
        "mass_silence_fraction",
        default=0.55,
        min=0,
        max=1,
        help="""
The part of a group, from 0 to 1, whose silence is taken for a fault of the
network or of the backend. If so many members fall silent within one
service_down_time, they stay up for at most mass_silence_hold seconds more.
The same is applied to each failure domain (see failure_domain) and, with zk,
to the members that are connected to the same server.

The default is the threshold of Kubernetes for an unhealthy zone: so many
hosts hardly die at once. If a smaller part shares a switch, make that a
failure domain; 0 switches all holds off.
""",
    ),
    cfg.IntOpt(
        "mass_silence_min_members",
        default=4,
        min=1,
        help="""
The number of members that must have been up for mass_silence_fraction to be
applied, in the group or in the failure domain. In a smaller one it is not:
there, all members may well die at once. Raise it if groups or domains of this
size do fail as a whole.
""",
    ),
    cfg.FloatOpt(
        "mass_silence_hold",
        min=0,
        help="""
Seconds for which members stay up at most after mass_silence_fraction has
been reached. Members that are still silent then are down.

The default is twice service_down_time. Raise it if outages of the network
last longer; lower it if whole groups do fail and have to be evacuated.
""",
    ),
    cfg.FloatOpt(
        "restart_grace",
        min=0,
        help="""
Seconds for which a member that was stopped on purpose stays up, as it may
be starting again. No new work is placed there meanwhile. Then it is down.

The default is service_down_time for Nova's services: Nova lets the
instances of a service that is down be evacuated, and deletes instances
there without it. For other members the default is 0: they are down at once.
Raise it if services take longer to restart.
""",
    ),
    cfg.FloatOpt(
        "crash_grace",
        min=0,
        help="""
Seconds for which a member stays up, without new work, after its crash guard
has reported that its process ended without leaving. Its host, and the
instances there, may well be alive. 0: it is down at once, and its instances
may be evacuated.

The default is that of restart_grace. Raise it if a service takes longer to
restart after a crash.
""",
    ),
    cfg.StrOpt(
        "when_unknown",
        default=LAST_VERDICT,
        choices=WHEN_UNKNOWN,
        help="""
What Nova does if no backend has answered for service_down_time, so that the
state of members is not known. With last_verdict it goes on by the states
that were known last: in lists of services and hypervisors, and for requests
that a compute service has to carry out. If a process has not known any, a
request fails with status 500, as it does with raise.

Whatever this is set to, Nova then evacuates no host, unless it is forced
down, and deletes no instance without its compute service.

The default keeps the API working. Choose raise if a program fences or powers
off hosts that GET /os-services lists as down: it then gets an error, and no
state that may be old. It counts inside Nova only: nova-sg and its API report
an error.

Related options:

* when_unknown_scheduling: the same for the scheduler.
""",
    ),
    cfg.StrOpt(
        "when_unknown_scheduling",
        default=LAST_VERDICT,
        choices=WHEN_UNKNOWN,
        help="""
The same for the ComputeFilter of Nova's scheduler. With last_verdict new
instances are placed on the hosts that accepted work when their state was
known last. With raise no instance can be built until a backend answers.

The default keeps building. At worst an instance is placed on a host that has
died since; then it fails, or waits for that host. Choose raise if that is
worse for you than no new instances.
""",
    ),
    cfg.StrOpt(
        "failure_domain",
        regex=r"^[!-~][ -~]{0,63}$",
        help="""
The failure domain of this host, such as its rack or its zone: what fails
together. Members report it with mc and zk; the services table has no room
for it. Mass silence is judged for each domain as well as for the group, and
the limits of [events] may count by domain.

By default none is reported. Set it on each host, or set failure_domain_map on
the observers.
""",
    ),
    cfg.StrOpt(
        "failure_domain_map",
        help="""
The file with the failure domains of members that report none, as with db.
Each line has a host and its domain: "compute17 rack 4". The host may be a
shell pattern: "r4-* rack 4". The first line that matches counts. A line that
begins with # is a comment.

A process reads it when it starts, and does not start if it is missing or
wrong. It reads it again when it has changed. If it is wrong then, the last map
stays in use, and an error is logged.

By default there is none. Set it on the observers, such as nova-sg-monitor.
""",
    ),
    cfg.FloatOpt(
        "rpc_check_interval",
        default=60,
        min=0,
        help="""
Seconds from one check of a Nova service's RPC server to the next. The
service sends a ping to itself through the message queue. If no answer
comes, it is unwell: up, and without new work. 0 switches the check off.

It is made with mc and zk; with db alone each report goes through the queue
and proves the same. The default costs two small messages a minute and
member, and finds trouble about as fast as a member that falls silent. Lower
it if the scheduler is to avoid such a host sooner. While a check fails, it
is repeated every five seconds.

Related options:

* rpc_check_time_limit: seconds to wait for the answer.
""",
    ),
    cfg.FloatOpt(
        "rpc_check_time_limit",
        default=10,
        min=0.1,
        help="""
Seconds within which the RPC server of a Nova service has to answer a ping.
The default allows for a busy broker. Raise it if services are reported as
unwell while they work.
""",
    ),
    cfg.StrOpt(
        "health_check",
        help="""
A command that checks whether this host can do its work: a program and its
arguments, without a shell. With exit status 0 the member is well. Otherwise
it is unwell, up and without new work, and the last line that the command
prints is the reason. The command gets NOVA_SG_HOST and NOVA_SG_GROUP.

By default no command is run. The services table has no room for the result:
with db alone it is logged, and shown by metrics and by /health.
""",
    ),
    cfg.FloatOpt(
        "health_check_interval",
        default=30,
        min=0.1,
        help="""
Seconds from one run of health_check to the next. After a failure it is run
again after five seconds, or after the interval if that is shorter. Raise it
for a command that is a load for the host.
""",
    ),
    cfg.FloatOpt(
        "health_check_time_limit",
        default=10,
        min=0.1,
        help="""
Seconds after which health_check is killed, with all processes of its group,
and the member is unwell. Raise it for a command that takes longer.
""",
    ),
    cfg.StrOpt(
        "health_listen",
        help="""
Where a process with members tells probes of containers how they are, in
JSON, at the path /health: ADDRESS:PORT or unix:PATH. The HTTP status is 200
if each member of the process reports and is well, otherwise 503.

By default a process listens nowhere. Of several workers on a host one has
the port; when it ends another takes it. Every client that can connect can
read it: choose 127.0.0.1, or a socket in a folder that others cannot enter.
""",
    ),
    cfg.BoolOpt(
        "coalesce_reports",
        default=True,
        help="""
Whether a Nova process with a database, above all nova-conductor, writes the
heartbeats that arrive within 0.2 seconds by one statement. With a MariaDB
before 10.6 or a MySQL before 8.0 each is written by itself, whatever the
value. nova-sg-agent does not use it.

Switch it off to have each heartbeat read and written by itself, as in stock
Nova.
""",
    ),
    cfg.BoolOpt(
        "recreate_missing_record",
        default=False,
        help="""
Whether a service creates its record again if the record was deleted while
the service runs.

By default the service logs the deletion and stays out until it is
restarted, as in Nova: the record may have been deleted on purpose. Switch
it on where records disappear by mistake.
""",
    ),
    cfg.BoolOpt(
        "crash_guard",
        default=False,
        help="""
Whether a small process beside the service withdraws its members at once
when the service is killed or crashes. Below "nova-sg-exec --guard", such as in
a container, that process does so instead, whatever the value.

By default there is none, and a crash is found by the silence of the
service. With it a crash is found by the next refresh at the latest. A crash
is one of the service alone: its host, and the instances there, may well be
alive.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": DEFAULT_OPTS, "servicegroup": SERVICEGROUP_OPTS}
