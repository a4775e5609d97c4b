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

"""Observers of one group, each in a process of its own.

A program, python -m bench.watchers. It reads a job as one line of JSON and
forks the observers, so that they share what they import. Each prints lines of
JSON: its process id, with "knows" once it knows so many members up, and with
"down" and "at" (seconds on the monotonic clock, which all processes share) for
each member that goes down.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

from bench import victims
from nova_sg import exception, servicegroup
from nova_sg.conf import CONF
from nova_sg.servicegroup import process


def main() -> None:
    """Do the job: group, count, members and options."""
    job = json.loads(sys.stdin.readline())
    configure(job["options"])
    # So that its module is imported once, and not by each of them.
    process.load(CONF.servicegroup_driver).close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(job["count"]):
        if not os.fork():
            with victims.ending():
                _observe(job)
    # The observers end with this process.
    sys.stdin.read()


def configure(options: dict[str, dict[str, Any]]) -> None:
    """Set options, by section."""
    CONF([], project="nova-sg", default_config_files=[])
    for section, values in options.items():
        for name, value in values.items():
            group = None if section == "DEFAULT" else section
            CONF.set_override(name, value, group)


def _observe(job: dict[str, Any]) -> None:
    api = servicegroup.API()

    def note(event: Any) -> None:
        if event.type == "down":
            _tell(down=event.host, at=time.monotonic())

    api.watch(job["group"], note)
    parent = os.getppid()
    knows = False
    while os.getppid() == parent:
        if not knows:
            members = []
            # While all of them start, the servers are busy.
            with contextlib.suppress(exception.ServiceGroupUnavailable):
                members = api.get_all(job["group"])
            knows = len(members) >= job["members"]
            if knows:
                _tell(knows=len(members))
        time.sleep(0.5)


def _tell(**what: Any) -> None:
    line = json.dumps({"pid": os.getpid(), **what}) + "\n"
    os.write(1, line.encode())


if __name__ == "__main__":
    main()
