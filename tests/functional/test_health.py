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


"""The checks of members: [servicegroup] health_check, and /health."""

import http.client
import json
import logging
import os
import socket
import stat
import threading
import time
from unittest import mock

from nova_sg import metrics, servicegroup
from nova_sg.nova import rpc_health
from nova_sg.servicegroup import health, health_server, health_state, process
from tests import base
from tests.base import wait_for
from tests.fixtures import process as servers
from tests.functional import db, mc, zk
from tests.functional.test_metrics import value

MEMBER = {"topic": "compute", "host": "one"}


class Checked:
    """The tests of health_check for each driver, which a subclass has."""

    def setUp(self):
        super().setUp()
        metrics.start_afresh()
        self.start_backend()
        self.api = servicegroup.API()
        self.flags("servicegroup", health_check_interval=0.1)
        self.status = os.path.join(self.folder, "status")
        self.check = self.program(
            f'read status reason < {self.status}; echo first; echo "$reason"; '
            'test -n "$NOVA_SG_HOST-$NOVA_SG_GROUP"; exit $status'
        )
        self.be("0")

    def start_backend(self):
        pass

    def program(self, text):
        """Write a program for the shell; return its path."""
        path = os.path.join(
            self.folder, f"check{len(os.listdir(self.folder))}"
        )
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)
        return path

    def be(self, status):
        """Have the check end with a status and a reason."""
        with open(f"{self.status}.new", "w") as file:
            file.write(f"{status}\n")
        os.rename(f"{self.status}.new", self.status)

    def enter(self, line):
        self.flags("servicegroup", health_check=line)
        self.join("one")

    def judged(self):
        member = self.api.member("compute", "one")
        return member.cause, self.api.accepts(MEMBER)

    def wait_for_verdict(self, *verdict):
        wait_for(lambda: self.judged() == verdict, message=self.judged)
        self.assertTrue(self.api.service_is_up(MEMBER))

    def reason(self):
        return self.api.member("compute", "one").reason

    def test_unwell_while_the_command_fails(self):
        self.enter(f"{self.check} 'an argument'")
        self.wait_for_verdict("reported", True)
        events = self.collect(self.api)
        self.be("3 its disk is full")
        self.wait_for_verdict("unwell", False)
        self.assertRegex(self.reason(), "^unwell: its disk is full; last")
        self.assertEqual(0, value("nova_sg_health", host="one"))
        self.be("0")
        self.wait_for_verdict("reported", True)
        self.assertEqual(1, value("nova_sg_health", check="command"))
        wait_for(lambda: events and events[-1].type == "up")
        self.assertEqual(["unwell", "up"], [one.type for one in events])
        [warning] = self.logs.matching("is unwell", logging.WARNING)
        self.assertIn("its disk is full. It goes on reporting", warning)
        self.assertEqual(1, len(self.logs.matching("is well again")))

    def test_unwell_from_the_start(self):
        self.be("1 its disk is full")
        self.flags("servicegroup", health_check_interval=3600)
        self.enter(self.check)
        self.wait_for_verdict("unwell", False)

    def test_a_command_that_hangs_is_killed_with_its_children(self):
        self.flags("servicegroup", health_check_time_limit=0.5)
        pids = os.path.join(self.folder, "pids")
        self.enter(self.program(f"echo $$ >> {pids}; sleep 1000 & sleep 1000"))
        self.wait_for_verdict("unwell", False)
        self.assertIn(
            "had not ended after 0.5 s and was killed", self.reason()
        )
        with open(pids) as file:
            first = int(file.readline())
        wait_for(lambda: first not in groups(), message="the group is killed")

    def test_a_command_that_cannot_be_run(self):
        missing = os.path.join(self.folder, "missing")
        self.enter(missing)
        self.wait_for_verdict("unwell", False)
        [error] = self.logs.matching("health_check", logging.ERROR)
        self.assertIn(f"there is no program {missing}", error)
        self.assertIn("[servicegroup] health_check cannot", self.reason())
        # It is tried again.
        with open(missing, "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(missing, 0o755)
        self.wait_for_verdict("reported", True)

    def test_a_line_that_cannot_be_read(self):
        self.enter("check 'no end")
        self.wait_for_verdict("unwell", False)
        [error] = self.logs.matching("health_check", logging.ERROR)
        self.assertIn("No closing quotation", error)

    def test_status_without_output_and_output_without_end(self):
        self.enter(self.program("exit 7"))
        self.wait_for_verdict("unwell", False)
        self.assertIn("ended with status 7", self.reason())
        self.api.leave("one", "compute")
        self.enter(
            self.program("head -c 5000000 /dev/zero; echo; echo end; false")
        )
        wait_for(lambda: "unwell: end;" in self.reason())

    def reload(self):
        """Have the member join again, as the agent does at SIGHUP."""
        for old in process.detach():
            old.stop_reports()
            self.addCleanup(old.close)
        self.api = servicegroup.API()
        self.join("one")

    def test_a_reload_while_unwell(self):
        self.be("1 its disk is full")
        self.enter(self.check)
        self.wait_for_verdict("unwell", False)
        # Only what was known before can make it unwell now.
        self.flags("servicegroup", health_check=self.program("sleep 1000"))
        self.reload()
        self.wait_for_verdict("unwell", False)
        self.assertIn("its disk is full", self.reason())
        self.flags("servicegroup", health_check=self.check)
        self.be("0")
        self.reload()
        self.wait_for_verdict("reported", True)

    def test_a_reload_that_removes_the_check(self):
        self.be("1 its disk is full")
        self.enter(self.check)
        self.wait_for_verdict("unwell", False)
        self.flags("servicegroup", health_check=None)
        self.reload()
        self.wait_for_verdict("reported", True)

    def test_reports_go_on_and_checks_end(self):
        self.flags("servicegroup", health_check_time_limit=3600)
        self.enter(self.program("sleep 1000"))
        self.wait_for_verdict("reported", True)

        def age():
            [member] = health_state.read(process.in_use())["members"]
            return max(
                one["last_success_seconds"]
                for one in member["reports"].values()
            )

        sent = {"group": "compute", "outcome": "sent"}
        wait_for(lambda: value("nova_sg_reports_total", **sent) > 10)
        self.assertLess(age(), 2)
        self.api.drain("one", "compute")
        self.wait_for_verdict("draining", False)
        self.assert_no_thread_named("nova-sg-health")


def groups():
    """Return the process groups that there are."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found.add(int(fields[2]))
    return found


class McTest(Checked, mc.McTestCase):
    def start_backend(self):
        self.start()

    def join(self, *hosts):
        return super().join(*hosts, interval=0.1)


class ZkTest(Checked, zk.ZkTestCase):
    pass


class Late(health.Check):
    """A check that hangs until it is released."""

    name = subject = "late"

    def __init__(self):
        super().__init__(interval=0.05, limit=0.1)
        self.released = threading.Event()
        self.runs = 0

    def run(self):
        self.runs += 1
        self.released.wait()
        return ""


class Others(health.Workers):
    """Other processes of the member, which a test makes well or unwell."""

    def __init__(self):
        self.are_well = True

    def is_alone(self):
        return not self.are_well


class MembersTest(base.TestCase):
    """Checks that hang or raise, and members with several processes."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(health, "SLACK", 0.0))
        self.told = []
        self.members = health.Members(lambda *what: self.told.append(what))
        self.addCleanup(self.members.close)

    def begin(self, *checks, workers=None):
        makers = [lambda *_, check=check: check for check in checks]
        made = workers or health.Workers()
        with (
            mock.patch.object(health, "_makers", makers),
            mock.patch.object(health, "_workers", lambda *_: made),
        ):
            self.members.begin("one", "compute", None, False)

    def test_a_check_that_hangs(self):
        late = Late()
        self.addCleanup(late.released.set)
        self.begin(late)
        wait_for(lambda: self.told)
        self.assertEqual(
            [("one", "compute", "late did not answer within 0.1 s")], self.told
        )
        [result] = self.members.results()
        self.assertTrue(result.reason)
        # No other run begins beside it, and what it finds is too late.
        self.assertEqual(1, late.runs)
        late.released.set()
        wait_for(lambda: len(self.told) == 2)
        self.assertEqual(("one", "compute", ""), self.told[1])
        self.assertGreater(late.runs, 1)

    def test_a_check_that_raises(self):
        wrong = Late()
        wrong.run = mock.Mock(side_effect=ZeroDivisionError("no"))
        self.begin(wrong)
        wait_for(lambda: self.told)
        self.assertEqual("late: ZeroDivisionError: no", self.told[0][2])

    def test_several_checks(self):
        one, other = Late(), Late()
        reasons = {one: "no disk", other: ""}
        for check in reasons:
            check.run = lambda check=check: reasons[check]
        self.begin(one, other)
        wait_for(lambda: self.told)
        reasons[other] = "no light"
        wait_for(lambda: self.told[-1][2] == "no disk; no light")
        reasons[one] = ""
        wait_for(lambda: self.told[-1][2] == "no light")
        reasons[other] = ""
        wait_for(lambda: self.told[-1][2] == "")

    def test_a_maker_that_raises(self):
        with mock.patch.object(health, "_makers", [lambda *_: 1 / 0]):
            self.members.begin("one", "compute", None, False)
        self.assertEqual([], list(self.members.results()))
        self.assertEqual(1, len(self.logs.matching("is not checked")))

    def test_unwell_only_if_no_other_process_is_well(self):
        others, check = Others(), Late()
        reason = "no disk"
        check.run = lambda: reason
        self.begin(check, workers=others)
        wait_for(lambda: self.logs.matching("is unwell"))
        self.assertEqual([], self.told)
        others.are_well = False
        wait_for(lambda: self.told)
        self.assertEqual([("one", "compute", "no disk")], self.told)
        others.are_well = True
        wait_for(lambda: len(self.told) == 2)
        self.assertEqual(("one", "compute", ""), self.told[1])


class LockTest(base.TestCase):
    """Workers of one member, by a lock on a file."""

    def setUp(self):
        super().setUp()
        self.flags(state_path=self.folder)

    def worker(self):
        made = rpc_health.Workers("one", "conductor", "nova-conductor")
        self.addCleanup(made.done)
        return made

    def test_alone_is_the_worker_without_a_well_one_beside_it(self):
        one, other = self.worker(), self.worker()
        self.assertFalse(one.is_alone())
        # Both are unwell now.
        self.assertTrue(other.is_alone())
        self.assertTrue(one.is_alone())
        other.is_well()
        self.assertFalse(one.is_alone())
        other.done()
        self.assertTrue(one.is_alone())

    def test_alone_where_no_file_can_be_made(self):
        self.flags(state_path="/dev/null/nowhere")
        self.assertTrue(self.worker().is_alone())


class Asking:
    """What asks for /health."""

    def ask(self, path="/health", method="GET"):
        """Return the status and the object of the answer."""
        if self.address.startswith("unix:"):
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.address.removeprefix("unix:"))
        else:
            host, port = self.address.split(":")
            client = socket.create_connection((host, int(port)))
        link = http.client.HTTPConnection("localhost")
        link.sock = client
        try:
            link.request(method, path)
            answer = link.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if body else None
        finally:
            link.close()

    def talk(self, data):
        """Send bytes; return all that is answered."""
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(data)
            answer = b""
            while some := client.recv(4096):
                answer += some
            return answer

    def wait_until_served(self):
        wait_for(lambda: self.logs.matching("Showing the health"))


