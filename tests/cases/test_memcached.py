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


"""Faults and configurations of memcached, as operators reported them."""

import contextlib
import errno
import json
import os
import random
import re
import socket
import ssl
import threading
import time
from unittest import mock

from nova_sg import config, exception, servicegroup
from nova_sg.backends.memcached import replicas, values
from nova_sg.conf import CONF
from nova_sg.servicegroup import process
from tests import base, single_mode
from tests.cases import mc_elsewhere
from tests.fixtures import memcached, proxy
from tests.functional import mc, test_guard, zk


class DeadNameServerTest(mc.McTestCase):
    """A name server that does not answer.

    python-memcached connected with the name, inside a C call: the hub of a
    green process stood still for 10 s of every 11 s (eventlet 560, and
    nova-operator 904 for servers that move with their name).
    """

    #: Seconds. The name server costs three: see mc_elsewhere.
    TIMEOUT = 0.5

    def elsewhere(self, address, **settings):
        options = {
            "DEFAULT": {"memcached_servers": [address]},
            "memcache": {"socket_timeout": self.TIMEOUT},
        }
        return mc_elsewhere.start({"options": options, **settings})

    def test_no_thread_stands_still(self):
        _, resolver = self.name_server()

        def stands_still():
            found = self.elsewhere("mc7.test:11211", resolver=resolver)
            self.assertIn(
                "mc7.test:11211: cannot connect: the name server does not "
                f"answer for mc7.test within {self.TIMEOUT:g} s",
                found["error"],
            )
            self.assertLess(found["took"], 2.5)
            return found["stood_still"]

        self.assertLess(base.quickest(stands_still, 0.1), 0.1)

    def test_a_slow_name_server_is_enough(self):
        """An answer that comes after socket_timeout is used later."""
        port = self.start().port
        slow, resolver = self.name_server()
        thread = threading.Thread(
            target=answer_names, args=[slow, 2 * self.TIMEOUT], daemon=True
        )
        thread.start()
        found = self.elsewhere(
            f"mc7.test:{port}", resolver=resolver, again=True
        )
        self.assertIn("the name server does not answer", found["error"])
        self.assertEqual(["one"], found["hosts"])

    def name_server(self):
        """Return a socket for a name server, and its address."""
        link = self.enterContext(
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )
        if os.geteuid():
            self.skipTest("only root may use the port of name servers")
        # Any address of the loopback network.
        address = f"127.{random.randrange(1, 255)}.{os.getpid() % 250}.53"
        link.bind((address, 53))
        link.settimeout(base.PATIENCE)
        return link, address


