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

"""The crash guard: a process that sees at once when its service crashes.

orders.py runs in the service: it starts the guard and gives it orders.
main.py runs in the guard, and so does the guard.py of each backend. These
import only the standard library, and as little of it as possible, as a guard
runs beside every service.

An *order* says what the guard does for a membership if the service ends
without leaving. It is a plain dict:

=========  ================================================================
backend    zk, mc or db: the backend whose guard.withdraw(order) executes it
members    what the backend needs for each member, by host, group and binary
within     seconds for which the guard tries
lock       a file on which every process on this host that reports for the
           same member holds a shared lock; None: each process is a member
           of its own
=========  ================================================================

and whatever else that guard.py needs. The members of a session, which all end
with it, have one order together, to which members are added one by one.
"""
