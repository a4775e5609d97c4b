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

"""The zk driver with TLS and SASL, and the client library that it chooses."""

import contextlib
import os
import pathlib
import select
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from unittest import mock

from nova_sg import (
    evzookeeper,
    exception,
    kazoo_transport,
    servicegroup,
    zookeeper,
)
from nova_sg.backends.zookeeper import wire
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from nova_sg.zookeeper import clib
from tests import long_form, single_mode
from tests.base import wait_for
from tests.fixtures import certificates
from tests.fixtures import process as servers
from tests.fixtures import zookeeper as fixture
from tests.functional import test_guard, test_zk_failures, zk

ROOT = pathlib.Path(__file__).parents[2]


class _SaslServer(fixture.SecureZooKeeperServer):
    """A server that lets no client in without SASL."""

    def __init__(self):
        super().__init__(sasl=True)


class _Secure:
    """A test case on a server with TLS, by default without SASL."""

    SERVER = fixture.SecureZooKeeperServer
    CLIENT = "auto"

    def access(self):
        server = servers.shared(self.SERVER)
        cert, key = server.client_files
        options = {
            "address": server.tls_address,
            "client": self.CLIENT,
            "use_ssl": True,
            "ca_file": server.authority,
            "cert_file": cert,
            "key_file": key,
        }
        if server.sasl:
            options["sasl_username"] = server.USER
            options["sasl_password"] = server.PASSWORD
        return options

    def setUp(self):
        self.server = servers.shared(self.SERVER)
        super().setUp()
        self.ensemble.servers = [self.server]

    def connect(self, address=None, **arguments):
        sasl = None
        if self.server.sasl:
            sasl = kazoo_transport.Sasl(self.server.USER, self.server.PASSWORD)
        return super().connect(
            self.server.address,
            client=kazoo_transport.KazooTransport(sasl=sasl),
        )


class TlsTest(_Secure, zk.ZkTestCase):
    RECV_TIMEOUT = 4000
    WHY = "the installed C client was built without TLS"

    def test_members_join_leave_and_die(self):
        events = self.collect(self.api)
        self.join("one")
        self.wait_until_up("one")
        member = self.start_member("two")
        self.wait_until_up("two")
        self.api.force_down("two", "compute")
        self.wait_until_down("two")
        self.api.force_down("two", "compute", forced=False)
        self.wait_until_up("two")
        member.kill()
        self.wait_until_down("two")
        self.api.leave("one", "compute")
        self.assertEqual([], self.api.get_all("compute"))
        wait_for(
            lambda: ("left", "one") in [(e.type, e.host) for e in events],
            message="an event",
        )
        [text] = set(self.logs.matching("using kazoo"))
        self.assertIn(f"({self.WHY})", text)

    def test_a_server_that_restarts(self):
        """Sessions go on: with TLS, too."""
        self.start_member("one")
        self.wait_until_up("one")
        before = self.znodes()
        with zk.Poller(self.api, "one") as poller:
            self.server.restart()

            def are_there():
                # A call may be the first to notice that the server went.
                with contextlib.suppress(zookeeper.ConnectionLossException):
                    return self.znodes() == before

            wait_for(are_there, servers.PATIENCE)
        self.assertEqual(["up"], poller.states)

    def test_a_path_that_does_not_exist_is_created(self):
        address = f"{self.server.tls_address}{self.prefix}/below"
        self.flags("zookeeper", address=address)
        self.join("one")
        self.wait_until_up("one")


class _OneRecord:
    """A server with TLS that sends what it has in one record.

    It passes on what another server, without TLS, has sent meanwhile.
    """

    def __init__(self, port, files):
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*files)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        link, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._port))
        near = self._context.wrap_socket(link, server_side=True)
        near.setblocking(False)
        with near, far:
            while True:
                ready, _, _ = select.select([near, far], [], [], 0.01)
                if near in ready or near.pending():
                    with contextlib.suppress(ssl.SSLWantReadError):
                        chunk = near.recv(65536)
                        if not chunk:
                            return
                        far.sendall(chunk)
                if far in ready:
                    # Until all answers are there.
                    time.sleep(0.2)
                    near.setblocking(True)
                    near.sendall(far.recv(65536))
                    near.setblocking(False)

    def close(self):
        self._listener.close()