class PageTest(Asking, mc.McTestCase):
    """/health of a process with a member."""

    def setUp(self):
        super().setUp()
        self.server = self.start()
        self.address = f"127.0.0.1:{servers.free_port()}"
        self.flags("servicegroup", health_listen=self.address)
        self.api = servicegroup.API()

    def test_200_while_the_member_reports_and_503_after_its_end(self):
        self.join("one", interval=0.1)
        self.wait_until_served()
        wait_for(lambda: self.ask()[0] == 200)
        status, state = self.ask()
        [member] = state["members"]
        self.assertEqual((True, os.getpid()), (state["healthy"], state["pid"]))
        self.assertEqual(
            ("one", "compute", False, ""),
            (
                member["host"],
                member["group"],
                member["draining"],
                member["reports"]["mc"]["trouble"],
            ),
        )
        self.assertEqual((200, None), self.ask(method="HEAD"))
        self.assertEqual(404, self.ask("/")[0])
        self.assertEqual(405, self.ask(method="POST")[0])
        self.api.leave("one", "compute")
        self.assertEqual((503, []), (self.ask()[0], self.ask()[1]["members"]))

    def test_503_without_reports_and_while_unwell(self):
        self.flags(service_down_time=2.0)
        self.flags("servicegroup", health_check_interval=0.1)
        flag = os.path.join(self.folder, "flag")
        self.flags("servicegroup", health_check=f"test -e {flag}")
        self.join("one", interval=0.1)
        self.wait_until_served()
        wait_for(lambda: "command" in str(self.ask()[1]["members"][0]))
        status, state = self.ask()
        check = state["members"][0]["checks"]["command"]
        self.assertEqual((503, False), (status, check["healthy"]))
        self.assertIn("ended with status 1", check["reason"])
        open(flag, "w").close()
        wait_for(lambda: self.ask()[0] == 200)
        self.server.stop()
        wait_for(lambda: self.ask()[0] == 503)
        reports = self.ask()[1]["members"][0]["reports"]["mc"]
        self.assertTrue(reports["trouble"])
        self.assertGreaterEqual(reports["last_success_seconds"], 2)

    def test_requests_that_are_wrong_slow_or_too_many(self):
        self.enterContext(mock.patch.object(health_server, "TIME", 1.0))
        self.join("one", interval=0.1)
        self.wait_until_served()
        self.assertIn(b" 400 ", self.talk(b"nonsense\r\n\r\n"))
        self.assertIn(b" 400 ", self.talk(b"\r\n\r\n"))
        begun = time.monotonic()
        self.assertEqual(b"", self.talk(b"GET /health HTTP/1.1\r\n"))
        self.assertLess(time.monotonic() - begun, 10)
        self.talk(b"x" * health_server.SIZE)
        host, port = self.address.split(":")
        many = [
            socket.create_connection((host, int(port)))
            for _ in range(health_server.CONNECTIONS + 5)
        ]
        for one in many:
            self.addCleanup(one.close)
        # Those that send nothing are closed, and it answers again.
        wait_for(lambda: self.served() == 200)

    def served(self):
        try:
            return self.ask()[0]
        except (OSError, http.client.HTTPException):
            return None

    def test_the_port_is_taken_until_its_process_ends(self):
        self.enterContext(mock.patch.object(health_server, "AGAIN", 0.05))
        taken = socket.socket()
        self.addCleanup(taken.close)
        host, port = self.address.split(":")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        self.join("one", interval=0.1)
        wait_for(lambda: self.logs.matching("another process has"))
        wait_for(lambda: self.states() == {"one": "up"})
        taken.close()
        self.wait_until_served()
        wait_for(lambda: self.served() == 200)
        self.assertEqual(1, len(self.logs.matching("another process has")))

    def test_an_address_that_is_none(self):
        self.flags("servicegroup", health_listen="everywhere")
        self.join("one", interval=0.1)
        [error] = self.logs.matching("health_listen", logging.ERROR)
        self.assertIn("'everywhere' is no address", error)
        wait_for(lambda: self.states() == {"one": "up"})

    def test_an_address_of_another_host(self):
        self.flags("servicegroup", health_listen="192.0.2.1:8000")
        self.join("one", interval=0.1)
        wait_for(lambda: self.logs.matching("cannot listen", logging.ERROR))
        wait_for(lambda: self.states() == {"one": "up"})

    def test_a_socket_file(self):
        path = os.path.join(self.folder, "health")
        left = socket.socket(socket.AF_UNIX)
        left.bind(path)
        left.close()
        self.address = f"unix:{path}"
        self.flags("servicegroup", health_listen=self.address)
        self.join("one", interval=0.1)
        self.wait_until_served()
        wait_for(lambda: self.ask()[0] == 200)
        self.assertEqual(0o660, stat.S_IMODE(os.stat(path).st_mode))
        process.reset()
        self.assertFalse(os.path.exists(path))

    def test_a_file_that_is_no_socket_stays(self):
        path = os.path.join(self.folder, "precious")
        open(path, "w").close()
        self.flags("servicegroup", health_listen=f"unix:{path}")
        self.join("one", interval=0.1)
        wait_for(lambda: self.logs.matching("health_listen"))
        self.assertTrue(stat.S_ISREG(os.stat(path).st_mode))


class AddressTest(base.TestCase):
    def test_addresses(self):
        for text, expected in {
            "127.0.0.1:80": ("127.0.0.1", 80),
            "[::1]:8080": ("::1", 8080),
            "192.0.2.1:1": ("192.0.2.1", 1),
            "unix:/run/a:b": "/run/a:b",
        }.items():
            with self.subTest(text):
                self.assertEqual(expected, health_server.parse(text))

    def test_no_addresses(self):
        for text in (
            *("", "80", ":80", "a:0", "a:65536", "a:b", "unix:here"),
            *("::1:80", "unix:", "localhost:80"),
        ):
            with (
                self.subTest(text),
                self.assertRaises(health_server.exception.ConfigError),
            ):
                health_server.parse(text)


class DbTest(db.MariaDBTestCase):
    """The services table has no room for it: only this process knows."""

    def test_health_check(self):
        self.flags("servicegroup", health_check="false")
        self.join("one")
        wait_for(lambda: self.logs.matching("is unwell", logging.WARNING))
        self.assertTrue(servicegroup.API().accepts(MEMBER))
        self.assertFalse(health_state.read(process.in_use())["healthy"])
        self.assertEqual(0, value("nova_sg_health", host="one"))
