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


"""nova-sg-monitor with disagreements, a mass silence, and many clients."""

import contextlib
import re
import resource
import socket

from nova_sg.monitor import event_streams, server
from tests import native_services
from tests.fixtures import memcached
from tests.fixtures.process import wait_for
from tests.processes import base, monitor


class DisagreementTest(monitor.TestCase):
    SERVICE_DOWN_TIME = 6

    def test_what_drivers_disagree_about(self):
        store = self.enterContext(memcached.Memcached())
        self.configure(service_down_time=self.SERVICE_DOWN_TIME)
        self.do("db", "sync")
        # Started before the second driver is configured.
        one = self.agent("one")
        wait_for(lambda: self.execute("SELECT * FROM services"), base.PATIENCE)
        self.monitor(
            f"memcached_servers = {store.address}",
            "[servicegroup]\nsecondary_drivers = mc",
        )
        self.agent("both")
        wait_for(
            lambda: (
                self.status("/v1/groups/compute") == 200
                and self.kinds() == {"one": "up", "both": "up"}
            ),
            base.PATIENCE,
        )
        stream = self.watch()
        expected = {
            "group": "compute",
            "primary": "db",
            "secondary": "mc",
            "kind": "up-unknown",
            "members": 1,
            "total": 1,
        }
        stream.wait(
            "backends", lambda data: data["disagreements"] == [expected]
        )
        group = self.get("/v1/groups/compute")
        self.assertEqual([expected], group["disagreements"])
        self.assertEqual(
            ["db", "mc"], [one["driver"] for one in group["backends"]]
        )
        labels = (
            '{group="compute",kind="up-unknown",primary="db",secondary="mc"}'
        )
        for name in "disagreeing_members", "disagreements_total":
            self.assertEqual(1, self.metric(f"nova_sg_{name}{labels}"), name)
        # A client that connects later is shown it, too.
        (shown,) = self.watch().wait("state")["groups"]
        self.assertEqual([expected], shown["disagreements"])
        one.stop()
        expected["members"] = 0
        stream.wait(
            "backends", lambda data: data["disagreements"] == [expected]
        )
        self.assertEqual(
            0, self.metric(f"nova_sg_disagreeing_members{labels}")
        )


class HeldTest(monitor.TestCase):
    SERVICE_DOWN_TIME = 6

    def test_a_mass_silence(self):
        self.configure(service_down_time=self.SERVICE_DOWN_TIME)
        self.do("db", "sync")
        hosts = {f"node{number:02}" for number in range(12)}
        for host in hosts:
            self.insert(host, ago=1)
        self.monitor(options="[servicegroup]\nmass_silence_hold = 3600")
        self.agent("alive")

        def all_up():
            # They report until they have been seen.
            self.execute(
                "UPDATE services SET last_seen_up = "
                "strftime('%Y-%m-%d %H:%M:%f000', 'now') WHERE host != 'alive'"
            )
            return self.status("/v1/groups/compute") == 200 and set(
                self.kinds().values()
            ) == {"up"}

        wait_for(lambda: all_up() and "alive" in self.kinds(), base.PATIENCE)
        stream = self.watch()
        stream.wait("state")
        held = set()
        while held != hosts:
            event = stream.wait(
                "transition",
                lambda data: (
                    data["type"] == "held" and data["host"] not in held
                ),
            )
            self.assertEqual("held", event["cause"])
            held.add(event["host"])
        stream.wait("members", lambda data: "held" in data["changed"].values())
        wait_for(
            lambda: self.get("/v1/groups/compute")["members"]["held"] == 12,
            base.PATIENCE,
        )
        group = self.get("/v1/groups/compute")
        self.assertEqual(13, group["total"])
        self.assertEqual(
            (1, 0), tuple(group["members"][k] for k in ("up", "down"))
        )
        members = self.get("/v1/groups/compute/members?kind=held")["members"]
        self.assertEqual(hosts, {one["host"] for one in members})
        # The state of a held member is up.
        self.assertEqual({"up"}, {one["state"] for one in members})
        (shown,) = self.watch().wait("state")["groups"]
        self.assertEqual(hosts, set(shown["members"]["held"]))
        labels = '{cause="held",driver="db",group="compute",state="up"}'
        self.assertEqual(12, self.metric(f"nova_sg_members{labels}"))
        self.assertEqual(
            12,
            self.metric(
                "nova_sg_transitions_total"
                '{driver="db",group="compute",type="held"}'
            ),
        )


