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
The ZooKeeper servers of the zk driver: "host:port" with commas between
them, "[address]:port" for IPv6. Without a port it is 2181. A path may follow
the last one: everything is kept below it (a chroot). There is no default.
""",
    ),
    cfg.IntOpt(
        "recv_timeout",
        default=4000,
        min=100,
        help="""
The session timeout, in milliseconds. If a member's process, host or network
is silent for so long, ZooKeeper ends the session and the member is down. In a
group with mass_silence_min_members or more, an observer first waits for two
thirds of it, to see whether the sessions of most members end. Servers accept 2
to 20 times their tickTime, by default 4000 to 40000, and use the nearest value
that they accept.

The default is the shortest that they accept by default. Raise it if pauses
of hosts or of the network end sessions.
""",
    ),
    cfg.StrOpt(
        "sg_prefix",
        default="/servicegroups",
        regex=r"^(/[^/]+)+$",
        help="""
The znode below which the groups are, a path that begins with a slash. The
default is that of Nova's former ZooKeeper driver. Change it to keep several
clouds apart.
""",
    ),
    cfg.IntOpt(
        "sg_retry_interval",
        default=5,
        min=1,
        help="""
Seconds between two attempts of a member to join after one that failed. The
default is that of Nova's former ZooKeeper driver. Raise it to spare the
servers.
""",
    ),
    cfg.StrOpt(
        "digest",
        secret=True,
        help="""
"user:password" for ZooKeeper's digest authentication, the same for all
members and observers. By default sessions are not authenticated. Set it for
acl.
""",
    ),
    cfg.StrOpt(
        "acl",
        default="open",
        choices=[
            ("open", "every client may read and write"),
            (
                "creator",
                "clients with the digest or the SASL user of the creator may "
                "write, every client may read; needs digest or sasl_username",
            ),
        ],
        help="""
The permissions of the znodes that are created. The default works without
authentication. Choose creator to keep other clients of the servers from
writing.
""",
    ),
    cfg.StrOpt(
        "client",
        default="auto",
        choices=[
            (
                "auto",
                "the C client where it is installed and does what the other "
                "options ask, otherwise kazoo",
            ),
            ("c", "the C client"),
            ("kazoo", "kazoo, in pure Python"),
        ],
        help="""
The client library. The C client, Debian's package libzookeeper-mt2, keeps the
session while all of Python stands still; kazoo does not. kazoo has SASL, and
TLS that checks the names of hosts. Choose kazoo to have the same everywhere,
and c to be told where the C client does not do.
""",
    ),
    cfg.BoolOpt(
        "use_ssl",
        default=False,
        help="""
Whether to use TLS, and check the servers' certificates and the names of hosts
in them. The port in address is then the servers' secureClientPort. By default
nothing is encrypted. Set it if the network may be read, or where the servers
ask for certificates.
""",
    ),
    cfg.StrOpt(
        "ca_file",
        help="""
For use_ssl: the file of the authority that signed the servers' certificates,
PEM. By default the system's authorities are trusted. Set it if the authority
is your own.
""",
    ),
    cfg.StrOpt(
        "cert_file",
        help="""
For use_ssl: the file of this process's certificate, PEM. By default it shows
none. Set it if the servers ask for one, as they do by default.
""",
    ),
    cfg.StrOpt(
        "key_file",
        help="""
For use_ssl: the file of the key of cert_file, PEM. It is not needed if
cert_file has the key.
""",
    ),
    cfg.StrOpt(
        "key_password",
        secret=True,
        help="""
For use_ssl: the password of the key. By default the key has none.
""",
    ),
    cfg.StrOpt(
        "sasl_username",
        help="""
The user for SASL, mechanism DIGEST-MD5, the same for all members and
observers. By default there is no SASL. Set it if the servers require it; it
serves acl = creator as digest does.
""",
    ),
    cfg.StrOpt(
        "sasl_password",
        secret=True,
        help="""
The password of sasl_username. By default there is none.
""",
    ),
    cfg.StrOpt(
        "cert",
        secret=True,
        deprecated_for_removal=True,
        deprecated_reason="use_ssl, ca_file, cert_file, key_file and "
        "key_password replace it.",
        help="""
Files for TLS, with commas between them: the certificate of the authority,
the certificate of the client, its key, and the password of the key. By default
there is no TLS. Do not set it: the options above replace it.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"zookeeper": ZOOKEEPER_OPTS}
