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

"""The command line: what is printed, and with which exit status."""

import csv
import datetime
import io
import json
import os
import re
import signal
import subprocess
import time

import yaml

from tests.fixtures import mariadb, memcached, process
from tests.fixtures.process import wait_for
from tests.processes import base

COMMANDS = (
    "db sync",
    "doctor",
    "force-down",
    "forget",
    "is-up",
    "list",
    "show",
    "wait",
    "watch",
)

COLUMNS = [
    "Host",
    "Topic",
    "Binary",
    "State",
    "Last Seen",
    "Age",
    "Forced Down",
    "Reason",
]


class BasicsTest(base.TestCase):
    def test_no_command(self):
        result = self.nova_sg(config=False)
        self.assertEqual((2, ""), (result.status, result.err))
        for command in COMMANDS:
            self.assertRegex(result.out, rf"(?m)^  {command}  +\w")

    def test_help_whatever_the_configuration(self):
        self.write("nova-sg.conf", "nonsense\n")
        for arguments in (["help"], ["--help"]):
            result = self.nova_sg(*arguments)
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertIn("Who is alive", result.out)

    def test_help_on_every_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                result = self.nova_sg(*command.split(), "--help", config=False)
                self.assertEqual((0, ""), (result.status, result.err))
                self.assertRegex(result.out, rf"^usage: nova-sg {command} ")

    def test_unknown_command(self):
        result = self.nova_sg("lits")
        self.assertEqual(2, result.status)
        self.assertIn("'lits' is not a nova-sg command", result.out)
        self.assertIn("  list\n", result.out)

    def test_unknown_option(self):
        for arguments in (["--no-such"], ["list", "--no-such"], ["list", "x"]):
            with self.subTest(arguments):
                result = self.nova_sg(*arguments)
                self.assertEqual(2, result.status)
                self.assertRegex(
                    result.out + result.err,
                    f"{arguments[-1]}('? is not a|$)",
                )

    def test_version(self):
        for program in ("nova-sg", "nova-sg-agent"):
            result = self.run_program(program, "--version", config=False)
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertRegex(result.out, r"\d+\.\d+")

    def test_a_reader_that_is_gone(self):
        for arguments in (["list", "-f", "json"], ["doctor"], []):
            with self.subTest(arguments):
                reading, writing = os.pipe()
                os.close(reading)
                program = self.start("nova-sg", *arguments, stdout=writing)
                os.close(writing)
                self.assertEqual("", self.finish(program).err)

    def test_no_room_for_the_answer(self):
        self.do("db", "sync")
        self.insert("one", 10)
        with open("/dev/full", "w") as full:
            program = self.start("nova-sg", "is-up", "one", stdout=full)
            result = self.finish(program)
        # 0 would say that it is up, 1 that it is down.
        self.assertNotIn(result.status, (0, 1))
        self.assertIn("No space left", result.err)


