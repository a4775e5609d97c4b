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

"""Asking each server by itself, without a session: for `nova-sg doctor`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from nova_sg.backends.zookeeper import address, wire

# Seconds that connecting, and each part of the answer, may take.
TIMEOUT = 3.0


class Answer(NamedTuple):
    """What a server reports about itself."""

    serving: bool
    #: leader, follower, observer or standalone; None: not in the answer.
    mode: str | None
    version: str | None


def ask(
    server: address.Server, tls: Mapping[str, str | None] | None
) -> Answer:
    """Send a server the command srvr, one of ZooKeeper's four-letter words.

    :param tls: what wire.tls_context() takes; None: no TLS
    :raises OSError: there is no answer
    """
    text = _send(server, tls, b"srvr")
    mode = re.search(r"^Mode: (\w+)", text, re.M)
    version = re.search(r"version: ([\w.]+)", text)
    return Answer(
        "not currently serving" not in text,
        mode and mode[1],
        version and version[1],
    )


def kept_if_cut_off(
    server: address.Server, tls: Mapping[str, str | None] | None
) -> float | None:
    """Ask for how long a server that is cut off from the others serves.

    Meanwhile the others do not hear of its clients, and end their sessions.

    :returns: syncLimit times tickTime, in seconds; None: it does not tell, as
        the command conf is not among its 4lw.commands.whitelist, or it is no
        server of an ensemble
    :raises OSError: there is no answer
    """
    text = _send(server, tls, b"conf")
    found = {
        name: re.search(rf"^{name}=(\d+)", text, re.M)
        for name in ("tickTime", "syncLimit")
    }
    tick, limit = found["tickTime"], found["syncLimit"]
    if tick is None or limit is None:
        return None
    return int(tick[1]) * int(limit[1]) / 1000


def _send(
    server: address.Server,
    tls: Mapping[str, str | None] | None,
    word: bytes,
) -> str:
    answer = b""
    # It may not have read the command. If it closes the connection at once,
    # connecting itself may fail so.
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        wire.connect(server, TIMEOUT, tls) as link,
    ):
        link.sendall(word)
        while chunk := link.recv(65536):
            answer += chunk
    if not answer:
        raise ConnectionError(
            "it closes the connection, as it does if this host has as many "
            "as maxClientCnxns allows"
        )
    return answer.decode(errors="replace")