class RecordTest(zk.ZkTestCase):
    def test_answers_in_one_record(self):
        """Those that TLS has read ahead are not seen by select()."""
        authority = certificates.Authority(self.folder)
        files = authority.issue("server", "IP:127.0.0.1")
        server = _OneRecord(self.ensemble.servers[0].port, files)
        self.addCleanup(server.close)
        tls = {"ca": authority.file, "cert": None, "key": None}
        session = evzookeeper.ZKSession(
            server.address,
            servers.PATIENCE,
            recv_timeout=60000,
            client=kazoo_transport.KazooTransport(
                lambda link, host: wire.encrypt(link, host, tls)
            ),
        )
        self.addCleanup(session.close)
        answered = []
        threads = [
            threading.Thread(
                target=lambda: answered.append(session.get_children("/"))
            )
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        # The next ping would come after 20 s.
        wait_for(lambda: len(answered) == 10, 10, "ten answers")
        for thread in threads:
            thread.join()


class SaslTest(TlsTest):
    """The same where each client has to authenticate."""

    SERVER = _SaslServer
    WHY = "nova_sg has no SASL with the C client"

    def test_only_the_user_may_write(self):
        self.flags("zookeeper", acl="creator")
        self.join("one")
        self.wait_until_up("one")
        acl, _ = self.zk.get_acl(f"{self.prefix}/compute")
        self.assertIn(
            ("sasl", self.server.USER), [(e["scheme"], e["id"]) for e in acl]
        )

    def test_a_wrong_password(self):
        self.flags("zookeeper", sasl_password="hush hush")
        self.api = servicegroup.API()
        service = self.join("one")
        wait_for(
            lambda: self.logs.matching("refused the authentication"),
            message="the log has it",
        )
        wait_for(lambda: service.model_disconnected, message="it is told")
        self.assertEqual([], self.znodes())
        self.assertEqual([], self.logs.matching("hush hush"))


@single_mode
class WatchdogTest(_Secure, test_zk_failures.WatchdogTest):
    SERVER = _SaslServer
    KEEPS_SESSION = False

    test_an_error_on_the_watchdogs_thread_is_logged = None
    test_a_new_session_restores_no_member_that_stands_still = None


@single_mode
class GuardTest(_Secure, test_guard.ZkTest):
    SERVER = _SaslServer


class _Doctor(_Secure):
    """Asks a server that cannot be asked, and doctor."""

    RECV_TIMEOUT = 4000

    def refused(self, words, **options):
        """Have a refresh fail with words in its error."""
        self.flags("zookeeper", **options)
        process.reset()
        self.addCleanup(process.reset)
        with self.assertRaisesRegex(exception.ServiceGroupUnavailable, words):
            servicegroup.API().get_all("compute")

    def doctor(self, status=1, **options):
        program = self.start_process(
            *("-m", "nova_sg.cmd.shell", "--config-file"),
            *(self.write_config(**options), "doctor"),
        )
        self.assertEqual(status, program.wait(), program.output())
        return program.output()


@single_mode
class RefusedTest(_Doctor, zk.ZkTestCase):
    """What keeps a process from connecting is said."""

    def test_doctor(self):
        said = self.doctor(status=0)
        self.assertRegex(said, r"ZooKeeper client: kazoo [\d.]+ \(.*\), TLS\.")
        self.assertIn("ends", said)
        self.assertIn(f"{self.server.tls_address}: standalone, ", said)

    def test_another_authority(self):
        other = certificates.Authority(self.folder, "other").file
        self.refused("CERTIFICATE_VERIFY_FAILED", ca_file=other)
        said = self.doctor(ca_file=other)
        self.assertIn("BAD ZooKeeper server", said)
        self.assertIn("no TLS: [SSL: CERTIFICATE_VERIFY_FAILED]", said)

    def test_no_certificate(self):
        self.refused(
            "no server is connected: 127.0.0.1:",
            cert_file=None,
            key_file=None,
        )

    def test_tls_to_a_port_without(self):
        self.refused(
            "no server is connected: 127.0.0.1:", address=self.server.address
        )

    def test_no_tls_to_a_port_with(self):
        self.refused(
            "no server is connected: 127.0.0.1:",
            client="kazoo",
            use_ssl=False,
            ca_file=None,
            cert_file=None,
            key_file=None,
        )


@single_mode
class NameTest(_Doctor, zk.ZkTestCase):
    """The server's certificate has another name than the address."""

    class SERVER(fixture.SecureZooKeeperServer):
        def __init__(self):
            super().__init__(names=["DNS:localhost"], asks="none")

    def test_another_name(self):
        self.refused("certificate is not valid for '127.0.0.1'")
        said = self.doctor()
        self.assertIn("certificate is not valid for '127.0.0.1'", said)
        self.assertIn("has to have the name that [zookeeper] address", said)

    def test_the_right_name(self):
        self.flags("zookeeper", address=f"localhost:{self.server.tls_port}")
        self.join("one")
        self.wait_until_up("one")


@long_form
@single_mode
class StunnelTest(zk.ZkTestCase):
    """The recipe in doc/source/drivers/zk.rst, as it is written there."""

    RECV_TIMEOUT = 4000

    def start(self, name):
        """Start stunnel with the recipe, and one server.

        :param name: that the server's certificate has to have
        """
        server = self.enterContext(
            fixture.SecureZooKeeperServer(["DNS:localhost"])
        )
        page = (ROOT / "doc/source/drivers/zk.rst").read_text()
        _, _, recipe = page.partition("/etc/stunnel/zookeeper.conf")
        _, recipe = recipe.split(".. code-block:: ini\n\n")[:2]
        recipe, _, _ = textwrap.dedent(recipe).partition("[zk2]")
        port = servers.free_port()
        cert, key = server.client_files
        for before, after in (
            ("/etc/nova-sg/zookeeper-ca.pem", server.authority),
            ("/etc/nova-sg/host.pem", cert),
            ("/etc/nova-sg/host.key", key),
            ("zk1.example.org:2281", f"localhost:{server.tls_port}"),
            ("127.0.0.1:21811", f"127.0.0.1:{port}"),
            ("zk1.example.org", name),
        ):
            self.assertIn(before, recipe)
            recipe = recipe.replace(before, after)
        path = os.path.join(self.folder, "stunnel.conf")
        with open(path, "w") as config:
            # So that the test can end it.
            config.write(f"foreground = yes\npid =\n{recipe}\n")
        stunnel = subprocess.Popen(
            ["stunnel", path],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(stunnel.wait)
        self.addCleanup(stunnel.kill)
        self.flags("zookeeper", address=f"127.0.0.1:{port}", client="c")

    def test_the_right_name(self):
        self.start("localhost")
        self.join("one")
        self.wait_until_up("one")

    def test_another_name(self):
        self.start("elsewhere.example.org")
        service = self.join("one")
        wait_for(lambda: service.model_disconnected, message="it cannot join")


@single_mode
class ChoiceTest(zk.ZkTestCase):
    """Which client is used, and which combinations are refused."""

    CLIENT = "auto"

    def setUp(self):
        super().setUp()
        authority = certificates.Authority(self.folder)
        cert, key = authority.issue("client")
        self.files = {"ca_file": authority.file, "cert_file": cert}
        self.all_files = {**self.files, "key_file": key}

    def refused(self, words, **options):
        with contextlib.ExitStack() as stack:
            for name, value in options.items():
                before = CONF.zookeeper[name]
                CONF.set_override(name, value, "zookeeper")
                stack.callback(CONF.set_override, name, before, "zookeeper")
            with self.assertRaisesRegex(exception.ConfigError, words):
                process.load("zk")

    def chosen(self):
        """Return what the log says of the client."""
        driver = process.load("zk")
        driver.close()
        return self.logs.matching("ZooKeeper at ")[-1].partition("using ")[2]

    def no_c_client(self):
        self.enterContext(mock.patch.object(clib, "SONAME", "libnone.so.2"))
        self.enterContext(mock.patch.object(clib, "_loaded", {}))

    def no_kazoo(self):
        self.enterContext(
            mock.patch.dict(sys.modules, {"nova_sg.kazoo_transport": None})
        )

    def c_client_with_tls(self):
        self.enterContext(
            mock.patch.object(zookeeper.api, "init_ssl", lambda: mock.Mock())
        )

    def test_auto(self):
        self.assertRegex(self.chosen(), r"^the C client [\d.]+ \(/\S+\)$")
        self.flags("zookeeper", sasl_username="nova", sasl_password="x")
        self.assertRegex(
            self.chosen(), r"^kazoo [\d.]+ \(nova_sg has no SASL with the C"
        )

    def test_auto_where_the_c_client_checks_no_names(self):
        self.c_client_with_tls()
        self.flags("zookeeper", use_ssl=True, **self.all_files)
        self.assertRegex(
            self.chosen(),
            r"^kazoo [\d.]+ \(the C client does not check the names of hosts",
        )

    def test_the_c_client_that_checks_no_names(self):
        self.c_client_with_tls()
        self.flags("zookeeper", use_ssl=True, client="c", **self.all_files)
        self.assertRegex(self.chosen(), "^the C client ")
        self.assertTrue(
            self.logs.matching("does not check the names of hosts")
        )
        self.refused("ca_file: the C client needs", ca_file=None)

    def test_auto_without_the_c_client(self):
        self.no_c_client()
        self.assertRegex(self.chosen(), r"^kazoo .*libzookeeper-mt2")
        self.join("one")
        self.wait_until_up("one")

    def test_neither(self):
        self.no_c_client()
        self.no_kazoo()
        self.refused(
            r"client = auto: .*libzookeeper-mt2.*; and kazoo cannot be used: "
            r".*\. Install nova-sg\[kazoo\]$"
        )
        self.refused(
            r"client = kazoo: kazoo cannot be used: .*Install nova-sg",
            client="kazoo",
        )
        self.refused(
            r"client = c: .*libzookeeper-mt2.*client = kazoo$", client="c"
        )

    def test_an_old_kazoo(self):
        """Debian 12 has 2.8."""
        self.enterContext(
            mock.patch.object(
                kazoo_transport.KazooTransport, "version", "2.8.0"
            )
        )
        self.refused("kazoo 2.8.0 is older than 2.10", client="kazoo")

    def test_wrong_combinations(self):
        missing = os.path.join(self.folder, "missing")
        for words, options in (
            (
                "use_ssl: .* without TLS.*client = kazoo",
                {"client": "c", "use_ssl": True, **self.all_files},
            ),
            (
                "use_ssl: .* without TLS.*client = kazoo",
                {"client": "c", "cert": ",".join(self.all_files.values())},
            ),
            (
                "sasl_username: .* no SASL .*client = kazoo",
                {"client": "c", "sasl_username": "a", "sasl_password": "b"},
            ),
            (
                "sasl_username, sasl_password: one is set",
                {"sasl_username": "a"},
            ),
            (
                "sasl_username, sasl_password: one is set",
                {"sasl_password": "a"},
            ),
            ("ca_file is set and use_ssl is not", {"ca_file": "a"}),
            ("cert_file is set and use_ssl is not", {"cert_file": "a"}),
            ("key_password is set and use_ssl is not", {"key_password": "a"}),
            (
                "key_file is set and cert_file is not",
                {"use_ssl": True, "key_file": "a"},
            ),
            (
                f"ca_file, cert_file, key_file: .*No such file.*{missing}",
                {"use_ssl": True, "ca_file": missing},
            ),
            (
                "ca_file, cert_file, key_file: .*Name files in PEM",
                {"use_ssl": True, "cert_file": self.files["ca_file"]},
            ),
            ("cert: use_ssl is set as well", {"use_ssl": True, "cert": "a"}),
            ("cert: .*No such file", {"cert": "no,files,there"}),
        ):
            with self.subTest(words):
                self.refused(rf"^\[zookeeper\] {words}", **options)

    def test_the_old_spelling_of_tls(self):
        self.flags("zookeeper", cert=",".join(self.all_files.values()))
        self.assertRegex(self.chosen(), "^kazoo")

    def test_a_key_with_a_password(self):
        authority = certificates.Authority(self.folder, "protecting")
        cert, key = authority.issue("client", password="sesame")
        tls = {"ca": authority.file, "cert": cert, "key": key}
        wire.tls_context({**tls, "password": "sesame"})
        self.refused(
            "ca_file, cert_file, key_file: ",
            use_ssl=True,
            cert_file=cert,
            key_file=key,
        )
