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

"""The second transport of nova_sg.evzookeeper: kazoo, in pure Python.

It is for systems without the C client, for TLS with host names, and for SASL.
transport.py has the functions of nova_sg.zookeeper that evzookeeper calls, on
sessions.py: one KazooClient is one session. client.py changes what kazoo does
when it connects; convert.py converts between kazoo's values and those of
nova_sg.zookeeper.

It runs on the threads that Python's threading makes: green ones in a process
that eventlet has patched. In such a process a session does not outlive a hub
that stands still, and in no process does it outlive a thread that holds
Python's interpreter lock. The C client's session does.

The package needs kazoo; importing it raises ImportError without.
"""

from nova_sg.kazoo_transport.transport import KazooTransport, Sasl

__all__ = ["KazooTransport", "Sasl"]
