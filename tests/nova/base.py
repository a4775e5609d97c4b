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


"""What the tests on a real Nova share."""

import atexit
import datetime
import glob
import json
import os
import time
import unittest

from tests.fixtures import novarig, process

#: Whether all tests are to run.
LONG = bool(os.environ.get("NOVA_SG_LONG"))

# Seconds that a loaded machine may add to anything.
SLACK = 3.0

#: Has a Nova's messages be heartbeats, and nothing else.
QUIET = "[DEFAULT]\nperiodic_enable = false\n"

SCRIPTS = os.path.join(os.path.dirname(__file__), "scripts")

_site = None


def site():
    """Return this process's site, running."""
    global _site
    if _site is None:
        made = novarig.Site()
        atexit.register(made.close)
        made.start()
        _site = made
    return _site


def run_script(name, *arguments, **environment):
    """Run a script of scripts/ in Nova's environment.

    :returns: the object that it printed on a line, read as JSON
    """
    output = site().run(
        *("python", "-P", os.path.join(SCRIPTS, name), *arguments),
        **environment,
    )
    return read_json(output)


def read_json(output):
    """Return the object that stands on a line among others, of logs."""
    [line] = [line for line in output.splitlines() if line.startswith('{"')]
    return json.loads(line)


def mode_variable(mode):
    """Return what tells Nova its mode where it has no command line."""
    return {"OS_NOVA_DISABLE_EVENTLET_PATCHING": str(mode == "threads")}


class CloudTestCase(unittest.TestCase):
    """Tests on one Nova; each finds everything running and listed up."""

    DRIVER = "stock"
    MODE = "threads"
    #: More arguments of the Cloud.
    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cloud = cls.enterClassContext(
            novarig.Cloud(
                site(),
                cls.DRIVER,
                cls.MODE,
                **{
                    "options": QUIET,
                    # Long enough to tell a word from silence.
                    "service_down_time": 6,
                    **cls.SETTINGS,
                },
            )
        )

    def setUp(self):
        super().setUp()
        cloud = self.cloud
        if not cloud.site.rabbitmq.is_running:
            cloud.site.rabbitmq.start()
        for service in cloud.services:
            if not service.is_running:
                service.start()
        for binary in ("nova-conductor", "nova-scheduler", "nova-compute"):
            cloud.wait_for_state(binary, "up", timeout=120)
            # Each worker of the API looks by itself.
            process.wait_for(
                lambda binary=binary: all(
                    set(cloud.states(binary).values()) == {"up"}
                    for _ in range(6)
                ),
                message=f"all workers list {binary} up",
            )

    def restart_compute(self):
        """Start the compute again and wait until it has joined.

        :returns: seconds from then until it was listed up; not more than
            about the least, as the log is read now and then
        """
        cloud = self.cloud
        before = log_lines(cloud.compute, "Join ServiceGroup")
        cloud.compute.start()

        def joined():
            found = log_lines(cloud.compute, "Join ServiceGroup")
            return found[len(before) :]

        line = process.wait_for(joined, 120, "the compute joins")[0]
        at = datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S.%f")
        cloud.wait_for_state("nova-compute", "up")
        return time.time() - at.timestamp()

    def assert_stays(self, state, binaries, seconds):
        """Look at the API again and again."""
        end = time.monotonic() + seconds
        looks = 0
        while time.monotonic() < end:
            for binary in binaries:
                states = self.cloud.states(binary)
                self.assertEqual(
                    {state},
                    set(states.values()),
                    f"{binary}\n{self.cloud.log_tails()}",
                )
                looks += 1
            time.sleep(0.1)
        self.assertGreater(looks, 2)


def log_lines(service, words):
    """Return the lines of a service's log that contain words."""
    path = os.path.join(service.directory, "server.log")
    with open(path, errors="replace") as log:
        return [line for line in log if words in line]


def connections(pid, ports):
    """Return how many TCP connections a process has to ports of loopback."""
    inodes = set()
    for link in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    count = 0
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as lines:
            next(lines)
            for line in lines:
                columns = line.split()
                port = int(columns[2].rpartition(":")[2], 16)
                count += (
                    columns[3] == "01"
                    and columns[9] in inodes
                    and port in ports
                )
    return count


def family(pid):
    """Return the ids of a process and of all that descend from it."""
    found = [pid]
    for parent in found:
        for path in glob.glob(f"/proc/{parent}/task/*/children"):
            with open(path) as children:
                found.extend(map(int, children.read().split()))
    return found


def make_variants(namespace, base, combinations):
    """Make a test case of base for each driver and mode.

    The one that is not among the usual ones only runs in the long form.
    """
    for driver, mode, usual in combinations:
        if usual or LONG:
            name = f"{base.__name__}_{driver}_{mode}"
            namespace[name] = type(
                name,
                (base, CloudTestCase),
                {
                    "DRIVER": driver,
                    "MODE": mode,
                    "__module__": namespace["__name__"],
                },
            )
