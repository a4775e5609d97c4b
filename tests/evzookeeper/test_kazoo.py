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

"""The tests of ZKSession and of members, on kazoo's transport."""

import logging
import socket
import threading
import time

from kazoo import exceptions as kazoo_exceptions

from nova_sg import kazoo_transport, zookeeper
from nova_sg.kazoo_transport import convert
from tests import green_mode, single_mode
from tests.cases import test_zookeeper as cases
from tests.evzookeeper import (
    base,
    test_membership,
    test_queue,
    test_session,
)
from tests.fixtures import process, proxy
from tests.zookeeper import base as zk_base


class _Kazoo:
    client = kazoo_transport.KazooTransport()


class CallsTest(_Kazoo, test_session.CallsTest):
    test_log_stream = None  # the C client's


class StateTest(_Kazoo, test_session.StateTest):
    UNRESOLVED = (
        zookeeper.ConnectionLossException,
        zookeeper.OperationTimeoutException)


class ExpiryTest(_Kazoo, test_session.ExpiryTest):
    pass


class ConnectTest(_Kazoo, test_session.ConnectTest):
    pass


class CloseTest(_Kazoo, test_session.CloseTest):
    pass


class ServerTest(_Kazoo, base.TestCase):
    def test_a_server_that_does_not_answer_is_given_up_in_time(self):
        """kazoo would wait until the session has ended.

        A server that has just started may take a connection and forget it.
        """
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            session = self.open(address, timeout=None, recv_timeout=12000)
            begun = time.monotonic()
            # After a third of the session timeout.
            process.wait_for(session.problem, message="it is given up")
            self.assertLess(time.monotonic() - begun, 9)
            self.assertIn("time-out", session.problem())

    def test_a_session_without_a_server_is_closed_without_a_warning(self):
        """kazoo says that it could not connect, whoever wanted that."""
        session = self.open("127.0.0.1:1", timeout=None)
        process.wait_for(session.problem)
        log = logging.getLogger("nova_sg.zookeeper")
        with self.assertLogs(log, "INFO") as caught:
            log.info("closing")
            session.close()
            closing = "nova_sg.kazoo_transport close"
            process.wait_for(
                lambda: not any(
                    thread.name.startswith(closing)
                    for thread in threading.enumerate()
                )
            )
        # What an attempt that ended before says may come late.
        late = "Connection dropped", "Connection time-out"
        said = [
            one for one in caught.output if not any(w in one for w in late)
        ]
        self.assertEqual(["INFO:nova_sg.zookeeper:closing"], said)


class RequestTest(_Kazoo, base.TestCase):
    def test_a_request_whose_caller_has_given_up_is_not_sent(self):
        """kazoo would send it, however much later a server is connected."""
        with proxy.TcpProxy(self.server.port) as way:
            session = self.open(way.address + self.root, recv_timeout=6000)
            way.cut()
            process.wait_for(lambda: not session.is_connected())
            with self.assertRaises(zookeeper.ZooKeeperException):
                session.create("/late", "", timeout=0.05)
            way.restore()
            self.assertTrue(session.wait_connected(process.PATIENCE))
            session.sync("/")
            with self.assertRaises(zookeeper.NoNodeException):
                session.exists("/late")

    def test_arguments_that_kazoo_refuses(self):
        for call in (
            lambda: self.session.get("/a/../b"),
            lambda: self.session.get("a"),
            lambda: self.session.get("/\udcff"),
            lambda: self.session.create("/a", "", [{"perms": 1}]),
            lambda: self.session.add_auth("digest", "\udcff"),
        ):
            with self.assertRaises((
                    zookeeper.BadArgumentsException,
                    zookeeper.InvalidACLException)):
                call()
        self.assertTrue(self.session.is_connected())
        self.session.get("/")

    def test_data_that_are_no_text(self):
        self.session.create("/a", b"\xff\0")
        self.assertEqual("\udcff\0", self.session.get("/a")[0])

    def test_a_code_that_kazoo_does_not_know(self):
        for code in zookeeper.exceptions.BY_CODE:
            error = kazoo_exceptions.EXCEPTIONS[code]()
            self.assertEqual(code, convert.code(error))
            self.assertTrue(convert.text(code))


class ExitTest(_Kazoo, base.TestCase):
    def test_ephemerals_are_gone_when_the_process_has_ended(self):
        status, output, _ = zk_base.run_python("""
import sys
from nova_sg import evzookeeper, kazoo_transport, zookeeper
session = evzookeeper.ZKSession(
    sys.argv[1], timeout=60, client=kazoo_transport.KazooTransport())
session.create("/a", "", flags=zookeeper.EPHEMERAL)
""", self.host)
        self.assertEqual(0, status, output)
        self.session.sync("/")
        with self.assertRaises(zookeeper.NoNodeException):
            self.session.exists("/a")

    def test_a_process_ends_although_the_server_does_not_answer(self):
        self.addCleanup(self.server.thaw)
        status, output, seconds = zk_base.run_python("""
import os, signal, sys
from nova_sg import evzookeeper, kazoo_transport, zookeeper
session = evzookeeper.ZKSession(
    sys.argv[1], timeout=60, recv_timeout=60000,
    client=kazoo_transport.KazooTransport())
os.kill(int(sys.argv[2]), signal.SIGSTOP)
""", self.host, str(self.server.pid))
        self.assertEqual(0, status, output)
        self.assertLess(seconds, 30)


class CooperationTest(_Kazoo, test_session.CooperationTest):
    pass


class MembershipTest(_Kazoo, test_membership.MembershipTest):
    pass


class MonitorTest(_Kazoo, test_membership.MonitorTest):
    pass


class ServiceTest(_Kazoo, test_membership.ServiceTest):
    pass


class QueueTest(_Kazoo, test_queue.QueueTest):
    pass


class _KazooCase(_Kazoo):
    CLIENT = "kazoo"


@single_mode
class NoServerTest(_KazooCase, cases.NoServerTest):
    test_with_a_session_the_pauses_are_shorter_than_its_timeout = None
    test_a_monitor_goes_on_with_the_next_handle = None

    def test_a_session_is_kept_while_the_server_is_restarted(self):
        """However long that takes: its sessions have their timeout again."""
        session = self.open()
        self.assertTrue(session.wait_connected(process.PATIENCE))
        before = session.session_id
        self.server.stop()
        # Longer than the client tells what it has seen.
        time.sleep(2 * 2 + 1)
        self.server.start()
        self.assertTrue(session.wait_connected(process.PATIENCE))
        self.assertEqual(before, session.session_id)


class RefusedTest(_KazooCase, cases.RefusedTest):
    pass


class ServerListTest(_KazooCase, cases.ServerListTest):
    pass


@green_mode
class WipedTest(_KazooCase, cases.WipedTest):
    pass


@green_mode
class NamesTest(_KazooCase, cases.NamesTest):
    test_no_name_is_known_at_first = None
