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

"""The memcached servers that the options name."""

from __future__ import annotations

from nova_sg import exception
from nova_sg.backends.memcached import servers
from nova_sg.conf import CONF


def addresses() -> tuple[str, list[str]]:
    """Return the option that names the servers, and their addresses.

    No addresses stand for the in-process store.
    """
    found = _without_quotes(CONF.memcached_servers)
    if not found:
        # oslo.cache's default names a server that the operator did not set.
        place = CONF.get_location("memcache_servers", "cache")
        if place is not None and place.location.is_user_controlled:
            found = _without_quotes(CONF.cache.memcache_servers)
            if found:
                return "[cache] memcache_servers", found
    return "[DEFAULT] memcached_servers", found


def make_servers() -> list[servers.RemoteServer | servers.LocalServer]:
    """Make the servers that the options name.

    :raises ConfigError: an address is invalid
    """
    option, found = addresses()
    if not found:
        return [servers.LocalServer()]
    made: list[servers.RemoteServer | servers.LocalServer] = []
    for address in dict.fromkeys(found):
        try:
            made.append(
                servers.RemoteServer(address, CONF.memcache.socket_timeout)
            )
        except ValueError:
            raise exception.ConfigError(
                f"{option}: {address!r} is not the address of a server. "
                'Write "host:port", "inet6:[address]:port" or "unix:path"'
            ) from None
    return made


def _without_quotes(items: list[str] | None) -> list[str]:
    stripped = [item.strip("\"' ") for item in items or ()]
    return [item for item in stripped if item not in ("", "<None>", "None")]
