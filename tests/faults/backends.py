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

"""The servers of one fault, and the ways to them.

A backend of a kind (db, mc, zk) has servers that a fault may kill, and says
what has to stand in a configuration file to reach them, directly or by
proxies.
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
    """What members report to."""

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
        """Return what a configuration file needs, by section.

        :param ports: where the servers are reached
        """
        raise NotImplementedError

    @property
    def ports(self):
        return [server.port for server in self.servers]

    def close(self):
        self._closing.close()


class Db(Backend):
    """MariaDB, with a database for each contender."""

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
            # Not root: that one may write where nobody may, and has a
            # connection more than there are.
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
        """Return the name of a contender's database, made on first use."""
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
        # nova_sg's members make theirs; Nova's has whole seconds.
        self.server.execute(
            "ALTER TABLE services MODIFY last_seen_up DATETIME, "
            "MODIFY created_at DATETIME, MODIFY updated_at DATETIME",
            database=name,
        )


class Mc(Backend):
    """memcached, one or three."""

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
    """ZooKeeper, an ensemble of three or one server."""

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
    """Return a server that no fault hurts, for all that need one."""
    with _lock:
        if kind not in _shared:
            _shared[kind] = kind()
            atexit.register(_shared[kind].close)
            _shared[kind].start()
        return _shared[kind]
