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

"""The process that sends notifications by oslo.messaging.

Started by notifications.py, which writes notifications to pipes. For each, the
problem with it comes back: a text, or None. What comes back first, by the
first pipe, is about the start.

Why a process: oslo.messaging (17.1 to 18.3) brings eventlet into a process of
native threads, where it must not be. Its server module imports oslo.service,
whose first user gets the eventlet backend; choosing the one on threads before
imports futurist, which imports eventlet wherever that is installed. Besides, a
process can be killed when a broker stops answering, and a thread cannot.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from nova_sg import config, exception
from nova_sg.conf import CONF

# For oslo.messaging: one attempt. The schedule makes the next one.
ONCE = 0

URL = "[oslo_messaging_notifications] transport_url"


def transport_of(arguments: Sequence[str]) -> Any:
    """Return oslo.messaging's transport, as the configuration has it.

    :raises ConfigError: there is none; never with the URL: it has a password
    """
    # Nothing is green in this process. What imports eventlet where it is
    # installed does without it where the import fails, as it does now:
    # typeshed does not know that None has this meaning.
    sys.modules["eventlet"] = None  # type: ignore[assignment]
    try:
        from oslo_service import backend

        if hasattr(backend, "get_backend_type"):
            backend.init_backend(backend.BackendType.THREADING)
        else:
            # oslo.service 4.1, of OpenStack 2025.1, cannot do without it. As
            # nothing is patched, oslo.messaging uses native threads all the
            # same.
            del sys.modules["eventlet"]
        import oslo_messaging
    except (ImportError, ValueError) as error:
        raise exception.ConfigError(
            "it takes oslo.messaging and oslo.service's threading backend "
            f"({error}): install nova-sg with its extra notifications"
        ) from None
    config.parse(arguments, "nova-sg")
    # Nova's: what listens to its notifications receives ours, too.
    oslo_messaging.set_transport_defaults(control_exchange="nova")
    try:
        with config.explained("an option of oslo.messaging"):
            transport = oslo_messaging.get_notification_transport(CONF)
    except exception.ConfigError:
        raise
    except Exception:
        # The text of any other error may quote the URL.
        raise exception.ConfigError(
            f"{URL} cannot be used. Write it like "
            "rabbit://USER:PASSWORD@HOST:5672/, with a transport that "
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
    """Return a function that sends a notification once, and raises errors.

    oslo.messaging's own Notifier logs an error and does not raise it. So
    this does what its driver messagingv2 does, by the same call. That call
    is private.
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


def main(pipes: Sequence[Connection], arguments: Sequence[str]) -> None:
    """Send what comes until the process that started this one has ended.

    :param pipes: where notifications come from, one at a time by each
    :param arguments: those of nova-sg that name configuration files
    """
    # Its parent may have something under way when a signal comes to both.
    for signo in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signo, signal.SIG_IGN)
    for pipe in pipes:
        # It is not where it was made by a green process.
        os.set_blocking(pipe.fileno(), True)
    # The parent logs what fails.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        send = make_send(transport_of(arguments))
    except exception.NovaSGError as error:
        pipes[0].send(str(error))
        return
    pipes[0].send(None)
    for pipe in pipes:
        threading.Thread(target=_serve, args=(pipe, send), daemon=True).start()
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # What still waits for a broker is not waited for.
    os._exit(0)


def _serve(pipe: Connection, send: Callable[[dict], None]) -> None:
    while True:
        try:
            notification = pipe.recv()
        except EOFError:
            return
        problem = None
        try:
            send(notification)
        except Exception as error:
            problem = " ".join(str(error).split()) or type(error).__name__
        try:
            pipe.send(problem)
        except OSError:
            # The parent has ended.
            return
