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

"""What `nova-sg doctor` checks about the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from oslo_utils import timeutils

from nova_sg import exception
from nova_sg.backends import base
from nova_sg.backends.db import engine, nodes, queries, records, schema
from nova_sg.conf import CONF
from nova_sg.liveness.model import Limits


def check(
    database: engine.Database, run: Callable[[Any], Any], embedded: bool
) -> list[base.Finding]:
    """Check whether members can report, and observers see that in time.

    :param run: calls a function with a connection
    :param embedded: whether it is the embedded database
    """
    where = f"database {database.name}"
    try:
        begun = time.monotonic()
        now = run(queries.now)
        took = time.monotonic() - begun
        begun = time.monotonic()
        now = run(queries.now)
        took = min(took, time.monotonic() - begun)
        version = run(_version)
        owner = schema.owner(database)
    except exception.BackendError as error:
        text = str(error).removeprefix(f"the {where}: ")
        remedy = "Start the database, or correct [database] connection"
        if embedded or "; check " in text:
            # The error has its own.
            remedy = ""
        return [base.Finding(False, where, text, remedy)]
    findings = [
        base.Finding(
            True, where, f"reachable, {version}, {took * 1000:.1f} ms"
        )
    ]
    if owner == schema.MISSING:
        findings.append(
            base.Finding(
                False,
                where,
                "there is no services table",
                "Run: nova-sg db sync",
            )
        )
    else:
        whose = "Nova's" if owner == schema.FOREIGN else "nova_sg's own"
        findings.append(
            base.Finding(True, where, f"the services table is {whose}")
        )
        findings += _check_revision(database, where, owner)
    if database.is_mysql:
        return findings + _check_nodes(where, database)
    offset = records.seconds(records.moment(now))
    offset -= records.seconds(timeutils.utcnow())
    return [*findings, _check_clock("the database is", offset)]


def _check_revision(
    database: engine.Database, where: str, owner: str
) -> list[base.Finding]:
    """Check whether a table of nova_sg's own has to be upgraded."""
    if owner != schema.OURS:
        return []
    try:
        found = schema.revision(database)
    except exception.BackendError:
        # An observer's account need not read that.
        return []
    if found is None or found >= schema.HEAD:
        return []
    return [
        base.Finding(
            False,
            where,
            f"the services table is at revision {found}, and this version "
            f"is made for {schema.HEAD}",
            "Run: nova-sg db sync",
        )
    ]


def _check_clock(whose: str, offset: float) -> base.Finding:
    return base.Finding(
        abs(offset) <= 1.0,
        "clock",
        f"{whose} {offset:+.3f} s from this host",
        "Synchronise the clocks (NTP). Verdicts of nova_sg do not "
        "depend on it, Nova's own do",
    )


def _check_nodes(where: str, database: engine.Database) -> list[base.Finding]:
    """Check each node to which connections to the database lead."""
    found = nodes.find(database.url)
    limits = Limits(CONF.service_down_time, CONF.report_interval)
    findings = []
    several = len(found.nodes) > 1
    for name, node in zip(found.names, found.nodes, strict=True):
        whose = f"node {name}:" if several else "the database is"
        findings.append(_check_clock(whose, node.offset))
        trouble = node.trouble(limits)
        if trouble:
            findings.append(
                base.Finding(
                    # It is no failure if members can report to another node.
                    not several and node.serves_observers(limits),
                    where,
                    f"node {name}: {trouble}",
                    "Members cannot report to it, or observers see their "
                    "reports too late. Connect to nodes that take writes "
                    "and are not behind",
                )
            )
    if found.error is not None:
        findings.append(
            base.Finding(
                False,
                where,
                "one of several new connections failed: "
                + found.error.removeprefix(f"the {where}: "),
                "Have the load balancer leave out nodes that do not answer",
            )
        )
    return findings


def _version(connection) -> str:
    dialect = connection.dialect
    # MariaDB speaks MySQL's dialect.
    is_mariadb = getattr(dialect, "is_mariadb", False)
    name = "mariadb" if is_mariadb else dialect.name
    return f"{name} {'.'.join(map(str, dialect.server_version_info[:3]))}"