class MembersTest(base.TestCase):
    """list and show: one of each kind of members, in every format."""

    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("up", 30)
        self.insert("silent", 7201)
        self.insert("gone", 40, report_count=0)
        self.insert("fenced", 50, forced_down=1)
        self.insert(
            "drained", 60, disabled=1, disabled_reason="new disk, thursday"
        )
        self.insert("boss", 70, topic="conductor", binary="nova-conductor")

    def check_age(self, age, at_least):
        self.assertGreaterEqual(age, at_least)
        self.assertLess(age, at_least + base.PATIENCE)

    def test_json(self):
        rows = json.loads(self.do("list", "-f", "json"))
        for row in rows:
            self.assertEqual(COLUMNS, list(row))
            seen = datetime.datetime.fromisoformat(row["Last Seen"])
            age = datetime.datetime.now(datetime.UTC) - seen
            self.assertRegex(row["Last Seen"], r"T\d\d:\d\d:\d\d\.\d{3}Z$")
            self.check_age(age.total_seconds(), row["Age"] - 1)
        rows = {row["Host"]: row for row in rows}
        self.assertEqual(
            ["drained", "fenced", "gone", "silent", "up", "boss"], list(rows)
        )
        for host, state, forced, age, reason in (
            ("up", "up", False, 30, "^$"),
            (
                "silent",
                "down",
                False,
                7201,
                r"^last report 72\d\d\.\d s ago, allowed are 3600 s$",
            ),
            ("gone", "down", False, 40, "^left the group$"),
            ("fenced", "down", True, 50, "^forced down by an operator$"),
            ("drained", "up", False, 60, "^disabled: new disk, thursday$"),
            ("boss", "up", False, 70, "^$"),
        ):
            with self.subTest(host):
                row = rows[host]
                self.assertEqual(state, row["State"])
                self.assertIs(forced, row["Forced Down"])
                self.check_age(row["Age"], age)
                self.assertRegex(row["Reason"], reason)
        self.assertEqual(
            ("compute", "nova-compute", "conductor", "nova-conductor"),
            (
                rows["up"]["Topic"],
                rows["up"]["Binary"],
                rows["boss"]["Topic"],
                rows["boss"]["Binary"],
            ),
        )

    def test_every_format_says_the_same(self):
        expected = [
            [row["Host"], row["State"], row["Last Seen"]]
            for row in json.loads(self.do("list", "-f", "json"))
        ]
        columns = ("-c", "Host", "-c", "State", "-c", "Last Seen")
        listed = {
            kind: self.do("list", "-f", kind, *columns)
            for kind in ("csv", "yaml", "value", "table")
        }
        header, *rows = csv.reader(io.StringIO(listed["csv"]))
        self.assertEqual(["Host", "State", "Last Seen"], header)
        self.assertEqual(expected, rows)
        rows = yaml.safe_load(listed["yaml"])
        self.assertEqual(
            expected, [[r["Host"], r["State"], r["Last Seen"]] for r in rows]
        )
        rows = [line.split() for line in listed["value"].splitlines()]
        self.assertEqual(expected, rows)
        header, *rows = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in listed["table"].splitlines()
            if line.startswith("|")
        ]
        self.assertEqual(["Host", "State", "Last Seen"], header)
        # To the second, and readable.
        self.assertEqual(
            [[h, s, f"{t[:10]} {t[11:19]} UTC"] for h, s, t in expected], rows
        )

    def test_table_of_everything(self):
        lines = self.do("list").splitlines()
        header = [cell.strip() for cell in lines[1].split("|")[1:-1]]
        self.assertEqual(COLUMNS, header)
        text = "\n".join(lines)
        self.assertRegex(text, r"\| up +\| compute +\| nova-compute +\| up ")
        # Ages are in a unit that fits.
        self.assertRegex(text, r"\| silent .* UTC +\| 2 h ")
        self.assertRegex(text, r"\| up .* UTC +\| \d+\.\d s ")
        self.assertRegex(text, r"\| fenced .* \| True +\| forced down by")

    def test_groups(self):
        names = ("list", "-f", "value", "-c", "Host")
        everybody = self.do(*names).split()
        self.assertIn("boss", everybody)
        self.assertEqual(everybody, self.do(*names, "--all").split())
        self.assertEqual(
            ["boss"], self.do(*names, "--group", "conductor").split()
        )
        self.assertEqual([], self.do(*names, "--group", "nobody").split())
        refused = self.nova_sg("list", "--all", "--group", "compute")
        self.assertEqual(2, refused.status)
        self.assertIn("not allowed with", refused.err)

    def test_unknown_column(self):
        result = self.nova_sg("list", "-c", "Hots")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("No recognized column names in ['Hots']", result.err)

    def test_show(self):
        shown = json.loads(self.do("show", "drained", "-f", "json"))
        self.check_age(shown.pop("Age"), 60)
        self.assertRegex(shown.pop("Last Seen"), r"^\d{4}-\d\d-\d\dT.*Z$")
        self.assertRegex(shown.pop("Reason"), r"^last report \d+\.\d s ago$")
        self.assertEqual(
            {
                "Host": "drained",
                "Topic": "compute",
                "Binary": "nova-compute",
                "State": "up",
                "Forced Down": False,
                "Disabled": True,
                "Disabled Reason": "new disk, thursday",
                "Driver": "db",
            },
            shown,
        )

    def test_show_in_every_format(self):
        chosen = ("show", "boss", "--group", "conductor", "-c", "State")
        for kind, expected in (
            ("json", '{\n  "State": "up"\n}'),
            ("yaml", "State: up"),
            ("value", "up"),
            ("shell", 'state="up"'),
        ):
            with self.subTest(kind):
                shown = self.do(*chosen, "-f", kind)
                self.assertEqual(expected, shown.strip())
        self.assertRegex(self.do(*chosen), r"\| State +\| up +\|")

    def test_show_nobody(self):
        result = self.nova_sg("show", "boss")
        self.assertEqual((1, ""), (result.status, result.out))
        self.assertEqual("The group compute has no member boss\n", result.err)

    def test_is_up(self):
        for host, words, status in (
            ("up", "up", 0),
            ("drained", "up", 0),
            ("silent", "down", 1),
            ("gone", "down", 1),
            ("fenced", "down", 1),
        ):
            with self.subTest(host):
                result = self.nova_sg("is-up", host)
                self.assertEqual(
                    (status, f"{words}\n", ""),
                    (result.status, result.out, result.err),
                )

    def test_is_up_in_another_group(self):
        group = ("--group", "conductor")
        self.assertEqual("up\n", self.do("is-up", "boss", *group))
        self.configure("topic = conductor")
        self.assertEqual("up\n", self.do("is-up", "boss"))


