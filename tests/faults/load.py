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

"""What a thousand members that do the same at once cost the servers."""

import time

from nova_sg.backends.db import engine
from tests.fixtures import process


def count_load(action):
    """Return a fault: begin to count the servers' work, then do the action."""

    def do(stage):
        stage.load_before = {
            driver: _count(driver, stage.servers(driver))
            for driver in stage.fault.on
        }
        stage.load_begun = time.monotonic()
        action(stage)

    return do


def check_load(stage, contender):
    """Complain if servers did more work than members and time explain."""
    driver = contender.kind.driver
    servers = stage.servers(driver)
    seconds = time.monotonic() - stage.load_begun
    done = _count(driver, servers) - stage.load_before[driver]
    members = len(contender.hosts)
    reports = 1.2 * members / stage.times.report_interval
    # A refresh of mc asks for a key of each member, and perhaps for its
    # record.
    keys = 1 + (2 * members + 130 if driver == "mc" else 0)
    bound = 20 * members + seconds * (
        reports + keys / stage.times.refresh + 100
    )
    contender.note = f"{done:,} {_UNITS[driver]} in {seconds:.0f} s"
    if done > bound:
        yield f"{contender.note}, but at most {bound:,.0f} are allowed"
    if driver == "db":
        made = _status(servers[0], "Max_used_connections")
        allowed = sum(
            _CONNECTIONS[one.kind.stack] * len(one.processes)
            for one in stage.contenders
        )
        contender.note += f", {made} connections"
        if made > allowed:
            yield f"{made} connections, but at most {allowed} are allowed"


# The most connections of one process. Nova uses oslo.db's defaults: 5, and 50
# more when these are in use.
_CONNECTIONS = {"ours": engine.LEAST_CONNECTIONS, "stock": 55}
_UNITS = {"db": "statements", "mc": "keys", "zk": "packets"}


def _count(driver, servers):
    """Return how much work servers have done, for all contenders together."""
    return sum(map(_COUNTERS[driver], servers))


def _statements(server):
    return _status(server, "Questions")


def _keys(server):
    stats = process.ask(server.port, b"stats\r\n").decode()
    return sum(
        int(_value(stats, f"STAT {name}", " "))
        for name in ("cmd_get", "cmd_set")
    )


def _packets(server):
    return int(
        _value(server.four_letters("mntr"), "zk_packets_received", "\t")
    )


_COUNTERS = {"db": _statements, "mc": _keys, "zk": _packets}


def _status(server, name):
    [(_, value)] = server.execute("SHOW GLOBAL STATUS LIKE %s", name)
    return int(value)


def _value(text, name, separator):
    for line in text.splitlines():
        key, _, value = line.rpartition(separator)
        if key == name:
            return value
    raise AssertionError(f"no {name} in {text!r}")
