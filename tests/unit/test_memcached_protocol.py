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

"""memcached's protocol: answers in pieces, and tables of values."""

import time
import unittest
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from nova_sg import exception
from nova_sg.backends.memcached import (
    answers,
    local,
    protocol,
    replicas,
    servers,
    table,
)


class Link:
    """A socket on which an answer arrives in pieces."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def sendall(self, data):
        pass

    def recv(self, size):
        return self.pieces.pop(0) if self.pieces else b""


def pieces(answer, cuts):
    """Cut an answer."""
    ends = sorted({min(cut, len(answer)) for cut in cuts} | {len(answer)})
    starts = [0, *ends]
    return [answer[a:b] for a, b in zip(starts, ends, strict=False) if b > a]


def values_answer(found):
    lines = [
        b"VALUE %b 0 %d\r\n%b\r\n" % (key.encode(), len(value), value)
        for key, value in found.items()
    ]
    return b"".join(lines) + b"END\r\n"


VALUES = st.dictionaries(
    st.sampled_from(["a", "b", "key:three", "d"]),
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [
                b"END",
                b"\r\nEND\r\n",
                b"x\r\nVALUE a 0 1\r\ny",
                b"\r\n",
                b"\r\nERROR",
                b"END\r\nSTORED",
            ]
        ),
    ),
)
CUTS = st.lists(st.integers(0, 150), max_size=8)


class AnswersTest(unittest.TestCase):
    def connection(self, answer, cuts):
        made = protocol.Connection(Link(*pieces(answer, cuts)), 5.0)
        made.send(b"")
        return made

    @given(VALUES, CUTS)
    @example({"a": b"1"}, [16])
    @example({"a": b"END"}, [17, 19])
    def test_an_answer_in_any_pieces(self, found, cuts):
        answer = values_answer(found) + b"STORED\r\n"
        connection = self.connection(answer, cuts)
        self.assertEqual(found, connection.read_values())
        self.assertTrue(connection.read_stored())

    def test_errors_need_no_more_bytes(self):
        for answer in (
            b"ERROR\r\n",
            b"SERVER_ERROR busy\r\n",
            b"VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n",
            b"STORED\r\n",
        ):
            for cuts in [], [3], [len(answer) - 1]:
                with self.subTest(answer=answer, cuts=cuts):
                    connection = self.connection(answer, cuts)
                    with self.assertRaisesRegex(OSError, "unexpected answer"):
                        connection.read_values()

    def test_a_connection_with_bytes_that_are_left_is_not_used(self):
        connection = self.connection(b"ERROR\r\nEND\r\n", [])
        with self.assertRaises(OSError):
            connection.read_values()
        with self.assertRaisesRegex(OSError, "unexpected answer b'ERROR"):
            connection.send(b"get b\r\n")

    def test_a_server_that_sends_few_bytes_is_given_up(self):
        connection = protocol.Connection(Link(*[b"VALUE"] * 1000), 5.0)
        connection.send(b"")
        start = time.monotonic()
        with (
            mock.patch("time.monotonic", side_effect=lambda: start + 11),
            self.assertRaises(TimeoutError),
        ):
            connection.read_values()

    @given(VALUES, VALUES, CUTS)
    @example({"a": b"12", "b": b"3"}, {"a": b"1", "b": b"23"}, [])
    @example({"a": b"1"}, {"a": b"2"}, [])
    def test_the_next_answer(self, first, second, cuts):
        raw, found = self.connection(
            values_answer(first), cuts
        ).read_raw_values(b"")
        self.assertEqual(first, found)
        raw, found = self.connection(
            values_answer(second), cuts
        ).read_raw_values(raw)
        if found is None:
            self.assertEqual(list(first), list(second))
            found = dict(
                zip(first, protocol.columns(raw)[1], strict=True)
            )
        self.assertEqual(second, found)


class Server(servers.RemoteServer):
    """A server that answers by the protocol what it is told to."""

    def __init__(self):
        super().__init__("127.0.0.1:1", 5.0)
        self.values = {}

    def begin(self, commands):
        [self.command] = commands
        return True

    def finish(self, commands):
        keys = self.command.request.decode().split()[1:]
        answer = values_answer(
            {key: self.values[key] for key in keys if key in self.values}
        )
        connection = protocol.Connection(Link(answer), 5.0)
        connection.send(b"")
        return [self.command.read(connection)]

    def fileno(self):
        return id(self)


class TableTest(unittest.TestCase):
    """A table returns what has changed, whatever happens to its values."""

    HOSTS = [f"h{number}" for number in range(6)]
    STEPS = st.lists(
        st.tuples(
            st.sampled_from(HOSTS),
            st.integers(0, 1),
            st.sampled_from([None, b"1", b"2", b"long", b"a\r\nb"]),
        ),
        max_size=12,
    )

    def setUp(self):
        super().setUp()
        mock.patch.object(
            answers, "_answered", side_effect=lambda waiting, left: [*waiting]
        ).start()
        self.addCleanup(mock.patch.stopall)

    @given(st.lists(st.tuples(STEPS, st.sets(st.sampled_from(HOSTS)))))
    def test_changes(self, refreshes):
        for kind in Server, local.LocalServer:
            self._test_changes(kind, refreshes)

    def _test_changes(self, kind, refreshes):
        both = [kind(), kind()]
        asked = replicas.Replicas(both, 5.0)
        with mock.patch.object(table, "CHUNK", 4):
            made = table.Table(lambda host: f"key-{host}")
            known, last_hosts = {}, None
            truth = [{}, {}]
            for steps, hosts in refreshes:
                for host, number, value in steps:
                    truth[number].pop(host, None)
                    if value is not None:
                        truth[number][host] = value
                for server, found in zip(both, truth, strict=True):
                    server.values = server._values = {}
                    for host, value in found.items():
                        if kind is Server:
                            server.values[f"key-{host}"] = value
                        else:
                            server.set(f"key-{host}", value)
                before = dict(known)
                known = {h: v for h, v in known.items() if h in hosts}
                changes = dict(made.read(asked, both, frozenset(hosts)))
                known.update(changes)
                expected = {
                    host: {
                        server: found[host]
                        for server, found in zip(both, truth, strict=True)
                        if host in found
                    }
                    for host in hosts
                }
                self.assertEqual(
                    {h: v for h, v in expected.items() if v},
                    {h: v for h, v in known.items() if v},
                )
                if hosts == last_hosts:
                    for host in changes:
                        self.assertNotEqual(
                            before.get(host, {}), changes[host]
                        )
                last_hosts = hosts

    def test_a_server_that_does_not_answer(self):
        both = [Server(), Server()]
        both[0].finish = mock.Mock(
            side_effect=exception.BackendError("gone")
        )
        made = table.Table(str)
        with self.assertRaises(table.Unanswered) as raised:
            list(made.read(replicas.Replicas(both, 5.0), both, frozenset("h")))
        self.assertEqual({both[0]}, set(raised.exception.servers))