class CannotTellTest(base.TestCase):
    """is-up ends with 2, never with 1, which says that a member is down."""

    def check(self, *arguments, words, out="unknown\n", **kwargs):
        result = self.nova_sg("is-up", *arguments, **kwargs)
        self.assertEqual((2, out), (result.status, result.out), result.err)
        self.assertIn(words, result.err)

    def test_unknown_member(self):
        self.check("nobody", words="The group compute has no member nobody")

    def test_unreachable_database(self):
        url = f"mysql+pymysql://nova:{base.PASSWORD}@127.0.0.1:1/nova"
        self.configure(f"[database]\nconnection = {url}")
        self.check("one", words="nova:***@127.0.0.1:1/nova: Can't connect")

    def test_unreachable_memcached(self):
        self.configure(
            "servicegroup_driver = mc\nmemcached_servers = 127.0.0.1:1"
        )
        self.check("one", words="memcached at 127.0.0.1:1: cannot connect")

    def test_no_table(self):
        path = self.path("empty.sqlite")
        self.configure(f"[database]\nconnection = sqlite:///{path}")
        self.check("one", words="create it with: nova-sg db sync")

    def test_wrong_value(self):
        self.configure("topic = compute\nservice_down_time = soon")
        self.check("one", words="[DEFAULT] service_down_time", out="")

    def test_wrong_arguments(self):
        self.check(words="required: HOST", out="")
        self.check("one", "--no-such", words="unrecognized", out="")

    def test_missing_file(self):
        self.config = self.path("no-such.conf")
        self.check("one", words=f"{self.config}: no such file", out="")


class ChangeTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("one", 10)
        self.insert("two", 7200)

    def record(self, host):
        return self.execute(
            "SELECT forced_down, deleted, last_seen_up FROM services "
            "WHERE host = ?",
            host,
        )[0]

    def test_force_down_and_back(self):
        seen = self.record("one")[2]
        self.assertEqual("", self.do("force-down", "one"))
        self.assertEqual((1, 0, seen), self.record("one"))
        self.assertEqual(1, self.nova_sg("is-up", "one").status)
        self.assertEqual("", self.do("force-down", "one", "--unset"))
        self.assertEqual((0, 0, seen), self.record("one"))
        self.assertEqual(0, self.nova_sg("is-up", "one").status)

    def test_nobody_of_that_name(self):
        for command in ("force-down", "forget"):
            for arguments in (["nobody"], ["one", "--group", "cell"]):
                with self.subTest(command, arguments=arguments):
                    result = self.nova_sg(command, *arguments)
                    self.assertEqual((1, ""), (result.status, result.out))
                    self.assertRegex(result.err, "^The group .* has no member")

    def test_forget(self):
        self.assertEqual("", self.do("forget", "two"))
        self.assertEqual(2, self.nova_sg("is-up", "two").status)
        self.assertEqual("one\n", self.do("list", "-f", "value", "-c", "Host"))
        # As Nova does it: the record stays, marked.
        self.assertNotEqual(0, self.record("two")[1])

    def test_forget_refuses_a_member_that_is_up(self):
        for forced in (False, True):
            if forced:
                self.do("force-down", "one")
            before = self.record("one")
            result = self.nova_sg("forget", "one")
            self.assertEqual((1, ""), (result.status, result.out))
            self.assertIn("one still reports to the group", result.err)
            self.assertEqual(before, self.record("one"))


