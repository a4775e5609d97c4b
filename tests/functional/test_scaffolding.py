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

"""A killed test process leaves nothing, and a failure shows the logs."""

import os
import subprocess
import sys
import tempfile
import unittest

from tests import single_mode
from tests.fixtures import logs, watchdog
from tests.fixtures.memcached import Memcached
from tests.fixtures.process import wait_for

# A test process, without a folder in its environment yet. It starts processes
# that have to end with it, and prints their ids.
KILLED = """
import os
import signal
import subprocess
import sys
import tempfile
import tests
from tests.fixtures import watchdog

sleep = ["sleep", "1000"]
pids = [
    # Found by nothing but its environment.
    subprocess.Popen(sleep, start_new_session=True).pid,
    # Found by its working folder: it has no environment.
    subprocess.Popen(sleep, env={}, cwd=tempfile.gettempdir()).pid,
]
with tempfile.NamedTemporaryFile() as output:
    # Found by its output alone: it has no environment, and no parent.
    orphan = subprocess.run(
        ["sh", "-c", "env -i sleep 1000 2>&1 & echo $! >&2"],
        stdout=output, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )
    pids.append(int(orphan.stderr))
    # A watchdog that is killed is replaced.
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                pid, name, state, parent, *rest = stat.read().split()
        except OSError:
            continue
        if name == "(watchdog)" and int(parent) == os.getpid():
            os.kill(int(pid), signal.SIGKILL)
            os.waitid(os.P_PID, int(pid), os.WEXITED)
    watchdog.guard_process(pids[0])
    print(tempfile.gettempdir(), *pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@single_mode
class KilledTest(unittest.TestCase):
    def test_no_process_or_folder_is_left(self):
        environment = dict(os.environ)
        del environment[watchdog.VARIABLE]
        del environment["TMPDIR"]
        with tempfile.TemporaryFile("w+") as output:
            killed = subprocess.Popen(
                [sys.executable, "-c", KILLED], env=environment, stdout=output
            )
            watchdog.guard_process(killed.pid)
            killed.wait()
            watchdog.release_process(killed.pid)
            output.seek(0)
            folder, *pids = output.read().split()
        self.assertEqual(3, len(pids))
        for pid in pids:
            wait_for(lambda pid=pid: self.has_ended(pid))
        wait_for(lambda: not os.path.exists(folder))

    @staticmethod
    def has_ended(pid):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True


@single_mode
class LogsTest(unittest.TestCase):
    def test_a_failure_has_the_servers_last_lines(self):
        server = self.enterContext(Memcached())

        def write(text):
            with open(server._log_path, "a") as log:
                log.write(text)

        class Failing(unittest.TestCase):
            def test(self):
                write("the last words\n\tat java.lang.Thread.run\n")
                with self.subTest("one of them"):
                    self.fail("a failure of the test")
                raise ValueError("an error of the test")

        write("what was said before\n")
        result = unittest.TestResult()
        Failing("test").run(result)
        texts = [text for _, text in result.failures + result.errors]
        self.assertEqual(2, len(texts))
        for text in texts:
            said = text.partition(f"{logs.MARK}{server}:\n")[2].splitlines()
            self.assertEqual(f"{logs.MARK}    the last words", said[0])
            self.assertNotIn("java", text)
