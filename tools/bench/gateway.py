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

"""A gateway before a server that counts the connections made to it.

Usage: python -m bench.gateway PORT

It prints its own port. For each line on its input it prints how many
connections it has been asked for. While the server refuses connections the
gateway ends them at once, as a ZooKeeper server does without a quorum.
"""

from __future__ import annotations

import selectors
import socket
import sys

_BLOCK = 65536


class _Gateway:
    def __init__(self, port: int) -> None:
        self._target = "127.0.0.1", port
        self._count = 0
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        print(self._server.getsockname()[1], flush=True)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._server:
                    self._accept()
                elif key.fileobj is sys.stdin:
                    if not sys.stdin.readline():
                        return
                    print(self._count, flush=True)
                elif key.fileobj in self._peers:
                    self._pass_on(key.fileobj)

    def _accept(self) -> None:
        link, _ = self._server.accept()
        self._count += 1
        try:
            onward = socket.create_connection(self._target, 10)
        except OSError:
            link.close()
            return
        for one, other in ((link, onward), (onward, link)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, link: socket.socket) -> None:
        other = self._peers[link]
        try:
            data = link.recv(_BLOCK)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for one in (link, other):
            del self._peers[one]
            self._selector.unregister(one)
            one.close()


if __name__ == "__main__":
    _Gateway(int(sys.argv[1])).run()