class EveryBackendTest(base.TestCase):
    """What an operator does on a bad day, on each backend."""

    def test_sqlite(self):
        self.check("")

    def test_mariadb(self):
        url = process.shared(mariadb.MariaDB).create_database()
        self.check(f"[database]\nconnection = {url}")

    def test_memcached(self):
        server = process.shared(memcached.Memcached)
        self.check(
            f"servicegroup_driver = mc\nmemcached_servers = {server.address}"
        )

    def check(self, backend):
        # The servers are shared, the group is not.
        group = os.path.basename(self.folder)
        self.configure(f"topic = {group}\n{backend}", service_down_time=10)
        listed = ("list", "--group", group, "-f", "json")
        if "mysql" in backend:
            self.do("db", "sync")
        agent = self.agent("node")
        self.wait_for_state("node", "up")
        self.assertEqual("up\n", self.do("is-up", "node"))
        (row,) = json.loads(self.do(*listed))
        self.assertEqual(("node", "up"), (row["Host"], row["State"]))
        self.do("force-down", "node")
        result = self.nova_sg("is-up", "node")
        self.assertEqual((1, "down\n"), (result.status, result.out))
        self.assertEqual(1, self.nova_sg("forget", "node").status)
        self.do("force-down", "node", "--unset")
        self.wait_for_state("node", "up")
        self.assertEqual(1, self.nova_sg("forget", "node").status)
        agent.kill()
        self.wait_for_state("node", "down")

        def show():
            shown = json.loads(self.do("show", "node", "-f", "json"))
            return shown["Age"] > 11.5 and shown

        # memcached's clock has whole seconds: until that long after the limit
        # each new process may find it up again.
        shown = wait_for(show, message="nobody can take it to be up")
        self.assertEqual("down", shown["State"])
        self.assertIsNotNone(shown["Last Seen"])
        self.do("forget", "node")
        self.assertEqual([], json.loads(self.do(*listed)))
        self.assertEqual(2, self.nova_sg("is-up", "node").status)


class WatchTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")

    def watch(self, *arguments, **kwargs):
        """Start watching; return once events are seen."""
        program = self.start("nova-sg", "watch", *arguments, **kwargs)
        # A member that comes and goes until the watcher sees it.
        host = "probe"
        reader = base.Lines(program.stdout)
        self.insert(host, 10)
        self.addCleanup(reader.close)

        def seen():
            forced = "1 - forced_down"
            self.execute(
                f"UPDATE services SET forced_down = {forced} WHERE host = ?",
                host,
            )
            return reader.wait(0.5)

        wait_for(seen, base.PATIENCE, "the watcher sees events")
        self.execute("DELETE FROM services WHERE host = ?", host)
        # Everything about the probe ends with this.
        wait_for(
            lambda: any("removed" in line for line in reader.take()),
            base.PATIENCE,
            "the watcher sees the probe go",
        )
        return program, reader

    def next_line(self, reader):
        wait_for(lambda: reader.wait(1), base.PATIENCE, "there is an event")
        return reader.take_one()

    def test_text(self):
        program, reader = self.watch()
        # It falls silent in a few seconds.
        self.insert("one", 3595)
        self.assertRegex(
            self.next_line(reader),
            r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z joined one \(last rep",
        )
        self.assertRegex(
            self.next_line(reader),
            r"Z down one \(last report 36.* s ago, allowed are 3600 s\)$",
        )
        self.execute(
            "UPDATE services SET last_seen_up = "
            "strftime('%Y-%m-%d %H:%M:%f000', 'now') WHERE host = 'one'"
        )
        self.assertRegex(self.next_line(reader), r"Z up one \(last report ")
        self.insert("two", 5)
        self.assertRegex(self.next_line(reader), r"Z joined two \(")
        self.execute("UPDATE services SET report_count = 0 WHERE host = 'two'")
        self.assertRegex(
            self.next_line(reader), r"Z left two \(left the group\)$"
        )
        self.do("forget", "two")
        self.assertRegex(self.next_line(reader), r"Z left two \(removed\)$")
        # What is seen live, line by line, is not lost at the end.
        self.assertEqual(0, self.finish(program, signal.SIGTERM).status)

    def test_json(self):
        program, reader = self.watch("-f", "json")
        self.insert("one", 0, last_seen_up="2026-01-02 03:04:05.678900")
        event = json.loads(self.next_line(reader))
        at = datetime.datetime.fromisoformat(event.pop("at"))
        now = datetime.datetime.now(datetime.UTC)
        self.assertLess(abs((now - at).total_seconds()), base.PATIENCE)
        self.assertRegex(event.pop("reason"), "^last report .* ago, allowed")
        self.assertEqual("silent", event.pop("cause"))
        self.assertEqual(
            {
                "type": "joined",
                "group": "compute",
                "host": "one",
                "topic": "compute",
                "binary": "nova-compute",
                "last_seen": "2026-01-02T03:04:05.678Z",
            },
            event,
        )
        result = self.finish(program, signal.SIGINT)
        self.assertEqual((0, ""), (result.status, result.err))

    def test_signals(self):
        for signo in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signo):
                program, _ = self.watch()
                result = self.finish(program, signo)
                self.assertEqual((0, ""), (result.status, result.err))

    def test_a_reader_that_is_gone(self):
        program, reader = self.watch()
        self.insert("one", 10)
        reader.close()
        program.stdout = None
        wait_for(
            lambda: self.toggle() or program.poll() is not None,
            base.PATIENCE,
            "watch ends when nobody reads",
        )
        self.assertEqual("", self.finish(program).err)

    def toggle(self):
        self.execute("UPDATE services SET forced_down = 1 - forced_down")

    def test_a_backend_that_is_away(self):
        server = memcached.Memcached()
        self.configure(
            "servicegroup_driver = mc\n"
            f"memcached_servers = {server.address}\n",
            service_down_time=60,
        )
        with open(self.path("stderr"), "w") as stderr:
            program = self.start("nova-sg", "watch", stderr=stderr)
        reader = base.Lines(program.stdout)
        self.addCleanup(reader.close)
        wait_for(
            lambda: os.path.getsize(self.path("stderr")),
            base.PATIENCE,
            "the watcher says that there is no answer",
        )
        with open(self.path("stderr")) as stderr:
            self.assertIn("Cannot ask who is up", stderr.read())
        self.enterContext(server)
        # It looks again by itself, and sees a member that comes then.
        agents = []
        wait_for(
            lambda: agents.append(self.agent(f"late{len(agents)}"))
            or reader.wait(5),
            base.PATIENCE,
            "the watcher sees a member join",
        )
        self.assertRegex(reader.take_one(), r"Z joined late\d+ ")
        result = self.finish(program, signal.SIGTERM)
        self.assertEqual((0, ""), (result.status, result.err))


