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

"""An agent's own metrics: prometheus_client's server, with the token."""

from __future__ import annotations

import contextlib
import socket
import sys

import prometheus_client
from oslo_log import log as logging

from nova_sg.conf import CONF
from nova_sg.monitor import application, handlers, server

LOG = logging.getLogger(__name__)


class AgentServer:
    """Shows the metrics of this process at [monitor] agent_port.

    It serves as soon as it exists.

    :raises ConfigError: the port cannot be had, or the certificate is wrong
    """

    def __init__(self) -> None:
        port = CONF.monitor.agent_port
        certificate, key = CONF.monitor.cert_file, CONF.monitor.key_file
        # A check: prometheus_client would ask for a key's password at the
        # terminal.
        server.tls_context()
        self.url = server.url(port)
        with server.explained(port, "agent_port"):
            self._server, _ = prometheus_client.start_http_server(
                port,
                CONF.monitor.listen,
                # Empty, as its own application needs no token: ours follows.
                prometheus_client.CollectorRegistry(),
                certificate,
                key or certificate,
            )
        self._server.set_app(application.Application(handlers.own_routes()))
        self._server.RequestHandlerClass.timeout = server.TIMEOUT
        # Its own handler prints a traceback for each client that leaves.
        self._server.handle_error = lambda _, address: LOG.debug(
            "A client at %s: %s", address, sys.exception()
        )
        if certificate:
            # The thread of each client makes the handshake, not this one.
            self._server.socket.do_handshake_on_connect = False

    def start(self) -> None:
        """Log where the metrics are."""
        LOG.info("Listening at %s", self.url)

    def stop(self) -> None:
        """Accept no more connections."""
        with contextlib.suppress(OSError):
            # This wakes the server; it would go on for half a second.
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()

    def reload(self) -> None:
        """Read the certificate again, for the connections to come.

        :raises ConfigError: the certificate is wrong; the old one stays
        """
        if server.tls_context() and hasattr(self._server.socket, "context"):
            self._server.socket.context.load_cert_chain(
                CONF.monitor.cert_file, CONF.monitor.key_file or None
            )
