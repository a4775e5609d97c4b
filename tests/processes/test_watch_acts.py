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

"""nova-sg watch that acts: commands, and a webhook."""

import http.server
import json
import os
import sys
import threading

from tests.fixtures.process import wait_for
from tests.processes import base, watching

# Writes down what it gets; fails once for each event.
_SCRIPT = f"""#!{sys.executable}
import json, os, sys
event = json.load(sys.stdin)
for name in "TYPE GROUP HOST CAUSE REASON ID".split():
    assert os.environ["NOVA_SG_" + name] == event[name.lower()], name
with open({{path!r}}, "a") as file:
    file.write(json.dumps(event) + "\\n")
if event["attempt"] < 2:
    print("not yet")
    sys.exit(7)
"""


class Hook(http.server.ThreadingHTTPServer):
    """A webhook with given answers, and 204 after them."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        event = json.loads(self.rfile.read(length))
        self.server.requests.append((dict(self.headers), event))
        answers = self.server.answers
        self.send_response(answers.pop(0) if answers else 204)
        self.send_header("Location", self.server.url)
        self.end_headers()

    def log_message(self, *args):
        pass


class WatchTest(watching.TestCase):
    def test_a_command(self):
        path = self.path("events")
        script = self.write("act", _SCRIPT.format(path=path))
        os.chmod(script, 0o700)
        process = self.watch("--exec", f"'{script}'")
        for forced in (1, 0):
            for host in ("one", "two"):
                self.force(host, forced)

        def acted():
            with open(path) as file:
                return [json.loads(line) for line in file]

        wait_for(
            lambda: os.path.exists(path) and len(acted()) >= 8,
            base.PATIENCE,
            "all events are acted upon",
        )
        words = self.end(process)
        for host in ("one", "two"):
            found = [e for e in acted() if e["host"] == host]
            self.assertEqual(
                [("down", 1), ("down", 2), ("up", 1), ("up", 2)],
                [(e["type"], e["attempt"]) for e in found],
            )
            self.assertEqual(found[0]["id"], found[1]["id"])
            self.assertEqual(2, len({e["id"] for e in found}))
            self.assertEqual("forced-down", found[0]["cause"])
        self.assertIn(
            "the command act failed for down of one: status 7: not yet", words
        )

    def test_a_webhook(self):
        hook = Hook(503, 302)
        self.addCleanup(hook.close)
        self.configure(
            f"[events]\nwebhook = {hook.url}\n"
            f"webhook_token = {base.PASSWORD}\n"
        )
        process = self.watch()
        self.force("one", 1)
        self.force("one", 0)
        wait_for(
            lambda: len(hook.requests) >= 4, base.PATIENCE, "all are posted"
        )
        words = self.end(process)
        self.assertIn("the webhook at 127.0.0.1 failed", words)
        self.assertIn("it answers 503", words)
        self.assertEqual(
            [("down", 1), ("down", 2), ("down", 3), ("up", 1)],
            [(e["type"], e["attempt"]) for _, e in hook.requests],
        )
        for headers, _ in hook.requests:
            self.assertEqual(
                f"Bearer {base.PASSWORD}", headers["Authorization"]
            )
            self.assertEqual("application/json", headers["Content-Type"])

    def test_only_members_that_stay_down(self):
        hook = Hook()
        self.addCleanup(hook.close)
        process = self.watch(
            *("--webhook", hook.url, "--only", "down", "--for", "1")
        )
        self.force("one", 1)
        self.force("one", 0)
        self.force("two", 1)
        wait_for(lambda: hook.requests, base.PATIENCE, "two is posted")
        self.end(process)
        self.assertEqual(
            [("down", "two")],
            [(e["type"], e["host"]) for _, e in hook.requests],
        )

    def test_a_command_that_does_not_end(self):
        self.configure("[events]\ntime_limit = 0.5\nretry_for = 0\n")
        pids = self.path("pids")
        # What it starts is ended, too.
        script = self.write("hang", "sleep 1000 & echo $! >> $1; wait")
        process = self.watch("--exec", f"sh '{script}' '{pids}'")
        self.force("one", 1)
        words = "Given up after 1 attempts: the command sh for down of one"
        found = []

        def given_up():
            found.append(os.read(process.stderr.fileno(), 65536).decode())
            return words in "".join(found)

        wait_for(given_up, base.PATIENCE, "it is given up")
        with open(pids) as file:
            pid = int(file.read())
        wait_for(
            lambda: not _runs(pid), base.PATIENCE, "what it started has ended"
        )
        self.end(process)

    def test_nothing_to_act_with(self):
        for arguments, words in (
            (["--exec", "'"], "exec"),
            (["--webhook", "ftp://192.0.2.1/"], "webhook"),
        ):
            result = self.run_here("nova-sg", "watch", *arguments)
            self.assertEqual(2, result.status)
            self.assertIn(f"[events] {words}: ", result.err)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
