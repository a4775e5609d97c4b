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

"""nova-sg-monitor, as clients of its API see it, with real agents."""

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time

import hypothesis
import sqlalchemy
from prometheus_client import parser

import tests
from nova_sg import exception
from nova_sg.conf import CONF
from nova_sg.monitor import server
from tests.fixtures import memcached
from tests.fixtures.process import free_port, wait_for
from tests.processes import base, description, monitor


class ApiTest(monitor.TestCase):
    def setUp(self):
        super().setUp()
        self.configure()
        self.do("db", "sync")

    def insert_many(self, hosts, **fields):
        for host in hosts:
            self.insert(host, ago=1, **fields)

    def test_members_and_what_happens_to_them(self):
        self.monitor()
        one, two = self.agent("one"), self.agent("two")
        self.insert("ctl/1", ago=1, topic="conductor")
        wait_for(
            lambda: self.status("/v1/groups/conductor") == 200
            and self.status("/v1/groups/compute/members/two") == 200,
            base.PATIENCE,
        )
        self.wait_until_ready()
        wait_for(
            lambda: self.kinds() == {"one": "up", "two": "up"}, base.PATIENCE
        )
        stream = self.watch()
        state = stream.wait("state")
        self.assertEqual(
            [("compute", {"up": ["one", "two"]}), ("conductor", ["ctl/1"])],
            [
                (
                    group["group"],
                    {k: sorted(v) for k, v in group["members"].items()}
                    if group["group"] == "compute"
                    else group["members"]["up"],
                )
                for group in state["groups"]
            ],
        )
        self.do("force-down", "two")
        event = stream.wait("transition")
        self.assertEqual(("down", "two"), (event["type"], event["host"]))
        two.stop()
        one.stop()
        event = stream.wait("transition", lambda data: data["host"] == "one")
        self.assertEqual(("left", "compute"), (event["type"], event["group"]))
        wait_for(
            lambda: self.kinds() == {"one": "left", "two": "forced"},
            base.PATIENCE,
        )
        # A name with a slash is quoted.
        shown = self.get("/v1/groups/conductor/members/ctl%2F1")
        self.assertEqual(
            ("ctl/1", "up", "up", "reported", "db"),
            tuple(
                shown[k] for k in ("host", "state", "kind", "cause", "driver")
            ),
        )
        # A slow machine may have taken long to answer, which it says then.
        self.assertRegex(shown["reason"], r"^last report \d+\.\d s ago(;|$)")
        (compute, conductor) = self.get("/v1/groups")["groups"]
        self.assertEqual(compute, compute | self.group("compute", 2))
        self.assertEqual(1, conductor["members"]["up"])
        self.assertEqual(1, compute["members"]["forced"])
        (backend,) = compute["backends"]
        self.assertTrue(backend["answering"])
        self.assertEqual("db", backend["driver"])

    @staticmethod
    def group(name, total):
        return {"group": name, "total": total}

    def test_a_member_that_dies(self):
        self.SERVICE_DOWN_TIME = 6
        shown_by_agent = free_port()
        self.monitor(options=f"agent_port = {shown_by_agent}")
        agent = self.agent("one")
        wait_for(
            lambda: self.status("/v1/groups/compute/members/one") == 200
            and self.kinds() == {"one": "up"},
            base.PATIENCE,
        )
        self.assert_shows_itself(shown_by_agent)
        stream = self.watch()
        agent.kill()
        event = stream.wait("transition", lambda data: data["type"] == "down")
        self.assertIn("allowed are 6 s", event["reason"])
        stream.wait("members", lambda data: data["changed"] == {"one": "down"})
        self.assertEqual({"one": "down"}, self.kinds())
        self.assertEqual(
            1,
            self.metric(
                f'nova_sg_member_state{{cause="{event["cause"]}",driver="'
            ),
        )

    def assert_shows_itself(self, port):
        """An agent shows its own metrics, and no groups."""
        monitors, self.port = self.port, port
        wait_for(
            lambda: (
                self.status("/healthz") == 200
                and self.metric("nova_sg_reports_total{")
                and self.metric("nova_sg_refreshes_total{")
            ),
            base.PATIENCE,
            "the agent shows its reports and its refreshes",
        )
        self.assertEqual(404, self.status("/v1/groups"))
        self.port = monitors

    @contextlib.contextmanager
    def a_client_that_does_not_read(self):
        """Yield its connection, which is full, and a client that reads."""
        hosts = [f"node{number:03}-{'x' * 60}" for number in range(200)]
        self.insert_many(hosts)
        self.monitor()
        self.wait_until_ready()
        wait_for(lambda: self.status("/v1/groups/compute") == 200)
        with monitor.deaf_client(
            self.port, b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ) as deaf:
            quick = self.watch()
            quick.wait("state")
            wait_for(lambda: self.metric("nova_sg_monitor_clients") == 2)
            rounds = 0
            while not self.metric("nova_sg_monitor_slow_clients_total"):
                rounds += 1
                self.assertLess(rounds, 60, "no client was too slow")
                forced = rounds % 2
                self.execute("UPDATE services SET forced_down = ?", forced)
                kind = "forced" if forced else "up"
                changed = {}
                # What was so before may be told first.
                while changed != dict.fromkeys(hosts, kind):
                    found = quick.next()
                    if found and found[0] == "members":
                        changed |= found[1]["changed"]
            yield deaf, quick

    def test_it_ends_while_clients_watch(self):
        """In its time, though a message cannot be written to one of them."""
        with self.a_client_that_does_not_read() as (_, quick):
            begun = time.monotonic()
            self.started.terminate()
            with self.assertRaises(EOFError):
                # Its stream has an end; it is not cut off.
                while True:
                    quick.next()
            result = self.finish(self.started)
            self.assertLess(time.monotonic() - begun, 10)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))

    def test_a_client_that_does_not_read(self):
        with self.a_client_that_does_not_read() as (deaf, quick):
            # The client that reads missed nothing; the other one, once it
            # reads on, is sent the whole state again.
            self.assertEqual(1, sum(k == "state" for k, _ in quick.seen))
            deaf.settimeout(base.PATIENCE)
            text = b""
            while text.count(b"event: state\n") < 2:
                piece = deaf.recv(65536)
                self.assertTrue(piece, "the connection was ended")
                text += piece
        wait_for(
            # That it has gone is noticed when it is written to.
            lambda: self.execute("UPDATE services SET forced_down = 1")
            == self.execute("UPDATE services SET forced_down = 0")
            and self.metric("nova_sg_monitor_clients") == 1,
            base.PATIENCE,
        )


