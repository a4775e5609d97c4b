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

"""Closing the ZooKeeper session of a process that has ended.

Any process that knows the id and the password of a session can continue it.
Closing it deletes its ephemeral znodes at once, and no others. So this does
no harm to a service that was started again: it has a session of its own.

An order has servers, [(host, port)], session, password, timeout (ms), tls,
which wire.tls_context() takes, or None, sasl, (user, password), or None,
folder, in which the library for sasl is, auths, [(scheme, bytes)], and acl,
[(permissions, scheme, id)]. What it has for each member is the path of a znode
that is created before the session is closed and says that the member crashed.
"""

from __future__ import annotations

import random
import socket
import sys

from nova_sg.backends.zookeeper import wire

# Seconds for one server to answer.
TIMEOUT = 2.0


def withdraw(order: dict) -> bool:
    """Close the session; return whether it still existed.

    :raises OSError: no server has closed it
    """
    folder = order["folder"]
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)
    servers = list(order["servers"])
    random.shuffle(servers)
    problem: OSError | None = None
    for server in servers:
        timeout = min(TIMEOUT, order["patience"])
        try:
            with wire.connect(server, timeout, order["tls"]) as link:
                return _end(link, order)
        except OSError as error:
            problem = error
    raise problem or OSError("no servers")


def _end(link: socket.socket, order: dict) -> bool:
    if not wire.begin(
        link, order["timeout"], order["session"], order["password"]
    ):
        return False
    wire.authenticate(link, order["sasl"])
    requests = [wire.auth_request(*auth) for auth in order["auths"]]
    xid = 0
    for xid, path in enumerate(order["members"].values(), 1):
        requests.append(wire.create_request(xid, path, order["acl"]))
    last = xid + 1
    requests.append(wire.close_request(last))
    link.sendall(b"".join(requests))
    for _ in wire.answers(link, last):
        # Errors about marks are ignored: these only explain the verdict.
        pass
    return True
