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

"""Values that other programs may have written where members report."""

import contextlib
import hashlib
import os
import pickle
import random
import re
import socket

import pymysql
from kazoo import client as kazoo

from nova_sg.backends.memcached import values
from nova_sg.backends.zookeeper import names

# The flag by which client libraries of memcached mark a pickle.
_PICKLED = 1


class _Attack:
    """A process that unpickles this makes a folder."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


def write(stage):
    """Write hostile values among the members of every contender."""
    for contender in stage.contenders:
        contender.trap = os.path.join(contender.folder, "unpickled")
        _WRITERS[contender.kind.driver](stage, contender)


def check_warnings(stage, contender):
    """Complain of pickles that were executed, and of the log.

    A hostile value may bring one warning or none, but never two. Not each of
    them deserves one: a record without a date is no error.
    """
    with open(os.path.join(contender.observer.folder, "log")) as log:
        text = log.read()
    if "Traceback" in text:
        yield f"a traceback in the log: {text[-2000:]}"
    warnings = re.findall(r" WARNING [\w.]+ (.*)", text)
    twice = {words for words in warnings if warnings.count(words) > 1}
    if twice:
        yield f"warned of more than once: {sorted(twice)}"
    contender.note = f"{len(warnings)} warnings"
    if contender.kind.driver in ("mc", "zk") and not warnings:
        yield "no warning"
    if os.path.exists(contender.trap):
        contender.note += "; a pickle from memcached was executed"
        if contender.kind.stack == "ours":
            yield "a pickle from memcached was executed"


def _rows(stage, contender):
    server = stage.server("db")
    link = pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user="nova",
        password="secret",
        database=stage.backend("db").database(contender.kind),
        autocommit=True,
    )
    dates = (
        None,
        "0000-00-00 00:00:00",
        "1000-01-01 00:00:00",
        "9999-12-31 23:59:59",
    )
    with contextlib.closing(link), link.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
        for number, date in enumerate(dates):
            for host in (
                f"foreign-{number}",
                "x" * 255,
                "☃\n\x07%s",
                "",
                None,
            ):
                with contextlib.suppress(pymysql.IntegrityError):
                    cursor.execute(
                        "INSERT INTO services (host, topic, `binary`, "
                        "report_count, last_seen_up, created_at, deleted, "
                        "forced_down, disabled) "
                        "VALUES (%s, %s, %s, %s, %s, %s, 0, NULL, NULL)",
                        (
                            host and f"{host[:250]}{number}",
                            contender.group,
                            None,
                            -(2**31) if number % 2 else 2**31 - 1,
                            date,
                            date,
                        ),
                    )


def _values(stage, contender):
    group = contender.group
    attack = pickle.dumps(_Attack(contender.trap))
    noise = random.Random(1).randbytes(1000)
    hosts = contender.hosts
    if contender.kind.stack == "stock":
        # oslo.cache uses a hash as the key.
        keys = [
            hashlib.sha1(f"{group}:{host}".encode()).hexdigest()
            for host in hosts[:3]
        ]
    else:
        keys = [values.member_key(group, host) for host in hosts[:3]]
        keys += [
            values.record_key(group, hosts[3]),
            values.forced_key(group),
            values.refresh_signal_key(group),
            *values.index_keys(group)[:4],
        ]
    writes = [
        (keys[0], _PICKLED, attack),
        (keys[1], 0, noise),
        (keys[2], 0, b"1 up " + b"9" * 900_000),
    ]
    for number, key in enumerate(keys[3:]):
        writes.append((key, number % 2, attack + b"\n" + noise))
    port = stage.server("mc").port
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        answers = link.makefile("rb")
        for key, flags, value in writes:
            head = f"set {key} {flags} 0 {len(value)}\r\n"
            link.sendall(head.encode() + value + b"\r\n")
            if answers.readline() != b"STORED\r\n":
                raise AssertionError(f"{key} was not stored")


def _znodes(stage, contender):
    client = kazoo.KazooClient(f"127.0.0.1:{stage.server('zk').port}")
    client.start(30)
    try:
        base = "/servicegroups"
        group = f"{base}/{names.quote(contender.group)}"
        members = f"{base}/.members/{names.quote(contender.group)}"
        huge = random.Random(1).randbytes(900_000)
        for path, value in (
            (f"{group}/foreign", b""),
            (f"{group}/lock-0000000001", pickle.dumps(_Attack(members))),
            (f"{group}/☃@xyz", huge),
            (f"{group}/{contender.hosts[0]}@", b"\x00\xff"),
            (f"{group}/%zz@12", b""),
            (f"{members}/foreign", huge),
            (f"{members}/%00@x@y", b"\xff"),
            (f"{base}/of-another-program/is/here", huge),
        ):
            client.create(path, value, makepath=True)
    finally:
        client.stop()
        client.close()


_WRITERS = {"db": _rows, "mc": _values, "zk": _znodes}