class AskingTest(monitor.SharedTestCase):
    """The API, with members that do not change."""

    MARKUP = "<script>alert(1)</script>"
    NODES = [f"node{number:03}" for number in range(25)]

    @classmethod
    def set_up_members(cls, keeper):
        for host, fields in (
            ("one", {}),
            ("two", {"disabled": 1, "disabled_reason": "why not"}),
            (cls.MARKUP, {"topic": "markup"}),
            ("told-of", {"topic": "told"}),
            *((host, {"topic": "paged"}) for host in cls.NODES),
        ):
            keeper.insert(host, ago=7200 if host == "two" else 1, **fields)
        keeper.insert("dead", ago=7200, topic="paged")

    def setUp(self):
        super().setUp()
        for group in "compute", "markup", "told", "paged":
            wait_for(
                lambda path=f"/v1/groups/{group}": self.status(path) == 200,
                base.PATIENCE,
                f"{group} is shown",
            )

    def test_pages(self):
        path, found, pages = "/v1/groups/paged/members?limit=10", [], 0
        while path:
            page = self.get(path)
            found += [member["host"] for member in page["members"]]
            path = page["next"]
            pages += 1
        self.assertEqual(["dead", *self.NODES], found)
        self.assertEqual(3, pages)
        page = self.get("/v1/groups/paged/members?kind=down")
        self.assertEqual(["dead"], [one["host"] for one in page["members"]])
        answer = self.request(
            "/v1/groups/paged/members", Accept_Encoding="gzip"
        )
        self.assertEqual("gzip", answer.headers["Content-Encoding"])
        members = json.loads(gzip.decompress(answer.body))["members"]
        self.assertEqual(26, len(members))

    def test_requests_on_one_connection(self):
        """It is kept open, and each of them is answered at once."""
        link = self.connect()
        begun, used = time.monotonic(), set()
        for _ in range(20):
            link.request("GET", "/page.css")
            answer = link.getresponse()
            self.assertEqual(200, answer.status)
            answer.read()
            used.add(link.sock)
        self.assertEqual(1, len(used))
        self.assertLess(time.monotonic() - begun, 4)

    def test_errors(self):
        for status, path in (
            (404, "/nowhere"),
            (404, "/v1/groups/none"),
            (404, "/v1/groups/none/members"),
            (404, "/v1/groups/compute/members/three"),
            (400, "/v1/groups/compute/members?limit=0"),
            (400, "/v1/groups/compute/members?kind=odd"),
            (400, "/v1/groups/%ff"),
        ):
            with self.subTest(path):
                answer = self.request(path)
                self.assertEqual(status, answer.status)
                error = json.loads(answer.body)["error"]
                self.assertEqual(status, error["code"])
        for method in "POST", "DELETE", "OPTIONS":
            answer = self.request("/v1/groups", method)
            self.assertEqual(405, answer.status)
            self.assertEqual("GET, HEAD", answer.headers["Allow"])
        for path in "/v1/groups", "/v1/events", "/":
            answer = self.request(path, "HEAD")
            self.assertEqual((200, b""), (answer.status, answer.body))

    def test_a_file_is_sent_again_only_when_it_has_changed(self):
        tag = self.request("/page.js").headers["ETag"]
        opaque = tag.removeprefix("W/")
        for status, given in (
            (304, tag),
            (304, opaque),
            (304, f"W/{opaque}"),
            (304, f'"other", {tag}'),
            (304, "*"),
            (200, '"other"'),
            # Nothing but the whole tag is the tag.
            (200, f'"before{opaque[1:]}'),
            (200, f"x{opaque}x"),
        ):
            with self.subTest(given):
                answer = self.request("/page.js", If_None_Match=given)
                self.assertEqual(status, answer.status)
                self.assertEqual(tag, answer.headers["ETag"])
                self.assertEqual(status == 200, bool(answer.body))

    def test_compression_is_what_the_client_accepts(self):
        plain = self.request("/page.js").body
        for coding, accepted in (
            ("gzip", "gzip"),
            ("gzip", "GZIP"),
            ("gzip", "br, gzip;q=0.5"),
            ("gzip", "*"),
            ("gzip", "gzip;q=0.1, identity;q=0"),
            (None, "gzip;q=0"),
            (None, "gzip;q=0.000, deflate"),
            (None, "*;q=0, identity"),
            (None, "gzip;q=0.5, identity;q=1"),
            (None, "x-not-gzip"),
            (None, ""),
        ):
            with self.subTest(accepted):
                answer = self.request("/page.js", Accept_Encoding=accepted)
                self.assertEqual(coding, answer.headers["Content-Encoding"])
                self.assertIn("Accept-Encoding", answer.headers["Vary"])
                body = answer.body
                self.assertEqual(
                    plain, gzip.decompress(body) if coding else body
                )

    def test_it_answers_as_its_description_says(self):
        described = description.Description(self.get("/openapi.json"))
        # Every path, and each kind of error.
        expected = {(path, 200) for path in described.paths()} | {
            ("/v1/groups/{group}/members", 400),
            ("/v1/groups/{group}/members/{host}", 404),
        }
        asked = [described.existing(path) for path in described.paths()]
        asked += [
            (asked[0][0]._replace(template=template, filled=filled), "")
            for template, filled in (
                (
                    "/v1/groups/{group}/members",
                    "/v1/groups/compute/members?limit=0",
                ),
                (
                    "/v1/groups/{group}/members/{host}",
                    "/v1/groups/compute/members/three",
                ),
            )
        ]
        seen = set()

        def ask(path, query):
            answer = self.request(path.filled + query)
            seen.add((path.template, answer.status))
            described.check(path.template, answer)

        for request in asked:
            ask(*request)
        self.assertEqual(set(), expected - seen)

        @hypothesis.settings(
            max_examples=150 if tests.LONG else 40,
            deadline=None,
            database=None,
        )
        @hypothesis.given(described.requests())
        def check(request):
            ask(*request)

        check()
        # Events are described by the schemas that they name.
        stream = self.watch()
        described.check_schema("State", stream.wait("state"))
        described.check_schema("Backends", stream.wait("backends"))
        self.keeper.execute(
            "UPDATE services SET forced_down = 1 WHERE topic = 'told'"
        )
        described.check_schema("Transition", stream.wait("transition"))
        described.check_schema("Changes", stream.wait("members"))

    def test_schemathesis_finds_nothing(self):
        # It brings much that no other test needs.
        import schemathesis

        schema = schemathesis.openapi.from_dict(self.get("/openapi.json"))
        asked = set()
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path == description.ENDLESS:
                continue

            @hypothesis.settings(
                max_examples=30 if tests.LONG else 8,
                deadline=None,
                database=None,
            )
            @hypothesis.given(case=operation.as_strategy())
            def check(case):
                case.call_and_validate(
                    base_url=f"http://127.0.0.1:{self.port}"
                )

            with self.subTest(operation.label):
                check()
            asked.add(operation.path)
        self.assertEqual(
            set(description.Description(schema.raw_schema).paths()), asked
        )

    def test_metrics(self):
        text = self.request("/metrics").body.decode()
        found = {
            (sample.name, sample.labels.get("cause")): sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("group") in (None, "compute")
        }
        self.assertEqual(1, found["nova_sg_members", "reported"])
        self.assertEqual(1, found["nova_sg_members", "silent"])
        self.assertGreaterEqual(
            found["nova_sg_refresh_seconds_count", None], 1
        )
        answer = self.request(
            "/metrics", Accept="application/openmetrics-text; version=1.0.0"
        )
        self.assertTrue(answer.body.endswith(b"# EOF\n"))

    def test_names_that_are_markup(self):
        answer = self.request("/v1/groups/markup/members")
        self.assertNotIn(b"<", answer.body)
        self.assertEqual({self.MARKUP: "up"}, self.kinds("markup"))
        self.assertEqual("nosniff", answer.headers["X-Content-Type-Options"])
        policy = answer.headers["Content-Security-Policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)


class AccessTest(monitor.TestCase):
    def setUp(self):
        super().setUp()
        self.configure()
        self.do("db", "sync")
        self.insert("one", ago=1)

    def certificate(self, name="monitor"):
        """Make a certificate; return its file and that of its key."""
        paths = self.path(f"{name}.crt"), self.path(f"{name}.key")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost"),
                *("-out", paths[0], "-keyout", paths[1]),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return paths

    def test_token(self):
        self.monitor(options=f"token = {base.PASSWORD}")
        self.wait_until_ready()
        guarded = "/v1/groups", "/v1/events", "/metrics", "/v1/groups/x"
        for path in guarded:
            for header in None, "Bearer no", f"Basic {base.PASSWORD}":
                headers = {"Authorization": header} if header else {}
                answer = self.request(path, **headers)
                self.assertEqual(401, answer.status, path)
                self.assertIn("Bearer", answer.headers["WWW-Authenticate"])
        for path in "/", "/page.js", "/openapi.json", "/healthz", "/readyz":
            self.assertEqual(200, self.status(path), path)
        right = {"Authorization": f"Bearer {base.PASSWORD}"}
        self.get("/v1/groups", **right)
        self.watch(**right).wait("state")
        # Another token from now on.
        self.set_token("another")
        self.started.send_signal(signal.SIGHUP)
        wait_for(
            lambda: self.status("/metrics", Authorization="Bearer another")
            == 200,
            base.PATIENCE,
        )
        self.assertEqual(401, self.status("/metrics", **right))
        self.watch(Authorization="Bearer another").wait("state")
        self.assert_ends_in_order(signal.SIGINT)

    def set_token(self, token):
        with open(self.config) as file:
            text = file.read()
        self.write("nova-sg.conf", text.replace(base.PASSWORD, token))

    def test_sighup_while_it_starts(self):
        process = self.monitor()
        wait_for(
            lambda: base.catches(process.pid, signal.SIGHUP), base.PATIENCE
        )
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "is reloaded" in self.log(), base.PATIENCE)
        self.wait_until_ready()
        # SQLAlchemy before 2.1 imports it, too.
        if not sqlalchemy.__version__.startswith("2.0."):
            self.assertEqual(
                self.BACKEND == "eventlet", base.maps(process.pid, "greenlet")
            )
        self.assert_ends_in_order(signal.SIGTERM)

    def test_tls(self):
        first, second = self.certificate("first"), self.certificate("second")
        crt, key = self.path("monitor.crt"), self.path("monitor.key")
        os.link(first[0], crt)
        os.link(first[1], key)
        self.monitor(options=f"cert_file = {crt}\nkey_file = {key}")
        wait_for(lambda: "Listening at https" in self.log(), base.PATIENCE)
        # A client that stops in the middle of a handshake holds up no other.
        with socket.create_connection(("127.0.0.1", self.port)) as silent:
            silent.sendall(b"\x16\x03\x01")
            trust = monitor.trusting(first[0])
            self.wait_until_ready(tls=trust)
            self.get("/v1/groups", tls=trust)
        self._renew(second, crt, key)

    def _renew(self, certificate, crt, key):
        """Replace the certificate that is in use."""
        trust = monitor.trusting(certificate[0])
        self.assertIsNone(self.status("/healthz", tls=trust))
        os.rename(certificate[0], crt)
        os.rename(certificate[1], key)
        self.started.send_signal(signal.SIGHUP)
        wait_for(
            lambda: self.status("/healthz", tls=trust) == 200, base.PATIENCE
        )

    def start_agent(self, options):
        """Start an agent that shows its metrics; return it."""
        self.port = free_port()
        self.configure(f"[monitor]\nagent_port = {self.port}\n{options}")
        agent = self.agent("one")
        self.started = agent.process
        self.log = lambda: agent.log
        return agent

    def test_tls_of_an_agent(self):
        first, second = self.certificate("first"), self.certificate("second")
        crt, key = self.path("agent.crt"), self.path("agent.key")
        os.link(first[0], crt)
        os.link(first[1], key)
        agent = self.start_agent(f"cert_file = {crt}\nkey_file = {key}")
        agent.wait_for_log("Listening at https")
        # A client that sends nothing holds up no other.
        with socket.create_connection(("127.0.0.1", self.port)):
            trust = monitor.trusting(first[0])
            wait_for(
                lambda: self.status("/healthz", tls=trust) == 200,
                base.PATIENCE,
            )
            # One that speaks no TLS is turned away, without a traceback.
            self.assertIsNone(self.status("/healthz"))
            self._renew(second, crt, key)
        agent.stop()

    @tests.native_services
    def test_a_silent_client_of_an_agent(self):
        """It holds up no other, on the threads of this process, either."""
        from nova_sg.monitor import service

        crt, key = self.certificate()
        self.port = free_port()
        self.configure(
            f"[monitor]\nagent_port = {self.port}\n"
            f"cert_file = {crt}\nkey_file = {key}"
        )
        self.observe()
        shown = service.agent_metrics()
        self.addCleanup(shown.stop)
        shown.start()
        with socket.create_connection(("127.0.0.1", self.port)):
            answer = self.request("/healthz", tls=monitor.trusting(crt))
            self.assertEqual(200, answer.status)

    def test_connections_of_an_agent_are_limited(self):
        agent = self.start_agent("")
        wait_for(lambda: self.status("/healthz") == 200, base.PATIENCE)
        with contextlib.ExitStack() as idle:
            for _ in range(server.CONNECTIONS):
                idle.enter_context(
                    socket.create_connection(("127.0.0.1", self.port))
                )
            # The next one is closed at once.
            wait_for(lambda: self.status("/healthz") is None, base.PATIENCE)
        wait_for(lambda: self.status("/healthz") == 200, base.PATIENCE)
        agent.stop()

    def test_token_of_an_agent(self):
        agent = self.start_agent(f"token = {base.PASSWORD}")
        wait_for(lambda: self.status("/healthz") == 200, base.PATIENCE)
        for path in "/metrics", "/metrics?name[]=nova_sg_info":
            answer = self.request(path)
            self.assertEqual(401, answer.status)
            self.assertNotIn(b"nova_sg", answer.body)
            right = {"Authorization": f"Bearer {base.PASSWORD}"}
            answer = self.request(path, **right)
            self.assertEqual(200, answer.status)
            self.assertIn(b"nova_sg_info", answer.body)
        self.assertEqual(404, self.status("/"))
        self.assertEqual(405, self.request("/metrics", "POST").status)
        # With a client that has sent half of a request.
        with monitor.deaf_client(self.port, b"GET / HT"):
            begun = time.monotonic()
            agent.stop()
            self.assertLess(time.monotonic() - begun, 10)

    @tests.native_services
    def test_options_that_are_wrong(self):
        from nova_sg.monitor import service

        crt, key = self.certificate()
        _, other = self.certificate("other")
        for options, words in (
            ("port = 70000", "port"),
            ("listen = 192.0.2.1", "[monitor] listen, port"),
            ("token = two words", "[monitor] token"),
            (f"cert_file = {self.path('none')}", "No such file"),
            (f"key_file = {key}", "[monitor] key_file"),
            (f"cert_file = {crt}\nkey_file = {other}", "[monitor] cert_file"),
        ):
            with self.subTest(options):
                self.configure(f"[monitor]\n{options}")
                with self.assertRaises(exception.ConfigError) as refused:
                    # What the program does first, and prints it.
                    self.observe()
                    service.open_server(CONF.monitor.port, "port", [])
                self.assertIn(words, str(refused.exception))
                self.assertNotIn("\n", str(refused.exception))

    def test_a_port_that_is_taken(self):
        taken = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        port = taken.getsockname()[1]
        for program, option in (
            ("nova-sg-monitor", "port"),
            ("nova-sg-agent", "agent_port"),
        ):
            with self.subTest(program):
                self.configure(f"[monitor]\n{option} = {port}")
                result = self.run_program(program)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertIn(f"[monitor] listen, {option}", result.err)
                self.assertEqual(1, result.err.count("\n"), result.err)

    def test_without_a_token_there_is_a_warning(self):
        self.monitor(options="listen = 0.0.0.0")
        self.wait_until_ready()
        self.assertIn("[monitor] token is not set", self.log())
        self.watch().wait("state")
        self.assert_ends_in_order(signal.SIGTERM)

    def assert_ends_in_order(self, signo):
        """End the monitor, whatever its clients are doing."""
        with monitor.deaf_client(self.port, b"GET / HT"):
            result = self.finish(self.started, signo)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))


