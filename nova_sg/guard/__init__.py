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

"""A crash seen at once: a process that waits for the end of this one.

keeper.py is the service's side: it starts the guard and tells it what to do
should the service end. main.py is the guard's own, and so is the guard.py of
each backend. They import the standard library alone, and as little of it as
they can: a guard runs beside every service.

What it is told for a membership is a *will*, a plain dict:

=========  ================================================================
backend    zk, mc or db: the backend whose guard.withdraw(will) does it
who        the member and its group, in words
within     seconds for which to try
lock       a file that every process of this host which is the same member
           holds a shared lock on; None: each is a member by itself
=========  ================================================================

and what that module needs besides.
"""
