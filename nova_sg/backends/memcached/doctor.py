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

"""The checks of memcached servers by `nova-sg doctor`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from nova_sg import exception
from nova_sg.backends import base
from nova_sg.backends.memcached import replicas as mc_replicas

# Connections by which it is checked that an address leads to one server.
CONNECTIONS = 3


def check(replicas: mc_replicas.Replicas, option: str) -> list[base.Finding]:
    """Check each server by itself.

    :param option: the option that names the servers
    """
    findings = []
    for server in replicas.servers:
        where = f"memcached {server.address}"
        began = time.monotonic()
        try:
            found = replicas.gather({server: server.stats()})[server]
        except exception.BackendError as error:
            why = str(error).removeprefix(f"memcached at {server.address}: ")
            remedy = f"Check {option}"
            if why.startswith(("cannot connect", "no answer")):
                remedy = f"Start the server, or correct {option}"
            findings.append(base.Finding(False, where, why, remedy))
            continue
        took = time.monotonic() - began
        findings.append(
            base.Finding(
                True,
                where,
                f"reachable, memcached {found['version'].strip()}, "
                f"{took * 1000:.1f} ms",
            )
        )
        findings.append(_check_clock(server))
        findings.extend(_check_identity(replicas, server, where, option))
        evictions = int(found.get("evictions", 0))
        findings.append(
            base.Finding(
                evictions == 0,
                where,
                f"{evictions} values were evicted",
                "Give the server more memory (-m), or one of its own: "
                "members seem to vanish when their values are evicted",
            )
        )
        flushes = int(found.get("cmd_flush", 0))
        if flushes:
            times = "once" if flushes == 1 else f"{flushes} times"
            findings.append(
                base.Finding(
                    False,
                    where,
                    f"wiped {times} (flush_all) since it started",
                    "Find the program that does it, forbid it (-F), or use a "
                    "memcached for nova_sg alone: each time new observers "
                    "miss members for up to report_interval",
                )
            )
    return findings


def _check_identity(
    replicas: mc_replicas.Replicas,
    server: mc_replicas.Server,
    where: str,
    option: str,
) -> Iterator[base.Finding]:
    """Check that an address leads to one server."""
    try:
        result = replicas.gather({server: server.compare(CONNECTIONS)})[server]
    except exception.BackendError:
        # It has answered before; the next run shows what it is.
        return
    if result:
        yield base.Finding(
            False,
            where,
            result,
            "Each process sees another part of each group. Name each server "
            f"by itself in {option}, and not a load balancer",
        )


def _check_clock(server: mc_replicas.Server) -> base.Finding:
    offset = mc_replicas.now(server) - time.time()
    return base.Finding(
        abs(offset) <= 2.0,
        "clock",
        f"memcached {server.address} is {offset:+.1f} s from this host",
        "Synchronise the clocks (NTP). Verdicts of nova_sg do not depend on "
        "it; the times it shows do",
    )
