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

"""What the agent does besides reporting: it may observe its own group.

It does so where its log is to have what happens in the group, or where its
own metrics are shown. Otherwise an agent sends reports alone.
"""

from __future__ import annotations

from oslo_log import log as logging
from oslo_service import periodic_task

from nova_sg import servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import events

LOG = logging.getLogger(__name__)

# How many members the agents of one group read a second, all agents together.
# Each of N agents reads N members at each refresh: without this limit the load
# on the backend would grow with the square of the group's size.
MEMBERS_A_SECOND = 100_000


class Manager(periodic_task.PeriodicTasks):
    """Refreshes the view of a group, and logs its events if configured.

    :param shows_metrics: whether this process shows its metrics, which have
        the group's members
    """

    def __init__(
        self, api: servicegroup.API, group: str, shows_metrics: bool = False
    ) -> None:
        super().__init__(CONF)
        self._api = api
        self._group = group
        self._shows_metrics = shows_metrics
        self._members = 0

    def pause(self) -> float:
        """Return the seconds from one run of the tasks to the next."""
        return max(
            CONF.servicegroup.view_refresh_interval,
            self._members**2 / MEMBERS_A_SECOND,
        )

    # Due at each call of the service's timer, which waits pause() seconds.
    @periodic_task.periodic_task(spacing=0.001, run_immediately=True)
    def refresh_view(self, context: object) -> None:
        """Refresh the group and log the changes since the last refresh."""
        if not (CONF.log_transitions or self._shows_metrics):
            return
        happened = self._api.refresh(self._group)
        self._members = self._api.size(self._group)
        for event in happened if CONF.log_transitions else ():
            level = (
                logging.WARNING
                if event.type == events.DOWN
                else logging.INFO
            )
            LOG.log(
                level,
                "%(host)s in the group %(group)s: %(type)s (%(reason)s)",
                event._asdict(),
            )
