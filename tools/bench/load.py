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

"""Thousands of members of one group, as the servers see them.

One process has a connection for each member, and sends on it what the member's
own process would send, as often as that. It is a program, python -m
bench.load. It reads a job as one line of JSON, prints "ready" once all have
joined, and then obeys one line after the other:

``kill HOST...``
    these members are silent from now on, as if their hosts had lost power.
``told``
    print the number of reports since the last time, of those that failed, and
    the mean and the most milliseconds until an answer, as JSON.

At the end of its input it ends.
"""

from __future__ import annotations

import collections
import datetime
import json
import os
import resource
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pymysql
import sqlalchemy
from sqlalchemy.dialects.mysql import pymysql as pymysql_dialect

from bench import watchers
from nova_sg.backends.db import models, queries
from nova_sg.backends.memcached import replicas, server_options, values
from nova_sg.backends.zookeeper import names, wire
from nova_sg.conf import CONF

# What members write at first, and then every so many reports: what observers
# find them by.
_REGISTER_EVERY = 3
# Seconds after which an answer counts as none.
_PATIENCE = 30.0
# The list that every client may do everything, of ZooKeeper.
_WORLD = [(31, "world", "anyone")]


class Crowd:
    """Members of one group, with a connection each to each server.

    :param where: the servers, as the driver's option has them
    :param group: their group
    :param hosts: their names
    """

    def __init__(
        self,
        where: str,
        group: str,
        hosts: Sequence[str],
    ) -> None:
        self._where = where
        self._group = group
        self._hosts = hosts
        self._down_time = CONF.service_down_time
        self._dead: set[int] = set()
        self._selector = selectors.EpollSelector()
        # When a connection was written to; those without an answer.
        self._sent: dict[socket.socket, float] = {}
        self._counts = [0, 0]
        self._waits: list[float] = []

    def join(self) -> None:
        """Have all members join, and connect."""
        raise NotImplementedError

    def every(self) -> float:
        """Return the seconds between two messages of a member."""
        return CONF.report_interval

    def messages(
        self, member: int, turn: int
    ) -> Iterator[tuple[socket.socket, bytes]]:
        """Yield what a member sends, and where."""
        raise NotImplementedError

    def failed(self, answer: bytes) -> bool:
        """Whether an answer says that the report was not taken."""
        raise NotImplementedError

    def kill(self, member: int) -> None:
        """Silence a member."""
        self._dead.add(member)

    def watch(self, link: socket.socket) -> None:
        """Read the answers on a connection from now on."""
        link.setblocking(False)
        self._selector.register(link, selectors.EVENT_READ)

    def told(self) -> dict[str, float]:
        """Return what became of the reports since the last time."""
        waits, self._waits = self._waits, []
        counts, self._counts = self._counts, [0, 0]
        # Those that still wait for an answer.
        now = time.monotonic()
        waits += [now - one for one in self._sent.values() if now - one > 1]
        return {
            "reports": counts[0],
            "failed": counts[1],
            "mean": 1000 * sum(waits) / max(1, len(waits)),
            "most": 1000 * max(waits, default=0.0),
        }

    def run(self) -> None:
        """Report, and obey, until the input ends."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        count, every = len(self._hosts), self.every()
        begun, number = time.monotonic(), 0
        rest = b""
        while True:
            due = begun + every * number / count
            now = time.monotonic()
            if now >= due:
                turn, member = divmod(number, count)
                number += 1
                if member not in self._dead:
                    self._send(member, turn)
                if number % 100:
                    continue
            for key, _ in self._selector.select(max(0.0, due - now)):
                if key.fileobj is not sys.stdin:
                    self._receive(key.fileobj)  # type: ignore[arg-type]
                    continue
                data = os.read(0, 1 << 20)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._obey(line.decode().split())

    def _obey(self, words: list[str]) -> None:
        if words[0] == "told":
            print(json.dumps(self.told()), flush=True)
        else:
            numbers = {host: n for n, host in enumerate(self._hosts)}
            for host in words[1:]:
                self.kill(numbers[host])

    def _send(self, member: int, turn: int) -> None:
        for link, message in self.messages(member, turn):
            self._counts[0] += 1
            waiting = self._sent.get(link)
            now = time.monotonic()
            if waiting is not None and now - waiting < _PATIENCE:
                # Its process waits, too.
                continue
            try:
                link.send(message)
            except OSError:
                self._counts[1] += 1
                continue
            self._sent[link] = now

    def _receive(self, link: socket.socket) -> None:
        try:
            answer = link.recv(1 << 16)
        except OSError:
            answer = b""
        sent = self._sent.pop(link, None)
        if sent is not None:
            self._waits.append(time.monotonic() - sent)
        if not answer:
            self._selector.unregister(link)
            self._counts[1] += 1
        elif self.failed(answer):
            self._counts[1] += 1


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    link = socket.create_connection((host, int(port)), _PATIENCE)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


class MemcachedCrowd(Crowd):
    """Reports to memcached, as the driver mc writes them."""

    def join(self) -> None:
        self._codec = values.Codec(None)
        known = replicas.Replicas(
            server_options.make_servers(), 5.0, "unused"
        )
        addresses = [one.address for one in known.of(self._group)]
        for address in addresses:
            self._write_lists(address)
        self._links = [
            [_connect(address) for address in addresses] for _ in self._hosts
        ]
        for links in self._links:
            for link in links:
                self.watch(link)
        self._keys = [
            values.member_key(self._group, host).encode()
            for host in self._hosts
        ]
        self._records = [
            values.record_key(self._group, host).encode()
            for host in self._hosts
        ]
        self._indexes = [
            values.index_key(self._group, host).encode()
            for host in self._hosts
        ]
        self._life = int(self._down_time) + 1

    def _write_lists(self, address: str) -> None:
        group = self._group
        lists = collections.defaultdict(list)
        lists[values.GROUPS_KEY].append(group)
        for host in self._hosts:
            lists[values.index_key(group, host)].append(host)
        with _connect(address) as link, link.makefile("rb") as answers:
            for key, names in lists.items():
                value = self._codec.lines(key, names)
                # Appended: another part of the group may have written.
                for verb, more in (b"add", b""), (b"append", value):
                    link.sendall(_stored(verb, key.encode(), 0, more))
                    answers.readline()
            for host in self._hosts:
                for key, life in (
                    (values.member_key(group, host), int(self._down_time) + 1),
                    (values.record_key(group, host), 0),
                ):
                    link.sendall(
                        _stored(b"set", key.encode(), life, self._report())
                    )
                    answers.readline()

    def _report(self) -> bytes:
        return self._codec.write_report(
            "", values.StoredReport(values.UP, time.time(), "nova-compute")
        )

    def messages(
        self, member: int, turn: int
    ) -> Iterator[tuple[socket.socket, bytes]]:
        report = self._report()
        message = _stored(b"replace", self._keys[member], self._life, report)
        if turn % _REGISTER_EVERY == member % _REGISTER_EVERY:
            message += b"gets %b %b\r\n" % (
                self._indexes[member],
                values.GROUPS_KEY.encode(),
            ) + _stored(b"set", self._records[member], 0, report)
        for link in self._links[member]:
            yield link, message

    def failed(self, answer: bytes) -> bool:
        return b"ERROR" in answer or b"NOT_STORED" in answer


def _stored(verb: bytes, key: bytes, life: int, value: bytes) -> bytes:
    return b"%b %b 0 %d %d\r\n%b\r\n" % (verb, key, life, len(value), value)


class DatabaseCrowd(Crowd):
    """Reports to MariaDB, as the driver db writes them."""

    # Numbers in the template of a statement.
    _ID, _NUMBER = 987654321, 1234567890

    def join(self) -> None:
        url = sqlalchemy.make_url(self._where)
        engine = sqlalchemy.create_engine(url)
        now = models.services.c
        rows = [
            {
                now.host.name: host,
                now.topic.name: self._group,
                now.binary.name: "nova-compute",
                now.report_count.name: 1,
            }
            for host in self._hosts
        ]
        with engine.begin() as connection:
            connection.execute(sqlalchemy.insert(models.services), rows)
            connection.execute(
                sqlalchemy.text(
                    "UPDATE services SET last_seen_up = UTC_TIMESTAMP(6), "
                    "created_at = UTC_TIMESTAMP(6)"
                )
            )
            names_and_ids = sqlalchemy.select(
                models.services.c.host, models.services.c.id
            )
            ids = {
                row.host: row.id for row in connection.execute(names_and_ids)
            }
        engine.dispose()
        self._ids = [ids[host] for host in self._hosts]
        self._links = []
        for _ in self._hosts:
            link = pymysql.connect(
                host=url.host or "",
                port=url.port or 3306,
                user=url.username,
                password=url.password or "",
                database=url.database,
                autocommit=True,
            )
            # It is read and written here, but for the handshake.
            if not self._links:
                self._statement = self._template(link.cursor())
            # PyMySQL waits for an answer, so it only begins.
            number = os.dup(link._sock.fileno())
            self._links.append(socket.socket(fileno=number))
            link._force_close()
            self.watch(self._links[-1])

    def _template(self, cursor: Any) -> str:
        """Return the driver's own statement, with two numbers to replace."""
        recorded = []

        class Recorder:
            rowcount = 1

            def execute(self, *what: Any) -> Any:
                recorded.append(what)
                return self

        queries.report(
            Recorder(),  # type: ignore[arg-type]
            self._ID,
            self._NUMBER,
            None,
            datetime.datetime(2199, 1, 1),
        )
        statement, parameters = recorded[0]
        made = statement.compile(dialect=pymysql_dialect.dialect())
        known = made.construct_params(parameters)
        return cursor.mogrify(
            str(made), [known[name] for name in made.positiontup]
        )

    def messages(
        self, member: int, turn: int
    ) -> Iterator[tuple[socket.socket, bytes]]:
        text = self._statement.replace(str(self._ID), str(self._ids[member]))
        # COM_QUERY
        body = b"\3" + text.replace(str(self._NUMBER), str(turn + 2)).encode()
        yield self._links[member], struct.pack("<I", len(body)) + body

    def failed(self, answer: bytes) -> bool:
        # A packet's header, that it is no error, and that it changed a row.
        return len(answer) < 6 or answer[4] == 0xFF or answer[5] != 1


