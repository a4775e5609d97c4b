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

"""Base class and helpers of the tests of nova_sg.evzookeeper."""

import socket
import struct
import threading
import time

from nova_sg import evzookeeper, zookeeper
from tests.fixtures import process
from tests.zookeeper import base


class TestCase(base.TestCase):
    """A test with a self.session that is connected.

    :cvar client: the transport of its sessions
    """

    client = zookeeper

    def setUp(self):
        super().setUp()
        self.session = self.open()

    def open(self, host=None, **kwargs):
        """Open a session that ends with the test."""
        arguments = {
            "timeout": process.PATIENCE, "recv_timeout": 4000,
            "operation_timeout": process.PATIENCE,
            "client": self.client}
        session = evzookeeper.ZKSession(
            host or self.host, **(arguments | kwargs))
        self.addCleanup(session.close, timeout=process.PATIENCE)
        return session

    def expire(self, session):
        """Have a session expire, and wait for the next one."""
        expire(self.server.port, session)


def expire(port, session):
    """Have a session expire, and wait for the next one.

    Another client takes the session over, and ends it.

    :param port: of the server, or of one of the ensemble
    """
    before, client_id = process.wait_for(
        lambda: _identity(session), message="there is a session")
    for _ in range(100):
        # The session's own client takes it back at once. If it is fast
        # enough, the server no longer reads from this connection.
        end_session(port, client_id)
        deadline = time.monotonic() + 0.2
        while (session.session_id == before
                and time.monotonic() < deadline):
            time.sleep(0.01)
        if session.session_id != before:
            break
    process.wait_for(
        lambda: session.session_id not in (None, before),
        message="the session is replaced")


def _identity(session):
    """Return a session's id and its client's id; None between two."""
    try:
        before, client_id = session.session_id, session.client_id()
    except zookeeper.ZooKeeperException:
        return None
    # Both ids have to be of the same session.
    same = before is not None and before == session.session_id
    return (before, client_id) if same else None


class Events:
    """A listener of a session's state, or of a group's members."""

    def __init__(self):
        self.seen = []

    def __call__(self, event):
        self.seen.append(event)

    def wait(self, *events, timeout=process.PATIENCE):
        """Wait until these were the last events."""
        process.wait_for(
            lambda: self.seen[-len(events):] == list(events), timeout,
            lambda: f"{events} come; these came: {self.seen}")


def end_session(port, client_id):
    """Ask the server to end another client's session, as that one would."""
    number, password = client_id
    password = password.encode("utf-8", "surrogateescape").ljust(16, b"\0")
    connect = struct.pack(
        "!iqiqi16s?", 0, 0, 4000, number, 16, password, False)
    close = struct.pack("!ii", 1, -11)
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(b"".join(
            struct.pack("!i", len(packet)) + packet
            for packet in (connect, close)))
        while link.recv(4096):
            pass  # until the server hangs up


def threads():
    """Return the names of the package's threads in this process."""
    return sorted(
        thread.name for thread in threading.enumerate()
        if thread.name.startswith("nova_sg.evzookeeper"))
