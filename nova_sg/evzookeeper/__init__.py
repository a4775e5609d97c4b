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

"""evzookeeper's API on Python 3: ZooKeeper sessions that replace themselves
when they expire, and group membership on top of them.

Names, arguments and their meaning are those of evzookeeper 0.4.0. New are:

- No call blocks the hub, and the same code runs on native threads.
- Every call takes a `timeout` in seconds, and raises
  zookeeper.OperationTimeoutException after it.
- A session that expires is replaced. Members join again, in the same order,
  and watches are set again.
- close() ends the threads and frees all resources.

Here: session.py (ZKSession, with keeper.py, calls.py, listeners.py and
restorer.py as parts of it), service.py (ZKServiceBase), membership.py
(Membership, MembershipMonitor), queue.py (ZKQueue), utils.py
(StatePipeCondition). Not here: the meaning of the ZooKeeper calls and their
exceptions, which are those of nova_sg.zookeeper.
"""

from nova_sg.evzookeeper.calls import ZOO_OPEN_ACL_UNSAFE
from nova_sg.evzookeeper.listeners import (
    AUTH_FAILED,
    CLOSED,
    CONNECTED,
    EXPIRED,
    SUSPENDED,
)
from nova_sg.evzookeeper.service import ZKServiceBase
from nova_sg.evzookeeper.session import ZKSession

__all__ = [
    "AUTH_FAILED",
    "CLOSED",
    "CONNECTED",
    "EXPIRED",
    "SUSPENDED",
    "ZOO_OPEN_ACL_UNSAFE",
    "ZKServiceBase",
    "ZKSession",
]
