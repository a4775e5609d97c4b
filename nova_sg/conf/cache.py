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

"""[cache]: the modern spelling of the list of memcached servers."""

from oslo_config import cfg

CACHE_OPTS = [
    cfg.ListOpt(
        "memcache_servers",
        help="""
Memcached servers as oslo.cache names them: "host:port",
"inet6:[address]:port" or "unix:path". The mc driver uses them while
memcached_servers is not set.

There is no default. Set it to share one list with the services that use
oslo.cache.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"cache": CACHE_OPTS}
