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

"""A host's process with one member. Its orders are: join; leave.

It joins when it starts.
"""

import journal


def main(stack, order):
    book = journal.Journal(order["folder"])
    orders = journal.Orders(order["folder"])
    [host] = order["hosts"]
    service = stack.Stack(order["folder"], order["group"], [host])
    _join(service, host, book)
    while True:
        words = orders.next()
        if words == ["join"]:
            _join(service, host, book)
        elif words == ["leave"]:
            try:
                service.leave(host)
                book.tell("left", host=host)
            except Exception as error:
                book.tell("leave-failed", host=host, error=str(error))


def _join(service, host, book):
    ok = service.join(host)
    book.tell("joined", host=host, reported=ok)
