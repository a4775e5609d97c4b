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

"""The one module that knows eventlet: makes a process a green one.

A green process imports this module first and calls patch() before it
imports anything else. Everything else in nova_sg is written on the standard
library, which is green from then on, and runs as well on native threads.
"""

import socket
import warnings
from collections.abc import Callable
from typing import Any


def patch() -> None:
    """Patch the standard library and choose oslo.service's eventlet backend.

    Calling it twice does nothing more.

    :raises oslo_service.backend.exceptions.BackendAlreadySelected: when the
        process has chosen native threads before
    """
    with warnings.catch_warnings():
        # Whoever runs a green process has decided; telling the operator at
        # every start of every command helps nobody.
        warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecat")
        import eventlet

    eventlet.monkey_patch()

    from oslo_service import backend

    backend.init_backend(backend.BackendType.EVENTLET)


def wsgi(
    listener: socket.socket, application: Callable, scheme: str, timeout: float
) -> Callable[[socket.socket, Any], None]:
    """Have a WSGI application served by eventlet.wsgi, in a green process.

    :param scheme: http or https
    :param timeout: seconds that a client may take to send or to read on
    :returns: what serves one connection, on the thread that calls it, until
        the client ends it; it is called with the connection and the address
    """
    import eventlet.wsgi

    class Protocol(eventlet.wsgi.HttpProtocol):
        def finish(self) -> None:
            try:
                super().finish()
            finally:
                # Where the client has gone, what is left to write cannot be
                # written, and eventlet closes no more. The descriptor would
                # be kept until the garbage collector comes by.
                self.rfile.close()

    server = eventlet.wsgi.Server(
        listener,
        listener.getsockname(),
        application,
        protocol=Protocol,
        environ={"wsgi.url_scheme": scheme},
        # What is written goes out at once.
        minimum_chunk_size=1,
        log_output=False,
        debug=False,
        socket_timeout=timeout,
    )

    def serve(connection: socket.socket, address: Any) -> None:
        server.process_request(
            [address, connection, eventlet.wsgi.STATE_IDLE]
        )

    return serve
