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
"inet6:[address]:port" or "unix:path". "<None>" or nothing keeps the members
inside the process, where only the process itself sees them.

Reports go to every one of up to three servers. Of a longer list each group
uses three, the same three everywhere.
""",
    ),
]

MEMCACHE_OPTS = [
    cfg.StrOpt(
        "memcache_secret_key",
        secret=True,
        help="""
A secret that all members and observers share. When it is set, every value
carries a message authentication code, and a value without the right one is
ignored. It has to be the same everywhere.
""",
    ),
    cfg.FloatOpt(
        "socket_timeout",
        default=1.0,
        min=0.05,
        help="""
Seconds to wait for a memcached server, at most, for a connection and for
each answer.
""",
    ),
    cfg.FloatOpt(
        "crash_poll_interval",
        default=0.1,
        min=0,
        help="""
Seconds between two questions of an observer whether a crash guard has
withdrawn anybody: one small get a server for all groups that it follows. Then
it looks at once, and not only after view_refresh_interval.

Nobody asks about a group in which no member has a guard ([servicegroup]
crash_guard). 0: never ask.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"DEFAULT": DEFAULT_OPTS, "memcache": MEMCACHE_OPTS}
