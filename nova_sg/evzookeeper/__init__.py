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

"""evzookeeper's API on Python 3: ZooKeeper sessions that look after
themselves, and group membership on top of them.

The names, arguments and meaning are evzookeeper 0.4.0's. New are:

- No call blocks the hub, and the same code runs on native threads.
- Every call takes a `timeout` in seconds, and raises
  zookeeper.OperationTimeoutException after it.
- A session that expires is replaced. What was joined is joined again, in
  the order in which it was, and what was watched is watched again.
- close() ends the threads and gives back everything.

Here: session.py (ZKSession, with calls.py, listeners.py and restorer.py as
parts of it), service.py (ZKServiceBase), membership.py (Membership,
MembershipMonitor), queue.py (ZKQueue), utils.py (StatePipeCondition). Not
here: what the ZooKeeper calls mean, and their exceptions, which are
nova_sg.zookeeper's.
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
