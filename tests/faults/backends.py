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

"""The servers of one fault, and the proxies in front of them.

A backend (db, mc or zk) has servers that a fault may kill. It also knows the
options by which members reach the servers, directly or by proxies.
"""

import atexit
import contextlib
import threading

import sqlalchemy

from nova_sg.backends.db import models
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.memcached import Memcached
from tests.fixtures.proxy import TcpProxy
from tests.fixtures.zookeeper import ZooKeeperEnsemble, ZooKeeperServer

_lock = threading.Lock()
_shared = {}


class Backend:
    """The servers of one driver."""

    def __init__(self):
        self._closing = contextlib.ExitStack()
        self.servers = []

    def start(self):
        raise NotImplementedError

    def proxies(self):
        """Start a proxy for each server; return them."""
        return [
            self._closing.enter_context(TcpProxy(server.port))
            for server in self.servers
        ]

    def options(self, contender, ports):
        """Return the options of a configuration file, by section.

        :param ports: where the servers, or their proxies, listen
        """
        raise NotImplementedError

    @property
    def ports(self):
        return [server.port for server in self.servers]

    def close(self):
        self._closing.close()


class Db(Backend):
    """MariaDB, with a database for each contender.

    :param own: whether the server is for this fault alone
    """

    def __init__(self, own):
        super().__init__()
        self._own = own
        self._names = {}

    def start(self):
        self.server = (
            self._closing.enter_context(MariaDB())
            if self._own
            else _get_shared(MariaDB)
        )
        self.servers = [self.server]
        with _lock:
            # Not root, which may write to a read-only server, and connect to
            # one with too many connections.
            self.server.execute(
                "CREATE USER IF NOT EXISTS nova@127.0.0.1 "
                "IDENTIFIED BY 'secret'"
            )
            self.server.execute("GRANT ALL ON `faults%`.* TO nova@127.0.0.1")

    def options(self, contender, ports):
        name = self.database(contender)
        url = f"mysql+pymysql://nova:secret@127.0.0.1:{ports[0]}/{name}"
        return {"database": {"connection": url}}

    def database(self, contender):
        """Return the name of a contender's database; make it if needed."""
        if contender not in self._names:
            with _lock:
                number = _shared["databases"] = _shared.get("databases", 0) + 1
                name = self._names[contender] = f"faults_{number}"
                self.server.create_database(name)
                if contender.stack == "stock":
                    self._make_nova_table(name)
        return self._names[contender]

    def _make_nova_table(self, name):
        engine = sqlalchemy.create_engine(self.server.url(name))
        models.services.metadata.create_all(engine)
        engine.dispose()
        # nova_sg's members make their table. Nova's table has whole seconds.
        self.server.execute(
            "ALTER TABLE services MODIFY last_seen_up DATETIME, "
            "MODIFY created_at DATETIME, MODIFY updated_at DATETIME",
            database=name,
        )


class Mc(Backend):
    """memcached.

    :param own: whether the servers are for this fault alone
    :param count: how many servers there are then
    """

    def __init__(self, own, count):
        super().__init__()
        self._count = count if own else None

    def start(self):
        if self._count is None:
            self.servers = [_get_shared(Memcached)]
        else:
            self.servers = [
                self._closing.enter_context(Memcached())
                for _ in range(self._count)
            ]

    def options(self, contender, ports):
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        if contender.stack == "ours":
            return {"DEFAULT": {"memcached_servers": addresses}}
        return {
            "cache": {
                "enabled": True,
                "backend": "oslo_cache.memcache_pool",
                "memcache_servers": addresses,
            }
        }


class Zk(Backend):
    """ZooKeeper: one server for all faults, or an ensemble of three.

    :param own: whether the servers are for this fault alone
    """

    def __init__(self, own):
        super().__init__()
        self._own = own

    def start(self):
        if self._own:
            self.ensemble = self._closing.enter_context(ZooKeeperEnsemble())
            self.servers = self.ensemble.servers
        else:
            self.servers = [_get_shared(ZooKeeperServer)]

    def options(self, contender, ports):
        return {
            "zookeeper": {
                "address": ",".join(f"127.0.0.1:{port}" for port in ports),
                "sg_retry_interval": 1,
            }
        }


def _get_shared(kind):
    """Return a server that all faults use which leave it alone."""
    with _lock:
        if kind not in _shared:
            _shared[kind] = kind()
            atexit.register(_shared[kind].close)
            _shared[kind].start()
        return _shared[kind]
