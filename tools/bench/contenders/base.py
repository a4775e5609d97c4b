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

"""The methods of a contender.

If a project has no such operation, the method returns None, and the row is
left out.
"""

from __future__ import annotations

import abc
import datetime
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Seconds, so many that nothing expires during a measurement.
DOWN_TIME = 36000


#: Seconds between two refreshes of an observer of crashes: the default, and a
#: value for operators who want to know of a crash soon.
REFRESH, SHORT_REFRESH = 2.0, 0.2


class Crash(NamedTuple):
    """How members are killed."""

    #: Whether each member has a guard.
    guard: bool
    kills: int
    #: service_down_time; None: too long to matter.
    down_time: float | None
    #: Seconds between two refreshes of the observer.
    look: float


class Contender(abc.ABC):
    """A project with one of its drivers.

    :param where: the server: a database's URL or host:port
    """

    #: Remarks about figures, by the name of the operation.
    notes: dict[str, str] = {}

    #: Whether only reports are measured.
    only_reports = False

    @abc.abstractmethod
    def __init__(self, where: str) -> None: ...

    @abc.abstractmethod
    def make_api(self) -> Any:
        """Make one more object for questions."""

    @abc.abstractmethod
    def seed(self, group: str, count: int) -> list[str]:
        """Give a group so many members, all of them up.

        :returns: their names
        """

    @abc.abstractmethod
    def reporters(
        self, group: str, count: int
    ) -> list[Callable[[], bool | None]]:
        """Join members in this process.

        :returns: for each member, the function that its timer would call;
            that one returns False if the report failed
        """

    def statements(self) -> int | None:
        """Return how many statements the server got; None: it has none."""
        return None

    def is_up_at_hand(self) -> Callable[[], bool] | None:
        """Ask about a member, with a record of it."""
        return None

    def is_up_by_name(
        self, group: str, host: str
    ) -> Callable[[], bool] | None:
        """Ask about a member by its name alone."""
        return None

    @abc.abstractmethod
    def ask(self, group: str, hosts: Sequence[str]) -> Callable[[], int]:
        """Ask the server for a group's members; return how many are up."""

    def recall(self, group: str) -> Callable[[], int] | None:
        """List a group from memory; return how many members it has."""
        return None

    def crash(self, how: Crash) -> list[float] | None:
        """Kill members; return the seconds until each was down."""
        return None

    def crash_note(self, how: Crash) -> str:
        """Return a remark about those figures."""
        return ""

    def observer(
        self, group: str, hosts: Sequence[str]
    ) -> Callable[[], Any] | None:
        """Make a new object that knows which members of a group are up."""
        return None


def is_green() -> bool:
    """Whether this process runs green threads."""
    eventlet = sys.modules.get("eventlet")
    return eventlet is not None and eventlet.patcher.is_monkey_patched(
        "thread"
    )


def names(group: str, count: int) -> list[str]:
    """Return the names of the members of a group."""
    return [f"{group}-node-{number:05}.example.org" for number in range(count)]


def record(host: str = "node-1.example.org") -> dict[str, Any]:
    """Return a services record, as it comes with a question."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "id": 1,
        "host": host,
        "binary": "nova-compute",
        "topic": "compute",
        "report_count": 5,
        "created_at": now,
        "updated_at": now,
        "last_seen_up": now,
        "forced_down": False,
        "disabled": False,
    }


def count_statements(engine: Any) -> int:
    """Return how many statements a MariaDB has got."""
    with engine.connect() as connection:
        [[_, count]] = connection.exec_driver_sql(
            "SHOW GLOBAL STATUS WHERE Variable_name = 'Questions'"
        )
        return int(count)


def insert(engine: Any, group: str, hosts: Sequence[str]) -> None:
    """Write the services records of members that have just reported.

    The table is nova_sg's or Nova's: the columns are the same.
    """
    from oslo_utils import uuidutils

    from nova_sg.backends.db import models

    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    with engine.begin() as connection:
        connection.execute(
            models.services.insert(),
            [
                {
                    "created_at": now,
                    "updated_at": now,
                    "deleted": 0,
                    "uuid": uuidutils.generate_uuid(),
                    "host": host,
                    "binary": f"nova-{group}",
                    "topic": group,
                    "report_count": 1,
                    "disabled": False,
                    "last_seen_up": now,
                    "forced_down": False,
                    "version": 0,
                }
                for host in hosts
            ],
        )


class Service:
    """Stands for the service that joins; its timer does not fire."""

    def __init__(self, host: str, topic: str, service_ref: Any = None) -> None:
        self.host = host
        self.topic = topic
        self.binary = f"nova-{topic}"
        self.report_interval = 10
        self.service_ref = service_ref
        self.model_disconnected = False
        self.tg = self
        self._report: Callable[[], Any] | None = None

    def add_timer_args(
        self,
        interval: float,
        callback: Callable,
        args: Sequence,
        initial_delay: float = 0,
    ) -> Service:
        """Keep the function that the timer of a thread group would call."""
        self._report = lambda: callback(*args)
        return self

    def stop(self) -> None:
        """Do nothing: there is no timer to stop."""

    def report(self) -> bool:
        """Report as the timer would; return whether it succeeded."""
        self._report()
        return not self.model_disconnected