@tests.native_services
class NativeApiTest(ApiTest):
    BACKEND = "threading"


@tests.native_services
class NativeAskingTest(AskingTest):
    BACKEND = "threading"


@tests.native_services
class NativeAccessTest(AccessTest):
    BACKEND = "threading"

    def test_a_library_that_is_missing(self):
        self.set_up()
        program = "import sys; sys.modules['cotyledon'] = None; "
        result = subprocess.run(
            [
                *(sys.executable, "-c"),
                program + "import nova_sg.cmd.monitor",
                *("--config-file", self.config),
            ],
            capture_output=True,
            text=True,
        )
        self.assertEqual(2, result.returncode)
        self.assertIn('Install "oslo.service[threading]', result.stderr)
        self.check_words(result.stderr)


class BackendTest(monitor.TestCase):
    SERVICE_DOWN_TIME = 6

    def test_a_backend_that_is_gone(self):
        server = self.enterContext(memcached.Memcached())
        self.monitor(
            "servicegroup_driver = mc\n"
            f"memcached_servers = {server.address}"
        )
        self.agent("one")
        wait_for(
            lambda: self.status("/v1/groups/compute") == 200
            and self.kinds() == {"one": "up"},
            base.PATIENCE,
        )
        self.wait_until_ready()
        stream = self.watch()
        server.freeze()
        stream.wait(
            "backends", lambda data: not data["backends"][0]["answering"]
        )
        wait_for(lambda: self.status("/readyz") == 503, base.PATIENCE)
        wait_for(lambda: self.kinds() == {"one": "unknown"}, base.PATIENCE)
        self.assertEqual(200, self.status("/healthz"))
        server.thaw()
        self.wait_until_ready()
        wait_for(lambda: self.kinds() == {"one": "up"}, base.PATIENCE)
        (backend,) = self.get("/v1/groups/compute")["backends"]
        self.assertGreaterEqual(backend["outages"], 1)
        for new, old in (
            ("refresh_seconds", "look_seconds"),
            ("refreshes", "looks"),
            ("outages", "stalls"),
        ):
            self.assertEqual(backend[new], backend[old])
