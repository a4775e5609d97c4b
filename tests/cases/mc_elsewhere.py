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
"""A process with its own /etc/hosts and resolv.conf, run by test_memcached.

It is started by `unshare`. Its argument is JSON: hosts (lines of /etc/hosts),
resolver (the address of a name server), offline (whether there is no
network), again (whether to try until it works), check (whether to do what the
doctor does) and options by section. It reports, and prints JSON: the error of
the first attempt, the hosts of the group, how many seconds that took, the
longest time in which another thread of the process stood still, and what the
doctor finds.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

# An operator's resolver waits for longer than a test should.
RESOLVER = "nameserver {}\noptions timeout:3 attempts:1\n"


def start(settings):
    """Start such a process; return what it prints."""
    command = ["unshare", "--mount"]
    if os.geteuid():
        command.append("--map-root-user")
    if settings.get("offline"):
        command.append("--net")
    done = subprocess.run(
        [*command, sys.executable, "-m", __name__, json.dumps(settings)],
        # As in a process of Nova.
        env={**os.environ, "EVENTLET_NO_GREENDNS": "yes"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def replace(path, text):
    """Have this process alone see another text in a file."""
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    subprocess.run(["mount", "--bind", file.name, path], check=True)
    os.unlink(file.name)


class Ticks(threading.Thread):
    """Measures for how long it does not run."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest = 0.0

    def run(self):
        last = time.monotonic()
        while True:
            time.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


def main(settings):
    replace("/etc/hosts", settings.get("hosts", "127.0.0.1 localhost\n"))
    if "resolver" in settings:
        replace("/etc/resolv.conf", RESOLVER.format(settings["resolver"]))
    import tests  # noqa: F401
    from nova_sg import exception
    from nova_sg.backends import base as driver_base
    from nova_sg.conf import CONF
    from nova_sg.servicegroup import process
    from tests.functional import mc

    CONF([], project="nova-sg", default_config_files=[])
    CONF.set_override("servicegroup_driver", "mc")
    for section, options in settings["options"].items():
        for name, value in options.items():
            group = None if section == "DEFAULT" else section
            CONF.set_override(name, value, group)
    # What it imports stops all threads.
    driver = process.load("mc")
    ticks = Ticks()
    ticks.start()
    time.sleep(0.1)
    ticks.longest = 0.0
    member = driver_base.Membership(
        "one", "compute", "nova-compute", mc.Ticking("one"), 1.0
    )
    error, hosts = "", []
    began = time.monotonic()
    try:
        driver.report(member)
        hosts = [one.host for one in driver.observe("compute").observations]
    except exception.BackendError as raised:
        error = str(raised)
    took = time.monotonic() - began
    while settings.get("again") and not hosts:
        time.sleep(0.2)
        with contextlib.suppress(exception.BackendError):
            driver.report(member)
            hosts = [o.host for o in driver.observe("compute").observations]
    time.sleep(0.02)
    bad = []
    if settings.get("check"):
        bad = [one.text for one in driver.check() if not one.ok]
    print(
        json.dumps(
            {
                "error": error,
                "hosts": hosts,
                "took": took,
                "stood_still": ticks.longest,
                "bad": bad,
            }
        ),
        flush=True,
    )
    # Without waiting for the resolver.
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
