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

"""nova-sg-monitor as a process, and a client of it."""

import contextlib
import http.client
import json
import socket
import ssl
import time
import unittest

from tests.fixtures import process as servers
from tests.fixtures.process import wait_for
from tests.processes import base


class Client:
    """Sends requests to a monitor: for a test case that has one.

    The test case has port, started (the process) and log().
    """

    def wait_until_ready(self, **kwargs):
        wait_for(
            lambda: self.status("/readyz", **kwargs) == 200,
            base.PATIENCE,
            lambda: f"the monitor is ready\n{self.log()}",
        )

    def connect(self, tls=None):
        if tls is None:
            link = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=base.PATIENCE
            )
        else:
            link = http.client.HTTPSConnection(
                "localhost", self.port, timeout=base.PATIENCE, context=tls
            )
        self.addCleanup(link.close)
        return link

    def request(self, path, method="GET", tls=None, **headers):
        """Return the answer, its body read."""
        link = self.connect(tls)
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        link.request(method, path, headers=headers)
        answer = link.getresponse()
        answer.body = answer.read()
        link.close()
        return answer

    def status(self, path, **kwargs):
        """Return the status of an answer; None: there is no monitor."""
        try:
            return self.request(path, **kwargs).status
        except (OSError, http.client.HTTPException):
            if self.started.poll() is not None:
                self.fail(f"the monitor has ended\n{self.log()}")
            return None

    def get(self, path, **kwargs):
        """Return what is answered with status 200."""
        answer = self.request(path, **kwargs)
        self.assertEqual(200, answer.status, answer.body)
        return json.loads(answer.body)

    def kinds(self, group="compute"):
        """Return what each member is, by its name."""
        members = self.get(f"/v1/groups/{group}/members")["members"]
        return {member["host"]: member["kind"] for member in members}

    def metric(self, name):
        text = self.request("/metrics").body.decode()
        for line in text.splitlines():
            if line.startswith(name):
                return float(line.split()[-1])
        return None

    def watch(self, **kwargs):
        """Return a stream of events, connected."""
        return Stream(self, **kwargs)


class TestCase(Client, base.TestCase):
    """A test with a monitor of its own."""

    SERVICE_DOWN_TIME = 3600
    #: The threads that the monitor runs on.
    BACKEND = "eventlet"

    def monitor(self, more="", options=""):
        """Start a monitor.

        :param more: lines for [DEFAULT]
        :param options: lines for [monitor]
        """
        self.set_up(more, options)
        self.started = self.start(
            "nova-sg-monitor", "--log-file", self.path("monitor.log")
        )
        self.addCleanup(self.check_log)
        return self.started

    def set_up(self, more="", options=""):
        self.port = servers.free_port()
        self.configure(
            f"concurrency_backend = {self.BACKEND}\n{more}\n"
            f"[monitor]\nport = {self.port}\n{options}",
            service_down_time=self.SERVICE_DOWN_TIME,
        )

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            with open(self.path("monitor.log")) as file:
                return file.read()
        return ""

    def check_log(self):
        self.check_words(self.log())


class SharedTestCase(Client, unittest.TestCase):
    """Tests that share a monitor, as they only send requests.

    A subclass puts what the monitor is to show into the database.
    """

    BACKEND = TestCase.BACKEND

    @classmethod
    def set_up_members(cls, keeper):
        """Put members into the embedded database, by keeper.insert()."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The folder and the monitor of this test case are shared by all.
        cls.keeper = TestCase()
        cls.keeper.BACKEND = cls.BACKEND
        cls.addClassCleanup(cls.keeper.doCleanups)
        cls.keeper.setUp()
        cls.keeper.configure()
        cls.keeper.do("db", "sync")
        cls.set_up_members(cls.keeper)
        cls.keeper.monitor()
        # Errors of the keeper's own cleanups are not reported.
        cls.addClassCleanup(cls.keeper.check_log)
        cls.keeper.wait_until_ready()

    def setUp(self):
        super().setUp()
        self.port = self.keeper.port
        self.started = self.keeper.started
        self.log = self.keeper.log


class Stream:
    """Server-sent events as they come."""

    def __init__(self, case, **headers):
        self._link = case.connect()
        self._link.request("GET", "/v1/events", headers=headers)
        self._answer = self._link.getresponse()
        case.assertEqual(200, self._answer.status)
        case.assertEqual(
            "text/event-stream", self._answer.headers["Content-Type"]
        )
        self.seen = []
        self._taken = 0

    def next(self):
        """Wait for an event; return its name and its data.

        None: it was a comment, which says that the monitor is still there.
        """
        kind = None
        while line := self._answer.readline():
            if line.startswith(b": "):
                return None
            word, _, rest = line.decode().rstrip("\n").partition(": ")
            if word == "event":
                kind = rest
            elif word == "data":
                self.seen.append((kind, json.loads(rest)))
                return self.seen[-1]
        raise EOFError

    def wait(self, kind, condition=lambda data: True):
        """Return the data of the first event of that name that will do.

        It may have come already.
        """
        deadline = time.monotonic() + base.PATIENCE
        while True:
            for found, data in self.seen[self._taken :]:
                if found == kind and condition(data):
                    return data
            if time.monotonic() > deadline:
                raise AssertionError(f"no {kind} among {self.seen[-20:]}")
            self.next()

    def close(self):
        """Have the connection ended."""
        self._answer.close()
        self._link.close()

    def forget(self):
        """Have wait() ignore the events up to now."""
        self._taken = len(self.seen)


def deaf_client(port, request):
    """Send a request; return its connection, which buffers very little."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    link.connect(("127.0.0.1", port))
    link.sendall(request)
    return link


def trusting(certificate):
    """Return a TLS context that trusts one certificate alone."""
    return ssl.create_default_context(cafile=certificate)