def answer_names(link, seconds):
    """Answer that each name is 127.0.0.1, after so many seconds each."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            question, client = link.recvfrom(1000)
            time.sleep(seconds)
            name, _, _ = question[12:].partition(b"\0")
            # The type is A, or else there is no answer.
            found = question[12 + len(name) + 1 :][:2] == b"\0\1"
            link.sendto(
                question[:2]
                + b"\x81\x80\0\1"
                + (b"\0\1" if found else b"\0\0")
                + b"\0\0\0\0"
                + question[12 : 12 + len(name) + 5]
                + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1"
                * found,
                client,
            )


class SpellingsTest(mc.McTestCase):
    """Addresses as operators, Packstack and nova-operator write them."""

    def assert_works(self, *addresses):
        for address in addresses:
            with self.subTest(address=address):
                process.reset()
                self.configure(address)
                self.join("one")
                self.assertEqual({"one": "up"}, self.states())
                driver = self.driver()
                bad = [one for one in driver.check() if not one.ok]
                self.assertEqual([], bad)

    def test_names(self):
        """nova-operator PR 721: inet:[host]:port, which never connected."""
        port = self.start().port
        self.assert_works(
            f"localhost:{port}",
            f"inet:localhost:{port}",
            f"inet:[localhost]:{port}",
            f"[127.0.0.1]:{port}",
        )

    def test_ipv6(self):
        """Packstack: [::1]:11211, which was refused."""
        port = self.start(kind=memcached.OnIPv6).port
        self.assert_works(
            f"[::1]:{port}", f"inet6:[::1]:{port}", f"inet:[::1]:{port}"
        )

    def test_unix_sockets(self):
        """pymemcache and pylibmc take a path as it is."""
        server = self.start(kind=memcached.OnSocket)
        self.assert_works(server.path, f"unix:{server.path}")

    @single_mode
    def test_two_spellings_of_one_server_are_one_server(self):
        port = self.start().port
        self.configure(
            f"localhost:{port}", f"inet6:[::1]:{port}",
            f"[localhost]:{port}", f"[::1]:{port}",
        )
        self.assertEqual(2, len(self.driver()._servers))

    def test_a_name_that_has_only_an_ipv6_address(self):
        """pymemcache 257: production on IPv6 alone."""
        port = self.start(kind=memcached.OnIPv6).port
        # glibc: ::1 in this file counts as 127.0.0.1, too.
        hosts = (
            "::1 mc6.test\nfd00::6 other6.test\n127.0.0.1 mc4.test\n"
        )
        for address, error in (
            (f"mc6.test:{port}", ""),
            (f"inet6:[mc6.test]:{port}", ""),
            (
                f"inet:other6.test:{port}",
                f"other6.test has only IPv6 addresses: write "
                f"inet6:[other6.test]:{port}",
            ),
            (
                f"inet6:mc4.test:{port}",
                f"mc4.test has only IPv4 addresses: write "
                f"inet:[mc4.test]:{port}",
            ),
        ):
            with self.subTest(address=address):
                found = mc_elsewhere.start(
                    {
                        "hosts": hosts,
                        "options": {
                            "DEFAULT": {"memcached_servers": [address]}
                        },
                    }
                )
                self.assertEqual([] if error else ["one"], found["hosts"])
                self.assertIn(error, found["error"])

    def test_the_error_says_why_there_is_no_connection(self):
        """It read the same for each of these."""
        self.flags("memcache", socket_timeout=0.3)
        full = self.enterContext(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = []
        for _ in range(8):
            waiting.append(self.enterContext(socket.socket()))
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(("127.0.0.1", port))
        for address, error in (
            ("127.0.0.1:1", f"[Errno {errno.ECONNREFUSED}]"),
            ("localhost:1", f"127.0.0.1:1: [Errno {errno.ECONNREFUSED}]"),
            ("no-such-name.invalid", "there is no host no-such-name.invalid"),
            (f"127.0.0.1:{port}", "no answer within 0.3 s"),
            (f"{self.folder}/none", f"[Errno {errno.ENOENT}]"),
        ):
            with self.subTest(address=address):
                self.configure(address)
                with self.assertRaisesRegex(
                    exception.BackendError,
                    f"{re.escape(address)}: cannot connect.*"
                    + re.escape(error),
                ):
                    self.driver().observe("compute")

    @single_mode
    def test_there_is_no_route(self):
        found = mc_elsewhere.start(
            {
                "offline": True,
                "options": {"DEFAULT": {"memcached_servers": ["192.0.2.1"]}},
            }
        )
        self.assertIn(f"[Errno {errno.ENETUNREACH}]", found["error"])

    @single_mode
    def test_the_remedy_names_the_option_that_was_set(self):
        path = os.path.join(self.folder, "nova.conf")
        with open(path, "w") as file:
            file.write("[cache]\nmemcache_servers = 127.0.0.1:1\n")
        config.parse(["--config-file", path], "a test")
        (finding,) = self.driver().check()
        self.assertIn("[cache] memcache_servers", finding.remedy)
        self.configure("127.0.0.1:1")
        (finding,) = self.driver().check()
        self.assertIn("[DEFAULT] memcached_servers", finding.remedy)


class FlushAllTest(mc.McTestCase):
    """Another user of the server runs flush_all.

    keystonemiddleware and oslo.cache flushed a server at each reconnect
    (python-memcached 179, Launchpad 1888394).
    """

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.client = self.raw(self.server)
        self.api = servicegroup.API()
        # Half of it would be longer than the test.
        self.flags(service_down_time=600.0)

    def test_members_are_back_with_their_next_report(self):
        """A fresh observer said unknown for half of service_down_time."""
        members = self.join("one", "two")
        self.client.flush_all()
        self.assertEqual({}, self.states())
        for member in members:
            member.tick()
        self.assertEqual({"one": "up", "two": "up"}, self.states())
        self.assertEqual(1, len(self.logs.matching("has lost values")))

    def test_no_living_member_is_down_meanwhile(self):
        """Neither to an observer that is running, nor to new ones."""
        self.flags(service_down_time=3.0, report_interval=0.2)
        hosts = ["one", "two", "three"]
        self.join(*hosts, interval=0.2)
        observed = self.collect(self.api)
        self.wait_for_states(dict.fromkeys(hosts, "up"))
        end = time.monotonic() + 4.0
        seen = set()
        while time.monotonic() < end:
            self.client.flush_all()
            flushed = time.monotonic()
            while time.monotonic() < flushed + 0.5:
                seen |= set(self.states().values())
                time.sleep(0.02)
        self.assertEqual({"up"}, seen)
        self.assertEqual([], [e for e in observed if e.type == "down"])

    def storm(self, seconds):
        """Wipe the server again and again; observers hardly see a report."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.client.flush_all()
            time.sleep(0.05)

    def test_a_storm_takes_no_living_member_down(self):
        """Clients that flush at each reconnect make each other reconnect."""
        self.flags(service_down_time=3.0, report_interval=0.5)
        self.flags("servicegroup", view_refresh_interval=1.0)
        # Members that fell silent together would be held for a while.
        self.flags("servicegroup", mass_silence_fraction=0.0)
        hosts = ["one", "two", "three"]
        first, *_ = self.join(*hosts, interval=0.5)
        observed = self.collect(self.api)
        expected = dict.fromkeys(hosts, "up")
        self.wait_for_states(expected, process.shared())
        self.storm(4.0)
        # One dies.
        first.tg.moving.clear()
        self.addCleanup(first.tg.moving.set)
        self.storm(4.0)
        # Of the dead one it may be known, if the machine is slow to wipe.
        self.assertLessEqual(
            {e.host for e in observed if e.type == "down"}, {"one"}, observed
        )
        # It is found once the storm is over.
        self.wait_for_states({**expected, "one": "down"}, process.shared())

        def found():
            return [e.host for e in observed if e.type == "down"]

        # An answer follows from the time; the event comes with a refresh.
        base.wait_for(found, base.PATIENCE)
        self.assertEqual(["one"], found())

    @single_mode
    def test_members_tell_that_their_reports_were_lost(self):
        """An observer that always sees some of them believes them.

        memcached's clock has whole seconds, so an outage that is shorter
        than two seconds cannot be told.
        """
        interval = 2.5
        self.flags(service_down_time=8.0, report_interval=interval)
        self.flags(
            "servicegroup",
            mass_silence_fraction=0.0,
            # Only as below: a refresh before a wipe would see the last one.
            view_refresh_interval=3600,
        )
        *seen, unseen = hosts = ["a", "b", "c", "d"]
        members = dict(zip(hosts, self.join(*hosts), strict=True))
        view = self.another().view("compute")
        self.assertEqual(hosts, sorted(view.hosts_up()))
        end = time.monotonic() + 1.5 * CONF.service_down_time
        while time.monotonic() < end:
            for host in seen:
                for member in members.values():
                    member.tick()
                self.client.flush_all()
                members[host].tick()
                view.refresh()
                time.sleep(interval)
                self.assertEqual(hosts, sorted(view.hosts_up()))
        self.assertRegex(
            view.member(unseen).reason,
            r"1\d\.\d s ago; .* without the backend \(\d of",
        )

    def test_one_member_is_seen_in_a_storm(self):
        """That its reports arrive does not mean that those of others do."""
        self.flags(service_down_time=2.5, report_interval=0.4)
        self.flags(
            "servicegroup",
            mass_silence_fraction=0.0,
            view_refresh_interval=3600,
        )
        seen, _ = self.join("seen", "unseen")
        view = self.another().view("compute")
        self.assertEqual(["seen", "unseen"], sorted(view.hosts_up()))
        end = time.monotonic() + 2 * CONF.service_down_time
        while time.monotonic() < end:
            self.client.flush_all()
            seen.tick()
            view.refresh()
            self.assertEqual(["seen", "unseen"], sorted(view.hosts_up()))
            time.sleep(0.4)
        # It is down once it is silent without a storm.
        begin = time.monotonic()
        while view.hosts_up() != ["seen"]:
            self.assertLess(time.monotonic(), begin + base.PATIENCE)
            seen.tick()
            view.refresh()
            time.sleep(0.4)
        self.assertGreater(
            time.monotonic(), begin + CONF.service_down_time - 0.5
        )

    def test_the_doctor_says_how_often_it_was_wiped(self):
        self.client.flush_all()
        (finding,) = [one for one in self.driver().check() if not one.ok]
        self.assertIn("wiped once (flush_all)", finding.text)
        self.assertIn("(-F)", finding.remedy)

    def test_a_group_is_not_lost(self):
        """The monitor lost the group."""
        self.join("one")
        driver = self.driver()
        self.assertEqual(["compute"], driver.groups())
        self.client.flush_all()
        self.assertEqual(["compute"], driver.groups())

    def test_a_member_writes_its_mark_before_it_is_listed_again(self):
        """A member that was forced down was up again, without a word.

        No observer is running: the member alone knows the mark.
        """
        member, other = self.join("one", "two")
        self.driver().force_down("compute", "one", True)
        self.assertEqual({"one": "down", "two": "up"}, self.states())
        # It reads the mark with its next report.
        member.tick()
        self.assertEqual([], self.logs.matching("has lost values"))
        self.client.flush_all()
        member.tick()
        self.assertEqual({"one": "down"}, self.states())
        other.tick()
        self.assertEqual({"one": "down", "two": "up"}, self.states())

    def test_a_forced_down_member_is_up_again_once_it_is_taken_back(self):
        """The command writes over what the member said last."""
        self.join("one")
        before = self.reported_at(self.client, "one")
        self.driver().force_down("compute", "one", True)
        self.driver().force_down("compute", "one", False)
        (found,) = self.driver().observe("compute").observations
        self.assertEqual(before, found.last_seen.timestamp())
        self.assertEqual({"one": "up"}, self.states())

    def test_an_observer_writes_the_mark_again(self):
        """Also the mark of a member that is dead, and reports no more."""
        self.join("one")
        observer = self.another()
        self.driver().force_down("compute", "one", True)
        self.wait_for_states({"one": "down"}, observer)
        self.client.flush_all()
        for _ in range(3):
            observer.view("compute").refresh()
            self.assertEqual({"one": "down"}, self.states(observer))
        base.wait_for(
            lambda: self.client.get(values.forced_key("compute")),
            message="the observer has written the mark",
        )
        # Nothing but the mark is there.
        self.assertEqual({"one": "down"}, self.states())

    def test_a_mark_that_is_taken_back_on_a_wiped_server_stays_so(self):
        """Processes that know the old mark must not bring it back."""
        member = self.join("one")
        observer = self.another()
        self.driver().force_down("compute", "one", True)
        self.wait_for_states({"one": "down"}, observer)
        member.tick()
        self.client.flush_all()
        # The report of the member is back, and no process has written the
        # mark to the server that the command reads.
        other = self.driver()
        key = values.forced_key("compute")
        member.tick()
        self.client.delete(key)
        other.force_down("compute", "one", False)
        member.tick()
        self.wait_for_states({"one": "up"}, observer)
        self.assertEqual({"one": "up"}, self.states())

    def test_a_pause_of_actions_is_kept(self):
        """nova-sg pause would have ended, and a watcher would act again."""
        self.driver().write_note("compute", "paused")
        watcher = self.driver()
        self.assertEqual("paused", watcher.read_note("compute"))
        self.client.flush_all()
        self.assertEqual("paused", watcher.read_note("compute"))
        self.assertEqual("paused", self.driver().read_note("compute"))
        self.driver().write_note("compute", "")
        self.assertEqual("", watcher.read_note("compute"))


