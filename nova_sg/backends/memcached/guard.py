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

"""Withdrawing a memcached member whose process is gone.

A will has the key and, for each server, its address, the value that the
process wrote last (or was about to write) and the one to put in its place:
only where the former still stands the latter is stored, by memcached's own
compare-and-swap. Who has written since is somebody else, and stays.

servers: [(family, address)], value: [bytes], crashed: [bytes], in the same
order; before: the values of the report before that one; life: seconds.
changes: the key, the life and the value of what observers hear of it by.
"""

from __future__ import annotations

import socket

# Seconds for one server to answer.
TIMEOUT = 2.0


def withdraw(will: dict) -> bool:
    """Withdraw the member from all servers; return whether it was there.

    :raises OSError: a server does not answer
    """
    done, problem = False, None
    todo = will.setdefault("todo", list(range(len(will["servers"]))))
    for number in list(todo):
        try:
            done |= _withdraw(will, number)
            todo.remove(number)
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem
    return done


def _withdraw(will: dict, number: int) -> bool:
    family, address = will["servers"][number]
    timeout = min(TIMEOUT, will["patience"])
    with _connect(family, address, timeout) as link:
        lines = link.makefile("rb")
        key = will["key"].encode()
        link.sendall(b"gets %b\r\n" % key)
        words = _line(lines).split()
        if words == [b"END"]:
            return False
        if len(words) != 5 or words[0] != b"VALUE":
            raise OSError("not an answer of memcached")
        value = lines.read(int(words[3]) + 2)[:-2]
        _line(lines)
        ours = [values[number] for values in _values(will)]
        if value not in ours:
            return False
        crashed = will["crashed"][number]
        link.sendall(
            b"cas %b 0 %d %d %b\r\n%b\r\n"
            % (key, will["life"], len(crashed), words[4], crashed)
        )
        answer = _line(lines)
        if answer not in (b"STORED", b"EXISTS", b"NOT_FOUND"):
            raise OSError("not stored")
        if answer == b"STORED":
            _tell(link, lines, *will["changes"])
        return answer == b"STORED"


def _tell(
    link: socket.socket, lines, key: str, life: int, value: bytes
) -> None:
    """Have observers look at once; it is done also where they do not."""
    try:
        link.sendall(
            b"set %b 0 %d %d\r\n%b\r\n"
            % (key.encode(), life, len(value), value)
        )
        _line(lines)
    except OSError:
        pass


def _values(will: dict) -> list:
    return [values for values in (will["value"], will["before"]) if values]


def _connect(
    family: int, address: tuple[str, int] | str, timeout: float
) -> socket.socket:
    if family == socket.AF_INET:
        assert isinstance(address, tuple)
        return socket.create_connection(address, timeout)
    link = socket.socket(family)
    try:
        link.settimeout(timeout)
        link.connect(address)
    except BaseException:
        link.close()
        raise
    return link


def _line(lines) -> bytes:
    line = lines.readline()
    if not line.endswith(b"\r\n"):
        raise OSError("the server closed the connection")
    return line[:-2]
