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

"""Withdrawing a memcached member whose process has ended.

A server's value is replaced by memcached's compare-and-swap, and only where
it is the one that the process wrote last, or was about to write. Another
value comes from another process, which is the member now.

What an order holds:

==============  =========================================================
key             of the member's report
servers         [(family, address, name)]: the name is that in the server's
                certificate; family 0: the address has a name, too
tls, login      connection.Tls and connection.Login as tuples, or None
value           [bytes]: the last report, in the order of the servers
before          [bytes] or None: the report before that one
crashed         [bytes]: what replaces them
life            seconds for which the replacement is kept
refresh_signal  key, seconds and value of the group's refresh signal
patience        seconds for one server to answer
==============  =========================================================
"""

from __future__ import annotations

import socket

from nova_sg.backends.memcached import connection

# Seconds for one server to answer.
TIMEOUT = 2.0


def withdraw(order: dict) -> bool:
    """Withdraw the member from all servers; return whether any had it.

    :raises OSError: a server does not answer
    """
    done, problem = False, None
    todo = order.setdefault("todo", list(range(len(order["servers"]))))
    for number in list(todo):
        try:
            done |= _withdraw(order, number)
            todo.remove(number)
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem
    return done


def _withdraw(order: dict, number: int) -> bool:
    timeout = min(TIMEOUT, order["patience"])
    with _connect(order, number, timeout) as link:
        lines = link.makefile("rb")
        key = order["key"].encode()
        link.sendall(b"gets %b\r\n" % key)
        words = _line(lines).split()
        if words == [b"END"]:
            return False
        if len(words) != 5 or words[0] != b"VALUE":
            raise OSError("unexpected answer")
        value = lines.read(int(words[3]) + 2)[:-2]
        _line(lines)
        ours = [values[number] for values in _values(order)]
        if value not in ours:
            return False
        crashed = order["crashed"][number]
        link.sendall(
            b"cas %b 0 %d %d %b\r\n%b\r\n"
            % (key, order["life"], len(crashed), words[4], crashed)
        )
        answer = _line(lines)
        if answer not in (b"STORED", b"EXISTS", b"NOT_FOUND"):
            raise OSError("the value was not stored")
        if answer == b"STORED":
            _signal(link, lines, *order["refresh_signal"])
        return answer == b"STORED"


def _signal(
    link: socket.socket, lines, key: str, life: int, value: bytes
) -> None:
    """Have observers refresh at once; a failure only makes them slower."""
    try:
        link.sendall(
            b"set %b 0 %d %d\r\n%b\r\n"
            % (key.encode(), life, len(value), value)
        )
        _line(lines)
    except OSError:
        pass


def _values(order: dict) -> list:
    return [values for values in (order["value"], order["before"]) if values]


def _connect(order: dict, number: int, timeout: float) -> socket.socket:
    family, address, name = order["servers"][number]
    tls = order["tls"] and connection.Tls(*order["tls"])
    login = order["login"] and connection.Login(*order["login"])
    targets = [(family, address)]
    if not family:
        targets = [
            (int(one), place)
            for one, _, _, _, place in socket.getaddrinfo(
                address[0], address[1], type=socket.SOCK_STREAM
            )
        ]
    problem = None
    for target in targets:
        try:
            return connection.connect(target, name, timeout, tls, login)
        except OSError as error:
            problem = error
    raise problem or OSError("no address")


def _line(lines) -> bytes:
    line = lines.readline()
    if not line.endswith(b"\r\n"):
        raise OSError("the server closed the connection")
    return line[:-2]
