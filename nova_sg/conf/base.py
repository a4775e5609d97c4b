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

"""[DEFAULT]: the member, the folder for files, and the agent."""

import socket

from oslo_config import cfg

HOST = cfg.StrOpt(
    "host",
    default=socket.gethostname(),
    sample_default="<current_hostname>",
    help="""
The name of this host, and of its member in a group. It has to be unique in
the group; it need not be a name that can be resolved.

The default is the name that the host gives itself, as for Nova's services.
Change it where the host option of nova.conf is changed.
""",
)

TOPIC = cfg.StrOpt(
    "topic",
    default="compute",
    help="""
The group that nova-sg-agent joins, and the group of the nova-sg commands
where --group is not given.

The default is the group of Nova's compute services. Change it for an agent
that stands for another service.
""",
)

BINARY = cfg.StrOpt(
    "binary",
    sample_default="nova-<topic>",
    help="""
The name of the program that nova-sg-agent stands for, as the list of
services shows it. The default is made of the topic, as Nova's own services
are named. Change it for a program with another name.
""",
)

BASE_OPTS = [
    HOST,
    TOPIC,
    BINARY,
    cfg.StrOpt(
        "state_path",
        default="/var/lib/nova-sg",
        help="""
The folder for the files of nova_sg, such as the SQLite database that is
used while [database] connection is not set. The services have to be able to
write to it. Change it to keep these files elsewhere.
""",
    ),
    cfg.BoolOpt(
        "log_transitions",
        default=False,
        help="""
Whether nova-sg-agent follows its group and logs what happens to the other
members: joined, up, down, left, held and others.

By default the agent only reports, and reads nothing about other members:
each agent that reads the whole group is a load for the backend. nova-sg
watch and nova-sg-monitor show the same from one place. Switch it on, on a
few hosts, if the log of an agent has to have it.

Related options:

* [servicegroup] view_refresh_interval: seconds between two refreshes.
* [monitor] agent_port: an agent that shows its metrics refreshes, too.
""",
    ),
    cfg.StrOpt(
        "concurrency_backend",
        default="auto",
        choices=[
            ("auto", "eventlet, in this release"),
            ("eventlet", "Green threads"),
            ("threading", "Native threads. eventlet is not imported"),
        ],
        help="""
The threads that nova-sg-agent and nova-sg-monitor run on. Nova has the same
option.

Native threads need oslo.service 4.3 or newer with the extra "threading". A
change takes effect at a restart.
""",
    ),
]

CLI_OPTS = [HOST, TOPIC, BINARY]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": BASE_OPTS}
