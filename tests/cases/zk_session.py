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


"""A session that prints its states: ADDRESS RECV_TIMEOUT CLIENT."""

import sys
import time

import tests  # noqa: F401
from nova_sg import evzookeeper, zookeeper
from nova_sg.kazoo_transport import KazooTransport

_STATES = {
    zookeeper.CONNECTED_STATE: "connected",
    zookeeper.CONNECTING_STATE: "suspended",
    zookeeper.EXPIRED_SESSION_STATE: "expired",
}


class Printer:
    """A connection callback: it has the first state, too."""

    def set_and_notify(self, event):
        print(_STATES.get(event[2], event[2]), flush=True)


def main(address, recv_timeout, client):
    session = evzookeeper.ZKSession(
        address,
        recv_timeout=int(recv_timeout),
        init_cbs=[Printer()],
        client=zookeeper if client == "c" else KazooTransport(),
    )
    while not session.is_closed():
        time.sleep(60)


main(*sys.argv[1:])
