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

"""A process of its own that sends notifications by oslo.messaging.

Started by notifications.py with an open socket and the configuration files as
its arguments. Over the socket come notifications to send, one line of JSON
each: their number, and what to send. Back goes, for each, its number and what
was wrong with it, null for nothing. Number 0 is the start itself.

Why a process: oslo.messaging (17.1 to 18.3) brings eventlet into a process of
native threads, where it must not be. Its server module imports oslo.service,
whose first user gets the eventlet backend; choosing the one on threads before
imports futurist, which imports eventlet wherever that is installed. Besides, a
process can be killed when a broker stops to answer, and a thread cannot.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from nova_sg import config, exception
from nova_sg.conf import CONF

# For oslo.messaging: neither an attempt after the first, nor a wait between
# them. There is one who does that.
ONCE = 0

URL = "[oslo_messaging_notifications] transport_url"


def transport_of(arguments: list[str]) -> Any:
    """Return oslo.messaging's transport, as the configuration has it.

    :raises ConfigError: there is none; never with the URL: it has a password
    """
    # This module has a process to itself, in which nothing is green. Who
    # imports eventlet where it is installed does without where it is not.
    # typeshed does not know that None keeps a module from being imported.
    sys.modules["eventlet"] = None  # type: ignore[assignment]
    try:
        from oslo_service import backend

        backend.init_backend(backend.BackendType.THREADING)
        import oslo_messaging
    except ImportError as error:
        raise exception.ConfigError(
            "it takes oslo.messaging and oslo.service's threading backend "
            f"({error}): pip install 'nova-sg[notifications]'"
        ) from None
    config.parse(arguments, "nova-sg")
    # That of Nova: so what listens to Nova's hears ours, too.
    oslo_messaging.set_transport_defaults(control_exchange="nova")
    try:
        with config.explained():
            transport = oslo_messaging.get_notification_transport(CONF)
    except exception.ConfigError:
        raise
    except Exception:
        # Whatever it says may quote the URL.
        raise exception.ConfigError(
            f"{URL} cannot be used: it has to be like "
            "rabbit://USER:PASSWORD@HOST:5672/, of a transport that "
            "oslo.messaging knows"
        ) from None
    if not (
        CONF.oslo_messaging_notifications.transport_url or CONF.transport_url
    ).partition("://")[2]:
        raise exception.ConfigError(
            f"there is no broker to send to: set {URL}, or [DEFAULT] "
            "transport_url"
        )
    return transport


def make_send(transport: Any) -> Callable[[dict], None]:
    """Return what sends a notification once, and raises if that failed.

    oslo.messaging's own Notifier logs what goes wrong and does not tell. So
    this does what its driver messagingv2 does, by the same call, which is
    the one thing used here that is not meant for others.
    """
    from oslo_messaging import Target

    targets = [
        Target(topic=f"{topic}.info")
        for topic in CONF.events.notification_topics
    ]

    def send(notification: dict) -> None:
        for target in targets:
            transport._send_notification(
                target, {}, notification, version=2.0, retry=ONCE
            )

    return send


def main() -> None:
    """Send what comes until nobody has the other side any more."""
    # It ends with the one it belongs to, which may have something under way.
    for signo in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_IGN)
    # What fails is said, in an answer, and logged there.
    logging.disable(logging.CRITICAL)
    link = socket.socket(fileno=int(sys.argv[1]))
    # It is not where it was made by a green process.
    link.setblocking(True)
    lock = threading.Lock()

    def answer(number: int, problem: str | None) -> None:
        with lock:
            link.sendall(json.dumps([number, problem]).encode() + b"\n")

    try:
        send = make_send(transport_of(sys.argv[2:]))
    except exception.NovaSGError as error:
        answer(0, str(error))
        return
    answer(0, None)

    def attempt(number: int, notification: dict) -> None:
        problem = None
        try:
            send(notification)
        except Exception as error:
            problem = " ".join(str(error).split()) or type(error).__name__
        answer(number, problem)

    pool = concurrent.futures.ThreadPoolExecutor(CONF.events.parallel)
    with link.makefile("rb") as lines:
        for line in lines:
            pool.submit(attempt, *json.loads(line))
    # Whoever is waiting for a broker is not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
