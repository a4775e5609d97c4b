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

"""[zookeeper]: the zk driver, with the legacy driver's options."""

from oslo_config import cfg

ZOOKEEPER_OPTS = [
    cfg.StrOpt(
        "address",
        help="""
The ZooKeeper servers: "host:port" with commas between them, and possibly a
path after the last, below which everything is kept (a chroot).
""",
    ),
    cfg.IntOpt(
        "recv_timeout",
        default=4000,
        min=100,
        help="""
The session timeout, in milliseconds: how long a member's process, host or
network may be silent before ZooKeeper ends its session, and the member is
down. The servers allow 2 to 20 times their tickTime, by default 4000 to
40000, and take the nearest they allow.
""",
    ),
    cfg.StrOpt(
        "sg_prefix",
        default="/servicegroups",
        regex=r"^(/[^/]+)+$",
        help="""
The znode below which the groups are: a path that begins with a slash.
""",
    ),
    cfg.IntOpt(
        "sg_retry_interval",
        default=5,
        min=1,
        help="""
Seconds between two attempts of a member to join while it has not.
""",
    ),
    cfg.StrOpt(
        "digest",
        secret=True,
        help="""
"user:password" for ZooKeeper's digest authentication. The same for all
members and observers.
""",
    ),
    cfg.StrOpt(
        "acl",
        default="open",
        choices=[
            ("open", "everybody may read and write"),
            (
                "creator",
                "who has authenticated as the creator may write, everybody "
                "may read; needs digest",
            ),
        ],
        help="""
Who may do what with the znodes that are created.
""",
    ),
    cfg.StrOpt(
        "cert",
        secret=True,
        help="""
Files for TLS to the servers: the authority's certificate, the client's
certificate, its key and the key's password, with commas between them. Needs
a ZooKeeper client library with TLS, which Debian's is not.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"zookeeper": ZOOKEEPER_OPTS}