class WaitTest(base.TestCase):
    def setUp(self):
        super().setUp()
        self.do("db", "sync")
        self.insert("one", 10)
        self.insert("two", 7200)

    def test_what_is_so_already(self):
        for host, state in (("one", "up"), ("two", "down")):
            result = self.nova_sg(
                "wait", host, "--for", state, "--timeout", "0"
            )
            self.assertEqual(
                (0, "", ""), (result.status, result.out, result.err)
            )

    def test_what_does_not_come(self):
        for host, state, words in (
            ("one", "down", r"it is up: last report \d+\.\d s ago"),
            ("two", "up", r"it is down: last report .*, allowed are 3600 s"),
            ("three", "up", "The group compute has no member three"),
        ):
            with self.subTest(host):
                result = self.nova_sg(
                    "wait", host, "--for", state, "--timeout", "0.5"
                )
                self.assertEqual((1, ""), (result.status, result.out))
                self.assertRegex(
                    result.err,
                    rf"^{host} is not {state} after 0.5 s: {words}\n$",
                )

    def test_a_member_that_comes_later(self):
        waiting = self.start(
            *("nova-sg", "wait", "three", "--for", "up"),
            *("--timeout", str(base.PATIENCE)),
        )
        agent = self.agent("three")
        result = self.finish(waiting)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))
        waiting = self.start("nova-sg", "wait", "three", "--for", "down")
        agent.stop()
        result = self.finish(waiting)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))

    def test_a_backend_that_comes_later(self):
        server = memcached.Memcached()
        self.configure(
            "servicegroup_driver = mc\n"
            f"memcached_servers = {server.address}\n",
            service_down_time=60,
        )
        result = self.nova_sg("wait", "node", "--for", "up", "--timeout", "0")
        self.assertEqual(1, result.status)
        self.assertIn("cannot connect", result.err)
        waiting = self.start(
            *("nova-sg", "wait", "node", "--for", "up"),
            *("--timeout", str(base.PATIENCE)),
        )
        agent = self.agent("node")
        agent.wait_for_log("Cannot report the state of node")
        self.enterContext(server)
        result = self.finish(waiting)
        self.assertEqual((0, "", ""), (result.status, result.out, result.err))

    def test_wrong_arguments(self):
        for arguments, words in (
            (["one"], "required: --for"),
            (["one", "--for", "unknown"], "invalid choice"),
            (["one", "--for", "up", "--timeout", "soon"], "'soon' is not a"),
            (["one", "--for", "up", "--timeout", "-1"], "'-1' is not a"),
        ):
            with self.subTest(arguments):
                result = self.nova_sg("wait", *arguments)
                self.assertEqual((2, ""), (result.status, result.out))
                self.assertIn(words, result.err)

    def test_interrupted(self):
        for signo, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(signo):
                waiting = self.start("nova-sg", "wait", "two", "--for", "up")
                # It has begun to look when it has the database open.
                wait_for(
                    lambda pid=waiting.pid: "sqlite" in open_files(pid),
                    base.PATIENCE,
                    "nova-sg has opened the database",
                )
                result = self.finish(waiting, signo)
                self.assertEqual(
                    (status, "", ""), (result.status, result.out, result.err)
                )

    def test_a_signal_at_any_moment_of_the_start(self):
        for signo in (signal.SIGINT, signal.SIGTERM):
            for pause in (0, 0.1, 0.2, 0.3, 0.5, 0.8):
                with self.subTest(signo, pause=pause):
                    waiting = self.start(
                        "nova-sg", "wait", "two", "--for", "up"
                    )
                    # Python needs a moment before it runs what is ours.
                    wait_for(
                        lambda pid=waiting.pid: catches_sigterm(pid),
                        base.PATIENCE,
                    )
                    # What happens in between is not known: that is tested.
                    time.sleep(pause)
                    result = self.finish(waiting, signo)
                    self.assertEqual(
                        (128 + signo, "", ""),
                        (result.status, result.out, result.err),
                    )


