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

"""[cache]: the modern spelling of the list of memcached servers, and TLS."""

from oslo_config import cfg

CACHE_OPTS = [
    cfg.ListOpt(
        "memcache_servers",
        help="""
Memcached servers as oslo.cache names them: "host:port",
"[IPv6 address]:port" or "unix:path". The mc driver uses them while
memcached_servers is not set.

There is no default. Set it to share one list with the services that use
oslo.cache.
""",
    ),
    cfg.BoolOpt(
        "tls_enabled",
        default=False,
        help="""
Whether the mc driver speaks TLS with the memcached servers, as oslo.cache
does. The certificate and the host name of each server are verified. UNIX
sockets have no TLS.

By default nothing is encrypted. Set it if the servers run with -Z. It counts
for [DEFAULT] memcached_servers, too.
""",
    ),
    cfg.StrOpt(
        "tls_cafile",
        help="""
A file with the certificates of the authorities, in PEM, that the servers'
certificates have to be signed by. By default they are those of the system.
Set it for an authority of your own. Without tls_enabled it is ignored.
""",
    ),
    cfg.StrOpt(
        "tls_certfile",
        help="""
A file with the certificate of this host, in PEM. By default there is none.
Set it if the servers ask for one. Without tls_enabled it is ignored.
""",
    ),
    cfg.StrOpt(
        "tls_keyfile",
        help="""
A file with the key of tls_certfile. By default the key is in that file. Set
it if it is in another one.
""",
    ),
    cfg.StrOpt(
        "tls_allowed_ciphers",
        help="""
The ciphers that may be used, as OpenSSL writes them. By default these are
OpenSSL's own. Set it where a rule of yours asks for certain ciphers. It makes
no difference to TLS 1.3.
""",
    ),
    cfg.BoolOpt(
        "memcache_sasl_enabled",
        default=False,
        help="""
Whether oslo.cache uses SASL, which needs memcached's binary protocol. The mc
driver does not speak it, and does not start if this is true. Leave it false,
and use username and password with memcached -Y.
""",
    ),
    cfg.StrOpt(
        "username",
        help="""
The user name for the memcached servers, as in their file of passwords
(memcached -Y FILE). By default there is no authentication. Set it, and
password, if the servers ask for it. Without TLS both can be read on the
network.
""",
    ),
    cfg.StrOpt(
        "password",
        secret=True,
        help="""
The password of username. There is no default.
""",
    ),
    cfg.StrOpt(
        "memcache_username",
        help="""
The name of username in earlier releases of oslo.cache. It is used while
username is not set.
""",
    ),
    cfg.StrOpt(
        "memcache_password",
        secret=True,
        help="""
The name of password in earlier releases of oslo.cache. It is used while
password is not set.
""",
    ),
]


def list_opts() -> dict[str, list[cfg.Opt]]:
    """Return the options of this module by their section."""
    return {"cache": CACHE_OPTS}
