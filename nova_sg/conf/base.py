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

"""[DEFAULT]: who and where this service is."""

import socket

from oslo_config import cfg

HOST = cfg.StrOpt(
    "host",
    default=socket.gethostname(),
    sample_default="<current_hostname>",
    help="""
Name of this host: the member's name in its group.

It has to be unique among the members of a group; it need not be a name that
can be resolved.
""",
)

TOPIC = cfg.StrOpt(
    "topic",
    default="compute",
    help="""
The group that nova-sg-agent joins, and the group that nova-sg asks about
when --group is not given.
""",
)

BINARY = cfg.StrOpt(
    "binary",
    sample_default="nova-<topic>",
    help="""
Name of the program that nova-sg-agent stands for, as the services list shows
it. "nova-" and the topic when it is not set, as Nova's own services do.
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
The folder for what the service keeps, among it the SQLite database that is
used while [database] connection is not set.
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

Native threads need oslo.service with the extra "threading". A change takes
effect at a restart.
""",
    ),
]

CLI_OPTS = [HOST, TOPIC, BINARY]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": BASE_OPTS}
