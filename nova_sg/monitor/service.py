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

"""nova-sg-monitor as a service, and the agent's own metrics."""

from __future__ import annotations

import ipaddress

from oslo_log import log as logging
from oslo_service import service

from nova_sg import exception, metrics, servicegroup
from nova_sg.conf import CONF
from nova_sg.monitor import application, handlers, overview, server
from nova_sg.servicegroup import process

LOG = logging.getLogger(__name__)


class Monitor(service.Service):
    """Follows every group and shows it.

    :raises ConfigError: an option is wrong, or its port is taken
    """

    def __init__(self) -> None:
        super().__init__()
        # This checks the times.
        servicegroup.API()
        metrics.name_members()
        self._overview = overview.Overview()
        self._server = open_server(
            CONF.monitor.port,
            "port",
            handlers.Handlers(self._overview).routes(),
        )

    def start(self) -> None:
        """Begin to follow the groups, and to serve."""
        self._overview.start()
        self._server.start()

    def reset(self) -> None:
        """Use the reloaded configuration.

        listen and port change at a restart.
        """
        reload_server(self._server)
        old = process.detach()
        servicegroup.API()
        self._overview.restart()
        for one in old:
            one.close()

    def stop(self, graceful: bool = False) -> None:
        """End all connections, and stop."""
        try:
            # This ends the streams of events.
            self._overview.stop()
            self._server.stop()
        finally:
            super().stop(graceful)


def agent_metrics() -> server.Server:
    """Return what shows an agent's own metrics.

    :raises ConfigError: an option is wrong, or its port is taken
    """
    return open_server(
        CONF.monitor.agent_port, "agent_port", handlers.own_routes()
    )


def reload_server(shown: server.Server) -> None:
    """Have a server read its certificate again; a wrong one is logged."""
    try:
        application.check_options()
        shown.reload()
    except exception.ConfigError as error:
        LOG.error(
            "The certificate is not reloaded: %s. The old one stays in use",
            error,
        )


def open_server(
    port: int, option: str, routes: list[application.Route]
) -> server.Server:
    """Return a server of these routes, which has its port already.

    :param option: the name of the option that has the port
    :raises ConfigError: an option is wrong, or the port is taken
    """
    application.check_options()
    made = server.Server(port, option, application.Application(routes))
    warn_of_readers(made.url)
    return made


def warn_of_readers(url: str) -> None:
    """Warn where other hosts can read what is shown, without a token."""
    if CONF.monitor.token is None and not _is_loopback(CONF.monitor.listen):
        LOG.warning(
            "%s can be read by every host that reaches it: [monitor] token "
            "is not set",
            url,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