def catches_sigterm(pid):
    """Whether a process handles SIGTERM."""
    with open(f"/proc/{pid}/status") as status:
        caught = re.search(r"^SigCgt:\s*(\w+)", status.read(), re.M)[1]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def open_files(pid):
    """Return what a process has open, as text."""
    folder = f"/proc/{pid}/fd"
    names = []
    for entry in os.listdir(folder):
        try:
            names.append(os.readlink(os.path.join(folder, entry)))
        except FileNotFoundError:
            continue
    return "\n".join(names)


class DbSyncTest(base.TestCase):
    def check(self, name):
        for _ in range(2):
            result = self.nova_sg("db", "sync")
            self.assertEqual((0, ""), (result.status, result.err))
            self.assertEqual(f"{name} is at revision 0002\n", result.out)

    def test_sqlite(self):
        self.check(f"sqlite:///{self.state}/nova-sg.sqlite")
        self.insert("one", 10)
        self.do("db", "sync")
        self.assertEqual("up\n", self.do("is-up", "one"))

    def test_sqlite_file_of_ones_own(self):
        path = self.path("own.sqlite")
        self.configure(f"[database]\nconnection = sqlite:///{path}")
        self.check(f"sqlite:///{path}")
        self.assertFalse(os.path.exists(self.state))

    def test_mariadb(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        self.configure(f"[database]\nconnection = {url}")
        result = self.nova_sg("list")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("create it with: nova-sg db sync", result.err)
        self.check(re.sub(":[^:@]*@", ":***@", url))
        self.assertEqual([], json.loads(self.do("list", "-f", "json")))

    def test_a_table_of_somebody_else(self):
        server = process.shared(mariadb.MariaDB)
        url = server.create_database()
        name = url.rpartition("/")[2]
        server.execute(
            "CREATE TABLE services (id INT PRIMARY KEY, host VARCHAR(255), "
            "topic VARCHAR(255))",
            database=name,
        )
        server.execute(
            "INSERT INTO services VALUES (1, 'one', 'compute')", database=name
        )

        def everything():
            return (
                server.execute("SHOW TABLES", database=name),
                server.execute("SHOW CREATE TABLE services", database=name),
                server.execute("SELECT * FROM services", database=name),
            )

        before = everything()
        self.configure(f"[database]\nconnection = {url}")
        result = self.nova_sg("db", "sync")
        self.assertEqual((2, ""), (result.status, result.out))
        self.assertIn("was not made by nova_sg and is left alone", result.err)
        self.assertEqual(before, everything())
        agent = self.agent("one")
        agent.wait_for_log("Cannot report the state of one")
        agent.stop()
        self.assertEqual(before, everything())


class WithoutConsoleScriptsTest(base.TestCase):
    def test_as_a_module(self):
        for module in ("shell", "agent"):
            done = subprocess.run(
                [
                    *(os.path.join(base.SCRIPTS, "python"), "-m"),
                    *(f"nova_sg.cmd.{module}", "--version"),
                ],
                env=self.environment,
                cwd=os.path.dirname(os.path.abspath(__file__)),
                capture_output=True,
                text=True,
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr))
