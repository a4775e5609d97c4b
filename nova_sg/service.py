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

"""The agent: a service that joins a group and reports its state.

oslo.service has to know which backend to use before this module is imported:
nova_sg.monkey_patch chooses eventlet's.
"""

from __future__ import annotations

from oslo_log import log as logging
from oslo_service import service

from nova_sg import config, exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.manager import Manager
from nova_sg.servicegroup import process

LOG = logging.getLogger(__name__)


class Service(service.Service):
    """A member of one group, with Nova's attributes for one.

    :param host: the member's name
    :param topic: the group
    :param binary: the program that it stands for
    """

    def __init__(self, host: str, topic: str, binary: str) -> None:
        super().__init__()
        self.host = host
        self.topic = topic
        self.binary = binary
        self.report_interval = CONF.report_interval
        self.service_ref = None
        self.model_disconnected = False
        self.servicegroup_api = servicegroup.API()
        self.manager = Manager(self.servicegroup_api, topic)

    @classmethod
    def create(cls) -> Service:
        """Make the service that the configuration describes."""
        return cls(
            host=CONF.host,
            topic=CONF.topic,
            binary=CONF.binary or f"nova-{CONF.topic}",
        )

    def start(self) -> None:
        """Join the group, and begin with the periodic tasks."""
        LOG.info(
            "%(host)s joins the group %(group)s by the driver %(driver)s",
            {
                "host": self.host,
                "group": self.topic,
                "driver": CONF.servicegroup_driver,
            },
        )
        self._join()
        self.tg.add_dynamic_timer(self.periodic_tasks)

    def _join(self) -> None:
        self.servicegroup_api.join(self.host, self.topic, self)

    def periodic_tasks(self) -> float:
        """Run what is due.

        :returns: seconds until the next time
        """
        self.manager.run_periodic_tasks(None)
        return self.manager.pause()

    def reset(self) -> None:
        """Take the reloaded configuration into use, without leaving.

        host, topic and binary are who we are; they change at a restart.
        """
        process.reset()
        self.report_interval = CONF.report_interval
        self.servicegroup_api = servicegroup.API()
        self.manager = Manager(self.servicegroup_api, self.topic)
        self._join()

    def stop(self, graceful: bool = False) -> None:
        """Leave the group, and stop."""
        try:
            self.servicegroup_api.leave(self.host, self.topic)
            LOG.info("%s left the group %s", self.host, self.topic)
        except exception.BackendError as error:
            LOG.warning(
                "Could not leave the group %(group)s, %(host)s will be seen "
                "down after service_down_time: %(error)s",
                {"group": self.topic, "host": self.host, "error": error},
            )
        super().stop(graceful)


class Launcher(service.ServiceLauncher):
    """Runs a service until a signal ends it.

    SIGTERM and SIGINT stop it cleanly, SIGHUP reloads the configuration.
    """

    def handle_signal(self) -> None:
        super().handle_signal()
        # oslo.service would end the process on the spot.
        self.signal_handler._signal_handlers.pop(
            self.signal_handler._signals_by_name["SIGINT"], None
        )
        self.signal_handler.add_handler("SIGINT", self._graceful_shutdown)

    def restart(self) -> None:
        """Reload the configuration; with a wrong one, go on as before."""
        try:
            config.reload()
            for one in self.services.services:
                one.reset()
        except exception.ConfigError as error:
            LOG.error(
                "The configuration is not reloaded: %s. Going on with the "
                "old one",
                error,
            )
        else:
            LOG.info("The configuration is reloaded")