class ZooKeeperCrowd(Crowd):
    """Sessions with an ephemeral znode, as the driver zk has them."""

    _PING, _PING_XID, _EPHEMERAL = 11, -2, 1

    def join(self) -> None:
        self._timeout = CONF.zookeeper.recv_timeout
        self._servers = [
            (host, int(port))
            for host, _, port in (
                one.rpartition(":") for one in self._where.split(",")
            )
        ]
        with wire.connect(self._servers[0], _PATIENCE, None) as link:
            _begin(link, self._timeout)
            for path in (
                names.group_path(self._group),
                names.entries_path(self._group),
            ):
                parts = path.split("/")
                for length in range(2, len(parts) + 1):
                    parent = "/".join(parts[:length])
                    link.sendall(wire.create_request(1, parent, _WORLD))
                    # It may exist.
                    list(wire.answers(link, 1))
        self._links: dict[int, socket.socket] = {}
        self._ping = wire.buffer(
            struct.pack(">ii", self._PING_XID, self._PING)
        )
        # Those that have a session already must ping meanwhile. The one whose
        # last ping is the oldest comes first.
        due: collections.deque[tuple[float, int]] = collections.deque()
        for number in range(len(self._hosts)):
            self._begin_session(number)
            now = time.monotonic()
            due.append((now, number))
            while now - due[0][0] > self.every():
                oldest = due.popleft()[1]
                try:
                    self._links[oldest].send(self._ping)
                except OSError:
                    # A server that has just started may be too slow for it.
                    self._begin_session(oldest)
                due.append((now, oldest))
            for key, _ in self._selector.select(0):
                self._receive(key.fileobj)  # type: ignore[arg-type]

    def _begin_session(self, number: int) -> None:
        """Join as one member, on a connection of its own."""
        host = self._hosts[number]
        link = wire.connect(
            self._servers[number % len(self._servers)], _PATIENCE, None
        )
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = _begin(link, self._timeout)
        entry = names.entry_path(self._group, host, "nova-compute")
        path = (
            f"{names.group_path(self._group)}/"
            f"{names.member_name(host, session)}"
        )
        made = wire.create_request(2, path, _WORLD)
        # The flags are the last of it.
        made = made[:-4] + struct.pack(">i", self._EPHEMERAL)
        link.sendall(wire.create_request(1, entry, _WORLD) + made)
        list(wire.answers(link, 2))
        self._links[number] = link
        self.watch(link)

    def every(self) -> float:
        return self._timeout / 3000

    def messages(
        self, member: int, turn: int
    ) -> Iterator[tuple[socket.socket, bytes]]:
        yield self._links[member], self._ping

    def failed(self, answer: bytes) -> bool:
        return False


def _begin(link: socket.socket, timeout: int) -> int:
    """Begin a session; return its id."""
    request = struct.pack(">iqiq", 0, 0, timeout, 0) + wire.buffer(bytes(16))
    link.sendall(wire.buffer(request + b"\0"))
    return struct.unpack_from(">Q", wire.receive(link, 16), 8)[0]


CROWDS = {
    "db": DatabaseCrowd,
    "mc": MemcachedCrowd,
    "zk": ZooKeeperCrowd,
}


def main() -> None:
    """Do the job: driver, where, group, hosts and options."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Unbuffered: run() waits until there is more.
    job = json.loads(sys.stdin.buffer.raw.readline())  # type: ignore
    watchers.configure(job["options"])
    crowd = CROWDS[job["driver"]](
        job["where"],
        job["group"],
        job["hosts"],
    )
    crowd.join()
    print("ready", flush=True)
    crowd.run()
    # Without the end of each session: nothing of this is measured.
    os._exit(0)


if __name__ == "__main__":
    main()