class TlsTest(mc.McTestCase):
    """[cache] tls_enabled was ignored, and plain text was sent.

    TripleO and nova-operator run memcached -Z (infra-operator 203).
    """

    def start_tls(self, **kwargs):
        server = self.start(kind=lambda: memcached.WithTls(**kwargs))
        self.flags(
            "cache", tls_enabled=True, tls_cafile=server.certificate
        )
        return server

    def assert_error(self, words, address=None):
        if address is not None:
            self.configure(address)
        with self.assertRaises(exception.BackendError) as caught:
            self.driver().observe("compute")
        self.assertIn(words, str(caught.exception))

    def test_members_are_seen(self):
        self.start_tls()
        self.join("one")
        self.assertEqual({"one": "up"}, self.states())
        self.assertEqual(
            [], [one for one in self.driver().check() if not one.ok]
        )

    def test_a_server_that_closes_after_the_handshake(self):
        """By TLS 1.3 one that misses a certificate may do so."""
        server = self.start_tls()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate, server.key)
        listener = self.enterContext(socket.create_server(("127.0.0.1", 0)))

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    context.wrap_socket(link, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        self.assert_error(
            "the server closed the connection: does it want a certificate",
            f"localhost:{listener.getsockname()[1]}",
        )

    def test_a_server_that_wants_a_certificate(self):
        server = self.start_tls(verify=True)
        self.assert_error(
            "want a certificate of this host ([cache] tls_certfile)"
        )
        self.flags(
            "cache",
            tls_certfile=server.certificate,
            tls_keyfile=server.key,
        )
        self.join("one")
        self.assertEqual({"one": "up"}, self.states())

    def test_ciphers(self):
        self.start_tls()
        self.flags("cache", tls_allowed_ciphers="ECDHE+AESGCM")
        self.join("one")
        self.assertEqual({"one": "up"}, self.states())

    def test_the_name_of_the_server_is_verified(self):
        server = self.start_tls()
        self.assert_error(
            "TLS: the certificate of 127.0.0.1 is refused: ",
            f"127.0.0.1:{server.port}",
        )

    def test_an_authority_that_is_not_trusted(self):
        self.start_tls()
        other = os.path.join(self.folder, "other.crt")
        memcached.make_certificate(other, other + ".key")
        self.flags("cache", tls_cafile=other)
        self.assert_error("Check [cache] tls_cafile")

    def test_only_one_side_has_tls(self):
        server = self.start_tls()
        self.flags("cache", tls_enabled=False)
        self.assert_error("[cache] tls_enabled")
        self.flags("cache", tls_enabled=True)
        plain = self.enterContext(memcached.Memcached())
        self.assert_error(
            "[cache] tls_enabled", f"localhost:{plain.port}"
        )
        self.assertTrue(server.is_running)

    def test_a_certificate_that_was_renewed(self):
        """The files are read anew for each connection."""
        server = self.start_tls()
        driver = self.driver()
        driver.observe("compute")
        server.stop()
        memcached.make_certificate(server.certificate, server.key)
        server.start()
        driver.observe("compute")

    @single_mode
    def test_a_wrong_file_is_named_at_the_start(self):
        server = self.start_tls()
        text = os.path.join(self.folder, "text")
        with open(text, "w") as file:
            file.write("no certificate")
        for option, value in (
            ("tls_cafile", "/none.pem"),
            ("tls_cafile", text),
            ("tls_certfile", "/none.pem"),
            ("tls_certfile", text),
            ("tls_keyfile", "/none.pem"),
            ("tls_keyfile", text),
            ("tls_allowed_ciphers", "none-such"),
        ):
            with self.subTest(option=option, value=value):
                self.flags("cache", tls_certfile=server.certificate)
                self.flags("cache", tls_keyfile=server.key)
                self.flags("cache", **{option: value})
                with self.assertRaises(exception.ConfigError) as caught:
                    process.load("mc")
                self.assertIn("[cache] ", str(caught.exception))
                self.assertIn(option, str(caught.exception))
                self.assertIn(value, str(caught.exception))
                self.flags(
                    "cache",
                    tls_cafile=server.certificate,
                    tls_allowed_ciphers=None,
                )


class PasswordsTest(mc.McTestCase):
    """[cache] memcache_username was ignored (sapcc/helm-charts 9202)."""

    WRONG = "wrong-battery"

    def setUp(self):
        super().setUp()
        self.server = self.start(kind=memcached.WithPasswords)

    def log_in(self, **more):
        options = {
            "memcache_username": self.server.USER,
            "memcache_password": self.server.PASSWORD,
        }
        self.flags("cache", **{**options, **more})

    def test_members_are_seen(self):
        self.log_in()
        self.join("one")
        self.assertEqual({"one": "up"}, self.states())
        self.assertEqual(
            [], [one for one in self.driver().check() if not one.ok]
        )

    def test_the_newer_names_of_the_options(self):
        self.flags(
            "cache",
            username=self.server.USER,
            password=self.server.PASSWORD,
        )
        self.driver().observe("compute")

    def test_a_wrong_password(self):
        self.log_in(memcache_password=self.WRONG)
        with self.assertRaises(exception.BackendError) as caught:
            self.driver().observe("compute")
        self.assertIn("refused the user name", str(caught.exception))
        self.assertIn("[cache] username", str(caught.exception))
        self.assertNotIn(self.WRONG, str(caught.exception))
        self.assertEqual([], self.logs.matching(self.WRONG))

    def test_no_password(self):
        with self.assertRaisesRegex(
            exception.BackendError,
            r"wants a user name and a password.*\[cache\] username",
        ):
            self.driver().observe("compute")

    def test_a_server_without_passwords_does_not_keep_the_one_sent(self):
        plain = self.enterContext(memcached.Memcached())
        self.configure(plain.address)
        self.log_in()
        self.driver().observe("compute")
        self.assertIsNone(self.raw(plain).get("nova_sg:login"))

    @single_mode
    def test_a_password_that_cannot_be_right(self):
        for password, words in (None, "is not set"), ("a b", "has a space"):
            self.log_in(memcache_password=password)
            with self.assertRaisesRegex(
                exception.ConfigError, rf"\[cache\] password {words}"
            ):
                process.load("mc")

    @single_mode
    def test_sasl_is_refused_by_name(self):
        self.log_in(memcache_sasl_enabled=True)
        with self.assertRaisesRegex(
            exception.ConfigError,
            r"\[cache\] memcache_sasl_enabled: .*\(-Y\)",
        ):
            process.load("mc")


class GuardTest(mc.McTestCase):
    """The crash guard connects as its service does."""

    def test_a_crash_is_told_through_tls_with_a_password(self):
        server = self.start(kind=memcached.WithTlsAndPasswords)
        options = {
            "tls_enabled": True,
            "tls_cafile": server.certificate,
            "username": server.USER,
            "password": server.PASSWORD,
        }
        self.flags("cache", **options)
        settings = {
            "DEFAULT": {
                "servicegroup_driver": "mc",
                "memcached_servers": [server.address],
                "service_down_time": 300.0,
                "state_path": self.folder,
            },
            "cache": options,
        }
        member = zk.Process(
            "-m", "tests.functional.guarded", json.dumps(settings)
        )
        self.addCleanup(member.close)
        member.expect("ready", base.PATIENCE)
        member.tell("join one")
        self.wait_for_states({"one": "up"})
        member.expect("done: join", base.PATIENCE)
        self.assertNotIn(server.PASSWORD, member.output())
        (guard,) = base.wait_for(lambda: test_guard._guards_of(member.pid))
        member.kill()
        # Long before it would be down by silence.
        self.wait_for_states({"one": "down"})
        base.wait_for(lambda: not test_guard._status(guard))


class RoundRobinTest(mc.McTestCase):
    """One name for several servers, such as a service of Kubernetes.

    Each list showed another half of the group (gnocchi 185).
    """

    def setUp(self):
        super().setUp()
        self.pair = self.start(2)
        self.proxy = self.enterContext(
            proxy.TcpProxy(*(server.port for server in self.pair))
        )
        self.configure(self.proxy.address)

    def test_the_doctor_finds_it(self):
        found = [one for one in self.driver().check() if not one.ok]
        self.assertEqual(
            ["two connections answer as different servers"],
            [one.text for one in found],
        )
        self.assertIn("[DEFAULT] memcached_servers", found[0].remedy)

    def test_a_running_process_warns(self):
        words = "two connections answer as different servers"
        with mock.patch.object(replicas, "CLOCK_LIFETIME", 0.0):
            driver = self.driver()
            driver.observe("compute")
            self.assertEqual([], self.logs.matching(words))
            driver.observe("compute")
            base.wait_for(lambda: self.logs.matching(words))
            with mock.patch.object(replicas, "COMPARE_INTERVAL", 0.0):
                for _ in range(4):
                    driver.observe("compute")
        self.assertEqual(1, len(self.logs.matching(words)))

    @single_mode
    def test_a_name_that_has_the_addresses_of_two_servers(self):
        """As a headless service of Kubernetes."""
        other = memcached.Memcached()
        other.LISTEN = "127.0.0.2"
        other.port = self.pair[0].port
        self.enterContext(other)
        address = f"mc11.test:{other.port}"
        found = mc_elsewhere.start(
            {
                "hosts": "127.0.0.2 mc11.test\n127.0.0.1 mc11.test\n",
                "check": True,
                "options": {"DEFAULT": {"memcached_servers": [address]}},
            }
        )
        self.assertEqual(
            [
                f"127.0.0.1:{other.port} and 127.0.0.2:{other.port}, the "
                "addresses of its name, answer as different servers"
            ],
            found["bad"],
        )

    def test_one_server_behind_an_address_is_well(self):
        one = self.enterContext(proxy.TcpProxy(self.pair[0].port))
        self.configure(one.address)
        self.assertEqual(
            [], [one for one in self.driver().check() if not one.ok]
        )


class TwemproxyTest(mc.McTestCase):
    """A proxy that closes the connection when it is asked for statistics.

    Nothing worked, and the list was empty, with status 0.
    """

    WORDS = "gives no statistics, and so not its clock: is that a proxy"

    def test_it_is_named(self):
        server = self.start()
        twemproxy = self.enterContext(memcached.Nutcracker(server.port))
        self.configure(twemproxy.address)
        driver = self.driver()
        member = self.membership("one")
        for call in (
            driver.groups,
            lambda: driver.observe("compute"),
            lambda: driver.report(member),
            lambda: driver.report(member),
        ):
            with self.assertRaisesRegex(exception.BackendError, self.WORDS):
                call()
        (finding,) = driver.check()
        self.assertFalse(finding.ok)
        self.assertIn(self.WORDS, finding.text)

    def test_a_server_that_takes_its_place_is_used(self):
        server = self.start()
        twemproxy = self.enterContext(memcached.Nutcracker(server.port))
        self.configure(twemproxy.address)
        driver = self.driver()
        with self.assertRaises(exception.BackendError):
            driver.groups()
        twemproxy.stop()
        taking = memcached.Memcached()
        taking.port = twemproxy.port
        self.enterContext(taking)
        driver.report(self.membership("one"))
        self.assertEqual(["compute"], driver.groups())
