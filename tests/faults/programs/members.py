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

"""A process with one member or hundreds.

Its orders are: join; leave; block SECONDS. The last one has all of Python
stand still, as in a long call that keeps the interpreter's lock.
"""

import ctypes
import threading

import journal


def main(stack, order):
    book = journal.Journal(order["folder"])
    orders = journal.Orders(order["folder"])
    hosts = order["hosts"]
    service = stack.Stack(order["folder"], order["group"], hosts)
    service.prepare(hosts)
    book.tell("prepared")
    while True:
        words = orders.next()
        if words == ["join"]:
            _each(hosts, lambda host: _join(service, host, book))
        elif words == ["leave"]:
            _each(hosts, lambda host: _leave(service, host, book))
        elif words[0] == "block":
            # PyDLL keeps the lock, where CDLL gives it away.
            ctypes.PyDLL(None).usleep(int(float(words[1]) * 1e6))
        book.tell("done", order=words[0])


def _join(service, host, book):
    if service.join(host):
        book.tell("joined", host=host)
    else:
        book.tell("refused", host=host)


def _leave(service, host, book):
    service.leave(host)
    book.tell("left", host=host)


def _each(hosts, do):
    """Call do(host) for each host, in eight threads."""
    threads = []
    ended = [threading.Event() for _ in range(8)]
    for number, end in enumerate(ended):
        share = hosts[number :: len(ended)]
        thread = threading.Thread(target=_share, args=[share, do, end])
        threads.append(thread)
        thread.start()
    for end in ended:
        end.wait()


def _share(hosts, do, end):
    try:
        for host in hosts:
            do(host)
    finally:
        end.set()
