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

"""What `nova-sg doctor` checks about the ZooKeeper servers."""

from __future__ import annotations

import contextlib
import ssl
import time

from nova_sg import evzookeeper, exception, zookeeper
from nova_sg.backends import base
from nova_sg.backends.zookeeper import address as addresses
from nova_sg.backends.zookeeper import connection, names, servers
from nova_sg.conf import CONF


def check(link: connection.Connection) -> list[base.Finding]:
    """Check each server separately, then begin a session."""
    findings = [_check_client(link), *_check_servers(link)]
    where = f"ZooKeeper {link.address}"
    begun = time.monotonic()
    try:
        with link.asking() as session:
            connected = time.monotonic() - begun
            if link.address.chroot:
                findings += _check_chroot(session, link.address)
            begun = time.monotonic()
            with contextlib.suppress(zookeeper.NoNodeException):
                session.exists(names.prefix())
            took = time.monotonic() - begun
            agreed = session.client.recv_timeout(session.connected_handle()[0])
    except exception.BackendError as error:
        findings.append(
            base.Finding(
                False,
                where,
                str(error),
                "Start the servers, or correct [zookeeper] address",
            )
        )
        return findings
    asked = CONF.zookeeper.recv_timeout
    return [
        *findings,
        base.Finding(
            True,
            where,
            f"connected in {connected * 1000:.0f} ms, an answer takes "
            f"{took * 1000:.1f} ms",
        ),
        base.Finding(
            agreed == asked,
            where,
            f"the session timeout is {agreed} ms, recv_timeout asks for "
            f"{asked} ms",
            "Choose a recv_timeout between minSessionTimeout and "
            "maxSessionTimeout of the servers",
        ),
    ]


def _check_chroot(
    session: evzookeeper.ZKSession, address: addresses.Address
) -> list[base.Finding]:
    try:
        session.exists("/")
    except zookeeper.NoNodeException:
        return [
            base.Finding(
                False,
                f"ZooKeeper {address}",
                f"the path {address.chroot} does not exist",
                "The first member that joins creates it. If there are "
                "members, they use another path or other servers: correct "
                "[zookeeper] address",
            )
        ]
    return []


def _check_client(link: connection.Connection) -> base.Finding:
    text = str(link.client)
    if link.security.tls:
        text += ", TLS"
    if link.security.sasl:
        text += ", SASL"
    if link.client.name == "kazoo":
        text += (
            ". The session of a process that stands still for recv_timeout, "
            f"{CONF.zookeeper.recv_timeout} ms, ends"
        )
    return base.Finding(
        link.client.ssl_cert is None,
        "ZooKeeper client",
        text,
        "The C client does not check the names of hosts in certificates: "
        "set [zookeeper] client = kazoo",
    )


def _check_servers(link: connection.Connection) -> list[base.Finding]:
    """Check each server: a session does not show that one of them is down."""
    findings = []
    for server in link.address.servers:
        where = f"ZooKeeper server {server}"
        try:
            answer = servers.ask(server, link.security.tls)
        except ssl.SSLError as error:
            finding = base.Finding(
                False,
                where,
                f"no TLS: {error}",
                "Its certificate has to have the name that [zookeeper] "
                "address has, and be signed by an authority in ca_file; the "
                "port has to be its secureClientPort",
            )
        except OSError as error:
            finding = base.Finding(
                False,
                where,
                f"no answer: {error}",
                "Start it, or correct [zookeeper] address",
            )
        else:
            text = "it answers"
            if not answer.serving:
                text = "it runs, but does not serve clients"
            elif answer.mode:
                text = f"{answer.mode}, version {answer.version}"
            finding = base.Finding(
                answer.serving,
                where,
                text,
                "See its log: more than half of the servers have to "
                "reach each other",
            )
        findings.append(finding)
        if finding.ok:
            findings += _check_cut(server, link)
    return findings


def _check_cut(
    server: addresses.Server, link: connection.Connection
) -> list[base.Finding]:
    """Check that its clients move in time if it is cut off from the others."""
    try:
        kept = servers.kept_if_cut_off(server, link.security.tls)
    except OSError:
        return []  # it has just answered
    session = CONF.zookeeper.recv_timeout / 1000
    if kept is None or kept <= session * 2 / 3:
        return []
    return [
        base.Finding(
            False,
            f"ZooKeeper server {server}",
            f"if it is cut off from the other servers it keeps its clients "
            f"for {kept:g} s (syncLimit times tickTime), and the others end "
            f"their sessions after {session:g} s: living members are held as "
            "up then, and in a small group they would be down",
            f"Set [zookeeper] recv_timeout to {kept * 1500:.0f} or more, in "
            "all processes, or lower syncLimit or tickTime",
        )
    ]
