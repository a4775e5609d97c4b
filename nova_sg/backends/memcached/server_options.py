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
from nova_sg.backends.memcached import address as mc_address
from nova_sg.backends.memcached import connection, local, servers
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


def named_for_members() -> bool:
    """Whether the mc driver's own option names servers.

    [cache] memcache_servers may be there for oslo.cache alone.
    """
    option, found = addresses()
    return bool(found) and option.startswith("[DEFAULT]")


def make_servers() -> list[servers.RemoteServer | local.LocalServer]:
    """Make the servers that the options name.

    :raises ConfigError: an address is invalid, or an option for TLS or
        passwords is wrong
    """
    option, found = addresses()
    if not found:
        return [local.LocalServer()]
    parsed: dict[mc_address.Address, str] = {}
    for text in found:
        try:
            # Of two spellings of one server the first one.
            parsed.setdefault(mc_address.parse(text), text)
        except ValueError:
            raise exception.ConfigError(
                f"{option}: {text!r} is not the address of a server. Write "
                f"{mc_address.SPELLINGS}"
            ) from None
    tls, login = _tls(), _login()
    return [
        servers.RemoteServer(text, CONF.memcache.socket_timeout, tls, login)
        for text in parsed.values()
    ]


def _tls() -> connection.Tls | None:
    if not CONF.cache.tls_enabled:
        return None
    tls = connection.Tls(
        CONF.cache.tls_cafile,
        CONF.cache.tls_certfile,
        CONF.cache.tls_keyfile,
        CONF.cache.tls_allowed_ciphers,
    )
    try:
        connection.make_context(tls)
    except OSError as error:
        raise exception.ConfigError(str(error)) from None
    return tls


def _login() -> connection.Login | None:
    if CONF.cache.memcache_sasl_enabled:
        raise exception.ConfigError(
            "[cache] memcache_sasl_enabled: the mc driver has no SASL, which "
            "needs memcached's binary protocol. Set it to false, and start "
            "memcached with a file of user names and passwords (-Y) and not "
            "with SASL (-S); or use the driver db or zk"
        )
    user = CONF.cache.username or CONF.cache.memcache_username
    password = CONF.cache.password or CONF.cache.memcache_password
    if not user and not password:
        return None
    if not user or not password:
        missing = "password" if user else "username"
        raise exception.ConfigError(
            f"[cache] {missing} is not set, and the other one of username "
            "and password is. Set both, or neither"
        )
    for name, value in ("username", user), ("password", password):
        if any(character.isspace() for character in value):
            raise exception.ConfigError(
                f"[cache] {name} has a space in it, which memcached's file "
                "of passwords cannot have. Choose another one"
            )
    return connection.Login(user, password)


def _without_quotes(items: list[str] | None) -> list[str]:
    stripped = [item.strip("\"' ") for item in items or ()]
    return [item for item in stripped if item not in ("", "<None>", "None")]
