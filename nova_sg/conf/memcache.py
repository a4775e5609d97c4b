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

"""[DEFAULT] memcached_servers and [memcache]: the mc driver."""

from oslo_config import cfg

DEFAULT_OPTS = [
    cfg.ListOpt(
        "memcached_servers",
        sample_default="<None>",
        help="""
Memcached servers for the mc driver: a list of "host:port",
"[IPv6 address]:port" or "unix:path". Without servers, or with "<None>",
the members are kept inside the process, and no other process sees them.

Reports go to all of up to three servers. Of a longer list each group uses
three, the same three everywhere. Nothing is lost while one of them answers.
The list has to be the same on all hosts.
""",
    ),
]

MEMCACHE_OPTS = [
    cfg.StrOpt(
        "memcache_secret_key",
        secret=True,
        help="""
A secret that all members and observers share. If it is set, every value has
a message authentication code, and values without the right code are
ignored.

By default values have no code. Set it where other programs or persons can
write to memcached.
""",
    ),
    cfg.FloatOpt(
        "socket_timeout",
        default=1.0,
        min=0.05,
        help="""
Seconds to wait for a memcached server: for a connection, and for each
answer. The default is far longer than a server in the same data centre
takes. Raise it for a distant server.
""",
    ),
    cfg.FloatOpt(
        "crash_poll_interval",
        default=0.1,
        min=0,
        help="""
Seconds between two polls by which an observer finds out whether a crash
guard has withdrawn a member. If so, it refreshes at once. A poll is one
small request to each server for all groups of the observer. Groups without
a guard ([servicegroup] crash_guard) are not polled.

The default finds a crash within a tenth of a second. Raise it to spare the
servers; 0 switches the polls off, and a crash is found by the next refresh.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": DEFAULT_OPTS, "memcache": MEMCACHE_OPTS}
