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

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy

from bench import victims
from bench.contenders import base, client
from nova_sg import evzookeeper, servicegroup, zookeeper
from nova_sg.backends import base as drivers
from nova_sg.backends.db import engine, schema
from nova_sg.backends.zookeeper import names
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from nova_sg.servicegroup.shared import Shared

#: service_down_time of members with a guard, too long to matter.
GUARDED = 120.0
#: Seconds between two kills, so that they come at any moment between two
#: refreshes.
BETWEEN = 0.37
#: recv_timeout of a member whose crash is seen by its session: the default.
CRASH_SESSION = 4000


class _NovaSg(base.Contender):
    """The part that all drivers have in common."""

    driver: str
    #: Whether an observer is told of a crash, and need not refresh to see it.
    is_told = False

    notes = {
        "service_is_up, by name": (
            "nova_sg answers from its view, which a thread keeps fresh by "
            "one refresh every view_refresh_interval"
        ),
    }

    def __init__(self, where: str) -> None:
        CONF([], project="nova-sg", default_config_files=[])
        CONF.set_override("servicegroup_driver", self.driver)
        CONF.set_override("service_down_time", base.DOWN_TIME)
        # So that refreshes come only when they are measured.
        CONF.set_override("view_refresh_interval", 3600, "servicegroup")
        self._where = where
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

    def crash(self, how: base.Crash) -> list[float] | None:
        if self.is_told and how.guard and how.look < base.REFRESH:
            return None
        group = f"crash-{'guard' if how.guard else 'silence'}-{how.look:g}"
        process.reset()
        CONF.set_override("view_refresh_interval", how.look, "servicegroup")
        down_time = how.down_time or GUARDED
        times = {
            "service_down_time": down_time,
            "report_interval": down_time / 5,
        }
        for name, value in times.items():
            CONF.set_override(name, value)
        job: dict[str, Any] = {
            "module": "ours",
            "class": type(self).__name__,
            "where": self._where,
            "group": group,
            "mode": "eventlet" if base.is_green() else "threads",
            "options": {
                "DEFAULT": times,
                "servicegroup": {"crash_guard": how.guard},
                **self.victim_options(how.guard),
            },
        }
        api = servicegroup.API()
        hosts = base.names(group, how.kills)
        # For the guards' files.
        with tempfile.TemporaryDirectory(
            prefix="nova-sg-bench-", ignore_cleanup_errors=True
        ) as folder:
            job["options"]["DEFAULT"]["state_path"] = folder
            with victims.Victims(job) as crowd:
                return victims.seen_after(crowd, api, group, hosts, BETWEEN)

    def victim_options(self, guard: bool) -> dict[str, dict[str, Any]]:
        """Return the driver's options for a member to kill, by section."""
        return {}

    def crash_note(self, how: base.Crash) -> str:
        refreshes = f"the observer refreshes every {how.look:g} s"
        if how.down_time is None:
            return refreshes
        return f"{refreshes}; service_down_time is {how.down_time:g} s"

    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        def ask() -> int:
            self._api.refresh(group)
            return len(self._api.get_all(group))

        return ask

    def recall(self, group: str) -> Callable[[], int]:
        self._api.watch(group, lambda event: None)
        return lambda: len(self._api.members(group))

    def observer(self, group: str, hosts: Sequence[str]) -> Callable[[], Any]:
        def make() -> Shared:
            # Not the process's own one, which knows the group already.
            shared = Shared(process.load(self.driver))
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

    def statements(self) -> int | None:
        if self._engine.dialect.name == "sqlite":
            return None
        return base.count_statements(self._engine)

    def is_up_at_hand(self) -> Callable[[], bool]:
        member = base.record()
        return lambda: self._api.service_is_up(member)


class Mc(_NovaSg):
    driver = "mc"
    is_told = True

    def configure(self, where: str) -> None:
        CONF.set_override("memcached_servers", [where])

    def crash_note(self, how: base.Crash) -> str:
        if how.guard:
            return (
                "the observer asks every "
                f"{CONF.memcache.crash_poll_interval:g} s whether to refresh"
            )
        return super().crash_note(how)

    def seed(self, group: str, count: int) -> list[str]:
        hosts = base.names(group, count)
        driver = process.load(self.driver)
        for host in hosts:
            driver.report(
                drivers.Membership(host, group, f"nova-{group}", None, 10)
            )
        driver.close()
        return hosts


class Zk(_NovaSg):
    driver = "zk"
    is_told = True

    notes = {
        "report": (
            "nova_sg feeds its watchdog, and asks ZooKeeper once every half "
            "of service_down_time; tooz asks each time"
        ),
        "service_is_up, by name": (
            "nova_sg answers from its view, which watches keep"
        ),
        "refresh": "nova_sg asks for three lists, tooz for one",
    }

    def configure(self, where: str) -> None:
        CONF.set_override("address", where, "zookeeper")
        CONF.set_override("recv_timeout", client.SESSION * 1000, "zookeeper")
        self._seeder = evzookeeper.ZKSession(where, 60, client.SESSION * 1000)

    def seed(self, group: str, count: int) -> list[str]:
        # The znodes of so many nodes, made by one session.
        hosts = base.names(group, count)
        handle, session_id = self._seeder.connected_handle(60)
        members, entries = names.group_path(group), names.entries_path(group)
        for path in (members, entries):
            self._seeder.ensure_path(path)
        done = threading.Semaphore(0)
        answered = zookeeper.Immediate(lambda *answer: done.release())
        acl = [evzookeeper.ZOO_OPEN_ACL_UNSAFE]
        for host in hosts:
            name = names.member_name(host, session_id)
            entry = names.entry_path(group, host, f"nova-{group}")
            for path, flags in (
                (f"{members}/{name}", zookeeper.EPHEMERAL),
                (entry, 0),
            ):
                zookeeper.acreate(handle, path, "", acl, flags, answered)
        for _ in range(2 * count):
            done.acquire()
        return hosts

    def victim_options(self, guard: bool) -> dict[str, dict[str, Any]]:
        # Without a guard its crash is seen by its session's end.
        timeout = client.SESSION * 1000 if guard else CRASH_SESSION
        return {"zookeeper": {"recv_timeout": timeout}}

    def crash_note(self, how: base.Crash) -> str:
        if how.guard:
            return "the observer is told"
        return f"the observer is told; recv_timeout is {CRASH_SESSION} ms"

    def reporters(self, group: str, count: int) -> list[Callable]:
        made = super().reporters(group, count)
        # They join in the background.
        for report in made:
            while not report():
                time.sleep(0.01)
        return made

    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        # Not the process's own view: if it follows the group already, it
        # sends no request.
        view = Shared(process.load(self.driver)).view(group)

        def ask() -> int:
            view.refresh()
            return len(view.hosts_up())

        return ask

    def observer(self, group: str, hosts: Sequence[str]) -> Callable[[], Any]:
        def make() -> Shared:
            shared = Shared(process.load(self.driver))
            # Follow the group, so that the state of the watches counts, too.
            shared.driver.follow(group, lambda: None)
            shared.view(group).refresh()
            return shared

        return make


def _without_waiting(service: base.Service) -> Callable[[], bool]:
    """Return the function of a service's timer, without its random pause."""
    reporter = process.shared().reporter
    joined = reporter._by_service[id(service)]

    def report() -> bool:
        reporter._report(joined)
        return not service.model_disconnected

    return report
