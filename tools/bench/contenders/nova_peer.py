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

"""Nova's own servicegroup, in a process with access to the database.

So nova-conductor saves a record for nova-compute. The call from one to the
other by RPC, which nova-compute waits for as well, is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nova.conf
from nova import config, context, objects, servicegroup
from nova.db.main import api as db_api

from bench.contenders import base

CONF = nova.conf.CONF


class _Nova(base.Contender):
    driver: str

    def __init__(self, where: str) -> None:
        config.set_lib_defaults()
        CONF([], project="nova", default_config_files=[])
        CONF.set_override("servicegroup_driver", self.driver)
        CONF.set_override("service_down_time", base.DOWN_TIME)
        self.configure(where)
        objects.register_all()
        # nova-conductor does so.
        objects.Service.enable_min_version_cache()
        self._context = context.get_admin_context()
        self._api = servicegroup.API()

    def configure(self, where: str) -> None:
        raise NotImplementedError

    def make_api(self) -> Any:
        return servicegroup.API()

    def service_ref(self, group: str, host: str) -> Any:
        raise NotImplementedError

    def reporters(self, group: str, count: int) -> list[Callable]:
        made = []
        for host in base.names(group, count):
            service = base.Service(host, group, self.service_ref(group, host))
            self._api.join(host, group, service)
            service.report()
            made.append(service.report)
        return made


class Db(_Nova):
    driver = "db"

    notes = {
        "report": "nova: without the way to nova-conductor by RPC",
        "service_is_up, by name": "nova reads the record, each time",
    }

    def configure(self, where: str) -> None:
        CONF.set_override("connection", where, "database")
        db_api.configure(CONF)

    def seed(self, group: str, count: int) -> list[str]:
        hosts = base.names(group, count)
        base.insert(db_api.get_engine(), group, hosts)
        return hosts

    def service_ref(self, group: str, host: str) -> Any:
        # Not by create(), which would send a notification.
        base.insert(db_api.get_engine(), group, [host])
        get = objects.Service.get_by_host_and_topic
        return get(self._context, host, group)

    def statements(self) -> int | None:
        return base.count_statements(db_api.get_engine())

    def is_up_at_hand(self) -> Callable[[], bool]:
        member = base.record()
        return lambda: self._api.service_is_up(member)

    def is_up_by_name(self, group: str, host: str) -> Callable[[], bool]:
        get = objects.Service.get_by_host_and_topic
        return lambda: self._api.service_is_up(get(self._context, host, group))

    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        get = objects.ServiceList.get_by_topic
        is_up = self._api.service_is_up
        return lambda: sum(map(is_up, get(self._context, group)))

    def observer(self, group: str, hosts: Sequence[str]) -> Callable[[], Any]:
        get = objects.ServiceList.get_by_topic
        return lambda: get(self._context, group)


class DbTogether(Db):
    """The same, with heartbeats that nova_sg writes together."""

    only_reports = True
    notes = {}

    def __init__(self, where: str) -> None:
        super().__init__(where)
        from nova_sg.nova import coalesce

        coalesce.install()


class Mc(_Nova):
    driver = "mc"

    notes = {
        "service_is_up, by name": "nova and tooz ask memcached, each time",
        "refresh": (
            "nova asks for each member of a list that it has from its "
            "database; the time for that list is not counted"
        ),
    }

    def configure(self, where: str) -> None:
        CONF.set_override("enabled", True, "cache")
        CONF.set_override("backend", "oslo_cache.memcache_pool", "cache")
        CONF.set_override("memcache_servers", [where], "cache")

    def seed(self, group: str, count: int) -> list[str]:
        self.reporters(group, count)
        return base.names(group, count)

    def service_ref(self, group: str, host: str) -> Any:
        return {"topic": group, "host": host}

    def is_up_by_name(self, group: str, host: str) -> Callable[[], bool]:
        member = {"host": host, "topic": group}
        return lambda: self._api.service_is_up(member)

    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        members = [{"host": host, "topic": group} for host in hosts]
        is_up = self._api.service_is_up
        return lambda: sum(map(is_up, members))
