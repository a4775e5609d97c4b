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

"""nova_sg itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy

from bench.contenders import base
from nova_sg import servicegroup
from nova_sg.conf import CONF
from nova_sg.db import engine, schema
from nova_sg.servicegroup import process
from nova_sg.servicegroup.drivers import base as drivers


class _NovaSg(base.Contender):
    """What the drivers have in common: all of it but the options."""

    driver: str

    notes = {
        "service_is_up, by name": (
            "nova_sg answers from its view, which a thread keeps fresh by "
            "one look every view_refresh_interval"
        ),
    }

    def __init__(self, where: str) -> None:
        CONF([], project="nova-sg", default_config_files=[])
        CONF.set_override("servicegroup_driver", self.driver)
        CONF.set_override("service_down_time", base.DOWN_TIME)
        # A look is measured by itself, and not in passing.
        CONF.set_override("view_refresh_interval", 3600, "servicegroup")
        self.configure(where)
        self._api = servicegroup.API()

    def configure(self, where: str) -> None:
        raise NotImplementedError

    def make_api(self) -> Any:
        return servicegroup.API()

    def reporters(self, group: str, count: int) -> list[Callable]:
        made = []
        for host in base.names(group, count):
            service = base.Service(host, group)
            self._api.join(host, group, service)
            made.append(_without_waiting(service))
        return made

    def is_up_by_name(self, group: str, host: str) -> Callable[[], bool]:
        member = {"host": host, "topic": group}
        return lambda: self._api.service_is_up(member)

    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        def ask() -> int:
            self._api.refresh(group)
            return len(self._api.get_all(group))

        return ask

    def recall(self, group: str) -> Callable[[], int]:
        self._api.watch(group, lambda event: None)
        return lambda: len(self._api.members(group))

    def observer(self, group: str, hosts: Sequence[str]) -> Callable[[], Any]:
        def make() -> process.Shared:
            # Not the one of the process, which knows the group already.
            shared = process.Shared(process.load(self.driver))
            shared.view(group).refresh()
            return shared

        return make


class Db(_NovaSg):
    driver = "db"

    def configure(self, where: str) -> None:
        CONF.set_override("connection", where, "database")
        database = engine.Database(engine.url())
        schema.sync(database)
        database.close()
        self._engine = sqlalchemy.create_engine(where)

    def seed(self, group: str, count: int) -> list[str]:
        hosts = base.names(group, count)
        base.insert(self._engine, group, hosts)
        return hosts

    def is_up_at_hand(self) -> Callable[[], bool]:
        member = base.record()
        return lambda: self._api.service_is_up(member)


class Mc(_NovaSg):
    driver = "mc"

    def configure(self, where: str) -> None:
        CONF.set_override("memcached_servers", [where])

    def seed(self, group: str, count: int) -> list[str]:
        hosts = base.names(group, count)
        driver = process.load(self.driver)
        for host in hosts:
            driver.report(
                drivers.Membership(host, group, f"nova-{group}", None, 10)
            )
        driver.close()
        return hosts


def _without_waiting(service: base.Service) -> Callable[[], bool]:
    """Return what service's timer calls, but for its random pause."""
    reporter = process.shared().reporter
    joined = reporter._by_service[id(service)]

    def report() -> bool:
        reporter._report(joined)
        return not service.model_disconnected

    return report