class LimitsTest(monitor.SharedTestCase):
    @classmethod
    def set_up_members(cls, keeper):
        keeper.insert("one", ago=1)

    def setUp(self):
        super().setUp()
        wait_for(lambda: self.status("/v1/groups/compute") == 200)

    def open(self):
        link = socket.create_connection(("127.0.0.1", self.port))
        link.settimeout(base.PATIENCE)
        self.addCleanup(link.close)
        return link

    def ask(self, request):
        """Send bytes; return all that is answered until the end."""
        answer = b""
        with self.open() as link, contextlib.suppress(OSError):
            link.sendall(request)
            while piece := link.recv(65536):
                answer += piece
        return answer

    def test_clients_that_watch(self):
        asked = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        links = [self.open() for _ in range(event_streams.CLIENTS)]
        for link in links:
            link.sendall(asked)
        wait_for(
            lambda: (
                self.metric("nova_sg_monitor_clients") == event_streams.CLIENTS
            ),
            base.PATIENCE,
        )
        answer = self.request("/v1/events")
        self.assertEqual(503, answer.status)
        self.assertEqual("30", answer.headers["Retry-After"])
        self.assertIn(b"100 clients are watching", answer.body)
        # Other requests are answered, and all clients get the events.
        self.assertEqual({"one": "up"}, self.kinds())
        self.keeper.do("force-down", "one")
        for link in links:
            text = b""
            while b"event: transition\n" not in text:
                piece = link.recv(65536)
                self.assertTrue(piece, "the connection was ended")
                text += piece

        def are_left(count):
            # That a client has gone is noticed when it is written to.
            for forced in 1, 0:
                self.keeper.execute(
                    "UPDATE services SET forced_down = ?", forced
                )
            return self.metric("nova_sg_monitor_clients") == count

        links.pop().close()
        wait_for(lambda: are_left(event_streams.CLIENTS - 1), base.PATIENCE)
        watch = self.watch()
        watch.wait("state")
        watch.close()
        # The other tests need their connections.
        for link in links:
            link.close()
        wait_for(lambda: are_left(0), base.PATIENCE)
        wait_for(self.has_room, base.PATIENCE, "all descriptors are closed")

    def has_room(self):
        return self.metric("process_open_fds") < 30

    def test_connections(self):
        # Those of the test before may not be closed yet.
        wait_for(self.has_room, base.PATIENCE)
        links = [self.open() for _ in range(server.CONNECTIONS)]
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(b"", self.open().recv(1))
        # The earlier connections are served.
        links[-1].sendall(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: close\r\n\r\n"
        )
        self.assertIn(b"200 OK", links[-1].recv(65536))
        for link in links:
            link.close()
        wait_for(lambda: self.status("/healthz") == 200, base.PATIENCE)

    def test_a_thousand_slow_clients(self):
        wait_for(self.has_room, base.PATIENCE)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        links = {self.open() for _ in range(1000)}
        for link in links:
            link.setblocking(False)

        def send(text):
            """Send to all of them; forget those that are closed."""
            for link in list(links):
                try:
                    link.send(text)
                    closed = not link.recv(1)
                except BlockingIOError:
                    # It waits for more.
                    continue
                except OSError:
                    closed = True
                self.assertTrue(closed, "half a request is answered")
                links.discard(link)

        send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ")
        wait_for(
            lambda: send(b"x") or len(links) == server.CONNECTIONS,
            base.PATIENCE,
            lambda: f"{len(links)} connections are open",
        )
        # None of them holds up another one.
        for _ in range(3):
            send(b"x")
        self.assertEqual(server.CONNECTIONS, len(links))
        one = links.pop()
        one.setblocking(True)
        one.settimeout(base.PATIENCE)
        one.sendall(b"\r\nConnection: close\r\n\r\n")
        self.assertIn(b"200 OK", one.recv(65536))
        with open(f"/proc/{self.started.pid}/status") as status:
            memory = re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]
        self.assertLess(int(memory), 200_000)
        for link in links:
            link.close()
        wait_for(lambda: self.status("/healthz") == 200, base.PATIENCE)
        wait_for(self.has_room, base.PATIENCE)

    def test_requests_that_are_too_large(self):
        for words, request in (
            (b"414", b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n"),
            (b"413", b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n"),
            (
                b"413",
                b"GET / HTTP/1.1\r\n"
                + b"X: "
                + b"x" * 50
                + b"\r\n" * 1
                + (b"Y: " + b"y" * 1000 + b"\r\n") * 70
                + b"\r\n",
            ),
            (b"400", b"no request\r\n\r\n"),
        ):
            with self.subTest(request[:20]):
                answer = self.ask(request)
                self.assertIn(words, answer.partition(b"\r\n")[0])
                self.assertEqual(200, self.status("/healthz"))


@native_services
class NativeLimitsTest(LimitsTest):
    BACKEND = "threading"
