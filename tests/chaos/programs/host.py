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

"""A host's process with one member, or with many.

Its orders are: join; leave; block SECONDS. The last one has all of Python
stand still, as in a long call that keeps the interpreter's lock. It joins when
it starts.
"""

import ctypes

import journal
import members


def main(stack, order):
    book = journal.Journal(order["folder"])
    orders = journal.Orders(order["folder"])
    hosts = order["hosts"]
    service = stack.Stack(order["folder"], order["group"], hosts)
    _join(service, hosts, book)
    while True:
        words = orders.next()
        if words == ["join"]:
            _join(service, hosts, book)
        elif words == ["leave"]:
            _leave(service, hosts, book)
        elif words[0] == "block":
            book.tell("blocking")
            # PyDLL keeps the lock, where CDLL gives it away.
            ctypes.PyDLL(None).usleep(int(float(words[1]) * 1e6))
            book.tell("blocked")


def _join(service, hosts, book):
    members._each(hosts, service.join)
    book.tell("joined")


def _leave(service, hosts, book):
    failed = []

    def leave(host):
        try:
            service.leave(host)
        except Exception as error:
            failed.append(f"{host}: {error}")

    members._each(hosts, leave)
    if failed:
        book.tell("leave-failed", error=failed[0], count=len(failed))
    else:
        book.tell("left")
